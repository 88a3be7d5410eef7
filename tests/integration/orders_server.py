"""A server for tests: its API, and a worker when a test wants one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from fastapi.testclient import TestClient

from aevorium.api.app import ApiOptions, create_app
from aevorium.governance.secrets import Secrets
from aevorium.jobs.folders import RunFolders
from aevorium.jobs.local_site import LocalSite
from aevorium.jobs.worker import Worker
from aevorium.settings import load_settings
from aevorium.state.jobs import JobStore
from aevorium.state.store import Store, sqlite_url
from aevorium.workspace import Workspace

START = "start-token-of-this-test"
HEADERS = {"Authorization": f"Bearer {START}"}
SCHEMA = """
name = "clinic"
target = "sick"
[columns.value]
kind = "continuous"
min = 0
max = 10
[columns.sick]
kind = "categorical"
categories = ["yes", "no|maybe"]
"""
POLICY = '[budget]\nmax_epsilon = 5.0\nperiod = "simulated"\n'


class Server:
    """An API and its worker, in one process, as far as a test sees them."""

    token = START
    schema = SCHEMA

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "w")
        self.url = sqlite_url(folder / "api.db")
        (folder / "policy.toml").write_text(POLICY)
        rng = np.random.default_rng(3)
        tables = {}
        for name in ("north", "south"):
            # So many that no noisy count of a cheap run falls below the policy's 20: at ε₀ = 0.025 once in two million.
            values = rng.uniform(0, 10, 600).round(2)
            frame = pd.DataFrame({"value": values, "sick": np.where(values > 6, "yes", "no|maybe")})
            frame.to_csv(folder / f"{name}.csv", index=False)
            tables[name] = folder / f"{name}.csv"
        self.settings = load_settings(
            {"workspace": self.workspace.root, "key_file": folder / "keys" / "key", "pretraining_steps": 5}
        ).values
        self.secrets = Secrets.of(self.settings)
        self.site = LocalSite(self.workspace, tables=tables, policy=folder / "policy.toml")
        self.jobs = JobStore(Store(self.url))
        options = ApiOptions(
            workspace=self.workspace,
            database=self.url,
            log_key=self.secrets.log,
            settings=self.settings,
            homes=(self.workspace.nodes,),
            nodes=tuple(tables),
            start_token=START,
        )
        self.client = TestClient(
            create_app(options), base_url="http://localhost", client=("127.0.0.1", 1), headers=HEADERS
        )

    @contextmanager
    def working(self) -> Iterator[None]:
        """A worker, until the block ends."""
        stopped = threading.Event()
        worker = Worker(
            self.jobs,
            folders=RunFolders(self.workspace),
            site=self.site,
            settings=self.settings,
            secrets=self.secrets,
        )
        thread = threading.Thread(target=worker.work, kwargs={"should_stop": stopped.is_set})
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join(60)
            assert not thread.is_alive()

    def transport(self) -> httpx.BaseTransport:
        """Carries an httpx client's requests to the API."""
        return self.client._transport

    def post(self, path: str, body: object = None, *, status: int = 202, **headers: str) -> dict[str, Any]:
        answer = self.client.post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def get(self, path: str, *, status: int = 200, **query: object) -> Any:
        answer = self.client.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    def ended(self, path: str, *, seconds: float = 90) -> dict[str, Any]:
        """An order, when nothing more happens to it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.get(path)
            if found["ended_at"] is not None:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{path} did not end: {found}")

    def order_run(self, **choices: object) -> str:
        return str(self.post("/v1/runs", {"schema_text": SCHEMA, "choices": choices})["id"])
