"""How many threads of the CPU an operation of PyTorch takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


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
