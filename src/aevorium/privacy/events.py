"""Privacy events: what a release costs, as data.

An event names a mechanism and the public parameters that fix its privacy loss, under add/remove adjacency (one
patient's record is there or not). ε is always computed *from* events and never stored as the truth.

A run may divide its patients into two groups, those that it trains on and a holdout. `units` says which of them a
release was computed from. A patient's group is fixed by a secret key of the node and the patient's id, before the run
and whatever it releases; neighbours differ in one patient, who is in exactly one group. A release computed from the
other group is distributed alike with and without that patient, given all that was released before, so it adds nothing
to the patient's privacy loss (parallel composition: McSherry 2009, Theorem 4). What a run costs is therefore the
larger of what its two groups are charged (`cost_groups`), not the sum.

The JSON form is kept for ever. A kind is never removed, a field never changes its meaning, and a new field is
optional; a mechanism that changes is a new kind. An unknown kind or field is refused rather than guessed at.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

__all__ = [
    "DiscreteGaussian",
    "DiscreteGaussianSum",
    "DiscreteLaplace",
    "NonPrivate",
    "PrivacyEvent",
    "SampledDiscreteGaussianSum",
    "SampledGaussian",
    "Units",
    "amount_of",
    "cost_groups",
    "events_from_json",
    "events_to_json",
    "is_within",
    "merge_events",
    "with_shares",
]


Units = Literal["all", "training", "holdout"]
"""Whose records a release is computed from: everybody's, or those of one of two disjoint groups of a run."""


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: ClassVar[str | None] = None
    """The field that says how often the mechanism is applied; None if it is applied once."""

    purpose: str = Field(min_length=1, description="What the release is for, in a few words.")
    units: Units = Field(
        default="all",
        exclude_if=lambda units: units == "all",
        description="Whose records it is computed from; absent = those of all patients.",
    )


class DiscreteLaplace(_Event):
    """An integer count of sensitivity 1 plus two-sided geometric noise: pure ε-DP.

    The noise z has probability proportional to exp(-ε·|z|) (Ghosh, Roughgarden & Sundararajan 2009).
    """

    kind: Literal["discrete_laplace"] = "discrete_laplace"
    epsilon: float = Field(gt=0, allow_inf_nan=False, description="The ε of the mechanism; its scale is 1/ε.")


class DiscreteGaussian(_Event):
    """`count` numbers or disjoint-cell histograms, each plus independent discrete Gaussian noise.

    The noise z of each number has probability proportional to exp(-z²/(2σ²)) (Canonne, Kamath & Steinke 2020).

    Why a whole histogram costs as much as one number: adding or removing a record changes exactly one cell of a
    histogram with disjoint cells, by exactly one. The noises of the other cells have the same distribution with and
    without the record and are independent of that cell, so the pair of output distributions has the privacy loss of
    one scalar discrete Gaussian of sensitivity 1. C such histograms (one per column, say) are therefore dominated by
    C scalar discrete Gaussians, composed. Which histogram is taken may depend on earlier noisy output, since each is
    dominated by the same pair whatever it counts (Zhu, Dong & Wang 2022, Theorem 10).

    Why a change smaller than the sensitivity costs no more: the noise is log-concave, so the divergence between the
    noise and its shifted copy grows with the shift.
    """

    amount: ClassVar[str | None] = "count"

    kind: Literal["discrete_gaussian"] = "discrete_gaussian"
    sigma: float = Field(gt=0, allow_inf_nan=False, description="Parameter σ of the noise, in the unit of the number.")
    sensitivity: int = Field(default=1, ge=1, description="Largest change of one number by one record.")
    count: int = Field(default=1, ge=1, description="How many such numbers or histograms are released.")


class SampledGaussian(_Event):
    """Steps of DP-SGD: a sum over a Poisson sample of clipped vectors, plus Gaussian noise.

    Each record enters each step independently with probability `sampling_rate`; the noise's standard deviation is
    `noise_multiplier` times the clipping norm (Abadi et al. 2016; Mironov, Talwar & Zhang 2019).
    """

    amount: ClassVar[str | None] = "steps"

    kind: Literal["sampled_gaussian"] = "sampled_gaussian"
    sampling_rate: float = Field(gt=0, le=1, description="Probability q with which a record enters a step.")
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False, description="Noise σ over the clipping norm.")
    steps: int = Field(ge=1, description="Number of noisy sums.")


class DiscreteGaussianSum(_Event):
    """Numbers or histograms of several nodes, of which only the sum is seen.

    Every node adds discrete Gaussian noise of parameter `sigma` to its own whole numbers; `shares` says how many of
    these noises the viewer does not know. Counts may be multiplied by a whole number before, which multiplies the
    sensitivity too. Why a histogram costs as much as one number: see `DiscreteGaussian`.
    """

    amount: ClassVar[str | None] = "count"

    kind: Literal["discrete_gaussian_sum"] = "discrete_gaussian_sum"
    sigma: float = Field(ge=0.5, allow_inf_nan=False, description="Parameter of one share, in the unit of the sum.")
    shares: int = Field(ge=1, description="How many shares of noise are in the sum and unknown to the viewer.")
    sensitivity: int = Field(default=1, ge=1, description="Largest change of one number of the sum by one record.")
    count: int = Field(default=1, ge=1, description="How many such numbers or histograms are released.")


