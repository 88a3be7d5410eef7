"""Rows are computed alike in every place of a part; where they are not, each record is computed by itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aevorium.diffusion.denoiser import DenoiserConfig
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.diffusion.process import MixedProcess
from aevorium.privacy import separation
from aevorium.privacy.separation import PART, part_size

CPU = torch.device("cpu")
LAYOUTS = [
    Layout(continuous=9, categories=(2, 3, 5, 4, 2, 2), missing_of=(0, None, 4, None, None, None, None, None, 5)),
    Layout(continuous=7, categories=(), missing_of=(None,) * 7),
    Layout(continuous=0, categories=(50, 2, 9), missing_of=()),
    Layout(continuous=30, categories=(6,) * 30, missing_of=(None,) * 30),
]


@pytest.mark.parametrize("draws", [1, 3, 8, 32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_models_of_the_recipe_s_own_width_compute_all_rows_alike(layout, draws):
    assert part_size(DenoiserConfig.for_layout(layout), draws=draws, device=CPU) == PART


def test_a_device_whose_last_rows_differ_by_a_bit_computes_records_one_by_one(monkeypatch, caplog):
    original = nn.functional.silu

    def silu(numbers):
        found = original(numbers)
        factors = torch.ones(found.numel())
        factors[-3:] += torch.finfo(torch.float32).eps
        return found * factors.view_as(found)

    monkeypatch.setattr("aevorium.diffusion.denoiser.silu", silu)
    config = DenoiserConfig(layout=LAYOUTS[0], width=96, blocks=1)
    separation._computes_alike.cache_clear()
    for _ in range(2):
        assert part_size(config, draws=2, device=CPU) == 1
    assert [entry.getMessage() for entry in caplog.records] == [
        "private training takes records one at a time, which is slow: with a model of width 96, this cpu computes a row"
        " differently by its place among others"
    ]
    separation._computes_alike.cache_clear()


def test_records_come_first_in_a_part_and_the_rest_is_nothing_observed():
    layout = LAYOUTS[0]
    part = EncodedTable(
        values=torch.ones((5, 9)), codes=torch.ones((5, 6), dtype=torch.int64), observed=torch.ones((5, 9)).bool()
    )
    full = part.filled_to(PART)
    assert len(full) == PART
    for whole, own in ((full.values, part.values), (full.codes, part.codes), (full.observed, part.observed)):
        assert torch.equal(whole[:5], own)
        assert not whole[5:].any()
    losses = MixedProcess(layout).softmax.clean(full.codes)
    assert losses.shape == (PART, sum(layout.categories))
