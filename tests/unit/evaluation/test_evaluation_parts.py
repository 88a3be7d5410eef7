"""Overlays, closeness and models by themselves."""

import numpy as np
import pandas as pd
import pytest
from evaluation_tables import SCHEMA, make_table, shuffle_column

from aevorium.evaluation.completion import complete
from aevorium.evaluation.fidelity import missing_by_target, missing_rates
from aevorium.evaluation.marginals import Axis, MarginalTable, format_number, merge_tables
from aevorium.evaluation.overlays import overlay_frames
from aevorium.evaluation.risk import closest_records, exact_matches, neighbour_ratio
from aevorium.evaluation.utility import detect_synthetic, train_and_test


def rng(seed=0):
    return np.random.default_rng(seed)


def test_overlays_have_a_bar_for_missing_cells_and_hold_every_row():
    table, other = make_table(500, seed=1), make_table(300, seed=2)
    overlays = {overlay.column: overlay for overlay in overlay_frames(table, other)}
    assert list(overlays) == list(SCHEMA.columns)
    assert [name for name, overlay in overlays.items() if overlay.has_missing] == ["Dose"]
    assert overlays["Dose"].labels[-1] == "missing"
    assert overlays["Dose"].reference[-1] == pytest.approx(table["Dose"].isna().mean())
    assert overlays["Dose"].synthetic[-1] == pytest.approx(other["Dose"].isna().mean())
    for overlay in overlays.values():
        assert len(overlay.labels) == len(overlay.reference) == len(overlay.synthetic) <= 33
        assert sum(overlay.reference) == pytest.approx(1)
        assert sum(overlay.synthetic) == pytest.approx(1)


def test_whole_numbers_are_labelled_as_whole_numbers():
    visits = pd.DataFrame({"Visits": pd.Series([0, 0, 1, 2, 2, 3, 4], dtype="float64")})
    (overlay,) = overlay_frames(visits, visits)
    assert overlay.labels == ("0", "1", "2", "3", "4")
    assert overlay.reference == pytest.approx((2 / 7, 1 / 7, 2 / 7, 1 / 7, 1 / 7))


def test_an_empty_column_has_an_overlay():
    empty = pd.DataFrame({"x": pd.Series([np.nan] * 3)})
    (overlay,) = overlay_frames(empty, empty)
    assert overlay.labels[-1] == "missing"
    assert overlay.reference[-1] == 1


def test_numbers_on_axes_are_short():
    assert [format_number(value) for value in (0.0, 5e-324, 0.123456, 22, 1234.5, 300000)] == [
        "0",
        "0",
        "0.1235",
        "22",
        "1,234",
        "300,000",
    ]


def test_noise_of_merged_tables_adds_up_in_variance():
    axis = Axis.from_categories("k", ["a", "b"], missing=False)
    tables = [MarginalTable(axes=(axis,), counts=np.array([1.0, 2.0]), noise_sd=sd) for sd in (3.0, 4.0)]
    merged = merge_tables(tables)
    assert merged.counts.tolist() == [2, 4]
    assert merged.noise_sd == pytest.approx(5)


def test_completed_tables_miss_nothing_and_say_what_was_missing():
    table = make_table(200, seed=1)
    table.loc[:9, "Ward"] = None
    filled, other = complete(table, make_table(50, seed=2))
    assert not filled.isna().any().any()
    assert not other.isna().any().any()
    assert (filled["Dose (missing?)"] == "yes").sum() == table["Dose"].isna().sum()
    assert (filled["Ward"] == "(missing)").sum() == 10
    assert list(filled.columns) == list(other.columns)


def test_missing_by_target_sees_what_overall_rates_do_not():
    outcome = pd.Categorical(["well"] * 100 + ["ill"] * 100, categories=["well", "ill"])
    real = pd.DataFrame({"Dose": [np.nan] * 100 + [1.0] * 100, "Outcome": outcome})
    synthetic = pd.DataFrame({"Dose": [1.0] * 100 + [np.nan] * 100, "Outcome": outcome})
    assert [rate.error for rate in missing_rates(real, synthetic)] == [0]
    assert missing_by_target(real, synthetic, target="Outcome") == 1
    assert missing_by_target(real, real, target="Outcome") == 0


@pytest.mark.parametrize("sizes", [(300, 300, 300), (200, 900, 300), (300, 100, 400)])
def test_closeness_of_fresh_rows_is_even_whatever_the_sizes(sizes):
    rows, train, holdout = sizes
    inside = 0
    for seed in range(12):
        found = closest_records(
            synthetic=make_table(rows, seed=3 * seed),
            train=make_table(train, seed=3 * seed + 1),
            holdout=make_table(holdout, seed=3 * seed + 2),
            rng=rng(seed),
        )
        inside += found.interval[0] <= 0.5 <= found.interval[1]
    # an interval of exactly 95% would hold 0.5 fewer than 9 times of 12 once in 600
    assert inside >= 9


def test_copies_with_a_little_noise_are_closer_to_training_rows():
    train, holdout = make_table(300, seed=1), make_table(300, seed=2)
    near = train.assign(Age=(train["Age"] + rng().normal(0, 0.01, 300)).clip(0, 100))
    assert exact_matches(synthetic=near, train=train).synthetic == 0
    found = closest_records(synthetic=near, train=train, holdout=holdout, rng=rng())
    assert found.share > 0.95
    assert sum(found.histogram.train) == pytest.approx(1)
    ratio = neighbour_ratio(synthetic=near, train=train, holdout=holdout, rng=rng())
    assert ratio.synthetic < 0.1 * ratio.holdout


def test_too_few_rows_for_a_statement_about_distances():
    few = make_table(10, seed=1)
    assert closest_records(synthetic=few, train=few, holdout=few, rng=rng()) is None
    assert neighbour_ratio(synthetic=few, train=few, rng=rng()) is None
    assert detect_synthetic(few, few, rng=rng()).value is None


def test_detection_finds_rows_whose_columns_do_not_belong_together():
    real = make_table(600, seed=1)
    assert detect_synthetic(make_table(600, seed=2), shuffle_column(real, "Age", seed=1), rng=rng()).value > 0.65


def test_a_class_that_training_rows_lack_counts_as_a_coin():
    test, train = make_table(200, seed=1), make_table(200, seed=2)
    train["Outcome"] = pd.Categorical(["well"] * 200, categories=["well", "ill"])
    found = train_and_test(train, test, target="Outcome", leave_out=(), rng=rng())
    assert found.value == 0.5
    assert "fewer than 2 training rows" in found.note


def test_the_only_column_cannot_be_predicted():
    table = make_table(50, seed=1)[["Outcome"]]
    assert train_and_test(table, table, target="Outcome", leave_out=(), rng=rng()).value is None
