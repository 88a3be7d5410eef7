"""Distances to noisy evaluation tables: near 0 where both sides are alike, and right where they differ."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from aevorium.encoding.associations import TableDesign
from aevorium.encoding.evaluation import EvaluationTables, count_evaluation
from aevorium.encoding.grid import table_grids
from aevorium.errors import DataError
from aevorium.evaluation.comparison import (
    Comparison,
    compare_evaluation,
    compare_pairs,
    comparison_scores,
    corrected_distance,
)
from aevorium.evaluation.released import card_of_released
from aevorium.schema.table import TableSchema

COLUMNS, STATES, BINS, ROWS = 12, 6, 24, 20_000
SCHEMA = TableSchema.from_toml(
    'name = "clinic"\n'
    + "".join(
        f'[columns.c{place}]\nkind = "categorical"\ncategories = {[str(state) for state in range(STATES)]}\n'
        for place in range(COLUMNS)
    ),
    source="test",
)
GRIDS = table_grids(SCHEMA, bins=BINS)
NAMES = list(GRIDS)
DESIGN = TableDesign(
    cells={name: tuple(range(grid.cells)) for name, grid in GRIDS.items()},
    pairs=tuple(zip(NAMES, [*NAMES[1:], NAMES[0]], strict=True)),
)
FLAT = np.full(STATES, 1 / STATES)
SHIFTED = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
SHIFT = float(0.5 * np.abs(FLAT - SHIFTED).sum())
SHIFT_OF_PAIRS = float(0.5 * np.abs(np.outer(SHIFTED, SHIFTED) - np.outer(FLAT, FLAT)).sum())


def frame_of(shares: np.ndarray, *, rows: int, seed: int) -> pd.DataFrame:
    drawn = np.random.default_rng(seed).choice(STATES, p=shares, size=(rows, COLUMNS))
    states = [str(state) for state in range(STATES)]
    return pd.DataFrame({name: pd.Categorical.from_codes(drawn[:, place], states) for place, name in enumerate(NAMES)})


def tables_of(frame: pd.DataFrame, *, noise: float, seed: int) -> EvaluationTables:
    counts = count_evaluation(frame, SCHEMA, bins=BINS, design=DESIGN)
    drawn = np.rint(np.random.default_rng(seed).normal(0, noise, len(counts))).astype(np.int64) if noise else 0
    return EvaluationTables.from_sum(counts + drawn, DESIGN, bins=BINS, noise=noise)


def compare(held: np.ndarray, *, records: int, noise: float, seed: int = 0) -> Comparison:
    tables = tables_of(frame_of(held, rows=records, seed=seed), noise=noise, seed=seed + 1)
    synthetic = frame_of(FLAT, rows=ROWS, seed=seed + 2)
    return compare_evaluation(synthetic=synthetic, tables=tables, schema=SCHEMA, is_holdout=True)


def mean(values: list[float]) -> float:
    return float(np.mean(values))


@pytest.mark.parametrize(("records", "noise"), [(600, 6.0), (2000, 20.0), (300, 0.0)])
def test_where_both_sides_are_alike_the_distance_is_near_0_although_noise_moved_every_cell(
    records: int, noise: float
) -> None:
    compared = compare(FLAT, records=records, noise=noise)
    for distances in (compared.columns, compared.pairs):
        measured, expected = (mean([getattr(one, field) for one in distances]) for field in ("measured", "noise"))
        corrected = mean([one.corrected for one in distances])
        assert measured == pytest.approx(expected, rel=0.25)
        assert abs(corrected) < 0.25 * measured
        # Each lies within its own deviation of 0 (five of them: wrong once in a million, if at all).
        assert all(abs(one.corrected) < 5 * one.deviation for one in distances)
        spread = math.sqrt(sum(one.deviation**2 for one in distances)) / len(distances)
        assert abs(corrected) < 5 * spread


def test_a_shift_that_stands_out_of_the_noise_is_measured_as_large_as_it_is() -> None:
    """Over the columns the shift is 0.267 in each, and over independent pairs what two such shifts make."""
    for records, noise in ((4000, 0.0), (4000, 10.0), (1500, 12.0)):
        compared = compare(SHIFTED, records=records, noise=noise)
        assert mean([one.corrected for one in compared.columns]) == pytest.approx(SHIFT, rel=0.04)
        if noise < 12:
            assert mean([one.corrected for one in compared.pairs]) == pytest.approx(SHIFT_OF_PAIRS, rel=0.04)


def test_pairs_that_a_model_was_made_from_are_compared_as_those_of_an_evaluation() -> None:
    tables = tables_of(frame_of(SHIFTED, rows=4_000, seed=0), noise=10.0, seed=1)
    synthetic = frame_of(FLAT, rows=ROWS, seed=2)
    evaluated = compare_evaluation(synthetic=synthetic, tables=tables, schema=SCHEMA, is_holdout=False)
    of_model = compare_pairs(
        synthetic=synthetic, released=tables.pairs, schema=SCHEMA, bins=BINS, total=evaluated.records
    )
    assert of_model == evaluated.pairs
    # Nothing is said where noise outweighs the counts.
    assert compare_pairs(synthetic=synthetic, released=tables.pairs, schema=SCHEMA, bins=BINS, total=20.0) == ()


def test_what_noise_hides_lies_between_the_corrected_and_the_measured_distance() -> None:
    for records, noise in ((1500, 12.0), (1500, 40.0)):
        compared = compare(SHIFTED, records=records, noise=noise)
        corrected, measured = (
            mean([getattr(one, name) for one in compared.pairs]) for name in ("corrected", "measured")
        )
        assert 0.1 < corrected < SHIFT_OF_PAIRS < measured
        score = comparison_scores(compared)[1]
        assert score.interval is not None
        assert score.interval[0] < SHIFT_OF_PAIRS < score.interval[1]


def test_without_noise_nothing_is_corrected() -> None:
    difference = np.array([0.3, -0.2, -0.1, 0.0])
    assert corrected_distance(difference, np.zeros(4)) == pytest.approx(0.3)


@pytest.mark.parametrize(("shift", "share"), [(0.0, 0.0), (1.0, 0.5452), (2.0, 0.8617), (3.0, 0.9722), (8.0, 1.0)])
def test_the_correction_has_the_mean_that_it_claims(shift: float, share: float) -> None:
    """By numerical integration over the noise of one cell: of its distance, half a cell's difference."""
    grid = np.linspace(-12, 12, 20_001)
    density = np.exp(-np.square(grid) / 2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    values = [corrected_distance(np.array([shift + z]), np.ones(1)) for z in grid]
    expected = 2 * float(np.dot(values, density))
    assert expected == pytest.approx(share * shift, abs=1e-3)
    assert expected <= shift + 1e-6


def test_scores_are_means_with_an_interval_and_a_verdict_where_one_can_be_given() -> None:
    one, _ = comparison_scores(compare(FLAT, records=20_000, noise=5.0))
    assert one.verdict == "good"
    assert one.value is not None
    assert one.interval is not None
    assert 0 <= one.interval[0] <= one.value <= one.interval[1] < 0.02
    far, _ = comparison_scores(compare(SHIFTED, records=5000, noise=5.0))
    assert far.verdict == "do not use"
    assert far.interval is not None
    assert far.interval[0] < SHIFT < far.interval[1]


def test_where_noise_rules_there_is_no_verdict_and_below_that_nothing_at_all() -> None:
    loud = comparison_scores(compare(FLAT, records=400, noise=30.0))
    assert {score.verdict for score in loud} == {"info"}
    assert all("between 'good' and 'do not use'" in score.reading for score in loud)
    compared = compare(FLAT, records=5, noise=80.0)
    assert compared.columns == compared.pairs == ()
    assert all(score.value is None for score in comparison_scores(compared))


def test_the_number_of_patients_is_estimated_from_all_tables() -> None:
    frame = frame_of(FLAT, rows=500, seed=5)
    totals = [tables_of(frame, noise=20.0, seed=seed).total for seed in range(300)]
    expected = tables_of(frame, noise=20.0, seed=0).total_noise
    # The standard deviation of 300 draws is within a fifth of the true one but for once in a million.
    assert float(np.std(totals)) == pytest.approx(expected, rel=0.2)
    assert mean(totals) == pytest.approx(500, abs=5 * expected / math.sqrt(300))
    assert tables_of(frame, noise=0.0, seed=0).total == pytest.approx(500)


def test_tables_survive_their_journey_through_a_file() -> None:
    tables = tables_of(frame_of(FLAT, rows=300, seed=5), noise=3.0, seed=6)
    again = EvaluationTables.from_json(tables.to_json())
    assert again.pairs.design == DESIGN
    assert (again.bins, again.noise, again.total) == (tables.bins, tables.noise, tables.total)
    assert all((again.columns[name] == tables.columns[name]).all() for name in NAMES)
    assert all((one == two).all() for one, two in zip(again.pairs.counts, tables.pairs.counts, strict=True))


def test_the_card_says_whom_the_tables_are_of() -> None:
    held = compare(FLAT, records=5000, noise=5.0)
    everybody = Comparison(False, held.records, held.columns, held.pairs)
    assert "patients held out" in card_of_released((), comparison=held).compared_with
    assert "all patients" in card_of_released((), comparison=everybody).compared_with
    assert any("overfitting" in note for note in card_of_released((), comparison=everybody).notes)
    assert not any("Single columns only" in note for note in card_of_released((), comparison=held).notes)
    assert any("Single columns only" in note for note in card_of_released(()).notes)


def test_a_table_without_rows_is_refused() -> None:
    tables = tables_of(frame_of(FLAT, rows=300, seed=5), noise=3.0, seed=6)
    with pytest.raises(DataError):
        compare_evaluation(synthetic=frame_of(FLAT, rows=0, seed=0), tables=tables, schema=SCHEMA, is_holdout=True)
