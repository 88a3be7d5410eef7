"""The attack: says, from all that a run released, whether one known record was there.

The attacker knows the code, the plan, every request, all other records and the canary itself. Where noise is added to
counts, the attacker therefore knows the two outcomes between which it stands, and the best test of all is the sum of
the differences, each weighed by its noise, if the noise is normal and independent (Neyman and Pearson's lemma); the
geometric noise of the count is weighed as if it were. What a released model tells is learnt instead: from the canary's
own loss by it, or from the part of a noisy gradient that points as the canary's does, in repeats that are used for
nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from aevorium.auditing.replay import TABLES, Exchange, Observation
from aevorium.diffusion.denoiser import TabularDiffusion
from aevorium.diffusion.layout import EncodedTable
from aevorium.encoding.encoder import TableEncoder
from aevorium.federation.protocol import (
    COUNT,
    GRADIENT,
    LOSS,
    TRAIN,
    GradientRequest,
    TrainRequest,
    read_array,
    read_body,
)
from aevorium.node.checks import model_of
from aevorium.node.records import NodeRecords
from aevorium.privacy.plan import StudyPlan
from aevorium.privacy.training import clipped_gradient_sum, record_losses
from aevorium.schema.table import TableSchema

__all__ = ["Attack", "MembershipTest"]

_DRAWS = 64
"""Draws of noise over which the canary's loss and gradient are averaged."""

_CLEAR = 2.0
"""A learnt difference counts if it is so many of its standard errors."""

_LEAST_NOISE = 1e-6
"""What has no noise at all counts as if it had so little."""


@dataclass(frozen=True)
class MembershipTest:
    """A test that is fixed before it is used.

    Attributes:
        weights: float64 [readings].
        threshold: Weighed readings above it mean that the canary was there.
    """

    weights: NDArray[np.float64]
    threshold: float

    def finds(self, readings: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the canary was there, by the readings of some repeats: float64 [repeats, readings]."""
        return np.asarray(readings @ self.weights > self.threshold)


class Attack:
    """Reads what tells of the canary off the answers of a run.

    Args:
        exchanges: The requests.
        without: What they show without noise and without the canary.
        present: What they show without noise and with it.
        suspect: The canary, as an attacker of models needs it.
    """

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        *,
        without: Sequence[Observation],
        present: Sequence[Observation],
        suspect: Suspect,
    ) -> None:
        self._exchanges = exchanges
        self._suspect = suspect
        self._moved = [
            np.flatnonzero(after.array - before.array) if exchange.kind in TABLES else np.empty(0, dtype=np.int64)
            for exchange, before, after in zip(exchanges, without, present, strict=True)
        ]
        self._shift = self._known(present) - self._known(without)

    def read(self, observations: Sequence[Observation]) -> NDArray[np.float64]:
        """All readings of one repeat: float64 [readings]."""
        parts = [
            self._reading(exchange, observation, moved)
            for exchange, observation, moved in zip(self._exchanges, observations, self._moved, strict=True)
        ]
        return np.concatenate(parts)

    def learn(self, without: NDArray[np.float64], present: NDArray[np.float64]) -> MembershipTest:
        """The test, from some repeats that are used for nothing else.

        Args:
            without: Readings without the canary, float64 [repeats, readings].
            present: Readings with it, as many.
        """
        is_known = ~np.isnan(self._shift)
        shift = np.where(is_known, self._shift, present.mean(axis=0) - without.mean(axis=0))
        # Around what was found, not around what noise of mean 0 would be added to: so constant noise is none.
        base = (without.mean(axis=0) + (present - shift).mean(axis=0)) / 2
        squares = ((without - base) ** 2 + (present - base - shift) ** 2).sum(axis=0)
        variance = np.maximum(squares / (2 * len(without)), _LEAST_NOISE**2)
        is_clear = is_known | (np.abs(shift) > _CLEAR * np.sqrt(2 * variance / len(without)))
        weights = np.where(is_clear, shift / variance, 0.0)
        return MembershipTest(weights, threshold=float(weights @ (base + shift / 2)))

    def _known(self, observations: Sequence[Observation]) -> NDArray[np.float64]:
        """The readings that noise is added to; NaN for those that have chance in them besides."""
        parts = []
        for exchange, observation, moved in zip(self._exchanges, observations, self._moved, strict=True):
            is_known = exchange.kind in (*TABLES, COUNT)
            reading = self._reading(exchange, observation, moved)
            parts.append(reading if is_known else np.full_like(reading, np.nan))
        return np.concatenate(parts)

    def _reading(self, exchange: Exchange, observation: Observation, moved: NDArray[np.int64]) -> NDArray[np.float64]:
        if exchange.kind == TRAIN:
            return np.append(observation.charged, self._suspect.loss(exchange, observation.array))
        if exchange.kind == GRADIENT:
            return np.array([self._suspect.direction(exchange) @ observation.array])
        if exchange.kind == LOSS:
            return observation.array
        return np.concatenate([observation.charged, observation.array[moved]])


class Suspect:
    """The canary as a model sees it.

    Args:
        records: A table with the canary alone.
        schema: Its schema.
        plan: The run's plan.
        bins: Bins of the run's grids.
    """

    def __init__(self, records: NodeRecords, *, schema: TableSchema, plan: StudyPlan, bins: int) -> None:
        self._records = records
        self._schema = schema
        self._plan = plan
        self._bins = bins
        self._encoder: TableEncoder | None = None
        self._directions: dict[tuple[int, int], NDArray[np.float64]] = {}

    def loss(self, exchange: Exchange, vector: NDArray[np.float64]) -> float:
        """The canary's loss by a released model: float64 [parameters]."""
        request = read_body(exchange.request, TrainRequest)
        model = model_of(
            request.model, vector.astype(np.float32), encoder=request.encoder, schema=self._schema, bins=self._bins
        )
        losses = record_losses(
            model, self._encoded(request.encoder), part=1, generator=torch.Generator().manual_seed(0), draws=_DRAWS
        )
        return float(losses[0])

    def direction(self, exchange: Exchange) -> NDArray[np.float64]:
        """Where the canary's clipped gradient points in a step: float64 [parameters]."""
        request = read_body(exchange.request, GradientRequest)
        # Only the first step of a round comes with the encoder.
        self._encoder = request.encoder or self._encoder
        key = (request.round, request.step)
        if key not in self._directions and self._encoder is not None:
            vector = read_array(exchange.request, np.float32).astype(np.float32)
            model = model_of(request.model, vector, encoder=self._encoder, schema=self._schema, bins=self._bins)
            self._directions[key] = self._gradient(model, self._encoder, clip_norm=request.settings.clip_norm)
        return self._directions[key]

    def _gradient(self, model: TabularDiffusion, encoder: TableEncoder, *, clip_norm: float) -> NDArray[np.float64]:
        seeds = iter(range(1, 100))
        return clipped_gradient_sum(
            model,
            self._encoded(encoder),
            sampling_rate=1.0,
            clip_norm=clip_norm,
            draws=_DRAWS,
            part=1,
            generator=lambda: torch.Generator().manual_seed(next(seeds)),
        )

    def _encoded(self, encoder: TableEncoder) -> EncodedTable:
        return self._records.encode(self._records.training(self._plan), encoder)
