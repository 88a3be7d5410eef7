from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest

from aevorium.errors import AevoriumError, BudgetExceeded, ExitStatus, PolicyRefused
from aevorium.governance.admission import AgreedPlan
from aevorium.governance.chain import AuditChain
from aevorium.governance.code import code_hash
from aevorium.governance.gate import ReleaseGate
from aevorium.governance.periods import adopt_policy, open_period, set_limit
from aevorium.governance.policy import Allowance, Budget, NodePolicy, new_limit, simulated_policy, write_policy
from aevorium.governance.steward import Steward
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, NonPrivate, SampledGaussian
from aevorium.privacy.ledger import SqliteLedger

DELTA = 1e-5
COUNT = DiscreteLaplace(purpose="count", epsilon=0.1)
TABLES = DiscreteGaussian(purpose="tables", sigma=15.0, count=14)
ROUND = SampledGaussian(purpose="training", sampling_rate=0.1, noise_multiplier=4.0, steps=20)
EVENTS = (COUNT, TABLES, ROUND, ROUND)
TARGET = epsilon(EVENTS, DELTA)


class Node:
    """A gate with everything around it, on disk."""

    def __init__(self, home, policy: NodePolicy) -> None:
        self.ledger = SqliteLedger(home / "ledger.db")
        self.chain = AuditChain(home / "audit.db")
        self.gate = ReleaseGate(node="st-mary", policy=policy, ledger=self.ledger, chain=self.chain)

    def release(self, run_id: str = "r1", *, phase: str, round: int = 0, events, produce, asked: str = "x", **extra):
        return self.gate.release(
            run_id, phase=phase, round=round, events=events, fingerprint=asked, produce=produce, **extra
        )

    @property
    def actions(self) -> list[str]:
        return [entry.action for entry in self.chain.entries()]

    @property
    def last(self):
        return self.chain.entries()[-1]


@pytest.fixture
def make(tmp_path):
    def make_node(policy: NodePolicy | None = None) -> Node:
        return Node(tmp_path, policy or NodePolicy(budget=Budget(max_epsilon=10.0, max_delta=DELTA, period="2026")))

    return make_node


def plan(run_id: str = "r1", **changes) -> AgreedPlan:
    facts = {
        "plan_json": '{"study":"x"}',
        "schema_hash": "abc",
        "purpose": "synthetic data",
        "server": "server-1",
        "epsilon": TARGET,
        "delta": DELTA,
        "planned_events": EVENTS,
    }
    return AgreedPlan(run_id=run_id, **{**facts, **changes})


def numbers():
    return (np.array([812]),)


def must_not_run():
    raise AssertionError("records were read")


def refused(code: str, attempt) -> AevoriumError:
    with pytest.raises((PolicyRefused, BudgetExceeded)) as caught:
        attempt()
    assert caught.value.code == code
    assert caught.value.exit_status == ExitStatus.REFUSED
    return caught.value


def test_a_run_from_plan_to_end(make):
    node = make()
    node.gate.agree(plan())
    assert node.release(phase="count", round=0, events=[COUNT], produce=numbers)[0].tolist() == [812]
    node.release(phase="tables", round=0, events=[TABLES], produce=numbers)
    for number in (1, 2):
        node.release(phase="training", round=number, events=[ROUND], produce=numbers)
    node.gate.close("r1")
    assert node.ledger.run("r1").events == EVENTS
    assert {release.state for release in node.ledger.run("r1").releases} == {"committed"}
    assert node.actions == ["plan_agreed", *["release"] * 4, "run_closed"]
    assert node.chain.verify().is_sound
    view = node.gate.spend()
    assert view.runs[0].spent == TARGET
    assert TARGET < view.spent == view.lifetime < 1.3 * TARGET
    assert view.left == pytest.approx(10.0 - view.spent)


