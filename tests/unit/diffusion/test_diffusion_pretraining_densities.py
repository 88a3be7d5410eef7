"""Pre-training on the mean of several densities."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from aevorium.diffusion import pretraining
from aevorium.diffusion.pretraining import Density, Pretraining, pretrain


def test_each_density_has_as_many_steps_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the model would learn some of the surrogate's fits more than others, and not their mean."""
    model, seen = torch.nn.Linear(2, 1), Counter[int]()

    def loss(model: torch.nn.Linear, density: Density, **_: object) -> torch.Tensor:
        seen[id(density)] += 1
        return model.weight.square().sum()

    monkeypatch.setattr(pretraining, "expectation_loss", loss)
    densities = [Density(rows=None, posterior=None) for _ in range(4)]
    pretrain(model, densities, plan=Pretraining(steps=12), generator=torch.Generator(), advance=lambda done: None)
    assert [seen[id(density)] for density in densities] == [3, 3, 3, 3]
