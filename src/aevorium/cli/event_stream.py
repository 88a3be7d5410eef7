"""What happens, twice: for people on the terminal, and with `--json` as one line an event for other programs."""

from __future__ import annotations

import dataclasses

from aevorium.cli.console import Console
from aevorium.cli.progress_view import ProgressView
from aevorium.progress import ProgressEvent, event_name

__all__ = ["EventStream"]


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
        self._console.event(event_name(event), dataclasses.asdict(event))
        self._view(event)
