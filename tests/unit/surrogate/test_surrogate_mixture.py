"""Fits of a mixture: the same on any number of cores, and given up when the caller says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from aevorium.surrogate import mixture
from aevorium.surrogate.mixture import FitSettings, Mixture, NoisyTable, TableSet, fit_mixture

SHARES = [np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.4])]
TABLE = np.array([[0.15, 0.05], [0.35, 0.15], [0.1, 0.2]])


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _fit(settings: FitSettings, *, advance: Callable[[int], None]) -> Mixture:
    table = NoisyTable(first=0, second=1, shares=TABLE, deviation=np.full_like(TABLE, 0.01))
    return fit_mixture(
        SHARES,
        [TableSet(maps=[np.eye(3), np.eye(2)], tables=[table])],
        settings=settings,
        one_way_deviation=[np.full(3, 0.01), np.full(2, 0.01)],
        seed=3,
        advance=advance,
    )


def test_how_many_cores_there_are_changes_no_bit(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for cores in (1, 3):
        threads(cores)
        monkeypatch.setattr("aevorium.surrogate.mixture.CORES", cores)
        reported: list[int] = []
        made.append(_fit(FitSettings(components=8, steps=150), advance=reported.append))
        assert torch.get_num_threads() == cores
        assert reported == sorted(reported)
        assert reported[-1] == 600
    one, three = made
    assert np.array_equal(one.weights, three.weights)
    assert all(np.array_equal(*pair) for pair in zip(one.columns, three.columns, strict=True))
    assert np.abs(one.pair(0, 1) - TABLE).max() < 0.01


@pytest.mark.parametrize("cores", [1, 2])
def test_what_the_caller_raises_ends_all_fits(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    """They would take weeks."""
    monkeypatch.setattr("aevorium.surrogate.mixture.CORES", cores)

    def give_up(done: int) -> None:
        raise KeyboardInterrupt

    threads(cores)
    with pytest.raises(KeyboardInterrupt):
        _fit(FitSettings(components=4, steps=10**9), advance=give_up)
    assert torch.get_num_threads() == cores


def test_a_fit_that_fails_ends_the_others_and_never_looks_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aevorium.surrogate.mixture.CORES", 2)
    begun: list[object] = []

    def misfit(self: object, *_: object) -> None:
        begun.append(self)
        if self is begun[0]:
            raise MemoryError
        return real(self, *_)

    real = mixture._Fit._misfit
    monkeypatch.setattr(mixture._Fit, "_misfit", misfit)
    reported: list[int] = []
    settings = FitSettings(components=4, steps=10**9)
    with pytest.raises(MemoryError):
        _fit(settings, advance=reported.append)
    assert settings.all_steps not in reported
