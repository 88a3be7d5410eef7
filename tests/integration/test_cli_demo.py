"""The demo and what people type after it, on a small budget of time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aevorium.cli.app import main


@pytest.mark.long
def test_the_demo_leaves_a_workspace_that_the_scripts_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("NUM_ROUNDS", "1"), ("TRAINING_EPOCHS", "1"), ("BATCH_SIZE", "128")):
        monkeypatch.setenv(name, value)
    assert main(["demo", "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)["data"]
    folder = Path(answer["workspace"])
    assert folder.parent == Path("workspace")
    assert answer["is_simulated"] is True
    assert {node["name"] for node in answer["nodes"]} == {"Hospital_A", "Hospital_B", "Hospital_C"}
    assert all(0 < node["spent"] <= 3.0 for node in answer["nodes"])
    assert {"shapes", "trends", "1way", "2way", "3way", "tstr", "trtr", "c2st", "dcr_share"} <= set(answer["scores"])
    assert "simulated" in captured.err.lower()
    for name in ("report.html", "report.local.html", "privacy_statement.md"):
        assert "simulated" in (folder / name).read_text(encoding="utf-8").lower()

    (folder / "synthetic_data.csv").unlink()
    assert main(["generate"]) == 0
    captured = capsys.readouterr()
    assert str(folder) in captured.err
    rows = (folder / "synthetic_data.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) - 1 == answer["rows"]
    assert main(["validate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["scores"] == answer["scores"]
    assert main(["budget", "show", "--node", "Hospital_B", "--json"]) == 0
    ledger = json.loads(capsys.readouterr().out)["data"]
    assert [release["phase"] for release in ledger["runs"][0]["releases"]] == [
        "count", "statistics", "associations", "associations", "training",
    ]  # fmt: skip
    assert main(["audit", "verify"]) == 0

    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["report", "--open"]) == 0
    assert opened == [(folder / "report.html").resolve().as_uri()]
    capsys.readouterr()
    assert main(["demo", "--workspace", str(folder)]) == 2
    assert "holds a run" in capsys.readouterr().err
