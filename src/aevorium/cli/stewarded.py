"""A node as its steward's commands see it: the home, and everything in it that they read and sign."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from aevorium.errors import ConfigError
from aevorium.governance.budget import BudgetView
from aevorium.governance.chain import AuditChain
from aevorium.governance.consent import ConsentDesk
from aevorium.governance.periods import PeriodHistory
from aevorium.governance.policy import NodePolicy, load_policy
from aevorium.governance.spend import node_spend, write_spend
from aevorium.governance.steward import Steward, steward_key
from aevorium.node.home import NodeHome
from aevorium.privacy.ledger import SqliteLedger

__all__ = ["StewardedNode"]


class StewardedNode:
    """One node of this machine, running or not.

    Args:
        home: Its home.
        name: Its name.
        policy: The policy file that it is started with; that of its home if None.
    """

    def __init__(self, home: Path, *, name: str, policy: Path | None = None) -> None:
        self.home, self.name = home, name
        self._policy = policy

    @cached_property
    def chain(self) -> AuditChain:
        """The node's audit chain."""
        return AuditChain(self.home / "audit.db", key=steward_key(self.home))

    @cached_property
    def ledger(self) -> SqliteLedger:
        """The node's ledger."""
        return SqliteLedger(self.home / "ledger.db")

    @cached_property
    def steward(self) -> Steward:
        """Signs in the steward's name."""
        return Steward(self.home, node=self.name, chain=self.chain)

    @cached_property
    def desk(self) -> ConsentDesk:
        """Where plans wait."""
        return ConsentDesk(self.home, steward=self.steward, ledger=self.ledger)

    @property
    def policy_file(self) -> Path:
        """The policy file.

        Raises:
            ConfigError: POLICY_INVALID, if there is none.
        """
        file = self._policy or NodeHome(self.home).policy_file
        if not file.is_file():
            raise ConfigError(
                "POLICY_INVALID",
                f"No policy file {str(file)!r}. Node {self.name!r} was started without one, or with one that lies"
                " elsewhere; a simulated node without one has the limit of its run.",
                hint="Name the file with --policy; a simulated node needs the same one in 'aevorium run --policy'.",
            )
        return file

    def policy(self) -> NodePolicy:
        """What the file says.

        Raises:
            ConfigError: POLICY_INVALID.
        """
        return load_policy(self.policy_file)

    def budget(self) -> BudgetView:
        """What was spent, by the limit that the steward signed last, or else by the policy file.

        Raises:
            ConfigError: POLICY_INVALID, if there is neither.
        """
        history = PeriodHistory.of(self.chain)
        return node_spend(history.current or self.policy().budget, node=self.name, ledger=self.ledger, history=history)

    def write_views(self) -> BudgetView:
        """Renews the budget file and the audit log of the home."""
        view = self.budget()
        write_spend(self.home, view, chain=self.chain)
        return view
