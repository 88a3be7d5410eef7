"""How long the model is trained before the first round: by a public rule, from released numbers alone."""

from __future__ import annotations

import pytest

from aevorium.server.warm_start import pretraining


@pytest.mark.parametrize(
    ("signal", "columns", "steps"),
    [(0.0, 14, 2_000), (3_000.0, 14, 2_000), (32_561.0, 14, 8_363), (325_610.0, 14, 10_000), (325_610.0, 60, 5_000)],
)
def test_more_is_learnt_where_there_is_more_to_learn(signal: float, columns: int, steps: int):
    """RECIPE.md: 2,000·(signal/3,000)^0.6 steps, at least 2,000 and at most 10,000; fewer above 30 columns."""
    assert pretraining(columns=columns, signal=signal, steps=None).steps == steps


def test_steps_that_are_asked_for_are_taken():
    assert pretraining(columns=60, signal=1e6, steps=7).steps == 7
