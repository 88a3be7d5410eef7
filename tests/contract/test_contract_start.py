"""`start.py`: what it says before anything is installed, and when the installation fails."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with an environment in a folder of its own."""
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "python")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "installed.txt")
    monkeypatch.setattr(module, "LOG", tmp_path / "install.log")
    monkeypatch.setattr(module, "has_pip", lambda: True)
    (tmp_path / ".venv").mkdir()
    return module


def _pip(monkeypatch: pytest.MonkeyPatch, *, output: str, status: int) -> list[list[str]]:
    """Stands in for pip; returns the commands that it was called with."""
    calls: list[list[str]] = []

    def popen(command: list[str], **kwargs: object) -> SimpleNamespace:
        calls.append(command)
        return SimpleNamespace(stdout=io.StringIO(output), wait=lambda: status)

    monkeypatch.setattr(subprocess, "Popen", popen)
    return calls


def test_a_second_start_installs_nothing(start: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _pip(monkeypatch, output="Collecting x\n", status=0)
    start.install(cpu=False)
    start.install(cpu=False)
    assert len(calls) == 1
    assert "--extra-index-url" not in calls[0]
    start.STAMP.write_text("made from other requirements")
    start.install(cpu=True)
    assert calls[1][-2:] == ["--extra-index-url", start.CPU_INDEX]


def test_a_failed_installation_shows_its_last_lines_and_is_tried_again(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = _pip(monkeypatch, output="Collecting x\nERROR: no network\n", status=1)
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            start.install(cpu=False)
        assert caught.value.code == 1
    assert len(calls) == 2
    said = capsys.readouterr().out
    assert "ERROR: no network" in said
    assert "install.log" in said
    assert "no network" in start.LOG.read_text()


def test_an_environment_that_an_interruption_left_is_made_anew(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[bool] = []
    _pip(monkeypatch, output="", status=0)
    monkeypatch.setattr(start, "has_pip", lambda: False)
    monkeypatch.setattr(start.venv, "create", lambda folder, *, with_pip, clear: made.append(clear))
    start.install(cpu=False)
    assert made == [True]

    def fail(*args: object, **kwargs: object) -> None:
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(start.venv, "create", fail)
    start.STAMP.unlink()
    with pytest.raises(SystemExit):
        start.install(cpu=False)
    assert "python3-venv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ([], ["-m", "aevorium", "demo"]),
        (["test"], ["-m", "pytest", "-q"]),
        (["test", "-x"], ["-m", "pytest", "-q", "-x"]),
        (["--cpu", "demo", "--seed", "3"], ["-m", "aevorium", "demo", "--seed", "3"]),
    ],
)
def test_each_verb_runs_its_command(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, verb: list[str], expected: list[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(start, "install", lambda *, cpu: None)
    monkeypatch.setattr(start, "run", lambda arguments: ran.append(arguments) or 7)
    monkeypatch.setattr(sys, "argv", ["start.py", *verb])
    assert start.main() == 7
    assert ran == [expected]


def test_check_runs_all_and_says_what_mends_each_failure(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start, "install", lambda *, cpu: None)
    monkeypatch.setattr(sys, "argv", ["start.py", "check"])
    monkeypatch.setattr(start, "run", lambda arguments: 0)
    assert start.main() == 0
    assert "failed" not in capsys.readouterr().out
    monkeypatch.setattr(start, "run", lambda arguments: 1 if "ruff" in arguments else 0)
    assert start.main() == 1
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == [
        "lint failed. What mends it: python -m ruff check --fix .",
        "format failed. What mends it: python -m ruff format .",
    ]


def test_an_old_python_and_an_unknown_verb_are_told(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["start.py", "instal"])
    assert start.main() == 2
    assert "start.py install" in capsys.readouterr().out
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert start.main() == 2
    assert "needs Python 3.11" in capsys.readouterr().out
