"""The measurement: both servers in turn, block by block, while the worker makes the tables that are ordered."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aevorium.verification import verify_export, verify_workspace
from aevorium.workspace import Workspace
from benchmarks.load.clients import Answer, Request, ask_all
from benchmarks.load.servers import Server, aevorium_api, empty_application

__all__ = ["measure"]

_BLOCK = 500
_ORDER = "order"
_MIX = {
    "health": 25, "budget": 15, "audit page": 20, "tables": 20, "preview": 14, "runs": 5, _ORDER: 1,
}  # fmt: skip
_PATHS = {
    "health": "/health",
    "budget": "/privacy-budget",
    "audit page": "/v1/audit?limit=50",
    "tables": "/v1/datasets?limit=20",
    "runs": "/v1/runs?limit=20",
}
_ROWS = 20
_QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_FEWEST = 2
"""Answers of a kind, for it to have quantiles."""

_END = 1_800.0
"""Seconds in which everything that was ordered ends."""

_OK, _ACCEPTED = 200, 202


def measure(*, requests: int, clients: int) -> dict[str, Any]:
    """What both servers did.

    Args:
        requests: To each of them.
        clients: That ask at once.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with aevorium_api(folder) as api, empty_application(folder) as empty:
            first = _first_table(api)
            chance = random.Random(0)  # noqa: S311 - the same requests each time
            kinds = chance.choices(list(_MIX), list(_MIX.values()), k=requests)
            asked = [_request(kind, number, table=first, api=api) for number, kind in enumerate(kinds)]
            nothing = [Request("empty", "GET", "/")] * requests
            found, base = _in_turn(asked, nothing, api=api, empty=empty, clients=clients)
            accepted = {json.loads(answer.body)["id"] for answer in found["answers"] if answer.status == _ACCEPTED}
            states = _states(api, accepted={first, *accepted})
        workspace = Workspace(folder / "w")
        sound = verify_workspace(workspace).is_sound and verify_export(workspace.audit_log).is_sound
    return {
        "requests": requests,
        "clients": clients,
        "reads": _latencies(found["answers"], base["answers"]),
        "cpu_ms_per_request": {"api": found["cpu"] / requests * 1000, "empty": base["cpu"] / requests * 1000},
        "errors": _errors(found["answers"]),
        "errors_of_the_empty": _errors(base["answers"]),
        "orders": len(accepted),
        "ends": dict(Counter(states.values())),
        "lost": len({first, *accepted} - states.keys()),
        "is_log_sound": sound,
    }


def _request(kind: str, number: int, *, table: str, api: Server) -> Request:
    headers = dict(api.headers)
    if kind == _ORDER:
        body = {"rows": _ROWS, "steps": 5, "seed": number}
        return Request(kind, "POST", "/v1/datasets", body, {**headers, "Idempotency-Key": f"load-{number}"})
    path = f"/v1/datasets/{table}/preview" if kind == "preview" else _PATHS[kind]
    return Request(kind, "GET", path, None, headers)


def _first_table(api: Server) -> str:
    """The table that is looked at; when it is made, the worker works."""
    ordered = _one(api, Request(_ORDER, "POST", "/v1/datasets", {"rows": _ROWS, "steps": 5}, dict(api.headers)))
    table: str = json.loads(ordered.body)["id"]
    _states(api, accepted={table})
    return table


def _in_turn(
    asked: Sequence[Request], nothing: Sequence[Request], *, api: Server, empty: Server, clients: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answers and CPU seconds of both; a busy machine slows the one like the other."""
    found: tuple[dict[str, Any], ...] = ({"answers": [], "cpu": 0.0}, {"answers": [], "cpu": 0.0})
    for start in range(0, len(asked), _BLOCK):
        for side, server, requests in zip(found, (api, empty), (asked, nothing), strict=True):
            before = server.seconds()
            block = requests[start : start + _BLOCK]
            side["answers"] += asyncio.run(ask_all(block, port=server.port, clients=clients))
            side["cpu"] += server.seconds() - before
    return found[0], found[1]


def _states(api: Server, *, accepted: set[str]) -> dict[str, str]:
    """The state of every order that is there, when all have ended."""
    deadline = time.monotonic() + _END
    while True:
        states: dict[str, str] = {}
        path = "/v1/datasets?limit=200"
        while path:
            page = json.loads(_one(api, Request("tables", "GET", path, None, dict(api.headers))).body)
            states.update({table["id"]: table["state"] for table in page["datasets"]})
            path = f"/v1/datasets?limit=200&before={page['next']}" if page["next"] else ""
        has_ended = all(states.get(table) not in ("queued", "running") for table in accepted)
        if has_ended or time.monotonic() > deadline:
            return states
        time.sleep(0.5)


def _one(api: Server, request: Request) -> Answer:
    return asyncio.run(ask_all([request], port=api.port, clients=1))[0]


def _latencies(answers: Sequence[Answer], base: Sequence[Answer]) -> dict[str, Any]:
    """Milliseconds by kind of read, and as a multiple of the empty application's."""
    empty = _quantiles(base)
    found: dict[str, Any] = {"empty application": {"ms": empty}}
    reads = [answer for answer in answers if answer.request.kind != _ORDER]
    groups = {"all reads": reads}
    for kind in _MIX:
        groups[kind] = [answer for answer in answers if answer.request.kind == kind]
    for kind, those in groups.items():
        if len(those) < _FEWEST:
            continue
        own = _quantiles(those)
        found[kind] = {"ms": own, "ratio": {name: own[name] / empty[name] for name in own}}
    return found


def _quantiles(answers: Sequence[Answer]) -> dict[str, float]:
    cuts = statistics.quantiles((1000 * answer.seconds for answer in answers), n=100, method="inclusive")
    return {name: cuts[round(100 * share) - 1] for name, share in _QUANTILES.items()}


def _errors(answers: Sequence[Answer]) -> dict[str, int]:
    wrong = (answer for answer in answers if answer.status not in (_OK, _ACCEPTED))
    return dict(Counter(f"{answer.request.kind} {answer.status}" for answer in wrong))
