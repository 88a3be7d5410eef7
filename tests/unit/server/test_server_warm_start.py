"""Designs of two-way tables: a node can count what the server asks for, and its plan holds as many."""

from __future__ import annotations

import numpy as np
import pytest

from aevorium.encoding.associations import TableDesign
from aevorium.encoding.columns import ColumnCode
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import TableStatistics
from aevorium.privacy.phases import plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.privacy.schedule import AssociationSchedule
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


def _statistics(schema: TableSchema, encoder: TableEncoder, *, total: float) -> TableStatistics:
    """What nodes without noise would say of so many records."""
    counts = {name: np.rint(encoder.grid_shares(name) * total).astype(np.int64) for name in schema.measured}
    return TableStatistics(bins=encoder.bins, counts=counts, noise=0.0)


@pytest.mark.parametrize(("columns", "categories"), [(2, 3), (14, 1), (60, 64), (100, 200)])
def test_a_node_can_count_what_the_rules_ask_for(columns: int, categories: int) -> None:
    """Few columns and many, with so many records that nothing but the limits bounds pairs and cells."""
    schema, encoder = _study(columns, categories=categories)
    plan = StudyPlan(
        study="s", schema_hash=schema.content_hash, columns=columns, epsilon=10.0, delta=1e-5, nodes=("a",),
        min_nodes=1, rounds=1,
    )  # fmt: skip
    schedule = plan_budget(plan, records=1e9).associations
    coarse = None
    if schedule.candidates:
        coarse = coarse_design(encoder, schema, schedule=schedule, total=1e9, nodes=1)
    assert len(coarse.pairs if coarse else ()) == schedule.candidates
    statistics = _statistics(schema, encoder, total=1e9)
    fine = fine_design(
        encoder, schema, statistics=statistics, schedule=schedule, signal=1e10, coarse=None, total=1e9, nodes=1
    )
    assert len(fine.pairs) == schedule.pairs > 0
    for design in (coarse, fine):
        assert design is None or design.problem(schema, bins=BINS) is None


@pytest.mark.parametrize("records", [1e4, 1e9])
def test_tables_of_values_take_the_place_of_others(records: float) -> None:
    """Columns of whole numbers with one bin far above those around it: the plan's number of tables stays."""
    amount = {"kind": "continuous", "min": 0, "max": 99_999, "integer": True}
    schema = TableSchema.model_validate(
        {
            "name": "s",
            "target": "ill",
            "columns": {
                **{f"c{place}": amount for place in range(9)},
                "ill": {"kind": "categorical", "categories": ["yes", "no"]},
            },
        }
    )
    plan = StudyPlan(
        study="s", schema_hash=schema.content_hash, columns=10, has_target=True, epsilon=10.0, delta=1e-5, nodes=("a",),
        min_nodes=1, rounds=1,
    )  # fmt: skip
    codes = {}
    for name, grid in table_grids(schema, bins=BINS).items():
        shares = np.ones(grid.states)
        shares[grid.states // 2] = 100.0 if name in ("c2", "c5") else 1.0
        codes[name] = ColumnCode(shares=tuple(shares / shares.sum()), missing=None)
    encoder = TableEncoder(schema_hash=schema.content_hash, bins=BINS, columns=codes)
    schedule = plan_budget(plan, records=records).associations

    def design_of(signal: float) -> TableDesign:
        return fine_design(
            encoder, schema, statistics=_statistics(schema, encoder, total=records), schedule=schedule, signal=signal,
            coarse=None, total=records, nodes=1,
        )  # fmt: skip

    assert not design_of(99_000).values
    design = design_of(10 * records)
    assert sorted(design.values) == ["c2", "c5"]
    assert design.count == schedule.count
    # Where every pair has a table, no pair gives its place.
    every_pair = 45
    assert len(design.pairs) == (every_pair if schedule.pairs == every_pair else schedule.pairs - 2)
    assert design.problem(schema, bins=BINS) is None


def _planned(
    schema: TableSchema, encoder: TableEncoder, *, epsilon: float, records: float
) -> tuple[AssociationSchedule, TableDesign]:
    """The plan's tables and those that are asked for, of a study of one node."""
    plan = StudyPlan(
        study="s", schema_hash=schema.content_hash, columns=len(schema.measured), epsilon=epsilon, delta=1e-5,
        nodes=("a",), min_nodes=1, rounds=1,
    )  # fmt: skip
    schedule = plan_budget(plan, records=records).associations
    statistics = _statistics(schema, encoder, total=records)
    design = fine_design(
        encoder, schema, statistics=statistics, schedule=schedule, signal=records * epsilon, coarse=None,
        total=records, nodes=1,
    )  # fmt: skip
    return schedule, design


@pytest.mark.parametrize("columns", [5, 12, 30])
def test_a_narrow_column_has_a_table_of_its_numbers_in_the_place_of_another(columns: int) -> None:
    """At any signal: of bounds of a thousand years two bins are in use."""
    year = {"kind": "continuous", "min": 1500, "max": 2500, "integer": True}
    kinds = {f"c{place}": {"kind": "categorical", "categories": ["a", "b"]} for place in range(columns - 1)}
    schema = TableSchema.model_validate({"name": "s", "columns": {"year": year, **kinds}})
    codes = {}
    for name, grid in table_grids(schema, bins=BINS).items():
        shares = np.full(grid.states, 1 / grid.states)
        if name == "year":
            shares = np.zeros(grid.states)
            shares[[grid.states // 2, grid.states // 2 + 1]] = 0.5
        codes[name] = ColumnCode(shares=tuple(shares), missing=None)
    encoder = TableEncoder(schema_hash=schema.content_hash, bins=BINS, columns=codes)
    schedule, design = _planned(schema, encoder, epsilon=1.0, records=20_000)
    assert list(design.values) == ["year"]
    assert design.count == schedule.count
    assert design.problem(schema, bins=BINS) is None


def test_tables_of_many_narrow_columns_are_no_more_than_a_node_counts() -> None:
    """Forty columns in a bin of a hundred thousand numbers each would have four times the cells."""
    amount = {"kind": "continuous", "min": 0, "max": 8_000_000, "integer": True}
    schema = TableSchema.model_validate({"name": "s", "columns": {f"c{place}": amount for place in range(40)}})
    codes = {}
    for name, grid in table_grids(schema, bins=BINS).items():
        shares = np.zeros(grid.states)
        wide = np.flatnonzero((grid.high - grid.low > 50_000) & (grid.high - grid.low < 100_000))
        shares[wide[-1]] = 1.0
        codes[name] = ColumnCode(shares=tuple(shares), missing=None, is_constant=True)
    encoder = TableEncoder(schema_hash=schema.content_hash, bins=BINS, columns=codes)
    schedule, design = _planned(schema, encoder, epsilon=10.0, records=1e6)
    assert 1 < len(design.values) < 40
    assert design.count == schedule.count
    assert design.problem(schema, bins=BINS) is None
