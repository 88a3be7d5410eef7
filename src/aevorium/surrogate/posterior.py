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


_Parts = tuple[Tensor, ...]


class _Column(Protocol):
    """One measured column, which knows its place in a row's vector."""

    def likelihood(self, noisy: Tensor, sigma: Tensor) -> tuple[Tensor, _Parts]:
        """How likely each component makes the noisy entries, [B, K], up to a factor of the row; what `expect` takes."""

    def expect(self, parts: _Parts, *, share: Tensor) -> Expectation:
        """The column's own, with no columns of what it has not; `share` is responsibility over likelihood, [B, K]."""


class _States:
    """A categorical column.

    Args:
        shares: [K, states], each component's probabilities.
        block: Where the states stand in a row's vector.
    """

    def __init__(self, shares: NDArray[np.float64], *, block: slice) -> None:
        self._shares = _tensor(shares)
        self._block = block

    def likelihood(self, noisy: Tensor, sigma: Tensor) -> tuple[Tensor, _Parts]:
        evidence = _evidence(noisy[:, self._block], sigma)
        return evidence @ self._shares.T, (evidence,)

    def expect(self, parts: _Parts, *, share: Tensor) -> Expectation:
        (evidence,) = parts
        none = evidence[:, :0]
        return Expectation(values=none, observed=none, states=_normal(evidence * (share @ self._shares)))


class _Values:
    """A continuous column that is never missing.

    Args:
        density: [K, cells], each component's share of a cell over the cell's share of the standard normal.
        ends: [cells + 1], where the cells end.
        place: Where the value stands in a row's vector.
    """

    def __init__(self, density: NDArray[np.float64], *, ends: NDArray[np.float64], place: int) -> None:
        self._density = _tensor(density)
        self._ends = _tensor(ends)
        self._place = place

    def likelihood(self, noisy: Tensor, sigma: Tensor) -> tuple[Tensor, _Parts]:
        masses, moments = self._cells(noisy[:, self._place], sigma)
        return masses @ self._density.T, (masses, moments)

    def expect(self, parts: _Parts, *, share: Tensor) -> Expectation:
        masses, moments = parts
        weight = share @ self._density
        observed = (weight * masses).sum(dim=1, keepdim=True)
        value = (weight * moments).sum(dim=1, keepdim=True) / observed.clamp(min=_TINY)
        return Expectation(values=value, observed=observed.clamp(max=1.0), states=masses[:, :0])

    def _cells(self, value: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
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


class _ValuesOrMissing:
    """A continuous column and the flag of its missing values, which are standard normal noise.

    Args:
        values: The column where it is observed; the components' shares of its cells leave room for the missing ones.
        missing: [K], each component's probability that the value is missing.
        block: Where the flag stands in a row's vector.
    """

    def __init__(self, values: _Values, *, missing: NDArray[np.float64], block: slice) -> None:
        self._values = values
        self._missing = _tensor(missing)
        self._block = block

    def likelihood(self, noisy: Tensor, sigma: Tensor) -> tuple[Tensor, _Parts]:
        flag = _evidence(noisy[:, self._block], sigma)
        present, (masses, moments) = self._values.likelihood(noisy, sigma)
        present_masses, present_moments = flag[:, :1] * masses, flag[:, :1] * moments
        return flag[:, :1] * present + flag[:, 1:] * self._missing, (present_masses, present_moments, flag)

    def expect(self, parts: _Parts, *, share: Tensor) -> Expectation:
        found = self._values.expect(parts[:2], share=share)
        missing = parts[2][:, 1:] * (share @ self._missing).unsqueeze(1)
        return found._replace(states=_normal(torch.cat([found.observed, missing], dim=1)))


class MixturePosterior:
    """The expectation of clean rows under a surrogate. Safe to release.

    Args:
        surrogate: The density of clean rows.
    """

    def __init__(self, surrogate: Surrogate, *, device: torch.device | None = None) -> None:
        # Tensors that NumPy arrays become lie where noisy rows will.
        with torch.device(device or "cpu"):
            self._log_weights = _tensor(np.log(np.maximum(surrogate.mixture.weights, _TINY)))
            self._columns = _columns(surrogate)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, sigma: Tensor) -> Expectation:
        """The expectation given noisy rows.

        Args:
            noisy: [B, D].
            sigma: [B], their noise levels.
        """
        told = [column.likelihood(noisy, sigma) for column in self._columns]
        likelihoods = [likelihood.clamp(min=_TINY) for likelihood, _ in told]
        together = self._log_weights + torch.stack([likelihood.log() for likelihood in likelihoods]).sum(dim=0)
        responsible = together.softmax(dim=1)
        found = [
            column.expect(parts, share=responsible / likelihood)
            for column, likelihood, (_, parts) in zip(self._columns, likelihoods, told, strict=True)
        ]
        return Expectation(*(torch.cat(parts, dim=1) for parts in zip(*found, strict=True)))


def _tensor(array: NDArray[np.float64]) -> Tensor:
    return torch.tensor(array, dtype=torch.float32)


def _evidence(states: Tensor, sigma: Tensor) -> Tensor:
    """How likely each state makes a noisy one-hot block, up to a factor of the row: [B, states]."""
    return (states / sigma.square().unsqueeze(1)).softmax(dim=1)


def _normal(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=_TINY)


def _columns(surrogate: Surrogate) -> list[_Column]:
    """The measured columns in schema order; in a row's vector all values come first, then the blocks of states."""
    measured = surrogate.schema.measured
    place, state = 0, sum(not isinstance(column, Categorical) for column in measured.values())
    columns: list[_Column] = []
    for (name, column), shares in zip(measured.items(), surrogate.mixture.columns, strict=True):
        groups = np.array(surrogate.cells[name])
        if isinstance(column, Categorical):
            held = np.maximum(surrogate.encoder.grid_shares(name), _TINY)
            spread = shares[:, groups] * (held / np.bincount(groups, weights=held)[groups])
            columns.append(_States(spread, block=slice(state, state + len(groups))))
            state += len(groups)
            continue
        values = _values(surrogate, name, shares, inner=groups[:-1] if column.missing else groups, place=place)
        place += 1
        if not column.missing:
            columns.append(values)
            continue
        columns.append(_ValuesOrMissing(values, missing=shares[:, -1], block=slice(state, state + 2)))
        state += 2
    return columns


def _values(
    surrogate: Surrogate, name: str, shares: NDArray[np.float64], *, inner: NDArray[np.int64], place: int
) -> _Values:
    # The cells are runs of bins: each ends where the next one's first bin begins.
    ends = surrogate.encoder.ends(name)[np.append(np.flatnonzero(np.diff(inner, prepend=-1)), len(inner))]
    normal = ndtri(ends)
    normal[0], normal[-1] = -_BEYOND, _BEYOND
    return _Values(shares[:, : len(ends) - 1] / np.maximum(np.diff(ends), 1e-12), ends=normal, place=place)