def test_the_audit_log_has_events_and_purposes_but_no_values(make):
    node = make()
    node.gate.agree(plan())
    node.release(phase="count", round=0, events=[COUNT], produce=lambda: (np.array([918273]),))
    assert node.last.actor == "st-mary"
    assert node.last.detail["phase"] == "count"
    assert node.last.detail["events"] == [{"purpose": "count", "kind": "discrete_laplace", "epsilon": 0.1}]
    assert "918273" not in json.dumps(node.chain.export())


def test_the_reservation_is_on_disk_before_records_are_read(make):
    node = make()
    node.gate.agree(plan())
    seen = []

    def look():
        seen.append(node.ledger.run("r1"))
        return numbers()

    node.release(phase="count", round=0, events=[COUNT], produce=look)
    assert seen[0].events == (COUNT,)
    assert seen[0].releases[0].state == "reserved"


class Damaged(Exception):
    pass


@pytest.mark.parametrize("error", [Damaged("patient Jane Doe, 47"), KeyboardInterrupt()])
def test_what_fails_while_records_are_read_stays_spent(make, error):
    node = make()
    node.gate.agree(plan())

    def produce():
        raise error

    with pytest.raises(type(error)):
        node.release(phase="count", round=0, events=[COUNT], produce=produce)
    assert node.ledger.run("r1").events == (COUNT,)
    assert node.last.action == "release_failed"
    assert node.last.detail["spent"] is True
    assert node.last.detail["error"] == type(error).__name__
    assert "Jane" not in json.dumps(node.chain.export())
    refused(
        "RELEASE_OUTSIDE_PLAN",
        lambda: node.release(phase="count", round=0, events=[COUNT], produce=must_not_run),
    )


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Allowance(schemas=("other",)), "POLICY_SCHEMA_REFUSED"),
        (Allowance(purposes=("billing",)), "POLICY_PURPOSE_REFUSED"),
        (Allowance(servers=("server-2",)), "POLICY_SERVER_REFUSED"),
        (Allowance(code=("0" * 64,)), "POLICY_CODE_REFUSED"),
    ],
)
def test_a_plan_that_the_steward_does_not_allow_leaves_only_an_audit_entry(make, policy, code):
    node = make(NodePolicy(budget=Budget(period="2026"), allow=policy))
    error = refused(code, lambda: node.gate.agree(plan()))
    assert "'r1'" in error.message
    assert node.ledger.periods() == ()
    assert node.actions == ["plan_refused"]
    assert node.last.detail["code"] == code
    assert node.last.detail["plan_hash"] == plan().plan_hash


def test_lists_that_name_the_plan_s_facts_allow_it(make):
    allowed = Allowance(
        schemas=("x", "abc"), purposes=("synthetic data",), servers=("server-1",), code=("0" * 64, code_hash())
    )
    node = make(NodePolicy(budget=Budget(period="2026"), allow=allowed))
    node.gate.agree(plan())
    assert node.actions == ["plan_agreed"]


def test_a_plan_with_a_larger_delta_is_refused(make):
    node = make()
    refused("POLICY_DELTA_REFUSED", lambda: node.gate.agree(plan(delta=2e-5)))
    assert node.ledger.periods() == ()


def test_refusals_come_in_a_fixed_order(make):
    strict = Allowance(schemas=("o",), purposes=("o",), servers=("o",), consent="ask")
    node = make(NodePolicy(budget=Budget(max_epsilon=0.1), allow=strict))
    refused("POLICY_SCHEMA_REFUSED", lambda: node.gate.agree(plan(delta=1e-3)))
    node = make(NodePolicy(budget=Budget(max_epsilon=0.1), allow=Allowance(consent="ask")))
    refused("POLICY_DELTA_REFUSED", lambda: node.gate.agree(plan(delta=1e-3)))


ASKING = NodePolicy(budget=Budget(max_epsilon=10.0, period="2026"), allow=Allowance(consent="ask"))


def test_where_nobody_can_be_asked_that_is_not_taken_for_consent(make):
    node = make(ASKING)
    refused("POLICY_CONSENT_AWAITED", lambda: node.gate.agree(plan()))
    assert node.ledger.periods() == ()
    assert node.actions == ["plan_refused"]


