"""Privacy events: what a release costs, as data.

An event names a mechanism and the public parameters that fix its privacy loss, under add/remove adjacency (one
patient's record is there or not). ε is always computed *from* events and never stored as the truth.

The JSON form is kept for ever. A kind is never removed, a field never changes its meaning, and a new field is
optional; a mechanism that changes is a new kind. An unknown kind or field is refused rather than guessed at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

__all__ = [
    "DiscreteGaussian",
    "DiscreteLaplace",
    "NonPrivate",
    "PrivacyEvent",
    "SampledGaussian",
    "events_from_json",
    "events_to_json",
    "is_within",
    "merge_events",
]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: str = Field(min_length=1, description="What the release is for, in a few words.")


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

    kind: Literal["discrete_gaussian"] = "discrete_gaussian"
    sigma: float = Field(gt=0, allow_inf_nan=False, description="Parameter σ of the noise, in the unit of the number.")
    sensitivity: int = Field(default=1, ge=1, description="Largest change of one number by one record.")
    count: int = Field(default=1, ge=1, description="How many such numbers or histograms are released.")


class SampledGaussian(_Event):
    """Steps of DP-SGD: a sum over a Poisson sample of clipped vectors, plus Gaussian noise.

    Each record enters each step independently with probability `sampling_rate`; the noise's standard deviation is
    `noise_multiplier` times the clipping norm (Abadi et al. 2016; Mironov, Talwar & Zhang 2019).
    """

    kind: Literal["sampled_gaussian"] = "sampled_gaussian"
    sampling_rate: float = Field(gt=0, le=1, description="Probability q with which a record enters a step.")
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False, description="Noise σ over the clipping norm.")
    steps: int = Field(ge=1, description="Number of noisy sums.")


class NonPrivate(_Event):
    """A release without protection: ε is infinite, and everything that reports it says so."""

    kind: Literal["non_private"] = "non_private"


PrivacyEvent = Annotated[
    DiscreteLaplace | DiscreteGaussian | SampledGaussian | NonPrivate,
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
    """The same cost in fewer events: equal mechanisms are counted together, whatever their purpose.

    The result is sorted, so that it is the same for every order of the events. Purposes are left out (they read
    "merged"): it is for accounting, not for the ledger.
    """
    merged: list[PrivacyEvent] = []
    for unit, amount in _amounts(events).items():
        if isinstance(unit, DiscreteGaussian):
            merged.append(unit.model_copy(update={"count": amount}))
        elif isinstance(unit, SampledGaussian):
            merged.append(unit.model_copy(update={"steps": amount}))
        elif isinstance(unit, DiscreteLaplace):
            merged.extend([unit] * amount)
        else:
            merged.append(unit)
    return tuple(sorted(merged, key=lambda event: event.model_dump_json()))


def is_within(events: Iterable[PrivacyEvent], planned: Iterable[PrivacyEvent]) -> bool:
    """Whether some events use only planned mechanisms, none more often than planned. Purposes do not matter."""
    used, allowed = _amounts(events), _amounts(planned)
    return all(amount <= allowed[unit] for unit, amount in used.items())


def _amounts(events: Iterable[PrivacyEvent]) -> Counter[PrivacyEvent]:
    amounts: Counter[PrivacyEvent] = Counter()
    for event in events:
        unit, amount = _unit_and_amount(event)
        amounts[unit] += amount
    return amounts


def _unit_and_amount(event: PrivacyEvent) -> tuple[PrivacyEvent, int]:
    if isinstance(event, DiscreteGaussian):
        return event.model_copy(update={"purpose": "merged", "count": 1}), event.count
    if isinstance(event, SampledGaussian):
        return event.model_copy(update={"purpose": "merged", "steps": 1}), event.steps
    return event.model_copy(update={"purpose": "merged"}), 1
