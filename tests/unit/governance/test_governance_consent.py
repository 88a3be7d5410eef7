"""Plans that wait for a steward: what is remembered, what a decision is good for, who waits how long."""

from __future__ import annotations

import threading
import time

import pytest

from aevorium.errors import ConfigError, PolicyRefused
from aevorium.governance.chain import AuditChain
from aevorium.governance.consent import ConsentDesk, ConsentRequest, PlanFacts, release_costs
from aevorium.governance.steward import Steward, check_signatures
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, NonPrivate
from aevorium.privacy.ledger import SqliteLedger

PLAN = "ab" * 32
COUNT = DiscreteLaplace(purpose="count", epsilon=0.15)
TABLES = DiscreteGaussian(purpose="tables", sigma=15.0, count=7)


class Desk:
    """A desk with a clock that only sleeping moves."""

    def __init__(self, folder) -> None:
        self.now = 1_700_000_000.0
        self.chain = AuditChain(folder / "audit.db")
        self.ledger = SqliteLedger(folder / "ledger.db")
        steward = Steward(folder, node="n", chain=self.chain)
        self.desk = ConsentDesk(folder, steward=steward, ledger=self.ledger, now=lambda: self.now)
        self.told: list[ConsentRequest] = []
        self.meanwhile = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()

    def ask(self, plan: PlanFacts, *, patience: float = 60.0) -> None:
        self.desk.await_decision(plan, until=self.now + patience, tell=self.told.append, sleep=self.sleep)

    def decide(self, action: str, prefix: str = PLAN[:12]) -> None:
        self.desk.decide(self.desk.find(prefix), action=action)

    def decide_after(self, seconds: float, action: str) -> None:
        end = self.now + seconds

        def meanwhile() -> None:
            if self.now >= end:
                self.meanwhile = lambda: None
                self.decide(action)

        self.meanwhile = meanwhile

    def run(self, run_id: str, *, plan_hash: str = PLAN) -> None:
        self.ledger.open_run(
            run_id, plan_json="{}", plan_hash=plan_hash, epsilon=3.0, delta=1e-5, period="p", agreed_events=[COUNT]
        )

    @property
    def states(self) -> list[str]:
        return [each.state for each in self.desk.pending()]


def plan(run_id: str = "r1", **changes) -> PlanFacts:
    facts = {
        "plan_hash": PLAN,
        "run_id": run_id,
        "server": "server-1",
        "study": "clinic",
        "purpose": "synthetic data",
        "recipe": "warm-start",
        "trust": "local",
        "epsilon": 3.0,
        "delta": 1e-5,
        "costs": release_costs([COUNT, TABLES], delta=1e-5),
    }
    return PlanFacts(**{**facts, **changes})


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path)


def refused(code: str, attempt) -> None:
    with pytest.raises(PolicyRefused) as caught:
        attempt()
    assert (caught.value.code, caught.value.exit_status) == (code, 3)


def test_consent_that_comes_while_the_server_waits(desk):
    began = desk.now
    desk.decide_after(5, "consent_given")
    desk.ask(plan())
    assert 5 <= desk.now - began < 6, "the steward's answer is seen within a second"
    assert [request.plan for request in desk.told] == [plan()]
    (entry,) = desk.chain.entries()
    assert entry.action == "consent_given"
    assert entry.detail["statement"]["content"]["plan_hash"] == PLAN
    assert check_signatures([entry]).problem is None
    assert desk.states == []


def test_a_refusal_stands_until_the_steward_agrees_after_all(desk):
    desk.decide_after(5, "consent_refused")
    refused("POLICY_CONSENT_REFUSED", lambda: desk.ask(plan()))
    assert desk.states == ["declined"]
    before = desk.now
    refused("POLICY_CONSENT_REFUSED", lambda: desk.ask(plan("r2")))
    assert (desk.now, len(desk.told)) == (before, 1), "at once, and the steward is not bothered again"
    desk.decide("consent_given")
    assert desk.states == ["agreed"]
    desk.ask(plan("r3"))


def test_without_an_answer_it_is_refused_just_before_the_server_gives_up(desk):
    began = desk.now
    refused("POLICY_CONSENT_AWAITED", lambda: desk.ask(plan(), patience=60))
    assert 55 < desk.now - began < 60
    assert desk.states == ["lapsed"]
    assert desk.chain.entries() == ()


def test_consent_that_comes_too_late_is_good_for_the_next_run_at_once(desk):
    refused("POLICY_CONSENT_AWAITED", lambda: desk.ask(plan()))
    desk.decide("consent_given")
    before = desk.now
    desk.ask(plan("r2"))
    assert (desk.now, len(desk.told)) == (before, 1)


