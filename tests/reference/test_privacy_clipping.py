"""Sums of clipped gradients against Opacus, which holds the gradient of every record, each clipped by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.diffusion.process import MixedProcess
from aevorium.privacy.clipping import add_clipped_sum

LAYOUTS = [
    Layout(continuous=3, categories=(2, 2, 5), missing_of=(0, None, 1)),
    Layout(continuous=2, categories=(), missing_of=(None, None)),
    Layout(continuous=0, categories=(4, 3), missing_of=()),
]


def make_model(layout: Layout, *, seed: int) -> TabularDiffusion:
    generator = torch.Generator().manual_seed(seed)
    priors = [np.arange(1, states + 1) for states in layout.categories]
    config = DenoiserConfig(layout=layout, width=8 + 4 * seed, blocks=1 + seed)
    model = TabularDiffusion(config, priors=priors, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return model


def make_records(layout: Layout, *, count: int, seed: int) -> EncodedTable:
    generator = torch.Generator().manual_seed(seed)
    codes = [torch.randint(states, (count,), generator=generator) for states in layout.categories]
    return EncodedTable(
        values=torch.randn((count, layout.continuous), generator=generator),
        codes=torch.stack(codes, dim=1) if codes else torch.zeros((count, 0), dtype=torch.int64),
        observed=torch.rand((count, layout.continuous), generator=generator) < 0.7,
    )


def losses_of(model: nn.Module, records: EncodedTable, *, layout: Layout, draws: int) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return MixedProcess(layout).loss(model, records, draws=draws, generator=generator).mean(dim=1)


def opacus_gradients(model: nn.Module, records: EncodedTable, *, layout: Layout, draws: int) -> Tensor:
    """The gradient of each record, float64 [records, parameters]."""
    wrapped = GradSampleModule(model, loss_reduction="sum")
    losses_of(wrapped, records, layout=layout, draws=draws).sum().backward()
    rows = torch.cat([parameter.grad_sample.flatten(1) for parameter in model.parameters()], dim=1).double()
    wrapped.to_standard_module()
    for parameter in model.parameters():
        parameter.grad = None
    return rows


def added(model: nn.Module) -> Tensor:
    """What was added to the gradients, which are forgotten."""
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).double()
    model.zero_grad()
    return found


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("draws", [1, 8])
@pytest.mark.parametrize("count", [1, 37])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_sum_is_that_of_opacus(layout, count, draws, seed):
    model, records = make_model(layout, seed=seed), make_records(layout, count=count, seed=seed)
    rows = opacus_gradients(model, records, layout=layout, draws=draws)
    norms = rows.norm(dim=1, keepdim=True)
    for clip_norm in (0.1 * float(norms.median()), float(norms.median()), 2 * float(norms.max())):
        expected = (rows * (clip_norm / norms).clamp(max=1)).sum(dim=0)
        add_clipped_sum(model, lambda: losses_of(model, records, layout=layout, draws=draws), clip_norm=clip_norm)
        torch.testing.assert_close(added(model), expected, rtol=1e-4, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_records_that_overflow_contribute_zero_and_change_no_other(value):
    layout = LAYOUTS[0]
    model, records = make_model(layout, seed=1), make_records(layout, count=12, seed=1)
    rows = opacus_gradients(model, records, layout=layout, draws=8)
    clip_norm = float(rows.norm(dim=1).median())
    clipped = rows * (clip_norm / rows.norm(dim=1, keepdim=True)).clamp(max=1)
    records.values[[2, 7]] = value
    records.observed[[2, 7]] = True
    add_clipped_sum(model, lambda: losses_of(model, records, layout=layout, draws=8), clip_norm=clip_norm)
    expected = clipped[[place for place in range(12) if place not in (2, 7)]].sum(dim=0)
    torch.testing.assert_close(added(model), expected, rtol=1e-4, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_without_a_usable_record_sums_to_zero(count):
    layout = LAYOUTS[0]
    model, records = make_model(layout, seed=0), make_records(layout, count=count, seed=0)
    records.values[:] = math.nan
    records.observed[:] = True
    add_clipped_sum(model, lambda: losses_of(model, records, layout=layout, draws=2), clip_norm=1.0)
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
    assert not added(model).any()


def test_draws_that_all_but_cancel_contribute_no_more_than_the_clip():
    """Inner products of 10¹² in float32 leave nothing of a gradient of norm 100, which is a hundred times the clip."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        layer = nn.Linear(16, 16)
        first = torch.randn((1, 1, 16), generator=generator)
        other = first * (1 + 1e-4 * torch.randn((1, 1, 16), generator=generator))
        inputs, signs = torch.cat([first, other], dim=1), torch.tensor([1e5, -1e5])[None, :, None]
        add_clipped_sum(layer, lambda: (layer(inputs) * signs).sum(dim=(1, 2)), clip_norm=1.0)  # noqa: B023 - used here
        assert 0 < float(added(layer).norm()) < 1.05


@pytest.mark.parametrize("clip_norm", [1e-3, 1.0])
@pytest.mark.parametrize("draws", [1, 8])
def test_no_sizes_of_inputs_and_gradients_pass_the_clip(draws, clip_norm):
    """Squares of 1e-23 are nothing in float32; times inputs of 1e19 they are a gradient of a hundred clips."""
    generator, found = torch.Generator().manual_seed(4), []
    sizes = [(inputs, backward) for inputs in range(-30, 31, 5) for backward in range(-35, 31, 5)]
    for exponent, other in [*sizes, (18, -22.6), (19, -22.6), (19, -23)]:
        layer = nn.Linear(32, 16)
        inputs = 10.0**exponent * torch.randn((1, draws, 32), generator=generator).sign()
        backward = 10.0**other * torch.randn((1, draws, 16), generator=generator).sign()
        add_clipped_sum(layer, lambda: (layer(inputs) * backward).sum(dim=(1, 2)), clip_norm=clip_norm)  # noqa: B023 - used here
        found.append(float(added(layer).norm()) / clip_norm)
    assert max(found) < 1 + 1e-4
    # Neither are all of them taken for nothing: of gradients of usual sizes the clip is what is left.
    assert sum(share > 0.98 for share in found) > 15


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(3, 1), nn.Parameter(torch.ones(1))

    def forward(self, rows: Tensor) -> Tensor:
        return self.scale * self.layer(rows)


def test_a_model_that_the_clip_would_miss_is_refused():
    rows = torch.ones(2, 1, 3)
    scaled, layer = Scaled(), nn.Linear(3, 1)
    spare = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    with pytest.raises(TypeError, match="outside the model's linear layers"):
        add_clipped_sum(scaled, lambda: scaled(rows).sum(dim=(1, 2)), clip_norm=1.0)
    for model, losses in (
        (layer, lambda: (layer(rows) + layer(2 * rows)).sum(dim=(1, 2))),
        (spare, lambda: spare[0](rows).sum(dim=(1, 2))),
    ):
        with pytest.raises(TypeError, match="did not run exactly once"):
            add_clipped_sum(model, losses, clip_norm=1.0)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(module._forward_hooks for module in model.modules())