def test_the_steward_is_asked_last_and_only_if_the_policy_says_so(make):
    asked = []
    make().gate.agree(plan("r0"), consent=asked.append)
    assert asked == []
    node = make(NodePolicy(budget=Budget(max_epsilon=0.1, period="2026"), allow=Allowance(consent="ask")))
    refused("BUDGET_EXCEEDED", lambda: node.gate.agree(plan(), consent=asked.append))
    refused("POLICY_DELTA_REFUSED", lambda: node.gate.agree(plan(delta=1e-3), consent=asked.append))
    assert asked == []
    node = make(ASKING)
    node.gate.agree(plan(), consent=asked.append)
    assert asked == [plan()]
    assert list(node.ledger.runs("2026")) == ["r0", "r1"]


def test_while_the_steward_is_asked_others_can_use_the_ledger_and_what_they_take_is_gone(make):
    node = make(ASKING.model_copy(update={"budget": Budget(max_epsilon=1.5 * TARGET, period="2026")}))

    def consent(_):
        other = make(NodePolicy(budget=Budget(max_epsilon=1.5 * TARGET, period="2026")))
        other.gate.agree(plan("r2"))

    refused("BUDGET_EXCEEDED", lambda: node.gate.agree(plan(), consent=consent))
    assert list(node.ledger.runs("2026")) == ["r2"]


def test_what_the_policy_became_while_the_steward_was_asked_counts(make):
    node = make(ASKING)
    stricter = NodePolicy(budget=ASKING.budget, allow=Allowance(purposes=("billing",)))
    refused("POLICY_PURPOSE_REFUSED", lambda: node.gate.agree(plan(), consent=lambda _: node.gate.renew(stricter)))


def test_a_period_that_nobody_opened_is_refused(make):
    node = make()
    node.gate.agree(plan())
    node.gate.renew(NodePolicy(budget=Budget(max_epsilon=10.0, max_delta=DELTA, period="2027")))
    error = refused("POLICY_PERIOD_UNSIGNED", lambda: node.gate.agree(plan("r2")))
    assert "'2026'" in error.hint
    assert node.ledger.periods() == ("2026",)
    assert node.last.detail["code"] == "POLICY_PERIOD_UNSIGNED"


def test_a_plan_beyond_the_budget_leaves_only_an_audit_entry(make):
    node = make(NodePolicy(budget=Budget(max_epsilon=1.0, period="2026")))
    error = refused("BUDGET_EXCEEDED", lambda: node.gate.agree(plan()))
    assert "max_epsilon = 1 " in error.message
    assert "'2026'" in error.message
    assert node.ledger.periods() == ()
    assert node.actions == ["plan_refused"]
    refused(
        "RELEASE_OUTSIDE_PLAN",
        lambda: node.release(phase="count", round=0, events=[COUNT], produce=must_not_run),
    )


def test_a_plan_whose_events_cost_more_than_it_says_is_refused(make):
    node = make()
    refused("BUDGET_EXCEEDED", lambda: node.gate.agree(plan(epsilon=TARGET - 0.01)))
    assert node.ledger.periods() == ()


def test_the_same_plan_again_changes_nothing_and_another_under_its_name_is_refused(make):
    node = make()
    node.gate.agree(plan())
    node.gate.agree(plan())
    assert node.actions == ["plan_agreed"]
    refused("RELEASE_OUTSIDE_PLAN", lambda: node.gate.agree(plan(plan_json="{}")))
    node.gate.close("r1")
    refused("RELEASE_OUTSIDE_PLAN", lambda: node.gate.agree(plan()))


