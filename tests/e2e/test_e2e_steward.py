"""A steward at a third terminal: asked by a running node, answering it, opening a period under its feet."""

from __future__ import annotations

import json
import time

import pytest
from desk import Desk, Process

from aevorium.governance.chain import AuditChain
from aevorium.governance.policy import Allowance, Budget, NodePolicy, write_policy
from aevorium.governance.steward import statements_of
from aevorium.privacy.ledger import SqliteLedger

pytestmark = pytest.mark.timeout(240)

SHORT = ("--recipe", "dp-sgd", "--rounds", "1", "--epochs", "1", "--batch-size", "50")
ASKING = NodePolicy(budget=Budget(period="2026"), allow=Allowance(consent="ask"))


def steward(desk: Desk, *arguments: str, node: str = "one") -> dict:
    """What a third process answers."""
    typed = desk.start(
        "-m", "aevorium", "--json", "--quiet", "budget", *arguments, "--node", node, "--home", str(desk.home)
    )  # fmt: skip
    status, answer = typed.end()
    assert status == 0, typed.text
    return answer["data"]


def actions(desk: Desk, node: str = "one") -> list[str]:
    return [entry.action for entry in AuditChain(desk.home / node / "audit.db").entries()]


def ask(desk: Desk, *options: str) -> tuple[Process, Process, Process, dict]:
    """A server, a node that agrees by itself, and one whose steward is asked and has not answered yet."""
    one, two = desk.node("one"), desk.node("two")
    server = desk.server(*SHORT, *options)
    return server, one, two, one.wait_for("consent_awaited")


@pytest.fixture
def asking(desk: Desk) -> Desk:
    (desk.home / "one").mkdir(parents=True)
    write_policy(desk.home / "one" / "policy.toml", ASKING)
    return desk


def test_a_plan_waits_for_the_steward_who_agrees_from_another_process(asking: Desk) -> None:
    desk = asking
    server, one, two, asked = ask(desk)
    assert asked["agree"] == f"aevorium budget agree {asked['plan'][:12]} --node one --home {desk.home}"
    (pending,) = steward(desk, "requests")["requests"]
    assert (pending["state"], pending["plan"]["epsilon"]) == ("waiting", 3.0)
    assert SqliteLedger(desk.home / "one" / "ledger.db").periods() == ()
    steward(desk, "agree", asked["plan"][:12])
    began = time.monotonic()
    one.wait_for("node_answered", where=lambda event: event["phase"] == "plan" and event["code"] is None)
    assert time.monotonic() - began < 3
    for process in (server, one, two):
        status, _ = process.end()
        assert status == 0, process.text
    assert actions(desk)[:4] == ["policy_in_force", "period_opened", "consent_given", "plan_agreed"]
    assert "consent_given" not in actions(desk, "two")


def test_a_plan_that_the_steward_declines_ends_the_run(asking: Desk) -> None:
    server, one, two, asked = ask(asking)
    steward(asking, "decline", asked["plan"][:12])
    for process, expected in ((server, 3), (one, 3), (two, 0)):
        status, answer = process.end()
        assert status == expected, process.text
        if expected:
            assert answer["error"]["code"] == "POLICY_CONSENT_REFUSED"
    for name in ("one", "two"):
        runs = SqliteLedger(asking.home / name / "ledger.db").runs("2026").values()
        assert not [release for run in runs for release in run.releases]


def test_consent_outlives_a_killed_node_and_a_server_that_gave_up(asking: Desk) -> None:
    server, one, two, asked = ask(asking, "--timeout", "15")
    one.kill()
    status, _ = server.end()
    assert status in (3, 4), server.text
    two.end()
    steward(asking, "agree", asked["plan"][:12])
    # Flower takes the killed node for connected for a while; the next server is a new one and does not know it.
    one, two = asking.node("one"), asking.node("two")
    server = asking.server(*SHORT)
    for process in (server, one, two):
        status, _ = process.end()
        assert status == 0, process.text
    assert not [event for event in one.events if event.get("event") == "consent_awaited"]


def test_ctrl_c_ends_a_node_that_waits(asking: Desk) -> None:
    _, one, _, _ = ask(asking)
    began = time.monotonic()
    one.interrupt()
    status, answer = one.end()
    assert (status, answer["error"]["code"]) == (1, "RUN_INTERRUPTED")
    assert time.monotonic() - began < 20
    assert SqliteLedger(asking.home / "one" / "ledger.db").periods() == ()


def test_a_running_node_takes_a_new_period_and_refuses_one_written_by_hand(desk: Desk) -> None:
    one = desk.node("one")
    one.wait_for("node_state", where=lambda event: event["state"] == "waiting")
    steward(desk, "new-period", "2027", "--yes")
    two = desk.node("two")
    server = desk.server(*SHORT)
    for process in (server, one, two):
        status, _ = process.end()
        assert status == 0, process.text
    ledger = SqliteLedger(desk.home / "one" / "ledger.db")
    assert ledger.periods() == ("2027",)
    view = json.loads((desk.home / "one" / "privacy_budget.json").read_text())
    assert (view["period"], view["lifetime"] > 0) == ("2027", True)
    assert [s.content["period"] for s in statements_of(AuditChain(desk.home / "one" / "audit.db"))][-1] == "2027"
    policy = desk.home / "one" / "policy.toml"
    policy.write_text(policy.read_text().replace('"2027"', '"2028"'))
    status, answer = desk.node("one").end()
    assert (status, answer["error"]["code"]) == (3, "POLICY_PERIOD_UNSIGNED")
