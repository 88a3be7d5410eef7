"""What can be read: health, budget, audit log, statement and report. All of it has passed a gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from aevorium import __version__
from aevorium.api.access import Permission, Principal
from aevorium.api.legacy import succeeded_by
from aevorium.api.pages import Action, After, AuditPage, Entries, audit_page
from aevorium.api.served_file import ServedFile
from aevorium.api.services import REPORT_HEADERS, Services
from aevorium.errors import ArtefactError
from aevorium.governance.chain import AuditChain
from aevorium.jobs.checks import verify_server

__all__ = ["router"]


class Health(BaseModel):
    """Whether the API works."""

    status: str = "ok"
    version: str = __version__
    has_run: bool = Field(description="Whether the workspace holds the results of a run.")


class MeView(BaseModel):
    """Who asks."""

    name: str = Field(description="As the audit log names them.")
    permissions: list[Permission] = Field(description="What they may do, in the order of the alphabet.")


class CheckFinding(BaseModel):
    """One thing that was checked."""

    subject: str
    is_sound: bool | None = Field(description="Whether it holds; null if it could not be checked here.")
    text: str


class Verification(BaseModel):
    """What a verification found."""

    is_sound: bool
    checks: list[CheckFinding]


def router(services: Services, *, homes: Sequence[Path]) -> APIRouter:
    """The operations that read.

    Args:
        services: What they read.
        homes: Folders with homes of nodes on this machine.
    """
    access = services.access
    routes = APIRouter(tags=["read"])
    reads = Depends(access.require("read"))
    probes = Depends(access.require("read", loopback=True, is_probe=True))
    near = Depends(access.require("read", loopback=True))
    audits = Depends(access.require("audit"))
    audits_near = Depends(access.require("audit", loopback=True))

    @routes.get("/health")
    def health(_: Principal = probes) -> Health:
        """Whether the API works."""
        return Health(has_run=bool(services.folders.all()))

    @routes.get("/v1/me")
    def me(asker: Principal = near) -> MeView:
        """Who asks, and what they may do: so that nothing is offered to people that would be refused them."""
        return MeView(name=asker.name, permissions=sorted(asker.permissions))

    @routes.get("/audit-log", deprecated=True, dependencies=[succeeded_by("/v1/audit")])
    @routes.get("/v1/audit")
    def audit_log(
        _: Principal = audits_near, after: After = 0, limit: Entries = 100, action: Action = None
    ) -> AuditPage:
        """The server's audit log, oldest entry first."""
        return audit_page(_chain(services), after=after, limit=limit, action=action)

    @routes.get("/v1/audit/verification")
    def verification(_: Principal = audits) -> Verification:
        """Whether chains, ledgers, budgets and statements of the server and its runs agree."""
        result = verify_server(services.folders, homes=homes)
        checks = [CheckFinding(subject=one.subject, is_sound=one.is_sound, text=one.text) for one in result.checks]
        return Verification(is_sound=result.is_sound, checks=checks)

    @routes.get("/v1/statement")
    def statement(_: Principal = reads) -> dict[str, Any]:
        """The privacy statement of the newest run, for programs."""
        content: dict[str, Any] = json.loads(_text(services.folders.find().workspace.privacy_statement_json))
        return content

    @routes.get("/v1/report")
    def report(_: Principal = reads) -> dict[str, Any]:
        """The newest run's own report, for programs: charged numbers alone. One of real rows is never served."""
        content: dict[str, Any] = json.loads(_text(services.folders.find().workspace.report_json))
        return content

    @routes.get("/v1/report.html", response_class=ServedFile)
    def report_page(_: Principal = reads) -> ServedFile:
        """The same for people."""
        page = services.folders.find().workspace.report_html
        _text(page)
        return ServedFile(page, media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)

    return routes


def _chain(services: Services) -> AuditChain:
    if not services.workspace.database.is_file():
        raise _absent("audit log")
    return services.log.chain


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise _absent(path.name) from error


def _absent(name: str) -> ArtefactError:
    return ArtefactError(
        "ARTEFACT_NOT_FOUND",
        f"There is no {name} yet. No run has finished in this workspace.",
        hint="Start one with 'aevorium run', or look at another workspace.",
    )
