import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from aevorium.errors import DataError
from aevorium.schema.frame import Violations, export_frame, round_frame, typed_frame, violations
from aevorium.schema.rules import derive
from aevorium.schema.table import TableSchema

SCHEMA = TableSchema.model_validate(
    {
        "name": "t",
        "unit_id": "Id",
        "columns": {
            "Age": {"kind": "continuous", "min": 0, "max": 100, "integer": True},
            "BMI": {"kind": "continuous", "min": 10, "max": 60, "missing": True},
            "Old": {"kind": "categorical", "categories": ["no", "yes"], "derived": "old"},
            "Sex": {"kind": "categorical", "categories": ["F", "M"], "missing": True},
            "Code": {"kind": "categorical", "categories": ["E10", "other"], "other": "other"},
        },
        "rules": {
            "old": {"kind": "cases", "cases": [{"when": "Age > 65", "then": "yes"}], "otherwise": "no"},
        },
        "constraints": [{"check": "Old == 'yes' implies BMI < 40"}, {"check": "Age >= 0"}],
    }
)
RAW = pd.DataFrame(
    {
        "Note": ["a", "b", "c", "d"],
        "Code": ["E10", "E11", "other", "e10"],
        "Old": ["x", "y", "z", ""],
        "Id": ["1", "2", "3", "4"],
        "BMI": ["22.5", "", "1e2", " 45 "],
        "Sex": ["F", "", "M", "F"],
        "Age": ["30", "40.6", "-2", "70"],
    }
)


def problem(raw, schema=SCHEMA, **options):
    with pytest.raises(DataError) as caught:
        typed_frame(raw, schema, source="t.csv", **options)
    assert caught.value.message.startswith("The table 't.csv' cannot be used. ")
    assert "\n" not in caught.value.message
    return caught.value


def test_a_typed_frame_has_the_measured_columns_in_order_and_type():
    frame, findings = typed_frame(RAW, SCHEMA)
    assert list(frame.columns) == ["Age", "BMI", "Sex", "Code"]
    assert frame["Age"].tolist() == [30, 41, 0, 70]
    np.testing.assert_array_equal(frame["BMI"], [22.5, np.nan, 60, 45])
    assert frame.dtypes.astype(str).tolist() == ["float64", "float64", "category", "category"]
    assert frame["Sex"].cat.categories.tolist() == ["F", "M"]
    assert frame["Sex"].isna().tolist() == [False, True, False, False]
    assert frame["Code"].tolist() == ["E10", "other", "other", "other"]
    assert findings.rows == 4
    assert findings.missing == {"BMI": 1, "Sex": 1}
    assert findings.clipped == {"Age": 1, "BMI": 1}
    assert findings.rounded == {"Age": 1}
    assert findings.other == {"Code": 2}
    assert findings.constraints == {"Old == 'yes' implies BMI < 40": 1}
    assert findings.ignored == ("Note",)
    assert findings.ignored_derived == ("Old",)


def test_findings_are_told_in_sentences():
    told = typed_frame(RAW, SCHEMA)[1].lines()
    assert told == [
        "4 rows read. These counts are exact: they stay on this machine.",
        "Column 'BMI': 1 cell empty.",
        "Column 'Sex': 1 cell empty.",
        "Column 'Age': 1 value outside the bounds, set to the nearest bound.",
        "Column 'BMI': 1 value outside the bounds, set to the nearest bound.",
        "Column 'Age': 1 value not whole, rounded.",
        "Column 'Code': 2 cells of unknown category, counted as other.",
        "Constraint \"Old == 'yes' implies BMI < 40\": not met by 1 row, kept.",
        "Ignored, because the schema does not name them: 'Note'.",
        "Ignored, because the schema computes them: 'Old'.",
    ]


