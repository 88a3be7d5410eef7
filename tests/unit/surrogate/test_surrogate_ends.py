"""Ends of columns: tables bring back what a histogram's noise hides, and take away what it makes up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aevorium.encoding.associations import Associations, TableDesign, count_tables
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import table_grids
from aevorium.encoding.rounding import count_roundings
from aevorium.encoding.statistics import TableStatistics, count_cells
from aevorium.encoding.steps import Step
from aevorium.schema.table import TableSchema
from aevorium.surrogate.cells import cut_columns
from aevorium.surrogate.density import Surrogate, fit_surrogate
from aevorium.surrogate.ends import cut_ends, with_told_ends
from aevorium.surrogate.mixture import FitSettings

BINS, NOISE, ROWS = 149, 4.3, 1_000

SCHEMA = TableSchema.from_toml(
    """
name = "labs"
[columns.glucose]
kind = "continuous"
min = 50
max = 400
missing = true
[columns.age]
kind = "continuous"
min = 0
max = 100
integer = true
[columns.ill]
kind = "categorical"
categories = ["no", "yes"]
[columns.ward]
kind = "categorical"
categories = ["a", "b", "c", "d"]
""",
    source="test",
)


def _frame(*, high: int, seed: int, at_bound: int = 0) -> pd.DataFrame:
    """Glucose from 60 to 100; of the ill, so many from 100 to 197; so many at the upper bound."""
    draws = np.random.default_rng(seed)
    glucose = np.clip(draws.normal(82, 9, ROWS), 60, 100)
    glucose[:high] = draws.uniform(100, 197, high)
    glucose[ROWS - at_bound :] = 400
    glucose[draws.random(ROWS) < 0.2] = np.nan
    ill = pd.Categorical(np.where(np.arange(ROWS) < high, "yes", "no"), categories=["no", "yes"])
    ward = pd.Categorical(draws.choice(list("abcd"), ROWS), categories=list("abcd"))
    age = np.clip(np.round(draws.normal(50, 15, ROWS)), 0, 100)
    return pd.DataFrame({"glucose": glucose, "age": age, "ill": ill, "ward": ward})


def _told(
    frame: pd.DataFrame, *, seed: int, noise: float = NOISE
) -> tuple[TableEncoder, TableEncoder, TableDesign, Associations]:
    """The encoder before and after tables are asked, and these."""
    draws = np.random.default_rng(seed)

    def noisy(counts: np.ndarray) -> np.ndarray:
        return counts + np.rint(draws.normal(0, noise, len(counts))).astype(np.int64)

    counts = noisy(count_cells(frame, SCHEMA, bins=BINS))
    statistics = TableStatistics.from_sum(counts, SCHEMA, bins=BINS, noise=noise)
    encoder = TableEncoder.fit(statistics, SCHEMA, total=ROWS)
    cells = cut_columns(encoder, SCHEMA, cells=8)
    cells = cut_ends(cells, encoder, SCHEMA, total=ROWS, noise=noise, bin_noise=noise)
    design = TableDesign(cells=cells, pairs=(("glucose", "age"), ("glucose", "ill"), ("ward", "glucose")))
    assert design.problem(SCHEMA, bins=BINS) is None
    tables = Associations.from_sum(noisy(count_tables(frame, SCHEMA, bins=BINS, design=design)), design, noise=noise)
    return encoder, with_told_ends(encoder, SCHEMA, tables, statistics=statistics, total=ROWS), design, tables


def _fitted(encoder: TableEncoder, design: TableDesign, tables: Associations, *, seed: int, noise: float) -> Surrogate:
    return fit_surrogate(
        encoder,
        SCHEMA,
        cells=design.cells,
        tables=[tables],
        total=ROWS,
        noise=noise,
        seed=seed,
        advance=lambda *_: None,
        settings=FitSettings(components=20, steps=100, fits=1),
    )


def _made(encoder: TableEncoder, rows: int = 4_000) -> np.ndarray:
    z = np.random.default_rng(0).standard_normal((rows, 2))
    return encoder.decode(z, np.zeros((rows, 3), np.int64), SCHEMA)["glucose"].to_numpy()


def test_high_values_that_noise_hides_come_back() -> None:
    """60 of 1,000 records lie above 100. Over twelve draws of the noise, the made deviation beside the real one."""
    before, after, beyond = [], [], []
    for seed in range(12):
        frame = _frame(high=60, seed=seed)
        real = frame["glucose"].dropna()
        first, second, *_ = _told(frame, seed=seed)
        for encoder, found in ((first, before), (second, after)):
            found.append(abs(np.log(_made(encoder).std() / real.std())))
        beyond.append((_made(second) > 105).mean() - (real > 105).mean())
    assert np.mean(after) < 0.6 * np.mean(before)
    assert abs(np.mean(beyond)) < 0.015


def test_no_values_are_made_where_there_are_none() -> None:
    """Over 40 draws: some thousandths beyond the last record, and in none as much as a histogram now and then has."""
    before, after = [], []
    for seed in range(40):
        first, second, *_ = _told(_frame(high=0, seed=seed), seed=seed)
        before.append((_made(first) > 110).mean())
        after.append((_made(second) > 110).mean())
    assert np.mean(after) < min(0.004, np.mean(before))
    assert np.max(after) < 0.03 < np.max(before)


def test_clipped_values_stay_at_the_bound() -> None:
    frame = _frame(high=0, seed=1, at_bound=80)
    _, encoder, design, _ = _told(frame, seed=1)
    assert (_made(encoder) == 400).mean() == pytest.approx((frame["glucose"].dropna() == 400).mean(), abs=0.02)
    cells = design.cells["glucose"]
    assert cells.count(cells[-2]) == 1


def test_nothing_changes_without_noise_nor_in_other_columns() -> None:
    first, second, *_ = _told(_frame(high=60, seed=2), seed=2, noise=0.0)
    assert second == first
    first, second, *_ = _told(_frame(high=60, seed=2), seed=2)
    assert second.columns["ill"] == first.columns["ill"]
    assert second.columns["glucose"].missing == pytest.approx(first.columns["glucose"].missing)
    assert sum(second.columns["glucose"].shares) == pytest.approx(1)


@given(
    st.lists(st.integers(-20, 400), min_size=1, max_size=30),
    st.floats(0.1, 200),
    st.integers(2, 12),
    st.integers(0, 2**32 - 1),
)
def test_whatever_was_released_cells_and_encoder_fit(counts: list[int], noise: float, cells: int, seed: int) -> None:
    """Cells are numbered without a gap and neighbours are together, and shares are a distribution."""
    grids = table_grids(SCHEMA, bins=BINS)
    sizes = [grid.cells for grid in grids.values()]
    draws = np.random.default_rng(seed)
    values = np.concatenate([np.resize(draws.permutation(counts), size) for size in sizes])
    statistics = TableStatistics.from_sum(values, SCHEMA, bins=BINS, noise=noise)
    encoder = TableEncoder.fit(statistics, SCHEMA, total=ROWS)
    cut = cut_columns(encoder, SCHEMA, cells=cells)
    cut = cut_ends(cut, encoder, SCHEMA, total=ROWS, noise=noise, bin_noise=noise)
    design = TableDesign(cells=cut, pairs=(("glucose", "age"), ("age", "ill")))
    assert design.problem(SCHEMA, bins=BINS) is None
    for name in SCHEMA.numbers:
        assert (np.diff(cut[name]) >= 0).all()
        assert (np.diff(cut[name]) <= 1).all()
    released = Associations.from_sum(draws.integers(-50, 400, design.size), design, noise=noise)
    told = with_told_ends(encoder, SCHEMA, released, statistics=statistics, total=ROWS)
    assert told.problem(SCHEMA, bins=BINS) is None


def test_the_noise_of_tables_puts_no_record_where_a_column_has_ended() -> None:
    """A value at the far bound alone would be a column's range; tables of 4.3 noise have two records there, or ten."""
    for seed in range(3):
        frame = _frame(high=0, seed=seed)
        _, encoder, design, tables = _told(frame, seed=seed)
        fitted = _fitted(encoder, design, tables, seed=seed, noise=NOISE)
        made = _made(fitted.encoder, rows=20_000)
        assert (made > 200).sum() == 0
        rows = fitted.rows(5_000, generator=np.random.default_rng(0))
        decoded = fitted.encoder.decode(rows.values, rows.codes, SCHEMA)["glucose"]
        assert (decoded > 200).sum() == 0
        assert (made > 90).mean() == pytest.approx((frame["glucose"].dropna() > 90).mean(), abs=0.05)


