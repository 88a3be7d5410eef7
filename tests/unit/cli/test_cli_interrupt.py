"""Ctrl-C while nodes are at work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from aevorium.cli.console import Console
from aevorium.cli.interrupt import Interrupt
from aevorium.errors import ExitStatus

TOLD = "Stopping: the exchange that goes on is finished first"


@pytest.mark.parametrize("is_quiet", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_asks_to_stop_and_twice_stops(
    number: signal.Signals, is_quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with Interrupt(Console(is_quiet=is_quiet)) as interrupt:
        assert not interrupt.is_requested()
        signal.raise_signal(number)
        assert interrupt.is_requested()
        assert TOLD in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt(Console()) as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert not interrupt.is_requested()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


SECOND = """
import signal
import threading
from aevorium.cli.console import Console
from aevorium.cli.interrupt import Interrupt

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=threading.Event().wait).start()
with Interrupt(Console(is_json=True), leaves=True):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
"""


def test_a_second_one_leaves_though_a_node_never_ends() -> None:
    left = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, encoding="utf-8", timeout=60)
    assert left.returncode == ExitStatus.FAILED
    assert json.loads(left.stdout)["error"]["code"] == "RUN_INTERRUPTED"
    assert TOLD in left.stderr
    assert "left at once" in left.stderr
