"""How many threads of the CPU an operation of PyTorch takes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

__all__ = ["CORES", "one_thread", "single_threads"]

CORES = torch.get_num_threads()
"""What PyTorch began with: the number of cores, or less if the user asked for it (`OMP_NUM_THREADS`)."""


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for each operation that the caller's own thread begins inside."""
    before = torch.get_num_threads()
    # A setting of the calling thread; a thread that has not used PyTorch yet will begin with what was set last.
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def single_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of so many threads that compute side by side, none of them with others to help it."""
    with one_thread(), ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool
