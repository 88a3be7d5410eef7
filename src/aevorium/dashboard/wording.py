"""How values are written for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import streamlit as st

__all__ = [
    "STATES",
    "VERDICTS",
    "count",
    "delta",
    "epsilon",
    "epsilon_left",
    "moment",
    "names",
    "number_of",
    "plain",
    "table",
]

NOTHING = "–"

STATES: Mapping[str, str] = {
    "queued": "waiting its turn",
    "running": "running",
    "succeeded": "finished",
    "failed": "failed",
    "stopped": "stopped",
}

VERDICTS: Mapping[str, str] = {"good": "good", "usable": "usable", "do not use": "do not use", "info": "no verdict"}

_THOUSANDTH = Decimal("0.001")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def number_of(value: float | str | None) -> float | None:
    """A number of the API, which writes infinity as text."""
    return None if value is None else float(value)


def epsilon(value: float | str | None) -> str:
    """ε with three decimals, rounded up: what was spent is never understated."""
    return _thousandths(value, ROUND_CEILING)


def epsilon_left(value: float | str | None) -> str:
    """The same rounded down, for what may still be spent."""
    return _thousandths(value, ROUND_FLOOR)


def _thousandths(value: float | str | None, rounding: str) -> str:
    number = number_of(value)
    if number is None:
        return NOTHING
    if number == float("inf"):
        return "∞"
    return f"{Decimal(str(number)).quantize(_THOUSANDTH, rounding=rounding):,}"


def delta(value: float) -> str:
    """δ, as in 1e-05."""
    return f"{value:g}"


def count(value: float | None) -> str:
    """A number of things."""
    return NOTHING if value is None else f"{value:,.0f}"


def moment(text: str | None) -> str:
    """A time of the API (ISO 8601, UTC), to the minute."""
    if not text:
        return NOTHING
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


def names(values: Sequence[str]) -> str:
    """A list of names."""
    return ", ".join(values) if values else NOTHING


def plain(text: str) -> str:
    """Text that others wrote, as it is: no mark-up in it counts, so it can neither link nor load anything."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """Draws a small table, which a screen reader reads as one.

    Args:
        header: Names of the columns.
        rows: Cells as text.
        numbers: The columns that hold numbers.
    """
    rules = ["---:" if name in numbers else "---" for name in header]
    cells = [header, rules, *([plain(cell) for cell in row] for row in rows)]
    lines = [f"| {' | '.join(each)} |" for each in cells]
    st.markdown("\n".join(lines))
