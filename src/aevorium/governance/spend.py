"""What a node has spent, from its ledger and its steward's statements."""

from __future__ import annotations

from pathlib import Path

from aevorium.governance.budget import BudgetView, PeriodBudget, lifetime_spend
from aevorium.governance.chain import AuditChain
from aevorium.governance.periods import PeriodHistory
from aevorium.governance.policy import Budget
from aevorium.privacy.ledger import BudgetLedger
from aevorium.workspace import write_atomically

__all__ = ["node_spend", "write_spend"]


def node_spend(budget: Budget, *, node: str, ledger: BudgetLedger, history: PeriodHistory) -> BudgetView:
    """The period in force, the periods before it, and the lifetime total. Safe to release.

    Args:
        budget: The budget in force.
        node: The node's name.
        ledger: What was agreed and released.
        history: Which limit was in force when.
    """
    periods = {label: ledger.runs(label) for label in (*ledger.periods(), budget.period)}
    budgets = {
        label: PeriodBudget(limit, runs, settling=history.settling(runs, limit=limit))
        for label, runs in periods.items()
        for limit in [history.limit_of(label, budget=budget)]
    }
    earlier = [each.as_earlier() for label, each in budgets.items() if label != budget.period]
    current = budgets[budget.period]
    lifetime = lifetime_spend(
        (run for runs in periods.values() for run in runs.values()),
        delta=budget.max_delta,
        periods=[each.spent for each in budgets.values()],
    )
    return current.view(node=node, earlier=earlier, lifetime=lifetime)


def write_spend(home: Path, view: BudgetView, *, chain: AuditChain) -> None:
    """Writes a node's own `privacy_budget.json` and `audit_log.json`.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    with write_atomically(home / "privacy_budget.json") as path:
        path.write_text(view.model_dump_json(indent=2) + "\n", encoding="utf-8")
    chain.write_view(home / "audit_log.json")