@pytest.mark.parametrize(
    "events",
    [
        (COUNT, COUNT),
        (DiscreteLaplace(purpose="count", epsilon=0.2),),
        (TABLES.model_copy(update={"sigma": 14.9}),),
        (TABLES.model_copy(update={"count": 15}),),
        (ROUND.model_copy(update={"steps": 41}),),
        (ROUND.model_copy(update={"sampling_rate": 0.11}),),
        (ROUND.model_copy(update={"noise_multiplier": 8.0}),),
        (NonPrivate(purpose="debugging"),),
    ],
)
def test_events_that_the_plan_does_not_hold_are_refused_even_if_they_are_cheaper(make, events):
    node = make()
    node.gate.agree(plan())
    refused(
        "RELEASE_OUTSIDE_PLAN",
        lambda: node.release(phase="x", round=0, events=events, produce=must_not_run),
    )
    assert node.ledger.run("r1").events == ()
    assert node.last.action == "release_refused"


def test_a_release_that_nothing_would_be_charged_for_is_refused(make):
    node = make()
    node.gate.agree(plan())
    refused("RELEASE_OUTSIDE_PLAN", lambda: node.release(phase="count", round=0, events=[], produce=must_not_run))
    refused("RELEASE_OUTSIDE_PLAN", lambda: node.gate.open_steps("r1", phase="training", round=1, events=()))
    assert node.ledger.run("r1").releases == ()


def test_more_rounds_than_planned_are_refused(make):
    node = make()
    node.gate.agree(plan())
    for number in (1, 2):
        node.release(phase="training", round=number, events=[ROUND], produce=numbers)
    refused(
        "RELEASE_OUTSIDE_PLAN",
        lambda: node.release(phase="training", round=3, events=[ROUND], produce=must_not_run),
    )


def test_unknown_and_closed_runs_release_nothing(make):
    node = make()
    node.gate.agree(plan())
    node.gate.close("r1")
    for run_id in ("r1", "r9"):
        refused(
            "RELEASE_OUTSIDE_PLAN",
            lambda run_id=run_id: node.release(run_id, phase="count", round=0, events=[COUNT], produce=must_not_run),
        )
    refused("RELEASE_OUTSIDE_PLAN", lambda: node.gate.close("r9"))


def test_the_same_request_gets_the_same_numbers_also_from_a_gate_that_was_started_anew(make):
    node = make()
    node.gate.agree(plan())
    (first,) = node.release(phase="training", round=1, events=[ROUND], produce=lambda: (np.random.rand(5),))
    for again in (node, make()):
        (found,) = again.release(phase="training", round=1, events=[ROUND], produce=must_not_run)
        assert found.tobytes() == first.tobytes()
    assert node.ledger.run("r1").events == (ROUND,)
    assert node.actions == ["plan_agreed", "release", "release_repeated", "release_repeated"]


def test_a_replay_with_other_content_is_refused_also_by_a_gate_that_was_started_anew(make):
    node = make()
    node.gate.agree(plan())
    node.release(phase="training", round=1, events=[ROUND], produce=numbers)
    for again in (node, make()):
        refused(
            "RELEASE_OUTSIDE_PLAN",
            lambda again=again: again.release(
                phase="training", round=1, events=[ROUND], produce=must_not_run, asked="another"
            ),
        )
    assert node.ledger.run("r1").events == (ROUND,)
    assert node.actions[-2:] == ["release_refused"] * 2


def test_what_is_asked_for_again_while_it_is_computed_is_refused(make):
    node = make()
    node.gate.agree(plan())

    def produce():
        refused(
            "RELEASE_OUTSIDE_PLAN",
            lambda: node.release(phase="training", round=1, events=[ROUND], produce=must_not_run),
        )
        return numbers()

    node.release(phase="training", round=1, events=[ROUND], produce=produce)
    assert node.actions == ["plan_agreed", "release_refused", "release"]


class Killed(BaseException):
    """Ends a process as kill -9 would: nothing after it runs."""


def killed(*_, **__):
    raise Killed


