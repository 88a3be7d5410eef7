"""What single phases of a run release at a node, with how much noise: fixed before their first record is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aevorium.privacy.events import (
    DiscreteGaussian,
    DiscreteGaussianSum,
    NonPrivate,
    PrivacyEvent,
    SampledDiscreteGaussianSum,
    SampledGaussian,
    Units,
)
from aevorium.privacy.mechanisms import NoiseSource, noisy_histogram

__all__ = ["CLIP_LEVELS", "MOST_PARAMETERS", "AssociationSchedule", "CellNoise", "TrainingSchedule"]

CLIP_LEVELS = 2**36
"""Secure aggregation: the clipping norm in whole numbers. Sums over a hundred million records stay below 2^63."""

MOST_PARAMETERS = 2**24
"""Secure aggregation: most parameters of a model. Rounding so many adds 4096 to a sensitivity of 2^36."""

_NARROWEST_SHARE = 3.0
"""Shares of noise as wide as this add up to a discrete Gaussian to within 1e-37 (`sums.sum_distance`)."""


@dataclass(frozen=True)
class CellNoise:
    """The noise that one node adds to numbers, or to the cells of histograms.

    Attributes:
        sigma: Its standard deviation, in the numbers' own unit; 0 without privacy.
        shares: How many nodes' noises are in the sum that is opened; None if every node's numbers are seen.
        sensitivity: Largest change of one number by one record.
        units: Whose records the numbers are computed from.
    """

    sigma: float
    shares: int | None = None
    sensitivity: int = 1
    units: Units = "all"

    @property
    def scale(self) -> int:
        """What numbers are multiplied by, so that a share of whole-number noise is wide enough."""
        if self.shares is None or self.sigma <= 0:
            return 1
        return max(1, math.ceil(_NARROWEST_SHARE / self.sigma))

    def event(self, purpose: str, *, count: int = 1) -> PrivacyEvent:
        """What `count` such numbers or histograms cost."""
        if self.sigma <= 0:
            return NonPrivate(purpose=purpose, units=self.units)
        if self.shares is None:
            return DiscreteGaussian(
                purpose=purpose, units=self.units, sigma=self.sigma, sensitivity=self.sensitivity, count=count
            )
        return DiscreteGaussianSum(
            purpose=purpose,
            units=self.units,
            sigma=self.sigma * self.scale,
            shares=self.shares,
            sensitivity=self.sensitivity * self.scale,
            count=count,
        )

    def protect(self, exact: NDArray[np.int64], *, noise: NoiseSource) -> NDArray[np.int64]:
        """The numbers as they leave the node: multiplied by the scale, with noise. Safe to release at the event's cost.

        Args:
            exact: int64 [cells].
            noise: Source of noise.
        """
        if self.sigma <= 0:
            return exact
        return noisy_histogram(exact * self.scale, sigma=self.sigma * self.scale, noise=noise)

    def open(self, parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        """The sum of what nodes sent, in the numbers' own unit, rounded.

        Args:
            parts: One int64 [cells] a node.
        """
        total = np.asarray(np.sum(parts, axis=0, dtype=np.int64))
        return total if self.scale == 1 else np.rint(total / self.scale).astype(np.int64)

    def noise_of(self, *, nodes: int) -> float:
        """The standard deviation of the noise in a sum over so many nodes, in the numbers' own unit."""
        # A multiple of 1/s, rounded to a whole number with ties to even ones.
        rounding = (
            0.0 if self.scale == 1 else (self.scale**2 + (2 if self.scale % 2 == 0 else -1)) / (12 * self.scale**2)
        )
        return math.sqrt(nodes * self.sigma**2 + rounding)


@dataclass(frozen=True)
class TrainingSchedule:
    """Private training at one node, fixed before its first step.

    Attributes:
        sampling_rate: Probability q with which a record enters a step.
        steps: Steps in each round.
        rounds: Rounds; 0 if there is no training.
        noise_multiplier: The noise that this node adds in a step, over the clipping norm; 0 without privacy.
        expected_batch: q times the noisy size: what sums of gradients are divided by.
        loss: The noise that this node adds to its sum of rounded losses.
        shares: How many nodes' noises are in a sum that is opened; None if every node's model is seen.
        units: Whose records are trained on.
    """

    sampling_rate: float
    steps: int
    rounds: int
    noise_multiplier: float
    expected_batch: float
    loss: CellNoise
    shares: int | None = None
    units: Units = "all"

    def step_event(self, *, steps: int) -> PrivacyEvent:
        """What so many steps cost."""
        if self.noise_multiplier <= 0:
            return NonPrivate(purpose="training", units=self.units)
        if self.shares is None:
            return SampledGaussian(
                purpose="training",
                units=self.units,
                sampling_rate=self.sampling_rate,
                noise_multiplier=self.noise_multiplier,
                steps=steps,
            )
        return SampledDiscreteGaussianSum(
            purpose="training",
            units=self.units,
            sampling_rate=self.sampling_rate,
            noise_multiplier=self.noise_multiplier,
            shares=self.shares,
            steps=steps,
            levels=CLIP_LEVELS,
            parameters=MOST_PARAMETERS,
        )

    def round_events(self) -> tuple[PrivacyEvent, ...]:
        """What one round costs."""
        if self.rounds == 0:
            return ()
        if self.noise_multiplier <= 0:
            return (NonPrivate(purpose="training", units=self.units),)
        return (self.step_event(steps=self.steps), self.loss.event("training loss"))

    def all_events(self) -> tuple[PrivacyEvent, ...]:
        """What all rounds cost."""
        return self.round_events() * self.rounds


@dataclass(frozen=True)
class AssociationSchedule:
    """The tables of selected columns of a run: how many, and with how much noise.

    Fine tables of single values take the place of some of those of pairs or triples.

    Attributes:
        coarse: Noise in each cell of a coarse table.
        fine: Noise in each cell of a fine table.
        candidates: Pairs of columns with a coarse table, by which some are selected; 0 if there is no selection.
        pairs: Pairs with a fine table; 0 if there are no such tables at all.
        triples: Triples with a fine table.
    """

    coarse: CellNoise
    fine: CellNoise
    candidates: int = 0
    pairs: int = 0
    triples: int = 0

    @property
    def count(self) -> int:
        """Number of fine tables, whatever they are of."""
        return self.pairs + self.triples

    def coarse_events(self) -> tuple[PrivacyEvent, ...]:
        """What the coarse tables cost."""
        return (self.coarse.event("coarse two-way tables", count=self.candidates),) if self.candidates else ()

    def fine_events(self) -> tuple[PrivacyEvent, ...]:
        """What the fine tables cost: each record is in one cell of every one of them."""
        return (self.fine.event("tables of selected columns", count=self.count),) if self.count else ()
