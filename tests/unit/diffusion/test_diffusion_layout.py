from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from aevorium.diffusion.layout import EncodedTable, Layout


def test_a_row_is_its_values_and_then_a_block_for_each_category():
    layout = Layout(continuous=2, categories=(2, 3, 1), missing_of=(0, None))
    assert layout.columns == 5
    assert layout.dimension == 8
    assert layout.blocks == (slice(0, 2), slice(2, 5), slice(5, 6))


@pytest.mark.parametrize(
    "layout",
    [Layout(continuous=1, categories=(), missing_of=(None,)), Layout(continuous=0, categories=(4,), missing_of=())],
)
def test_one_kind_of_column_is_enough(layout):
    assert layout.columns == 1
    assert Layout.model_validate_json(layout.model_dump_json()) == layout


@pytest.mark.parametrize(
    "entries",
    [
        {"continuous": 0, "categories": (), "missing_of": ()},
        {"continuous": -1, "categories": (2,), "missing_of": ()},
        {"continuous": 1, "categories": (2,), "missing_of": ()},
        {"continuous": 0, "categories": (0,), "missing_of": ()},
        {"continuous": 1, "categories": (3,), "missing_of": (0,)},
        {"continuous": 1, "categories": (2,), "missing_of": (1,)},
        {"continuous": 1, "categories": (2,), "missing_of": (-1,)},
        {"continuous": 1, "categories": (2,), "missing_of": (0,), "more": 1},
    ],
)
def test_impossible_layouts_are_refused(entries):
    with pytest.raises(ValidationError):
        Layout(**entries)


def test_a_table_copies_its_arrays_and_selects_in_the_order_asked():
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    table = EncodedTable.from_arrays(
        values, codes=np.array([[0], [1], [2]]), observed=np.array([[True, False], [True, True], [False, True]])
    )
    values[:] = -1
    picked = table.select(torch.tensor([2, 0, 2]))
    assert len(table) == 3
    assert picked.values.tolist() == [[4, 5], [0, 1], [4, 5]]
    assert picked.codes.tolist() == [[2], [0], [2]]
    assert picked.observed.tolist() == [[False, True], [True, False], [False, True]]
    assert len(table.select(torch.zeros(0, dtype=torch.int64))) == 0
