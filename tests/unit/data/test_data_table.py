import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aevorium.data.table import read_table
from aevorium.errors import DataError, ExitStatus
from aevorium.schema.output import write_table
from aevorium.schema.table import TableSchema, load_schema

SCHEMA = TableSchema.model_validate(
    {
        "name": "t",
        "unit_id": "Id",
        "columns": {
            "Age": {"kind": "continuous", "min": 0, "max": 100, "integer": True},
            "BMI": {"kind": "continuous", "min": 10, "max": 60, "missing": True},
            "Sex": {"kind": "categorical", "categories": ["F", "M", "NA", 'é, "x"']},
        },
    }
)
TEXT = "Id,Age,BMI,Sex\n01,30,22.5,M\n1,31,,NA\n2,100,60,F\n"
EXAMPLES = Path(__file__).parents[3] / "examples"
TABLES = Path(__file__).parents[4] / "shared" / "data" / "tables"


def written(folder, content, name="t.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path, schema=SCHEMA, **options):
    with pytest.raises(DataError) as caught:
        read_table(path, schema, **options)
    error = caught.value
    assert "\n" not in error.message + error.hint
    assert error.hint
    assert error.__suppress_context__ or error.__cause__ is not None or error.__context__ is None
    return error


def assert_expected(table):
    assert table.frame["Age"].tolist() == [30, 31, 100]
    np.testing.assert_array_equal(table.frame["BMI"], [22.5, np.nan, 60])
    assert table.frame["Sex"].tolist() == ["M", "NA", "F"]
    assert list(table.frame.columns) == ["Age", "BMI", "Sex"]


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.rstrip("\n"),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        "\ufeff" + TEXT,
        TEXT.replace("\n", "\n\n") + "\n\n",
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in TEXT.splitlines()),
    ],
    ids=["plain", "no end of line", "windows", "old mac", "byte order mark", "blank lines", "quoted"],
)
def test_csv_is_read_as_text_whatever_its_lines_end_with(tmp_path, content):
    table = read_table(written(tmp_path, content), SCHEMA)
    assert_expected(table)
    assert table.unit_ids.tolist() == ["01", "1", "2"]
    assert table.findings.rows == 3
    assert table.findings.missing == {"BMI": 1}
    assert table.findings.ignored == ()


def test_order_of_columns_is_free_and_others_are_ignored(tmp_path):
    content = 'Notes,Sex,,BMI,Id,Age,\n"a\nb","é, ""x""",,20,x,5,\n'
    table = read_table(written(tmp_path, content), SCHEMA)
    assert table.frame.to_numpy().tolist() == [[5.0, 20.0, 'é, "x"']]
    assert table.findings.ignored == ("Notes", "", "")


def test_a_real_column_of_a_derived_name_is_ignored_and_named(tmp_path):
    schema = load_schema(EXAMPLES / "heart_disease.toml")
    names = list(schema.measured)
    row = [schema.columns[n].categories[0] if schema.columns[n].kind == "categorical" else "60" for n in names]
    content = ",".join([*names, "target"]) + "\n" + ",".join([*row, "no category at all"]) + "\n"
    table = read_table(written(tmp_path, content), schema)
    assert table.findings.ignored_derived == ("target",)
    assert "target" not in table.frame.columns
    assert table.unit_ids is None


def test_gzip_is_read(tmp_path):
    assert_expected(read_table(written(tmp_path, gzip.compress(TEXT.encode(), mtime=0), "t.CSV.GZ"), SCHEMA))


@pytest.mark.parametrize("form", ["numbers", "text", "categories", "single precision"])
def test_parquet_is_read_whatever_its_types(tmp_path, form):
    frame = pd.DataFrame(
        {"Sex": ["M", "NA", "F"], "Id": [1, 2, 3], "Age": [30, 31, 100], "BMI": [22.5, np.nan, 60], "More": [1, 2, 3]}
    )
    if form == "text":
        frame = frame.assign(BMI=["22.5", None, "60"]).astype({"Age": str, "Id": str})
    if form == "categories":
        frame = frame.astype({"Sex": "category", "Age": "Int16", "Id": float})
    if form == "single precision":
        frame = frame.astype({"BMI": "float32"})
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", SCHEMA)
    assert_expected(table)
    assert table.unit_ids.tolist() == ["1", "2", "3"]
    assert table.findings.ignored == ("More",)


