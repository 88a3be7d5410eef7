"""The parts of the data on a machine where several nodes are tried out: each node takes one that is free.

In a hospital there is one node and one table (`--data`). On a desk, `data/csv` holds the exports of a few hospitals,
or nothing: then simulated hospitals take their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from aevorium.data.partition import main_organisations, split_by_organisation
from aevorium.data.sample import HOLDOUT_NAME, write_sample
from aevorium.data.synthea import prepare_export, write_patients
from aevorium.errors import ConfigError
from aevorium.node.home import NodeHome

__all__ = ["DataPart", "claim_part", "find_parts", "prepare_part"]

_SAMPLE_ADULTS = (420, 360, 300, 420, 360)
_SAMPLE_HOLDOUT = 600
_SPLIT = 2
"""Parts of a single export: the two terminals of the quick start."""


@dataclass(frozen=True)
class DataPart:
    """One node's part.

    Attributes:
        name: Name of the part, and of the node that takes it.
        source: An export's folder or a table; None for a simulated hospital.
        index: Which part of the export it is, from 0; None for all of it.
    """

    name: str
    source: Path | None
    index: int | None = None


def find_parts(folder: Path) -> list[DataPart]:
    """What there is in a folder: exports in folders of their own, one export, tables, or nothing.

    Args:
        folder: Such as `data/csv`.

    Returns:
        The parts in order of name; simulated hospitals if the folder holds nothing.
    """
    exports = sorted(path for path in folder.glob("*") if path.is_dir() and _is_export(path))
    if exports:
        return [DataPart(path.name, path) for path in exports if path.name != HOLDOUT_NAME]
    if _is_export(folder):
        return [DataPart(f"Part_{index + 1}", folder, index) for index in range(_SPLIT)]
    tables = sorted(path for path in folder.glob("*") if path.suffix in (".csv", ".parquet"))
    if tables:
        return [DataPart(path.stem, path) for path in tables]
    return [DataPart(f"Hospital_{chr(ord('A') + place)}", None) for place in range(len(_SAMPLE_ADULTS))]


@contextmanager
def claim_part(parts: list[DataPart], *, root: Path) -> Iterator[tuple[NodeHome, DataPart]]:
    """Takes the first part that no other node of this machine has, and holds it.

    Args:
        parts: The parts.
        root: The folder of nodes' homes.

    Raises:
        ConfigError: DATA_PART_TAKEN, if there is none.
    """
    for part in parts:
        home = NodeHome(root / part.name)
        with home.claim() as is_claimed:
            if is_claimed:
                yield home, part
                return
    raise ConfigError(
        "DATA_PART_TAKEN",
        f"All {len(parts)} parts of the data ({', '.join(part.name for part in parts)}) are held by nodes already.",
    )


def prepare_part(part: DataPart, *, home: NodeHome) -> tuple[Path, Path | None, list[str]]:
    """Makes a part's table. Reads patient records.

    Args:
        part: The part.
        home: The home of the node that took it.

    Returns:
        The table, a table of simulated patients of no hospital (or None), and what was found, for the node's own
        steward.

    Raises:
        DataError: What is wrong with the export.
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    if part.source is not None and part.source.is_file():
        return part.source, None, []
    holdout = None
    export = part.source
    if export is None:
        export, holdout = _simulate(part.name, root=home.folder.parent)
    prepared = prepare_export(export)
    frame = prepared.frame
    if part.index is not None:
        pieces = split_by_organisation(frame, organisations=main_organisations(export), parts=_SPLIT)
        frame = pieces[part.index]
    table = home.folder / "patients.csv"
    write_patients(frame, table)
    return table, holdout, prepared.findings.lines()


def _simulate(name: str, *, root: Path) -> tuple[Path, Path]:
    """The export of a simulated hospital, and a table of patients of none; made once for all nodes of a machine."""
    folder = root / "simulated"
    folder.mkdir(parents=True, exist_ok=True)
    holdout = folder / "holdout.csv"
    with FileLock(folder / ".lock"):
        if not holdout.is_file():
            write_sample(
                folder,
                seed=0,
                hospitals=len(_SAMPLE_ADULTS),
                patients=list(_SAMPLE_ADULTS),
                holdout=_SAMPLE_HOLDOUT,
            )
            write_patients(prepare_export(folder / HOLDOUT_NAME).frame, holdout)
    return folder / name, holdout


def _is_export(folder: Path) -> bool:
    return any(folder.glob("patients.csv*")) and any(folder.glob("encounters.csv*"))