def test_ends_are_told_by_the_nodes_that_are_left() -> None:
    """Half the records are at a node that was lost before the tables: they say half as many, and mean as many."""
    told = []
    for seed in range(8):
        frame = _frame(high=60, seed=seed)
        encoder, _, design, _ = _told(frame, seed=seed)
        half = frame.iloc[::2]
        counts = count_tables(half, SCHEMA, bins=BINS, design=design)
        counts = counts + np.rint(np.random.default_rng(seed).normal(0, 1.0, len(counts))).astype(np.int64)
        tables = Associations.from_sum(counts, design, noise=1.0)
        statistics = TableStatistics.from_sum(count_cells(frame, SCHEMA, bins=BINS), SCHEMA, bins=BINS, noise=NOISE)
        after = with_told_ends(encoder, SCHEMA, tables, statistics=statistics, total=ROWS)
        told.append((_made(after) > 105).mean() / (frame["glucose"].dropna() > 105).mean())
    assert np.mean(told) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("noise", [2.0, 4.0])
def test_a_lab_that_few_have_is_not_lost(noise: float) -> None:
    """Four of a thousand patients have it: with less than half a record in each cell, no cell would be left."""
    for seed in range(4):
        frame = _frame(high=0, seed=seed)
        values = np.random.default_rng(seed).uniform(60, 350, 4)
        frame["glucose"] = np.concatenate([values, np.full(ROWS - 4, np.nan)])
        _, encoder, design, tables = _told(frame, seed=seed, noise=noise)
        fitted = _fitted(encoder, design, tables, seed=seed, noise=noise)
        known, found = (1 - (one.columns["glucose"].missing or 0) for one in (encoder, fitted.encoder))
        assert found > 0.2 * known


