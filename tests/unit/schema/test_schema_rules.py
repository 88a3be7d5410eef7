import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter, ValidationError

from aevorium.errors import SchemaError
from aevorium.schema.expression import parse_expression
from aevorium.schema.ranges import range_of
from aevorium.schema.rules import Rule, derive
from aevorium.schema.table import TableSchema, load_schema

MEASURED = {
    "Height": {"kind": "continuous", "min": 1, "max": 2},
    "Weight": {"kind": "continuous", "min": 0, "max": 200, "missing": True},
    "Visits": {"kind": "continuous", "min": -5, "max": 50, "integer": True},
    "Sex": {"kind": "categorical", "categories": ["F", "M"], "missing": True},
}


def rule(**entries):
    return TypeAdapter(Rule).validate_python(entries)


def schema(derived, rule_entries, *, name="Derived"):
    columns = {**MEASURED, name: {**derived, "derived": "r"}}
    return TableSchema.model_validate({"name": "t", "columns": columns, "rules": {"r": rule_entries}})


def risk_level(row):
    """The bundled rule, written out by hand from its description."""
    total = 0
    for column, high, low in [
        ("EncounterCount", 50, 20),
        ("MedicationCount", 20, 10),
        ("ConditionCount", 10, 5),
        ("TotalCost", 50_000, 10_000),
    ]:
        total += 2 if row[column] > high else 1 if row[column] > low else 0
    return "High" if total >= 5 else "Medium" if total >= 2 else "Low"


def test_the_bundled_risk_level_is_the_one_described():
    columns = ["EncounterCount", "MedicationCount", "ConditionCount", "TotalCost"]
    edges = [[0, 20, 21, 50, 51], [0, 10, 11, 20, 21], [0, 5, 6, 10, 11], [0, 10_000, 10_000.5, 50_000, 50_000.5]]
    grid = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 4).astype(float)
    frame = pd.DataFrame(grid, columns=columns)
    expected = [risk_level(row) for _, row in frame.iterrows()]
    assert set(expected) == {"Low", "Medium", "High"}
    assert load_schema("synthea").rules["risk_level"].apply(frame).tolist() == expected


def test_a_missing_value_scores_nothing_and_negative_points_count():
    scores = rule(
        kind="score",
        levels={"up": 1, "even": 0, "down": -2},
        points={"Weight": [[100, 3], [50, -2]], "Visits": [[0, 1]]},
    )
    frame = pd.DataFrame({"Weight": [np.nan, 50, 51, 101, np.nan], "Visits": [0, 0, 0, 1, 1]})
    assert scores.apply(frame).tolist() == ["even", "even", "down", "up", "up"]


def test_the_first_case_that_is_certain_wins():
    cases = rule(
        kind="cases",
        cases=[{"when": "Weight > 100", "then": "a"}, {"when": "Weight > 50 or Sex == 'F'", "then": "b"}],
        otherwise="c",
    )
    frame = pd.DataFrame({"Weight": [150, 70, 20, np.nan, np.nan], "Sex": ["F", "M", "M", "F", "M"]})
    assert cases.apply(frame).tolist() == ["a", "b", "c", "b", "c"]
    assert cases.columns == {"Weight", "Sex"}


def test_derived_columns_take_their_place_their_type_and_their_bounds():
    columns = {
        "Double": {"kind": "continuous", "min": 0, "max": 60, "integer": True, "derived": "double"},
        **MEASURED,
        "Kind": {"kind": "categorical", "categories": ["few", "many"], "derived": "kind"},
    }
    rules = {
        "double": {"kind": "value", "value": "2.3 * Visits"},
        "kind": {"kind": "cases", "cases": [{"when": "Visits > 3", "then": "many"}], "otherwise": "few"},
    }
    table = TableSchema.model_validate({"name": "t", "columns": columns, "rules": rules})
    frame = pd.DataFrame(
        {
            "Height": [1.5] * 3,
            "Weight": [np.nan] * 3,
            "Visits": [-1.0, 2.0, 50.0],
            "Sex": pd.Categorical(["F", "M", None], categories=["F", "M"]),
            "Kind": ["stale"] * 3,
        },
        index=[7, 8, 9],
    )
    result = derive(frame, table)
    assert list(result.columns) == ["Double", "Height", "Weight", "Visits", "Sex", "Kind"]
    assert result["Double"].tolist() == [0.0, 5.0, 60.0]
    assert result["Double"].dtype == np.float64
    assert result["Kind"].tolist() == ["few", "few", "many"]
    assert result["Kind"].dtype == pd.CategoricalDtype(["few", "many"])
    assert result.index.tolist() == [7, 8, 9]
    assert frame["Kind"].tolist() == ["stale"] * 3


