"""Designs of two-way tables: a node can count what the server asks for, and its plan holds as many."""

from __future__ import annotations

import pytest

from aevorium.encoding.encoder import ColumnCode, TableEncoder
from aevorium.encoding.grid import table_grids
from aevorium.privacy.phases import plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.schema.table import TableSchema
from aevorium.server.warm_start import coarse_design, fine_design

BINS = 100


def _study(columns: int, *, categories: int) -> tuple[TableSchema, TableEncoder]:
    """Half the columns are categorical with so many categories, half are numbers; every cell has the same share."""
    listed = [f"v{number}" for number in range(categories)]
    kinds = (
        {"kind": "categorical", "categories": listed, "missing": True},
        {"kind": "continuous", "min": 0, "max": 1},
    )
    schema = TableSchema.model_validate(
        {"name": "s", "columns": {f"c{place}": kinds[place % 2] for place in range(columns)}}
    )
    codes = {
        name: ColumnCode(shares=(1 / grid.states,) * grid.states, missing=0.1 if grid.missing else None)
        for name, grid in table_grids(schema, bins=BINS).items()
    }
    return schema, TableEncoder(schema_hash=schema.content_hash, bins=BINS, columns=codes)


@pytest.mark.parametrize(("columns", "categories"), [(2, 3), (14, 1), (60, 64), (100, 200)])
def test_a_node_can_count_what_the_rules_ask_for(columns: int, categories: int) -> None:
    """Few columns and many, with so many records that nothing but the limits bounds pairs and cells."""
    schema, encoder = _study(columns, categories=categories)
    plan = StudyPlan(
        study="s", schema_hash=schema.content_hash, columns=columns, epsilon=10.0, delta=1e-5, nodes=("a",),
        min_nodes=1, rounds=1,
    )  # fmt: skip
    schedule = plan_budget(plan, records=1e9).associations
    coarse = coarse_design(encoder, schema, schedule=schedule) if schedule.candidates else None
    assert len(coarse.pairs if coarse else ()) == schedule.candidates
    fine = fine_design(encoder, schema, schedule=schedule, coarse=None, total=1e9, nodes=1)
    assert len(fine.pairs) == schedule.pairs > 0
    for design in (coarse, fine):
        assert design is None or design.problem(schema, bins=BINS) is None
