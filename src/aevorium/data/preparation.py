"""What `aevorium data prepare` found in an export, for the steward's own console."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

__all__ = ["PreparationFindings", "Tally"]


@dataclass
class Tally:
    """What is counted while an export is read; `PreparationFindings` is its finished form.

    Attributes:
        rows: Rows read, per table.
        unknown_patients: Rows that refer to a patient whom patients.csv does not list, per table.
        after_reference: Rows left out because they are later than the given reference date, per table.
        unreadable: Cells that cannot be read, per "table.COLUMN" and what became of them.
        unknown_classes: Encounters per class that has no place in the schema.
        other_units: Measurements left out because of their unit, per column.
        social_findings: Rows of conditions that describe circumstances and are not counted.
        other_gender: Patients whose gender is neither M nor F.
        refused: Patients left out, per reason.
        clipped: Values moved to a bound of the schema, per column.
    """

    rows: Counter[str] = field(default_factory=Counter)
    unknown_patients: Counter[str] = field(default_factory=Counter)
    after_reference: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    unknown_classes: Counter[str] = field(default_factory=Counter)
    other_units: Counter[str] = field(default_factory=Counter)
    social_findings: int = 0
    other_gender: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    clipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class PreparationFindings:
    """What was kept, left out, clipped and missing, and why. Exact counts of real records: not to leave the node.

    Attributes:
        directory: The export.
        reference_date: The day at which ages are taken (for the dead: the day of death).
        reference_given: Whether that day was asked for, rather than being the export's last encounter.
        kept: Patients in the table.
        missing: Empty cells per column that may be empty.
        simulated: Whether the export was written by the sample generator.
        rows: See `Tally`, as for all that follow; only entries above zero.
    """

    directory: str
    reference_date: date
    reference_given: bool
    kept: int
    missing: Mapping[str, int]
    simulated: bool
    rows: Mapping[str, int]
    unknown_patients: Mapping[str, int]
    after_reference: Mapping[str, int]
    unreadable: Mapping[str, int]
    unknown_classes: Mapping[str, int]
    other_units: Mapping[str, int]
    social_findings: int
    other_gender: int
    refused: Mapping[str, int]
    clipped: Mapping[str, int]

    @classmethod
    def from_tally(
        cls,
        tally: Tally,
        *,
        directory: str,
        reference_date: date,
        reference_given: bool,
        kept: int,
        missing: Mapping[str, int],
        simulated: bool,
    ) -> PreparationFindings:
        """Freezes what was counted."""
        return cls(
            directory=directory,
            reference_date=reference_date,
            reference_given=reference_given,
            kept=kept,
            missing=missing,
            simulated=simulated,
            rows=dict(tally.rows),
            unknown_patients=_occurring(tally.unknown_patients),
            after_reference=_occurring(tally.after_reference),
            unreadable=_occurring(tally.unreadable),
            unknown_classes=_occurring(tally.unknown_classes),
            other_units=_occurring(tally.other_units),
            social_findings=tally.social_findings,
            other_gender=tally.other_gender,
            refused=_occurring(tally.refused),
            clipped=_occurring(tally.clipped),
        )

    def lines(self) -> list[str]:
        """The findings as sentences for people."""
        origin = "as given" if self.reference_given else "the last encounter of the export"
        lines = [
            f"{'Simulated export' if self.simulated else 'Export'} {self.directory!r}, "
            f"reference date {self.reference_date.isoformat()} ({origin}).",
            f"Rows read: {_listing(self.rows)}.",
            f"Patients kept: {self.kept:,} of {self.rows['patients']:,}.",
        ]
        lines += [f"Patients refused: {count:,}, {reason}." for reason, count in self.refused.items()]
        if self.clipped:
            lines.append(f"Values clipped to the bounds of the schema: {_listing(self.clipped)}.")
        if any(self.missing.values()):
            lines.append(f"Missing cells, kept as such: {_listing(self.missing)}.")
        lines += [f"Unreadable: {count:,} cells in {where}." for where, count in self.unreadable.items()]
        lines += [
            f"Encounter class {name!r} is unknown: {count:,} encounters are counted, but have no say in EncounterType."
            for name, count in self.unknown_classes.items()
        ]
        lines += [
            f"Measurements of {name} in an unexpected unit: {count:,}, left out."
            for name, count in self.other_units.items()
        ]
        if self.unknown_patients:
            lines.append(
                f"Rows of patients that patients.csv does not list, left out: {_listing(self.unknown_patients)}."
            )
        if self.after_reference:
            lines.append(f"Rows later than the reference date, left out: {_listing(self.after_reference)}.")
        if self.social_findings:
            lines.append(
                f"Conditions that describe circumstances (employment, education and the like): "
                f"{self.social_findings:,}, not counted in ConditionCount."
            )
        if self.other_gender:
            lines.append(f"Patients whose gender is neither M nor F: {self.other_gender:,}, kept as 'Other'.")
        return lines


def _occurring(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _listing(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
