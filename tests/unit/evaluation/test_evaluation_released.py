"""The card that may be shared: the synthetic table against released noisy one-way tables."""

import math

import numpy as np
import pandas as pd
import pytest
from evaluation_tables import make_table

from aevorium.encoding.grid import column_grid
from aevorium.encoding.statistics import count_cells
from aevorium.errors import DataError, InternalError
from aevorium.evaluation.released import ReleasedTable, compare_released, score_released
from aevorium.schema.table import Categorical, Continuous, TableSchema

WARDS = ("north", "south", "west")


def release(column, cells, *, noise_sd=0.0, seed=0, **grid):
    noise = np.random.default_rng(seed).normal(0, noise_sd, len(cells)) if noise_sd else 0
    return ReleasedTable.from_cells(column, counts=np.asarray(cells) + noise, noise_sd=noise_sd, **grid)


def ward_counts(table):
    return [int((table["Ward"] == ward).sum()) for ward in WARDS]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (Continuous(kind="continuous", min=0, max=1, missing=True), [0.0, 1e-9, 0.3, 0.5, 1 - 1e-9, 1.0, math.nan]),
        (Continuous(kind="continuous", min=0, max=300000), [0.0, 1.0, 999.5, 1000.0, 299999.0, 300000.0]),
        (Continuous(kind="continuous", min=15, max=50, missing=True), [15.0, 15.001, 22.0, 49.9, 50.0, math.nan]),
        (Continuous(kind="continuous", min=0, max=500, integer=True), list(range(0, 501, 7))),
        (Continuous(kind="continuous", min=2, max=2), [2.0, 2.0]),
        (Categorical(kind="categorical", categories=("a", "b"), missing=True), ["b", "a", "b", None]),
    ],
)
def test_cells_are_counted_as_the_nodes_count_them(column, values):
    schema = TableSchema(name="one", columns={"c": column})
    is_number = isinstance(column, Continuous)
    cells = pd.Series(values, dtype="float64") if is_number else pd.Categorical(values, categories=column.categories)
    frame = pd.DataFrame({"c": cells})
    grid = column_grid(column, bins=24)
    counts = count_cells(frame, schema, bins=24)
    released = ReleasedTable.from_cells(
        "c",
        counts=counts,
        noise_sd=0.0,
        low=grid.low,
        high=grid.high,
        categories=grid.categories,
        missing=grid.missing,
    )
    own = released.marginal().of(frame, (released.axis,)).counts
    assert own.tolist() == counts.tolist()
    assert len(set(released.labels)) == len(released.labels)


def test_exact_counts_of_the_same_rows_are_at_no_distance():
    table = make_table(400, seed=1)
    found = compare_released(synthetic=table, released=[release("Ward", ward_counts(table), categories=WARDS)])
    assert found[0].overlay.distance == pytest.approx(0)
    assert found[0].overlay.band == (0.0, 0.0, 0.0)


def test_noise_alone_stays_near_its_floor():
    table = make_table(2000, seed=1)
    other = make_table(2000, seed=2)
    columns = [
        compare_released(
            synthetic=other,
            released=[release("Ward", ward_counts(table), noise_sd=60.0, seed=seed, categories=WARDS)],
        )[0]
        for seed in range(40)
    ]
    distances = [column.overlay.distance for column in columns]
    # the mean of 40 distances of about .03 ± .015 has a standard error of .0024: half the floor is 5 of them away
    assert np.mean(distances) == pytest.approx(np.mean([column.floor for column in columns]), rel=0.5)
    assert all(column.overlay.band[0] == pytest.approx(1.96 * 60 / 2000, rel=0.2) for column in columns)


def test_a_wrong_column_lies_above_its_floor_and_is_named():
    real, synthetic = make_table(1000, seed=1), make_table(1000, seed=2)
    synthetic["Ward"] = pd.Categorical(["north"] * 1000, categories=WARDS)
    edges = np.linspace(0, 100, 21)
    ages = np.histogram(real["Age"], bins=edges)[0]
    released = [
        release("Ward", ward_counts(real), noise_sd=10.0, categories=WARDS),
        release("Age", ages, noise_sd=10.0, low=edges[:-1], high=edges[1:]),
    ]
    card = score_released(synthetic=synthetic, released=released, simulated=True)
    assert card["released_worst"].verdict == "do not use"
    assert "'Ward'" in card["released_worst"].reading
    assert card["released_worst"].value == pytest.approx(2 / 3, abs=0.1)
    assert card["released_1way"].reference < card["released_1way"].value < card["released_worst"].value
    assert card.marking == ""
    assert card.simulated


def test_counts_that_noise_outweighs_say_nothing():
    table = make_table(50, seed=1)
    released = [ReleasedTable.from_cells("Ward", counts=(-5, -3, 1), noise_sd=4.0, categories=WARDS)]
    card = score_released(synthetic=table, released=released)
    assert card["released_1way"].value is None
    assert "'Ward'" in card.notes[-1]


def test_negative_counts_are_projected():
    table = make_table(50, seed=1)
    released = [ReleasedTable.from_cells("Ward", counts=(-5, 30, 40), noise_sd=4.0, categories=WARDS)]
    (column,) = compare_released(synthetic=table, released=released)
    assert column.overlay.reference[0] == 0
    assert sum(column.overlay.reference) == pytest.approx(1)


def test_fine_grids_are_shown_on_few_bars_that_hold_the_whole():
    table = make_table(3000, seed=1)
    edges = np.linspace(0, 100, 401)
    counts = [*np.histogram(table["Age"], bins=edges)[0], 0]
    released = [release("Age", counts, noise_sd=2.0, low=edges[:-1], high=edges[1:], missing=True)]
    (column,) = compare_released(synthetic=table, released=released)
    assert len(column.overlay.labels) <= 33
    assert column.overlay.labels[-1] == "missing"
    assert sum(column.overlay.reference) == pytest.approx(1)
    assert sum(column.overlay.synthetic) == pytest.approx(1)


def test_a_table_without_the_column_or_with_too_many_counts_is_refused():
    released = ReleasedTable.from_cells("Ward", counts=(1, 2, 3), noise_sd=1.0, categories=WARDS)
    with pytest.raises(DataError, match="'Ward'"):
        score_released(synthetic=make_table(5, seed=0).drop(columns="Ward"), released=[released])
    with pytest.raises(InternalError, match="'Ward'"):
        ReleasedTable.from_cells("Ward", counts=(1, 2, 3, 4), noise_sd=1.0, categories=WARDS)


def test_a_seed_fixes_the_floor():
    table = make_table(100, seed=1)
    released = [release("Ward", ward_counts(table), noise_sd=5.0, categories=WARDS)]
    assert score_released(synthetic=table, released=released, seed=3) == score_released(
        synthetic=table, released=released, seed=3
    )