@pytest.mark.parametrize("dtype", [object, "str", pd.ArrowDtype(pa.string())])
def test_text_may_be_held_in_any_way(dtype):
    frame, findings = typed_frame(RAW.astype(dtype), SCHEMA)
    expected, expected_findings = typed_frame(RAW, SCHEMA)
    pd.testing.assert_frame_equal(frame, expected)
    assert findings == expected_findings


@pytest.mark.parametrize(
    ("cell", "number"),
    [("5", 5), ("5.", 5), (".5e1", 5), ("+5", 5), ("5e0", 5), (" 5\t", 5), ("-5", 0), ("005", 5), ("1e-400", 0)],
)
def test_numbers_are_read_as_decimals(cell, number):
    assert typed_frame(RAW.assign(Age=cell), SCHEMA)[0]["Age"].tolist() == [number] * 4


@pytest.mark.parametrize(
    "cell", ["x", "5 years", "1,5", "1_000", "0x10", "inf", "-Infinity", "nan", "NA", "1e999", " ", "--5", "++5", "٣"]
)
@pytest.mark.parametrize("beside", ["7", "word"])
def test_what_is_no_finite_number_is_refused_whatever_stands_beside_it(cell, beside):
    raw = RAW.assign(Age=[cell, "5", beside, "7"])
    error = problem(raw)
    assert error.code == "DATA_NOT_NUMERIC"
    count = "1 cell" if beside == "7" else "2 cells"
    assert f"Column 'Age' holds no number in {count}." in error.message


@pytest.mark.parametrize("word", ["NA", "None", "?", "null", " "])
def test_only_an_empty_cell_is_missing(word):
    assert problem(RAW.assign(Sex=word)).code == "DATA_CATEGORY_UNKNOWN"


def test_every_problem_is_told_at_once_without_any_content():
    raw = pd.DataFrame(
        {
            "Age": ["thirty", "", "40", "1"],
            "BMI": ["", "", "nan", ""],
            "Sex": ["f ", "SECRET", "M", "M"],
            "Code": ["", "", "", ""],
            "Id": ["1", "1", "1", "2"],
        }
    )
    error = problem(raw)
    assert error.message == (
        "The table 't.csv' cannot be used. "
        "Column 'Id' identifies units and repeats an earlier one in 2 rows; "
        "Column 'Age' holds no number in 1 cell; "
        "Column 'Age' is empty in 1 cell; "
        "Column 'BMI' holds no number in 1 cell; "
        "Column 'Sex' holds a category that is not listed in 2 cells "
        "(1 would match but for letter case, spaces or a final '.0'); "
        "Column 'Code' is empty."
    )
    assert error.code == "DATA_DUPLICATE_UNIT"
    assert "'other'" in error.hint
    assert "missing = true" in error.hint or "Declare it" in error.hint


def test_missing_columns_are_all_named_with_what_they_may_be_called():
    error = problem(RAW.drop(columns=["Id", "Sex"]).rename(columns={"Age": "age", "Code": "Codes"}))
    assert error.code == "DATA_COLUMN_MISSING"
    assert error.message.endswith(
        "Column 'Age' is missing (did you mean 'age'?); Column 'Sex' is missing; "
        "Column 'Code' is missing (did you mean 'Codes'?); Column 'Id' is missing."
    )


def test_an_empty_unit_is_no_unit():
    error = problem(RAW.assign(Id=["1", "", "", "2"]))
    assert error.code == "DATA_MISSING_UNDECLARED"
    assert "Column 'Id' identifies units and is empty in 2 cells" in error.message


def test_a_table_without_content_is_refused():
    assert problem(RAW.iloc[:0]).code == "DATA_EMPTY"
    empty = pd.DataFrame("", index=range(3), columns=RAW.columns).assign(Id=["1", "2", "3"])
    assert problem(empty).code == "DATA_EMPTY"


