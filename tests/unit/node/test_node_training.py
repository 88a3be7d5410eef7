"""A node computes records in parts of the size that was found to keep them apart, and tries that before it pays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.federation.protocol import TrainingSettings
from aevorium.node import training
from aevorium.node.training import noisy_gradient, noisy_loss, try_device
from aevorium.privacy.entropy import os_generator
from aevorium.privacy.mechanisms import OsNoise
from aevorium.privacy.schedule import CellNoise, TrainingSchedule
from aevorium.privacy.separation import PART

CPU = torch.device("cpu")
LAYOUT = Layout(continuous=2, categories=(3,), missing_of=(None, None))


def make_model() -> TabularDiffusion:
    config = DenoiserConfig(layout=LAYOUT, width=16, blocks=1)
    return TabularDiffusion(config, priors=[np.ones(3)], generator=torch.Generator().manual_seed(0))


def make_records() -> EncodedTable:
    generator = torch.Generator().manual_seed(1)
    return EncodedTable(
        values=torch.randn((9, 2), generator=generator),
        codes=torch.randint(3, (9, 1), generator=generator),
        observed=torch.ones((9, 2), dtype=torch.bool),
    )


def make_schedule(*, noise: float) -> TrainingSchedule:
    return TrainingSchedule(
        sampling_rate=1.0,
        steps=1,
        rounds=1,
        noise_multiplier=noise,
        expected_batch=9.0,
        loss=CellNoise(sigma=noise),
        shares=None,
    )


@pytest.fixture
def tried(monkeypatch) -> list[int]:
    """The draws for which this device, which does not keep records apart, was tried."""
    draws_tried: list[int] = []

    def one(config: DenoiserConfig, *, draws: int, device: torch.device) -> int:
        draws_tried.append(draws)
        return 1

    monkeypatch.setattr(training, "part_size", one)
    return draws_tried


@pytest.mark.parametrize(("noise", "part"), [(1.0, 1), (0.0, PART)])
def test_records_are_taken_one_by_one_where_the_device_asks_for_it_and_noise_protects_them(
    noise, part, tried, monkeypatch
):
    taken = []
    original = EncodedTable.filled_to

    def filled_to(self, rows):
        taken.append(rows)
        return original(self, rows)

    monkeypatch.setattr(EncodedTable, "filled_to", filled_to)
    model, schedule, settings = make_model(), make_schedule(noise=noise), TrainingSettings(draws=4)
    noisy_gradient(model, make_records(), schedule=schedule, settings=settings, generator=os_generator, device=CPU)
    noisy_loss(model, make_records(), schedule=schedule, noise=OsNoise(), generator=os_generator, device=CPU)
    assert set(taken) == {part}
    assert len(taken) == (18 if part == 1 else 2)


def test_gradients_and_losses_are_both_tried_before_a_round_and_nothing_without_noise(tried):
    settings = TrainingSettings(draws=4)
    try_device(make_model(), schedule=make_schedule(noise=1.0), device=CPU, settings=settings)
    assert sorted(tried) == [4, 8]
    tried.clear()
    try_device(make_model(), schedule=make_schedule(noise=1.0), device=CPU)
    assert tried == [8]
    tried.clear()
    try_device(make_model(), schedule=make_schedule(noise=0.0), device=CPU, settings=settings)
    assert tried == []
