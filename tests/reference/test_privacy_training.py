"""DP-SGD as it runs against DP-SGD as it is written: a loop over records, each gradient clipped by itself.

Adam would hide the gradient (its first step is the sign), so these tests put plain descent with step size 1 in its
place: what a step changes is then the noisy sum over the expected batch.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion, load_vector, to_vector
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.diffusion.process import MixedProcess
from aevorium.privacy import training
from aevorium.privacy.separation import PART, part_size
from aevorium.privacy.training import TrainingPlan, clipped_gradient_sum, record_losses, train_privately

LAYOUT = Layout(continuous=2, categories=(2, 3), missing_of=(0, None))
NEXT_TO_NONE = 1e-12
BATCHES, NOISE, DRAWS = 11, 12, 13


@pytest.fixture(autouse=True)
def _plain_descent(monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, lr, foreach: torch.optim.SGD(parameters, lr=lr))


def make_model(*, spread: float = 0.3, width: int = 12) -> TabularDiffusion:
    """A model whose every weight is set, so that every layer has a gradient."""
    generator = torch.Generator().manual_seed(1)
    model = TabularDiffusion(
        DenoiserConfig(layout=LAYOUT, width=width, blocks=2),
        priors=[np.array([0.9, 0.1]), np.array([0.5, 0.3, 0.2])],
        generator=generator,
    )
    size = len(to_vector(model))
    load_vector(model, (spread * torch.randn(size, generator=generator)).numpy())
    return model


def make_table(records: int, *, seed: int = 2) -> EncodedTable:
    rng = np.random.default_rng(seed)
    return EncodedTable.from_arrays(
        rng.normal(size=(records, 2)).astype(np.float32),
        codes=np.stack([rng.integers(0, 2, records), rng.integers(0, 3, records)], axis=1),
        observed=rng.random((records, 2)) < 0.8,
    )


def make_plan(**changes) -> TrainingPlan:
    return TrainingPlan(
        **{
            "sampling_rate": 1.0,
            "steps": 1,
            "noise_multiplier": NEXT_TO_NONE,
            "expected_batch": 7.0,
            "clip_norm": 1.0,
            "draws": 4,
            "learning_rate": 1.0,
            "ema_decay": 0.0,
            **changes,
        }
    )


def seeded(seeds=(BATCHES, NOISE, DRAWS)):
    """Gives the generators of batches, noise and draws, in this order."""
    left = iter(seeds)
    return lambda: torch.Generator().manual_seed(next(left))


@pytest.fixture(autouse=True)
def usual_parts(monkeypatch):
    """Loops here draw for parts of the usual size, whatever this machine would take."""
    take_parts_of(PART, monkeypatch)


def take_parts_of(records: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "part_size", lambda *_, **__: records)


def step_of(data: EncodedTable, plan: TrainingPlan, *, model: TabularDiffusion | None = None, **seeds) -> np.ndarray:
    """What one step subtracts from the parameters, float64."""
    model = model or make_model()
    before = to_vector(model).astype(np.float64)
    train_privately(model, data, plan=plan, generator=seeded(**seeds))
    return before - to_vector(model)


def record_gradients(
    model: TabularDiffusion, data: EncodedTable, *, draws: int, generator, part: int = PART
) -> torch.Tensor:
    """Each record's gradient of its loss averaged over draws, by a loop, [n, parameters].

    The draws are those of a part of that size, of which the records come first.
    """
    losses = (
        MixedProcess(LAYOUT)
        .loss(model, data.filled_to(part), draws=draws, generator=generator)
        .mean(dim=1)[: len(data)]
    )
    rows = []
    for loss in losses:
        parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows).double()


def clipped(gradients: torch.Tensor, clip_norm: float) -> torch.Tensor:
    return gradients * (clip_norm / gradients.norm(dim=1, keepdim=True)).clamp(max=1)


@pytest.mark.parametrize("draws", [1, 8])
@pytest.mark.parametrize("share_clipped", [0.0, 0.5, 1.0])
def test_a_step_is_the_sum_of_clipped_gradients_over_the_expected_batch(draws, share_clipped):
    model, data = make_model(), make_table(20)
    gradients = record_gradients(model, data, draws=draws, generator=torch.Generator().manual_seed(DRAWS))
    norms = gradients.norm(dim=1).numpy()
    clip_norm = float(np.quantile(norms, 1 - share_clipped) * (1.5 if share_clipped in (0, 1) else 1.0))
    if share_clipped == 1:
        clip_norm = 0.5 * float(norms.min())
    expected = clipped(gradients, clip_norm).sum(dim=0).numpy() / 7.0
    found = step_of(data, make_plan(draws=draws, clip_norm=clip_norm))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_draws_are_averaged_before_the_clip_not_after():
    """Guards the test above: the two orders differ here by far more than its tolerance."""
    model, data, draws = make_model(), make_table(1), 8
    losses = MixedProcess(LAYOUT).loss(
        model, data.filled_to(PART), draws=draws, generator=torch.Generator().manual_seed(DRAWS)
    )
    rows = []
    for loss in losses[0]:
        parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    each_clipped = clipped(torch.stack(rows).double(), 0.1).mean(dim=0)
    found = step_of(data, make_plan(draws=draws, clip_norm=0.1, expected_batch=1.0))
    assert float(each_clipped.norm()) < 0.09
    assert np.linalg.norm(found) == pytest.approx(0.1, rel=1e-3)


record_values = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1e15, -1e18, 3e38, math.inf, math.nan])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.tuples(record_values, record_values),
    code=st.integers(0, 2),
    observed=st.tuples(st.booleans(), st.booleans()),
    clip_norm=st.sampled_from([0.01, 1.0, 30.0]),
)
def test_a_record_contributes_no_more_than_the_clip_whatever_it_holds(values, code, observed, clip_norm):
    data = EncodedTable(
        values=torch.tensor([values]), codes=torch.tensor([[0, code]]), observed=torch.tensor([list(observed)])
    )
    step = step_of(data, make_plan(clip_norm=clip_norm, expected_batch=1.0, draws=2))
    assert np.isfinite(step).all()
    # The parameters are float32: reading the step off them adds a rounding of about 1e-7 of each weight.
    assert np.linalg.norm(step) <= clip_norm * (1 + 1e-4) + 1e-5


@pytest.mark.parametrize("clip_norm", [0.05, 1.0, 20.0])
def test_one_more_record_changes_the_sum_by_no_more_than_the_clip(clip_norm, monkeypatch):
    """The draws of a record are given by its own row here, so that both tables share those of the common records."""
    table = make_table(16)
    levels = torch.exp(torch.randn(PART, 4, generator=torch.Generator().manual_seed(3)))
    noise = torch.randn(PART, 4, LAYOUT.dimension, generator=torch.Generator().manual_seed(4))

    monkeypatch.setattr(training, "stratified_levels", lambda records, *, draws, generator: levels[:records])
    monkeypatch.setattr(MixedProcess, "noise", lambda self, sigma, *, generator: noise[: len(sigma)])
    plan = make_plan(clip_norm=clip_norm, expected_batch=1.0)
    steps = [step_of(table.select(torch.arange(records)), plan) for records in range(17)]
    changes = [np.linalg.norm(after - before) for before, after in itertools.pairwise(steps)]
    assert max(changes) <= clip_norm * (1 + 1e-4) + 1e-5
    assert max(changes) > 0.01 * clip_norm


@pytest.mark.long
@pytest.mark.parametrize(("draws", "part", "seeds"), [(1, None, 8), (8, None, 8), (1, 1, 1)])
def test_one_more_record_turns_no_other_whatever_the_model(draws, part, seeds):
    """A server can send a model that makes the last bit of a sum of 512 numbers the sign of a record's gradient.

    Whether the sum ends above or below zero depends on the order of its terms, and that on the number of rows: with a
    batch for itself, the fourth record turned those of the other three.
    """
    layout, width = Layout(continuous=0, categories=(6, 2), missing_of=()), 512
    alike, changes = torch.zeros((300, 2), dtype=torch.int64), []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        config = DenoiserConfig(layout=layout, width=width, blocks=1)
        model = TabularDiffusion(config, priors=[np.ones(6), np.ones(2)], generator=generator)
        load_vector(model, np.zeros(len(to_vector(model)), dtype=np.float32))
        shift, terms = torch.randn(width, generator=generator), 1e8 * torch.randn(width, generator=generator)
        first, second = model.blocks[0].first, model.blocks[0].second
        with torch.no_grad():
            # What enters the first layer is `shift`, for every row; the first of its neurons all but cancels.
            model.level.bias.copy_(shift)
            model.inward.bias.copy_(-shift)
            first.weight[0] = terms
            first.bias[0] = -float(terms.double() @ shift.double())
            second.weight[:, 0] = torch.tensor([1.0, -1.0]).repeat(width // 2)
            second.bias.copy_(-20 * second.weight[:, 0])
            model.outward.bias[1] = model.outward.bias[7] = 1e6
        rows = {}
        for records in (1, 2, 3, 4, 5, 127, 128, 129, 255, 256, 257):
            batch = EncodedTable(
                values=torch.zeros((records, 0)),
                codes=alike[:records],
                observed=torch.zeros((records, 0), dtype=torch.bool),
            )
            rows[records] = clipped_gradient_sum(
                model,
                batch,
                sampling_rate=1.0,
                clip_norm=1.0,
                draws=draws,
                part=part or part_size(config, draws=draws, device=torch.device("cpu")),
                generator=seeded((BATCHES, NOISE)),
            )
        pairs = [(records, records + 1) for records in rows if records + 1 in rows]
        changes += [float(np.linalg.norm(rows[after] - rows[before])) for before, after in pairs]
    assert max(changes) < 1 + 1e-3
    assert min(changes) > 0.9


def spoilt(table: EncodedTable, *, row: int, value: float) -> EncodedTable:
    values = table.values.clone()
    values[row] = value
    return EncodedTable(values=values, codes=table.codes, observed=torch.ones_like(table.observed))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_record_whose_gradient_is_no_number_contributes_zero_and_spoils_no_other(value):
    table = spoilt(make_table(9), row=4, value=value)
    model = make_model()
    # The others contribute by the very draws that they had beside it.
    sound = spoilt(make_table(9), row=4, value=0.0)
    gradients = record_gradients(model, sound, draws=4, generator=torch.Generator().manual_seed(DRAWS))
    gradients = gradients[[0, 1, 2, 3, 5, 6, 7, 8]]
    expected = clipped(gradients, 1.0).sum(dim=0).numpy() / 7.0
    found = step_of(table, make_plan())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_batch_without_a_usable_record_is_a_batch_without_records():
    noisy = make_plan(noise_multiplier=1.0)
    unusable = step_of(spoilt(make_table(1), row=0, value=math.nan), noisy)
    empty = step_of(make_table(0), noisy)
    np.testing.assert_array_equal(unusable, empty)
    assert np.linalg.norm(empty) > 0


def test_chunks_of_a_batch_add_up_to_the_batch(monkeypatch):
    take_parts_of(8, monkeypatch)
    model, data, generator = make_model(), make_table(20), torch.Generator().manual_seed(DRAWS)
    expected = sum(
        clipped(record_gradients(model, data.select(part), draws=4, generator=generator, part=8), 1.0).sum(dim=0)
        for part in torch.arange(20).split(8)
    )
    found = step_of(data, make_plan())
    np.testing.assert_allclose(found, expected.numpy() / 7.0, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_chunks_get_the_noise_of_one_batch(monkeypatch):
    take_parts_of(8, monkeypatch)
    data = make_table(20)
    noise = step_of(data, make_plan(noise_multiplier=3.0)) - step_of(data, make_plan())
    alone = step_of(make_table(0), make_plan(noise_multiplier=3.0))
    np.testing.assert_allclose(noise, alone, atol=1e-5)


def test_the_number_of_records_drawn_is_no_divisor():
    """Two tables of different size, one of them empty: the noise in a step is the same to the last digits."""
    for records in (1, 30):
        data = make_table(records)
        noise = step_of(data, make_plan(noise_multiplier=2.0)) - step_of(data, make_plan())
        np.testing.assert_allclose(noise, step_of(make_table(0), make_plan(noise_multiplier=2.0)), atol=1e-5)
    once, fourth = step_of(data, make_plan(expected_batch=5.0)), step_of(data, make_plan(expected_batch=20.0))
    np.testing.assert_allclose(once, 4 * fourth, rtol=1e-3, atol=1e-5)


def test_without_privacy_a_step_is_the_plain_sum_of_gradients_over_the_expected_batch():
    model, data = make_model(), make_table(20)
    gradients = record_gradients(model, data, draws=4, generator=torch.Generator().manual_seed(DRAWS), part=len(data))
    expected = gradients.sum(dim=0).numpy() / 7.0
    assert float(gradients.norm(dim=1).max()) > 1.0
    found = step_of(data, make_plan(noise_multiplier=0.0))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    other_noise = step_of(data, make_plan(noise_multiplier=0.0), seeds=(BATCHES, 99, DRAWS))
    np.testing.assert_array_equal(found, other_noise)


def tensors_held(model: TabularDiffusion) -> list[str]:
    """Where tensors hang on a model besides its weights and its prior."""
    found = [
        f"{name}.{attribute}"
        for name, parameter in model.named_parameters()
        for attribute, value in vars(parameter).items()
        if value is not None
    ]
    found += [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_"):
                continue
            flat = value if isinstance(value, list | tuple) else [value]
            found += [f"{name}.{attribute}" for item in flat if isinstance(item, torch.Tensor)]
    return found


@pytest.mark.parametrize("noise_multiplier", [0.0, 1.0])
def test_nothing_of_single_records_stays_on_the_model(noise_multiplier):
    model = make_model()
    train_privately(
        model, make_table(20), plan=make_plan(noise_multiplier=noise_multiplier, steps=3), generator=seeded()
    )
    assert tensors_held(model) == []
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    assert model(torch.zeros(3, LAYOUT.dimension), torch.ones(3)).values.shape == (3, 2)


def test_a_training_that_fails_leaves_no_gradient_of_a_record(monkeypatch):
    model, data = make_model(), make_table(20)

    def fail_at_the_second(optimizer, plan, step):
        if step == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_set_rate", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train_privately(model, data, plan=make_plan(noise_multiplier=1.0, steps=2), generator=seeded())
    assert tensors_held(model) == []


def test_training_is_a_function_of_its_generators():
    data, plan = make_table(30), make_plan(sampling_rate=0.3, steps=4, noise_multiplier=1.0, learning_rate=0.01)
    first, again = step_of(data, plan), step_of(data, plan)
    np.testing.assert_array_equal(first, again)
    for place in range(3):
        seeds = [BATCHES, NOISE, DRAWS]
        seeds[place] += 100
        assert not np.array_equal(first, step_of(data, plan, seeds=seeds))


@pytest.fixture
def elsewhere(monkeypatch) -> torch.device:
    """A device that is not the CPU by its name, and is where no other is."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    monkeypatch.setattr(training, "CPU", torch.device("meta"))
    return torch.device("cpu")


