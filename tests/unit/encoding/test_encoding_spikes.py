"""Values inside a bin that many records share: found, kept exactly, and not seen where there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import column_grid
from aevorium.encoding.spikes import Spike, find_spikes
from aevorium.encoding.statistics import TableStatistics, count_cells
from aevorium.schema.table import Continuous, TableSchema


def _schema(low: float, high: float, *, integer: bool = False) -> TableSchema:
    column = {"kind": "continuous", "min": low, "max": high, "integer": integer}
    return TableSchema.model_validate({"name": "t", "columns": {"x": column}})


def _fitted(values: np.ndarray, schema: TableSchema, *, bins: int, noise: float = 0.0, seed: int = 0) -> TableEncoder:
    counts = count_cells(pd.DataFrame({"x": values}), schema, bins=bins)
    noisy = counts + np.round(np.random.default_rng(seed).normal(0, noise, len(counts))).astype(np.int64)
    statistics = TableStatistics.from_sum(noisy, schema, bins=bins, noise=noise)
    return TableEncoder.fit(statistics, schema, total=len(values))


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
    assert abs((others < 120).mean() - (values[values != 120] < 120).mean()) < 0.05


@pytest.mark.parametrize(("value", "bounds"), [(2.5, (0, 30)), (42, (0, 90)), (0, (-70, 100)), (1000, (0, 1e6))])
def test_a_constant_column_stays_constant(value: float, bounds: tuple[float, float]) -> None:
    schema = _schema(*bounds)
    frame = pd.DataFrame({"x": np.full(2_000, float(value))})
    encoder = _fitted(frame["x"].to_numpy(), schema, bins=250)
    encoded = encoder.encode(frame, schema, generator=np.random.default_rng(1))
    assert abs(encoded.values.std() - 1) < 0.1
    assert (encoder.decode(encoded.values, encoded.codes, schema)["x"] == value).all()


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


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("noise", [0.0, 15.0])
def test_smooth_columns_have_no_spikes(seed: int, noise: float) -> None:
    """Whatever their shape: wide, narrow, skewed, or nearly all in one bin. False alarms: below 10^-5 a column."""
    rng = np.random.default_rng(seed)
    for bounds, values in (
        ((0, 500), rng.gamma(3, 40, 3_000)),
        ((0, 14), rng.normal(7.41, 0.04, 3_000)),
        ((0, 50), np.exp(rng.normal(0, 0.4, 3_000))),
        ((-1e4, 1e4), 10 * rng.standard_cauchy(3_000)),
        ((0, 1e6), np.exp(rng.normal(6, 2, 3_000))),
        ((0, 1), rng.random(3_000)),
    ):
        schema = _schema(*bounds)
        for bins in (24, 50, 112):
            encoder = _fitted(np.clip(values, *bounds), schema, bins=bins, noise=noise, seed=seed)
            assert encoder.columns["x"].spikes == (), (bounds, bins)


def test_no_value_is_guessed_where_every_bin_has_one_as_round() -> None:
    """All records of one bin: 40 is the only multiple of ten within two bins; every bin has whole numbers."""
    grid = column_grid(Continuous(kind="continuous", min=0, max=99), bins=24)
    found = []
    for place in range(1, len(grid.low) - 1):
        counts = np.zeros(len(grid.low), dtype=np.int64)
        counts[place] = 1_000
        found += [spike.value for spike in find_spikes(counts, grid, noise=0.0)]
    assert found == [10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_spikes_of_a_server_s_making_are_refused() -> None:
    schema = _schema(0, 500)
    encoder = _fitted(_spiked(3_000, seed=1, share=0.3, at=120), schema, bins=112)
    (spike,) = encoder.columns["x"].spikes
    assert encoder.problem(schema, bins=112) is None
    for spikes in (
        (spike, spike),
        (Spike(bin=500, value=120, share=0.5),),
        (Spike(bin=spike.bin, value=300, share=0.5),),
    ):
        code = encoder.columns["x"].model_copy(update={"spikes": spikes})
        wrong = encoder.model_copy(update={"columns": {"x": code}}).problem(schema, bins=112)
        assert wrong is not None
        assert "spikes" in wrong
    assert TableEncoder.from_json(encoder.to_json(), schema) == encoder
