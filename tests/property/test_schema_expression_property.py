"""Expressions against an independent evaluation, row by row in plain Python; and against any text at all."""

import math

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from aevorium.errors import SchemaError
from aevorium.schema.expression import Truth, parse_expression
from aevorium.schema.ranges import range_of
from aevorium.schema.table import TableSchema
from aevorium.schema.terms import written

SEXES = ("F", "M", "it's")
COLUMNS = TableSchema.model_validate(
    {
        "name": "t",
        "columns": {
            "Age": {"kind": "continuous", "min": -3, "max": 4, "missing": True},
            "body mass": {"kind": "continuous", "min": 0.5, "max": 9},
            "Sex": {"kind": "categorical", "categories": list(SEXES), "missing": True},
        },
    }
).columns

rows = st.lists(
    st.fixed_dictionaries(
        {
            "Age": st.none() | st.integers(-3, 4).map(float),
            "body mass": st.none() | st.sampled_from([0.5, 1.0, 2.5, 9.0]),
            "Sex": st.none() | st.sampled_from(SEXES),
        }
    ),
    min_size=1,
    max_size=8,
)

# An expression is made as a pair: its text, and a function from a row to its value (None = missing or unknown).


def _lift(function):
    def lifted(*values):
        if None in values:
            return None
        try:
            result = function(*values)
        except (ZeroDivisionError, OverflowError):
            return None
        return None if isinstance(result, float) and not math.isfinite(result) else result

    return lifted


NUMERIC = {
    "+": _lift(lambda a, b: a + b),
    "-": _lift(lambda a, b: a - b),
    "*": _lift(lambda a, b: a * b),
    "/": _lift(lambda a, b: a / b),
}
COMPARED = {
    "==": _lift(lambda a, b: a == b),
    "!=": _lift(lambda a, b: a != b),
    "<": _lift(lambda a, b: a < b),
    "<=": _lift(lambda a, b: a <= b),
    ">": _lift(lambda a, b: a > b),
    ">=": _lift(lambda a, b: a >= b),
}


def _and(a, b):
    return False if a is False or b is False else None if a is None or b is None else True


def _not(a):
    return None if a is None else not a


def _or(a, b):
    return _not(_and(_not(a), _not(b)))


def _pair(table, left, sign, right):
    return f"({left[0]} {sign} {right[0]})", lambda row: table[sign](left[1](row), right[1](row))


def _quoted(text):
    return "'" + text.replace("'", "''") + "'"


literals = st.sampled_from(["0", "1", "2.5", ".5", "3.", "1e2"]).map(lambda text: (text, lambda row: float(text)))
cells = st.sampled_from([("Age", "Age"), ("`body mass`", "body mass")]).map(lambda c: (c[0], lambda row: row[c[1]]))
numbers = st.recursive(
    literals | cells,
    lambda inner: st.one_of(
        st.builds(_pair, st.just(NUMERIC), inner, st.sampled_from("+-*/"), inner),
        inner.map(lambda n: (f"-{n[0]}", lambda row: _lift(lambda a: -a)(n[1](row)))),
    ),
    max_leaves=6,
)
simple = st.one_of(
    st.builds(_pair, st.just(COMPARED), numbers, st.sampled_from(sorted(COMPARED)), numbers),
    st.builds(
        lambda text, equal: (
            f"Sex {'==' if equal else '!='} {_quoted(text)}",
            lambda row: None if row["Sex"] is None else (row["Sex"] == text) is equal,
        ),
        st.sampled_from(SEXES),
        st.booleans(),
    ),
    st.builds(
        lambda texts, word: (
            f"Sex {word} [{', '.join(map(_quoted, texts))}]",
            lambda row: None if row["Sex"] is None else (row["Sex"] in texts) is (word == "in"),
        ),
        st.lists(st.sampled_from(SEXES), min_size=1, max_size=3),
        st.sampled_from(["in", "not in"]),
    ),
    numbers.map(lambda n: (f"{n[0]} in [-1, 2.5, 4]", lambda row: _lift(lambda a: a in (-1, 2.5, 4))(n[1](row)))),
    cells.map(lambda c: (f"{c[0]} is missing", lambda row: c[1](row) is None)),
    st.just(("Sex is not missing", lambda row: row["Sex"] is not None)),
)
conditions = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(lambda a, b: (f"({a[0]}) and ({b[0]})", lambda row: _and(a[1](row), b[1](row))), inner, inner),
        st.builds(lambda a, b: (f"({a[0]}) or ({b[0]})", lambda row: _or(a[1](row), b[1](row))), inner, inner),
        st.builds(
            lambda a, b: (f"({a[0]}) implies ({b[0]})", lambda row: _or(_not(a[1](row)), b[1](row))), inner, inner
        ),
        inner.map(lambda a: (f"not ({a[0]})", lambda row: _not(a[1](row)))),
    ),
    max_leaves=8,
)


