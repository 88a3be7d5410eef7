"""A running average of a model's weights: what is kept of a training whose steps are noisy."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["RunningAverage"]


class RunningAverage:
    """An exponential average of the weights, short at the start.

    Args:
        model: The model.
        decay: Decay of the average in the long run.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._weights = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after a step, the first being 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for weight, parameter in zip(self._weights, self._model.parameters(), strict=True):
            weight.lerp_(parameter, 1 - decay)

    def vector(self) -> NDArray[np.float32]:
        """The average as one float32 vector, in the order of the module; the model stays as it is."""
        flat = torch.cat([weight.reshape(-1) for weight in self._weights])
        return np.asarray(flat.float().cpu().numpy().copy(), dtype=np.float32)

    @torch.no_grad()
    def store(self) -> None:
        """Makes the average the model's weights."""
        for weight, parameter in zip(self._weights, self._model.parameters(), strict=True):
            parameter.copy_(weight)