def test_what_was_reserved_by_a_process_that_was_killed_is_computed_once_more_at_no_further_cost(make, monkeypatch):
    node = make()
    node.gate.agree(plan())
    monkeypatch.setattr(node.ledger, "commit", killed)
    with pytest.raises(Killed):
        node.release(phase="training", round=1, events=[ROUND], produce=numbers)
    assert node.ledger.run("r1").events == (ROUND,)
    stricter = make(NodePolicy(budget=Budget(max_epsilon=0.5, max_delta=DELTA, period="2026")))
    refused(
        "BUDGET_EXCEEDED",
        lambda: stricter.release(phase="training", round=1, events=[ROUND], produce=must_not_run),
    )
    again = make()
    again.release(phase="training", round=1, events=[ROUND], produce=numbers)
    again.release(phase="training", round=2, events=[ROUND], produce=numbers)
    refused(
        "RELEASE_OUTSIDE_PLAN",
        lambda: again.release(phase="training", round=3, events=[ROUND], produce=must_not_run),
    )
    assert node.ledger.run("r1").events == (ROUND, ROUND)


@pytest.mark.parametrize("moment", ["before the chain", "after the chain"])
def test_the_chain_tells_of_every_change_once_though_the_process_was_killed(make, monkeypatch, moment):
    node = make()
    node.gate.agree(plan())

    def attempts():
        yield lambda: make_killed().release(phase="count", events=[COUNT], produce=numbers)
        yield lambda: make_killed().gate.fix_events("r1", EVENTS)
        yield lambda: make_killed().gate.close("r1")

    def make_killed():
        fresh = make()
        owner, method = (fresh.chain, "append") if moment == "before the chain" else (fresh.ledger, "settle")
        monkeypatch.setattr(owner, method, killed)
        return fresh

    for attempt in attempts():
        with pytest.raises(Killed):
            attempt()
    assert make().actions == ["plan_agreed", "release", "events_fixed", "run_closed"]
    assert make().chain.verify().is_sound
    assert node.ledger.owed() == ()


def test_a_refused_request_is_written_down(make):
    node = make()
    with pytest.raises(PolicyRefused):
        node.gate.refuse(PolicyRefused("SCHEMA_MISMATCH", "Another schema."), phase="plan", run_id="r1")
    assert node.last.action == "request_refused"
    assert node.last.detail == {
        "run_id": "r1", "phase": "plan", "code": "SCHEMA_MISMATCH", "reason": "Another schema.",
    }  # fmt: skip


def test_before_events_are_fixed_only_noisy_counts_pass(make):
    node = make()
    node.gate.agree(plan(planned_events=None))
    node.release(phase="count", round=0, events=[COUNT], produce=numbers)
    refused(
        "RELEASE_OUTSIDE_PLAN",
        lambda: node.release(phase="tables", round=0, events=[TABLES], produce=must_not_run),
    )
    node.gate.fix_events("r1", EVENTS)
    node.release(phase="tables", round=0, events=[TABLES], produce=numbers)
    assert node.actions[-3:] == ["release_refused", "events_fixed", "release"]


def test_counts_before_the_fixing_stay_within_the_target(make):
    node = make()
    node.gate.agree(plan(planned_events=None, epsilon=0.25))
    for number in (1, 2):
        node.release(phase="count", round=number, events=[COUNT], produce=numbers)
    refused(
        "BUDGET_EXCEEDED",
        lambda: node.release(phase="count", round=3, events=[COUNT], produce=must_not_run),
    )


def test_events_that_leave_out_the_count_or_cost_too_much_cannot_be_fixed(make):
    node = make()
    node.gate.agree(plan(planned_events=None))
    node.release(phase="count", round=0, events=[COUNT], produce=numbers)
    refused("RELEASE_OUTSIDE_PLAN", lambda: node.gate.fix_events("r1", [TABLES, ROUND]))
    refused("BUDGET_EXCEEDED", lambda: node.gate.fix_events("r1", [*EVENTS, ROUND]))
    refused("RELEASE_OUTSIDE_PLAN", lambda: node.gate.fix_events("r9", EVENTS))
    assert node.actions[-3:] == ["events_refused"] * 3
    node.gate.fix_events("r1", EVENTS)
    refused("RELEASE_OUTSIDE_PLAN", lambda: node.gate.fix_events("r1", EVENTS))


