"""The mark of simulated patients: on an export folder, and on every patient's id.

Ids carry the mark so that it survives what people do with files: preparing, splitting, renaming, joining. A table
whose ids all bear it is simulated, wherever it lies.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["SIMULATED_FILE", "SIMULATED_PREFIX", "is_simulated", "looks_simulated"]

SIMULATED_FILE = "SIMULATED.md"
"""The file that marks a folder."""

SIMULATED_PREFIX = "simulated-"
"""How the id of a simulated patient begins."""


def is_simulated(directory: Path) -> bool:
    """Whether an export folder was written by the sample generator. Safe to release: reads no record."""
    return (directory / SIMULATED_FILE).is_file()


def looks_simulated(unit_ids: Iterable[object]) -> bool:
    """Whether a table holds simulated patients and no others. Reads patient records (their ids only).

    One id without the mark, or no id at all, makes it real: a mixed table must be protected like a real one.
    """
    ids = list(unit_ids)
    return bool(ids) and all(isinstance(unit, str) and unit.startswith(SIMULATED_PREFIX) for unit in ids)
