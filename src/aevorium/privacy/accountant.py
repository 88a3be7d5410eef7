"""What events cost: ε at a given δ, never understated, and the noise that meets a target.

Unit and neighbours: one patient's record is added or removed.

**Inside one run** (`epsilon`). Pure events (`DiscreteLaplace`) add up linearly; everything else is composed exactly
through its privacy loss distribution (PLD, pessimistic), and the two sums are added. The reason is adaptivity. A PLD
composes mechanisms whose dominating pairs are fixed beforehand; which histogram or gradient a mechanism is applied to
may depend on earlier output, its noise may not. A noisy count, however, comes first and fixes the sampling rate and
the noise of what follows. That is covered: if the count is (ε₀, 0)-DP and, whatever it says, what follows is
(ε - ε₀, δ)-DP, then both together are (ε, δ)-DP, by basic composition, which holds for every dependence on the count.
Choosing noise after a *Gaussian* release would be covered by neither rule, and the gate refuses it: a run's events
are fixed before its first release that is not pure.

**A run with a holdout** costs the larger of what its two groups of patients are charged (`events.cost_groups`), each by
the rules above.

What holds for a run is its target: (ε, δ) of the plan. When parameters depend on a noisy count, or when training
stops early for a reason found in its own output, the smaller figure computed from the events that happened describes
that one outcome and must not replace the target in a claim.

**Sums of shares** (secure aggregation) are accounted as the mechanism that they are close to; what the distance adds
to ε and takes off δ is proven in `sums`.

**Over the runs of a period** (`spent`). A new run is planned after seeing the old ones, so the PLDs of runs do not
compose. Rényi costs do (`renyi.RenyiOdometer`), for a somewhat higher figure: what one run costs when it stands alone
is said by `epsilon`, what all runs cost together, whichever come later, by `spent`, from the first release on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.pld.pld_pmf import create_pmf_pessimistic_connect_dots
from dp_accounting.pld.privacy_loss_mechanism import DiscreteGaussianPrivacyLoss
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from aevorium.errors import ConfigError, InternalError
from aevorium.privacy.events import (
    DiscreteGaussian,
    DiscreteGaussianSum,
    DiscreteLaplace,
    NonPrivate,
    PrivacyEvent,
    SampledDiscreteGaussianSum,
    SampledGaussian,
    amount_of,
    cost_groups,
)
from aevorium.privacy.renyi import RenyiOdometer, renyi_epsilon, zcdp_budget
from aevorium.privacy.sums import distance_of, noise_multiplier_of

__all__ = ["calibrate", "epsilon", "gaussian_budget", "privacy_curve", "round_up", "spent", "zcdp_budget"]

_FINE = 1e-4
"""Grid of the privacy loss, in nats, for statements."""

_NARROWEST = 2.0**-6
"""Of the grid's widenings. At a large δ the estimate of ε can be nothing at all."""

_COARSE = 1e-3
"""The same while searching for an ε of at least `_SMALL`; below that it would cost more than the target itself."""

_SMALL = 0.1
"""Targets below this are searched on the fine grid; their noise is so large that it has few points."""

_SLACK = 1e-15
"""Floating-point error of δ, per composed mechanism, taken off δ before ε is read."""

_CURVE_DELTA = 1e-9
"""The smallest δ of a curve: attacks that succeed more seldom are of no interest."""

_NOISE_RANGE = (0.1, 1e6)
"""Noise multipliers that `calibrate` considers."""

_LEAST_EPSILON = 1e-9
"""What has no ε at all counts as so much where a logarithm is taken."""

_MOST_REFINEMENTS = 7
"""On the fine grid, before noise that is safe is taken although less may do."""


def round_up(value: float | Decimal) -> float:
    """The smallest decimal number of four places that is not below `value`."""
    if not math.isfinite(value):
        return float(value)
    return float((Decimal(value) * 10_000).to_integral_value(ROUND_CEILING) / 10_000)


def epsilon(events: Sequence[PrivacyEvent], delta: float) -> float:
    """The ε at δ of one run's events, rounded up to four decimals. Safe to release.

    Args:
        events: What the run releases, in any order.
        delta: The δ of the statement; 0 is enough for pure events alone.

    Returns:
        ε ≥ the true value; 0 for no events; infinite for a `NonPrivate` event, or where δ = 0 and noise is Gaussian.

    Raises:
        ConfigError: CONFIG_INVALID, if δ is not in [0, 1) or is too small for the arithmetic (below about 1e-12).
    """
    if not 0 <= delta < 1:
        raise ConfigError("CONFIG_INVALID", f"delta = {delta!r} is not possible. It must lie between 0 and 1.")
    return _epsilon(events, delta, _FINE)


