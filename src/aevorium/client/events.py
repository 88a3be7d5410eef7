"""Server-sent events, as the API tells the story of an order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Event", "read_events"]


@dataclass(frozen=True)
class Event:
    """Something that an order told.

    Attributes:
        number: Ascending; None for the last event, which tells that it has ended.
        name: What happened: "phase_started", "round_finished", "nodes_online", "step_progress" or "ended".
        data: The particulars.
    """

    number: int | None
    name: str
    data: Mapping[str, Any]


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """Reads a stream of server-sent events.

    Args:
        lines: The stream's lines, without their ends.
    """
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields:
            number = int(fields["id"]) if "id" in fields else None
            yield Event(number, fields["event"], json.loads(fields.get("data", "{}")))
        fields = {}
