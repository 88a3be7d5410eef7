"""Where a model computes: on the CPU, and with how many threads, or on a CUDA device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from aevorium.errors import ConfigError

__all__ = ["CPU", "DeviceName", "find_device", "one_thread"]

DeviceName = Literal["auto", "cpu", "cuda"]

CPU = torch.device("cpu")


def find_device(name: DeviceName) -> torch.device:
    """The device of that name; "auto" takes a CUDA device if there is one.

    Raises:
        ConfigError: DEVICE_NOT_FOUND.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError(
            "DEVICE_NOT_FOUND",
            "device = 'cuda' is not possible. PyTorch finds no CUDA device on this machine, or was installed without "
            "support for one.",
        )
    return torch.device("cuda") if has_cuda and name != "cpu" else CPU


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for each operation on the CPU while any caller, of any thread of the process, is inside."""
    _inside.enter()
    try:
        yield
    finally:
        _inside.leave()


class _Inside:
    """Counts who is inside, so that the first changes the process's setting and the last restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = 1

    def enter(self) -> None:
        with self._lock:
            if self._count == 0:
                self._before = torch.get_num_threads()
                torch.set_num_threads(1)
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                torch.set_num_threads(self._before)


_inside = _Inside()
