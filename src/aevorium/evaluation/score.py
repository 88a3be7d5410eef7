"""`Score` and `Scorecard`: a number is never shown without its direction, reference, verdict and reading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "CARD_COLUMNS",
    "DEFINITIONS",
    "EXACT_MARKING",
    "Definition",
    "Direction",
    "Score",
    "Scorecard",
    "Verdict",
    "format_value",
    "percent",
]

Direction = Literal["higher is better", "lower is better"]
Verdict = Literal["good", "usable", "do not use", "info"]

EXACT_MARKING = "exact statistics of real records: do not share"
"""What a card made from real rows is marked with."""

CARD_COLUMNS = ("score", "value", "95% interval", "reference", "verdict", "reading")
"""Headings of `Scorecard.rows`."""


@dataclass(frozen=True)
class Definition:
    """What is fixed of a score before it is measured.

    Attributes:
        title: Its name for people.
        group: The heading that it stands under.
        direction: Which values are better.
        good: Largest gap to the reference, on the bad side, that is still good; None: no verdict by gap.
        usable: Largest gap that is still usable.
        alarm: What raises the alarm, for a score whose verdict is no more than that; "" otherwise.
    """

    title: str
    group: str
    direction: Direction
    good: float | None = None
    usable: float | None = None
    alarm: str = ""

    @property
    def thresholds(self) -> str:
        """The rule behind the verdict, for people."""
        if self.good is None or self.usable is None:
            return self.alarm or "no verdict: for information"
        return f"good: at most {self.good:g} worse than the reference; usable: at most {self.usable:g} worse"

    def judge(self, value: float, reference: float | None) -> Verdict:
        """The verdict by the gap to the reference; "info" without thresholds or reference."""
        if self.good is None or self.usable is None or reference is None:
            return "info"
        gap = reference - value if self.direction == "higher is better" else value - reference
        # thresholds are decimals: a gap of 0.03 that is computed as 0.030000000000000027 is still 0.03
        if gap <= self.good + 1e-12:
            return "good"
        return "usable" if gap <= self.usable + 1e-12 else "do not use"


_FIDELITY, _UTILITY, _CLOSENESS, _RELEASED = "Fidelity", "Utility", "Closeness to training rows", "Released tables"
_EVALUATION = "Evaluation tables"
_HIGHER: Direction = "higher is better"
_LOWER: Direction = "lower is better"

DEFINITIONS: Mapping[str, Definition] = {
    "shapes": Definition("Column shapes", _FIDELITY, _HIGHER, 0.02, 0.05),
    "trends": Definition("Column pair trends", _FIDELITY, _HIGHER, 0.03, 0.10),
    "trends_all": Definition("Column pair trends, all pairs", _FIDELITY, _HIGHER, 0.02, 0.06),
    "1way": Definition("Distance, single columns", _FIDELITY, _LOWER, 0.02, 0.06),
    "2way": Definition("Distance, pairs", _FIDELITY, _LOWER, 0.03, 0.10),
    "3way": Definition("Distance, triples", _FIDELITY, _LOWER, 0.05, 0.15),
    "missing_rate_error": Definition("Missing rates, largest error", _FIDELITY, _LOWER, 0.02, 0.05),
    "missing_by_target": Definition("Missing rates by target", _FIDELITY, _LOWER, 0.02, 0.06),
    "tstr": Definition("Trained on synthetic, tested on real", _UTILITY, _HIGHER, 0.03, 0.15),
    "trtr": Definition("Trained on real, tested on real", _UTILITY, _HIGHER),
    "c2st": Definition("Told apart from real rows", _UTILITY, _LOWER, 0.15, 0.40),
    "dcr_share": Definition(
        "Closer to a training row than to a holdout row",
        _CLOSENESS,
        _LOWER,
        alarm="usable: the interval lies above 0.5; do not use: above 0.55; no verdict otherwise",
    ),
    "exact_matches": Definition(
        "Equal to a training row",
        _CLOSENESS,
        _LOWER,
        alarm="do not use: the interval lies above that of the holdout's share; no verdict otherwise",
    ),
    "nndr": Definition("Nearest-neighbour distance ratio, 5th percentile", _CLOSENESS, _HIGHER),
    "released_1way": Definition("Distance to the released one-way tables, mean", _RELEASED, _LOWER, 0.02, 0.06),
    "released_worst": Definition("Distance to a released one-way table, largest", _RELEASED, _LOWER, 0.05, 0.15),
    "evaluation_1way": Definition("Distance to evaluation tables, single columns", _EVALUATION, _LOWER, 0.02, 0.06),
    "evaluation_2way": Definition("Distance to evaluation tables, pairs", _EVALUATION, _LOWER, 0.03, 0.10),
}
"""Every score by name."""


@dataclass(frozen=True)
class Score:
    """One measured number and all that is needed to read it.

    Attributes:
        name: A key of `DEFINITIONS`.
        value: The number; None if it was skipped (then `reading` says why).
        interval: 95% interval; None if none is known.
        reference: The value to compare with; None if there is none.
        reference_name: What the reference is.
        verdict: "good", "usable", "do not use", or "info" for none.
        reading: One sentence for people.
    """

    name: str
    value: float | None
    reading: str
    interval: tuple[float, float] | None = None
    reference: float | None = None
    reference_name: str = ""
    verdict: Verdict = "info"

    @classmethod
    def skipped(cls, name: str, reason: str) -> Score:
        """A score that could not be measured."""
        return cls(name, None, f"Skipped. {reason}")

    @classmethod
    def judged(
        cls,
        name: str,
        value: float,
        *,
        reading: str,
        reference: float | None,
        reference_name: str,
        interval: tuple[float, float] | None = None,
    ) -> Score:
        """A score with the verdict that its definition gives; a reference that is NaN counts as none."""
        known = None if reference is None or math.isnan(reference) else reference
        verdict = DEFINITIONS[name].judge(value, known)
        return cls(name, value, reading, interval, known, reference_name if known is not None else "", verdict)

    @property
    def definition(self) -> Definition:
        """What is fixed of it."""
        return DEFINITIONS[self.name]

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.definition.title

    @property
    def direction(self) -> Direction:
        """Which values are better."""
        return self.definition.direction

    @property
    def thresholds(self) -> str:
        """The rule behind the verdict."""
        return self.definition.thresholds

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "title": self.title,
            "group": self.definition.group,
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "reference": self.reference,
            "reference_name": self.reference_name,
            "direction": self.direction,
            "verdict": self.verdict,
            "thresholds": self.thresholds,
            "reading": self.reading,
        }


@dataclass(frozen=True)
class Scorecard:
    """Scores of one synthetic table. There is no total, and no single number for privacy: that is ε.

    Attributes:
        scores: In reading order.
        compared_with: What the table was compared with, as the end of a sentence.
        marking: How the card may be used; `EXACT_MARKING` if it was made from real rows, "" if it may be shared.
        simulated: Whether the data were simulated.
        notes: What a reader must know, most important first.
    """

    scores: tuple[Score, ...]
    compared_with: str
    marking: str = ""
    simulated: bool = False
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Score:
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `report.json` and the `--json` envelope."""
        return {
            "schema_version": 1,
            "marking": self.marking,
            "simulated": self.simulated,
            "compared_with": self.compared_with,
            "notes": list(self.notes),
            "scores": [score.to_json() for score in self.scores],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """One row of text a score, under `CARD_COLUMNS`."""
        return [
            (
                score.title,
                format_value(score.value),
                "" if score.interval is None else " to ".join(format_value(bound) for bound in score.interval),
                "" if score.reference is None else f"{format_value(score.reference)} ({score.reference_name})",
                score.verdict,
                score.reading,
            )
            for score in self.scores
        ]


def format_value(value: float | None) -> str:
    """Three decimals; "–" for none."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def percent(share: float) -> str:
    """A share as text with one decimal."""
    return "–" if math.isnan(share) else f"{100 * share:.1f}%"
