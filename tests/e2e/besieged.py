"""An API, its worker and its clients, of which processes are killed at random while people order and read."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from aevorium.state.api_keys import ApiKeyStore
from aevorium.state.store import Store, sqlite_url
from aevorium.workspace import Workspace

SCHEMA = """
name = "clinic"
target = "sick"
[columns.value]
kind = "continuous"
min = 0
max = 10
[columns.sick]
kind = "categorical"
categories = ["yes", "no"]
"""
POLICY = '[budget]\nmax_epsilon = 1000.0\nperiod = "simulated"\n'
ROWS = 12
LONG_RUN = {"schema_text": SCHEMA, "choices": {"epsilon": 0.1, "recipe": "dp-sgd", "epochs": 10, "rounds": 1000}}
"""Nobody waits for its end: it is there to be cut off."""


class Besieged:
    """A workspace with a finished run, and the processes that serve it.

    Args:
        folder: Everything of it lies there.
        port: Where the API listens.
    """

    def __init__(self, folder: Path, *, port: int) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "w")
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.environment = {
            **os.environ,
            "AEVORIUM_KEY_FILE": str(folder / "keys" / "key"),
            "AEVORIUM_PRETRAINING_STEPS": "5",
            "AEVORIUM_NODES": ",".join(f"{name}={folder / name}.csv" for name in ("north", "south")),
            "AEVORIUM_NODES_POLICY": str(folder / "policy.toml"),
            "AEVORIUM_API_RATE": "off",
            "OMP_NUM_THREADS": "1",
        }
        self._api: subprocess.Popen[bytes] | None = None
        self.run = self._make_run()
        store = Store(sqlite_url(self.workspace.api_database))
        _, secret = ApiKeyStore(store).create(name="everybody", role="steward")
        store.close()
        self.headers = {"Authorization": f"Bearer {secret}"}

    def _make_run(self) -> str:
        (self.folder / "schema.toml").write_text(SCHEMA)
        (self.folder / "policy.toml").write_text(POLICY)
        rng = np.random.default_rng(3)
        for name in ("north", "south"):
            values = rng.uniform(0, 10, 150).round(2)
            frame = pd.DataFrame({"value": values, "sick": np.where(values > 6, "yes", "no")})
            frame.to_csv(self.folder / f"{name}.csv", index=False)
        nodes = [part for name in ("north", "south") for part in ("--node", f"{name}={self.folder / name}.csv")]
        arguments = ["run", "--schema", "schema.toml", *nodes, "--policy", "policy.toml", "--epsilon", "2"]
        subprocess.run(
            [sys.executable, "-m", "aevorium", *arguments, "--workspace", str(self.workspace.root), "--quiet"],
            cwd=self.folder, env=self.environment, check=True, capture_output=True,
        )  # fmt: skip
        return str(pd.read_json(self.workspace.study, typ="series")["run_id"])

    def start(self, *, most_bytes: int | None = None) -> None:
        """Starts the API; it starts its worker.

        Args:
            most_bytes: Where each file ends, as on a disk that is full; None where the disk does.
        """

        def limit() -> None:
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

        with (self.folder / "api.log").open("ab") as log:
            self._api = subprocess.Popen(
                [
                    sys.executable, "-m", "aevorium", "api", "--port", str(self.port),
                    "--workspace", str(self.workspace.root),
                ],
                cwd=self.folder, env=self.environment, stdout=log, stderr=log, preexec_fn=limit,
            )  # fmt: skip

    @property
    def is_served(self) -> bool:
        """Whether there is an API process."""
        return self._api is not None and self._api.poll() is None

    def answers(self) -> bool:
        """Whether the API answers."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def workers(self) -> list[int]:
        """Ids of the workers of this workspace, also of those that outlived their API."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"worker" in words and str(self.workspace.root).encode() in words:
                    found.append(int(entry.name))
        return found

    def kill_api(self) -> None:
        """Kills the API, and not its worker."""
        if self._api is not None:
            self._api.kill()
            self._api.wait(20)

    def kill_workers(self, workers: Sequence[int]) -> int:
        """Kills workers; returns how many of them there still were."""
        killed = 0
        for worker in workers:
            try:
                os.kill(worker, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                continue
        return killed

    def end(self) -> None:
        """Ends everything, however it is."""
        self.kill_api()
        deadline = time.monotonic() + 20
        while self.kill_workers(self.workers()) and time.monotonic() < deadline:
            time.sleep(0.1)

    def get(self, path: str, **query: object) -> Any:
        """What the API answers when it must."""
        answer = httpx.get(f"{self.url}{path}", headers=self.headers, params=query, timeout=60)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return answer.json()

    def stop_run(self, run: str) -> None:
        """Asks a run to stop."""
        answer = httpx.post(f"{self.url}/v1/runs/{run}/stop", headers=self.headers, timeout=60)
        assert answer.status_code == 202, answer.text

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """All orders of a kind, from all pages."""
        found: list[dict[str, Any]] = []
        before = None
        while True:
            page = self.get(f"/v1/{kind}", limit=37, **({} if before is None else {"before": before}))
            found += page[kind]
            before = page["next"]
            if before is None:
                return found


class Client(threading.Thread):
    """Somebody who orders and reads, and asks again when nobody answers.

    Args:
        besieged: Whom it asks.
        name: Begins its idempotency keys.
        act: What it does again and again.
        ended: Set when it is to end.
    """

    def __init__(self, besieged: Besieged, *, name: str, act: Callable[[Client], None], ended: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.besieged = besieged
        self.random = random.Random(name)
        self.accepted: dict[str, str] = {}
        self.answers: dict[int, int] = {}
        self.complaints: list[str] = []
        self._ended = ended
        self._act = act
        self._http = httpx.Client(base_url=besieged.url, headers=besieged.headers, timeout=60)

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self._act(self)
            except httpx.HTTPError:
                self.answers[0] = self.answers.get(0, 0) + 1
            except Exception as error:
                self.complaints.append(f"{type(error).__name__}: {error}")
            time.sleep(self.random.uniform(0.05, 0.4))
        self._http.close()

    def ask(self, method: str, path: str, *allowed: int, **more: Any) -> httpx.Response:
        """Sends a request; any answer but those allowed is a complaint."""
        answer = self._http.request(method, path, **more)
        self.answers[answer.status_code] = self.answers.get(answer.status_code, 0) + 1
        if answer.status_code not in allowed:
            self.complaints.append(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    def order(self, kind: str, body: object) -> None:
        """Orders something, and sends the order until it is accepted; half of the time once more."""
        key = f"{self.name}-{len(self.accepted)}"
        while True:
            try:
                # A full queue takes no more: what it refuses is no order.
                answer = self.ask("POST", f"/v1/{kind}", 202, 429, json=body, headers={"Idempotency-Key": key})
            except httpx.HTTPError:
                time.sleep(0.1)
                continue
            if answer.status_code != 202:
                return
            found = answer.json()["id"]
            if self.accepted.setdefault(key, found) != found:
                self.complaints.append(f"{key} is {self.accepted[key]} and {found}")
            if self.random.random() < 0.5:
                return


def order_tables(client: Client) -> None:
    """Orders a table now and then."""
    kind = client.random.choice(["csv", "parquet"])
    body = {"run": client.besieged.run, "rows": ROWS, "steps": 2, "format": kind, "seed": client.random.randrange(10)}
    client.order("datasets", body)
    time.sleep(client.random.uniform(0.5, 1.5))


def order_runs(client: Client) -> None:
    """Orders a run when none waits or goes on."""
    runs = client.ask("GET", "/v1/runs", 200).json()["runs"]
    if all(run["ended_at"] is not None for run in runs):
        client.order("runs", LONG_RUN)
    time.sleep(0.5)


def read(client: Client) -> None:
    """Reads whatever there is; a file that is served has the hash that is told."""
    for path in ("/health", "/privacy-budget", "/audit-log", "/v1/runs", "/v1/models"):
        client.ask("GET", path, 200)
    tables = client.ask("GET", "/v1/datasets", 200).json()["datasets"]
    for table in client.random.sample(tables, k=min(3, len(tables))):
        is_made = table["state"] == "succeeded"
        client.ask("GET", f"/v1/datasets/{table['id']}/preview", 200, *(() if is_made else (409,)))
        answer = client.ask("GET", f"/v1/datasets/{table['id']}/download", 200, *(() if is_made else (409,)))
        if answer.status_code == 200:
            digest = hashlib.sha256(answer.content).digest()
            told = answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
            if not told or (is_made and digest.hex() != table["sha256"]):
                client.complaints.append(f"{table['id']} is served with another content")
