"""Progress in a log and on a terminal, and which workspace a command means."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

import pytest
import rich.console

from aevorium.cli.console import Console
from aevorium.cli.progress_view import ProgressView, duration
from aevorium.cli.workspaces import existing_workspace, new_demo_folder
from aevorium.progress import NodeNotice, PhaseStarted, RoundFinished, StepProgress
from aevorium.workspace import Workspace


def _round(number: int, **changes: float) -> RoundFinished:
    values = {"loss": 0.5, "loss_noise": 0.1, "spent": 1.25, "left": 1.75, "seconds": 12.0, "remaining": 24.0}
    return RoundFinished(round=number, rounds=3, nodes_ok=2, nodes_asked=3, **{**values, **changes})


EVENTS = [
    PhaseStarted("count", nodes=3),
    NodeNotice("a", "[red]412 rows[/red]"),
    StepProgress("generating rows", 10, 20),
    StepProgress("generating rows", 20, 20),
    PhaseStarted("training", nodes=1),
    _round(1),
    _round(2, spent=float("inf"), left=float("inf")),
]


def test_a_log_has_one_line_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(Console()) as view:
        for event in EVENTS:
            view(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 6
    assert lines[1] == "  [a, for its steward only] [red]412 rows[/red]"
    assert lines[2] == "Generating rows: 20 of 20"
    assert lines[4] == (
        "round 1/3: nodes 2/3, loss (noisy) 0.500 ± 0.100, ε spent 1.250, ε left (lowest node) 1.750, 12 s, ETA 24 s"
    )
    assert "ε spent ∞" in lines[5]


def test_a_log_hears_of_a_long_step_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 15.0, 30.0, 45.0, 70.0, 71.0, 100.0, 101.0])
    with ProgressView(Console(), clock=lambda: next(times)) as view:
        for done in (0, 0, 0, 10, 10, 200, 0, 50):
            view(StepProgress("generating rows", done, 200))
    assert capsys.readouterr().err.splitlines() == [
        "Generating rows: 0 of 200",
        "Generating rows: 10 of 200, ETA 22 min 10 s",
        "Generating rows: 200 of 200",
    ]


def test_a_terminal_gets_one_heading_and_a_row_a_round() -> None:
    console = Console()
    screen = io.StringIO()
    console._notes = rich.console.Console(file=screen, force_terminal=True, width=100, color_system=None, markup=False)
    with ProgressView(console) as view:
        for event in EVENTS:
            view(event)
    text = screen.getvalue()
    assert text.count("nodes ok") == 1
    assert "    1/3       2/3    0.500 ± 0.100     1.250     1.750      12 s      24 s" in text


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(Console(is_quiet=True)) as view:
        for event in EVENTS:
            view(event)
    assert "".join(capsys.readouterr()) == ""


def test_durations_are_for_people() -> None:
    assert [duration(seconds) for seconds in (0.2, 59.4, 59.6, 61, 3600)] == [
        "0 s", "59 s", "1 min 00 s", "1 min 01 s", "60 min 00 s",
    ]  # fmt: skip


def _run_in(folder: Path) -> None:
    folder.mkdir(parents=True)
    Workspace(folder).database.touch()


def test_the_newest_demo_stands_in_for_a_folder_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    assert existing_workspace(tmp_path / "none", console=console).root == tmp_path / "none"
    for name in ("demo-20250101-000000", "demo-20260101-000000"):
        _run_in(tmp_path / name)
    (tmp_path / "demo-20270101-000000").mkdir()
    assert existing_workspace(tmp_path, console=console).root == tmp_path / "demo-20260101-000000"
    assert "demo-20260101-000000" in capsys.readouterr().err
    Workspace(tmp_path).database.touch()
    assert existing_workspace(tmp_path, console=console).root == tmp_path
    assert capsys.readouterr().err == ""


def test_every_demo_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5)
    names = []
    for _ in range(3):
        folder = new_demo_folder(tmp_path, now=now)
        folder.mkdir()
        names.append(folder.name)
    assert names == ["demo-20260102-030405", "demo-20260102-030405-2", "demo-20260102-030405-3"]
    assert sorted(names) == names
