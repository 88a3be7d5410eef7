"""Tables that are written are read back; any file at all is read or refused without quoting it."""

import gzip
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aevorium.data.table import read_table
from aevorium.errors import DataError
from aevorium.schema.frame import RECORDED_DIGITS, SIGNIFICANT_DIGITS, round_frame, typed_frame, violations
from aevorium.schema.output import write_table
from aevorium.schema.table import TableSchema

CATEGORIES = ("a", "b,c", 'd"e', "f\ng", " h ", "é", "NA", "-", "1", "'", "i\r\nj")
AWKWARD = TableSchema.model_validate(
    {
        "name": "t",
        "columns": {
            "n": {"kind": "continuous", "min": -(10**6), "max": 10**6, "integer": True, "missing": True},
            "x, y": {"kind": "continuous", "min": -1e9, "max": 1e9, "missing": True},
            "tiny": {"kind": "continuous", "min": 0.12345671, "max": 0.12345679},
            "c": {"kind": "categorical", "categories": list(CATEGORIES), "missing": True},
        },
    }
)

cells = st.fixed_dictionaries(
    {
        "n": st.none() | st.integers(-(10**6), 10**6).map(float),
        "x, y": st.none() | st.floats(-1e9, 1e9),
        "tiny": st.floats(0.12345671, 0.12345679),
        "c": st.none() | st.sampled_from(CATEGORIES),
    }
)


def _frame(rows):
    frame = pd.DataFrame(rows, columns=list(AWKWARD.columns)).astype({"n": float, "x, y": float, "tiny": float})
    return frame.astype({"c": pd.CategoricalDtype(list(CATEGORIES))})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@settings(max_examples=25, deadline=None)
@given(st.lists(cells, min_size=1, max_size=12), st.integers(0, 12), st.sampled_from(["csv", "parquet"]))
def test_what_is_written_is_read_back(folder, rows, cut, suffix):
    frame = _frame(rows)
    assert violations(frame, AWKWARD).total == 0
    path = folder / f"t.{suffix}"
    write_table([frame.iloc[:cut], frame.iloc[cut:]], path, AWKWARD)
    table = read_table(path, AWKWARD, columns="all")
    pd.testing.assert_frame_equal(table.frame, round_frame(frame, AWKWARD), check_exact=True)
    assert not table.findings.clipped
    assert violations(table.frame, AWKWARD).total == 0


@given(st.floats(-1e12, 1e12))
def test_rounding_is_that_of_decimals_and_happens_once(value):
    schema = TableSchema.model_validate(
        {"name": "t", "columns": {"x": {"kind": "continuous", "min": -1e13, "max": 1e13}}}
    )
    once = round_frame(pd.DataFrame({"x": [value]}), schema)
    number = float(once["x"][0])
    # A half is rounded up or down: both are decimals of few digits, and as near.
    assert math.isclose(number, value, rel_tol=0.5000001 * 10 ** (1 - SIGNIFICANT_DIGITS), abs_tol=1e-22)
    digits = RECORDED_DIGITS if number == value else SIGNIFICANT_DIGITS
    assert number == float(f"{number:.{digits}g}") or abs(number) < 1e-16
    assert round_frame(once, schema)["x"][0] == number


SMALL = TableSchema.model_validate(
    {
        "name": "t",
        "unit_id": "id",
        "columns": {
            "n": {"kind": "continuous", "min": 0, "max": 9, "integer": True},
            "c": {"kind": "categorical", "categories": ["a", "b"], "missing": True},
        },
    }
)
SECRET = "Zanzibar"
pieces = st.sampled_from(
    [
        SECRET,
        "1",
        "22",
        "3.5",
        "a",
        "b",
        ",",
        ",",
        ",",
        "\n",
        "\n",
        "\r\n",
        '"',
        ";",
        " ",
        "",
        "é",
        "\ufeff",
        "inf",
        "-",
    ]
)


def _attempt(path):
    try:
        return read_table(path, SMALL), None
    except DataError as error:
        return None, error


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["id,n,c\n", "c,id,n,x\r\n", "id;n;c\n", "id,n\n", ""]),
    st.lists(pieces, max_size=30).map("".join),
    st.sampled_from(["utf-8", "utf-16", "latin-1"]),
    st.sampled_from([".csv", ".csv.gz", ".parquet"]),
)
def test_any_file_is_read_or_refused_without_quoting_it(folder, header, body, encoding, suffix):
    content = (header + body).encode(encoding, errors="replace")
    path = folder / f"any{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".csv.gz" else content)
    table, error = _attempt(path)
    if error is not None:
        assert SECRET not in error.message + error.hint
        assert "\n" not in error.message
        return
    assert list(table.frame.columns) == ["n", "c"]
    assert violations(table.frame, SMALL).total == 0
    assert len(table.frame) == table.findings.rows == len(table.unit_ids)
    assert not table.unit_ids.duplicated().any()
    assert SECRET not in " ".join(table.findings.lines())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "1", "2.5", "-7", "12", "nan", "x", SECRET]), st.sampled_from(["", "a", "A", "z"])
        ),
        min_size=1,
        max_size=10,
    )
)
def test_counts_of_problems_are_exact(rows):
    raw = pd.DataFrame(rows, columns=["n", "c"], dtype=object).assign(id=[str(i) for i in range(len(rows))])
    text = sum(n in ("nan", "x", SECRET) for n, _ in rows)
    empty = sum(n == "" for n, _ in rows)
    unknown = sum(c in ("A", "z") for _, c in rows)
    if text or unknown or empty:
        with pytest.raises(DataError) as caught:
            typed_frame(raw, SMALL)
        message = caught.value.message
        if empty == len(rows) and all(c == "" for _, c in rows):
            assert caught.value.code == "DATA_EMPTY"
            return
        for count, said in ((text, "holds no number in "), (unknown, "not listed in ")):
            assert (said in message) is bool(count)
            if count:
                assert f"{said}{count} cell" in message
        assert ("'n' is empty" in message) is bool(empty)
        assert SECRET not in message
    else:
        frame, findings = typed_frame(raw, SMALL)
        expected = np.clip(np.rint([float(n) for n, _ in rows]), 0, 9)
        np.testing.assert_array_equal(frame["n"], expected)
        assert findings.clipped.get("n", 0) == sum(n in ("-7", "12") for n, _ in rows)
        assert findings.rounded.get("n", 0) == sum(n == "2.5" for n, _ in rows)
        assert findings.missing.get("c", 0) == sum(c == "" for _, c in rows)
