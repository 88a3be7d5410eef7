"""One thread for an operation, whichever threads of the process compute at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch

from aevorium.threads import one_thread, single_threads


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_two_that_are_inside_at_once_have_one_thread_each_and_get_their_own_back() -> None:
    """Nodes of one process train side by side, in threads that have computed with several before."""
    with ThreadPoolExecutor(1) as other, ExitStack() as first:
        assert other.submit(torch.get_num_threads).result() == 3
        second = ExitStack()
        first.enter_context(one_thread())
        other.submit(second.enter_context, one_thread()).result()
        assert torch.get_num_threads() == 1
        assert other.submit(torch.get_num_threads).result() == 1
        first.close()
        assert torch.get_num_threads() == 3
        assert other.submit(torch.get_num_threads).result() == 1
        other.submit(second.close).result()
        assert other.submit(torch.get_num_threads).result() == 3


def test_threads_of_a_pool_have_one_each_whatever_is_set_meanwhile() -> None:
    with single_threads(2) as pool:
        torch.set_num_threads(3)
        assert {pool.submit(torch.get_num_threads).result() for _ in range(8)} == {1}
    assert torch.get_num_threads() == 3
