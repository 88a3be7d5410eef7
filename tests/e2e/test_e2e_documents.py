"""The commands of the documentation, typed in the order in which a page shows them, in an empty folder.

A page marks what is typed by a comment of its own line before the block: `<!-- run -->` before commands,
`<!-- file: NAME -->` before what the reader saves under that name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
_MARKED = re.compile(
    r"^<!-- (?:(?P<run>run)|file: (?P<file>[\w.-]+)) -->\n+```\w*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARK = re.compile(r"^<!-- (?:run|file:)", re.MULTILINE)

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for a POSIX shell"),
]


@dataclass(frozen=True)
class Block:
    """What a page asks its reader to type, or to save.

    Attributes:
        text: The block without its fences.
        file: The name to save it under; None where it is typed.
    """

    text: str
    file: str | None


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [Block(match["text"], match["file"]) for match in _MARKED.finditer(text)]
    assert len(found) == len(_MARK.findall(text)), f"{page.name}: a mark without a block behind it"
    return found


def with_commands(page: Path) -> bool:
    return any(block.file is None for block in blocks_of(page))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell in which `aevorium` and `python` are those of the tests, and little is trained."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in (("aevorium", f'"{sys.executable}" -m aevorium'), ("python", f'"{sys.executable}"')):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
    home = {"AEVORIUM_KEY_FILE": tmp_path / "keys" / "checkpoint.key", "AEVORIUM_NODE_HOME": tmp_path / "home"}
    return {
        **os.environ,
        **{name: str(path) for name, path in home.items()},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "AEVORIUM_PRETRAINING_STEPS": "20",
    }


def test_the_pages_that_a_newcomer_follows_have_marked_commands() -> None:
    names = {page.name for page in PAGES if with_commands(page)}
    assert {"QUICK_START.md", "GETTING_STARTED.md", "TUTORIAL_SYNTHEA.md", "HOW_TO.md"} <= names


@pytest.mark.parametrize("page", [page for page in PAGES if with_commands(page)], ids=lambda page: page.stem)
def test_documented_commands_do_what_they_say(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    for block in blocks_of(page):
        if block.file is not None:
            (folder / block.file).write_text(block.text, encoding="utf-8")
            continue
        finished = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = (finished.stdout + finished.stderr)[-3000:]
        assert finished.returncode == 0, f"{page.name}:\n{block.text}\n{said}"
        assert "Traceback" not in said, f"{page.name}:\n{block.text}\n{said}"
