"""What nodes have spent by period and purpose, after real runs of a real worker."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from orders_server import Server


def _run(server: Server, **choices: object) -> str:
    run = server.order_run(records=1200, **choices)
    with server.working():
        server.ended(f"/v1/runs/{run}")
    return run


def _periods(server: Server) -> dict[str, dict[str, Any]]:
    return {period["period"]: period for period in server.get("/v1/budgets/spending")["periods"]}


def _nodes(server: Server, period: str) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in _periods(server)[period]["nodes"]}


def _spent(server: Server, *runs: str) -> list[Decimal]:
    """What node north spent in these runs, as their statements say."""
    statements = [server.get(f"/v1/runs/{run}/statement") for run in runs]
    found = [node for statement in statements for node in statement["nodes"] if node["name"] == "north"]
    return [Decimal(repr(node["released"])) for node in found]


@pytest.fixture(scope="module")
def spent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, list[str]]:
    """Two runs in the first period, a third in the next, and one that the nodes refused."""
    server = Server(tmp_path_factory.mktemp("spending"))
    server.post("/v1/budgets/limit", {"limit": 8.0}, status=200)
    runs = [_run(server, epsilon=1.0)]
    # Ordered in the first period and conducted in the next: it counts where its order does.
    runs.append(server.order_run(epsilon=1.3, records=1200, evaluation_share=0.1))
    server.post("/v1/budgets/periods", {"label": "2027", "limit": 20.0}, status=201)
    runs.append(_run(server, epsilon=0.7))
    _run(server, epsilon=9.0)
    return server, runs


def test_nothing_is_spent_before_the_first_run(tmp_path: Path):
    (period,) = Server(tmp_path).get("/v1/budgets/spending")["periods"]
    assert period == {"period": "1", "opened_at": None, "closed_at": None, "limit": None, "nodes": []}


def test_runs_count_in_the_period_in_which_they_were_ordered(spent: tuple[Server, list[str]]):
    server, runs = spent
    periods = _periods(server)
    assert list(periods) == ["2027", "1"]
    assert periods["1"]["closed_at"] == periods["2027"]["opened_at"] is not None
    assert (periods["1"]["opened_at"], periods["2027"]["closed_at"]) == (None, None)
    assert (periods["1"]["limit"], periods["2027"]["limit"]) == (8.0, 20.0)
    earlier, newest = _nodes(server, "1")["north"], _nodes(server, "2027")["north"]
    # The run that the nodes refused released nothing, and counts nowhere.
    assert (earlier["runs"], newest["runs"]) == (2, 1)
    assert Decimal(repr(earlier["spent"])) == sum(_spent(server, *runs[:2]))
    assert Decimal(repr(newest["spent"])) == sum(_spent(server, runs[2]))
    assert (earlier["delta"], newest["delta"]) == (2e-05, 1e-05)
    # What is left was told at the end of the newest run of each period.
    assert 0 < newest["left"] < earlier["left"] < earlier["limit"] == 5.0


def test_purposes_are_those_of_the_runs_and_never_less_than_the_whole(spent: tuple[Server, list[str]]):
    server, runs = spent
    reports = [server.get(f"/v1/runs/{run}/report") for run in runs[:2]]
    told: dict[str, Decimal] = {}
    for report in reports:
        (node,) = (node for node in report["nodes"] if node["node"] == "north")
        for phase in node["phases"]:
            told[phase["phase"]] = told.get(phase["phase"], Decimal(0)) + Decimal(repr(phase["epsilon"]))
    earlier, newest = _nodes(server, "1")["north"], _nodes(server, "2027")["north"]
    assert {one["purpose"]: Decimal(repr(one["epsilon"])) for one in earlier["purposes"]} == told
    assert any("evaluation" in one["purpose"] for one in earlier["purposes"])
    assert not any("evaluation" in one["purpose"] for one in newest["purposes"])
    for node in (earlier, newest):
        assert sum(one["epsilon"] for one in node["purposes"]) >= node["spent"]
        assert node["untold"] == 0


def test_a_run_without_a_report_is_counted_and_not_told_apart(spent: tuple[Server, list[str]]):
    server, runs = spent
    path = server.workspace.runs / runs[2] / "report.json"
    kept = path.read_text()
    before = _nodes(server, "2027")["south"]
    for damage in ("", "{}", "[]", '{"nodes": [{"node": "south"}]}', '{"nodes": 3}'):
        path.write_text(damage)
        after = _nodes(server, "2027")["south"]
        assert (after["spent"], after["untold"], after["purposes"]) == (before["spent"], before["spent"], [])
    path.write_text(kept)
    assert _nodes(server, "2027")["south"] == before


def test_it_holds_nothing_that_no_run_has_released(spent: tuple[Server, list[str]]):
    server, _ = spent
    text = json.dumps(server.get("/v1/budgets/spending"))
    assert str(server.folder) not in text
    assert "no|maybe" not in text


def test_who_may_read_budgets_may_read_it(spent: tuple[Server, list[str]]):
    server, _ = spent
    app = server.client.app
    near = TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1))
    far = TestClient(app, base_url="http://aevorium.example", client=("192.0.2.9", 1))
    assert near.get("/v1/budgets/spending").status_code == 200
    assert far.get("/v1/budgets/spending").status_code == 401
