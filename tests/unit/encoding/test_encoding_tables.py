"""Grids, denoising, statistics and the encoder."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aevorium.encoding.denoise import denoise_histogram, project_to_total
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import column_grid, number_of_bins, table_grids
from aevorium.encoding.rounding import count_roundings
from aevorium.encoding.statistics import TableStatistics, cells_in_total, count_cells
from aevorium.errors import ArtefactError
from aevorium.schema.frame import round_frame
from aevorium.schema.table import Categorical, Continuous, TableSchema, load_schema


def _schema() -> TableSchema:
    return TableSchema.model_validate(
        {
            "name": "small",
            "columns": {
                "age": {"kind": "continuous", "min": 18, "max": 90, "integer": True},
                "cost": {"kind": "continuous", "min": 0, "max": 300000},
                "level": {"kind": "continuous", "min": -2.5, "max": 7, "missing": True},
                "visits": {"kind": "continuous", "min": 0, "max": 900, "integer": True},
                "sex": {"kind": "categorical", "categories": ["F", "M"]},
                "code": {"kind": "categorical", "categories": ["a", "b", "c"], "missing": True},
            },
        }
    )


def _frame(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    level = np.clip(rng.normal(1, 2, rows), -2.5, 7)
    level[rng.random(rows) < 0.3] = np.nan
    cost = np.clip(np.exp(rng.normal(8, 2, rows)), 0, 300000) * (rng.random(rows) > 0.2)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 91, rows).astype(float),
            "cost": cost,
            "level": level,
            "visits": np.clip(rng.geometric(0.05, rows) - 1, 0, 900).astype(float),
            "sex": pd.Categorical.from_codes(rng.integers(0, 2, rows), categories=["F", "M"]),
            "code": pd.Categorical.from_codes(rng.integers(-1, 3, rows), categories=["a", "b", "c"]),
        }
    )


def _fitted(frame: pd.DataFrame, schema: TableSchema, bins: int) -> TableEncoder:
    counts = count_cells(frame, schema, bins=bins)
    statistics = TableStatistics.from_sum(counts, schema, bins=bins, noise=0.0)
    return TableEncoder.fit(statistics, schema, total=len(frame))


@pytest.mark.parametrize(
    "column",
    [
        Continuous(kind="continuous", min=18, max=90, integer=True),
        Continuous(kind="continuous", min=0, max=500, integer=True),
        Continuous(kind="continuous", min=0, max=300000),
        Continuous(kind="continuous", min=-5, max=3.5),
        Continuous(kind="continuous", min=4, max=4),
        Continuous(kind="continuous", min=0, max=0, integer=True),
        Continuous(kind="continuous", min=1, max=1_000_000, integer=True),
        Continuous(kind="continuous", min=-10_000, max=10_000),
        Continuous(kind="continuous", min=-1e6, max=-1),
        Continuous(kind="continuous", min=-300, max=1_000_000, integer=True),
    ],
)
@pytest.mark.parametrize("bins", [24, 61, 512])
def test_bins_tile_the_bounds(column: Continuous, bins: int) -> None:
    grid = column_grid(column, bins=bins)
    assert np.all(grid.high >= grid.low)
    assert np.allclose(grid.high[:-1], grid.low[1:])
    margin = 0.5 if column.integer else 0.0
    assert grid.low[0] == column.min - margin
    assert grid.high[-1] == column.max + margin
    values = np.linspace(column.min, column.max, 1000)
    values = np.unique(np.round(values)) if column.integer else values
    index = grid.locate(values)
    assert np.all((values >= grid.low[index]) & (values <= grid.high[index]))


@pytest.mark.parametrize(("low", "high"), [(0, 5e-324), (0, 1e-300), (-1e-9, 1e-9), (0.1, 0.1 + 1e-12)])
def test_a_range_of_nearly_nothing_has_a_grid(low: float, high: float) -> None:
    grid = column_grid(Continuous(kind="continuous", min=low, max=high), bins=30)
    assert (grid.high >= grid.low).all()


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6), bins=st.integers(24, 512))
def test_decimals_have_as_many_bins_as_were_asked_for(low: float, span: float, bins: int) -> None:
    """And two more, for the bounds."""
    assert column_grid(Continuous(kind="continuous", min=low, max=low + span), bins=bins).states == bins + 2


def test_bounds_and_integer_zero_have_cells_of_their_own() -> None:
    grid = column_grid(Continuous(kind="continuous", min=0, max=300000), bins=32)
    index = grid.locate(np.array([0.0, 1e-9, 299999.999, 300000.0]))
    assert index[0] == 0
    assert index[1] == 1
    assert index[2] == grid.states - 2
    assert index[3] == grid.states - 1
    whole = column_grid(Continuous(kind="continuous", min=0, max=500, integer=True), bins=40)
    assert list(whole.locate(np.array([0.0, 1.0]))) == [0, 1]


def test_grid_follows_signal_and_noise() -> None:
    assert number_of_bins(records=1600, epsilon=1, nodes=1) < number_of_bins(records=32000, epsilon=1, nodes=1)
    assert number_of_bins(records=1600, epsilon=1, nodes=9) < number_of_bins(records=1600, epsilon=1, nodes=1)
    assert 24 <= number_of_bins(records=1, epsilon=0.01, nodes=50) <= 512
    assert number_of_bins(records=1e9, epsilon=float("inf"), nodes=1) == 512


def test_one_record_changes_one_cell_of_each_column() -> None:
    schema, bins = _schema(), 33
    frame = _frame(200, seed=1)
    ends = np.cumsum([grid.cells for grid in table_grids(schema, bins=bins).values()])
    for left_out in range(0, 200, 17):
        neighbour = frame.drop(index=left_out)
        change = count_cells(frame, schema, bins=bins) - count_cells(neighbour, schema, bins=bins)
        for part in np.split(change, ends[:-1]):
            assert sorted(part[part != 0]) == [1]
    assert len(change) == cells_in_total(schema, bins=bins)


def test_merging_adds_counts_and_noise() -> None:
    schema, bins = _schema(), 30
    frames = [_frame(150, seed=seed) for seed in range(4)]
    vectors = [count_cells(frame, schema, bins=bins) for frame in frames]
    merged = TableStatistics.from_sum(np.sum(vectors, axis=0), schema, bins=bins, noise=3.0 * len(vectors) ** 0.5)
    whole = count_cells(pd.concat(frames, ignore_index=True), schema, bins=bins)
    assert np.array_equal(np.concatenate(list(merged.counts.values())), whole)
    assert merged.noise == pytest.approx(6.0)
    again = TableStatistics.from_json(merged.to_json())
    assert again.noise == merged.noise
    assert all(np.array_equal(again.counts[name], merged.counts[name]) for name in merged.counts)


def test_total_weighs_sums_by_their_precision() -> None:
    TableSchema.model_validate({"name": "s", "columns": {"x": {"kind": "categorical", "categories": ["a", "b"]}}})
    statistics = TableStatistics(bins=10, counts={"x": np.array([40, 60])}, noise=5.0)
    # The sum of two cells has variance 50; a count of variance 50 weighs the same.
    assert statistics.total(count=120, count_variance=50) == pytest.approx(110)
    assert statistics.total(count=120, count_variance=0) == 120
    assert TableStatistics(bins=1, counts={"x": np.array([-9, -9])}, noise=5.0).total(count=-5, count_variance=1) == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), bins=st.sampled_from([24, 45, 200]))
def test_decoding_undoes_encoding(seed: int, bins: int) -> None:
    schema, frame = _schema(), _frame(60, seed=seed)
    encoder = _fitted(frame, schema, bins)
    arrays = encoder.encode(frame, schema, generator=np.random.default_rng(seed))
    decoded = encoder.decode(arrays.values, arrays.codes, schema)
    assert list(decoded.columns) == list(schema.columns)
    for name, column in schema.columns.items():
        assert decoded[name].isna().equals(frame[name].isna())
        if isinstance(column, Categorical):
            assert decoded[name].equals(frame[name].astype(decoded[name].dtype))
        elif column.integer:
            assert decoded[name].equals(frame[name])
        else:
            scale = column.max - column.min
            assert ((decoded[name] - frame[name]).abs().dropna() < 1e-3 * scale).all()
    point = frame["cost"] == 0
    assert (decoded["cost"][point] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bins=st.sampled_from([24, 45, 200]),
    noise=st.sampled_from([0.0, 3.0, 40.0]),
    decimals=st.sampled_from([None, 1, 0, -1]),
)
def test_every_decoded_number_lies_within_reach(seed: int, bins: int, noise: float, decimals: int | None) -> None:
    schema, frame, rng = _schema(), _frame(300, seed=seed), np.random.default_rng(seed)
    if decimals is not None:
        frame["cost"], frame["level"] = frame["cost"].round(decimals), frame["level"].round(decimals)
    frame["cost"] = np.minimum(frame["cost"], 900.0)

    def noisy(counts: np.ndarray) -> np.ndarray:
        return counts + np.rint(rng.normal(0, noise, len(counts))).astype(np.int64)

    statistics = TableStatistics.from_sum(
        noisy(count_cells(frame, schema, bins=bins)), schema, bins=bins, noise=noise
    ).with_roundings(noisy(count_roundings(frame, schema)), schema, noise=noise)
    encoder = TableEncoder.fit(statistics, schema, total=300.0)
    reach = encoder.reach(schema)
    z = np.append(np.linspace(-4.7, 4.7, 4001), rng.standard_normal(4000))
    decoded = encoder.decode(np.tile(z[:, None], (1, 4)), np.zeros((len(z), 3), dtype=np.int64), schema)
    decoded = round_frame(decoded, schema)
    for name, (low, high) in reach.items():
        column = schema.columns[name]
        assert column.min <= low <= decoded[name].min() <= decoded[name].max() <= high <= column.max, name
    # It says something: without noise, next to nothing beyond what there is.
    assert noise > 0 or reach["cost"][1] < 5000


@pytest.mark.parametrize("bounds", [(100_000.0, 100_001.0), (-1e9, -1e9 + 3), (2_450_000.0, 2_460_000.0)])
def test_numbers_lie_within_reach_as_they_are_written(bounds: tuple[float, float]) -> None:
    """They have six digits; where bounds lie close together, that moves a number further than a bin is wide."""
    schema = TableSchema.model_validate(
        {"name": "close", "columns": {"x": {"kind": "continuous", "min": bounds[0], "max": bounds[1]}}}
    )
    span = bounds[1] - bounds[0]
    values = bounds[0] + span * np.clip(np.random.default_rng(0).normal(0.8, 0.03, 2_000), 0, 1)
    encoder = _fitted(pd.DataFrame({"x": values}), schema, 200)
    z = np.linspace(-4.7, 4.7, 4001)[:, None]
    written = round_frame(encoder.decode(z, np.zeros((len(z), 0), dtype=np.int64), schema), schema)["x"]
    low, high = encoder.reach(schema)["x"]
    assert low <= written.min() <= written.max() <= high


def test_encoded_values_are_close_to_standard_normal() -> None:
    schema, frame = _schema(), _frame(20_000, seed=5)
    encoder = _fitted(frame, schema, 100)
    arrays = encoder.encode(frame, schema, generator=np.random.default_rng(0))
    observed = [arrays.values[arrays.observed[:, place], place] for place in range(4)]
    for values in observed:
        # Five standard errors at 14,000 values: false alarm below 1e-5.
        assert abs(values.mean()) < 0.045
        assert abs(values.std() - 1) < 0.04
    assert encoder.missing_of(schema) == (None, None, 0, None)
    priors = encoder.priors(schema)
    assert [len(prior) for prior in priors] == [2, 2, 4]
    assert all(prior.sum() == pytest.approx(1.0) for prior in priors)
    assert priors[0][1] == pytest.approx(frame["level"].isna().mean(), abs=1e-9)


def test_encoder_survives_json_and_names_its_schema() -> None:
    schema = _schema()
    encoder = _fitted(_frame(300, seed=2), schema, 40)
    assert TableEncoder.from_json(encoder.to_json(), schema) == encoder
    with pytest.raises(ArtefactError) as other:
        TableEncoder.from_json(encoder.to_json(), load_schema("synthea"))
    assert other.value.code == "CHECKPOINT_SCHEMA_MISMATCH"
    with pytest.raises(ArtefactError) as damaged:
        TableEncoder.from_json(encoder.to_json()[:-20], schema)
    assert damaged.value.code == "CHECKPOINT_DAMAGED"


def test_an_encoder_of_other_grids_is_not_read() -> None:
    """With more or fewer bins than its shares, every value would be decoded to another place."""
    schema = _schema()
    encoder = _fitted(_frame(300, seed=2), schema, 40)
    name, code = next(iter(encoder.columns.items()))
    shorter = code.model_copy(update={"shares": (code.shares[0] + code.shares[1], *code.shares[2:])})
    other = encoder.model_copy(update={"columns": {**encoder.columns, name: shorter}})
    with pytest.raises(ArtefactError) as caught:
        TableEncoder.from_json(other.to_json(), schema)
    assert caught.value.code == "CHECKPOINT_OUTDATED"


def test_encoder_never_fails_on_noise_alone() -> None:
    schema, bins = _schema(), 50
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 40, cells_in_total(schema, bins=bins)).astype(np.int64)
        statistics = TableStatistics.from_sum(noise, schema, bins=bins, noise=40.0)
        encoder = TableEncoder.fit(statistics, schema, total=1.0)
        frame = encoder.decode(np.zeros((5, 4)), np.zeros((5, 3), np.int64), schema)
        assert frame.notna().all().all()
        for code in encoder.columns.values():
            assert sum(code.shares) == pytest.approx(1.0)
            assert min(code.shares) >= 0


def test_denoising_keeps_spikes_and_flattens_noise() -> None:
    rng = np.random.default_rng(3)
    truth = np.full(128, 20.0)
    truth[40] = 900.0
    # The mean error of 128 bins of noise 10 is about 8; seeds are fixed, so there is no false alarm.
    noisy = truth + rng.normal(0, 10, 128)
    denoised = denoise_histogram(noisy, noise=10.0)
    assert np.abs(denoised - truth).mean() < 0.5 * np.abs(noisy - truth).mean()
    assert denoised[40] > 800
    assert np.array_equal(denoise_histogram(truth, noise=0.0), truth)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0.1, 1e6))
def test_projection_is_the_nearest_point_with_that_sum(counts: list[float], total: float) -> None:
    cells = np.array(counts)
    projected = project_to_total(cells, total=total)
    assert np.all(projected >= 0)
    assert projected.sum() == pytest.approx(total, rel=1e-6)
    # Optimality (Karush-Kuhn-Tucker): one common shift on the support, and no larger one off it.
    shift = cells - projected
    support = projected > 0
    assert np.ptp(shift[support]) < 1e-6 * max(1.0, np.abs(cells).max())
    if (~support).any():
        assert shift[~support].max() <= shift[support].min() + 1e-6 * max(1.0, np.abs(cells).max())


def test_an_encoder_is_checked_for_whatever_a_record_may_hold() -> None:
    schema, bins = _schema(), 30
    statistics = TableStatistics.from_sum(
        count_cells(_frame(150, seed=1), schema, bins=bins), schema, bins=bins, noise=1.0
    )
    encoder = TableEncoder.fit(statistics, schema, total=150)
    assert encoder.problem(schema, bins=bins) is None
    assert encoder.problem(schema, bins=bins + 1) is not None
    other = encoder.model_copy(update={"schema_hash": "0" * 64})
    assert other.problem(schema, bins=bins) is not None
    assert encoder.model_copy(update={"columns": dict(reversed(encoder.columns.items()))}).problem(schema, bins=bins)
    for name, code in encoder.columns.items():
        changes: list[dict[str, object]] = [
            {"shares": code.shares[:-1]},
            {"shares": (*code.shares, 0.0)},
            {"shares": (-0.1, *code.shares[1:])},
            {"shares": (float("nan"), *code.shares[1:])},
            {"shares": tuple(2 * share for share in code.shares)},
            {"missing": 0.5 if code.missing is None else None},
            {"missing": float("nan") if code.missing is not None else 0.1},
        ]
        for change in changes:
            columns = {**encoder.columns, name: code.model_copy(update=change)}
            changed = encoder.model_copy(update={"columns": columns})
            assert changed.problem(schema, bins=bins) is not None, (name, change)


@pytest.mark.parametrize("bounds", [(0, 10_000), (-10_000, 10_000), (-10_000, 0)])
def test_heavy_tails_are_resolved_on_both_sides_of_zero(bounds: tuple[float, float]) -> None:
    """A bin of even width would hold nearly all of such a column, and its rows would be spread over that bin."""
    low, high = bounds
    grid = column_grid(Continuous(kind="continuous", min=low, max=high), bins=61)
    values = np.clip(10 * np.random.default_rng(3).standard_cauchy(20_000), low, high)
    inside = values[(values > low) & (values < high)]
    assert np.bincount(grid.locate(inside)).max() < 0.3 * len(inside)
