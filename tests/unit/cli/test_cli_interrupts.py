"""Ctrl-C while nodes are at work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from aevorium.cli.console import Console
from aevorium.cli.progress_view import ProgressView
from aevorium.errors import ExitStatus
from aevorium.progress import PhaseStarted

TOLD = "Stopping: waiting for the nodes that are at work; what they release stays charged."


@pytest.fixture(autouse=True)
def usual_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("is_quiet", [False, True])
def test_it_is_told_where_the_wait_begins(is_quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(Console(is_quiet=is_quiet)) as view:
        view(PhaseStarted("training", nodes=2))
        capsys.readouterr()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        told = capsys.readouterr().err
    assert TOLD in told
    assert "Ctrl-C again" in told
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_is_told_while_no_node_works(capsys: pytest.CaptureFixture[str]) -> None:
    for phases in ([], [PhaseStarted("training", nodes=2), PhaseStarted("report")]):
        with ProgressView(Console()) as view:
            for phase in phases:
                view(phase)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert "Stopping" not in capsys.readouterr().err


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ProgressView(Console()) as view:
        view(PhaseStarted("training", nodes=2))
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


SECOND = """
import signal
import threading
from aevorium.cli.console import Console
from aevorium.cli.progress_view import ProgressView
from aevorium.progress import PhaseStarted

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=threading.Event().wait).start()
with ProgressView(Console(is_json=True)) as view:
    view(PhaseStarted("training", nodes=2))
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGINT)
"""


def test_a_second_one_leaves_though_a_node_never_ends() -> None:
    left = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, encoding="utf-8", timeout=60)
    assert left.returncode == ExitStatus.FAILED
    assert json.loads(left.stdout)["error"]["code"] == "RUN_INTERRUPTED"
    assert TOLD in left.stderr
    assert "left at once" in left.stderr
