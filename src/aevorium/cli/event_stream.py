"""What happens, twice: for people on the terminal, and with `--json` as one line an event for other programs."""

from __future__ import annotations

import dataclasses
import re

from aevorium.cli.console import Console
from aevorium.cli.progress_view import ProgressView
from aevorium.progress import ProgressEvent

__all__ = ["EventStream"]

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class EventStream:
    """A `progress.Report` that shows events and writes them.

    Args:
        view: Shows them.
        console: Writes them.
    """

    def __init__(self, view: ProgressView, *, console: Console) -> None:
        self._view, self._console = view, console

    def __call__(self, event: ProgressEvent) -> None:
        """Shows and writes one event."""
        kind = _CAPITAL.sub("_", type(event).__name__).lower()
        self._console.event(kind, dataclasses.asdict(event))
        self._view(event)
