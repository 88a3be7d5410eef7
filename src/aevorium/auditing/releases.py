"""What each release of a run is said to hold of one record, and under how much noise: what an audit tries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.auditing.replay import Exchange, Observation
from aevorium.encoding.rounding import roundings_in_total
from aevorium.federation.protocol import ASSOCIATIONS, COUNT, STATISTICS, AssociationsRequest, read_body
from aevorium.privacy.events import DiscreteGaussian, DiscreteGaussianSum, DiscreteLaplace, PrivacyEvent
from aevorium.privacy.phases import PhaseBudget
from aevorium.schema.table import TableSchema

__all__ = ["Release", "ReleaseAudit", "releases_of"]

_REACH = 60
"""Noise is summed over so many of its deviations on either side."""

_UNLIKELY = -4.5
"""Noise that is right falls so many standard deviations short once in 300,000 releases."""


class ReleaseAudit(BaseModel):
    """What was found of one release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str = Field(description="What is released.")
    tables: int = Field(description="How many histograms, tables or numbers it is.")
    moved: float = Field(description="Euclidean length by which one record moved it, at the most.")
    allowed: float = Field(description="The length that its events charge for.")
    noise: float = Field(description="Root mean square of the noise in a number, over all repeats.")
    planned: float = Field(description="Standard deviation of the noise that its events charge for.")
    is_moved_more: bool = Field(description="Whether a record moved it by more than is charged for.")
    is_noise_short: bool = Field(description="Whether it has less noise, beyond chance.")


@dataclass
class Release:
    """One kind of noisy numbers, watched over the repeats.

    Attributes:
        name: What it is.
        exchange: Index of the exchange that releases it.
        begin: Where its numbers begin in the array.
        end: Where they end; None for the array's end.
        event: What it is charged.
        nodes: How many nodes' noises are in it.
    """

    name: str
    exchange: int
    begin: int
    end: int | None
    event: DiscreteLaplace | DiscreteGaussian | DiscreteGaussianSum
    nodes: int
    _squares: float = 0.0
    _numbers: int = 0
    _moved: float = 0.0

    def move(self, without: Sequence[Observation], present: Sequence[Observation]) -> None:
        """Notes how far a record moves it where there is no noise."""
        moved = float(np.linalg.norm(self._of(present) - self._of(without)))
        self._moved = max(self._moved, moved)

    def watch(self, observed: Sequence[Observation], *, exact: Sequence[Observation]) -> None:
        """Notes the noise of one repeat."""
        noise = self._of(observed) - self._of(exact)
        self._squares += float(noise @ noise)
        self._numbers += len(noise)

    def audit(self) -> ReleaseAudit:
        """What was found."""
        variance, fourth = _moments(self.event, nodes=self.nodes)
        mean = self._squares / self._numbers
        deviation = math.sqrt(max(fourth - variance**2, 0.0) / self._numbers)
        sensitivity = getattr(self.event, "sensitivity", 1)
        count = getattr(self.event, "count", 1)
        allowed = sensitivity * math.sqrt(count)
        return ReleaseAudit(
            release=self.name,
            tables=count,
            moved=self._moved,
            allowed=allowed,
            noise=math.sqrt(mean),
            planned=math.sqrt(variance),
            is_moved_more=self._moved > allowed * (1 + 1e-9),
            is_noise_short=mean - variance < _UNLIKELY * deviation,
        )

    def _of(self, observed: Sequence[Observation]) -> NDArray[np.float64]:
        seen = observed[self.exchange]
        return seen.charged if isinstance(self.event, DiscreteLaplace) else seen.array[self.begin : self.end]


def releases_of(
    exchanges: Sequence[Exchange], budget: PhaseBudget, *, schema: TableSchema, nodes: int
) -> list[Release]:
    """The noisy counts of a private run.

    Args:
        exchanges: Its requests.
        budget: What it charges.
        schema: Its schema.
        nodes: How many nodes' noises are in what is seen.
    """
    found = []

    def add(name: str, index: int, event: PrivacyEvent, begin: int = 0, end: int | None = None) -> None:
        if isinstance(event, DiscreteGaussian | DiscreteGaussianSum | DiscreteLaplace):
            found.append(Release(name, index, begin, end, event, nodes=1 if name == "count" else nodes))

    for index, exchange in enumerate(exchanges):
        if exchange.kind == COUNT:
            add("count", index, budget.count)
        elif exchange.kind == STATISTICS:
            cut = -roundings_in_total(schema) if budget.roundings is not None else None
            for event, place in zip(budget.statistics, ((0, cut), (cut or 0, None)), strict=False):
                add(event.purpose, index, event, *place)
        elif exchange.kind == ASSOCIATIONS:
            is_coarse = read_body(exchange.request, AssociationsRequest).stage == "coarse"
            tables = budget.associations
            for event in tables.coarse_events() if is_coarse else tables.fine_events():
                add(event.purpose, index, event)
    return found


def _moments(event: DiscreteLaplace | DiscreteGaussian | DiscreteGaussianSum, *, nodes: int) -> tuple[float, float]:
    """Variance and fourth moment of an event's noise, of so many nodes together."""
    if isinstance(event, DiscreteLaplace):
        reach = math.ceil(_REACH / event.epsilon)
        steps = np.arange(-reach, reach + 1, dtype=np.float64)
        weights = np.exp(-event.epsilon * np.abs(steps))
    else:
        reach = math.ceil(_REACH * max(event.sigma, 1.0))
        steps = np.arange(-reach, reach + 1, dtype=np.float64)
        weights = np.exp(-(steps**2) / (2 * event.sigma**2))
    weights /= weights.sum()
    variance, fourth = float(weights @ steps**2), float(weights @ steps**4)
    return nodes * variance, nodes * fourth + 3 * nodes * (nodes - 1) * variance**2