@pytest.mark.parametrize(
    "entries",
    [
        {"kind": "score", "levels": {}, "points": {"Visits": [[1, 1]]}},
        {"kind": "score", "levels": {"a": 0}, "points": {}},
        {"kind": "score", "levels": {"a": 0, "b": 0}, "points": {"Visits": [[1, 1]]}},
        {"kind": "score", "levels": {"a": 0}, "points": {"Visits": []}},
        {"kind": "score", "levels": {"a": 0}, "points": {"Visits": [[1, 1], [1, 2]]}},
        {"kind": "score", "levels": {"a": 0}, "points": {"Visits": [[1, float("inf")]]}},
        {"kind": "score", "levels": {"a": float("nan")}, "points": {"Visits": [[1, 1]]}},
        {"kind": "cases", "cases": [], "otherwise": "a"},
        {"kind": "cases", "cases": [{"when": "Visits > 1", "then": "a"}]},
        {"kind": "cases", "cases": [{"when": "Visits + 1", "then": "a"}], "otherwise": "a"},
        {"kind": "value", "value": "Visits > 1"},
        {"kind": "value", "value": "Visits", "points": {}},
        {"kind": "python", "value": "Visits"},
    ],
)
def test_a_rule_that_means_nothing_is_refused(entries):
    with pytest.raises(ValidationError):
        rule(**entries)


CATEGORY = {"kind": "categorical", "categories": ["a", "b"]}
NUMBER = {"kind": "continuous", "min": 0, "max": 10}


@pytest.mark.parametrize(
    ("derived", "entries", "reason"),
    [
        (CATEGORY, {"kind": "score", "levels": {"c": 0}, "points": {"Visits": [[1, 1]]}}, "'c' is not a category"),
        (CATEGORY, {"kind": "score", "levels": {"a": 1}, "points": {"Visits": [[1, 1]]}}, "empty for some rows"),
        (CATEGORY, {"kind": "score", "levels": {"a": 0}, "points": {"Visits": [[1, -1]]}}, "smallest total is -1"),
        (CATEGORY, {"kind": "score", "levels": {"a": 0}, "points": {"Sex": [[1, 1]]}}, "'Sex' is categorical"),
        (CATEGORY, {"kind": "value", "value": "Visits"}, "computes numbers"),
        (CATEGORY, {"kind": "cases", "cases": [{"when": "Visits > 1", "then": "a"}], "otherwise": "c"}, "'c' is not"),
        (CATEGORY, {"kind": "cases", "cases": [{"when": "Visits > 1", "then": "c"}], "otherwise": "a"}, "'c' is not"),
        (NUMBER, {"kind": "cases", "cases": [{"when": "Visits > 1", "then": "a"}], "otherwise": "a"}, "is continuous"),
        (NUMBER, {"kind": "value", "value": "Weight"}, "missing = true"),
        (NUMBER, {"kind": "value", "value": "1 / Visits"}, "divisor zero"),
        (NUMBER, {"kind": "value", "value": "Derived + 1"}, "'Derived' is derived itself"),
        (NUMBER, {"kind": "value", "value": "visits"}, r"'visits' is not a column \(did you mean 'Visits'"),
    ],
)
def test_a_rule_that_cannot_fill_its_column_is_refused(derived, entries, reason):
    with pytest.raises(ValidationError, match=reason):
        schema(derived, entries)


def test_an_input_of_the_wrong_kind_is_refused():
    with pytest.raises(SchemaError, match="arithmetic needs numbers"):
        schema(NUMBER, {"kind": "value", "value": "Sex + 1"})
    with pytest.raises(SchemaError, match="'X' is no category"):
        schema(CATEGORY, {"kind": "cases", "cases": [{"when": "Sex == 'X'", "then": "a"}], "otherwise": "a"})


def test_a_value_that_may_be_missing_is_allowed_where_declared():
    table = schema({**NUMBER, "missing": True}, {"kind": "value", "value": "Weight / Visits"})
    frame = pd.DataFrame({"Height": [1.0] * 3, "Weight": [np.nan, 5, 5], "Visits": [1, 0, 2], "Sex": [None] * 3})
    np.testing.assert_array_equal(derive(frame, table)["Derived"], [np.nan, np.nan, 2.5])


@pytest.mark.parametrize(
    ("text", "low", "high", "may_miss"),
    [
        ("3", 3, 3, False),
        ("Height", 1, 2, False),
        ("-Visits", -50, 5, False),
        ("Height - Visits", -49, 7, False),
        ("Height * Visits", -10, 100, False),
        ("Visits * Visits", -250, 2500, False),
        ("Visits / Height", -5, 50, False),
        ("1 / -Height", -1, -0.5, False),
        ("Weight / Height", 0, 200, True),
        ("1 / Visits", -np.inf, np.inf, True),
        ("1e200 * 1e200", -np.inf, np.inf, True),
    ],
)
def test_ranges_follow_from_the_bounds(text, low, high, may_miss):
    columns = TableSchema.model_validate({"name": "t", "columns": MEASURED}).columns
    found = range_of(parse_expression(text).term, columns)
    assert (found.low, found.high, found.may_miss) == (low, high, may_miss)