def _epsilon(events: Sequence[PrivacyEvent], delta: float, grid: float) -> float:
    return max(_group_epsilon(group, delta, grid) for group in cost_groups(events))


@lru_cache(maxsize=1024)
def _group_epsilon(events: tuple[PrivacyEvent, ...], delta: float, grid: float) -> float:
    if any(isinstance(event, NonPrivate) for event in events):
        return math.inf
    pure = sum((Decimal(repr(e.epsilon)) for e in events if isinstance(e, DiscreteLaplace)), Decimal(0))
    composed = tuple(event for event in events if not isinstance(event, DiscreteLaplace))
    if not composed:
        return round_up(pure)
    if delta == 0:
        return math.inf
    return round_up(pure + Decimal(_composed_epsilon(composed, delta, grid)))


def _composed_epsilon(events: tuple[PrivacyEvent, ...], delta: float, grid: float) -> float:
    slack = _SLACK * sum(amount_of(event) for event in events)
    if delta < 1e-12 or delta <= 10 * slack:
        raise ConfigError(
            "CONFIG_INVALID",
            f"delta = {delta!r} is too small. ε cannot be computed reliably at it.",
            hint="Use a delta of at least 1e-12, or fewer steps.",
        )
    total = _composed(events, grid * _widening(events, delta))
    distance = math.fsum(distance_of(event) for event in events)
    return float(total.get_epsilon_for_delta((delta - slack) * math.exp(-distance))) + distance


def _composed(events: tuple[PrivacyEvent, ...], interval: float) -> pld.PrivacyLossDistribution:
    ideals = [_ideal(event) for event in events]
    total = _distribution(ideals[0], interval)
    for ideal in ideals[1:]:
        total = total.compose(_distribution(ideal, interval))
    return total


def privacy_curve(events: Sequence[PrivacyEvent], *, points: int = 400) -> tuple[tuple[float, float], ...]:
    """Pairs (ε, δ) that all hold for one run's events, by the rules of `epsilon`. Safe to release.

    Args:
        events: What the run releases, its parameters all fixed beforehand.
        points: How many pairs, from the δ of pure ε alone down to about 1e-9.

    Returns:
        Pairs in ascending order of ε, each δ ≥ the true value at its ε.
    """
    curves = [_group_curve(group, points=points) for group in cost_groups(events)]
    return curves[0] if len(curves) == 1 else _highest(curves)


def _highest(curves: Sequence[tuple[tuple[float, float], ...]]) -> tuple[tuple[float, float], ...]:
    """Pairs that hold on all curves: at each ε the largest δ, which on a curve holds from its pair on to the next."""
    levels = sorted({level for curve in curves for level, _ in curve})

    def delta_of(curve: tuple[tuple[float, float], ...], level: float) -> float:
        return min((delta for at, delta in curve if at <= level), default=1.0)

    return tuple((level, max(delta_of(curve, level) for curve in curves)) for level in levels)


def _group_curve(merged: tuple[PrivacyEvent, ...], *, points: int) -> tuple[tuple[float, float], ...]:
    pure = math.fsum(event.epsilon for event in merged if isinstance(event, DiscreteLaplace)) * (1 + 1e-12)
    composed = tuple(event for event in merged if not isinstance(event, DiscreteLaplace))
    if any(isinstance(event, NonPrivate) for event in composed):
        return ((math.inf, 0.0),)
    if not composed:
        return ((pure, 0.0),)
    slack = _SLACK * sum(amount_of(event) for event in composed)
    total = _composed(composed, _FINE * _widening(composed, _CURVE_DELTA))
    grid = np.linspace(0.0, float(total.get_epsilon_for_delta(_CURVE_DELTA)), points)
    distance = math.fsum(distance_of(event) for event in composed)
    deltas = np.minimum(np.asarray(total.get_delta_for_epsilon(grid)) * math.exp(distance) + slack, 1.0)
    return tuple((pure + distance + float(at), float(delta)) for at, delta in zip(grid, deltas, strict=True))


def _ideal(event: PrivacyEvent) -> PrivacyEvent:
    """The mechanism that is accounted in an event's place; `sums.distance_of` says what that costs."""
    match event:
        case DiscreteGaussianSum(sigma=sigma, shares=shares, sensitivity=sensitivity, count=count):
            return DiscreteGaussian(
                purpose=event.purpose, sigma=sigma * math.sqrt(shares), sensitivity=sensitivity, count=count
            )
        case SampledDiscreteGaussianSum(sampling_rate=rate, steps=steps):
            noise = noise_multiplier_of(event)
            return SampledGaussian(purpose=event.purpose, sampling_rate=rate, noise_multiplier=noise, steps=steps)
        case _:
            return event


