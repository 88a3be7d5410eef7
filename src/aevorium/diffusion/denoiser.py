"""`TabularDiffusion`: the network that tells clean rows from noisy ones.

It is a correction to an exact formula. If all columns were independent, Bayes' rule would give the clean row from the
noisy one without any training: `IndependentPosterior`. The network's last layer starts at zero, so an untrained model
*is* that formula, and training (most of all under privacy noise) has only dependence left to learn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from aevorium.diffusion.layout import Layout
from aevorium.diffusion.schedule import SIGMA_MAX, SIGMA_MIN
from aevorium.errors import ArtefactError

__all__ = ["DenoiserConfig", "Estimate", "TabularDiffusion", "load_vector", "named_arrays", "to_vector"]

_PRIOR_FLOOR = 1e-6
_FREQUENCIES = 8


class DenoiserConfig(BaseModel):
    """Size and shape of a model; with a vector of parameters and the priors it is the whole model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Layout = Field(description="The columns of the encoded table.")
    width: int = Field(ge=1, le=512, description="Neurons of each hidden layer.")
    blocks: int = Field(default=6, ge=1, le=12, description="Residual blocks.")

    @classmethod
    def for_layout(cls, layout: Layout) -> DenoiserConfig:
        """The default size for a table: the wider the row's vector, the wider the model."""
        return cls(layout=layout, width=64 if layout.dimension <= 24 else 128 if layout.dimension <= 160 else 256)


class Estimate(NamedTuple):
    """What a model makes of noisy rows.

    Attributes:
        values: [..., C], the expected clean value of each continuous column, given that it is observed.
        logits: [..., D - C], unnormalised log probabilities of the states, in one-hot order.
    """

    values: Tensor
    logits: Tensor


class IndependentPosterior(nn.Module):
    """Bayes' rule for columns that know nothing of each other: N(0, 1) values, states with known probabilities.

    Args:
        layout: The columns.
        priors: For each categorical column its states' probabilities (any non-negative weights will do).
    """

    log_prior: Tensor

    def __init__(self, layout: Layout, *, priors: Sequence[NDArray[np.floating]]) -> None:
        super().__init__()
        if tuple(len(prior) for prior in priors) != layout.categories:
            raise ValueError("the priors do not fit the layout's categories")
        parts = []
        for prior in priors:
            weights = torch.as_tensor(np.asarray(prior, dtype=np.float64)).clamp(min=0)
            shares = weights / weights.sum() if weights.sum() > 0 else torch.full_like(weights, 1 / len(weights))
            shares = shares.clamp(min=_PRIOR_FLOOR)
            parts.append((shares / shares.sum()).log().float())
        self.register_buffer("log_prior", torch.cat(parts) if parts else torch.zeros(0))
        self.continuous = layout.continuous

    def forward(self, noisy: Tensor, sigma: Tensor) -> Estimate:
        """The exact posterior of x = x0 + σ·n: E[x0 | x] = x / (1 + σ²), and log π_k + x_k / σ² up to a constant."""
        variance = sigma.square().unsqueeze(-1)
        values, states = noisy[..., : self.continuous], noisy[..., self.continuous :]
        return Estimate(values=values / (1 + variance), logits=self.log_prior + states / variance)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.first = _linear(width, width, gain=1.0, generator=generator)
        self.second = _linear(width, width, gain=0.5, generator=generator)

    def forward(self, hidden: Tensor, level: Tensor) -> Tensor:
        normed = layer_norm(hidden, hidden.shape[-1:])
        update: Tensor = self.second(silu(self.first(normed + level)))
        return hidden + update


