"""The two servers that are measured: the API of a workspace with its worker, and the empty application."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aevorium.state.api_keys import ApiKeyStore
from aevorium.state.store import Store, sqlite_url
from aevorium.workspace import Workspace

__all__ = ["Server", "aevorium_api", "empty_application"]

_ROOT = Path(__file__).parent.parent.parent
_SCHEMA = """\
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
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        process: Its process.
        port: Where it listens, on this machine.
        headers: What its clients send.
    """

    process: subprocess.Popen[bytes]
    port: int
    headers: Mapping[str, str]

    def seconds(self) -> float:
        """CPU seconds of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def aevorium_api(folder: Path) -> Iterator[Server]:
    """The API of a workspace with one finished run.

    Args:
        folder: Everything of it lies there; the workspace in `w`.
    """
    workspace = Workspace(folder / "w")
    environment = {
        **os.environ, "AEVORIUM_KEY_FILE": str(folder / "keys" / "key"), "AEVORIUM_PRETRAINING_STEPS": "20",
        "AEVORIUM_API_RATE": "off", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    (folder / "schema.toml").write_text(_SCHEMA)
    chance = random.Random(0)  # noqa: S311 - made-up values
    values = [round(chance.uniform(0, 10), 2) for _ in range(300)]
    rows = [f"{value},{'yes' if value > 6 else 'no'}" for value in values]
    (folder / "north.csv").write_text("\n".join(["value,sick", *rows]) + "\n")
    own, place = [sys.executable, "-m", "aevorium"], ["--workspace", str(workspace.root)]
    run = ["run", "--schema", "schema.toml", "--node", "north=north.csv", "--epsilon", "2", "--quiet"]
    subprocess.run([*own, *run, *place], cwd=folder, env=environment, check=True, capture_output=True)  # noqa: S603
    store = Store(sqlite_url(workspace.api_database))
    _, secret = ApiKeyStore(store).create(name="load", role="steward")
    store.close()
    with _served([*own, "api", *place], environment, folder, {"Authorization": f"Bearer {secret}"}) as server:
        yield server


@contextmanager
def empty_application(folder: Path) -> Iterator[Server]:
    """The empty application, under the same uvicorn with the same options.

    Args:
        folder: Where its log goes.
    """
    command = [
        *(sys.executable, "-m", "uvicorn", "benchmarks.load.empty:app", "--app-dir", str(_ROOT)),
        *("--log-level", "warning", "--no-server-header", "--no-proxy-headers"),
    ]
    with _served(command, dict(os.environ), folder, {}) as server:
        yield server


@contextmanager
def _served(
    command: list[str], environment: Mapping[str, str], folder: Path, headers: Mapping[str, str]
) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the product, or the application above
            [*command, "--port", str(port)], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        _await(port)
        yield Server(process, port, headers)
    finally:
        process.terminate()
        process.wait(60)


def _await(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
