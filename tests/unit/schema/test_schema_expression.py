import numpy as np
import pandas as pd
import pytest

from aevorium.errors import SchemaError
from aevorium.schema.expression import MAX_DEPTH, MAX_LENGTH, Truth, parse_expression
from aevorium.schema.table import TableSchema

FRAME = pd.DataFrame(
    {
        "Age": [20.0, 40.0, 70.0, np.nan],
        "Cost": [0.0, 10.0, 5.0, 1.0],
        "Sex": pd.Categorical(["M", "F", None, "F"], categories=["F", "M", "X"]),
        "Said": pd.Categorical(["M", "M", "F", "F"], categories=["M", "F"]),
        "Note": ["it's", "", "a,b", None],
        "education-num": [1.0, 2.0, 3.0, 4.0],
        "in": [1.0, 2.0, 3.0, 4.0],
    }
)
COLUMNS = TableSchema.model_validate(
    {
        "name": "t",
        "columns": {
            "Age": {"kind": "continuous", "min": 0, "max": 100},
            "education-num": {"kind": "continuous", "min": 0, "max": 100},
            "Sex": {"kind": "categorical", "categories": ["F", "M"]},
        },
    }
).columns


def truth(text):
    """The truth of each row of FRAME as a string of T, F and ?."""
    value = parse_expression(text).evaluate(FRAME)
    assert isinstance(value, Truth)
    assert not (value.is_true & value.is_false).any()
    return "".join("T" if t else "F" if f else "?" for t, f in zip(value.is_true, value.is_false, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Age > 40", "FFT?"),
        ("Age >= 40", "FTT?"),
        ("Age < 40", "TFF?"),
        ("Age <= 40", "TTF?"),
        ("Age == 40", "FTF?"),
        ("40 != Age", "TFT?"),
        ("Sex == 'F'", "FT?T"),
        ('Sex != "F"', "TF?F"),
        ("'Z' == Sex", "FF?F"),
        ("Sex != 'Z'", "TT?T"),
        ("Sex == Said", "TF?T"),
        ("Note == 'it''s'", "TFF?"),
        ("Sex in ['M', 'X',]", "TF?F"),
        ("Sex in ('M', 'X')", "TF?F"),
        ("Age not in (20,)", "FTT?"),
        ("Sex not in ['M', 'Z']", "FT?T"),
        ("Age in [20, 70.0, -3]", "TFT?"),
        ("Age is missing", "FFFT"),
        ("Sex is not missing", "TTFT"),
        ("Age / Cost is missing", "TFFT"),
        ("not Age > 40", "TTF?"),
        ("not Age > 40 and Sex == 'F'", "FTF?"),
        ("Age > 40 or Sex == 'F'", "FTTT"),
        ("Age > 40 and Sex == 'F'", "FF??"),
        ("Sex == 'F' implies Age > 30", "TTT?"),
        ("Age > 30 implies Sex == 'F'", "TT?T"),
        ("Age > 30 implies Cost > 4 implies Sex == 'F'", "TT?T"),
        ("Age == 20 or Age == 70 and Cost == 5", "TFT?"),
        ("(Age == 20 or Age == 70) and Cost == 5", "FFTF"),
        ("`education-num` * 2 + 1 == 7", "FFTF"),
        ("`in` > 3", "FFFT"),
        ("1 + 1 == 2", "TTTT"),
        ("Age - 10 - 5 == 5", "TFF?"),
        ("Age / 2 * 2 == Age", "TTT?"),
        ("-Age < -30", "FTT?"),
        ("- -Age == Age", "TTT?"),
        (".5e1 == 5. and 5 == 5.0", "TTTT"),
    ],
)
def test_a_condition_is_true_false_or_unknown_in_each_row(text, expected):
    assert truth(text) == expected
    assert parse_expression(text).is_condition


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Age", [20, 40, 70, np.nan]),
        ("Cost / Cost", [np.nan, 1, 1, 1]),
        ("1 / Cost", [np.nan, 0.1, 0.2, 1]),
        ("2 - 3 * Cost", [2, -28, -13, -1]),
        ("(2 - 3) * Cost", [0, -10, -5, -1]),
        ("-Cost", [0, -10, -5, -1]),
        ("1e300 * 1e300 * Cost", [np.nan] * 4),
        ("7", [7, 7, 7, 7]),
    ],
)
def test_a_number_is_missing_where_it_cannot_be_computed(text, expected):
    expression = parse_expression(text)
    assert not expression.is_condition
    value = expression.evaluate(FRAME)
    assert value.dtype == np.float64
    np.testing.assert_array_equal(value, np.asarray(expected, dtype=float))


def test_a_row_with_a_missing_input_neither_holds_nor_violates():
    expression = parse_expression("Age <= 2 * Cost or Sex == 'M'")
    assert expression.columns == {"Age", "Cost", "Sex"}
    assert expression.holds(FRAME).tolist() == [True, False, False, False]
    assert expression.violated(FRAME).tolist() == [False, True, False, False]


def test_nullable_integers_and_plain_strings_evaluate_like_a_typed_frame():
    exported = FRAME.assign(Age=FRAME["Age"].astype("Int64"), Sex=FRAME["Sex"].astype(object))
    expression = parse_expression("Age > 30 and Sex == 'F'")
    assert expression.holds(exported).tolist() == expression.holds(FRAME).tolist() == [False, True, False, False]


