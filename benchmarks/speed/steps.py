"""Training steps on made-up records, in a process of its own: their time side by side, or the memory of one kind.

python -m benchmarks.speed.steps --kinds private plain hooks --batch 650 --steps 4 --repetitions 9

`private` is the product's step (ghost clipping), `plain` the product's step without clip and noise, `hooks` the same
private step with a gradient of every record kept, as `GradSampleModule` of Opacus does it. All take the same records,
the same number of draws a record and the same model. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.diffusion.process import MixedProcess
from aevorium.privacy.training import TrainingPlan, train_privately

_LAYOUT = Layout(continuous=6, categories=(9, 7, 15, 6, 5, 2, 42, 2), missing_of=(None,) * 6)
"""That of Adult: six numbers, eight categories with 88 states."""

_CLIP, _NOISE, _RATE = 1.0, 1.0, 1e-3


def make_records(count: int) -> EncodedTable:
    """Records drawn at random; what they say does not change how long a step takes."""
    generator = torch.Generator().manual_seed(0)
    codes = [torch.randint(states, (count,), generator=generator) for states in _LAYOUT.categories]
    return EncodedTable(
        values=torch.randn((count, _LAYOUT.continuous), generator=generator),
        codes=torch.stack(codes, dim=1),
        observed=torch.ones((count, _LAYOUT.continuous), dtype=torch.bool),
    )


def make_model() -> TabularDiffusion:
    """The product's model for this layout."""
    priors = [np.ones(states) for states in _LAYOUT.categories]
    config = DenoiserConfig.for_layout(_LAYOUT)
    return TabularDiffusion(config, priors=priors, generator=torch.Generator().manual_seed(0))


def train_product(records: EncodedTable, *, steps: int, draws: int, noise: float) -> None:
    """The product's own training; every record is in every step."""
    plan = TrainingPlan(
        sampling_rate=1.0,
        steps=steps,
        noise_multiplier=noise,
        expected_batch=float(len(records)),
        clip_norm=_CLIP,
        draws=draws,
        learning_rate=_RATE,
        ema_decay=0.99,
    )
    train_privately(make_model(), records, plan=plan, generator=lambda: torch.Generator().manual_seed(1))


def train_with_hooks(records: EncodedTable, *, steps: int, draws: int, chunk: int) -> None:
    """The same steps with a gradient of every record of a chunk in memory."""
    model, process = make_model(), MixedProcess(_LAYOUT)
    wrapped = GradSampleModule(model, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.Adam(wrapped.parameters(), lr=_RATE, foreach=True),
        noise_multiplier=_NOISE,
        max_grad_norm=_CLIP,
        expected_batch_size=len(records),
        loss_reduction="mean",
        generator=torch.Generator().manual_seed(1),
    )
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        parts = torch.arange(len(records)).split(chunk)
        for number, part in enumerate(parts, start=1):
            optimizer.signal_skip_step(do_skip=number < len(parts))
            process.loss(wrapped, records.select(part), draws=draws, generator=generator).mean(dim=1).sum().backward()
            optimizer.step()
            optimizer.zero_grad()


def trainer(kind: str, records: EncodedTable, *, steps: int, draws: int) -> Callable[[], None]:
    """The training of a kind, ready to run."""
    if kind == "hooks":
        return lambda: train_with_hooks(records, steps=steps, draws=draws, chunk=1024)
    noise = _NOISE if kind == "private" else 0.0
    return lambda: train_product(records, steps=steps, draws=draws, noise=noise)


def main() -> None:
    """Measures each kind in turn, again and again, so that a busy machine slows all alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=["private", "plain", "hooks"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=1)
    given = parser.parse_args()
    records = make_records(given.batch)
    kinds = {kind: trainer(kind, records, steps=given.steps, draws=given.draws) for kind in given.kinds}
    for train in kinds.values():
        train()  # the first time also loads and compiles
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(given.repetitions):
        for kind, train in kinds.items():
            began = time.process_time()
            train()
            seconds[kind].append((time.process_time() - began) / given.steps)
    # Linux counts kilobytes, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    answer = {
        "batch": given.batch,
        "draws": given.draws,
        "parameters": sum(parameter.numel() for parameter in make_model().parameters()),
        "seconds": {kind: statistics.median(values) for kind, values in seconds.items()},
        "spread": {kind: [min(values), max(values)] for kind, values in seconds.items()},
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