def test_what_is_told_is_spread_over_multiples_alone() -> None:
    """Bins of one whole number each, of which every tenth holds records; those beyond the known ones are spread."""
    schema = TableSchema.from_toml(
        """
name = "doses"
[columns.dose]
kind = "continuous"
min = 0
max = 200
integer = true
[columns.ill]
kind = "categorical"
categories = ["no", "yes"]
""",
        source="test",
    )
    for seed in range(6):
        draws = np.random.default_rng(seed)

        def noisy(counts: np.ndarray, *, draws: np.random.Generator = draws) -> np.ndarray:
            return counts + np.rint(draws.normal(0, 5.0, len(counts))).astype(np.int64)

        dose = np.clip(np.round(draws.gamma(3, 10, 3_000), -1), 0, 200)
        ill = pd.Categorical(draws.choice(["no", "yes"], 3_000), categories=["no", "yes"])
        frame = pd.DataFrame({"dose": dose, "ill": ill})
        statistics = TableStatistics.from_sum(noisy(count_cells(frame, schema, bins=256)), schema, bins=256, noise=5.0)
        statistics = statistics.with_roundings(noisy(count_roundings(frame, schema)), schema, noise=5.0)
        encoder = TableEncoder.fit(statistics, schema, total=3_000)
        assert encoder.columns["dose"].step == Step(digits=1, exponent=1)
        cells = cut_columns(encoder, schema, cells=8)
        cells = cut_ends(cells, encoder, schema, total=3_000, noise=5.0, bin_noise=5.0)
        design = TableDesign(cells=cells, pairs=(("dose", "ill"),))
        counts = noisy(count_tables(frame, schema, bins=256, design=design))
        tables = Associations.from_sum(counts, design, noise=5.0)
        told = with_told_ends(encoder, schema, tables, statistics=statistics, total=3_000)
        off = np.arange(len(told.columns["dose"].shares)) % 10 > 0
        before, after = (np.array(one.columns["dose"].shares)[off].sum() for one in (encoder, told))
        assert after < 1.5 * before + 1e-5
