"""The table of all results, as Markdown and CSV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.fidelity.results import Result, summarise

__all__ = ["write_report"]


def write_report(results: Iterable[Result], *, folder: Path, cache: Path) -> None:
    """Writes the table."""
    summarise(results)
