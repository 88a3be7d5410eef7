"""The demo: three simulated hospitals, one model, a synthetic table, and how good it is on patients kept aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aevorium.data.sample import write_sample
from aevorium.data.synthea import prepare_export, write_patients
from aevorium.progress import PhaseStarted, Report

__all__ = ["DemoTables", "make_tables"]

_ADULTS = (420, 360, 300)
_HOLDOUT = 600


@dataclass(frozen=True)
class DemoTables:
    """Tables of simulated patients.

    Attributes:
        nodes: One for each hospital, by name.
        holdout: Patients of no hospital.
    """

    nodes: dict[str, Path]
    holdout: Path


def make_tables(
    folder: Path, *, seed: int, report: Report, adults: Sequence[int] = _ADULTS, holdout: int = _HOLDOUT
) -> DemoTables:
    """Writes simulated Synthea exports and prepares them as real ones would be.

    Args:
        folder: Where exports and tables go.
        seed: Fixes the patients.
        report: Takes the progress.
        adults: Adults of each hospital.
        holdout: Adults kept aside.
    """
    report(PhaseStarted("sample"))
    hospitals = write_sample(
        folder / "exports", seed=seed, hospitals=len(adults), patients=list(adults), holdout=holdout
    )
    report(PhaseStarted("prepare"))
    nodes: dict[str, Path] = {}
    kept = folder / "holdout.csv"
    for hospital in hospitals:
        target = kept if hospital.is_holdout else folder / f"{hospital.name}.csv"
        write_patients(prepare_export(hospital.directory).frame, target)
        if not hospital.is_holdout:
            nodes[hospital.name] = target
    return DemoTables(nodes=nodes, holdout=kept)