def test_an_empty_frame_has_an_empty_value():
    assert parse_expression("Age > 3 or 1 == 1").holds(FRAME.iloc[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 1, "ends too early"),
        ("Age <", 6, "ends too early"),
        ("Age = 3", 5, "compare with '=='"),
        ("Age > 3 & Age < 5", 9, "write 'and'"),
        ("Age > 3 AND Age < 5", 9, "lower case"),
        ("0 < Age < 5", 9, "two values at a time"),
        ("max(Age, 3) > 2", 4, "no functions"),
        ("Sex in ('F']", 12, "not expected"),
        ("Sex in (Said)", 9, "not expected"),
        ("Sex in []", 9, "not expected"),
        ("Sex == 'F", 8, "quote is not closed"),
        ("Age > 1e999", 7, "too large"),
        ("Age in [-1e999]", 10, "too large"),
        ("Age > 3 )", 9, "not expected"),
        ("Age\x00 > 3", 4, "not expected"),
        ("__import__('os')", 11, "not expected"),
        ("Age.real > 3", 4, "not expected"),
        ("is missing", 1, "not expected"),
        ("'text'", 1, "neither a number nor a condition"),
        ("Age < 'x'", 5, "by == and != only"),
        ("Age + 'x' > 3", 5, "arithmetic needs numbers"),
        ("'F' == 'F'", 5, "two fixed texts"),
        ("'F' in ['F']", 5, "takes no quotes"),
        ("3 + 4 == 'x'", 7, "compared with text"),
        ("Age in [1, 'a']", 5, "mixes"),
        ("Age + 1 in ['a']", 9, "list of another kind"),
        ("Age and Sex == 'F'", 5, "join conditions"),
        ("not Age", 1, "join conditions"),
        ("Age > 3 > (Age < 2)", 9, "two values at a time"),
        ("Age == (Age < 2)", 5, "compares numbers or texts"),
        ("(Age < 2) is missing", 11, "can be missing"),
        ("3 is missing", 3, "can be missing"),
        ("(Age < 2) + 1 > 0", 11, "arithmetic needs numbers"),
    ],
)
def test_what_cannot_be_parsed_is_refused_with_its_position(text, position, reason):
    with pytest.raises(SchemaError) as caught:
        parse_expression(text)
    assert caught.value.code == "EXPRESSION_INVALID"
    assert f"At character {position}: " in caught.value.message
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sex < Age", "text is compared"),
        ("Sex + 1 > 2", "arithmetic needs numbers, not text"),
        ("Sex == 3", "a number is compared with text"),
        ("Age == 'old'", "a number is compared with text"),
        ("Age in ['a']", "list of another kind"),
        ("Height > 3", "no column 'Height'"),
        ("age > 3", "did you mean 'Age'"),
        ("num > 3", "'education-num' is written in backticks"),
        ("Sex == 'm'", r"'m' is no category of 'Sex' \(did you mean 'M'"),
        ("Sex in ['F', 'W']", "'W' is no category of 'Sex'; it has 'F', 'M'"),
        ("'W' != Sex", "'W' is no category"),
        ("Sex", "text alone"),
    ],
)
def test_an_expression_is_checked_against_the_columns(text, reason):
    with pytest.raises(SchemaError, match=reason) as caught:
        parse_expression(text).check(COLUMNS)
    assert caught.value.code == "EXPRESSION_INVALID"


def test_a_fitting_expression_passes_the_check():
    parse_expression("Age > `education-num` and Sex in ['F', 'M'] or Sex is missing").check(COLUMNS)


@pytest.mark.parametrize("text", ["Sex < Age", "Sex + 1 > 2", "Sex == 3", "Age == 'old'", "Height > 3", "Sex"])
def test_a_kind_that_does_not_fit_the_frame_is_refused_when_evaluated(text):
    with pytest.raises(SchemaError) as caught:
        parse_expression(text).evaluate(FRAME)
    assert caught.value.code == "EXPRESSION_INVALID"


def test_a_number_neither_holds_nor_is_violated():
    with pytest.raises(SchemaError, match="a number, not a condition"):
        parse_expression("Age + 1").holds(FRAME)


@pytest.mark.parametrize(
    "text",
    [
        "not " * 2000 + "Age < 1",
        "-" * (MAX_LENGTH - 10) + "Age",
        "+".join(["Age"] * (MAX_DEPTH + 2)),
        "(Age+" * 1500 + "1" + ")" * 1500,
        "Age<1 implies " * 600 + "Age<1",
        "(" * (MAX_LENGTH - 3) + "Age",
        "Age > 1 or " * MAX_LENGTH + "Age > 2",
    ],
)
def test_a_hostile_expression_is_refused_and_shown_in_part(text):
    with pytest.raises(SchemaError) as caught:
        parse_expression(text)
    assert caught.value.code == "EXPRESSION_INVALID"
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    "text", ["(" * 4000 + "Age" + ")" * 4000 + " > 3", " or ".join(["Age > 1"] * 900), "+".join(["Age"] * MAX_DEPTH)]
)
def test_length_without_depth_is_allowed(text):
    assert parse_expression(text).columns == {"Age"}
    parse_expression(text).evaluate(FRAME)


def test_quotes_and_backticks_are_written_twice_inside():
    expression = parse_expression('`a``b` == "say ""hi"""')
    assert expression.columns == {"a`b"}
    assert expression.holds(pd.DataFrame({"a`b": ['say "hi"', "hi"]})).tolist() == [True, False]
