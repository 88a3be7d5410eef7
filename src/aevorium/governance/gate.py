"""The release gate: the only way out of a node for anything computed from patient records.

Order of a release: is it in the agreed plan, does the policy still bear it → reserve it in the ledger → compute →
commit the numbers and the audit entry that tells of them → move the entry to the chain → hand the numbers on. From the
reservation on it counts as spent, whatever happens next.

A node may be killed between any two of these. Every change of the ledger is one transaction, and the audit entry that
tells of it is part of that transaction: the chain gets it now, or when the gate is opened again. The same request
after that finds its reservation, and gets the committed numbers once more or, if there are none, has them computed;
neither costs anything more (`aevorium.privacy.ledger` says why).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

from aevorium.errors import AevoriumError, PolicyRefused
from aevorium.governance.admission import (
    AgreedPlan,
    admit_fixing,
    admit_release,
    check_target,
    is_open,
    outside_plan,
)
from aevorium.governance.budget import BudgetView, PeriodBudget
from aevorium.governance.chain import AuditChain
from aevorium.governance.code import code_hash
from aevorium.governance.periods import PeriodHistory
from aevorium.governance.policy import Budget, NodePolicy
from aevorium.governance.spend import node_spend
from aevorium.privacy.events import PrivacyEvent
from aevorium.privacy.ledger import BudgetLedger, Facts, LedgerRun, Owed
from aevorium.privacy.numbers import Numbers

__all__ = ["Consent", "ReleaseGate", "ReleasedSteps"]


class ReleasedSteps:
    """The steps of a round that is paid for, under secure aggregation.

    Args:
        run_id: The run, for messages.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._last = 0
        self._lock = threading.Lock()

    def release(self, step: int, *, produce: Callable[[], Numbers]) -> Numbers:
        """Lets one step out. Reads patient records (in `produce`).

        Args:
            step: Its number; 1 is the first.
            produce: Reads the records and adds the noise.

        Raises:
            PolicyRefused: RELEASE_OUTSIDE_PLAN, if it is not the step after the last one.
        """
        with self._lock:
            if step != self._last + 1:
                raise outside_plan(self._run_id, f"Step {step} does not follow step {self._last} of its round.")
            # Before it is produced: whatever happens, this step does not come again.
            self._last = step
        return produce()


Consent = Callable[[AgreedPlan], None]
"""Asks the steward, and returns if they agree. Raises PolicyRefused: POLICY_CONSENT_REFUSED, POLICY_CONSENT_AWAITED."""


def _nobody_to_ask(plan: AgreedPlan) -> None:
    raise PolicyRefused(
        "POLICY_CONSENT_AWAITED",
        f"Run {plan.run_id!r} refused. The policy wants the steward asked, and nobody can be asked here.",
    )


