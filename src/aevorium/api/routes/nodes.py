"""Nodes: who takes part, and what they have spent as far as they told."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from aevorium.api.access import Principal
from aevorium.api.pages import After, Limit, page_of
from aevorium.api.services import Services
from aevorium.governance.chain import plain
from aevorium.jobs.folders import RunFolder
from aevorium.server.record import NodeRecord

__all__ = ["router"]


class NodeView(BaseModel):
    """A node."""

    name: str
    kind: Literal["local", "enrolled", "former"] = Field(
        description="Within the worker of this server, let in over the network, or known from earlier runs alone."
    )
    last_run: str | None = Field(default=None, description="The newest run that it took part in.")
    last_seen: str | None = Field(default=None, description="When that run began: UTC, ISO 8601.")
    patients: int | None = Field(default=None, description="Its noisy number of patients there.")
    spent: float | str | None = Field(default=None, description="ε of what it released in that run.")
    limit: float | str | None = Field(default=None, description="Its own limit for the period, as it told.")
    left: float | str | None = Field(default=None, description="What was left of it then.")
    code_hash: str | None = Field(default=None, description="SHA-256 of the code that it ran, as it told.")


class NodePage(BaseModel):
    """Nodes, by name."""

    nodes: list[NodeView]
    next: int | None = Field(description="`after` of the next page; null at the end.")


def router(services: Services) -> APIRouter:
    """The operations on nodes."""
    routes = APIRouter(tags=["nodes"])
    reads = Depends(services.access.require("read"))

    @routes.get("/v1/nodes")
    def listed(_: Principal = reads, after: After = 0, limit: Limit = 50) -> NodePage:
        """Every node that takes part, or took part in a run whose results are here, by name."""
        told = _told(services.folders.all())
        folder = services.workspace.federation / "nodes"
        enrolled = {path.stem for path in folder.glob("*.pub")} if folder.is_dir() else set()
        homes = services.workspace.nodes
        local = {*services.nodes, *((path.name for path in homes.iterdir()) if homes.is_dir() else ())}
        names, following = page_of(sorted({*local, *enrolled, *told}), after=after, limit=limit)
        views = []
        for name in names:
            kind: Literal["local", "enrolled", "former"] = (
                "enrolled" if name in enrolled else "local" if name in local else "former"
            )
            views.append(_view(name, kind, told.get(name)))
        return NodePage(nodes=views, next=following)

    return routes


def _told(runs: tuple[RunFolder, ...]) -> dict[str, tuple[RunFolder, NodeRecord]]:
    """The newest run of each node, and what the node told there."""
    found: dict[str, tuple[RunFolder, NodeRecord]] = {}
    for run in runs:
        for node in run.record.nodes:
            found.setdefault(node.name, (run, node))
    return found


def _view(
    name: str, kind: Literal["local", "enrolled", "former"], told: tuple[RunFolder, NodeRecord] | None
) -> NodeView:
    if told is None:
        return NodeView(name=name, kind=kind)
    run, node = told
    return NodeView(
        name=name,
        kind=kind,
        last_run=run.record.run_id,
        last_seen=run.record.started_at,
        patients=node.count,
        spent=plain(node.spent),
        limit=plain(node.limit),
        left=plain(node.left),
        code_hash=node.code_hash,
    )
