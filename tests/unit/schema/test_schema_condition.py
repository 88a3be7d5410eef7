"""Conditions on generated rows: what is refused before anything is generated, and that nothing possible is."""

import itertools

import numpy as np
import pandas as pd
import pytest

from aevorium.errors import SchemaError, UserError
from aevorium.schema.condition import Condition, parse_condition
from aevorium.schema.expression import MAX_LENGTH, parse_expression
from aevorium.schema.table import TableSchema

SCHEMA = TableSchema.model_validate(
    {
        "name": "t",
        "columns": {
            "Age": {"kind": "continuous", "min": 18, "max": 90, "integer": True},
            "Cost": {"kind": "continuous", "min": 0, "max": 1000},
            "Glucose": {"kind": "continuous", "min": 50, "max": 400, "missing": True},
            "Fixed": {"kind": "continuous", "min": 7, "max": 7, "integer": True},
            "Ill": {"kind": "categorical", "categories": ["no", "flu", "it's"]},
            "Stage": {"kind": "categorical", "categories": ["1", "2"], "missing": True},
            "Half": {"kind": "continuous", "min": 0, "max": 500, "derived": "half"},
            "Risk": {"kind": "categorical", "categories": ["low", "high"], "derived": "risk"},
        },
        "rules": {
            "half": {"kind": "value", "value": "Cost / 2"},
            "risk": {"kind": "cases", "cases": [{"when": "Age > 60", "then": "high"}], "otherwise": "low"},
        },
    }
)


@pytest.mark.parametrize(
    ("text", "at", "reason"),
    [
        ("Age > 90", 5, "'Age' is a whole number from 18 to 90, and never missing"),
        ("Age >= 18 and Cost < 0", 20, "'Cost' is a number from 0 to 1000, and never missing"),
        ("Ill == 'flu' or Age < 18", 21, "'Age' is a whole number from 18 to 90"),
        ("not Age <= 90", 9, "'Age <= 90' is false of no possible row"),
        ("Age == 40.5", 5, "whole number"),
        ("Age > 40 and Age < 41", 5, "'Age > 40' and 'Age < 41' are true together of no possible row"),
        ("Age > 70 and (Cost > 3 and Ill == 'flu') and Age < 30", 5, "true together"),
        ("Age in [50, 200]", 13, "'Age == 200' is true of no possible row: 'Age' is a whole number from 18 to 90"),
        ("Cost == 0.12345678912", 6, "'Cost' is a number from 0 to 1000"),
        ("Glucose > 400", 9, "'Glucose' is a number from 50 to 400, or missing"),
        ("Glucose is missing and Glucose > 60", 9, "true together"),
        ("Age is missing", 5, "never missing"),
        ("Ill is missing", 5, "'Ill' is 'no', 'flu', \"it's\", and never missing"),
        ("Ill == 'no' and Ill == 'flu'", 5, "true together"),
        ("Stage not in ('1', '2')", 7, "'Stage' is '1', '2', or missing"),
        ("not (Stage == '1' or Stage == '2' or Stage is missing)", 12, "false together"),
        ("Fixed != 7", 7, "from 7 to 7"),
        ("Half > 500", 6, "'Half' is a number from 0 to 500"),
        ("Risk == 'low' and Risk == 'high'", 6, "true together"),
        ("Age + Cost > 1091", 12, "'Age' is a whole number from 18 to 90, and never missing; 'Cost' is"),
        ("2 * Age == Cost + 5000", 9, "of no possible row"),
        ("not Age * 2 >= 35", 13, "false of no possible row"),
        ("1 == 2", 3, "'1 == 2' is true of no possible row"),
        ("Age > 1 / 0", 5, "of no possible row"),
        ("Age + 3", 5, "a number, not a condition"),
        ("Ill == 'cold'", 8, "'cold' is no category of 'Ill'; it has 'no', 'flu'"),
        ("age > 40", 1, "there is no column 'age' (did you mean 'Age'?)"),
        ("Weight > 40", 1, "there is no column 'Weight'; there are 'Age', 'Cost'"),
        ("Ill > 3", 5, "text is compared"),
        ("Age == 'old'", 5, "a number is compared with text"),
        ("__import__('os').system('true')", 11, "not expected"),
    ],
)
def test_what_no_row_can_meet_is_refused_with_the_reason(text: str, at: int, reason: str) -> None:
    with pytest.raises(SchemaError) as caught:
        parse_condition(text, SCHEMA)
    assert caught.value.code == "EXPRESSION_INVALID"
    assert f"At character {at}: " in caught.value.message
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "Age == 90 and Age >= 90",
        "Age > 40 and Age < 42",
        "Cost > 999.9999",
        "Cost > 5 and Cost < 5.00002",
        "Age > 200 implies Ill == 'no'",
        "not Age > 200",
        "Age != 40.5",
        "Glucose is missing or Glucose > 399",
        "Stage is missing and Ill != 'no'",
        "Age + Cost == 1090",
        "Age * 2 >= 180",
        "Age / Cost > 1e6",
        'Ill == "it\'s"',
        "Age - Age == 0",
        "1 == 1",
        "-5 < Age",
        "Half > 499 and Risk == 'high'",
    ],
)
def test_what_a_row_can_meet_is_let_through(text: str) -> None:
    assert parse_condition(text, SCHEMA).text == text


