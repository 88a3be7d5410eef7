"""Markers by folder, and a home of its own for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes share the cores: threads of theirs that wait for each other would wait for most of the time.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.cpu_count = lambda: 1

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("aevorium", deadline=None)
settings.load_profile("aevorium")

_ROOT = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-e2e", action="store_true", help="also run tests with real processes")
    parser.addoption("--run-long", action="store_true", help="also run tests that take more than some seconds")
    parser.addoption("--run-slow", action="store_true", help="also run tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(_ROOT).parts[0]
        if folder == "e2e":
            item.add_marker(pytest.mark.e2e)
        for name in ("e2e", "long", "slow"):
            if item.get_closest_marker(name) and not config.getoption(f"--run-{name}"):
                item.add_marker(pytest.mark.skip(reason=f"needs --run-{name}"))


@pytest.fixture(autouse=True, scope="session")
def _keys_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is made once for a whole file of tests has the same keys as what the tests do with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEVORIUM_KEY_FILE", str(tmp_path_factory.getbasetemp() / "checkpoint.key"))
        yield


@pytest.fixture(autouse=True)
def _home_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads a person's settings, writes a person's key, or sees variables of the machine."""
    for name in (
        "EPSILON", "DELTA", "RECIPE", "TRUST", "WORKSPACE", "SEED", "NUM_ROUNDS", "TRAINING_EPOCHS", "BATCH_SIZE",
        "DP_NOISE_MULTIPLIER", "PRETRAINING_STEPS", "SERVER_PORT", "KEY", "KEY_SOURCE", "AUDIT_KEY_FILE",
    ):  # fmt: skip
        monkeypatch.delenv(f"AEVORIUM_{name}", raising=False)
        monkeypatch.delenv(name, raising=False)
    # Whoever runs the default recipe without saying so pays for a handful of steps, not for half a minute.
    monkeypatch.setenv("AEVORIUM_PRETRAINING_STEPS", "20")
    home = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("AEVORIUM_KEY_FILE", str(home / "checkpoint.key"))