def test_consent_is_good_for_one_run(desk):
    desk.decide_after(1, "consent_given")
    desk.ask(plan())
    desk.run("r1")
    refused("POLICY_CONSENT_AWAITED", lambda: desk.ask(plan("r2")))
    desk.ledger.reserve("r1", phase="count", round=0, events=[COUNT], fingerprint="0" * 64)
    desk.ledger.close_run("r1")
    refused("POLICY_CONSENT_AWAITED", lambda: desk.ask(plan("r2")))
    desk.decide("consent_given")
    desk.ask(plan("r2"))


def test_a_run_that_ended_unused_does_not_use_consent_up(desk):
    """Another node refused: the same study may be repeated without asking the same steward twice."""
    desk.decide_after(1, "consent_given")
    desk.ask(plan())
    desk.run("r1")
    desk.ledger.close_run("r1")
    desk.ask(plan("r2"))
    assert len(desk.told) == 1


def test_runs_before_consent_and_other_plans_do_not_use_it_up(desk):
    desk.run("r0")
    desk.decide_after(1, "consent_given")
    time.sleep(0.002)
    desk.ask(plan("r1"))
    desk.run("other", plan_hash="cd" * 32)
    desk.ask(plan("r2"))


@pytest.mark.parametrize("changes", [{"server": "server-2"}, {"plan_hash": "cd" * 32}])
def test_consent_to_one_server_or_plan_is_none_to_another(desk, changes):
    desk.decide_after(1, "consent_given")
    desk.ask(plan())
    refused("POLICY_CONSENT_AWAITED", lambda: desk.ask(plan("r2", **changes)))


def test_what_is_asked_outlives_the_node(desk, tmp_path):
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    desk.meanwhile = kill
    with pytest.raises(Killed):
        desk.ask(plan())
    again = Desk(tmp_path)
    assert again.states == ["waiting"]
    (pending,) = again.desk.pending()
    assert pending.request.plan == plan()
    again.decide("consent_given")
    again.ask(plan("r2"))
    assert again.told == []


def test_nothing_is_locked_while_a_node_waits(desk, tmp_path):
    """Another process signs, reserves and reads meanwhile."""
    decided = threading.Event()
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            desk.desk.await_decision(plan(), until=desk.now + 1e6, tell=lambda _: decided.set())
        except BaseException as error:  # told to the test
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert decided.wait(5)
    other = Desk(tmp_path)
    other.run("elsewhere", plan_hash="cd" * 32)
    began = time.monotonic()
    other.decide("consent_given")
    waiting.join(5)
    assert not waiting.is_alive()
    assert failures == []
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("digits", ["", "ab", "ababa", "cdcdcdcd", "ab" * 33])
def test_a_plan_is_named_by_enough_digits_of_one_that_was_asked(desk, digits):
    refused("POLICY_CONSENT_AWAITED", lambda: desk.ask(plan()))
    with pytest.raises(ConfigError) as caught:
        desk.desk.find(digits)
    assert caught.value.code == "CONSENT_UNKNOWN"
    assert desk.desk.find(PLAN[:6].upper()).plan.plan_hash == PLAN


def test_digits_that_fit_two_plans_name_none(desk):
    refused("POLICY_CONSENT_AWAITED", lambda: desk.ask(plan()))
    refused("POLICY_CONSENT_AWAITED", lambda: desk.ask(plan(plan_hash="ab" * 31 + "cd")))
    with pytest.raises(ConfigError):
        desk.desk.find("ab" * 10)


def test_files_that_are_no_requests_are_passed_over(desk, tmp_path):
    refused("POLICY_CONSENT_AWAITED", lambda: desk.ask(plan(epsilon=float("inf"))))
    (tmp_path / "requests" / "x.json").write_text("{}")
    (tmp_path / "requests" / "y.json").write_bytes(b"\xff")
    (pending,) = desk.desk.pending()
    assert pending.request.plan.epsilon == float("inf")


def test_costs_are_told_kind_by_kind():
    first, second = release_costs([COUNT, TABLES, TABLES], delta=1e-5)
    assert (first.purpose, first.epsilon) == ("count", 0.15)
    assert (second.purpose, second.epsilon) == ("tables", epsilon([TABLES, TABLES], 1e-5))
    assert release_costs(None, delta=1e-5) == ()
    assert release_costs([NonPrivate(purpose="x")], delta=1e-5)[0].epsilon == float("inf")
