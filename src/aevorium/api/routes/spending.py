"""What nodes have spent, by period and purpose: added up from the records and reports that runs have released.

A node's own ledger is the authority, and composes its runs to less than their sum. What stands here is the sum, which
is what a server can say without the ledger, and holds by basic composition (Dwork & Roth 2014, Theorem 3.16).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from aevorium.api.access import Principal
from aevorium.api.services import Services
from aevorium.governance.chain import plain
from aevorium.governance.planning import PlanningPeriod
from aevorium.jobs.folders import RunFolder
from aevorium.privacy.accountant import round_up
from aevorium.server.record import NodeRecord

__all__ = ["router"]

_COMPOSITION = (
    "Sums over runs: ε and δ add up whatever the runs are. A node's own ledger composes them to less, and it decides."
    " A purpose is counted by itself; together the purposes of a run cost less than their sum."
)

_Phases = tuple[tuple[str, float, int], ...]
"""Purpose, its ε by itself, and its releases."""


class PurposeSpending(BaseModel):
    """What a node spent on one purpose in a period."""

    purpose: str = Field(description="As in the runs' reports, such as 'one-way histograms' or 'training'.")
    epsilon: float | str = Field(description="Sum over runs of the ε of this purpose by itself.")
    releases: int = Field(description="How often something was released for it, as planned.")


class NodeSpending(BaseModel):
    """What a node spent in a period."""

    name: str
    runs: int = Field(description="Runs in which it released something.")
    spent: float | str = Field(description="Sum over these of the ε of all that it released.")
    delta: float = Field(description="Sum over these of their δ.")
    purposes: list[PurposeSpending] = Field(description="In the order of a run.")
    untold: float | str = Field(
        description="The part of `spent` of runs without such a report, as of those that failed."
    )
    limit: float | str | None = Field(description="Its own limit, as it told in its newest run of the period.")
    left: float | str | None = Field(description="What was left of it then.")


class PeriodSpending(BaseModel):
    """What was spent in a planning period: by the runs that were ordered in it."""

    period: str
    opened_at: str | None = Field(description="UTC, ISO 8601; null for the first, which nobody opened.")
    closed_at: str | None = Field(description="When the next one was opened; null while it is open.")
    limit: float | None = Field(description="ε that might be ordered in it, as last set; null is no limit.")
    nodes: list[NodeSpending] = Field(description="By name; empty if nothing was spent.")


class SpendingPage(BaseModel):
    """Spending by period, newest first."""

    periods: list[PeriodSpending]
    composition: str = _COMPOSITION


def router(services: Services) -> APIRouter:
    """The operation on spending."""
    routes = APIRouter(tags=["budgets"])
    near = Depends(services.access.require("read", loopback=True))

    @routes.get("/v1/budgets/spending")
    def spending(_: Principal = near) -> SpendingPage:
        """What each node has spent, by planning period and purpose: sums over the runs whose results are here."""
        known = services.workspace.database.is_file()
        periods = PlanningPeriod.all(services.log.chain) if known else (PlanningPeriod(),)
        ordered_at = {job.id: job.created_at for job in services.jobs.since("", kind="train")}
        # A run that was made on the command line was never ordered here.
        runs = [(ordered_at.get(run.record.run_id, run.record.started_at), run) for run in services.folders.all()]
        ends = [*(period.opened_at for period in periods[1:]), None]
        found = [
            PeriodSpending(
                period=period.label,
                opened_at=period.opened_at or None,
                closed_at=end,
                limit=period.limit,
                nodes=_nodes([run for time, run in runs if _is_within(time, period.opened_at, end)]),
            )
            for period, end in zip(periods, ends, strict=True)
        ]
        return SpendingPage(periods=found[::-1])

    return routes


def _is_within(time: str, opened_at: str, closed_at: str | None) -> bool:
    moment = datetime.fromisoformat(time)
    is_late_enough = not opened_at or datetime.fromisoformat(opened_at) <= moment
    return is_late_enough and (closed_at is None or moment < datetime.fromisoformat(closed_at))


def _nodes(runs: Sequence[RunFolder]) -> list[NodeSpending]:
    """The nodes of these runs, newest first."""
    parts: dict[str, list[tuple[RunFolder, NodeRecord]]] = {}
    for run in runs:
        for node in run.record.nodes:
            if node.spent > 0:
                parts.setdefault(node.name, []).append((run, node))
    return [_node(name, parts[name]) for name in sorted(parts)]


def _node(name: str, parts: Sequence[tuple[RunFolder, NodeRecord]]) -> NodeSpending:
    purposes: dict[str, list[tuple[float, int]]] = {}
    untold = []
    for run, node in reversed(parts):
        phases = _phases(run).get(name, ())
        if not phases:
            untold.append(node.spent)
        for purpose, epsilon, releases in phases:
            purposes.setdefault(purpose, []).append((epsilon, releases))
    told = next((node for _, node in parts if node.limit is not None), None)
    return NodeSpending(
        name=name,
        runs=len(parts),
        spent=_sum(node.spent for _, node in parts),
        delta=float(sum(Decimal(repr(run.record.plan.delta)) for run, _ in parts)),
        purposes=[
            PurposeSpending(
                purpose=purpose,
                epsilon=_sum(epsilon for epsilon, _ in found),
                releases=sum(releases for _, releases in found),
            )
            for purpose, found in purposes.items()
        ],
        untold=_sum(untold),
        limit=None if told is None else plain(told.limit),
        left=None if told is None else plain(told.left),
    )


def _sum(values: Iterable[float]) -> float | str:
    """An exact sum of decimals, never below them: ε is not understated."""
    total: float | str = plain(round_up(sum((Decimal(repr(value)) for value in values), Decimal(0))))
    return total


def _phases(run: RunFolder) -> Mapping[str, _Phases]:
    """What each node spent by purpose, as the run's report says; nothing if it has none."""
    path = run.workspace.report_json
    try:
        return _reported(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, LookupError, TypeError):
        return {}


@lru_cache(maxsize=1024)
def _reported(path: Path, changed: int) -> Mapping[str, _Phases]:
    """The report as it was when it was last changed: finished runs stay as they are, and are asked for often."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {
        node["node"]: tuple(
            (str(phase["phase"]), float(phase["epsilon"]), int(phase["releases"])) for phase in node["phases"]
        )
        for node in content["nodes"]
    }
