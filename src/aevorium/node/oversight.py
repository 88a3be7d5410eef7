"""The steward's hold on a running node: their policy, read anew at each plan, and their consent."""

from __future__ import annotations

import math
from pathlib import Path

from aevorium.governance.admission import AgreedPlan
from aevorium.governance.chain import AuditChain
from aevorium.governance.consent import ConsentDesk, ConsentRequest, PlanFacts, release_costs
from aevorium.governance.periods import PeriodHistory, adopt_policy
from aevorium.governance.policy import NodePolicy, load_policy
from aevorium.governance.steward import Steward
from aevorium.privacy.ledger import BudgetLedger
from aevorium.privacy.plan import StudyPlan
from aevorium.progress import ConsentAwaited, Report

__all__ = ["Oversight"]


class Oversight:
    """What a node's steward may change while it runs, and what is asked of them.

    Args:
        home: The node's home.
        node: Its name.
        policy: What the steward allows.
        file: Where the policy is read anew; None if it is on no file.
        ledger: The node's ledger.
        chain: The node's audit chain.
        report: Takes what the steward should see.

    Raises:
        PolicyRefused: POLICY_PERIOD_UNSIGNED, if the policy names a period that was not opened.
        ArtefactError: KEY_INVALID or STEWARD_KEY_WRONG.
    """

    def __init__(
        self,
        home: Path,
        *,
        node: str,
        policy: NodePolicy,
        file: Path | None,
        ledger: BudgetLedger,
        chain: AuditChain,
        report: Report,
    ) -> None:
        self._home, self._node, self._report = home, node, report
        self._policy, self._file = policy, file
        self._ledger, self._chain = ledger, chain
        self._steward = Steward(home, node=node, chain=chain)
        self._desk = ConsentDesk(home, steward=self._steward, ledger=ledger)
        self._steward.require_key()
        adopt_policy(lambda: policy, steward=self._steward, ledger=ledger)
        PeriodHistory.of(chain).require(policy.budget, ledger=ledger, node=node)

    def policy(self) -> NodePolicy:
        """The policy as it is now.

        Raises:
            ConfigError: POLICY_INVALID.
        """
        file = self._file
        if file is not None:
            self._policy = adopt_policy(lambda: load_policy(file), steward=self._steward, ledger=self._ledger)
        return self._policy

    def await_consent(self, agreed: AgreedPlan, *, study: StudyPlan, until: float) -> NodePolicy:
        """Puts a plan before the steward and waits for them. The policy as it is then.

        Args:
            agreed: The plan, for the gate.
            study: The same, in full.
            until: When the server stops waiting: seconds since 1970.

        Raises:
            PolicyRefused: POLICY_CONSENT_REFUSED, POLICY_CONSENT_AWAITED.
        """
        facts = PlanFacts(
            plan_hash=agreed.plan_hash,
            run_id=agreed.run_id,
            server=agreed.server,
            study=study.study,
            purpose=study.purpose,
            recipe=study.recipe,
            trust=study.trust,
            epsilon=study.epsilon,
            delta=study.delta,
            costs=release_costs(agreed.planned_events, delta=agreed.delta),
        )
        self._desk.await_decision(facts, until=until, tell=self._tell)
        return self.policy()

    def _tell(self, request: ConsentRequest) -> None:
        plan, home = request.plan, self._home.parent.absolute()
        costs = ", ".join(f"{cost.purpose} {_number(cost.epsilon)}" for cost in plan.costs)
        command = f"aevorium budget {{}} {plan.plan_hash[:12]} --node {self._node} --home {home}"
        self._report(
            ConsentAwaited(
                node=self._node,
                plan=plan.plan_hash,
                text=f"The steward is asked: may node {self._node} take part in study {plan.study!r} of the server "
                f"{plan.server[:16]}, for {plan.purpose!r}? ε = {_number(plan.epsilon)} at δ = {plan.delta:g}, recipe "
                f"{plan.recipe}, trust {plan.trust}. By itself, in ε: {costs or 'not known before a first count'}.",
                agree=command.format("agree"),
                decline=command.format("decline"),
                until=request.until,
            )
        )


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.3f}"
