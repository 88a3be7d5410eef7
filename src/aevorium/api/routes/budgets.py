"""Budgets: what nodes have spent, and the server's own planning view. No request here reaches a node's limit."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from aevorium.api.access import Principal
from aevorium.api.legacy import succeeded_by
from aevorium.api.services import Services
from aevorium.governance.chain import plain
from aevorium.governance.planning import PlanningPeriod, open_planning_period, set_planning_limit
from aevorium.jobs.ordering import ordered_in

__all__ = ["router"]

_NOTE = "This is the server's own planning view. Nodes are not affected: each keeps its own limit and ledger."


class NewLimit(BaseModel):
    """What may be ordered."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    limit: float | None = Field(gt=0, le=1e9, description="ε of all runs of the period; null sets no limit.")


class NewPeriod(BaseModel):
    """A planning period to be opened."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    label: str | None = Field(
        default=None, min_length=1, max_length=100, pattern=r"^[\w .,@+-]+$", description="Absent: the next number."
    )
    limit: float | None = Field(default=None, gt=0, le=1e9, description="Its limit; absent: as before.")


class Planning(BaseModel):
    """The open planning period."""

    period: str
    limit: float | None = Field(description="ε that may be ordered in it; null is no limit.")
    ordered: float | str = Field(description="ε of the runs ordered in it so far: the sum of their targets.")
    opened_at: str | None
    note: str = _NOTE


class BudgetPage(BaseModel):
    """What the nodes of the newest run have spent, and what the server plans."""

    model_config = ConfigDict(extra="allow")

    nodes: dict[str, Any] = Field(description="Spend and limit of each node, as the newest run knows them.")
    planning: Planning


def router(services: Services) -> APIRouter:
    """The operations on budgets."""
    routes = APIRouter(tags=["budgets"])
    near = Depends(services.access.require("read", loopback=True))
    stewards = Depends(services.access.require("budget"))

    @routes.get("/privacy-budget", deprecated=True, dependencies=[succeeded_by("/v1/budgets")])
    @routes.get("/v1/budgets")
    def privacy_budget(_: Principal = near) -> BudgetPage:
        """What each node of the newest run has spent, against its limit, and the server's own planning view."""
        return BudgetPage.model_validate({"nodes": {}, **_newest(services), "planning": _planning(services)})

    @routes.post("/privacy-budget/set-limit", deprecated=True, dependencies=[succeeded_by("/v1/budgets/limit")])
    @routes.post("/v1/budgets/limit")
    def limit(wanted: NewLimit, actor: Principal = stewards) -> Planning:
        """Limits what may be ordered in the open planning period. Nodes are not affected."""
        set_planning_limit(services.log.chain, limit=wanted.limit, actor=actor.name)
        services.log.publish()
        return _planning(services)

    @routes.post(
        "/privacy-budget/reset", status_code=201, deprecated=True, dependencies=[succeeded_by("/v1/budgets/periods")]
    )
    @routes.post("/v1/budgets/periods", status_code=201)
    def reset(wanted: NewPeriod | None = None, actor: Principal = stewards) -> Planning:
        """Opens a planning period, signed in the audit log. Nothing is erased, and nodes are not affected."""
        new = wanted or NewPeriod()
        open_planning_period(services.log.chain, label=new.label, limit=new.limit, actor=actor.name)
        services.log.publish()
        return _planning(services)

    return routes


def _planning(services: Services) -> Planning:
    period = PlanningPeriod()
    if services.workspace.database.is_file():
        period = PlanningPeriod.of(services.log.chain)
    return Planning(
        period=period.label,
        limit=period.limit,
        ordered=plain(ordered_in(period, jobs=services.jobs)),
        opened_at=period.opened_at or None,
    )


def _newest(services: Services) -> dict[str, Any]:
    """The budget file of the newest run that has one."""
    places = [run.workspace for run in services.folders.all()] or [services.workspace]
    for workspace in places:
        if workspace.privacy_budget.is_file():
            content: dict[str, Any] = json.loads(workspace.privacy_budget.read_text(encoding="utf-8"))
            return content
    return {}