class SampledDiscreteGaussianSum(_Event):
    """Steps of DP-SGD over several nodes, of which only the sum is seen.

    Each record enters each step independently with probability `sampling_rate`. A node's sum of clipped gradients is
    rounded to whole numbers of which `levels` make one clipping norm; rounding adds at most the root of the number of
    coordinates to what one record changes. Every node adds discrete Gaussian noise to each coordinate, of parameter
    `noise_multiplier` times `levels`; `shares` says how many of these noises the viewer does not know.
    """

    amount: ClassVar[str | None] = "steps"

    kind: Literal["sampled_discrete_gaussian_sum"] = "sampled_discrete_gaussian_sum"
    sampling_rate: float = Field(gt=0, le=1, description="Probability q with which a record enters a step.")
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False, description="One share of noise over the clipping norm.")
    shares: int = Field(ge=1, description="How many shares of noise are in the sum and unknown to the viewer.")
    steps: int = Field(ge=1, description="Number of noisy sums.")
    levels: int = Field(ge=2**20, description="The clipping norm in whole numbers.")
    parameters: int = Field(ge=1, description="Most coordinates of a sum.")

    @property
    def share_sigma(self) -> float:
        """Parameter of one share's noise, in whole numbers."""
        return self.noise_multiplier * self.levels

    @property
    def sensitivity(self) -> float:
        """Largest Euclidean change of the rounded sum by one record that is drawn.

        Two sums rounded with the same dither, floor(x + u) and floor(y + u), differ in each coordinate by less than
        |x - y| + 1; by Minkowski's inequality the norm grows by less than the root of the number of coordinates.
        """
        return self.levels + math.sqrt(self.parameters)


class NonPrivate(_Event):
    """A release without protection: ε is infinite, and everything that reports it says so."""

    kind: Literal["non_private"] = "non_private"


PrivacyEvent = Annotated[
    DiscreteLaplace
    | DiscreteGaussian
    | SampledGaussian
    | DiscreteGaussianSum
    | SampledDiscreteGaussianSum
    | NonPrivate,
    Field(discriminator="kind"),
]

_ADAPTER: TypeAdapter[tuple[PrivacyEvent, ...]] = TypeAdapter(tuple[PrivacyEvent, ...])


def events_to_json(events: Sequence[PrivacyEvent]) -> str:
    """The ledger's form of some events: a JSON array. Safe to release."""
    return _ADAPTER.dump_json(tuple(events)).decode()


def events_from_json(text: str) -> tuple[PrivacyEvent, ...]:
    """Reads what `events_to_json` wrote.

    Raises:
        pydantic.ValidationError: A kind or field that this version does not know, or a value out of range.
    """
    return _ADAPTER.validate_json(text)


def merge_events(events: Iterable[PrivacyEvent]) -> tuple[PrivacyEvent, ...]:
    """The same cost in fewer events: equal mechanisms on the same units are counted together, whatever their purpose.

    The result is sorted, so that it is the same for every order of the events. Purposes are left out (they read
    "merged"): it is for accounting, not for the ledger.
    """
    merged: list[PrivacyEvent] = []
    for unit, amount in _amounts(events).items():
        if unit.amount is not None:
            merged.append(unit.model_copy(update={unit.amount: amount}))
        else:
            merged.extend([unit] * (amount if isinstance(unit, DiscreteLaplace) else 1))
    return tuple(sorted(merged, key=lambda event: event.model_dump_json()))


def with_shares(events: Iterable[PrivacyEvent], *, unknown: int) -> tuple[PrivacyEvent, ...]:
    """The same releases as seen by somebody to whom only so many shares of their noise are unknown.

    Args:
        events: The events; those that are no sums of shares stay as they are.
        unknown: How many shares are unknown; 0 leaves sums without protection.
    """

    def seen(event: PrivacyEvent) -> PrivacyEvent:
        if not isinstance(event, DiscreteGaussianSum | SampledDiscreteGaussianSum):
            return event
        if unknown < 1:
            return NonPrivate(purpose=event.purpose, units=event.units)
        return event.model_copy(update={"shares": unknown})

    return tuple(seen(event) for event in events)


def cost_groups(events: Iterable[PrivacyEvent]) -> tuple[tuple[PrivacyEvent, ...], ...]:
    """What one patient pays, for each group that a patient may be in: their cost is that of the dearest.

    Args:
        events: The events of one run. Those of several must not be mixed: a patient may be in the holdout of one and
            not of another, so that over runs the costs of each run's dearest group add up.

    Returns:
        The events that concern all patients with those of each group, merged; one tuple if there are no groups.
    """
    merged = merge_events(events)
    named = sorted({event.units for event in merged} - {"all"})
    return tuple(
        merge_events(event.model_copy(update={"units": "all"}) for event in merged if event.units in ("all", group))
        for group in named or ("all",)
    )


def amount_of(event: PrivacyEvent) -> int:
    """How often an event's mechanism is applied."""
    return 1 if event.amount is None else int(getattr(event, event.amount))


def is_within(events: Iterable[PrivacyEvent], planned: Iterable[PrivacyEvent]) -> bool:
    """Whether some events use only planned mechanisms on the same units, none more often. Purposes do not matter."""
    used, allowed = _amounts(events), _amounts(planned)
    return all(amount <= allowed[unit] for unit, amount in used.items())


def _amounts(events: Iterable[PrivacyEvent]) -> Counter[PrivacyEvent]:
    amounts: Counter[PrivacyEvent] = Counter()
    for event in events:
        unit = event.model_copy(update={"purpose": "merged", **({event.amount: 1} if event.amount else {})})
        amounts[unit] += amount_of(event)
    return amounts
