"""Cells, the mixture and the rows drawn from it, on tables without noise."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from surrogate_tables import BINS, SCHEMA, make_encoder, make_frame, make_tables

from aevorium.encoding.associations import Associations, TableDesign, count_tables
from aevorium.encoding.columns import ColumnCode
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import TableStatistics, count_cells
from aevorium.schema.table import TableSchema
from aevorium.surrogate.cells import coarse_cells, cut_columns, number_of_cells
from aevorium.surrogate.density import Surrogate, fit_surrogate
from aevorium.surrogate.mixture import FitSettings

PAIRS = tuple(combinations(SCHEMA.measured, 2))


def _fit(seed: int = 0, *, pairs: tuple[tuple[str, str], ...] = PAIRS) -> Surrogate:
    frame = make_frame(20_000, seed=3)
    encoder = make_encoder(frame)
    cells = cut_columns(encoder, SCHEMA, cells=6)
    tables = make_tables(frame, cells=cells, pairs=pairs, sigma=0.0, rng=np.random.default_rng(0))
    return fit_surrogate(
        encoder,
        SCHEMA,
        cells=cells,
        tables=[tables] if pairs else [],
        total=float(len(frame)),
        noise=0.0,
        seed=seed,
        advance=lambda done, steps: None,
        settings=FitSettings(components=60, steps=400) if pairs else None,
    )


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return _fit()


def test_cells_follow_the_mass_and_leave_spikes_and_missing_values_alone():
    encoder = make_encoder(make_frame(20_000, seed=3))
    cells, grids = cut_columns(encoder, SCHEMA, cells=6), table_grids(SCHEMA, bins=BINS)
    assert TableDesign(cells=cells, pairs=()).problem(SCHEMA, bins=BINS) is None
    for name, groups in cells.items():
        assert len(groups) == grids[name].cells
        assert list(groups) == sorted(groups)
    # A third of the costs are exactly 0, the first bin of the grid; a missing lab value is the last cell.
    assert cells["cost"].count(0) == 1
    assert cells["lab"].count(max(cells["lab"])) == 1
    assert (cells["ill"], cells["ward"]) == ((0, 1), (0, 1, 2, 3, 4))
    shares = np.bincount(cells["age"], weights=encoder.grid_shares("age"))
    assert 5 <= len(shares) <= 8
    assert shares.max() < 0.3


def test_few_cells_put_the_rarest_categories_together():
    schema = TableSchema.from_toml(
        'name = "s"\n[columns.c]\nkind = "categorical"\ncategories = ["a", "b", "c", "d"]\nmissing = true\n', source="s"
    )
    code = ColumnCode(shares=(0.1, 0.5, 0.05, 0.35), missing=0.2)
    encoder = TableEncoder(schema_hash=schema.content_hash, bins=BINS, columns={"c": code})
    assert cut_columns(encoder, schema, cells=3, most=3)["c"] == (2, 0, 2, 1, 3)


def test_less_noise_or_more_records_make_finer_cells():
    assert number_of_cells(records=1000, noise=60) < number_of_cells(records=10_000, noise=60)
    assert number_of_cells(records=1000, noise=60) < number_of_cells(records=1000, noise=6)
    assert 4 == number_of_cells(records=1, noise=1e9) < number_of_cells(records=1e9, noise=0) == 24
    # Records and noise of Synthea's hospitals and of Adult at ε = 1.
    assert [coarse_cells(records=1_119, noise=77), coarse_cells(records=32_561, noise=101)] == [3, 4]
    assert 3 == coarse_cells(records=1, noise=1e9) < coarse_cells(records=1e9, noise=0) == 5


def test_the_mixture_recovers_every_table_it_was_given(surrogate: Surrogate):
    frame, names = make_frame(20_000, seed=3), list(SCHEMA.measured)
    design = TableDesign(cells=dict(surrogate.cells), pairs=PAIRS)
    counts = count_tables(frame, SCHEMA, bins=BINS, design=design) / len(frame)
    start = 0
    for (first, second), (rows, columns) in zip(PAIRS, design.shapes, strict=True):
        true = counts[start : start + rows * columns].reshape(rows, columns)
        found = surrogate.mixture.pair(names.index(first), names.index(second))
        assert 0.5 * np.abs(found - true).sum() < 0.03, (first, second)
        start += rows * columns


def test_rows_have_the_associations_of_the_table(surrogate: Surrogate):
    drawn = surrogate.rows(20_000, generator=np.random.default_rng(1))
    rows = surrogate.encoder.decode(drawn.values, drawn.codes, SCHEMA)
    ill = rows["ill"] == "yes"
    frame = make_frame(20_000, seed=3)
    real = frame["ill"] == "yes"
    # Standard errors are below .006; five of them and the misfit allowed above.
    assert ill.mean() == pytest.approx(real.mean(), abs=0.03)
    assert rows["lab"].isna()[ill].mean() == pytest.approx(frame["lab"].isna()[real].mean(), abs=0.05)
    assert rows["lab"].isna()[~ill].mean() == pytest.approx(frame["lab"].isna()[~real].mean(), abs=0.05)
    assert rows["age"][ill].median() == pytest.approx(frame["age"][real].median(), abs=4)
    assert rows["lab"][ill].median() == pytest.approx(frame["lab"][real].median(), abs=4)
    assert (rows["cost"] == 0).mean() == pytest.approx((frame["cost"] == 0).mean(), abs=0.03)
    assert np.array_equal(drawn.observed[:, 2], ~rows["lab"].isna().to_numpy())


def test_a_seed_fixes_fit_and_rows(surrogate: Surrogate):
    again, other = _fit(), _fit(seed=1)
    for mixture, is_same in ((again.mixture, True), (other.mixture, False)):
        assert np.array_equal(mixture.weights, surrogate.mixture.weights) is is_same
    one, two = (found.rows(50, generator=np.random.default_rng(4)) for found in (surrogate, again))
    assert np.array_equal(one.values, two.values)
    assert np.array_equal(one.codes, two.codes)


def test_without_two_way_tables_columns_are_independent_and_as_released():
    surrogate = _fit(pairs=())
    frame = make_frame(20_000, seed=3)
    drawn = surrogate.rows(20_000, generator=np.random.default_rng(1))
    rows = surrogate.encoder.decode(drawn.values, drawn.codes, SCHEMA)
    assert (rows["ill"] == "yes").mean() == pytest.approx((frame["ill"] == "yes").mean(), abs=0.02)
    assert rows["age"].quantile([0.25, 0.5, 0.75]).to_numpy() == pytest.approx(
        frame["age"].quantile([0.25, 0.5, 0.75]).to_numpy(), abs=4
    )
    assert abs(np.corrcoef(rows["age"], rows["ill"] == "yes")[0, 1]) < 0.03


_PARITY = TableSchema.from_toml(
    'name = "p"\ntarget = "t"\n'
    + "".join(f'[columns.{name}]\nkind = "categorical"\ncategories = ["0", "1"]\n' for name in "abt"),
    source="test",
)


@pytest.mark.parametrize("has_triple", [True, False])
def test_what_two_columns_say_together_of_a_third_comes_from_their_triple_alone(has_triple: bool):
    """t is whether a and b differ: every pair of columns is independent."""
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2, (20_000, 2))
    codes = np.column_stack([bits, bits[:, 0] ^ bits[:, 1]])
    frame = pd.DataFrame(
        {name: pd.Categorical.from_codes(codes[:, place], ["0", "1"]) for place, name in enumerate("abt")}
    )
    cells = dict.fromkeys("abt", (0, 1))
    triple = {"triples": (("a", "b", "t"),), "thirds": {"t": (0, 1)}} if has_triple else {}
    design = TableDesign(cells=cells, pairs=tuple(combinations("abt", 2)), **triple)
    counts = count_tables(frame, _PARITY, bins=BINS, design=design)
    statistics = TableStatistics.from_sum(count_cells(frame, _PARITY, bins=BINS), _PARITY, bins=BINS, noise=0.0)
    fitted = fit_surrogate(
        TableEncoder.fit(statistics, _PARITY, total=20_000),
        _PARITY,
        cells=cells,
        tables=[Associations.from_sum(counts, design, noise=0.0)],
        total=20_000,
        noise=0.0,
        seed=0,
        advance=lambda done, steps: None,
    )
    rows = fitted.rows(10_000, generator=np.random.default_rng(1)).codes
    agrees = (rows[:, 2] == (rows[:, 0] ^ rows[:, 1])).mean()
    # One half by chance, with a standard error of .005.
    assert agrees > 0.95 if has_triple else agrees == pytest.approx(0.5, abs=0.05)