def test_whole_numbers_in_parquet_can_be_categories(tmp_path):
    schema = TableSchema.model_validate(
        {"name": "t", "columns": {"c": {"kind": "categorical", "categories": ["0", "1"], "missing": True}}}
    )
    pd.DataFrame({"c": [0, 1, None]}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", schema).frame["c"].cat.codes.tolist() == [0, 1, -1]


def test_a_column_of_lists_is_refused(tmp_path):
    frame = pd.DataFrame({"Id": [1], "Age": [3], "BMI": [20.0], "Sex": [["F"]]})
    frame.to_parquet(tmp_path / "t.parquet")
    error = refusal(tmp_path / "t.parquet")
    assert error.code == "DATA_UNREADABLE"
    assert "'Sex' holds neither numbers nor text" in error.message


def test_an_empty_line_is_a_missing_cell_of_the_only_column(tmp_path):
    schema = TableSchema.model_validate(
        {"name": "t", "columns": {"a": {"kind": "continuous", "min": 0, "max": 9, "missing": True}}}
    )
    frame = pd.DataFrame({"a": [1.0, np.nan, 2.0]})
    write_table([frame], tmp_path / "t.csv", schema)
    assert read_table(tmp_path / "t.csv", schema).frame["a"].isna().tolist() == [False, True, False]


def test_a_generated_table_is_read_back_as_it_was_written(tmp_path):
    schema = load_schema("synthea")
    rng = np.random.default_rng(1)
    columns = {}
    for name, column in schema.columns.items():
        if column.kind == "categorical":
            columns[name] = pd.Categorical(rng.choice(column.categories, 50), categories=list(column.categories))
        else:
            values = rng.uniform(column.min, column.max, 50)
            columns[name] = np.rint(values) if column.integer else values.round(1)
            if column.missing:
                columns[name][rng.random(50) < 0.3] = np.nan
    frame = pd.DataFrame(columns)
    for name in ("t.csv", "t.parquet"):
        write_table([frame.iloc[:20], frame.iloc[20:]], tmp_path / name, schema)
        table = read_table(tmp_path / name, schema, columns="all")
        rounded = frame.assign(TotalCost=[float(f"{cost:.6g}") for cost in frame["TotalCost"]])
        pd.testing.assert_frame_equal(table.frame, rounded)
        assert table.unit_ids is None
        assert not table.findings.clipped
        assert not table.findings.rounded


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        ("", "DATA_EMPTY", "is empty"),
        ("\n\n", "DATA_EMPTY", "is empty"),
        ("\ufeff", "DATA_EMPTY", "is empty"),
        ("Id,Age,BMI,Sex\n", "DATA_EMPTY", "a header and no rows"),
        ("Id,Age,BMI,Sex", "DATA_EMPTY", "a header and no rows"),
        ("Id,Age,BMI,Sex\n\n\n", "DATA_EMPTY", "a header and no rows"),
        ("Id,Age,BMI,Sex\n1,,,\n2,,,\n", "DATA_EMPTY", "Every cell"),
        (TEXT.encode() + b"4,5,20,\xe9\n", "DATA_UNREADABLE", "byte 55 is not"),
        (b"Gr\xf6\xdfe,Age\n1,2\n", "DATA_UNREADABLE", "UTF-8 text is expected, and byte 2 is not"),
        (TEXT.encode() + b"4,5,20,\xc3", "DATA_UNREADABLE", "byte 55 is not"),
        (TEXT.encode("utf-16"), "DATA_UNREADABLE", "UTF-16"),
        (TEXT.encode("utf-16-le"), "DATA_UNREADABLE", "NUL byte at byte 1"),
        (TEXT + "4,5\0,20,M\n", "DATA_UNREADABLE", "NUL byte at byte 51"),
        (TEXT.replace(",", ";"), "DATA_UNREADABLE", "separated by semicolons"),
        (TEXT.replace(",", "\t"), "DATA_UNREADABLE", "separated by tabs"),
        (TEXT.replace(",", "|"), "DATA_UNREADABLE", "separated by bars"),
        (TEXT.replace("Sex", "Age"), "DATA_UNREADABLE", "names columns twice: 'Age'"),
        (TEXT + "4,5\n6,7,8\n", "DATA_UNREADABLE", "on line 5 has 2 cells (2 rows differ), where the header has 4"),
        (TEXT.replace(",M", ',"M"') + "4,5,6,F,\n", "DATA_UNREADABLE", "on line 5 has 5 cells, where the header has 4"),
        ('Id,Age,BMI,Sex\n\n1,2,20,"M\n\nF"\n\n3,4\n', "DATA_UNREADABLE", "on line 7 has 2 cells"),
        (TEXT + '4,"5,20,M\n5,6,20,F\n', "DATA_UNREADABLE", "quote is opened and not closed"),
        ("id,Age,B.M.I.,Gender\n1,2,20,M\n", "DATA_COLUMN_MISSING", "'Id' is missing (did you mean 'id'?)"),
        ("id\n", "DATA_COLUMN_MISSING", "'Age' is missing; Column 'BMI' is missing; Column 'Sex' is missing"),
        (TEXT + "2,5,20,M\n", "DATA_DUPLICATE_UNIT", "repeats an earlier one in 1 row"),
        (TEXT + ",5,20,M\n", "DATA_MISSING_UNDECLARED", "'Id' identifies units and is empty in 1 cell"),
        (TEXT + "3,5,20,W\n", "DATA_CATEGORY_UNKNOWN", "'Sex' holds a category that is not listed in 1 cell"),
        (TEXT + "3,5,20,\n", "DATA_MISSING_UNDECLARED", "'Sex' is empty in 1 cell"),
        (TEXT + "3,five,20,M\n", "DATA_NOT_NUMERIC", "'Age' holds no number in 1 cell"),
        ("Id,Age,BMI,Sex\n1,,20,M\n2,,,F\n", "DATA_MISSING_UNDECLARED", "Column 'Age' is empty."),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path, content, code, reason):
    error = refusal(written(tmp_path, content))
    assert error.code == code
    assert reason in error.message
    assert error.exit_status is ExitStatus.FAILED
    assert str(tmp_path / "t.csv") in error.message.replace("\\\\", "\\")