def _widening(events: tuple[PrivacyEvent, ...], delta: float) -> float:
    """How much wider the grid becomes for a large ε, in powers of two, so that time and memory stay bounded.

    It grows with an estimate of ε and with the range of one training step's loss, (10 + 1/2σ)/σ. The result is still
    never below the truth; at ε = 300 it is about 0.2 % above it. For an ε below 1 the grid becomes narrower: thousands
    of tables, each with a loss below the grid's step, would otherwise cost visibly more than they do.
    """
    estimate = renyi_epsilon(events, delta=delta)
    noises = [ideal.noise_multiplier for ideal in map(_ideal, events) if isinstance(ideal, SampledGaussian)]
    reach = max(((10 + 0.5 / noise) / noise for noise in noises), default=0.0)
    wide = max(min(1.0, estimate), math.sqrt(estimate / 4), estimate / 200, reach / 30, _NARROWEST)
    return 2.0 ** math.ceil(math.log2(wide))


@lru_cache(maxsize=16)
def _distribution(event: PrivacyEvent, interval: float) -> pld.PrivacyLossDistribution:
    match event:
        case DiscreteGaussian(sigma=sigma, sensitivity=sensitivity, count=count):
            return _discrete_gaussian(sigma, sensitivity, interval).self_compose(count)
        case SampledGaussian(sampling_rate=rate, noise_multiplier=noise, steps=steps):
            single = pld.from_gaussian_mechanism(
                noise, value_discretization_interval=interval, sampling_prob=rate, use_connect_dots=True
            )
            return single.self_compose(steps)
        case _:
            raise InternalError(f"No privacy loss distribution for an event of kind {event.kind!r}.")


def _discrete_gaussian(sigma: float, sensitivity: int, interval: float) -> pld.PrivacyLossDistribution:
    """One discrete Gaussian by "connect the dots" (Doroshenko et al. 2022).

    That is pessimistic like plain rounding, and far closer when losses lie nearer together than the grid, as they do
    for a histogram with large σ. The grid may then be every multiple of the interval; the library would visit each
    whole number of the noise instead, of which there are 23σ.
    """
    if sensitivity / sigma**2 >= interval:
        return pld.from_discrete_gaussian_mechanism(
            sigma, sensitivity, value_discretization_interval=interval, use_connect_dots=True
        )
    loss = DiscreteGaussianPrivacyLoss(sigma, sensitivity)
    bounds = loss.connect_dots_bounds()
    low, high = (loss.privacy_loss(x) / interval for x in (bounds.upper_x, bounds.lower_x))
    grid = np.arange(math.floor(low), math.ceil(high) + 1)
    deltas = loss.get_delta_for_epsilon(grid * interval)
    return pld.PrivacyLossDistribution(create_pmf_pessimistic_connect_dots(interval, grid, deltas))