def _frame(rows):
    frame = pd.DataFrame(rows, columns=["Age", "body mass", "Sex"])
    return frame.astype({"Age": float, "body mass": float, "Sex": pd.CategoricalDtype(list(SEXES))})


@given(conditions, rows)
def test_conditions_agree_with_plain_python(condition, rows):
    text, expected = condition
    expression = parse_expression(text)
    expression.check(COLUMNS)
    assert expression.is_condition
    value = expression.evaluate(_frame(rows))
    assert isinstance(value, Truth)
    found = [True if t else False if f else None for t, f in zip(value.is_true, value.is_false, strict=True)]
    assert found == [expected(row) for row in rows]


@given(conditions, rows)
def test_what_is_written_out_is_parsed_as_the_same(condition, rows):
    expression = parse_expression(condition[0])
    again = parse_expression(written(expression.term))
    frame = _frame(rows)
    assert written(again.term) == written(expression.term)
    np.testing.assert_array_equal(again.evaluate(frame).is_true, expression.evaluate(frame).is_true)
    np.testing.assert_array_equal(again.evaluate(frame).is_false, expression.evaluate(frame).is_false)


@given(numbers, rows)
def test_numbers_agree_with_plain_python(number, rows):
    text, expected = number
    expression = parse_expression(text)
    assert not expression.is_condition
    found = [None if math.isnan(value) else value for value in expression.evaluate(_frame(rows))]
    assert found == [expected(row) for row in rows]


@given(numbers, rows)
def test_a_range_holds_every_value(number, rows):
    text, _ = number
    expression = parse_expression(text)
    # The range counts on the schema, where the body mass is never missing.
    frame = _frame([row for row in rows if row["body mass"] is not None])
    values = expression.evaluate(frame)
    found = range_of(expression.term, COLUMNS)
    present = values[~np.isnan(values)]
    slack = 1e-9 * np.abs(present)
    assert found.may_miss or len(present) == len(values)
    assert ((present >= found.low - slack) & (present <= found.high + slack)).all()


WORDS = st.sampled_from(
    [*"()[],+-*/<>='\"`!&. ", "==", "!=", "and ", "or ", "not ", "implies ", "in ", "is ", "missing", "Age", "1", "1e9"]
)


def _attempt(function, argument):
    try:
        return function(argument), None
    except SchemaError as error:
        return None, error


@settings(max_examples=300)
@given(st.lists(WORDS, max_size=25).map("".join) | st.text(max_size=30))
def test_any_text_is_parsed_or_refused_with_a_position(text):
    expression, error = _attempt(parse_expression, text)
    if error is not None:
        assert error.code == "EXPRESSION_INVALID"
        assert "At character " in error.message
        return
    # What was parsed can be computed: nothing of it is left to fail later but the kinds of columns.
    frame = pd.DataFrame({name: [1.0, np.nan] for name in expression.columns}, index=[0, 1])
    value, error = _attempt(expression.evaluate, frame)
    if error is not None:
        assert "a number is compared with text" in error.message or "another kind" in error.message
    else:
        assert len(value.is_true if isinstance(value, Truth) else value) == 2
