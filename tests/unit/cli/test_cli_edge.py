"""The process's edge: envelopes, global flags, and what becomes of every kind of failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aevorium.cli.app import main
from aevorium.cli.console import plain


def _failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("aevorium.settings.load_settings", load)
    monkeypatch.setattr("aevorium.settings.log_folder", lambda: tmp_path / "logs")


@pytest.mark.parametrize(
    "arguments", [["--json", "config", "show"], ["config", "--json", "show"], ["config", "show", "--json"]]
)
def test_global_flags_may_stand_anywhere(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert (answer["schema_version"], answer["status"]) == (1, "ok")
    assert answer["data"]["epsilon"] == {
        "value": 3.0,
        "origin": "default",
        "origin_name": "default",
        "environment": ["AEVORIUM_EPSILON"],
        "description": answer["data"]["epsilon"]["description"],
    }
    assert "AEVORIUM_EPSILON" in captured.err


def test_without_json_the_result_is_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show"]) == 0
    captured = capsys.readouterr()
    assert "AEVORIUM_EPSILON" in captured.out
    assert captured.err == ""
    assert main(["config", "show", "--json", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments",
    [["--json"], ["audit", "--json"], ["--json", "nonsense"], ["plan", "--json"], ["plan", "--json", "--records", "x"]],
)
def test_wrong_usage_is_an_envelope_too(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "CONFIG_INVALID"


def test_wrong_usage_says_where_help_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--record", "3"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == "what to do: Type: aevorium plan --help"
    assert main([]) == 2
    assert "Usage: aevorium" in "".join(capsys.readouterr())


def test_help_and_version_are_no_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert main(["run", "-h"]) == 0
    assert main(["--version"]) == 0
    assert "aevorium 0." in capsys.readouterr().out


def test_a_bug_of_ours_is_logged_for_its_owner_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, tmp_path, RuntimeError("quotes a patient"))
    assert main(["config", "show", "--json"]) == 5
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == "INTERNAL"
    assert "quotes a patient" not in captured.err + captured.out
    assert "Traceback" not in captured.err
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in captured.err
    assert "quotes a patient" in log.read_text(encoding="utf-8")
    assert log.stat().st_mode & 0o077 == 0
    assert main(["config", "show", "--verbose"]) == 5
    assert "Traceback" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, tmp_path, RuntimeError("quotes a patient"))
    (tmp_path / "logs").write_text("a file is in the way", encoding="utf-8")
    assert main(["config", "show"]) == 5
    assert "(INTERNAL)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (KeyboardInterrupt(), 1, "RUN_INTERRUPTED"),
        (ModuleNotFoundError("No module named 'flwr'", name="flwr"), 2, "DEPENDENCY_MISSING"),
        (ModuleNotFoundError("No module named 'aevorium.x'", name="aevorium.x"), 5, "INTERNAL"),
    ],
)
def test_other_failures_have_their_own_status(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    code: str,
) -> None:
    _failing(monkeypatch, tmp_path, error)
    assert main(["config", "show", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_what_json_cannot_hold_is_written_as_text() -> None:
    value = {"a": float("inf"), "b": [float("nan"), -float("inf")], "c": (Path("x"), None, 1.5)}
    assert plain(value) == {"a": "Infinity", "b": ["NaN", "-Infinity"], "c": ["x", None, 1.5]}