def gaussian_budget(epsilon: float, delta: float) -> float:
    """The ρ = Δ²/2σ² of the one Gaussian mechanism that is exactly (ε, δ)-DP (Balle & Wang 2018, Theorem 8).

    Gaussian mechanisms compose to one whose ρ is their sum, so it is what a plan of tables can share out: a sixth
    more than `zcdp_budget` at ε between 1 and 3 and δ = 1e-5. For planning: what noise costs, `epsilon` says.

    Args:
        epsilon: Target ε, above 0.
        delta: Target δ, between 0 and 1.
    """

    def excess(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        lost = math.exp(min(epsilon + float(log_ndtr(-epsilon / ratio - ratio / 2)), 0.0))
        return float(ndtr(-epsilon / ratio + ratio / 2)) - lost - delta

    return math.exp(2 * float(brentq(excess, -30.0, 6.0, xtol=1e-10))) / 2


def spent(*runs: Sequence[PrivacyEvent], odometer: RenyiOdometer) -> float:
    """The ε of everything released over many runs, rounded up, whichever runs come later. Safe to release.

    It holds when each run was planned after seeing the earlier ones, and so it is above what `epsilon` says of a run
    that stands alone. One proof from the first release on: the figure never falls, and a further run adds to it what
    that run costs. Pure events alone also add up as they are, at δ = 0, so that bound needs no share of δ.

    Args:
        runs: The events of each run.
        odometer: The proof, fixed before the first release.
    """
    total = round_up(odometer.read(*runs))
    if all(isinstance(event, DiscreteLaplace) for run in runs for event in run):
        return min(total, round_up(sum((Decimal(repr(epsilon(run, delta=0))) for run in runs), Decimal(0))))
    return total


def calibrate(
    make_events: Callable[[float], Sequence[PrivacyEvent]],
    *,
    epsilon: float,
    delta: float,
) -> float:
    """The smallest noise multiplier with which a run's events meet a target, to about 0.1 %, from the safe side.

    Args:
        make_events: The run's events for a noise multiplier. A larger one must never cost more.
        epsilon: Target ε.
        delta: Target δ.

    Returns:
        A noise multiplier whose events have `epsilon(events, delta=δ)` ≤ ε by the fine accountant.

    Raises:
        ConfigError: CONFIG_INVALID, if no noise meets the target, or none within the range searched.
    """
    grid = _COARSE if epsilon >= _SMALL else _FINE

    def excess(log_noise: float) -> float:
        found = _epsilon(make_events(math.exp(log_noise)), delta, grid)
        return math.log(max(found, _LEAST_EPSILON) / epsilon)

    if not 0 < epsilon < math.inf or not 0 < delta < 1:
        raise ConfigError("CONFIG_INVALID", f"No noise has ε = {epsilon!r} at δ = {delta!r}. Both must be positive.")
    low, high = _bracket(make_events, excess, epsilon=epsilon, delta=delta)
    if low == high:
        return _refine(make_events, _NOISE_RANGE[0], slope=1.0, epsilon=epsilon, delta=delta)
    root = float(brentq(excess, low, high, xtol=4e-4, rtol=1e-12))
    slope = (excess(root) - excess(root + 0.02)) / 0.02
    return _refine(make_events, math.exp(root), slope=slope, epsilon=epsilon, delta=delta)


def _refine(
    make_events: Callable[[float], Sequence[PrivacyEvent]],
    start: float,
    *,
    slope: float,
    epsilon: float,
    delta: float,
) -> float:
    """From a noise multiplier near the target to one that the fine accountant confirms, in few evaluations.

    Args:
        make_events: The run's events for a noise multiplier.
        start: Where the search by the coarse grid ended.
        slope: Relative fall of ε per relative rise of the noise there. Many steps of little loss each cost far more on
            the coarse grid than they do, and fall otherwise; from the second evaluation on it is measured.
        epsilon: Target ε.
        delta: Target δ.
    """
    noise, safe = start, math.inf
    before: tuple[float, float] | None = None
    for attempt in range(100):
        # At a large δ no ε may be left at all.
        found = max(_epsilon(make_events(noise), delta, _FINE), _LEAST_EPSILON)
        if found <= epsilon:
            safe = min(safe, noise)
        is_close = epsilon * (1 - 1e-3) <= found <= epsilon
        if safe < math.inf and (is_close or safe <= _NOISE_RANGE[0] or attempt >= _MOST_REFINEMENTS):
            return safe
        if before is not None and found != before[1] and noise != before[0]:
            slope = math.log(found / before[1]) / math.log(before[0] / noise)
        before = noise, found
        step = max((found / epsilon * (1 + 2e-4)) ** (1 / min(max(slope, 0.2), 10.0)), 0.5)
        noise *= max(step, 1.0002) if found > epsilon else step
    raise _unattainable(epsilon, delta)


def _bracket(
    make_events: Callable[[float], Sequence[PrivacyEvent]],
    excess: Callable[[float], float],
    *,
    epsilon: float,
    delta: float,
) -> tuple[float, float]:
    """Two logarithms of noise multipliers with the target between them; equal when the smallest already meets it."""
    smallest, largest = (math.log(bound) for bound in _NOISE_RANGE)
    high = _renyi_guess(make_events, epsilon=epsilon, delta=delta)
    while excess(high) > 0:
        if high >= largest:
            raise _unattainable(epsilon, delta)
        high = min(largest, high + 0.7)
    low = max(smallest, high - 0.2)
    while excess(low) <= 0:
        if low <= smallest:
            return low, low
        low, high = max(smallest, low - 0.7), low
    return low, high


def _renyi_guess(make_events: Callable[[float], Sequence[PrivacyEvent]], *, epsilon: float, delta: float) -> float:
    """Logarithm of the noise that meets the target by Rényi accounting: cheap, and a little too much."""

    def excess(log_noise: float) -> float:
        found = renyi_epsilon(make_events(math.exp(log_noise)), delta=delta)
        return math.log(min(max(found, 1e-9), 1e9) / epsilon)

    smallest, largest = (math.log(bound) for bound in _NOISE_RANGE)
    if excess(largest) > 0:
        return largest
    if excess(smallest) < 0:
        return smallest
    return float(brentq(excess, smallest, largest, xtol=1e-2))


def _unattainable(epsilon: float, delta: float) -> ConfigError:
    return ConfigError(
        "CONFIG_INVALID",
        f"No amount of noise reaches ε = {epsilon!r} at δ = {delta!r}. The run's other releases already cost as much.",
        hint="Raise --epsilon, or give the other phases a smaller share.",
    )
