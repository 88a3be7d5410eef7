"""Real servers and nodes: processes of their own, that speak over TCP."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SCHEMA = """
name = "clinic"
unit_id = "id"
target = "ill"
[columns.age]
kind = "continuous"
min = 18
max = 90
integer = true
[columns.cost]
kind = "continuous"
min = 0
max = 1000
[columns.ill]
kind = "categorical"
categories = ["yes", "no"]
"""
LIMIT = 90.0


class Process:
    """One of our commands, with the events that it tells."""

    def __init__(self, arguments: list[str], *, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._arrived: queue.Queue[None] = queue.Queue()
        self._readers = [
            threading.Thread(target=target, daemon=True) for target in (self._read_events, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def _read_events(self) -> None:
        for line in self._process.stdout:
            self.events.append(json.loads(line))
            self._arrived.put(None)

    def _read_errors(self) -> None:
        self.errors.extend(self._process.stderr)

    def wait_for(self, kind: str, *, where: Callable[[dict[str, Any]], bool] = lambda event: True) -> dict[str, Any]:
        """The first event of a kind; waits for it."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            found = [event for event in self.events if event.get("event") == kind and where(event)]
            if found:
                return found[0]
            try:
                self._arrived.get(timeout=0.5)
            except queue.Empty:
                assert self._process.poll() is None, "".join(self.errors)
        raise AssertionError(f"no {kind}: {self.events} {''.join(self.errors)}")

    def end(self) -> tuple[int, dict[str, Any]]:
        """Exit status and envelope; waits for the end."""
        status = self._process.wait(timeout=LIMIT)
        for reader in self._readers:
            reader.join(timeout=LIMIT)
        envelopes = [event for event in self.events if "status" in event]
        assert envelopes, "".join(self.errors)
        return status, envelopes[-1]

    def wait_for_text(self, text: str) -> None:
        """Waits until a person has been told something."""
        end = time.monotonic() + LIMIT
        while text not in self.text:
            assert time.monotonic() < end, self.text
            time.sleep(0.05)

    def wait(self) -> int:
        """Exit status of a script that tells no events."""
        return self._process.wait(timeout=LIMIT)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(timeout=LIMIT)
        self._process.stdout.close()
        self._process.stderr.close()

    @property
    def text(self) -> str:
        return "".join(self.errors)


class Desk:
    """A folder in which commands are typed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as door:
            door.bind(("127.0.0.1", 0))
            self.port = door.getsockname()[1]
        self.workspace = folder / "workspace"
        self.home = folder / "home"
        (folder / "schema.toml").write_text(SCHEMA, encoding="utf-8")
        self._started: list[Process] = []

    def start(self, *arguments: str) -> Process:
        environment = {
            "SERVER_PORT": str(self.port),
            "SERVER_ADDRESS": f"127.0.0.1:{self.port}",
            "AEVORIUM_NODE_HOME": str(self.home),
            "AEVORIUM_KEY_FILE": str(self.folder / "checkpoint.key"),
            "OMP_NUM_THREADS": "1",
        }
        process = Process(list(arguments), folder=self.folder, environment=environment)
        self._started.append(process)
        return process

    def server(self, *options: str) -> Process:
        return self.start("-m", "aevorium", "--json", "server", "--schema", "schema.toml", "--seed", "1", *options)

    def node(self, name: str, *options: str, rows: int = 200) -> Process:
        path = self.table(name, rows=rows)
        return self.start(
            "-m", "aevorium", "--json", "node", "--data", str(path), "--schema", "schema.toml", *options
        )  # fmt: skip

    def table(self, name: str, *, rows: int = 200) -> Path:
        path = self.folder / f"{name}.csv"
        rng = np.random.default_rng(sum(name.encode()))
        ill = rng.random(rows) < 0.4
        frame = pd.DataFrame(
            {
                "id": [f"{name}-{number}" for number in range(rows)],
                "age": rng.integers(18, 91, rows),
                "cost": np.round(np.clip(rng.exponential(200, rows) * (1 + ill), 0, 1000), 2),
                "ill": np.where(ill, "yes", "no"),
            }
        )
        frame.to_csv(path, index=False)
        return path

    def close(self) -> None:
        for process in self._started:
            process.kill()
