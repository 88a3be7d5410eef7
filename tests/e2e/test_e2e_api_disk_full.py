"""A disk that fills up while a table is written: the table fails and says so, and everything else goes on."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import httpx
import pytest
from besieged import Besieged

MOST_BYTES = 400_000
"""More than the databases and their logs grow to here, and less than the table that is too large."""


@pytest.fixture
def besieged(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    made = Besieged(tmp_path, port=port)
    yield made
    made.end()


def _ended(besieged: Besieged, **order: object) -> dict:
    answer = httpx.post(f"{besieged.url}/v1/datasets", json=order, headers=besieged.headers, timeout=60)
    assert answer.status_code == 202, answer.text
    path = f"/v1/datasets/{answer.json()['id']}"
    deadline = time.monotonic() + 120
    while (found := besieged.get(path))["ended_at"] is None:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def test_a_table_that_does_not_fit_the_disk_fails_and_the_next_is_made(besieged: Besieged):
    besieged.start(most_bytes=MOST_BYTES)
    deadline = time.monotonic() + 60
    while not besieged.answers():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    found = _ended(besieged, rows=60_000, steps=2)
    assert (found["state"], found["error"]["code"]) == ("failed", "WORKSPACE_UNWRITABLE"), found
    assert list(besieged.workspace.datasets.iterdir()) == []
    assert besieged.answers()
    assert _ended(besieged, rows=10, steps=2)["state"] == "succeeded"
    assert len(besieged.workers()) == 1
