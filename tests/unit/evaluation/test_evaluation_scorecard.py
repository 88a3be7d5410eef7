"""The card: what is compared with what, verdicts, marks, and that it finds what was planted."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from evaluation_tables import SCHEMA, make_table, shuffle_column

from aevorium.errors import DataError
from aevorium.evaluation.score import DEFINITIONS, Score, format_value
from aevorium.evaluation.scorecard import CARD_COLUMNS, EXACT_MARKING, evaluate_tables, score_tables
from aevorium.schema.table import TableSchema

NAMES = ["shapes", "trends", "trends_all", "1way", "2way", "3way", "missing_rate_error", "missing_by_target"]
NAMES += ["tstr", "trtr", "c2st", "dcr_share", "nndr", "exact_matches"]


@pytest.fixture(scope="module")
def fresh():
    """A synthetic table as good as it can be: new rows of the same distribution."""
    tables = {"synthetic": make_table(600, seed=1), "real": make_table(600, seed=2), "holdout": make_table(600, seed=3)}
    return evaluate_tables(**tables, schema=SCHEMA, seed=0)


@pytest.fixture(scope="module")
def copied():
    """Half of the synthetic rows are training rows."""
    real = make_table(600, seed=2)
    synthetic = pd.concat([real.iloc[:300], make_table(300, seed=1)], ignore_index=True)
    return score_tables(synthetic=synthetic, real=real, holdout=make_table(600, seed=3), schema=SCHEMA)


def test_every_score_is_there_with_direction_thresholds_and_reading(fresh):
    assert [score.name for score in fresh.card.scores] == NAMES
    for score in fresh.card.scores:
        assert score.reading.endswith((".", "do."))
        assert score.direction in {"higher is better", "lower is better"}
        assert score.thresholds


def test_fresh_rows_of_the_same_distribution_are_good(fresh):
    verdicts = {score.name: score.verdict for score in fresh.card.scores}
    assert {verdicts[name] for name in ("shapes", "1way", "2way", "3way", "tstr", "c2st")} == {"good"}
    assert verdicts["exact_matches"] == "info"
    assert verdicts["dcr_share"] == "info"
    assert fresh.card.notes == ()
    assert fresh.card.marking == EXACT_MARKING


def test_the_reference_is_training_rows_against_the_holdout(fresh):
    again = score_tables(
        synthetic=make_table(600, seed=2), real=make_table(600, seed=2), holdout=make_table(600, seed=3), schema=SCHEMA
    )
    for name in ("shapes", "1way", "2way", "3way", "missing_rate_error"):
        assert again[name].value == again[name].reference
        assert fresh.card[name].reference == again[name].reference


def test_copied_training_rows_raise_the_alarm(copied):
    assert copied["dcr_share"].verdict == "do not use"
    assert copied["dcr_share"].value > 0.6
    assert copied["exact_matches"].value == 0.5
    assert copied["exact_matches"].verdict == "do not use"


def test_a_shuffled_target_is_worth_no_more_than_a_coin():
    real = make_table(800, seed=2)
    card = score_tables(
        synthetic=shuffle_column(real, "Outcome", seed=1), real=real, holdout=make_table(800, seed=3), schema=SCHEMA
    )
    # the AUC of a useless score among 800 rows has a standard error of .02: 5 of them alarm once in 2 million runs
    assert card["tstr"].value == pytest.approx(0.5, abs=0.1)
    assert card["tstr"].verdict == "do not use"
    assert card["trtr"].value > 0.85
    assert card["trtr"].interval[0] < card["trtr"].value < card["trtr"].interval[1]


def test_two_halves_of_one_distribution_are_not_told_apart(fresh):
    # three folds of 400 rows: standard error .017 pooled, so that .07 is exceeded once in 25 thousand seeds
    assert fresh.card["c2st"].value == pytest.approx(0.5, abs=0.07)


def test_a_shifted_column_is_found():
    real = make_table(600, seed=2)
    synthetic = make_table(600, seed=1)
    synthetic["Age"] = synthetic["Age"] * 0.5
    card = score_tables(synthetic=synthetic, real=real, holdout=make_table(600, seed=3), schema=SCHEMA)
    assert "'Age'" in card["shapes"].reading
    assert card["shapes"].verdict == "do not use"
    assert card["c2st"].verdict == "usable"
    assert card["c2st"].value > 0.7


def test_missing_cells_that_are_gone_are_found():
    real = make_table(600, seed=2)
    synthetic = make_table(600, seed=1)
    synthetic["Dose"] = synthetic["Dose"].fillna(0.0)
    card = score_tables(synthetic=synthetic, real=real, holdout=make_table(600, seed=3), schema=SCHEMA)
    rate = make_table(600, seed=3)["Dose"].isna().mean()
    assert card["missing_rate_error"].value == pytest.approx(rate)
    assert card["missing_rate_error"].verdict == "do not use"


def test_shapes_and_trends_are_those_of_filled_and_flagged_tables():
    schema = TableSchema.from_toml(
        """
        name = "one number that may miss"
        [columns.Dose]
        kind = "continuous"
        min = 0
        max = 10
        missing = true
        [columns.Outcome]
        kind = "categorical"
        categories = ["well", "ill"]
        """,
        source="test",
    )
    outcome = pd.Categorical(["well", "well", "well", "ill"], categories=["well", "ill"])
    real = pd.DataFrame({"Dose": [1.0, 2.0, 3.0, np.nan], "Outcome": outcome})
    synthetic = pd.DataFrame({"Dose": [1.0, 2.0, 3.0, 2.0], "Outcome": outcome})
    card = score_tables(synthetic=synthetic, real=real, holdout=real.copy(), schema=schema)
    # Filled by the median, 2, the numbers are equal: what differs is the flag, and both of its pairs, in one row of 4.
    assert card["shapes"].value == pytest.approx((1 + 1 + 0.75) / 3)
    assert card["trends"].value == card["trends_all"].value == pytest.approx((1 + 0.75 + 0.75) / 3)
    assert "3 pairs" in card["trends"].reading
    assert "'Dose (missing?)'" in card["shapes"].reading


def test_without_a_holdout_the_card_says_so_and_closeness_is_not_judged():
    real = make_table(300, seed=2)
    card = score_tables(synthetic=real.copy(), real=real, schema=SCHEMA)
    assert "no holdout" in card.notes[0]
    assert "no holdout" in card.compared_with
    assert card["1way"].value == 0
    assert card["1way"].reference > 0
    assert card["dcr_share"].value is None
    assert card["exact_matches"].value == 1
    assert card["exact_matches"].verdict == "info"
    # train and test rows of the split are disjoint: nothing can be learnt by heart
    assert card["trtr"].value < 0.99


def test_a_seed_fixes_the_card_and_row_order_leaves_fidelity_alone():
    tables = {"synthetic": make_table(80, seed=1), "real": make_table(80, seed=2)}
    first = score_tables(**tables, schema=SCHEMA, seed=7)
    assert first == score_tables(**tables, schema=SCHEMA, seed=7)
    turned = score_tables(synthetic=tables["synthetic"].iloc[::-1], real=tables["real"], schema=SCHEMA, seed=7)
    for name in ("shapes", "1way", "2way", "3way"):
        assert turned[name].value == pytest.approx(first[name].value)


def test_the_card_is_plain_json_and_text(fresh):
    content = json.loads(json.dumps(fresh.card.to_json(), allow_nan=False))
    assert [score["name"] for score in content["scores"]] == NAMES
    assert content["marking"] == EXACT_MARKING
    assert not any("privacy" in score["name"] for score in content["scores"])
    assert all(len(row) == len(CARD_COLUMNS) for row in fresh.card.rows())
    with pytest.raises(KeyError):
        fresh.card["privacy"]


def test_steps_are_told_as_they_begin():
    steps = []
    score_tables(synthetic=make_table(40, seed=1), real=make_table(40, seed=2), schema=SCHEMA, progress=steps.append)
    assert "models of the target" in steps


@pytest.mark.parametrize("name", ["real", "synthetic", "holdout"])
def test_a_table_that_lacks_a_column_or_rows_is_named(name):
    tables = {"synthetic": make_table(40, seed=1), "real": make_table(40, seed=2), "holdout": make_table(40, seed=3)}
    with pytest.raises(DataError, match=rf"The {name} table lacks columns.*'Ward'"):
        score_tables(**{**tables, name: tables[name].drop(columns="Ward")}, schema=SCHEMA)
    with pytest.raises(DataError, match=rf"The {name} table cannot be scored"):
        score_tables(**{**tables, name: tables[name].iloc[:0]}, schema=SCHEMA)


def degenerate(kind):
    real, synthetic = make_table(60, seed=2), make_table(60, seed=1)
    for table in (real, synthetic):
        if kind == "all missing":
            table["Dose"] = np.nan
            table["Ward"] = table["Ward"].where(table["Ward"].isna())
        elif kind == "missing in one":
            if table is synthetic:
                table["Dose"] = np.nan
        elif kind == "constant":
            table["Age"] = 5.0
            table["Ward"] = pd.Categorical(["north"] * len(table), categories=["north", "south", "west"])
        elif kind == "single class":
            table["Outcome"] = pd.Categorical(["ill"] * len(table), categories=["well", "ill"])
        elif kind == "no target value":
            table["Outcome"] = table["Outcome"].where(table["Outcome"].isna())
    return synthetic, real


@pytest.mark.parametrize("has_holdout", [True, False])
@pytest.mark.parametrize("kind", ["all missing", "missing in one", "constant", "single class", "no target value"])
def test_degenerate_columns_are_scored_or_skipped_with_a_reason(kind, has_holdout):
    synthetic, real = degenerate(kind)
    _, holdout = degenerate(kind)
    card = score_tables(synthetic=synthetic, real=real, holdout=holdout if has_holdout else None, schema=SCHEMA)
    json.dumps(card.to_json(), allow_nan=False)
    for score in card.scores:
        assert score.value is not None or score.reading.startswith("Skipped. ")
    if kind in ("single class", "no target value"):
        assert card["tstr"].value is None


def schema_of(text):
    return TableSchema.from_toml(f'name = "small"\n{text}', source="test")


def test_a_table_of_two_columns_and_no_target_is_scored():
    schema = schema_of(
        '[columns.x]\nkind = "continuous"\nmin = 0\nmax = 1\n[columns.k]\nkind = "categorical"\ncategories = ["a", "b"]'
    )
    rng = np.random.default_rng(0)

    def table():
        codes = rng.integers(2, size=50)
        return pd.DataFrame({"x": rng.random(50), "k": pd.Categorical.from_codes(codes, categories=["a", "b"])})

    card = score_tables(synthetic=table(), real=table(), holdout=table(), schema=schema)
    assert card["2way"].value is not None
    assert card["3way"].value is None
    assert card["tstr"].value is None
    assert "target" in card["tstr"].reading


def test_a_continuous_target_is_judged_by_r_squared():
    schema = schema_of("".join(f'[columns.{name}]\nkind = "continuous"\nmin = -9\nmax = 9\n' for name in "xy"))
    schema = schema.model_copy(update={"target": "y"})

    def table(seed):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=300)
        return pd.DataFrame({"x": x, "y": x + 0.3 * rng.normal(size=300)})

    card = score_tables(synthetic=table(1), real=table(2), holdout=table(3), schema=schema)
    assert card["tstr"].reading.startswith("R2")
    assert card["tstr"].value > 0.75


def test_a_column_derived_from_the_target_is_no_feature():
    schema = schema_of(
        'target = "y"\n[columns.x]\nkind = "continuous"\nmin = 0\nmax = 1\n'
        '[columns.y]\nkind = "categorical"\ncategories = ["a", "b"]\n'
        '[columns.z]\nkind = "categorical"\ncategories = ["p", "q"]\nderived = "copy"\n'
        '[rules.copy]\nkind = "cases"\ncases = [{ when = "y == \'a\'", then = "p" }]\notherwise = "q"'
    )

    def table(seed):
        rng = np.random.default_rng(seed)
        codes = rng.integers(2, size=300)
        return pd.DataFrame(
            {
                "x": rng.random(300),
                "y": pd.Categorical.from_codes(codes, categories=["a", "b"]),
                "z": pd.Categorical.from_codes(codes, categories=["p", "q"]),
            }
        )

    card = score_tables(synthetic=table(1), real=table(2), holdout=table(3), schema=schema)
    assert card["trtr"].value < 0.75


def test_verdicts_follow_the_printed_thresholds():
    shapes, distance = DEFINITIONS["shapes"], DEFINITIONS["2way"]
    assert [shapes.judge(value, 0.97) for value in (0.99, 0.95, 0.94, 0.92, 0.9)] == [
        "good",
        "good",
        "usable",
        "usable",
        "do not use",
    ]
    assert [distance.judge(value, 0.1) for value in (0.0, 0.13, 0.2, 0.201)] == [
        "good",
        "good",
        "usable",
        "do not use",
    ]
    assert shapes.judge(0.5, None) == "info"
    assert "0.02" in shapes.thresholds
    score = Score.judged("shapes", 0.5, reading="A.", reference=math.nan, reference_name="nothing")
    assert (score.verdict, score.reference, score.reference_name) == ("info", None, "")


def test_values_are_shown_with_three_decimals():
    assert [format_value(value) for value in (0.12345, 1, None, math.nan)] == ["0.123", "1.000", "–", "–"]
