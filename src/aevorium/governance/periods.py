"""Budget periods and their limits: which one is in force, who may open one, and what was in force when.

Each period and each limit is a signed statement of the steward (`steward`), so that a limit cannot start anew by a
changed word in a file. The policy file says what is to be in force; the statements say what may be:

- the first label of a home is opened by its first use, in the steward's name;
- another label is opened by `open_period` (`aevorium budget new-period`) and by nothing else;
- a label stands for one stretch of time. Going back to an old one is refused: what a period is said to have spent
  would no longer be final, although a report or a statement may long have quoted it. Nothing is lost by that: runs
  that were agreed under an old label go on under it, and a further label costs nothing;
- a limit that was changed in the file is noted, with a signature, before the next plan is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aevorium.errors import ConfigError, PolicyRefused
from aevorium.governance.chain import AuditChain, plain
from aevorium.governance.policy import Budget, NodePolicy, load_policy, write_policy
from aevorium.governance.steward import Statement, Steward, statements_of
from aevorium.privacy.ledger import BudgetLedger, LedgerRun

__all__ = ["LimitSet", "PeriodHistory", "adopt_policy", "open_period", "set_limit"]

_POLICY = "policy_in_force"


@dataclass(frozen=True)
class LimitSet:
    """A limit that came into force.

    Attributes:
        time: When: UTC, ISO 8601.
        budget: The period and its limit.
    """

    time: str
    budget: Budget


@dataclass(frozen=True)
class PeriodHistory:
    """All limits that were ever in force at a node, in order.

    Attributes:
        limits: They; empty for a home without statements.
    """

    limits: tuple[LimitSet, ...]

    @classmethod
    def of(cls, chain: AuditChain) -> PeriodHistory:
        """Reads the statements of a chain."""
        return cls(tuple(_limit(statement) for statement in statements_of(chain, "period_opened", "limit_set")))

    @property
    def current(self) -> Budget | None:
        """The budget in force; None without statements."""
        return self.limits[-1].budget if self.limits else None

    def limit_of(self, period: str, *, budget: Budget) -> Budget:
        """The limit of a period as it was set last, be it this moment by another process.

        Args:
            period: The period.
            budget: What the policy says; taken for every period that no statement names.
        """
        found = (each.budget for each in reversed(self.limits) if each.budget.period == period)
        return next(found, budget.model_copy(update={"period": period}))

    def settling(self, runs: Mapping[str, LedgerRun], *, limit: Budget) -> Budget:
        """The limit in force when the first run of a period was agreed: it settles how its runs add up, for good.

        Args:
            runs: The runs of the period.
            limit: The limit in force now: that of a period without runs, or of a home without statements.
        """
        first = next(iter(runs.values()), None)
        if first is None:
            return limit
        before = [each.budget for each in self.limits if each.time <= first.agreed_at]
        return next((budget for budget in reversed(before) if budget.period == first.period), limit)

    def allows(self, budget: Budget, *, ledger: BudgetLedger) -> bool:
        """Whether a period is the one in force, or the first of a home."""
        return self._known(ledger) in (None, budget.period)

    def require(self, budget: Budget, *, ledger: BudgetLedger, node: str) -> None:
        """Passes if `allows`.

        Raises:
            PolicyRefused: POLICY_PERIOD_UNSIGNED.
        """
        if self.allows(budget, ledger=ledger):
            return
        known = self._known(ledger)
        raise PolicyRefused(
            "POLICY_PERIOD_UNSIGNED",
            f"The policy of node {node!r} says period {budget.period!r}, and its steward opened {known!r} last. A label"
            " that was changed by hand opens no period.",
            hint=f"Set it back to {known!r}, and open the new one with: aevorium budget new-period LABEL --node {node}",
        )

    def _known(self, ledger: BudgetLedger) -> str | None:
        """The period in force; that of the last run, for a ledger that lies there without statements."""
        if self.current is not None:
            return self.current.period
        periods = ledger.periods()
        return periods[-1] if periods else None


def adopt_policy(read: Callable[[], NodePolicy], *, steward: Steward, ledger: BudgetLedger) -> NodePolicy:
    """Reads the policy, notes what it allows, and opens the first period of a home or notes a new limit.

    A label that may not be used changes nothing: `PeriodHistory.require` refuses it, at the start and at each plan.

    Args:
        read: Reads the policy; no other process changes it meanwhile by a command.
        steward: In whose name the first period is opened.
        ledger: The node's ledger.

    Raises:
        ConfigError: POLICY_INVALID.
        ArtefactError: KEY_INVALID or STEWARD_KEY_WRONG.
    """
    with steward.speaking():
        policy = read()
        _note_allowed(policy, steward=steward)
        history = PeriodHistory.of(steward.chain)
        if history.current is None and history.allows(policy.budget, ledger=ledger):
            steward.state("period_opened", {**policy.budget.model_dump(), "how": "first use"})
        elif history.current != policy.budget and history.allows(policy.budget, ledger=ledger):
            steward.state("limit_set", {**policy.budget.model_dump(), "how": "policy file"})
    return policy


def open_period(period: str, *, file: Path, steward: Steward, ledger: BudgetLedger) -> NodePolicy:
    """Opens a period: writes it into the policy and signs it. Nothing is erased.

    Typed again after it was cut off, it does what was left to do.

    Args:
        period: The new label.
        file: The policy file.
        steward: Who opens it.
        ledger: The node's ledger, whose labels are taken.

    Returns:
        The policy now in force.

    Raises:
        ConfigError: PERIOD_USED, POLICY_INVALID, WORKSPACE_UNWRITABLE.
        ArtefactError: KEY_INVALID or STEWARD_KEY_WRONG.
    """
    with steward.speaking():
        policy = load_policy(file)
        history = PeriodHistory.of(steward.chain)
        is_open = history.current is not None and history.current.period == period
        used = {each.budget.period for each in history.limits} | set(ledger.periods())
        if period in used and (not is_open or policy.budget.period == period):
            raise ConfigError(
                "PERIOD_USED",
                f"The period {period!r} cannot be opened. It {'is open' if is_open else 'was used before'}, and a label"
                " stands for one stretch of time.",
            )
        opened = _with_budget(policy, policy.budget.model_copy(update={"period": period}))
        write_policy(file, opened)
        if not is_open:
            steward.state("period_opened", {**opened.budget.model_dump(), "how": "command"})
    return opened


def set_limit(budget: Budget, *, file: Path, steward: Steward, ledger: BudgetLedger, node: str) -> NodePolicy:
    """Sets the limit of the open period: writes it into the policy and signs it.

    It may be below what is committed already: then nothing more fits, and runs that go on are stopped at their next
    release. How the runs of the period add up does not change with it.

    Args:
        budget: The open period with its new limit.
        file: The policy file.
        steward: Who sets it.
        ledger: The node's ledger.
        node: The node's name.

    Returns:
        The policy now in force.

    Raises:
        ConfigError: POLICY_INVALID, WORKSPACE_UNWRITABLE.
        PolicyRefused: POLICY_PERIOD_UNSIGNED.
        ArtefactError: KEY_INVALID or STEWARD_KEY_WRONG.
    """
    with steward.speaking():
        PeriodHistory.of(steward.chain).require(budget, ledger=ledger, node=node)
        changed = _with_budget(load_policy(file), budget)
        write_policy(file, changed)
        steward.state("limit_set", {**budget.model_dump(), "how": "command"})
    return changed


def _note_allowed(policy: NodePolicy, *, steward: Steward) -> None:
    """Notes what the policy allows besides the budget, if that is not what was noted last."""
    allowed = plain(policy.allow.model_dump(mode="json"))
    noted = steward.chain.entries_of([_POLICY])
    if not noted or noted[-1].detail.get("allow") != allowed:
        steward.chain.append(actor=steward.node, action=_POLICY, detail={"allow": allowed})


def _with_budget(policy: NodePolicy, budget: Budget) -> NodePolicy:
    return policy.model_copy(update={"budget": budget})


def _limit(statement: Statement) -> LimitSet:
    names = Budget.model_fields
    return LimitSet(
        time=statement.time,
        budget=Budget.model_validate({name: statement.content[name] for name in names if name in statement.content}),
    )
