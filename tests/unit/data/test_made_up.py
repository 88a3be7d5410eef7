"""Made-up records can be read as a node reads its own, and canaries are what they are called."""

from __future__ import annotations

import numpy as np
import pytest

from aevorium.data.made_up import CANARIES, canary, draw_records, write_records
from aevorium.data.table import read_table
from aevorium.schema.table import TableSchema, load_schema

SCHEMA = TableSchema.from_toml(
    """
name = "small"
unit_id = "Id"
[columns.Age]
kind = "continuous"
min = 18
max = 90
integer = true
[columns.Weight]
kind = "continuous"
min = -3.5
max = 150.25
missing = true
[columns.Ill]
kind = "categorical"
categories = ["yes", "no"]
missing = true
""",
    source="small.toml",
)


@pytest.mark.parametrize("schema", [SCHEMA, load_schema("synthea")], ids=["small", "synthea"])
def test_nothing_is_found_wrong_with_them(tmp_path, schema):
    generator = np.random.default_rng(0)
    records = [draw_records(schema, 200, generator=generator)]
    records += [canary(schema, kind, generator=generator) for kind in CANARIES]
    write_records(records, tmp_path / "made_up.csv", schema=schema, name="made-up")
    table = read_table(tmp_path / "made_up.csv", schema)
    assert len(table.frame) == 200 + len(CANARIES)
    assert list(table.frame) == list(schema.measured)
    for name, column in schema.numbers.items():
        assert column.min <= table.frame[name].min() < table.frame[name].max() <= column.max
        assert (table.frame[name].isna().sum() > 0) == column.missing
    assert table.unit_ids is None or table.unit_ids.is_unique


def test_canaries_lie_where_they_say(tmp_path):
    rows = {kind: canary(SCHEMA, kind, generator=np.random.default_rng(0)).iloc[0].to_list() for kind in CANARIES}
    assert rows["high"] == [90, 150.25, "no"]
    assert rows["low"] == [18, -3.5, "yes"]
    assert rows["empty"] == [90, None, None]
