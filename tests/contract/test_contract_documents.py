"""Generated pages, launchers and house rules that a reviewer would otherwise have to remember."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from aevorium.cli.reference import pages
from aevorium.errors import CATALOGUE, AevoriumError
from aevorium.evaluation.score import DEFINITIONS
from aevorium.settings import Settings, environment_names

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["CLI.md", "SETTINGS.md", "ERRORS.md", "API_REFERENCE.md"])
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


_UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
_UNSAFE_CALLS = {"joblib.load", "torch.load", "eval", "exec", "os.system", "read_pickle"}


def _called(node: ast.Call) -> str:
    parts: list[str] = []
    target: ast.expr = node.func
    while isinstance(target, ast.Attribute):
        parts.insert(0, target.attr)
        target = target.value
    return ".".join([target.id, *parts]) if isinstance(target, ast.Name) else ".".join(parts)


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & _UNSAFE_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in _UNSAFE_MODULES
            assert (node.module or "") not in ("joblib", "torch") or "load" not in {a.name for a in node.names}
        elif isinstance(node, ast.Call):
            assert _called(node) not in _UNSAFE_CALLS
            unsafe = {"allow_pickle", "shell"}
            assert not [word for word in node.keywords if word.arg in unsafe and ast.unparse(word.value) != "False"]


def test_every_error_code_has_its_anchor() -> None:
    text = (ROOT / "docs" / "ERRORS.md").read_text(encoding="utf-8")
    anchors = [line.removeprefix("## ").lower() for line in text.splitlines() if line.startswith("## ")]
    assert anchors == [AevoriumError(code, "x").docs.partition("#")[2] for code in CATALOGUE]
    assert AevoriumError("INTERNAL", "x").docs.partition("#")[0] == "docs/ERRORS.md"


_OF_TRAINING = (
    "epsilon", "delta", "trust", "recipe", "pretraining_steps", "num_rounds", "training_epochs", "batch_size",
    "dp_noise_multiplier", "seed", "device", "min_nodes", "timeout",
)  # fmt: skip


@pytest.mark.parametrize("name", _OF_TRAINING)
def test_settings_of_training_are_described_with_their_defaults(name: str) -> None:
    text = (ROOT / "TRAINING_CONFIG.md").read_text(encoding="utf-8")
    variables = ", ".join(f"`{variable}`" for variable in dict.fromkeys(environment_names(name)))
    default = Settings.model_fields[name].default
    assert f"| {variables} | {'unset' if default is None else default} |" in text


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_score_is_explained_with_its_thresholds(name: str) -> None:
    lines = (ROOT / "docs" / "VALIDATION.md").read_text(encoding="utf-8").splitlines()
    explained = next((line for line in lines if line.startswith("| ") and f"`{name}`" in line), None)
    assert explained is not None
    definition = DEFINITIONS[name]
    if definition.good is not None:
        assert f"| {definition.good:.2f} | {definition.usable:.2f} |" in explained


def test_every_dependency_is_accounted_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[\[<>=!~ ]", line)[0] for line in wanted} - {"aevorium"}
    text = (ROOT / "docs" / "DEPENDENCIES.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    listed = {name.strip() for row in rows for name in row.split(",")}
    assert names - listed == set()
    assert listed - names - {"package", "---", "hatchling"} == set(), "listed, and not a dependency"


def test_imports_go_one_way() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    for contract in named:
        assert f"{contract['name']} KEPT" in finished.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from aevorium.cli.app import main; main(['--help']);"
        " heavy = {'torch', 'pandas', 'flwr', 'opacus', 'opendp', 'scipy', 'sklearn', 'pyarrow'} & set(sys.modules);"
        " sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "demo" in finished.stdout
