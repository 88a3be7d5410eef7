"""What each release of a run is said to hold of one record, and under how much noise: what an audit tries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.auditing.noise import CountEvent, FloorWatch, NoiseWatch
from aevorium.auditing.replay import Exchange, Observation
from aevorium.encoding.rounding import roundings_in_total
from aevorium.federation.protocol import (
    ASSOCIATIONS,
    COUNT,
    GRADIENT,
    LOSS,
    STATISTICS,
    TRAIN,
    AssociationsRequest,
    read_body,
)
from aevorium.node.training import loss_noise
from aevorium.privacy.events import DiscreteGaussian, DiscreteGaussianSum, DiscreteLaplace, PrivacyEvent, amount_of
from aevorium.privacy.phases import PhaseBudget
from aevorium.privacy.schedule import CLIP_LEVELS
from aevorium.schema.table import TableSchema

__all__ = ["Release", "ReleaseAudit", "releases_of"]


class ReleaseAudit(BaseModel):
    """What was found of one kind of release. What cannot be measured is null."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str = Field(description="What is released.")
    times: int = Field(description="How many histograms, tables, sums or numbers it is.")
    moved: float | None = Field(description="Euclidean length by which one record moved it, at the most.")
    allowed: float | None = Field(description="The length that its events charge for.")
    noise: float | None = Field(description="Root mean square of the noise in a number; of training, of all chance.")
    planned: float | None = Field(description="Standard deviation of the noise that its events charge for.")
    problems: tuple[str, ...] = Field(description="What contradicts its events.")


class Release(Protocol):
    """One kind of release, watched over the repeats."""

    def move(self, without: Sequence[Observation], present: Sequence[Observation]) -> None:
        """Notes how far a record moves it where there is no noise."""
        ...

    def watch(self, observed: Sequence[Observation], *, exact: Sequence[Observation]) -> None:
        """Notes one repeat."""
        ...

    def audit(self) -> ReleaseAudit:
        """What was found."""
        ...


@dataclass
class _Counts:
    """Noisy counts, of which the attacker knows what noise was added to.

    Attributes:
        event: What they are charged.
        exchange: Index of the exchange that releases them.
        noise: Watches their noise.
        begin: Where they begin in its array.
        end: Where they end; None for the array's end.
    """

    event: CountEvent
    exchange: int
    noise: NoiseWatch
    begin: int = 0
    end: int | None = None
    _moved: float = 0.0

    def move(self, without: Sequence[Observation], present: Sequence[Observation]) -> None:
        self._moved = max(self._moved, float(np.linalg.norm(self._of(present) - self._of(without))))

    def watch(self, observed: Sequence[Observation], *, exact: Sequence[Observation]) -> None:
        self.noise.add(self._of(observed) - self._of(exact))

    def audit(self) -> ReleaseAudit:
        sensitivity = 1 if isinstance(self.event, DiscreteLaplace) else self.event.sensitivity
        allowed = sensitivity * math.sqrt(amount_of(self.event))
        moves = ["moves by more than is charged"] if self._moved > allowed * (1 + 1e-9) else []
        return ReleaseAudit(
            release=self.event.purpose,
            times=amount_of(self.event),
            moved=self._moved,
            allowed=allowed,
            noise=self.noise.found,
            planned=self.noise.planned,
            problems=(*moves, *self.noise.shortcomings()),
        )

    def _of(self, observed: Sequence[Observation]) -> NDArray[np.float64]:
        seen = observed[self.exchange]
        return seen.charged if isinstance(self.event, DiscreteLaplace) else seen.array[self.begin : self.end]


@dataclass
class _Training:
    """Numbers of private training, which have the chance of batches and of the diffusion in them besides noise.

    Attributes:
        name: What they are.
        exchanges: Indices of the exchanges that release them.
        planned: Standard deviation of their noise; None for models, in which noise has passed through an optimizer.
        is_charged: Whether they are the charged number of a body, and not an array.
    """

    name: str
    exchanges: tuple[int, ...]
    planned: float | None
    is_charged: bool = False
    noise: FloorWatch = field(init=False)

    def __post_init__(self) -> None:
        self.noise = FloorWatch(self.planned or 0.0)

    def move(self, without: Sequence[Observation], present: Sequence[Observation]) -> None:
        """What a record moves cannot be told from chance."""

    def watch(self, observed: Sequence[Observation], *, exact: Sequence[Observation]) -> None:
        if self.planned is not None:
            for index in self.exchanges:
                self.noise.add(observed[index].charged if self.is_charged else observed[index].array, part=index)

    def audit(self) -> ReleaseAudit:
        is_measured = self.planned is not None
        return ReleaseAudit(
            release=self.name,
            times=len(self.exchanges),
            moved=None,
            allowed=None,
            noise=self.noise.found if is_measured else None,
            planned=self.planned,
            problems=tuple(self.noise.shortcomings()) if is_measured else (),
        )


def releases_of(
    exchanges: Sequence[Exchange], budget: PhaseBudget, *, schema: TableSchema, nodes: int
) -> list[Release]:
    """What a private run releases.

    Args:
        exchanges: Its requests.
        budget: What it charges.
        schema: Its schema.
        nodes: How many nodes' noises are in what is seen.
    """
    found: list[Release] = []

    def add(index: int, event: PrivacyEvent, begin: int = 0, end: int | None = None) -> None:
        if isinstance(event, DiscreteGaussian | DiscreteGaussianSum | DiscreteLaplace):
            noise = NoiseWatch(event, nodes=1 if isinstance(event, DiscreteLaplace) else nodes)
            found.append(_Counts(event, index, noise, begin=begin, end=end))

    for index, exchange in enumerate(exchanges):
        if exchange.kind == COUNT:
            add(index, budget.count)
        elif exchange.kind == STATISTICS:
            cut = -roundings_in_total(schema) if budget.roundings is not None else None
            for event, place in zip(budget.statistics, ((0, cut), (cut or 0, None)), strict=False):
                add(index, event, *place)
        elif exchange.kind == ASSOCIATIONS:
            is_coarse = read_body(exchange.request, AssociationsRequest).stage == "coarse"
            tables = budget.associations
            for event in tables.coarse_events() if is_coarse else tables.fine_events():
                add(index, event)
    return [*found, *_training(exchanges, budget, nodes=nodes)]


def _training(exchanges: Sequence[Exchange], budget: PhaseBudget, *, nodes: int) -> list[Release]:
    def of(kind: str) -> tuple[int, ...]:
        return tuple(index for index, exchange in enumerate(exchanges) if exchange.kind == kind)

    if not budget.rounds:
        return []
    size = budget.plan.declared_size or 1.0
    schedule = budget.training(size)
    if of(TRAIN):
        return [
            _Training("models", of(TRAIN), planned=None),
            _Training("training loss", of(TRAIN), planned=loss_noise(schedule, size=size), is_charged=True),
        ]
    shared = math.sqrt(nodes)
    return [
        _Training("gradients", of(GRADIENT), planned=shared * schedule.noise_multiplier * CLIP_LEVELS),
        _Training("training loss", of(LOSS), planned=shared * schedule.loss.sigma * schedule.loss.scale),
    ]
