"""What a record contributes depends on no other record, to the last bit.

A clip bounds what one record changes only if it does not change what the others contribute. In exact arithmetic it does
not. In floating point, how a row is computed may depend on how many rows there are and on its place among them: a
product of matrices takes the rows that are left over another way, and so does a function of each number where a
thread's part of them ends. That is a matter of the last bit; but whoever chooses the model can make it one of the sign
of a gradient, and one record more would then turn those of others.

So records are computed in parts of always the same size, filled up with rows that do not count, and by one thread.
Whether rows are then computed alike is tried out, once for each shape of a model and without reading a record. Where
they are not, each record is computed by itself, which needs no trial and takes some twenty times as long.
"""

from __future__ import annotations

import logging
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion
from aevorium.diffusion.layout import EncodedTable
from aevorium.diffusion.process import MixedProcess
from aevorium.threads import one_thread

__all__ = ["PART", "part_size"]

_log = logging.getLogger(__name__)

PART = 128
"""Records of one pass. A multiple of what kernels take at once, whatever the number of draws."""

_TRIED = 8
"""Rows that are each tried in every place: where two ways of computing differ, they do not for every number."""


def part_size(config: DenoiserConfig, *, draws: int, device: torch.device) -> int:
    """How many records one pass may take, so that none touches another: `PART`, or 1.

    Reads no record. The first time for a shape it takes as long as a few steps.

    Args:
        config: Size and shape of the model.
        draws: Draws of noise per record.
        device: Where to compute.
    """
    with one_thread():
        is_alike = _computes_alike(config, draws=draws, device=str(device))
    return PART if is_alike else 1


@lru_cache(maxsize=64)
def _computes_alike(config: DenoiserConfig, *, draws: int, device: str) -> bool:
    generator = torch.Generator().manual_seed(0)
    priors = [np.ones(states) for states in config.layout.categories]
    model = TabularDiffusion(config, priors=priors, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            # An untrained model's last layer is zero: nothing would reach the others on the way back.
            parameter.normal_(0, 1 / np.sqrt(config.width), generator=generator)
    model.to(device)
    is_alike = all(_is_alike(model, draws=draws, generator=generator, device=device) for _ in range(_TRIED))
    if not is_alike:
        _log.warning(
            "private training takes records one at a time, which is slow: with a model of width %d, this %s computes a"
            " row differently by its place among others",
            config.width,
            torch.device(device).type,
        )
    return is_alike


def _is_alike(model: TabularDiffusion, *, draws: int, generator: torch.Generator, device: str) -> bool:
    """Whether one row, in all places of a part, has the same loss, inputs and gradients in each."""
    layout = model.layout
    codes = [torch.randint(states, (1,), generator=generator) for states in layout.categories]
    row = EncodedTable(
        values=torch.randn((1, layout.continuous), generator=generator),
        codes=torch.stack(codes, dim=1) if codes else torch.zeros((1, 0), dtype=torch.int64),
        observed=torch.ones((1, layout.continuous), dtype=torch.bool),
    )
    sigma = torch.rand((1, draws), generator=generator) + 0.1
    noise = torch.randn((1, draws, layout.dimension), generator=generator)
    seen: list[Tensor] = []
    outputs: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(inputs[0].detach())
        outputs.append(output)

    hooks = [layer.register_forward_hook(note) for layer in model.modules() if isinstance(layer, nn.Linear)]
    try:
        losses = MixedProcess(layout).loss_at(
            model,
            row.select(torch.zeros(PART, dtype=torch.int64)).to(torch.device(device)),
            sigma=sigma.expand(PART, -1).contiguous().to(device),
            noise=noise.expand(PART, -1, -1).contiguous().to(device),
        )
    finally:
        for hook in hooks:
            hook.remove()
    each = losses.mean(dim=1)
    backward = torch.autograd.grad(each.sum(), outputs)
    return all(torch.equal(numbers, numbers[:1].expand_as(numbers)) for numbers in (each, *seen, *backward))
