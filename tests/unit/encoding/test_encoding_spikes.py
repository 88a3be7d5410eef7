"""Values inside a bin that many records share: found, kept exactly, and not seen where there are none."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aevorium.encoding.columns import ColumnCode
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import ColumnGrid, column_grid, number_of_bins
from aevorium.encoding.spikes import MOST_SHARE, Spike, find_spikes
from aevorium.encoding.statistics import TableStatistics, count_cells
from aevorium.errors import ArtefactError
from aevorium.schema.table import Continuous, TableSchema


def _schema(low: float, high: float, *, integer: bool = False) -> TableSchema:
    column = {"kind": "continuous", "min": low, "max": high, "integer": integer}
    return TableSchema.model_validate({"name": "t", "columns": {"x": column}})


def _fitted(values: np.ndarray, schema: TableSchema, *, bins: int, noise: float = 0.0, seed: int = 0) -> TableEncoder:
    counts = count_cells(pd.DataFrame({"x": values}), schema, bins=bins)
    noisy = counts + np.round(np.random.default_rng(seed).normal(0, noise, len(counts))).astype(np.int64)
    statistics = TableStatistics.from_sum(noisy, schema, bins=bins, noise=noise)
    return TableEncoder.fit(statistics, schema, total=len(values))


def _drawn(encoder: TableEncoder, schema: TableSchema, *, rows: int, seed: int) -> pd.Series:
    """What a perfect model generates, where present."""
    z = np.random.default_rng(seed).standard_normal((rows, 1)).astype(np.float32)
    return encoder.decode(z, np.zeros((rows, len(encoder.priors(schema))), np.int64), schema)["x"]


def _spiked(rows: int, *, seed: int, share: float, at: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(rows) < share, at, np.clip(rng.gamma(3, 40, rows), 0, 500))


@pytest.mark.parametrize("bins", [112, 250, 512])
@pytest.mark.parametrize("noise", [0.0, 15.0])
def test_a_spike_among_spread_values_is_kept_with_its_share(bins: int, noise: float) -> None:
    schema, values = _schema(0, 500), _spiked(5_000, seed=1, share=0.3, at=120)
    encoder = _fitted(values, schema, bins=bins, noise=noise)
    assert [spike.value for spike in encoder.columns["x"].spikes] == [120]
    z = np.random.default_rng(2).standard_normal((100_000, 1)).astype(np.float32)
    made = encoder.decode(z, np.empty((100_000, 0), np.int64), schema)["x"]
    # Four standard errors of both tables, and what the noise of a bin moves.
    assert abs((made == 120).mean() - 0.3) < 0.03 + 4 * noise / 5_000
    others = made[made != 120]
    assert others.nunique() > 1_000
    # Two standard deviations of what the noise of all bins below makes of their sum.
    off = 2 * noise * np.sqrt(bins * 120 / 500) / 3_500
    assert abs((others < 120).mean() - (values[values != 120] < 120).mean()) < 0.02 + off


@pytest.mark.parametrize("is_lower", [True, False])
@pytest.mark.parametrize(("rows", "noise"), [(1_000, 4.3), (30_000, 5.0), (30_000, 38.0), (300_000, 20.0)])
def test_a_limit_of_detection_is_kept_with_its_share(rows: int, noise: float, is_lower: bool) -> None:
    """A spike where the other values begin or end: there are none to one side of it."""
    rng = np.random.default_rng(rows)
    values = np.where(rng.random(rows) < 0.5, 50.0, np.clip(50 + np.abs(rng.normal(0, 15, rows)), 0, 150))
    values = values if is_lower else 150 - values
    limit, schema = (50.0 if is_lower else 100.0), _schema(0, 150)
    found = []
    for seed in range(10):
        encoder = _fitted(values, schema, bins=120, noise=noise, seed=seed)
        assert {spike.value for spike in encoder.columns["x"].spikes} == {limit}
        found.append(float((_drawn(encoder, schema, rows=20_000, seed=seed) == limit).mean()))
    # Four standard errors, and what the noise of the bins beyond moves.
    assert abs(np.mean(found) - (values == limit).mean()) < 0.03


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.6, 1.0, 2.0, 3.0])
def test_a_limit_that_is_less_round_than_bins_are_wide_is_kept_too(limit: float) -> None:
    """The roundest number of its bin, which is a quarter wide: for 0.3 that is 0.5, and all of them are still one."""
    rng = np.random.default_rng(2)
    values = np.where(rng.random(2_000) < 0.3, limit, np.round(np.clip(limit + rng.exponential(3, 2_000), 0, 50), 2))
    for seed in range(5):
        encoder = _fitted(values, _schema(0, 50), bins=198, noise=3.0, seed=seed)
        made = _drawn(encoder, _schema(0, 50), rows=50_000, seed=2)
        value, share = next(iter(made.value_counts(normalize=True).items()))
        assert value == (0.5 if limit == 0.3 else limit)
        # Of the others in its bin, nobody knows whether they are more or less than half a bin's.
        assert abs(share - (values == limit).mean()) < 0.05


@pytest.mark.parametrize(("value", "bounds"), [(2.5, (0, 30)), (42, (0, 90)), (0, (-70, 100)), (1000, (0, 1e6))])
def test_a_constant_column_keeps_its_round_value(value: float, bounds: tuple[float, float]) -> None:
    schema = _schema(*bounds)
    frame = pd.DataFrame({"x": np.full(2_000, float(value))})
    encoder = _fitted(frame["x"].to_numpy(), schema, bins=250)
    encoded = encoder.encode(frame, schema, generator=np.random.default_rng(1))
    assert abs(encoded.values.std() - 1) < 0.1
    assert (encoder.decode(encoded.values, encoded.codes, schema)["x"] == value).all()


@pytest.mark.parametrize("value", [42.5, 0.0, 100.0, 17.3])
@pytest.mark.parametrize("is_missing", [False, True])
@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize(("rows", "epsilon", "noise"), [(500, 1, 18.6), (500, 10, 3.6), (5_000, 1, 18.6)])
def test_a_constant_column_stays_constant(
    value: float, is_missing: bool, integer: bool, rows: int, epsilon: float, noise: float
) -> None:
    """The noise is that of secure aggregation. A constant passes for one but at three standard deviations."""
    column = {"kind": "continuous", "min": 0, "max": 100, "integer": integer, "missing": is_missing}
    schema = TableSchema.model_validate({"name": "t", "columns": {"x": column}})
    bins = number_of_bins(records=rows, epsilon=epsilon, nodes=1)
    values = np.full(rows, float(round(value)) if integer else value)
    if is_missing:
        values[: rows // 10] = np.nan
    kept = []
    for seed in range(50):
        made = _drawn(_fitted(values, schema, bins=bins, noise=noise, seed=seed), schema, rows=10_000, seed=seed)
        kept.append((made == made.mode()[0]).mean() >= 0.999)
    grid = column_grid(schema.measured["x"], bins=bins)
    assert isinstance(grid, ColumnGrid)
    assert grid.locate(made.mode().to_numpy())[0] == grid.locate(values[-1:])[0]
    assert np.mean(kept) >= 0.96


def test_a_spike_of_whole_numbers_in_wide_bins_is_kept() -> None:
    rng = np.random.default_rng(4)
    values = np.where(rng.random(5_000) < 0.2, 50_000, np.clip(np.exp(rng.normal(9, 2, 5_000)).round(), 0, 1e6))
    schema = _schema(0, 1e6, integer=True)
    encoder = _fitted(values, schema, bins=100)
    encoded = encoder.encode(pd.DataFrame({"x": values}), schema, generator=rng)
    made = encoder.decode(encoded.values, encoded.codes, schema)["x"]
    assert abs((made == 50_000).mean() - 0.2) < 0.02


def test_rows_go_there_and_back_within_their_bins() -> None:
    """Records at the spike come back exactly, the others to where they were, in their order."""
    schema, values = _schema(0, 500), _spiked(5_000, seed=3, share=0.3, at=120)
    encoder = _fitted(values, schema, bins=112)
    frame = pd.DataFrame({"x": values})
    encoded = encoder.encode(frame, schema, generator=np.random.default_rng(1))
    made = encoder.decode(encoded.values, encoded.codes, schema)["x"].to_numpy()
    assert (made[values == 120] == 120).all()
    np.testing.assert_allclose(made, values, atol=1e-3, rtol=1e-3)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    bounds=st.sampled_from([(0, 500), (-70, 100), (0, 1_000_000), (-10_000, 10_000), (3, 4_000)]),
    integer=st.booleans(),
    places=st.lists(st.floats(0, 1), max_size=8),
)
def test_any_spikes_come_back_exactly_and_other_values_in_order(
    seed: int, bounds: tuple[int, int], integer: bool, places: list[float]
) -> None:
    schema, rng = _schema(*bounds, integer=integer), np.random.default_rng(seed)
    low, high = bounds
    grid = column_grid(schema.measured["x"], bins=24)
    at = np.unique(np.round(low + np.array([*places, *places]) * (high - low), 0 if integer else 1))
    homes = grid.locate(at)
    at = at[(grid.high - grid.low)[homes] > (1 if integer else 0)]
    spikes = tuple(Spike(value=value, share=0.9 / len(at)) for value in at)
    shares = rng.uniform(0.5, 1, grid.states)
    code = ColumnCode(shares=tuple(shares / shares.sum()), missing=None, spikes=spikes)
    encoder = TableEncoder(schema_hash=schema.content_hash, bins=24, columns={"x": code})
    assert encoder.problem(schema, bins=24) is None
    values = np.concatenate([at, rng.uniform(low, high, 200), [low, high]])
    values = np.sort(np.round(values) if integer else values)
    frame = pd.DataFrame({"x": values})
    encoded = encoder.encode(frame, schema, generator=rng)
    made = encoder.decode(encoded.values, encoded.codes, schema)["x"].to_numpy()
    is_spike = np.isin(values, at)
    assert (made[is_spike] == values[is_spike]).all()
    width = (grid.high - grid.low)[grid.locate(values)]
    assert (np.abs(made - values) <= 0.01 * width).all()
    assert (made >= low).all()
    assert (made <= high).all()
    z = encoded.values[:, 0]
    assert (np.diff(z)[np.diff(values) > 0] >= 0).all()


@pytest.mark.parametrize("noise", [0.0, 18.6])
@pytest.mark.parametrize("shape", ["normal", "gamma", "uniform", "exponential"])
def test_smooth_columns_have_no_spikes(shape: str, noise: float) -> None:
    """Of columns spread over a bin's width or more: at most one of a hundred; no lattice at all.

    Narrower ones look like a constant.
    """
    alarms = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = int(rng.choice([500, 2_000, 10_000, 50_000]))
        # Bins of even width and, in the last, of widening ones.
        bounds = [(30.0, 150.0), (-5.0, 20.0), (50.0, 223.7), (0.0, 173.7)][seed % 4]
        bins = number_of_bins(records=rows, epsilon=1 if noise else 10, nodes=1)
        spread = (bounds[1] - bounds[0]) / bins * 10 ** rng.uniform(0.1, 1.2)
        middle = bounds[0] + (bounds[1] - bounds[0]) * rng.uniform(0.2, 0.7)
        values = {
            "normal": rng.normal(middle, spread, rows),
            "gamma": middle + spread * rng.standard_gamma(10 ** rng.uniform(0, 1), rows),
            "uniform": middle + 2 * spread * (2 * rng.random(rows) - 1),
            "exponential": middle + spread * rng.exponential(1, rows),
        }[shape]
        encoder = _fitted(np.clip(values, *bounds), _schema(*bounds), bins=bins, noise=noise, seed=seed)
        alarms.append(encoder.columns["x"].spikes)
    assert sum(bool(spikes) for spikes in alarms) <= 0.01 * len(alarms), alarms
    assert max(len(spikes) for spikes in alarms) <= 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 15.0])
def test_heavy_tails_are_no_spikes(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    for bounds, values in (
        ((-1e4, 1e4), 10 * rng.standard_cauchy(3_000)),
        ((0, 1e6), np.exp(rng.normal(6, 2, 3_000))),
    ):
        for bins in (24, 50, 112):
            encoder = _fitted(np.clip(values, *bounds), _schema(*bounds), bins=bins, noise=noise, seed=seed)
            assert encoder.columns["x"].spikes == (), (bounds, bins)


def test_no_value_is_guessed_where_every_bin_has_one_as_round() -> None:
    """A tenth of the records: 40 is the only multiple of ten within two bins; every bin has whole numbers."""
    grid = column_grid(Continuous(kind="continuous", min=0, max=99), bins=24)
    found = []
    for place in range(1, len(grid.low) - 1):
        counts = np.full(len(grid.low), 400, dtype=np.int64)
        counts[place] = 2_000
        counts[[0, -1]] = 0
        found += [spike.value for spike in find_spikes(counts, grid, noise=0.0)]
    assert found == [10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_spikes_of_a_server_s_making_are_refused() -> None:
    schema = _schema(0, 500)
    encoder = _fitted(_spiked(3_000, seed=1, share=0.3, at=120), schema, bins=112)
    (spike,) = encoder.columns["x"].spikes
    assert encoder.problem(schema, bins=112) is None
    for spikes in (
        (spike, spike),
        (Spike(value=121, share=0.1), spike),
        (Spike(value=501, share=0.5),),
        (Spike(value=-1, share=0.5),),
        (Spike(value=0, share=0.5),),
        (Spike(value=500, share=0.5),),
        (Spike(value=120, share=0.6), Spike(value=121, share=0.6)),
        tuple(Spike(value=1 + place / 1000, share=1e-4) for place in range(5 * 112)),
    ):
        wrong = _with_spikes(encoder, spikes).problem(schema, bins=112)
        assert wrong is not None
        assert "spikes" in wrong
    whole = _schema(0, 500, integer=True)
    encoder = _fitted(np.full(500, 120.0), whole, bins=100)
    assert _with_spikes(encoder, (Spike(value=120, share=0.5),)).problem(whole, bins=100) is None
    assert _with_spikes(encoder, (Spike(value=120.5, share=0.5),)).problem(whole, bins=100) is not None


def _with_spikes(encoder: TableEncoder, spikes: tuple[Spike, ...]) -> TableEncoder:
    return encoder.model_copy(update={"columns": {"x": encoder.columns["x"].model_copy(update={"spikes": spikes})}})


@pytest.mark.parametrize(
    "field", [{"share": 1.1}, {"share": 0.0}, {"share": float("nan")}, {"value": float("nan")}, {"value": float("inf")}]
)
def test_no_spike_is_of_impossible_numbers(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Spike.model_validate({"value": 120.0, "share": 0.5, **field})


def test_an_encoder_survives_json_and_one_from_before_is_read() -> None:
    schema = _schema(0, 500)
    encoder = _fitted(_spiked(3_000, seed=1, share=0.3, at=120), schema, bins=112)
    text = encoder.to_json()
    assert TableEncoder.from_json(text, schema) == encoder
    content = json.loads(text)
    del content["columns"]["x"]["spikes"]
    before = TableEncoder.from_json(json.dumps({**content, "schema_version": 1}), schema)
    assert before.columns["x"].spikes == ()
    assert before.problem(schema, bins=112) is None
    with pytest.raises(ArtefactError) as newer:
        TableEncoder.from_json(json.dumps({**content, "schema_version": 4}), schema)
    assert newer.value.code == "CHECKPOINT_DAMAGED"


def test_rows_of_cells_have_a_spike_s_share_of_its_bin() -> None:
    """The surrogate knows cells alone, and other shares of them than the histogram's."""
    schema = _schema(0, 500)
    encoder = _fitted(_spiked(5_000, seed=1, share=0.3, at=120), schema, bins=112)
    (spike,) = encoder.columns["x"].spikes
    grid = column_grid(schema.measured["x"], bins=112)
    changed = encoder.with_shares({"x": np.full(grid.states, 1 / grid.states)})
    cells = np.full((20_000, 1), grid.locate(np.array([120.0]))[0])
    encoded = changed.encode_cells(cells, schema, generator=np.random.default_rng(0))
    made = changed.decode(encoded.values, encoded.codes, schema)["x"]
    assert (made == 120).mean() == pytest.approx(spike.share, abs=0.01)
    assert spike.share < MOST_SHARE


def test_a_constant_column_stays_constant_whatever_a_fit_to_noisy_tables_says() -> None:
    schema = _schema(0, 100)
    encoder = _fitted(np.full(500, 42.5), schema, bins=31, noise=18.6)
    grid = column_grid(schema.measured["x"], bins=31)
    changed = encoder.with_shares({"x": np.full(grid.states, 1 / grid.states)})
    assert changed == encoder
    cells = np.arange(grid.states).repeat(50)[:, None]
    encoded = changed.encode_cells(cells, schema, generator=np.random.default_rng(0))
    assert abs(encoded.values.std() - 1) < 0.1
    assert changed.decode(encoded.values, encoded.codes, schema)["x"].nunique() == 1
    # A node may hold another value all the same: its record is encoded, and nothing shows that it was there.
    frame = pd.DataFrame({"x": [0.0, 3.0, 42.5, 43.0, 100.0]})
    encoded = changed.encode(frame, schema, generator=np.random.default_rng(0))
    assert np.isfinite(encoded.values).all()
    assert changed.decode(encoded.values, encoded.codes, schema)["x"].nunique() == 1
