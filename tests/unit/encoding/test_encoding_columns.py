"""Columns of round numbers: kept on them, in narrow bins as in wide ones, with the ends and states that they have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.rounding import count_roundings
from aevorium.encoding.statistics import TableStatistics, count_cells
from aevorium.schema.table import TableSchema


def _schema(low: float, high: float, *, integer: bool = False) -> TableSchema:
    column = {"kind": "continuous", "min": low, "max": high, "integer": integer}
    return TableSchema.model_validate({"name": "t", "columns": {"x": column}})


def _made(
    values: np.ndarray, schema: TableSchema, *, bins: int, noise: float, rows: int = 20_000, seed: int = 0
) -> np.ndarray:
    draws, frame = np.random.default_rng(seed), pd.DataFrame({"x": values})
    counts, roundings = count_cells(frame, schema, bins=bins), count_roundings(frame, schema)
    noisy = [part + np.rint(draws.normal(0, noise, len(part))).astype(np.int64) for part in (counts, roundings)]
    statistics = TableStatistics.from_sum(noisy[0], schema, bins=bins, noise=noise)
    statistics = statistics.with_roundings(noisy[1], schema, noise=noise)
    encoder = TableEncoder.fit(statistics, schema, total=len(values))
    assert encoder.problem(schema, bins=bins) is None
    z = np.random.default_rng(1).standard_normal((rows, 1)).astype(np.float32)
    return encoder.decode(z, np.empty((rows, 0), np.int64), schema)["x"].to_numpy()


def _is_multiple(values: np.ndarray, step: float) -> np.ndarray:
    return np.isclose(values / step, np.round(values / step), atol=1e-6)


@pytest.mark.parametrize(
    ("step", "bins"), [(1, 331), (1, 240 * 4 // 5), (2, 331), (2.5, 150), (5, 61), (10, 61), (20, 150), (0.5, 331)]
)
@pytest.mark.parametrize("noise", [0.0, 35.0])
def test_values_on_round_numbers_stay_on_them(step: float, bins: int, noise: float) -> None:
    """Bins wider than a step, narrower, and much narrower; one of a hundred records lies elsewhere."""
    rng = np.random.default_rng(3)
    spread = np.clip(rng.normal(100, 40, 60_000), 10, 250)
    values = np.where(rng.random(len(spread)) < 0.01, spread, np.round(spread / step) * step)
    schema = _schema(10, 250)
    made = _made(np.clip(values, 10, 250), schema, bins=bins, noise=noise)
    assert _is_multiple(made, step).mean() > 0.97
    assert len(np.unique(made)) > 120 / step
    levels = np.arange(0, 260, max(10, 2 * step)) + 0.1
    difference = np.searchsorted(np.sort(made), levels) / len(made) - np.searchsorted(np.sort(values), levels) / len(
        values
    )
    # Noise of 331 bins adds up to .8 % of the records halfway, the rows' own chance to .4 %.
    assert np.abs(difference).max() < 0.025


@pytest.mark.parametrize("bins", range(180, 300, 7))
def test_no_number_of_bins_hides_whole_numbers(bins: int) -> None:
    """With 222 bins over 240 kilograms nearly every bin holds one number."""
    values = np.round(np.clip(np.random.default_rng(3).normal(74, 14, 56_000), 10, 250))
    made = _made(values, _schema(10, 250), bins=bins, noise=30.0)
    assert _is_multiple(made, 1).mean() > 0.97


@pytest.mark.parametrize(
    ("low", "high", "integer", "step", "bins"),
    [(0, 90, False, 5, 61), (0, 90, True, 5, 40), (0, 90, False, 1, 150), (10, 250, False, 2, 331)],
)
@pytest.mark.parametrize("share", [0.05, 0.4])
def test_records_at_a_bound_are_kept_beside_round_numbers(
    low: float, high: float, integer: bool, step: float, bins: int, share: float
) -> None:
    """None drinks nothing if the bin of zero, a point, is dropped with those that hold no multiple."""
    rng = np.random.default_rng(0)
    values = np.round(rng.normal((low + high) / 2, (high - low) / 6, 20_000) / step) * step
    values = np.where(rng.random(len(values)) < share, low, np.clip(values, low, high))
    made = _made(values, _schema(low, high, integer=integer), bins=bins, noise=20.0)
    assert abs((made == low).mean() - share) < 0.02
    assert _is_multiple(made, step).mean() > 0.97


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("zeros", [0.0, 0.3, 0.6])
def test_amounts_in_bins_that_widen_from_zero_stay_round(integer: bool, zeros: float) -> None:
    rng = np.random.default_rng(7)
    loans = np.clip(np.round(rng.lognormal(6.9, 0.45, 4_000) / 50) * 50, 0, 6_000)
    values = np.where(rng.random(len(loans)) < 0.05, rng.integers(100, 3_000, len(loans)), loans)
    values = np.where(rng.random(len(values)) < zeros, 0, values)
    made = _made(values, _schema(0, 6_000, integer=integer), bins=264, noise=5.0)
    assert abs((made == 0).mean() - zeros) < 0.02
    assert _is_multiple(made[made > 0], 50).mean() > 0.75
    assert abs(np.median(made[made > 0]) - np.median(values[values > 0])) <= 50


def test_frequent_numbers_stay_frequent() -> None:
    """Two tenths share some of the bins: the one that stands out is that with the rounder number."""
    rng = np.random.default_rng(5)
    values = np.where(rng.random(9_000) < 0.4, np.round(rng.gamma(2, 1, 9_000)), np.round(rng.gamma(2, 1, 9_000), 1))
    values = np.clip(values, -5, 10)
    made = _made(values, _schema(-5, 10), bins=120, noise=5.0)
    assert _is_multiple(made, 0.1).mean() > 0.98
    for number in (1, 2, 3):
        assert (np.isclose(made, number)).mean() == pytest.approx((values == number).mean(), abs=0.02)


def test_whole_numbers_in_wide_bins_stay_round() -> None:
    rng = np.random.default_rng(6)
    values = np.clip(np.round(rng.normal(2_500, 600, 20_000) / 50) * 50, 100, 5_000)
    made = _made(values, _schema(100, 5_000, integer=True), bins=130, noise=5.0)
    assert _is_multiple(made, 50).mean() > 0.98


def test_records_off_round_numbers_stay_off() -> None:
    rng = np.random.default_rng(7)
    spread = np.clip(rng.normal(120, 20, 40_000), 60, 260)
    values = np.where(rng.random(len(spread)) < 0.3, spread, np.round(spread, -1))
    made = _made(values, _schema(60, 260), bins=120, noise=10.0)
    assert _is_multiple(made, 10).mean() == pytest.approx(0.7, abs=0.04)


def test_round_numbers_end_where_their_records_do_however_far_the_bounds_are() -> None:
    """Noise, summed over many bins that are empty, must not pass for a few records far from all others."""
    rng = np.random.default_rng(11)
    values = np.clip(np.round(rng.lognormal(0, 0.3, 6_300), 1), 0, 20)
    schema = _schema(0, 20)
    made = [_made(values, schema, bins=351, noise=4.4, seed=seed) for seed in range(20)]
    assert all(_is_multiple(one, 0.1).mean() > 0.97 for one in made)
    assert np.median([one.std() for one in made]) < 1.2 * values.std()
    assert np.median([np.quantile(one, 0.999) for one in made]) < 1.5 * np.quantile(values, 0.999)


@pytest.mark.parametrize(
    ("shape", "bounds"),
    [
        ("exponential", (-1, 50)),
        ("exponential", (-5, 50)),
        ("mirrored", (-50, 1)),
        ("normal", (-50, 50)),
        ("even", (-5, 50)),
    ],
)
@pytest.mark.parametrize(("rows", "noise"), [(3_000, 3.0), (20_000, 15.0)])
def test_a_state_that_half_of_the_records_share_makes_no_heaps_of_the_others(
    shape: str, bounds: tuple[float, float], rows: int, noise: float
) -> None:
    """No bleeding, no drink: beside half of all records in one bin, others seemed to lack some."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        others = {
            "exponential": lambda rng: rng.exponential(3, rows),
            "mirrored": lambda rng: -rng.exponential(3, rows),
            "normal": lambda rng: rng.normal(0, 8, rows),
            "even": lambda rng: rng.uniform(0, 30, rows),
        }[shape](rng)
        values = np.clip(np.where(rng.random(rows) < 0.5, 0.0, np.round(others, 2)), *bounds)
        made = _made(values, _schema(*bounds), bins=198, noise=noise, seed=seed)
        # Four standard errors of both tables, and what the noise of one bin and of the total moves.
        assert abs((made == 0).mean() - (values == 0).mean()) < 4 * np.sqrt(0.25 / 3_000) + 4 * noise / rows
        most = pd.Series(made[made != 0]).value_counts(normalize=True).iloc[0]
        assert most < 0.02