def test_exactly_the_impossible_is_refused() -> None:
    """Pairs of comparisons on one column, joined and turned, against the truth on every value that it can have."""
    ages = np.arange(18, 91)
    compared = {
        "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal
    }  # fmt: skip
    simple = {
        f"Age {sign} {number}": compare(ages, number) for sign, compare in compared.items() for number in (18, 18.5, 91)
    }
    for (first, one), (second, two) in itertools.combinations_with_replacement(simple.items(), 2):
        for text, parts in (
            (f"{first} and {second}", (one, two)),
            (f"not ({first} or {second})", (~one, ~two)),
            (f"{first} and not {second}", (one, ~two)),
        ):
            is_possible = bool((parts[0] & parts[1]).any())
            assert _is_let_through(text) is is_possible, text


def _is_let_through(text: str) -> bool:
    try:
        parse_condition(text, SCHEMA)
    except SchemaError:
        return False
    return True


REACH = {"Age": (30.0, 60.0), "Cost": (0.0, 12.5), "Glucose": (50.0, 180.0)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Age > 60", "'Age > 60' is true of no possible row: 'Age' is a whole number from 30 to 60"),
        ("Ill == 'flu' and Cost > 13", "'Cost' is a number from 0 to 12.5"),
        ("Age > 70 or Cost > 200", "'Age > 70' is true of no possible row"),
        ("Age in (20, 61, 90)", "of no possible row"),
        ("not (Age <= 60 or Ill == 'no')", "'Age <= 60' is false of no possible row"),
        ("Age + Cost > 80", "'Age' is a whole number from 30 to 60"),
        ("Ill == 'no' and (Cost > 20 or Glucose > 200)", "'Cost > 20' is true of no possible row"),
    ],
)
def test_what_no_row_within_reach_can_meet_is_refused(text: str, reason: str) -> None:
    condition = _allowing(text)
    with pytest.raises(UserError) as caught:
        condition.require_within(REACH, SCHEMA)
    assert (caught.value.code, reason in caught.value.message) == ("CONDITION_UNSATISFIABLE", True), (
        caught.value.message
    )
    condition.require_within({}, SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "Age > 59",
        "Age > 70 or Ill == 'flu'",
        "Age in (20, 40)",
        "not (Age > 60 and Cost > 5)",
        "Glucose is missing or Glucose > 300",
        "Half > 400",
        "Age + Cost > 72",
        "not Age in (20, 40)",
    ],
)
def test_one_alternative_within_reach_is_enough(text: str) -> None:
    parse_condition(text, SCHEMA).require_within(REACH, SCHEMA)


def _allowing(text: str) -> Condition:
    """The condition without the check of the schema, which would refuse some for what rows of any run can hold."""
    expression = parse_expression(text)
    expression.check(SCHEMA.columns)
    return Condition(expression, (expression,))


def test_parts_are_what_and_joins_wherever_it_stands() -> None:
    condition = parse_condition("Age > 20 and (Ill == 'no' and not Cost > 3) and (Stage == '1' or Age < 50)", SCHEMA)
    texts = [part.text for part in condition.parts]
    assert texts == ["Age > 20", "Ill == 'no'", "not (Cost > 3)", "(Stage == '1') or (Age < 50)"]


def test_a_part_is_met_only_where_it_is_definitely_true() -> None:
    frame = pd.DataFrame({"Glucose": [60.0, np.nan, 300.0], "Age": [30.0, 30.0, 80.0]})
    met = parse_condition("Glucose < 200 and not Glucose < 55 and Age < 50", SCHEMA).met(frame)
    assert met.tolist() == [[True, True, True], [False, False, True], [False, True, False]]


def test_the_categories_that_a_condition_leaves() -> None:
    condition = parse_condition("Ill != 'flu' and Age > 50 and (Stage == '1' or Ill == 'no')", SCHEMA)
    ill, stage = SCHEMA.columns["Ill"], SCHEMA.columns["Stage"]
    assert condition.categories("Ill", ill) == ("no", "it's")
    assert condition.categories("Stage", stage) == ("1", "2")


@pytest.mark.parametrize(
    "text",
    [
        "Age in [" + ", ".join(["95"] * 1500) + "]",
        " and ".join(["Age > 95"] * 800),
        " and ".join(f"Cost != {number}" for number in range(400)) + " and Cost == 3",
        "Age > 1 or " * MAX_LENGTH,
        "not " * 3000 + "Age > 3",
    ],
)
def test_a_hostile_condition_is_refused_shortly(text: str) -> None:
    with pytest.raises(SchemaError) as caught:
        parse_condition(text, SCHEMA)
    assert len(caught.value.message) < 2000
