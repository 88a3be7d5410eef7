"""The API in a process of its own: typed as documented, read as documented, and put to the test by schemathesis."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from aevorium.governance.chain import AuditChain
from aevorium.workspace import Workspace

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Running:
    url: str
    token: str


@contextmanager
def _api(command: list[str], folder: Path, *, port: int, **variables: str) -> Iterator[Running]:
    log = folder / "api.log"
    environment = {**os.environ, "AEVORIUM_WORKSPACE": str(folder / "w"), "PYTHONUNBUFFERED": "1", **variables}
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        found = re.search(r"\b([0-9a-f]{48})\b", log.read_text())
        assert found is not None, log.read_text()
        yield Running(url, found[1])
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    workspace = Workspace(tmp_path / "w").create()
    chain = AuditChain(workspace.database)
    for number in range(5):
        chain.append(actor="test", action="tested", detail={"number": number})
    workspace.privacy_budget.write_text('{"schema_version": 1, "nodes": {}}')
    return tmp_path


DOCUMENT = ROOT / "docs" / "API.md"


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs curl and bash")
def test_the_documented_examples_order_a_run_and_a_table(port: int, folder: Path):
    block = re.search(r"<!-- tested -->\n```bash\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    with _api([sys.executable, "-m", "aevorium", "api", "--port", str(port)], folder, port=port) as running:
        typed = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block[1].replace("http://localhost:8000", f"http://localhost:{port}")],
            cwd=folder,
            env={**os.environ, "TOKEN": running.token},
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert typed.returncode == 0, typed.stderr + typed.stdout
    table = (folder / "synthetic.csv").read_text()
    assert len(table.splitlines()) == 201
    assert hashlib.sha256(table.encode()).hexdigest() in (folder / "synthetic.card.md").read_text()
    assert typed.stdout.count('event: ended\ndata: {"state": "succeeded"') == 2
    assert '"is_sound":true' in typed.stdout


def _commands(port: int) -> list[list[str]]:
    return [
        [sys.executable, "-m", "aevorium", "api", "--port", str(port)],
        [sys.executable, "-m", "uvicorn", "api.main:app", "--port", str(port), "--log-level", "warning"],
    ]


@pytest.mark.parametrize("place", [0, 1])
def test_it_is_started_and_read_as_documented(folder: Path, port: int, place: int) -> None:
    with _api(_commands(port)[place], folder, port=port) as api:
        curl = shutil.which("curl")
        if curl is not None:
            typed = subprocess.run([curl, "-sf", f"http://localhost:{port}/privacy-budget"], capture_output=True)
            assert typed.returncode == 0
            assert b'"nodes"' in typed.stdout
        assert httpx.get(f"{api.url}/v1/keys").status_code == 401
        headers = {"Authorization": f"Bearer {api.token}"}
        made = httpx.post(f"{api.url}/v1/keys", json={"name": "Ann", "role": "auditor"}, headers=headers).json()
        own = {"Authorization": f"Bearer {made['secret']}"}
        assert len(httpx.get(f"{api.url}/v1/audit", headers=own).json()["entries"]) == 6
        assert httpx.get(f"{api.url}/v1/keys", headers=own).status_code == 403
        assert httpx.get(f"{api.url}/docs").status_code == 200


def test_schemathesis_finds_no_answer_that_is_not_documented(folder: Path, port: int) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        pytest.skip("schemathesis is not installed")
    # The program's own list, without 5xx, and with 413: what a body gets that is too long.
    (folder / "schemathesis.toml").write_text(
        "[checks.negative_data_rejection]\n"
        "expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]\n"
    )
    # Without a worker: what is ordered here is to be accepted or refused, not done.
    with _api([*_commands(port)[0], "--no-worker"], folder, port=port, AEVORIUM_API_RATE="off") as api:
        tried = subprocess.run(
            [
                program, "--config-file", folder / "schemathesis.toml", "run", f"{api.url}/openapi.json",
                "--header", f"Authorization: Bearer {api.token}",
                "--max-examples", "20", "--seed", "1", "--no-color",
                # No JSON schema says that two fields exclude each other, or that a text is a schema as TOML. Wrong
                # tokens are answered with 429 after ten; test_api.py asks every operation for a token.
                "--exclude-checks", "positive_data_acceptance,ignored_auth",
                # The story of an order that nobody does has no end.
                "--exclude-path-regex", "/events$",
            ],
            capture_output=True, text=True, timeout=200, cwd=folder,
        )  # fmt: skip
        assert tried.returncode == 0, tried.stdout[-6000:] + tried.stderr[-2000:]
        assert AuditChain(Workspace(folder / "w").database).verify().is_sound