def test_a_generated_table_has_every_column_and_no_unit():
    raw = RAW.drop(columns=["Id", "Note"]).assign(Old=["no", "no", "no", "yes"])
    frame, findings = typed_frame(raw, SCHEMA, columns="all")
    assert list(frame.columns) == list(SCHEMA.columns)
    assert findings.ignored == findings.ignored_derived == ()
    assert problem(raw.drop(columns="Old"), columns="all").code == "DATA_COLUMN_MISSING"


def test_one_row_is_a_table():
    assert len(typed_frame(RAW.iloc[:1], SCHEMA)[0]) == 1


def satisfying():
    frame = derive(typed_frame(RAW.assign(BMI="22.123456"), SCHEMA)[0], SCHEMA)
    assert violations(frame, SCHEMA).total == 0
    return frame


def counts(frame):
    found = violations(frame, SCHEMA)
    return {name: dict(value) for name, value in vars(found).items() if value}


def test_violations_are_counted_by_kind():
    frame = satisfying()
    assert counts(frame.assign(Age=[-1.0, 101, np.inf, 70])) == {
        "bounds": {"Age": 3},
        "derived": {"Old": 2},
        "constraints": {"Age >= 0": 1},
    }
    assert counts(frame.assign(Age=[0.5, 1, 2, 70])) == {"whole": {"Age": 1}}
    assert counts(frame.assign(Age=[np.nan, 1, 2, 70])) == {"missing": {"Age": 1}}
    assert counts(frame.assign(Sex=["F", "f", None, "?"])) == {"categories": {"Sex": 2}}
    assert counts(frame.assign(Code=["E10", "other", None, "other"])) == {"missing": {"Code": 1}}
    assert counts(frame.assign(Old=["yes", "no", None, "yes"])) == {"missing": {"Old": 1}, "derived": {"Old": 2}}
    assert counts(frame.assign(BMI=[np.nan, 10, 60, 50])) == {"constraints": {"Old == 'yes' implies BMI < 40": 1}}
    assert violations(frame.assign(Age=[-1.0, 101, np.inf, 70]), SCHEMA).total == 6
    with pytest.raises(DataError, match="'Sex'"):
        violations(frame.drop(columns="Sex"), SCHEMA)


def test_an_exported_frame_satisfies_its_schema_as_well():
    frame = satisfying()
    exported = export_frame(frame, SCHEMA)
    assert isinstance(violations(exported, SCHEMA), Violations)
    assert violations(exported, SCHEMA).total == 0
    assert exported["Age"].dtype == "Int64"
    assert exported["BMI"].tolist() == [22.123456] * 4
    assert exported["Sex"].tolist()[0] == "F"
    assert exported["Sex"].isna().tolist() == [False, True, False, False]
    assert frame["BMI"].tolist() == [22.123456] * 4


def test_a_missing_integer_stays_missing():
    schema = TableSchema.model_validate(
        {"name": "t", "columns": {"a": {"kind": "continuous", "min": 0, "max": 9, "integer": True, "missing": True}}}
    )
    assert export_frame(pd.DataFrame({"a": [1.0, np.nan]}), schema)["a"].tolist() == [1, pd.NA]


def test_rounding_stays_within_bounds_that_have_more_digits():
    schema = TableSchema.model_validate(
        {"name": "t", "columns": {"a": {"kind": "continuous", "min": 0.123456123456, "max": 0.987653823456}}}
    )
    frame = round_frame(pd.DataFrame({"a": [0.123456123456, 0.987653823456, 0.500000412345]}), schema)
    assert frame["a"].tolist() == [0.123456123456, 0.987653823456, 0.5]
    assert violations(frame, schema).total == 0


def test_a_decimal_as_people_record_it_keeps_its_digits():
    schema = TableSchema.model_validate({"name": "t", "columns": {"a": {"kind": "continuous", "min": 0, "max": 1e6}}})
    frame = round_frame(pd.DataFrame({"a": [91334.27, 104211.5, 1 / 3, 91334.27 + 1e-7, 25.0]}), schema)
    assert frame["a"].tolist() == [91334.27, 104211.5, 0.333333, 91334.3, 25.0]