def test_events_cannot_be_fixed_after_gaussian_output_was_seen(make):
    node = make()
    node.gate.agree(plan())
    node.release(phase="tables", round=0, events=[TABLES], produce=numbers)
    error = refused("RELEASE_OUTSIDE_PLAN", lambda: node.gate.fix_events("r1", EVENTS))
    assert "noisy counts" in error.message


def test_an_estimate_can_be_replaced_after_the_count(make):
    node = make()
    node.gate.agree(plan())
    node.release(phase="count", round=0, events=[COUNT], produce=numbers)
    larger = ROUND.model_copy(update={"sampling_rate": 0.12, "noise_multiplier": 5.0, "steps": 40})
    node.gate.fix_events("r1", (COUNT, TABLES, larger))
    refused(
        "RELEASE_OUTSIDE_PLAN",
        lambda: node.release(phase="training", round=1, events=[ROUND], produce=must_not_run),
    )
    node.release(phase="training", round=1, events=[larger], produce=numbers)


def test_a_limit_lowered_during_a_run_stops_it(make):
    node = make()
    node.gate.agree(plan())
    node.release(phase="count", round=0, events=[COUNT], produce=numbers)
    stricter = make(NodePolicy(budget=Budget(max_epsilon=0.5, max_delta=DELTA, period="2026")))
    refused(
        "BUDGET_EXCEEDED",
        lambda: stricter.release(phase="tables", round=0, events=[TABLES], produce=must_not_run),
    )


def test_a_new_period_neither_frees_nor_stops_the_runs_of_the_old_one(make):
    node = make()
    node.gate.agree(plan())
    node.release(phase="training", round=1, events=[ROUND], produce=numbers)
    later = make(NodePolicy(budget=Budget(max_epsilon=10.0, max_delta=DELTA, period="2027")))
    later.release(phase="training", round=2, events=[ROUND], produce=numbers)
    refused(
        "RELEASE_OUTSIDE_PLAN",
        lambda: later.release(phase="training", round=3, events=[ROUND], produce=must_not_run),
    )
    assert later.gate.spend().spent == 0
    assert node.gate.spend().spent > 0


def test_a_period_that_the_steward_opens_under_a_running_gate_leaves_its_run_in_the_old_one(make, tmp_path):
    node = make()
    policy = NodePolicy(budget=Budget(max_epsilon=10.0, max_delta=DELTA, period="2026"))
    steward = Steward(tmp_path, node="st-mary", chain=AuditChain(tmp_path / "audit.db"))
    adopt_policy(lambda: policy, steward=steward, ledger=node.ledger)
    node.gate.agree(plan())
    node.release(phase="count", events=[COUNT], produce=lambda: (np.array([1]),))
    write_policy(tmp_path / "policy.toml", policy)
    open_period("2027", file=tmp_path / "policy.toml", steward=steward, ledger=node.ledger)
    assert (node.gate.spend().period, node.gate.spend().spent) == ("2027", 0)
    assert (node.gate.spend("r1").period, node.gate.spend("r1").spent) == ("2026", 0.1)
    node.release(phase="tables", events=[TABLES], produce=lambda: (np.array([1]),))
    assert node.ledger.periods() == ("2026",)


def test_a_limit_that_the_steward_signs_lower_stops_the_run_that_goes_on(make, tmp_path):
    node = make()
    policy = NodePolicy(budget=Budget(max_epsilon=10.0, max_delta=DELTA, period="2026"))
    steward = Steward(tmp_path, node="st-mary", chain=AuditChain(tmp_path / "audit.db"))
    adopt_policy(lambda: policy, steward=steward, ledger=node.ledger)
    node.gate.agree(plan())
    write_policy(tmp_path / "policy.toml", policy)
    lower = new_limit(policy.budget, epsilon=0.5, delta=None)
    set_limit(lower, file=tmp_path / "policy.toml", steward=steward, ledger=node.ledger, node="st-mary")
    refused(
        "BUDGET_EXCEEDED",
        lambda: node.release(phase="count", events=[COUNT], produce=must_not_run),
    )


