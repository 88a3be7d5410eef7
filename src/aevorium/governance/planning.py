"""The server's own planning view: how much ε it means to order in a period. Nodes are not affected by it.

Each node keeps its own limit and ledger, which no request changes (`periods`, `budget`). What stands here stops a
server's people from ordering more than they agreed among themselves. A period and its limit are entries of the
server's audit log, which is signed; nothing is ever erased.
"""

from __future__ import annotations

from dataclasses import dataclass

from aevorium.errors import BudgetExceeded, ConfigError
from aevorium.governance.chain import AuditChain

__all__ = ["PlanningPeriod", "open_planning_period", "set_planning_limit"]

_OPENED, _SET = "planning_period_opened", "planning_limit_set"


@dataclass(frozen=True)
class PlanningPeriod:
    """A period of planning.

    Attributes:
        label: What it is called.
        limit: ε that may be ordered in it; None sets no limit.
        opened_at: UTC, ISO 8601; empty for the first, which nobody opened.
    """

    label: str = "1"
    limit: float | None = None
    opened_at: str = ""

    @classmethod
    def of(cls, chain: AuditChain) -> PlanningPeriod:
        """The period that is open, as the server's log says."""
        return cls.all(chain)[-1]

    @classmethod
    def all(cls, chain: AuditChain) -> tuple[PlanningPeriod, ...]:
        """All periods, oldest first, each with the limit that it had last."""
        found = [cls()]
        for entry in chain.entries_of([_OPENED, _SET]):
            label, limit = entry.detail["period"], entry.detail["limit"]
            if entry.action == _OPENED:
                found.append(cls(label=label, limit=limit, opened_at=entry.time))
            else:
                found[-1] = cls(label=label, limit=limit, opened_at=found[-1].opened_at)
        return tuple(found)

    def require(self, ordered: float, *, more: float) -> None:
        """Passes if another order fits.

        Args:
            ordered: ε ordered in the period so far.
            more: ε of the order.

        Raises:
            BudgetExceeded: PLANNING_LIMIT_EXCEEDED.
        """
        if self.limit is not None and ordered + more > self.limit:
            raise BudgetExceeded(
                "PLANNING_LIMIT_EXCEEDED",
                f"The run is not ordered. Period {self.label!r} has {ordered:g} of its ε = {self.limit:g} ordered, and"
                f" this is {more:g} more.",
            )


def set_planning_limit(chain: AuditChain, *, limit: float | None, actor: str) -> PlanningPeriod:
    """Sets the limit of the open period.

    Args:
        chain: The server's log.
        limit: ε that may be ordered in it; None sets no limit.
        actor: Who sets it.
    """
    current = PlanningPeriod.of(chain)
    chain.append(actor=actor, action=_SET, detail={"period": current.label, "limit": limit})
    return PlanningPeriod.of(chain)


def open_planning_period(chain: AuditChain, *, label: str | None, limit: float | None, actor: str) -> PlanningPeriod:
    """Opens a period: what was ordered before no longer counts against its limit.

    Args:
        chain: The server's log.
        label: What it is called; the number after those before if None.
        limit: ε that may be ordered in it; None keeps the limit.
        actor: Who opens it.

    Raises:
        ConfigError: PERIOD_USED.
    """
    current = PlanningPeriod.of(chain)
    used = {PlanningPeriod().label, *(str(entry.detail["period"]) for entry in chain.entries_of([_OPENED]))}
    name = label or str(len(used) + 1)
    if name in used:
        raise ConfigError("PERIOD_USED", f"The planning period {name!r} cannot be opened. It was used before.")
    detail = {"period": name, "limit": current.limit if limit is None else limit, "before": current.label}
    chain.append(actor=actor, action=_OPENED, detail=detail)
    return PlanningPeriod.of(chain)
