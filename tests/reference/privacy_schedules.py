"""Random schedules of releases, and between which two numbers the true ε of each lies.

The bounds share no code with the accountant or its library. Each release is a pair of distributions; the loss of a
whole schedule is a sum of independent losses, whose distribution is computed by a fast Fourier transform.

What is proven, and how:

- One release's loss is rounded to the nearest multiple of h. The rounding errors of k releases are independent, and
  once their means are added back, each lies within an interval of length h around 0. By Hoeffding's inequality their
  sum exceeds η = h·√(k·ln(1/p)/2) with a probability of at most p (coupling, as in Gopi, Lee & Wutschitz 2021). So
  δ(ε + η) - p ≤ the true δ(ε) ≤ δ(ε - η) + p.
- The sum is computed under the tilted law p(l)·exp(λ·l), with λ at the optimum of the Chernoff bound. The losses
  around ε, which decide, are then its bulk and not its tail, so δ has a small *relative* error even at 1e-10.
- What lies outside the window of the transform is bounded by Chernoff's inequality under the tilted law, what is cut
  off one release by its Gaussian tail; both are added to one bound and taken off the other.

Discrete Gaussian noise is summed over the whole numbers as it is. Unsampled Gaussian releases are one Gaussian
release with their summed μ², exactly. Pure events are added in full, which is the composition rule that the
accountant states: what follows a noisy count may depend on it.

`python tests/reference/privacy_schedules.py` writes `test_privacy_schedules.json` anew, in some minutes.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy
from scipy.fft import irfft, rfft
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri_exp

SEED = 20_261_124
SCHEDULES = 500
FILE = Path(__file__).with_name("test_privacy_schedules.json")

_TINY = 1e-6
"""Each of the probabilities that are added to δ, as a share of δ."""

_PRECISION = 4e-4
"""η as a share of ε."""

_MOST_POINTS = 2**25

_LEAST = 0.3
"""How far below its Chernoff bound ε is looked for, as a share of it; below that it is bounded by this alone."""


@dataclass(frozen=True)
class Training:
    """Steps of a Poisson-sampled Gaussian of sensitivity 1."""

    rate: float
    noise: float
    steps: int


@dataclass(frozen=True)
class Tables:
    """Releases of whole numbers plus discrete Gaussian noise."""

    sigma: float
    sensitivity: int
    count: int


@dataclass(frozen=True)
class Schedule:
    """What is released, the pure ε beside it, and the δ at which ε is asked for."""

    training: tuple[Training, ...]
    tables: tuple[Tables, ...]
    pure: float
    delta: float


@dataclass(frozen=True)
class _Gaussian:
    """The loss of one Gaussian release: normal with mean μ²/2 and variance μ², in both directions."""

    mu: float
    times: int = 1

    def log_moment(self, tilt: float, tail: float) -> float:
        reach = -ndtri_exp(math.log(tail))
        within = [log_ndtr(reach - tilt * self.mu), log_ndtr(-reach - tilt * self.mu)]
        kept = within[0] + math.log1p(-math.exp(within[1] - within[0]))
        return tilt * (tilt + 1) * self.mu**2 / 2 + kept - math.log1p(-2 * tail)

    def cells(self, step: float, tail: float) -> tuple[int, np.ndarray, float]:
        reach = -ndtri_exp(math.log(tail)) * self.mu
        low, high = (round((self.mu**2 / 2 + sign * reach) / step) for sign in (-1, 1))
        edges = (np.arange(low, high + 2) - 0.5) * step
        mass = _normal_mass((edges - self.mu**2 / 2) / self.mu)
        return low, mass / mass.sum(), self.mu**2 / 2


@dataclass(frozen=True)
class _Sampled:
    """The loss of one step. Removing a record: the mixture against N(0, σ²); adding one: the other way round."""

    rate: float
    noise: float
    times: int
    removes: bool

    def loss(self, x: np.ndarray) -> np.ndarray:
        ratio = np.logaddexp(math.log1p(-self.rate), math.log(self.rate) + (2 * x - 1) / (2 * self.noise**2))
        return ratio if self.removes else -ratio

    def crossing(self, loss: np.ndarray) -> np.ndarray:
        """Where the ratio of densities is exp(±loss); -∞ where it is larger everywhere."""
        value = loss if self.removes else -loss
        inner = np.maximum(np.expm1(np.minimum(value, 40)) + self.rate, 0)
        with np.errstate(divide="ignore"):
            log_ratio = np.where(value > 40, value, np.log(inner)) - math.log(self.rate)
        return 0.5 + self.noise**2 * log_ratio

    def points(self, tail: float) -> tuple[np.ndarray, np.ndarray]:
        """Points x and their probabilities: the trapezoidal rule, exact to rounding for smooth densities."""
        reach = -ndtri_exp(math.log(tail)) * self.noise
        x = np.linspace(-reach, reach + (1 if self.removes else 0), 10_001)
        log_density = -(x**2) / (2 * self.noise**2)
        if self.removes:
            log_density = log_density + self.loss(x)
        weight = np.exp(log_density)
        weight[[0, -1]] /= 2
        return x, weight / weight.sum()

    def law(self, tail: float) -> tuple[np.ndarray, np.ndarray]:
        x, weight = _points_of(self, tail)
        return self.loss(x), weight

    def log_moment(self, tilt: float, tail: float) -> float:
        return _log_moment_of(*_law_of(self, tail), tilt)

    def cells(self, step: float, tail: float) -> tuple[int, np.ndarray, float]:
        x, weight = _points_of(self, tail)
        ends = np.sort(self.loss(x[[0, -1]]))
        low, high = (round(end / step) for end in ends)
        inner = self.crossing((np.arange(low, high) + 0.5) * step)
        edges = np.concatenate([x[[0]], inner, x[[-1]]] if self.removes else [x[[-1]], inner, x[[0]]])
        edges = np.clip(edges, x[0], x[-1])
        mass = np.abs(_normal_mass(edges / self.noise))
        if self.removes:
            shifted = np.abs(_normal_mass((edges - 1) / self.noise))
            mass = (1 - self.rate) * mass + self.rate * shifted
        return low, mass / mass.sum(), float(np.sum(weight * self.loss(x)))


@dataclass(frozen=True)
class _Lattice:
    """The loss of one discrete Gaussian release, by its whole numbers; the same in both directions."""

    sigma: float
    sensitivity: int
    times: int

    def law(self, tail: float) -> tuple[np.ndarray, np.ndarray]:
        reach = math.ceil(-ndtri_exp(math.log(tail)) * self.sigma)
        x = np.arange(-reach, reach + 1)
        weight = np.exp(-(x**2) / (2 * self.sigma**2))
        return self.sensitivity * (2 * x + self.sensitivity) / (2 * self.sigma**2), weight / weight.sum()

    def log_moment(self, tilt: float, tail: float) -> float:
        return _log_moment_of(*_law_of(self, tail), tilt)

    def cells(self, step: float, tail: float) -> tuple[int, np.ndarray, float]:
        losses, weight = _law_of(self, tail)
        index = np.rint(losses / step).astype(np.int64)
        low = int(index[0])
        return low, np.bincount(index - low, weights=weight), float(np.sum(weight * losses))


_Release = _Gaussian | _Sampled | _Lattice


@lru_cache(maxsize=8)
def _points_of(release: _Sampled, tail: float) -> tuple[np.ndarray, np.ndarray]:
    return release.points(tail)


@lru_cache(maxsize=8)
def _law_of(release: _Sampled | _Lattice, tail: float) -> tuple[np.ndarray, np.ndarray]:
    return release.law(tail)


def _normal_mass(edges: np.ndarray) -> np.ndarray:
    """Φ(b) - Φ(a) of neighbouring edges, without cancellation in either tail."""
    a, b = edges[:-1], edges[1:]
    flipped = a + b > 0
    low, high = np.where(flipped, -b, a), np.where(flipped, -a, b)
    return np.exp(log_ndtr(high)) - np.exp(log_ndtr(low))


def _releases(schedule: Schedule, *, removes: bool) -> list[_Release]:
    whole = sum(t.steps / t.noise**2 for t in schedule.training if t.rate == 1)
    found: list[_Release] = [_Gaussian(math.sqrt(whole))] if whole else []
    found += [_Sampled(t.rate, t.noise, t.steps, removes) for t in schedule.training if t.rate < 1]
    return [*found, *(_Lattice(t.sigma, t.sensitivity, t.count) for t in schedule.tables)]


def _log_moment_of(losses: np.ndarray, weight: np.ndarray, tilt: float) -> float:
    top = tilt * max(losses[0], losses[-1])
    return float(top + math.log(np.sum(weight * np.exp(tilt * losses - top))))


def _log_moment(releases: list[_Release], tilt: float, tail: float) -> float:
    return sum(release.times * release.log_moment(tilt, tail) for release in releases)


def _chernoff(releases: list[_Release], delta: float, tail: float) -> tuple[float, float]:
    """The λ at which the Chernoff bound on ε at δ is best, and the bound."""

    def bound(log_tilt: float) -> float:
        tilt = math.exp(log_tilt)
        return (_log_moment(releases, tilt, tail) - math.log(delta)) / tilt

    tried = np.linspace(math.log(0.02), math.log(2e4), 60)
    values = [bound(value) for value in tried]
    best = int(np.argmin(values))
    found = scipy.optimize.minimize_scalar(
        bound, bounds=(tried[max(best - 1, 0)], tried[min(best + 1, 59)]), method="bounded"
    )
    # A loss that is bounded has no best λ below infinity; any λ will do.
    return min(math.exp(found.x), 100 / max(found.fun, 1e-3)), float(found.fun)


def bracket(schedule: Schedule) -> tuple[float, float]:
    """Two numbers between which the true ε of a schedule lies, pure events included."""
    sides = [_bracket(_releases(schedule, removes=removes), schedule.delta) for removes in (True, False)]
    return schedule.pure + max(low for low, _ in sides), schedule.pure + max(high for _, high in sides)


def _bracket(releases: list[_Release], delta: float) -> tuple[float, float]:
    tail = _TINY * delta / (2 * sum(release.times for release in releases))
    tilt, centre = _chernoff(releases, delta, tail)
    low, high = _bounds(releases, delta, tilt=tilt, centre=centre, tail=tail)
    for _ in range(6):
        if high - low <= max(1.5e-3 * low, 5e-4):
            break
        # The Chernoff bound was far off: once more, from the better bound that came of it.
        tilt, centre = _tilt_at(releases, high, below=tilt, tail=tail), high
        low, high = _bounds(releases, delta, tilt=tilt, centre=centre, tail=tail)
    return low, high


def _tilt_at(releases: list[_Release], mean: float, *, below: float, tail: float) -> float:
    """The λ at which the tilted law has a given mean, or the nearest one within the range."""

    def excess(log_tilt: float) -> float:
        tilt = math.exp(log_tilt)
        rise = _log_moment(releases, tilt * 1.001, tail) - _log_moment(releases, tilt * 0.999, tail)
        return rise / (0.002 * tilt) - mean

    low, high = math.log(1e-2), math.log(below)
    if excess(low) > 0 or excess(high) < 0:
        return below
    return math.exp(brentq(excess, low, high, xtol=1e-3))


def _bounds(releases: list[_Release], delta: float, *, tilt: float, centre: float, tail: float) -> tuple[float, float]:
    times = sum(release.times for release in releases)
    rounding = math.sqrt(times * math.log(1 / (_TINY * delta)) / 2)
    width, outside = _window(releases, tilt=tilt, centre=centre, delta=delta, tail=tail)
    step = max(_PRECISION * max(centre, 1e-2) / rounding, width / _MOST_POINTS)
    losses, weights = _law(releases, tilt=tilt, centre=centre, step=step, width=width, tail=tail)

    def delta_of(epsilon: float) -> float:
        first = int(np.searchsorted(losses, epsilon))
        return float(np.sum(weights[first:] * -np.expm1(epsilon - losses[first:])))

    start = max(0.0, _LEAST * centre)

    def epsilon_at(value: float) -> float:
        # Nearly linear in ε, so that few evaluations are enough.
        return brentq(lambda e: math.log(max(delta_of(e), 1e-300) / value), start, 1.5 * centre, xtol=1e-8)

    # Tails cut off, rounding beyond η, mass outside the window, and floating-point error.
    doubt = 2 * _TINY * delta + outside + 1e-9 * times * delta
    eta = step * rounding
    if delta_of(start) <= delta + doubt:
        # This direction costs far less than the other one: a rough bound will do.
        return 0.0, start + eta if delta_of(start) <= delta - doubt else epsilon_at(delta - doubt) + eta
    return epsilon_at(delta + doubt) - eta, epsilon_at(delta - doubt) + eta


def _law(
    releases: list[_Release], *, tilt: float, centre: float, step: float, width: float, tail: float
) -> tuple[np.ndarray, np.ndarray]:
    """The losses of a schedule within the window around `centre`, ascending, and their probabilities."""
    points = scipy.fft.next_fast_len(math.ceil(width / step), real=True)
    spectrum, moment, shift = np.ones(points // 2 + 1, dtype=complex), 0.0, 0.0
    for release in releases:
        low, mass, mean = release.cells(step, tail)
        losses = (low + np.arange(len(mass))) * step
        shift += release.times * (mean - float(np.sum(mass * losses)))
        top = tilt * max(losses[0], losses[-1])
        tilted = mass * np.exp(tilt * losses - top)
        total = tilted.sum()
        moment += release.times * (math.log(total) + top)
        folded = np.bincount((low + np.arange(len(mass))) % points, weights=tilted / total, minlength=points)
        spectrum *= rfft(folded) ** release.times
    first = round(centre / step) - points // 2
    law = np.roll(np.maximum(irfft(spectrum, points), 0), -(first % points))
    losses = (first + np.arange(points)) * step
    return losses + shift, law * np.exp(moment - tilt * losses)


def _window(releases: list[_Release], *, tilt: float, centre: float, delta: float, tail: float) -> tuple[float, float]:
    """How wide a window around ε holds the tilted law, and a bound on the δ of what it leaves out."""

    def moment(at: float) -> float:
        return _log_moment(releases, at, tail)

    own, h = moment(tilt), 1e-2 * tilt
    deviation = math.sqrt(max((moment(tilt + h) - 2 * own + moment(tilt - h)) / h**2, 1e-12))
    scales = [sign * scale / deviation for sign in (-1, 1) for scale in (0.25, 0.5, 1, 2, 4, 8, 12, 16, 24)]
    excess = [(t, moment(tilt + t) - own) for t in scales if tilt + t > -0.5]
    # Mass outside reappears inside, where it weighs at most as much as at the smallest ε that is considered.
    weight = own - tilt * _LEAST * centre
    for half in np.arange(6.0, 400.0) * deviation:
        above = min(value - t * (centre + half) for t, value in excess if t > 0)
        below = min(value - t * (centre - half) for t, value in excess if t < 0)
        outside = math.exp(min(above + weight, 0)) + math.exp(min(below + weight, 0))
        if outside <= _TINY * delta:
            # One deviation more for the rounding of all releases.
            return 2 * (half + deviation), outside
    raise ValueError("no window is wide enough")


def draw_schedules() -> list[Schedule]:
    """The 500 schedules: the same ones each time.

    A draw is kept if its Chernoff bound lies between 0.08 and 35 and if a number that is drawn first lets it pass:
    without that, two in three would lie above ε = 5.
    """
    rng = np.random.default_rng(SEED)
    found: list[Schedule] = []
    while len(found) < SCHEDULES:
        wanted = math.exp(rng.uniform(math.log(0.08), math.log(35)))
        schedule = _draw(rng)
        rough = _rough(schedule)
        if 0.08 <= rough <= 35 and abs(math.log(rough / wanted)) < 1:
            found.append(schedule)
    return found


def _rough(schedule: Schedule) -> float:
    """The Chernoff bound of a schedule whose tables had continuous noise."""
    releases = _releases(Schedule(schedule.training, (), 0.0, schedule.delta), removes=True)
    releases += [_Gaussian(math.sqrt(part.count) * part.sensitivity / part.sigma) for part in schedule.tables]
    tail = _TINY * schedule.delta / (2 * sum(release.times for release in releases))
    return _chernoff(releases, schedule.delta, tail)[1] + schedule.pure


def _draw(rng: np.random.Generator) -> Schedule:
    def log_uniform(low: float, high: float) -> float:
        return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.6g}")

    trainings, kinds = int(rng.choice([0, 1, 1, 1, 2])), int(rng.choice([0, 1, 2, 3]))
    if trainings + kinds == 0:
        trainings = 1
    training = tuple(
        Training(
            rate=1.0 if rng.random() < 0.15 else log_uniform(1e-3, 1),
            noise=log_uniform(0.5, 30),
            steps=round(log_uniform(1, 5000)),
        )
        for _ in range(trainings)
    )
    tables = []
    for _ in range(kinds):
        sensitivity = int(rng.choice([1, 1, 1, 100]))
        tables.append(Tables(sensitivity * log_uniform(1.5, 500), sensitivity, round(log_uniform(1, 500))))
    pure = log_uniform(0.005, 0.25) if rng.random() < 0.5 else 0.0
    return Schedule(training, tuple(tables), pure, log_uniform(1e-10, 1e-4))


def read_schedules() -> list[tuple[Schedule, float, float]]:
    """The schedules as they were written, each with the two bounds of its ε."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return [
        (
            Schedule(
                training=tuple(Training(*values) for values in entry["training"]),
                tables=tuple(Tables(*values) for values in entry["tables"]),
                pure=entry["pure"],
                delta=entry["delta"],
            ),
            entry["low"],
            entry["high"],
        )
        for entry in content["schedules"]
    ]


def main() -> None:
    """Writes the schedules and their bounds."""
    started, lines = time.monotonic(), []
    for place, schedule in enumerate(draw_schedules()):
        low, high = bracket(schedule)
        bounds = {"low": math.floor(low * 1e7) / 1e7, "high": math.ceil(high * 1e7) / 1e7}
        training = [[part.rate, part.noise, part.steps] for part in schedule.training]
        tables = [[part.sigma, part.sensitivity, part.count] for part in schedule.tables]
        entry = {"training": training, "tables": tables, "pure": schedule.pure, "delta": schedule.delta, **bounds}
        lines.append(json.dumps(entry))
        if place % 20 == 19:
            sys.stderr.write(f"{place + 1} of {SCHEDULES}, {time.monotonic() - started:.0f} s\n")
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    head = f'{{"seed": {SEED}, "versions": {json.dumps(versions)}, "schedules": [\n'
    FILE.write_text(head + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
