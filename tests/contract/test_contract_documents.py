"""Generated pages, launchers and house rules that a reviewer would otherwise have to remember."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aevorium.cli.reference import pages

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["CLI.md", "SETTINGS.md", "ERRORS.md"])
def test_generated_pages_are_current(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert text == pages()[name], "type: python -m aevorium.cli.reference docs"


@pytest.mark.parametrize("name", ["dry_run.py", "generate_samples.py", "validate_data.py"])
def test_launchers_are_one_import_and_one_call(name: str) -> None:
    statements = ast.parse((ROOT / name).read_text(encoding="utf-8")).body[1:]
    assert [type(statement) for statement in statements] == [ast.ImportFrom, ast.Expr]


def test_start_needs_the_standard_library_alone() -> None:
    tree = ast.parse((ROOT / "start.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_nothing_is_unpickled_or_evaluated() -> None:
    banned = re.compile(r"pickle\.load|joblib\.load|torch\.load\(|allow_pickle=True|(?<![\w.])(eval|exec)\(|shell=True")
    for path in (ROOT / "src").rglob("*.py"):
        assert not banned.search(path.read_text(encoding="utf-8")), path.name


def test_links_of_the_readme_lead_somewhere() -> None:
    for text in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text.read_text(encoding="utf-8")):
            assert "://" in link or (text.parent / link).exists(), f"{text.name}: {link}"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from aevorium.cli.app import main; main(['--help']);"
        " heavy = {'torch', 'pandas', 'flwr', 'opacus', 'opendp', 'scipy', 'sklearn', 'pyarrow'} & set(sys.modules);"
        " sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "demo" in finished.stdout