class ReleaseGate:
    """Enforces a policy on everything that leaves a node.

    Args:
        node: Name of the node: the actor of its audit entries.
        policy: What the steward allows.
        ledger: What has been spent; on disk, with the data.
        chain: Where agreements, refusals and releases are written down.
    """

    def __init__(self, *, node: str, policy: NodePolicy, ledger: BudgetLedger, chain: AuditChain) -> None:
        self._node = node
        self._policy = policy
        self._ledger = ledger
        self._chain = chain
        self._lock = threading.Lock()
        self._at_work: set[tuple[str, str, int]] = set()
        self._pay_owed()

    def renew(self, policy: NodePolicy) -> None:
        """From now on, this is what the steward allows."""
        self._policy = policy

    def agree(self, plan: AgreedPlan, *, consent: Consent = _nobody_to_ask) -> None:
        """Accepts a plan, or refuses it before any record is read. The same plan again changes nothing.

        Looks in order at schema, purpose, server, code, period, δ and budget; a plan that passes is put before the
        steward if the policy says so. The plan's whole cost is taken from the budget in one transaction with the check,
        so that two plans cannot both be promised the same budget. A refusal writes one audit entry and nothing else.

        Args:
            plan: The plan.
            consent: Asks the steward; may take as long as they do, and holds nothing meanwhile.

        Raises:
            PolicyRefused: POLICY_SCHEMA_REFUSED, POLICY_PURPOSE_REFUSED, POLICY_SERVER_REFUSED, POLICY_CODE_REFUSED,
                POLICY_PERIOD_UNSIGNED, POLICY_DELTA_REFUSED, what `consent` raises, or RELEASE_OUTSIDE_PLAN for an id
                that stands for another plan or a run that ended.
            BudgetExceeded: BUDGET_EXCEEDED.
        """
        facts = {
            "run_id": plan.run_id,
            "plan_hash": plan.plan_hash,
            "schema_hash": plan.schema_hash,
            "purpose": plan.purpose,
            "server": plan.server,
            "epsilon": plan.epsilon,
            "delta": plan.delta,
        }
        if is_open(self._ledger.run(plan.run_id), plan):
            return
        try:
            self._check_policy(plan)
            announced = None if plan.planned_events is None else plan.planned_events * plan.nodes_per_patient
            check_target(plan.run_id, announced, target=plan.epsilon, delta=plan.delta)
            if self._policy.allow.consent == "ask":
                self._admit_plan(plan, self._ledger.runs(self._policy.budget.period))
                consent(plan)
                # The steward may have changed the policy while they were asked.
                self._check_policy(plan)
            budget = self._policy.budget
            self._ledger.open_run(
                plan.run_id,
                plan_json=plan.plan_json,
                plan_hash=plan.plan_hash,
                epsilon=plan.epsilon,
                delta=plan.delta,
                period=budget.period,
                agreed_events=plan.planned_events,
                facts={"server": plan.server},
                owes=Owed("plan_agreed", {**facts, "period": budget.period}),
                admit=lambda runs: self._admit_plan(plan, runs),
            )
        except AevoriumError as error:
            self._record("plan_refused", {**facts, "code": error.code, "reason": error.message})
            raise
        self._pay_owed()

    def _check_policy(self, plan: AgreedPlan) -> None:
        allow, budget = self._policy.allow, self._policy.budget
        refused = f"Run {plan.run_id!r} refused."
        if allow.schemas and plan.schema_hash not in allow.schemas:
            raise PolicyRefused(
                "POLICY_SCHEMA_REFUSED",
                f"{refused} The policy of node {self._node!r} does not list the schema {plan.schema_hash!r}.",
            )
        if allow.purposes and plan.purpose not in allow.purposes:
            raise PolicyRefused(
                "POLICY_PURPOSE_REFUSED",
                f"{refused} The policy of node {self._node!r} does not list the purpose {plan.purpose!r}.",
            )
        if allow.servers and plan.server not in allow.servers:
            raise PolicyRefused(
                "POLICY_SERVER_REFUSED",
                f"{refused} The policy of node {self._node!r} does not list the server {plan.server!r}.",
            )
        if allow.code and code_hash() not in allow.code:
            raise PolicyRefused(
                "POLICY_CODE_REFUSED",
                f"{refused} The policy of node {self._node!r} does not list the code that it runs, {code_hash()!r}.",
            )
        PeriodHistory.of(self._chain).require(budget, ledger=self._ledger, node=self._node)
        if plan.delta > budget.max_delta:
            raise PolicyRefused(
                "POLICY_DELTA_REFUSED",
                f"{refused} Its δ = {plan.delta:g} is above max_delta = {budget.max_delta:g} of node {self._node!r}.",
            )

    def _admit_plan(self, plan: AgreedPlan, runs: Mapping[str, LedgerRun]) -> None:
        self._period(self._policy.budget, runs).admit_plan(
            plan.run_id, epsilon=plan.epsilon, delta=plan.delta, planned=plan.planned_events
        )

    def fix_events(
        self, run_id: str, events: Sequence[PrivacyEvent], *, basis: Facts | None = None, nodes_per_patient: int = 1
    ) -> None:
        """Fixes all that a run may release, once, after its noisy count and before anything that is not pure.

        Args:
            run_id: The run.
            events: Everything, with what was released already.
            basis: The facts that the events follow from, kept with them.
            nodes_per_patient: How often the events count against the run's target (`AgreedPlan`).

        Raises:
            PolicyRefused: RELEASE_OUTSIDE_PLAN, if the run is unknown or closed, its events were fixed before, it has
                released something that is not pure, or the list leaves out something released.
            BudgetExceeded: BUDGET_EXCEEDED, if they cost more than the run's target or than the policy bears.
        """
        told = {"run_id": run_id, "events": [event.model_dump() for event in events]}
        try:
            run = self._run(run_id)
            check_target(run_id, tuple(events) * nodes_per_patient, target=run.epsilon, delta=run.delta)
            budget = self._budget_of(run)
            self._ledger.fix_events(
                run_id,
                events,
                facts=basis,
                owes=Owed("events_fixed", told),
                admit=lambda runs: admit_fixing(run_id, self._period(budget, runs), events=events),
            )
        except AevoriumError as error:
            self._record("events_refused", {**told, "code": error.code, "reason": error.message})
            raise
        self._pay_owed()

    def release(
        self,
        run_id: str,
        *,
        phase: str,
        round: int,
        events: Sequence[PrivacyEvent],
        fingerprint: str,
        produce: Callable[[], Numbers],
        learn: Callable[[Numbers], Facts] | None = None,
    ) -> Numbers:
        """Computes something from patient records and lets it out, or refuses before a record is read.

        Reads patient records (in `produce`). What it returns is safe to release, if `produce` adds the noise that
        `events` describe. The same request again gets the same numbers, and reads no record.

        Args:
            run_id: An agreed run.
            phase: The phase of the run.
            round: The round within the phase; a phase and round are released once.
            events: What the release costs.
            fingerprint: SHA-256 (hex) of all that was asked for: what `produce` depends on besides the records.
            produce: Reads the records and adds the noise. It must not raise for a reason found in the records.
            learn: The facts in the numbers that later phases go by, kept with them.

        Raises:
            PolicyRefused: RELEASE_OUTSIDE_PLAN: unknown or closed run, a replay with other content or of a release
                that failed or is at work, no events, or events that the plan does not hold.
            BudgetExceeded: BUDGET_EXCEEDED, if the policy no longer bears the run.
        """
        told = {"run_id": run_id, "phase": phase, "round": round, "events": [event.model_dump() for event in events]}
        with self._alone(run_id, phase, round, told=told):
            try:
                budget = self._budget_of(self._run(run_id))
                reservation = self._ledger.reserve(
                    run_id,
                    phase=phase,
                    round=round,
                    events=events,
                    fingerprint=fingerprint,
                    admit=lambda runs: admit_release(
                        run_id, self._period(budget, runs), phase=phase, round=round, events=events
                    ),
                )
            except AevoriumError as error:
                self._record("release_refused", {**told, "code": error.code, "reason": error.message})
                raise
            if reservation.numbers is not None:
                self._record("release_repeated", told)
                return reservation.numbers
            try:
                numbers = produce()
            except BaseException as error:
                # The type alone: the text of an exception can quote a patient's value.
                failed = Owed("release_failed", {**told, "error": type(error).__name__, "spent": True})
                self._ledger.fail(reservation.id, owes=failed)
                self._pay_owed()
                raise
            facts = None if learn is None else learn(numbers)
            self._ledger.commit(reservation.id, numbers=numbers, facts=facts, owes=Owed("release", told))
            self._pay_owed()
            return numbers

    def open_steps(self, run_id: str, *, phase: str, round: int, events: Sequence[PrivacyEvent]) -> ReleasedSteps:
        """Spends what all steps of a round cost, before the first of them; each is then released once, in order.

        Hundreds of small releases would each wait for the disk otherwise. Nothing of them is kept: a round cannot be
        opened again, and after a restart the rest of it stays unreleased.

        Args:
            run_id: An agreed run.
            phase: The phase of the run.
            round: The round within the phase; a phase and round are opened once.
            events: What all its steps cost.

        Raises:
            PolicyRefused: RELEASE_OUTSIDE_PLAN, as for `release`.
            BudgetExceeded: BUDGET_EXCEEDED, as for `release`.
        """
        # A fingerprint of no request: whatever asks for the round again asks for something else.
        once = secrets.token_hex(32)
        self.release(run_id, phase=phase, round=round, events=events, fingerprint=once, produce=tuple)
        return ReleasedSteps(run_id)

    @contextmanager
    def _alone(self, run_id: str, phase: str, round: int, *, told: Mapping[str, object]) -> Iterator[None]:
        """Lets one request for a release in at a time; another one while records are being read is refused."""
        key = (run_id, phase, round)
        with self._lock:
            is_free = key not in self._at_work
            self._at_work.add(key)
        if not is_free:
            error = outside_plan(run_id, f"Phase {phase!r}, round {round} is being computed (replayed).")
            self._record("release_refused", {**told, "code": error.code, "reason": error.message})
            raise error
        try:
            yield
        finally:
            self._at_work.discard(key)

    def refuse(self, error: AevoriumError, *, phase: str, run_id: str | None = None) -> NoReturn:
        """Refuses a request that never gets as far as a release: writes it down, and raises the error.

        Args:
            error: Why.
            phase: What was asked for.
            run_id: The run that was named, if the request can be read.
        """
        self._record("request_refused", {"run_id": run_id, "phase": phase, "code": error.code, "reason": error.message})
        raise error

    def require_patients(self, run_id: str, *, noisy_count: int, phase: str = "count") -> None:
        """Passes if a released noisy count reaches the policy's minimum. Safe to release.

        Raises:
            PolicyRefused: POLICY_MIN_PATIENTS.
        """
        minimum = self._policy.allow.min_patients
        # Noise can make a small count negative: who asks for no patients is content with that too.
        if minimum == 0 or noisy_count >= minimum:
            return
        message = (
            f"Run {run_id!r} refused. The noisy patient count of node {self._node!r} is below the"
            f" {minimum} that its policy asks for."
        )
        self.refuse(PolicyRefused("POLICY_MIN_PATIENTS", message), phase=phase, run_id=run_id)

    def close(self, run_id: str) -> None:
        """Ends a run at this node: nothing more is released under it, and budget it did not use may come back.

        A second time changes nothing.
        """
        self._run(run_id)
        self._ledger.close_run(run_id, owes=Owed("run_closed", {"run_id": run_id}))
        self._pay_owed()

    def spend(self, run_id: str | None = None) -> BudgetView:
        """What was spent in the period in force, in the others, and in all. Safe to release.

        Args:
            run_id: A run, to see the period that pays for it, whichever is in force by now.
        """
        history = PeriodHistory.of(self._chain)
        budget = (history.current or self._policy.budget) if run_id is None else self._budget_of(self._run(run_id))
        return node_spend(budget, node=self._node, ledger=self._ledger, history=history)

    def _run(self, run_id: str) -> LedgerRun:
        run = self._ledger.run(run_id)
        if run is None:
            raise outside_plan(run_id, "This node never agreed to it.")
        return run

    def _period(self, budget: Budget, runs: Mapping[str, LedgerRun]) -> PeriodBudget:
        return PeriodBudget(budget, runs, settling=PeriodHistory.of(self._chain).settling(runs, limit=budget))

    def _budget_of(self, run: LedgerRun) -> Budget:
        """The limit on the period that pays for a run, which a new period does not change."""
        return PeriodHistory.of(self._chain).limit_of(run.period, budget=self._policy.budget)

    def _pay_owed(self) -> None:
        """Moves to the chain what the ledger owes it, each entry once, also if the process ended half-way before."""
        for owed in self._ledger.owed():
            detail = {**owed.detail, "ledger_entry": owed.id}
            last = self._chain.last
            # Only the last entry can be one that got there but was not struck out: the next waits until it is.
            if last is None or (last.action, last.detail.get("ledger_entry")) != (owed.action, owed.id):
                self._chain.append(actor=self._node, action=owed.action, detail=detail)
            self._ledger.settle(owed.id)

    def _record(self, action: str, detail: Mapping[str, object]) -> None:
        self._chain.append(actor=self._node, action=action, detail=detail)
