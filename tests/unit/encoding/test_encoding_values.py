"""Exact values inside bins: which bins are counted number by number, and what is found in noisy counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aevorium.encoding.associations import Associations, TableDesign
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import ColumnGrid, column_grid
from aevorium.encoding.statistics import TableStatistics, count_cells
from aevorium.encoding.values import (
    MOST_NUMBERS,
    Ranges,
    count_values,
    frequent_values,
    heaped_ranges,
    narrow_ranges,
    range_problem,
)
from aevorium.schema.table import TableSchema

SCHEMA = TableSchema.from_toml(
    'name = "t"\n[columns.paid]\nkind = "continuous"\nmin = 0\nmax = 99999\ninteger = true\n', source="test"
)
COLUMN = SCHEMA.measured["paid"]
BINS = 512
NOISE, TABLE_NOISE = 5.0, 6.0
COMMON = {15024: 347, 7688: 284, 7298: 246, 5178: 97, 3103: 97}


def payments(*, common: dict[int, int], smooth: int, seed: int = 0) -> np.ndarray:
    """Amounts that many paid, and as many of a smooth distribution as are asked for."""
    spread = np.exp(np.random.default_rng(seed).normal(8.0, 1.0, smooth)).astype(int).clip(0, 99_999)
    return np.concatenate([np.repeat(list(common), list(common.values())), spread]).astype(float)


def noisy_counts(values: np.ndarray, grid: ColumnGrid, *, rng: np.random.Generator) -> np.ndarray:
    counts = np.bincount(grid.locate(values), minlength=grid.states)
    return counts + np.round(rng.normal(0, NOISE, grid.states))


def release(values: np.ndarray, ranges: Ranges, *, rng: np.random.Generator) -> np.ndarray:
    exact = count_values(pd.Series(values), ranges)
    return (exact + np.round(rng.normal(0, TABLE_NOISE, len(exact)))).astype(np.int64)


def test_amounts_that_many_share_are_found_with_their_share_of_the_bin():
    rng, grid = np.random.default_rng(1), column_grid(COLUMN, bins=BINS)
    values = payments(common=COMMON, smooth=2_000)
    counts = noisy_counts(values, grid, rng=rng)
    ranges = heaped_ranges(counts, grid, noise=NOISE, table_noise=TABLE_NOISE)
    assert range_problem(COLUMN, ranges) is None
    spikes = frequent_values(
        release(values, ranges, rng=rng), grid, ranges, held=np.maximum(counts, 0), noise=TABLE_NOISE
    )
    assert [spike.value for spike in spikes] == sorted(COMMON)
    homes = grid.locate(values)
    for spike in spikes:
        beside = values[homes == grid.locate(np.array([spike.value]))[0]]
        # Five deviations of the noise in numerator and denominator.
        assert spike.share == pytest.approx((beside == spike.value).mean(), abs=5 * 2**0.5 * TABLE_NOISE / len(beside))


def test_smooth_columns_have_no_heaps_and_noise_makes_no_value():
    """Of 200 smooth columns none has a bin that stands out, and a value is found in fewer than 1 of 5 tables of noise.

    The largest of N normal numbers passes the universal threshold with probability about 1 / sqrt(pi ln N): here .18.
    """
    grid, found = column_grid(COLUMN, bins=BINS), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        counts = noisy_counts(payments(common={}, smooth=5_000, seed=seed), grid, rng=rng)
        assert heaped_ranges(counts, grid, noise=NOISE, table_noise=TABLE_NOISE) == ()
        ranges = ((5_000, 15_000),)
        table = np.round(rng.normal(0, TABLE_NOISE, 10_002)).astype(np.int64)
        found += bool(frequent_values(table, grid, ranges, held=np.full(grid.states, 10.0), noise=TABLE_NOISE))
    # Binomial(200, .18): more than 60 come once in 10^5 runs; seeds are fixed.
    assert found <= 60


def test_columns_without_whole_numbers_or_with_a_bin_for_each_have_no_heaps():
    continuous = COLUMN.model_copy(update={"integer": False})
    narrow = COLUMN.model_copy(update={"max": 100})
    for column in (continuous, narrow):
        grid = column_grid(column, bins=BINS)
        counts = np.zeros(grid.states)
        counts[40] = 10_000.0
        assert heaped_ranges(counts, grid, noise=NOISE, table_noise=TABLE_NOISE) == ()


def test_no_more_numbers_are_asked_for_than_a_node_counts():
    wide = COLUMN.model_copy(update={"max": 10_000_000})
    grid = column_grid(wide, bins=24)
    counts = np.zeros(grid.states)
    counts[::8] = 10_000.0
    ranges = heaped_ranges(counts, grid, noise=NOISE, table_noise=TABLE_NOISE)
    assert ranges
    assert range_problem(wide, ranges) is None
    assert "too many" in (range_problem(wide, ((0, MOST_NUMBERS),)) or "")


def test_what_is_counted_takes_the_place_of_a_guess_and_comes_back_exactly():
    """15,024 lies in a bin with the round 15,000, which a histogram alone takes for the value."""
    values = np.concatenate([np.zeros(20_000), payments(common={15_024: 400}, smooth=400)])
    frame = pd.DataFrame({"paid": values})
    statistics = TableStatistics(bins=BINS, counts={"paid": count_cells(frame, SCHEMA, bins=BINS)}, noise=1.0)
    encoder = TableEncoder.fit(statistics, SCHEMA, total=len(values))
    assert [spike.value for spike in encoder.columns["paid"].spikes] == [15_000]
    grid = column_grid(COLUMN, bins=BINS)
    ranges = heaped_ranges(statistics.counts["paid"].astype(float), grid, noise=1.0, table_noise=1.0)
    design = TableDesign(cells={}, pairs=(), values={"paid": ranges})
    released = Associations.from_sum(count_values(frame["paid"], ranges), design, noise=1.0)
    counted = encoder.with_values(released, SCHEMA, total=len(values))
    assert counted.problem(SCHEMA, bins=BINS) is None
    assert 15_024 in [spike.value for spike in counted.columns["paid"].spikes]
    assert 15_000 not in [spike.value for spike in counted.columns["paid"].spikes]
    encoded = counted.encode(frame, SCHEMA, generator=np.random.default_rng(0))
    decoded = counted.decode(encoded.values, encoded.codes, SCHEMA)["paid"].to_numpy()
    assert (decoded[values == 15_024] == 15_024).all()
    drawn = counted.decode(np.random.default_rng(0).normal(size=(100_000, 1)), np.empty((100_000, 0)), SCHEMA)
    # Five deviations of so many draws.
    assert (drawn["paid"] == 15_024).mean() == pytest.approx(400 / len(values), abs=5 * (0.02 / 100_000) ** 0.5)


def test_no_more_values_are_kept_than_a_node_encodes_with():
    """Every 50th number is frequent, the first the most: of 2,000 there are 96 spikes for 24 bins at most."""
    bins = 24
    grid = column_grid(COLUMN, bins=bins)
    numbers = np.arange(100_000)
    counts = np.where(numbers % 50 == 0, 1_000_000 - numbers, 0)
    frame_counts = np.bincount(grid.locate(numbers.astype(float)), weights=counts, minlength=grid.states)
    statistics = TableStatistics(bins=bins, counts={"paid": frame_counts.astype(np.int64)}, noise=0.0)
    encoder = TableEncoder.fit(statistics, SCHEMA, total=float(counts.sum()))
    design = TableDesign(cells={}, pairs=(), values={"paid": ((1, 99_998),)})
    table = np.concatenate([[0], counts[1:99_999]]).astype(np.int64)
    released = Associations.from_sum(table, design, noise=0.0)
    counted = encoder.with_values(released, SCHEMA, total=float(counts.sum()))
    assert counted.problem(SCHEMA, bins=bins) is None
    kept = counted.columns["paid"].spikes
    assert len(kept) == 4 * grid.states
    assert max(spike.value for spike in kept) <= 50 * (len(kept) + 2)


YEAR = TableSchema.from_toml(
    'name = "t"\n[columns.year]\nkind = "continuous"\nmin = 1500\nmax = 2500\ninteger = true\n', source="test"
)
YEAR_BINS = 96


def years(rows: int, *, seed: int) -> np.ndarray:
    """Of nine years: a bin is ten years wide."""
    shares = [0.16, 0.44, 0.18, 0.09, 0.04, 0.03, 0.02, 0.03, 0.01]
    return np.random.default_rng(seed).choice(np.arange(1995, 2004), size=rows, p=shares).astype(float)


def counted_years(values: np.ndarray, *, seed: int, lost: int = 0, noise: float = 30.0) -> TableEncoder:
    """Years of a release with tables of their own, if the rule asks for them; as many as are lost are in none."""
    rng, frame = np.random.default_rng(seed), pd.DataFrame({"year": values})
    grid = column_grid(YEAR.measured["year"], bins=YEAR_BINS)
    counts = count_cells(frame, YEAR, bins=YEAR_BINS)
    counts = counts + np.round(rng.normal(0, noise / 1.5, len(counts))).astype(np.int64)
    statistics = TableStatistics(bins=YEAR_BINS, counts={"year": counts}, noise=noise / 1.5)
    encoder = TableEncoder.fit(statistics, YEAR, total=len(values))
    shares = np.array(encoder.columns["year"].shares)
    ranges = narrow_ranges(shares, grid, records=len(values), table_noise=noise)
    assert range_problem(YEAR.measured["year"], ranges) is None
    exact = count_values(frame["year"][lost:], ranges)
    table = (exact + np.round(rng.normal(0, noise, len(exact)))).astype(np.int64)
    released = Associations.from_sum(table, TableDesign(cells={}, pairs=(), values={"year": ranges}), noise=noise)
    counted = encoder.with_values(released, YEAR, total=len(values))
    assert counted.problem(YEAR, bins=YEAR_BINS) is None
    return counted


def drawn_years(encoder: TableEncoder) -> np.ndarray:
    z = np.random.default_rng(0).normal(size=(50_000, 1))
    return encoder.decode(z, np.empty((50_000, 0), dtype=np.int64), YEAR)["year"].to_numpy()


@pytest.mark.parametrize("seed", range(20))
def test_a_column_far_narrower_than_its_bounds_has_its_numbers(seed: int):
    """They lie in one bin or two; without a table of them all are the round one of it, or spread over it evenly."""
    values = years(6_000, seed=seed)
    drawn = drawn_years(counted_years(values, seed=seed))
    apart = [abs((drawn == year).mean() - (values == year).mean()) for year in range(1995, 2004)]
    # Five deviations of the table's noise and of the histogram's, and of so many draws.
    assert max(apart) < 5 * ((30**2 + 20**2) / 6_000**2 + 0.25 / 50_000) ** 0.5
    # Twelve numbers that none has keep .4 deviations of noise each, .024 in all, give or take .01.
    assert ((drawn < 1995) | (drawn > 2003)).mean() < 0.08


@pytest.mark.parametrize("seed", range(5))
def test_a_node_lost_before_the_table_moves_no_year(seed: int):
    """Half the records are in the histogram alone: what they would have is not spread over years that nobody has."""
    values = years(6_000, seed=seed)
    drawn = drawn_years(counted_years(values, seed=seed, lost=3_000))
    assert (drawn == 1996).mean() == pytest.approx((values == 1996).mean(), abs=0.06)
    assert ((drawn < 1995) | (drawn > 2003)).mean() < 0.12
    constant = counted_years(np.full(6_000, 1997.0), seed=seed, lost=3_000)
    assert (drawn_years(constant) == 1997).all()


def test_numbers_that_share_a_bin_evenly_are_all_kept():
    """Two numbers at the limit, four deviations each: one of them alone was kept in three of four draws."""
    grid = column_grid(YEAR.measured["year"].model_copy(update={"min": 150, "max": 340}), bins=YEAR_BINS)
    place = int(np.flatnonzero(grid.high - grid.low == 2)[20])
    ranges = ((int(np.ceil(grid.low[place])), int(np.floor(grid.high[place]))),)
    held = np.zeros(grid.states)
    held[place] = 240.0
    for seed in range(200):
        table = np.concatenate([[0], 120 + np.round(np.random.default_rng(seed).normal(0, 30, 2))]).astype(np.int64)
        # One is alone only where its count says that it has next to all.
        found = frequent_values(table, grid, ranges, held=held, noise=30.0)
        assert len(found) == 2 or abs(table[1] - table[2]) >= 0.9 * 240


@pytest.mark.parametrize(("seed", "noise"), [*((seed, 30.0) for seed in range(20)), (0, 0.0)])
def test_a_constant_that_is_not_round_is_found_and_stays_one(seed: int, noise: float):
    encoder = counted_years(np.full(6_000, 1997.0), seed=seed, noise=noise)
    assert encoder.columns["year"].is_constant
    assert (drawn_years(encoder) == 1997).all()


def test_only_whole_numbers_in_few_bins_that_a_table_can_tell_are_narrow():
    grid = column_grid(YEAR.measured["year"], bins=YEAR_BINS)
    few, many = np.zeros(grid.states), np.zeros(grid.states)
    few[[40, 41]], many[30:60] = 0.5, 1 / 30
    assert [last - first + 1 for first, last in narrow_ranges(few, grid, records=6_000, table_noise=30.0)] == [10, 11]
    assert narrow_ranges(many, grid, records=6_000, table_noise=30.0) == ()
    # 21 numbers of 4 deviations each.
    assert narrow_ranges(few, grid, records=21 * 4 * 30 - 1, table_noise=30.0) == ()
    decimals = column_grid(YEAR.measured["year"].model_copy(update={"integer": False}), bins=YEAR_BINS)
    assert narrow_ranges(np.resize(few, decimals.states), decimals, records=6_000, table_noise=30.0) == ()
