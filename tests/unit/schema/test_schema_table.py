import pytest

from aevorium.errors import ExitStatus, SchemaError
from aevorium.schema.table import TableSchema, load_schema

BASE = """
name = "t"
[columns.Age]
kind = "continuous"
min = 0
max = 100
[columns.Sex]
kind = "categorical"
categories = ["F", "M"]
"""
DERIVED = """
[columns.Old]
kind = "categorical"
categories = ["no", "yes"]
derived = "old"
[rules.old]
kind = "cases"
cases = [{ when = "Age > 65", then = "yes" }]
otherwise = "no"
"""


def read(text):
    return TableSchema.from_toml(text, source="t.toml")


def test_the_bundled_schema_is_the_one_of_the_default_study():
    schema = load_schema("synthea")
    bounds = {name: (c.min, c.max) for name, c in schema.columns.items() if c.kind == "continuous"}
    assert bounds == {
        "Age": (18, 90),
        "BMI": (15, 50),
        "BloodPressure": (80, 200),
        "Glucose": (50, 400),
        "EncounterCount": (0, 500),
        "MedicationCount": (0, 100),
        "ConditionCount": (0, 30),
        "TotalCost": (0, 300000),
        "ProcedureCount": (0, 200),
    }
    assert [name for name, c in schema.columns.items() if c.kind == "categorical"] == [
        "Gender",
        "Diagnosis",
        "EncounterType",
        "HasAllergies",
        "RiskLevel",
    ]
    assert list(schema.columns)[-1] == "RiskLevel"
    assert "RiskLevel" not in schema.measured
    assert len(schema.measured) == 13


def test_the_hash_knows_content_and_order_but_not_the_way_of_writing():
    original = read(BASE + DERIVED).content_hash
    assert len(original) == 64
    commented = read("# a comment\n" + (BASE + DERIVED).replace("max = 100", "max  =  100.0"))
    assert commented.content_hash == original
    swapped = BASE.replace('[columns.Age]\nkind = "continuous"\nmin = 0\nmax = 100\n', "")
    swapped += '[columns.Age]\nkind = "continuous"\nmin = 0\nmax = 100\n' + DERIVED
    assert read(swapped).columns == read(BASE + DERIVED).columns
    assert read(swapped).content_hash != original
    for before, after in [("max = 100", "max = 101"), ('"F", "M"', '"M", "F"'), ("> 65", ">= 65"), ('"t"', '"u"')]:
        assert read((BASE + DERIVED).replace(before, after)).content_hash != original


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "not valid TOML"),
        ("name = 't'", "columns: Field required"),
        ("name = 't'\n[columns]", "columns: "),
        (BASE.replace("[columns.Sex]", '[columns.""]'), "a column has no name"),
        (BASE.replace("min = 0", "min = 200"), "columns.Age: min 200 is above max 100"),
        (BASE.replace("min = 0", "min = nan"), "columns.Age.min: "),
        (BASE.replace("min = 0", "min = 0.5\ninteger = true"), "columns.Age: an integer column needs whole"),
        (BASE.replace("min = 0", "mean = 0"), "columns.Age.min: Field required"),
        (BASE.replace("min = 0", "min = 0\nmean = 0"), "columns.Age.mean: "),
        (BASE.replace('"F", "M"', '"F", "F"'), "columns.Sex: a category is listed twice"),
        (BASE.replace('"F", "M"', '"F", ""'), "an empty category"),
        (BASE.replace('"F", "M"', ""), "columns.Sex.categories: "),
        (BASE.replace('"F", "M"', "0, 1"), "columns.Sex.categories.0: "),
        (BASE + 'other = "X"', "other = 'X' is not among the categories"),
        (BASE.replace('"continuous"', '"number"'), "columns.Age: "),
        ("target = 'Height'\n" + BASE, "target = 'Height' is not a column"),
        ("unit_id = 'Age'\n" + BASE, "unit_id = 'Age' must not be a column"),
        ("unit_id = ''\n" + BASE, "unit_id: "),
        ("unknown = 1\n" + BASE, "unknown: "),
        (BASE + 'derived = "sex"', "names no rule"),
        (BASE + DERIVED.replace('derived = "old"', ""), "rules.old: no column is derived by it"),
        (BASE + DERIVED.replace('"yes" }', '"si" }'), "rules.old: 'si' is not a category"),
        (BASE + DERIVED.replace("Age > 65", "Age"), "rules.old.cases.0: when = 'Age' is a number"),
        (BASE + DERIVED.replace("Age > 65", "Old == 'yes'"), "'Old' is derived itself"),
        (BASE + "[[constraints]]\ncheck = 'Age'", "constraint 'Age' is a number"),
        ('name="t"\n' + DERIVED, "every column is derived"),
    ],
)
def test_a_wrong_schema_is_refused_with_the_entry_named(text, reason):
    with pytest.raises(SchemaError) as caught:
        read(text)
    assert caught.value.code == "SCHEMA_INVALID"
    assert caught.value.exit_status is ExitStatus.USAGE
    assert caught.value.message.startswith("The schema 't.toml' is ")
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("check", ["Age < 'x'", "Age >", "Height > 3", "Sex == 'W'"])
def test_a_wrong_expression_keeps_its_own_code(check):
    with pytest.raises(SchemaError) as caught:
        read(f'{BASE}[[constraints]]\ncheck = "{check}"')
    assert caught.value.code == "EXPRESSION_INVALID"
    assert caught.value.message.startswith("The schema 't.toml' is wrong.")


def test_a_constraint_may_name_a_derived_column():
    assert read(BASE + DERIVED + "[[constraints]]\ncheck = \"Old == 'yes' implies Age > 60\"").constraints


def test_schema_files_may_have_a_byte_order_mark(tmp_path):
    path = tmp_path / "s.toml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert load_schema(path) == read(BASE)


def test_a_schema_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SchemaError) as caught:
        load_schema(tmp_path / "absent.toml")
    assert caught.value.code == "SCHEMA_NOT_FOUND"
    assert "synthea" in caught.value.hint
    (tmp_path / "latin.toml").write_bytes(BASE.encode() + b"# \xe9")
    for wrong in (tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(SchemaError) as caught:
            load_schema(wrong)
        assert caught.value.code == "SCHEMA_INVALID"