class TabularDiffusion(nn.Module):
    """Estimates clean rows from noisy ones at any noise level.

    Preconditioned as in Karras et al. 2022 (section 5) with σ_data = 1: values are c_skip·x + c_out·net, logits are
    the independent posterior's plus the network's.

    Args:
        config: Size and shape.
        priors: For each categorical column the (noisy) probabilities of its states.
        generator: Source of the initial weights, on the CPU.
    """

    def __init__(
        self, config: DenoiserConfig, *, priors: Sequence[NDArray[np.floating]], generator: torch.Generator
    ) -> None:
        super().__init__()
        layout, width = config.layout, config.width
        self.config = config
        self.independent = IndependentPosterior(layout, priors=priors)
        self.inward = _linear(layout.dimension, width, gain=1.0, generator=generator)
        self.level = _linear(2 * _FREQUENCIES, width, gain=1.0, generator=generator)
        self.blocks = nn.ModuleList(_ResidualBlock(width, generator=generator) for _ in range(config.blocks))
        self.outward = _linear(width, layout.dimension, gain=0.0, generator=generator)

    @property
    def layout(self) -> Layout:
        """The columns of the encoded table."""
        return self.config.layout

    def forward(self, noisy: Tensor, sigma: Tensor) -> Estimate:
        """Estimates the clean rows.

        Args:
            noisy: [B, D] or [B, K, D], clean vectors plus σ times standard noise.
            sigma: [B] or [B, K], or any shape that broadcasts to it.
        """
        base = self.independent(noisy, sigma)
        scale = sigma.square().add(1).sqrt().unsqueeze(-1)
        level = self.level(_level_features(sigma))
        hidden = self.inward(noisy / scale) + level
        for block in self.blocks:
            hidden = block(hidden, level)
        out = self.outward(layer_norm(hidden, hidden.shape[-1:]))
        values, logits = out[..., : self.layout.continuous], out[..., self.layout.continuous :]
        return Estimate(values=base.values + sigma.unsqueeze(-1) / scale * values, logits=base.logits + logits)


def _linear(inputs: int, outputs: int, *, gain: float, generator: torch.Generator) -> nn.Linear:
    # Made without memory first: PyTorch's own initialisation would draw from its global generator.
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.normal_(0, gain / math.sqrt(inputs), generator=generator)
        layer.bias.zero_()
    return layer


def _level_features(sigma: Tensor) -> Tensor:
    """Fourier features of ln σ: half waves over the range of levels, the slowest first. [..., 2·frequencies]."""
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    position = (sigma.log() - low) / (high - low)
    waves = torch.arange(1, _FREQUENCIES + 1, device=sigma.device, dtype=sigma.dtype)
    angle = math.pi * position.unsqueeze(-1) * waves
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def to_vector(model: nn.Module) -> NDArray[np.float32]:
    """All parameters as one float32 vector, in the order of the module: what travels between server and nodes."""
    with torch.no_grad():
        flat = torch.cat([parameter.reshape(-1) for parameter in model.parameters()])
    return np.asarray(flat.float().cpu().numpy().copy(), dtype=np.float32)


def load_vector(model: nn.Module, vector: NDArray[np.float32]) -> None:
    """Sets all parameters from such a vector.

    Raises:
        ArtefactError: CHECKPOINT_MODEL_MISMATCH, if its shape is not the model's.
    """
    expected = sum(parameter.numel() for parameter in model.parameters())
    if vector.shape != (expected,):
        raise ArtefactError(
            "CHECKPOINT_MODEL_MISMATCH",
            f"The parameters do not fit the model. It takes {expected} numbers, these have shape {vector.shape}.",
        )
    start = 0
    with torch.no_grad():
        for parameter in model.parameters():
            part = torch.from_numpy(np.array(vector[start : start + parameter.numel()], dtype=np.float32))
            parameter.copy_(part.view_as(parameter))
            start += parameter.numel()


def named_arrays(config: DenoiserConfig, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The parts of such a vector by the names of the model's parameters, in their order and shapes.

    Raises:
        ArtefactError: CHECKPOINT_MODEL_MISMATCH, if its length is not the model's.
    """
    priors = [np.ones(states) for states in config.layout.categories]
    model = TabularDiffusion(config, priors=priors, generator=torch.Generator())
    load_vector(model, vector)
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
