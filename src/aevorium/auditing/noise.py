"""Watches the noise of a release over many repeats: is there as much as is charged, in each number, and new each time?

Noise that is right is accused once in a million releases, about: of too little by a one-sided test, and of repeating
itself, or being shared by numbers, where the mean of products should be 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from aevorium.privacy.events import DiscreteGaussian, DiscreteGaussianSum, DiscreteLaplace

__all__ = ["CountEvent", "FloorWatch", "NoiseWatch"]

CountEvent = DiscreteGaussian | DiscreteGaussianSum | DiscreteLaplace
"""Events whose noise is that of whole numbers, added to numbers that are known without it."""

_UNLIKELY = 5.0
"""Standard deviations that a mean over all numbers and repeats falls short by, or is off 0 by, once in millions."""

_ERROR = 1e-7
"""Probability with which the least noisy number is accused, over all numbers of a release."""

_MANY = 500
"""Terms from which on a mean of products is taken as normal."""

_REACH = 40.0
"""Noise is summed over so many of its deviations on either side."""


@dataclass(frozen=True)
class _Distribution:
    """The noise that is charged: probabilities of whole numbers from -reach to reach."""

    numbers: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, event: CountEvent, *, nodes: int) -> _Distribution:
        """The sum of so many nodes' noises."""
        if isinstance(event, DiscreteLaplace):
            reach = math.ceil(_REACH / event.epsilon)
            one = np.exp(-event.epsilon * np.abs(np.arange(-reach, reach + 1.0)))
        else:
            reach = math.ceil(_REACH * max(event.sigma, 1.0) / math.sqrt(nodes)) + 10
            one = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * event.sigma**2))
        one /= one.sum()
        weights = one
        for _ in range(nodes - 1):
            weights = np.convolve(weights, one)
        ends = len(weights) // 2
        return cls(np.arange(-ends, ends + 1.0), weights)

    def moment(self, order: int) -> float:
        return float(self.weights @ self.numbers**order)

    def log_probability_of_so_little(self, squares: float, *, draws: int) -> float:
        """Chernoff's bound on the probability that squares of so many draws add up to no more."""

        def bound(log_rate: float) -> float:
            rate = math.exp(log_rate)
            return rate * squares + draws * math.log(float(self.weights @ np.exp(-rate * self.numbers**2)))

        scale = -math.log(self.moment(2))
        return min(0.0, float(minimize_scalar(bound, bounds=(scale - 3, scale + 8), method="bounded").fun))


class NoiseWatch:
    """The noise of one release.

    Args:
        event: What is charged for it.
        nodes: How many nodes' noises are in it.
    """

    def __init__(self, event: CountEvent, *, nodes: int) -> None:
        self._charged = _Distribution.of(event, nodes=nodes)
        self._draws = 0
        self._squares = np.empty(0)
        self._before = np.empty(0)
        self._repeated = 0.0
        self._shared = np.empty(0)

    def add(self, noise: NDArray[np.float64]) -> None:
        """Notes the noise of one repeat: float64 [numbers]."""
        spectrum = np.abs(np.fft.rfft(noise)) ** 2
        if not self._draws:
            self._squares, self._shared = np.zeros(len(noise)), np.zeros(len(spectrum))
        else:
            self._repeated += float(self._before @ noise)
        self._squares += noise**2
        self._shared += spectrum
        self._before = noise
        self._draws += 1

    @property
    def found(self) -> float:
        """Root mean square of the noise."""
        return math.sqrt(float(self._squares.mean()) / self._draws)

    @property
    def planned(self) -> float:
        """Standard deviation of the noise that is charged."""
        return math.sqrt(self._charged.moment(2))

    def shortcomings(self) -> list[str]:
        """What is wrong with the noise, in words that follow the name of the release; none if nothing is."""
        found = []
        numbers, variance = len(self._squares), self._charged.moment(2)
        terms = numbers * self._draws
        spread = math.sqrt(max(self._charged.moment(4) - variance**2, 0.0) / terms)
        if self.found**2 - variance < -_UNLIKELY * spread:
            found.append("has less noise than is charged")
        least = self._charged.log_probability_of_so_little(float(self._squares.min()), draws=self._draws)
        if least + math.log(numbers) < math.log(_ERROR):
            found.append("has a number with less noise than is charged")
        if terms - numbers >= _MANY and abs(self._repeated) > _UNLIKELY * variance * math.sqrt(terms - numbers):
            found.append("has noise that repeats itself")
        if numbers > 1 and terms >= _MANY and self._most_shared() > _UNLIKELY + math.sqrt(2 * math.log(numbers)):
            found.append("has noise that its numbers share")
        return found

    def _most_shared(self) -> float:
        """The largest sum of products of two numbers' noises, as far apart as you like, in standard deviations."""
        numbers = len(self._squares)
        shared = np.fft.irfft(self._shared, numbers)[1:]
        # The noise of two numbers half the release apart meets twice.
        meets = np.where(2 * np.arange(1, numbers) == numbers, 2, 1)
        deviations = self._charged.moment(2) * np.sqrt(self._draws * numbers * meets)
        return float(np.max(np.abs(shared) / deviations))


class FloorWatch:
    """The noise of numbers that have other chance in them besides: how they differ from repeat to repeat is no less.

    Args:
        planned: Standard deviation of the noise that is charged.
    """

    def __init__(self, planned: float) -> None:
        self.planned = planned
        self._before: dict[int, NDArray[np.float64]] = {}
        self._squares = 0.0
        self._terms = 0

    def add(self, numbers: NDArray[np.float64], *, part: int) -> None:
        """Notes the numbers of one repeat.

        Args:
            numbers: float64 [numbers].
            part: Which of several releases of the kind it is.
        """
        if part in self._before:
            difference = numbers - self._before[part]
            self._squares += float(difference @ difference) / 2
            self._terms += len(numbers)
        self._before[part] = numbers

    @property
    def found(self) -> float:
        """Standard deviation of the numbers."""
        return math.sqrt(self._squares / self._terms)

    def shortcomings(self) -> list[str]:
        """What is wrong with the noise; none if nothing is."""
        # Half the square of a difference has three times the variance of a square, as each number is in two of them.
        spread = self.planned**2 * math.sqrt(3 / self._terms)
        is_short = self.found**2 - self.planned**2 < -_UNLIKELY * spread
        return ["has less noise than is charged"] if is_short else []
