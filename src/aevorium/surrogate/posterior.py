"""`MixturePosterior`: what the surrogate knows of a clean row, given the noisy one. Exact, in closed form.

Under one component columns are independent, so a column's posterior is that of its own noisy entry: a softmax for
states, and for a value a mixture of normals truncated to the cells. A component's weight given the row is its weight
times the product over columns of how likely it makes their noisy entries.

Works in the space of the encoder: values z with standard normal marginals, one-hot states, x = x0 + σ·n.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor
from torch.special import ndtr

from aevorium.schema.table import Categorical
from aevorium.surrogate.density import Surrogate

__all__ = ["Expectation", "MixturePosterior"]

_TINY = 1e-20
_BEYOND = 40.0
"""Where the outermost cells end: no float32 normal deviate comes near."""


class Expectation(NamedTuple):
    """What is to be expected of clean rows.

    Attributes:
        values: [B, C], the expected value of each continuous column, given that it is observed.
        observed: [B, C], the probability that it is.
        states: [B, D - C], the probability of each state, in one-hot order.
    """

    values: Tensor
    observed: Tensor
    states: Tensor


class _Column(Protocol):
    """One measured column: a continuous one takes a value, a categorical or missing flag takes a block of states."""

    values: int
    states: int

    def likelihood(self, value: Tensor | None, *, states: Tensor | None, sigma: Tensor) -> tuple[Tensor, _Parts]:
        """[B, K], up to a factor of the row alone, and what `expect` takes."""

    def expect(self, parts: _Parts, *, share: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Value, observed and states, of which a column has what it has; `share` is [B, K], summing to likelihood⁻¹."""


_Parts = tuple[Tensor, ...]