def test_a_run_without_privacy_needs_a_policy_without_a_limit(make):
    unprotected = plan(epsilon=math.inf, planned_events=None)
    refused("BUDGET_EXCEEDED", lambda: make().gate.agree(unprotected))
    node = make(simulated_policy(epsilon=math.inf, delta=DELTA))
    node.gate.agree(unprotected)
    none = NonPrivate(purpose="count")
    node.release(phase="count", round=0, events=[none], produce=numbers)
    node.gate.fix_events("r1", [none, none])
    node.release(phase="tables", round=0, events=[none], produce=numbers)
    view = node.gate.spend()
    assert view.spent == view.left == math.inf
    assert json.loads(view.model_dump_json())["spent"] == "Infinity"
    assert node.chain.verify().is_sound


def test_an_unprotected_release_is_not_in_any_private_plan(make):
    node = make()
    refused("BUDGET_EXCEEDED", lambda: node.gate.agree(plan(planned_events=(NonPrivate(purpose="x"),))))
    node.gate.agree(plan(planned_events=None))
    refused(
        "RELEASE_OUTSIDE_PLAN",
        lambda: node.release(phase="x", round=0, events=[NonPrivate(purpose="x")], produce=must_not_run),
    )


@pytest.mark.parametrize("noisy", [20, 21, 4000])
def test_enough_patients(make, noisy):
    node = make()
    node.gate.require_patients("r1", noisy_count=noisy)
    assert node.actions == []


@pytest.mark.parametrize("noisy", [19, 0, -7])
def test_too_few_patients(make, noisy):
    node = make()
    error = refused("POLICY_MIN_PATIENTS", lambda: node.gate.require_patients("r1", noisy_count=noisy))
    assert "below the 20" in error.message
    assert node.last.detail["code"] == "POLICY_MIN_PATIENTS"


@pytest.mark.parametrize("planned", [EVENTS, None])
def test_two_plans_at_the_same_time_cannot_both_have_the_last_of_the_budget(tmp_path, planned):
    policy = simulated_policy(epsilon=1.2 * TARGET, delta=DELTA)
    nodes = [Node(tmp_path, policy) for _ in range(4)]
    barrier = threading.Barrier(len(nodes))
    agreed: list[str] = []

    def attempt(node: Node, run_id: str):
        barrier.wait()
        try:
            node.gate.agree(plan(run_id, planned_events=planned))
        except BudgetExceeded:
            return
        agreed.append(run_id)

    threads = [threading.Thread(target=attempt, args=(node, f"r{number}")) for number, node in enumerate(nodes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(agreed) == 1
    assert list(nodes[0].ledger.runs("simulated")) == agreed
    assert sorted(nodes[0].actions) == ["plan_agreed", *["plan_refused"] * 3]


@pytest.mark.parametrize("planned", [EVENTS, None])
def test_a_run_that_another_node_refused_costs_nothing_and_can_be_repeated(make, planned):
    """The server closes it at the nodes that had agreed; the limit is that of one run."""
    node = make(simulated_policy(epsilon=TARGET, delta=DELTA))
    for number in range(3):
        node.gate.agree(plan(f"refused{number}", planned_events=planned))
        node.gate.close(f"refused{number}")
        view = node.gate.spend()
        assert (view.spent, view.committed, view.left) == (0, 0, TARGET)
    node.gate.agree(plan("r1", planned_events=planned))
    node.release(phase="count", round=0, events=[COUNT], produce=numbers)
    node.gate.close("r1")
    refused("BUDGET_EXCEEDED", lambda: node.gate.agree(plan("r2", planned_events=planned)))


def test_a_policy_that_asks_for_no_patients_is_content_with_a_negative_noisy_count(make):
    node = make(NodePolicy(budget=Budget(max_delta=DELTA), allow=Allowance(min_patients=0)))
    node.gate.agree(plan())
    node.gate.require_patients("r1", noisy_count=-7)
