"""The sum of clipped gradients from one forward and one backward pass (Bu et al. 2023, "book-keeping").

A record's gradient of a linear layer's weight is Σ_k b_k a_kᵀ over its K draws, where a_k is what went into the layer
and b_k the gradient of what came out. Its squared norm, with that of the bias, is Σ_kl ⟨b_k, b_l⟩ (⟨a_k, a_l⟩ + 1): two
K x K matrices of inner products, and no gradient of a single record (ghost clipping, Li et al. 2022). The same a and b,
the latter times the record's clip, then give the sum over records in one product. Ghost clipping as Opacus has it runs
a second backward pass for that, which costs half as much again as the whole step without privacy.

This is exact for models whose every parameter is that of a linear layer, with a bias, that runs once, and in which no
record touches another; the former is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["add_clipped_sum"]


class _Call(NamedTuple):
    layer: nn.Linear
    input: Tensor
    output: Tensor


_LARGEST = 1e8
"""A record for which more than that enters a layer, or comes back to it, as a norm, contributes zero. Beside it the
smallest numbers of float32 do not matter: a gradient whose square vanishes there, below 3e-23, makes less than 1e-10 of
the smallest clip. Without it, times inputs of 1e19, it would make a hundred clips."""


def add_clipped_sum(
    model: nn.Module, losses: Callable[[], Tensor], *, clip_norm: float, records: int | None = None
) -> None:
    """Adds to `grad` the sum over records of their gradients, each clipped. Reads patient records; it must get noise.

    A record whose loss or gradient is no finite number, or is made of huge ones, contributes zero, which is within the
    clip, and the others what they would without it.

    Args:
        model: The model, in training mode.
        losses: Runs the model once, on inputs [B, K, ...], and returns the loss of each record, [B].
        clip_norm: Largest norm of a record's gradient.
        records: So many of the B are records; those after them fill up. All are if None.

    Raises:
        TypeError: The model has a parameter outside its linear layers, or a layer did not run exactly once.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if {id(own) for layer in layers for own in layer.parameters()} != {id(own) for own in model.parameters()}:
        raise TypeError("the clip would be wrong: a parameter lies outside the model's linear layers")
    calls: list[_Call] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            calls.append(_Call(layer, inputs[0].detach(), output))

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        each = losses()
    finally:
        for hook in hooks:
            hook.remove()
    if sorted(id(call.layer) for call in calls) != sorted(id(layer) for layer in layers):
        raise TypeError("the clip would be wrong: a layer of the model did not run exactly once")
    backward = torch.autograd.grad(each.sum(), [call.output for call in calls])
    with torch.no_grad():
        found = [_squared_norm(call.input, back) for call, back in zip(calls, backward, strict=True)]
        norm = torch.stack([square for square, _ in found]).sum(dim=0).sqrt()
        clip = (clip_norm / norm).clamp(max=1.0)
        sound = torch.isfinite(norm) & torch.isfinite(each) & torch.stack([small for _, small in found]).all(dim=0)
        if records is not None:
            sound[records:] = False
        for call, back in zip(calls, backward, strict=True):
            _add(call, back, clip=clip, sound=sound)


def _squared_norm(inputs: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
    """Of each record's gradient of weight and bias together, [B]; never below the true one, for records in range.

    Where the gradients of draws all but cancel each other, rounding may leave a norm of nearly nothing, and the record
    would contribute more than the clip. What float32 may lose is therefore added: n products and sums lose at most n
    units of the last place, as a share of Σ_kl ‖b_k‖‖b_l‖‖a_k‖‖a_l‖ ≤ K Σ_k ‖b_k‖²‖a_k‖².

    Returns:
        The squared norms, and whether all of a record's numbers are in range, bool [B].
    """
    of_inputs = torch.bmm(inputs, inputs.mT) + 1
    of_backward = torch.bmm(backward, backward.mT)
    products = (of_inputs * of_backward).sum(dim=(1, 2)).clamp(min=0)
    lengths = of_inputs.diagonal(dim1=1, dim2=2), of_backward.diagonal(dim1=1, dim2=2)
    sizes = (lengths[0] * lengths[1]).sum(dim=1)
    draws = inputs.shape[1]
    terms = inputs.shape[2] + backward.shape[2] + draws**2
    is_small = torch.stack(lengths).amax(dim=(0, 2)) <= _LARGEST**2
    return products + terms * torch.finfo(products.dtype).eps * draws * sizes, is_small


def _add(call: _Call, backward: Tensor, *, clip: Tensor, sound: Tensor) -> None:
    inputs = call.input
    if not sound.all():
        inputs, backward, clip = inputs[sound], backward[sound], clip[sound]
    weighted = (backward * clip[:, None, None]).flatten(0, 1)
    weight, bias = call.layer.weight, call.layer.bias
    if weight.grad is None or bias.grad is None:
        weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
    weight.grad.addmm_(weighted.T, inputs.flatten(0, 1))
    bias.grad.add_(weighted.sum(dim=0))