def test_a_byte_that_is_no_utf8_is_found_across_the_pieces_of_a_large_file(tmp_path):
    head = b"Id,Age,BMI,Sex\n" + "é".encode() * 600_000
    for cut in range(3):
        content = head + b"x" * cut + "é".encode() * 10 + b"\xff\n"
        error = refusal(written(tmp_path, content))
        assert f"byte {content.index(0xFF):,} is not" in error.message


@pytest.mark.parametrize(
    ("name", "content", "code", "reason"),
    [
        ("t.csv.gz", TEXT.encode(), "DATA_UNREADABLE", "not a complete gzip file"),
        ("t.csv.gz", gzip.compress(TEXT.encode(), mtime=0)[:-12], "DATA_UNREADABLE", "not a complete gzip file"),
        ("t.parquet", TEXT.encode(), "DATA_UNREADABLE", "damaged"),
        ("t.parquet", b"", "DATA_UNREADABLE", "damaged"),
        ("t.xlsx", b"PK", "DATA_UNREADABLE", "none of .csv, .csv.gz, .parquet"),
    ],
)
def test_a_damaged_file_is_told_without_its_content(tmp_path, name, content, code, reason):
    error = refusal(written(tmp_path, content, name))
    assert error.code == code
    assert reason in error.message


def test_what_is_not_there_or_no_file_is_told(tmp_path):
    for name in ("absent.csv", "absent.csv.gz", "absent.parquet", "no/folder.csv"):
        error = refusal(tmp_path / name)
        assert error.code == "DATA_NOT_FOUND"
        assert error.exit_status is ExitStatus.USAGE
    for name in ("folder", "folder.csv", "folder.parquet"):
        (tmp_path / name).mkdir()
        error = refusal(tmp_path / name)
        assert error.code == "DATA_UNREADABLE"
        assert "folder" in error.message


def test_a_file_without_permission_is_told(tmp_path, monkeypatch):
    path = written(tmp_path, TEXT)

    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    error = refusal(path)
    assert error.code == "DATA_UNREADABLE"
    assert "Permission denied" in error.message


def test_one_row_is_a_table(tmp_path):
    assert len(read_table(written(tmp_path, "Id,Age,BMI,Sex\n1,2,20,M\n"), SCHEMA).frame) == 1


def real_table(*parts):
    path = TABLES.joinpath(*parts)
    if not path.exists():
        pytest.skip("the benchmark tables are not here")
    return path


@pytest.mark.parametrize(
    ("schema", "parts", "rows"),
    [
        ("adult", ("adult", "train.csv.gz"), 32_561),
        ("adult", ("adult", "test.csv.gz"), 16_281),
        ("heart_disease", ("heart_disease", "heart_disease_4hospitals.csv"), 920),
    ],
)
def test_the_example_schemas_describe_their_tables(schema, parts, rows):
    path = real_table(*parts)
    loaded = load_schema(EXAMPLES / f"{schema}.toml")
    findings = read_table(path, loaded).findings
    assert findings.rows == rows
    assert findings.clipped == ({} if schema == "adult" else {"trestbps": 1})
    assert not findings.rounded
    # What the files hold in derived columns is what the rules say.
    frame = read_table(path, loaded, columns="all").frame
    for name, column in loaded.columns.items():
        if column.derived is not None:
            assert (loaded.rules[column.derived].apply(frame) == frame[name].astype(object)).all()


def test_a_file_with_semicolons_is_told_so():
    path = real_table("cardio", "cardio_train.csv.gz")
    assert "separated by semicolons" in refusal(path).message


def test_only_a_look_at_a_table_goes_without_unit_id(tmp_path):
    generated = written(tmp_path, "Age,BMI,Sex\n30,22.5,M\n31,,NA\n100,60,F\n")
    table = read_table(generated, SCHEMA, unit_id="optional")
    assert_expected(table)
    assert table.unit_ids is None
    error = refusal(generated)
    assert error.code == "DATA_COLUMN_MISSING"
    assert "'Id'" in error.message
    # A column that is there is checked as ever.
    repeated = written(tmp_path, TEXT.replace("01,30", "1,30"), "repeated.csv")
    assert refusal(repeated, unit_id="optional").code == "DATA_DUPLICATE_UNIT"
    # Other columns are never optional.
    assert "'Sex'" in refusal(written(tmp_path, "Age,BMI\n30,22\n", "short.csv"), unit_id="optional").message
