"""Tables of several columns: what is counted, what a request may ask, and what comes of adding noisy ones up."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from aevorium.encoding.associations import Associations, TableDesign, count_tables
from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import count_cells
from aevorium.schema.table import TableSchema

SCHEMA = TableSchema.from_toml(
    """
name = "t"
[columns.age]
kind = "continuous"
min = 0
max = 9
integer = true
[columns.cost]
kind = "continuous"
min = 0
max = 10
missing = true
[columns.ill]
kind = "categorical"
categories = ["yes", "no", "unknown"]
missing = true
""",
    source="test",
)

BINS = 12


def make_frame(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    cost = np.round(rng.uniform(0, 10, rows), 2)
    cost[rng.random(rows) < 0.3] = np.nan
    ill = rng.integers(-1, 3, rows)
    return pd.DataFrame(
        {
            "age": rng.integers(0, 10, rows).astype(float),
            "cost": cost,
            "ill": pd.Categorical.from_codes(ill, categories=["yes", "no", "unknown"]),
        }
    )


def make_design(**changes: object) -> TableDesign:
    cells = {
        "age": (0, 0, 0, 1, 1, 1, 1, 2, 2, 2),
        "cost": (0, *[0] * 6, *[1] * 7, 2),
        "ill": (0, 1, 1, 2),
    }
    return TableDesign.model_validate({"cells": cells, "pairs": (("age", "cost"), ("ill", "age")), **changes})


def test_tables_are_the_crosstabs_of_the_groups():
    frame, design = make_frame(), make_design()
    assert design.problem(SCHEMA, bins=BINS) is None
    counts = count_tables(frame, SCHEMA, bins=BINS, design=design)
    assert len(counts) == design.size == 9 + 9
    age = np.searchsorted([2.5, 6.5], frame["age"])
    cost = np.where(frame["cost"].isna(), 2, frame["cost"] >= 5)
    ill = np.where(frame["ill"].isna(), 2, frame["ill"] != "yes")
    for part, first, second in ((counts[:9], age, cost), (counts[9:], ill, age)):
        for row in range(3):
            for column in range(3):
                assert part.reshape(3, 3)[row, column] == ((first == row) & (second == column)).sum()


TRIPLE = {"triples": (("age", "cost", "ill"),), "thirds": {"ill": (0, 0, 1, 1)}}


def test_the_table_of_a_triple_is_that_of_its_pair_for_each_cell_of_the_third():
    frame, design = make_frame(), make_design(**TRIPLE)
    assert design.problem(SCHEMA, bins=BINS) is None
    assert design.shapes == ((3, 3), (3, 3), (2, 3, 3))
    assert (len(design.tables), design.size) == (3, 36)
    counts = count_tables(frame, SCHEMA, bins=BINS, design=design)
    *_, table = Associations.from_sum(counts, design, noise=0.0).counts
    pair = make_design(pairs=(("age", "cost"),))
    is_late = (frame["ill"].isna() | (frame["ill"] == "unknown")).to_numpy()
    for cell, part in enumerate((frame[~is_late], frame[is_late])):
        assert np.array_equal(table[cell].ravel(), count_tables(part, SCHEMA, bins=BINS, design=pair))


VALUES = {"values": {"age": ((1, 2), (7, 9))}}


def test_a_table_of_values_counts_each_number_and_the_rest_together():
    frame, design = make_frame(), make_design(**TRIPLE, **VALUES)
    assert design.problem(SCHEMA, bins=BINS) is None
    assert (design.count, design.size) == (4, 36 + 6)
    released = Associations.from_sum(count_tables(frame, SCHEMA, bins=BINS, design=design), design, noise=2.0)
    counts = frame["age"].value_counts()
    others = sum(counts[number] for number in (0, 3, 4, 5, 6))
    assert released.values["age"].tolist() == [others, *(counts[number] for number in (1, 2, 7, 8, 9))]
    again = Associations.from_dict(json.loads(json.dumps(released.to_dict())))
    assert (again.design, again.noise) == (design, 2.0)
    assert all(np.array_equal(*tables) for tables in zip(again.counts, released.counts, strict=True))
    assert np.array_equal(again.values["age"], released.values["age"])


def test_a_record_more_adds_one_to_one_cell_of_each_table():
    """The sensitivity that the event of the tables states."""
    frame, design = make_frame(60), make_design(**TRIPLE, **VALUES)
    assert design.sizes == (9, 9, 18, 6)
    for place in range(len(frame)):
        without = count_tables(frame.drop(index=place), SCHEMA, bins=BINS, design=design)
        change = count_tables(frame, SCHEMA, bins=BINS, design=design) - without
        for part in np.split(change, np.cumsum(design.sizes)[:-1]):
            assert sorted(part) == [0] * (len(part) - 1) + [1]


def test_the_margins_of_tables_in_the_grid_s_own_cells_are_the_one_way_counts():
    frame, grids = make_frame(), table_grids(SCHEMA, bins=BINS)
    design = make_design(
        cells={name: tuple(range(grid.cells)) for name, grid in grids.items()}, pairs=(("age", "cost"), ("cost", "ill"))
    )
    tables = Associations.from_sum(count_tables(frame, SCHEMA, bins=BINS, design=design), design, noise=0.0).counts
    one_way = np.split(count_cells(frame, SCHEMA, bins=BINS), np.cumsum([grid.cells for grid in grids.values()])[:-1])
    assert np.array_equal(tables[0].sum(axis=1), one_way[0])
    assert np.array_equal(tables[0].sum(axis=0), one_way[1])
    assert np.array_equal(tables[1].sum(axis=0), one_way[2])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cells": {"age": (0,) * 9, "cost": (0,) * 15, "ill": (0, 0, 0, 0)}}, "grid"),
        ({"cells": {"age": (0,) * 10, "height": (0,) * 10}, "pairs": ()}, "grid"),
        ({"cells": {"age": (0, 2) * 5, "cost": (0,) * 15, "ill": (0, 0, 0, 0)}}, "gap"),
        ({"cells": {"age": (-1, 0) * 5, "cost": (0,) * 15, "ill": (0, 0, 0, 0)}}, "gap"),
        ({"pairs": (("age", "age"),)}, "itself"),
        ({"pairs": (("age", "height"),)}, "without cells"),
        ({"pairs": (("age", "cost"), ("cost", "age"))}, "twice"),
        ({"triples": (("age", "cost", "ill"),)}, "without cells"),
        ({"triples": (("age", "ill", "ill"),), "thirds": {"ill": (0, 0, 1, 1)}}, "itself"),
        ({"triples": (("age", "height", "ill"),), "thirds": {"ill": (0, 0, 1, 1)}}, "without cells"),
        ({"triples": (("age", "cost", "ill"), ("cost", "age", "ill")), "thirds": {"ill": (0, 0, 1, 1)}}, "twice"),
        ({**TRIPLE, "thirds": {"ill": (0, 1, 1)}}, "grid"),
        ({**TRIPLE, "thirds": {"ill": (0, 0, 2, 2)}}, "gap"),
        ({**TRIPLE, "thirds": {"ill": (0, 0, 1, 1), "height": (0,)}}, "grid"),
        ({"values": {"height": ((0, 1),)}}, "no column"),
        ({"values": {"ill": ((0, 1),)}}, "whole numbers"),
        ({"values": {"cost": ((0, 1),)}}, "whole numbers"),
        ({"values": {"age": ()}}, "bounds"),
        ({"values": {"age": ((-1, 2),)}}, "bounds"),
        ({"values": {"age": ((5, 10),)}}, "bounds"),
        ({"values": {"age": ((3, 2),)}}, "bounds"),
        ({"values": {"age": ((5, 7), (1, 2))}}, "disjoint"),
        ({"values": {"age": ((1, 5), (5, 7))}}, "disjoint"),
    ],
)
def test_what_a_node_cannot_count_is_said(changes: dict[str, object], reason: str):
    assert reason in (make_design(**changes).problem(SCHEMA, bins=BINS) or "")


def test_a_request_for_too_many_cells_is_a_problem():
    text = "".join(
        f'[columns.c{number}]\nkind = "continuous"\nmin = 0\nmax = 1000\ninteger = true\n' for number in range(13)
    )
    schema = TableSchema.from_toml(f'name = "wide"\n{text}', source="test")
    names = list(schema.measured)
    cells = {name: tuple(np.minimum(np.arange(1001), 127).tolist()) for name in names}
    pairs = tuple((first, second) for place, first in enumerate(names) for second in names[place + 1 :])
    assert TableDesign(cells=cells, pairs=pairs[:60]).problem(schema, bins=1001) is None
    assert "too many" in (TableDesign(cells=cells, pairs=pairs).problem(schema, bins=1001) or "")
    thirds = {"c12": tuple(np.minimum(np.arange(1001), 127).tolist())}
    triple = TableDesign(cells=cells, pairs=(), triples=(("c0", "c1", "c12"),), thirds=thirds)
    assert "too many" in (triple.problem(schema, bins=1001) or "")
    cells["c0"] = tuple(range(1001))
    assert "too many" in (TableDesign(cells=cells, pairs=()).problem(schema, bins=1001) or "")


def test_noise_of_independent_nodes_adds_up_in_quadrature():
    design = make_design()
    merged = Associations.from_sum(np.arange(18) * 4, design, noise=6.0)
    assert merged.noise == pytest.approx(6.0)
    assert np.array_equal(merged.counts[0], 4 * np.arange(9).reshape(3, 3))
    assert Associations.from_sum(np.empty(0, dtype=np.int64), make_design(pairs=()), noise=1.0).counts == ()
