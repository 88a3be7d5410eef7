"""What docs/SCHEMA.md and the examples show is what the schema accepts."""

import re
from pathlib import Path

import pandas as pd
import pytest

from aevorium.errors import SchemaError
from aevorium.schema.expression import parse_expression
from aevorium.schema.rules import derive
from aevorium.schema.table import Categorical, Continuous, TableSchema, load_schema

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "SCHEMA.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)


def test_the_document_shows_a_complete_schema_and_more():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS)
def test_every_schema_shown_is_valid(block):
    assert TableSchema.from_toml(block, source="docs/SCHEMA.md").columns


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_valid_and_has_a_target(path):
    assert load_schema(path).target is not None


@pytest.mark.parametrize("model", [TableSchema, Continuous, Categorical])
def test_every_entry_is_explained(model):
    for name in model.model_fields:
        if name not in ("kind", "columns", "rules"):
            assert f"`{name}`" in DOCUMENT or f"[[{name}]]" in DOCUMENT


def test_the_patient_of_the_text_is_computed_as_it_says():
    schema = TableSchema.from_toml(BLOCKS[0], source="docs/SCHEMA.md")
    patient = {"Age": 71.0, "Sex": "male", "Height": 2.0, "Weight": 120.0, "HbA1c": float("nan"), "ICD-10": "E10"}
    derived = derive(pd.DataFrame([{**patient, "Insulin": "full"}]), schema)
    assert derived["Burden"].tolist() == ["high"]
    assert derived["Control"].tolist() == ["unknown"]
    assert derived["BMI"].tolist() == [30.0]


@pytest.mark.parametrize(
    "text",
    [
        "Diagnosis in ['Diabetes', 'Cancer']",
        "Stage not in [3, 4]",
        "HbA1c is missing",
        "HbA1c is not missing",
        "Name == 'Crohn''s'",
        "`ICD-10` == 'E10'",
        "Age * 0.5 + 1e6 - -Age / 65 > 0",
    ],
)
def test_every_form_of_an_expression_that_is_shown_is_understood(text):
    assert parse_expression(text).is_condition


def test_the_words_said_to_be_reserved_are():
    words = re.search(r"The words `([a-z ]+)` are reserved", DOCUMENT)
    assert words is not None
    for word in words[1].split():
        with pytest.raises(SchemaError, match=r"not expected|too early"):
            parse_expression(f"{word} == 3")
        assert parse_expression(f"`{word}` == 3").columns == {word}