class _States:
    """A categorical column: float32 [K, states], each component's probabilities."""

    values = 0

    def __init__(self, shares: NDArray[np.float64]) -> None:
        self._shares = torch.from_numpy(shares).float()
        self.states = shares.shape[1]

    def likelihood(self, value: Tensor | None, *, states: Tensor | None, sigma: Tensor) -> tuple[Tensor, _Parts]:
        assert states is not None
        evidence = _evidence(states, sigma=sigma)
        return evidence @ self._shares.T, (evidence,)

    def expect(self, parts: _Parts, *, share: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (evidence,) = parts
        return None, None, evidence * (share @ self._shares)


class _Values:
    """A continuous column.

    Args:
        density: [K, cells], each component's share of a cell over the cell's share of the standard normal.
        ends: [cells + 1], where the cells end.
        missing: [K], each component's probability that the value is missing; None if it cannot be.
    """

    values = 1

    def __init__(
        self, density: NDArray[np.float64], *, ends: NDArray[np.float64], missing: NDArray[np.float64] | None
    ) -> None:
        self._density = torch.from_numpy(density).float()
        self._ends = torch.from_numpy(ends).float()
        self._missing = None if missing is None else torch.from_numpy(missing).float()
        self.states = 0 if missing is None else 2

    def likelihood(self, value: Tensor | None, *, states: Tensor | None, sigma: Tensor) -> tuple[Tensor, _Parts]:
        assert value is not None
        masses, moments = self._cells(value, sigma=sigma)
        present = masses @ self._density.T
        if self._missing is None:
            return present, (masses, moments)
        assert states is not None
        flag = _evidence(states, sigma=sigma)
        # A missing value is standard normal noise: as likely as a standard normal value.
        return flag[:, :1] * present + flag[:, 1:] * self._missing, (masses, moments, flag)

    def expect(self, parts: _Parts, *, share: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        masses, moments = parts[:2]
        weight = share @ self._density
        states = None
        if self._missing is not None:
            flag = parts[2]
            weight = weight * flag[:, :1]
            states = torch.stack([(weight * masses).sum(dim=1), flag[:, 1] * (share @ self._missing)], dim=1)
        observed = (weight * masses).sum(dim=1)
        return (weight * moments).sum(dim=1) / observed.clamp(min=_TINY), observed.clamp(max=1.0), states

    def _cells(self, value: Tensor, *, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Mass and first moment in each cell of the posterior of a standard normal value, N(x/(1+σ²), σ²/(1+σ²))."""
        variance = sigma.square()
        mean = (value / (1 + variance)).unsqueeze(1)
        spread = (variance / (1 + variance)).sqrt().unsqueeze(1)
        ends = (self._ends - mean) / spread
        below, above = ndtr(ends), ndtr(-ends)
        # Differences of the nearer tail: those of the other would be rounded away.
        masses = torch.where(ends[:, :-1] > 0, above[:, :-1] - above[:, 1:], below[:, 1:] - below[:, :-1]).clamp(min=0)
        heights = torch.exp(-ends.square() / 2) / math.sqrt(2 * math.pi)
        return masses, mean * masses - spread * (heights[:, 1:] - heights[:, :-1])


class MixturePosterior:
    """The expectation of clean rows under a surrogate. Safe to release.

    Args:
        surrogate: The density of clean rows.
    """

    def __init__(self, surrogate: Surrogate) -> None:
        self._log_weights = torch.from_numpy(np.log(np.maximum(surrogate.mixture.weights, _TINY))).float()
        self._columns: list[_Column] = [
            _column(surrogate, name, part)
            for name, part in zip(surrogate.schema.measured, surrogate.mixture.columns, strict=True)
        ]
        self._continuous = sum(column.values for column in self._columns)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, sigma: Tensor) -> Expectation:
        """The expectation given noisy rows.

        Args:
            noisy: [B, D].
            sigma: [B], their noise levels.
        """
        likelihoods, parts = [], []
        value, state = 0, self._continuous
        for column in self._columns:
            likelihood, kept = column.likelihood(
                noisy[:, value] if column.values else None,
                states=noisy[:, state : state + column.states] if column.states else None,
                sigma=sigma,
            )
            likelihoods.append(likelihood.clamp(min=_TINY))
            parts.append(kept)
            value, state = value + column.values, state + column.states
        together = self._log_weights + torch.stack([each.log() for each in likelihoods]).sum(dim=0)
        responsible = together.softmax(dim=1)
        values, observed, states = [], [], []
        for column, likelihood, kept in zip(self._columns, likelihoods, parts, strict=True):
            expected, present, probabilities = column.expect(kept, share=responsible / likelihood)
            if expected is not None and present is not None:
                values.append(expected)
                observed.append(present)
            if probabilities is not None:
                states.append(probabilities / probabilities.sum(dim=1, keepdim=True).clamp(min=_TINY))
        empty = noisy[:, :0]
        return Expectation(
            values=torch.stack(values, dim=1) if values else empty,
            observed=torch.stack(observed, dim=1) if observed else empty,
            states=torch.cat(states, dim=1) if states else empty,
        )


def _evidence(states: Tensor, *, sigma: Tensor) -> Tensor:
    """How likely each state makes a noisy one-hot block, up to a factor of the row: [B, states]."""
    return (states / sigma.square().unsqueeze(1)).softmax(dim=1)


def _column(surrogate: Surrogate, name: str, shares: NDArray[np.float64]) -> _Column:
    groups = np.array(surrogate.cells[name])
    column = surrogate.schema.measured[name]
    if isinstance(column, Categorical):
        held = np.maximum(surrogate.encoder.grid_shares(name), 1e-12)
        return _States(shares[:, groups] * (held / np.bincount(groups, weights=held)[groups]))
    missing = shares[:, -1] if column.missing else None
    inner = groups[:-1] if column.missing else groups
    # The cells are runs of bins: each ends where the next one's first bin begins.
    ends = surrogate.encoder.ends(name)[np.append(np.flatnonzero(np.diff(inner, prepend=-1)), len(inner))]
    normal = ndtri(ends)
    normal[0], normal[-1] = -_BEYOND, _BEYOND
    return _Values(shares[:, : len(ends) - 1] / np.maximum(np.diff(ends), 1e-12), ends=normal, missing=missing)