@pytest.mark.parametrize("noise_multiplier", [0.0, 1.0])
def test_training_on_another_device_takes_the_same_steps_and_the_same_noise(elsewhere, noise_multiplier):
    data = spoilt(make_table(30), row=4, value=math.nan)
    plan = make_plan(sampling_rate=0.5, steps=3, noise_multiplier=noise_multiplier, learning_rate=0.1)
    if noise_multiplier == 0:
        data = make_table(30)
    models = make_model(), make_model()
    for model, device in zip(models, (torch.device("cpu"), elsewhere), strict=True):
        before = to_vector(model)
        train_privately(model, data, plan=plan, generator=seeded(), device=device)
        assert not np.array_equal(to_vector(model), before)
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
        assert tensors_held(model) == []
    np.testing.assert_allclose(*map(to_vector, models), rtol=1e-3, atol=1e-5)


def test_sums_and_losses_of_another_device_are_those_of_the_cpu(elsewhere):
    model, data = make_model(), make_table(40)
    sums = [
        clipped_gradient_sum(
            model,
            data,
            sampling_rate=0.7,
            clip_norm=1.0,
            draws=4,
            part=PART,
            generator=seeded((BATCHES, NOISE)),
            device=device,
        )
        for device in (torch.device("cpu"), elsewhere)
    ]
    np.testing.assert_allclose(*sums, rtol=1e-3, atol=1e-4 * np.abs(sums[0]).max())
    losses = [
        record_losses(model, data, part=PART, generator=torch.Generator().manual_seed(5), draws=2, device=device)
        for device in (torch.device("cpu"), elsewhere)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_global_randomness_is_neither_used_nor_disturbed():
    before = torch.get_rng_state()
    step_of(make_table(10), make_plan(noise_multiplier=1.0, steps=2, sampling_rate=0.5))
    assert torch.equal(before, torch.get_rng_state())


def test_the_model_ends_as_the_average_of_its_weights():
    """Three steps, averaged by hand with the decays min(d, (1 + t) / (10 + t))."""
    data = make_table(10)
    weights = [to_vector(make_model()).astype(np.float64)]
    for steps in (1, 2, 3):
        model = make_model()
        rates = make_plan(steps=3, learning_rate=0.1, noise_multiplier=1.0)
        _train_first(model, data, plan=rates, steps=steps)
        weights.append(to_vector(model).astype(np.float64))
    average = weights[0]
    for step in range(3):
        decay = min(0.15, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights[step + 1]
    model = make_model()
    plan = make_plan(steps=3, learning_rate=0.1, noise_multiplier=1.0, ema_decay=0.15)
    train_privately(model, data, plan=plan, generator=seeded())
    np.testing.assert_allclose(to_vector(model), average, atol=1e-5)


def _train_first(model: TabularDiffusion, data: EncodedTable, *, plan: TrainingPlan, steps: int) -> None:
    """The first steps of a longer training, without its average: step sizes are those of the whole plan."""
    whole = plan.steps
    share = [1 - 0.9 * step / whole for step in range(steps)]
    rates = iter(share)

    def set_rate(optimizer, plan, step):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * next(rates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_set_rate", set_rate)
        train_privately(model, data, plan=plan.model_copy(update={"steps": steps}), generator=seeded())


def test_losses_of_records_are_those_of_a_loop():
    model, data = make_model(), make_table(5000)
    found = record_losses(model, data, part=PART, generator=torch.Generator().manual_seed(5), draws=2)
    assert found.shape == (5000,)
    assert found.dtype == np.float32
    generator = torch.Generator().manual_seed(5)
    parts = [data.select(part).filled_to(PART) for part in torch.arange(5000).split(PART)]
    process = MixedProcess(LAYOUT)
    with torch.no_grad():
        expected = torch.cat([process.loss(model, part, draws=2, generator=generator).mean(dim=1) for part in parts])
    np.testing.assert_allclose(found, expected[:5000].numpy(), rtol=1e-5)
    assert record_losses(model, make_table(0), part=PART, generator=generator, draws=2).shape == (0,)


@pytest.mark.parametrize("draws", [1, 4])
def test_the_sum_of_a_step_under_secure_aggregation_is_that_of_clipped_gradients(draws):
    model, data = make_model(), make_table(20)
    before = to_vector(model)
    # In chunks of the batch, as the sum draws them.
    generator = torch.Generator().manual_seed(NOISE)
    gradients = torch.cat(
        [
            record_gradients(model, data.select(part), draws=draws, generator=generator, part=7)
            for part in torch.arange(len(data)).split(7)
        ]
    )
    clip_norm = float(gradients.norm(dim=1).median())
    found = clipped_gradient_sum(
        model, data, sampling_rate=1.0, clip_norm=clip_norm, draws=draws, part=7, generator=seeded((BATCHES, NOISE))
    )
    expected = clipped(gradients, clip_norm).sum(dim=0).numpy()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(to_vector(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_step_without_records_sums_to_nothing():
    found = clipped_gradient_sum(
        make_model(),
        make_table(3),
        sampling_rate=1e-12,
        clip_norm=1.0,
        draws=2,
        part=PART,
        generator=seeded((BATCHES, NOISE)),
    )
    assert not found.any()
