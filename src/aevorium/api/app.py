"""`create_app`: the API of one workspace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from aevorium import __version__
from aevorium.api.access import Access
from aevorium.api.explaining import add_docs
from aevorium.api.metrics import Metrics
from aevorium.api.middleware import Guard
from aevorium.api.oidc import OidcOptions, OidcTokens
from aevorium.api.problems import RESPONSES, DocumentedApi, add_problems
from aevorium.api.rates import NO_LIMIT, Rates
from aevorium.api.refusals import Refusals
from aevorium.api.request_log import RequestLog
from aevorium.api.routes import budgets, datasets, keys, nodes, operations, reads, runs, spending, studies
from aevorium.api.services import ServerLog, Services
from aevorium.governance.signing import SigningKey
from aevorium.jobs.folders import RunFolders
from aevorium.jobs.supervisor import WorkerProcess
from aevorium.settings import Settings
from aevorium.state.api_keys import ApiKeyStore
from aevorium.state.jobs import JobStore
from aevorium.state.store import Store
from aevorium.state.studies import StudyStore
from aevorium.workspace import Workspace

__all__ = ["ApiOptions", "create_app"]


@dataclass(frozen=True)
class ApiOptions:
    """What an API serves, and to whom.

    Attributes:
        workspace: The results that it shows.
        database: URL of the server's database.
        log_key: Signs the audit log, in which API keys and refusals are noted.
        settings: Say what an order leaves open.
        homes: Folders with homes of nodes on this machine.
        nodes: Names of the nodes within the worker, if it has any.
        worker: How the worker beside it is started, after `python -m`; None if there is none, or one elsewhere.
        start_token: Accepted from loopback as every role while the process lives; None where API keys or an issuer are
            configured.
        oidc: Whose tokens it accepts beside API keys; None for nobody's.
        rate: Requests that one key, subject or address is answered, such as "600/minute".
        origins: Web origins that may call it from a browser; none unless chosen.
        is_log_json: Whether it logs requests as JSON, or in a form for people.
    """

    workspace: Workspace
    database: str
    log_key: SigningKey
    settings: Settings = field(default_factory=Settings)
    homes: tuple[Path, ...] = ()
    nodes: tuple[str, ...] = ()
    worker: tuple[str, ...] | None = None
    start_token: str | None = None
    oidc: OidcOptions | None = None
    rate: str = NO_LIMIT
    origins: tuple[str, ...] = ()
    is_log_json: bool = True


class _Api(DocumentedApi):
    """The application, with its guard outside of everything."""

    guard: Callable[[ASGIApp], Guard]

    def build_middleware_stack(self) -> ASGIApp:
        return self.guard(super().build_middleware_stack())


def create_app(options: ApiOptions) -> FastAPI:
    """Makes the API.

    Raises:
        ArtefactError: DATABASE_UNUSABLE.
        ConfigError: CONFIG_INVALID, if the database's URL cannot be read, or the issuer is no address to trust.
    """
    tokens = None if options.oidc is None else OidcTokens(options.oidc)
    store = Store(options.database)
    api_keys = ApiKeyStore(store)
    metrics, log = Metrics(options.workspace, jobs=JobStore(store)), RequestLog(is_json=options.is_log_json)
    access = Access(
        api_keys,
        rates=Rates(options.rate),
        refusals=Refusals(options.workspace, log_key=options.log_key),
        tokens=tokens,
        start_token=options.start_token,
    )
    services = Services(
        access=access,
        keys=api_keys,
        jobs=JobStore(store),
        studies=StudyStore(store),
        folders=RunFolders(options.workspace),
        log=ServerLog(options.workspace, key=options.log_key),
        settings=options.settings,
        nodes=options.nodes,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with nullcontext() if options.worker is None else WorkerProcess(options.worker):
            yield
        services.log.close()
        store.close()

    app = _Api(
        title="Aevorium",
        version=__version__,
        summary="Synthetic patient tables from federated, differentially private training.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=dict(RESPONSES),
    )
    add_problems(app)
    add_docs(app)
    app.guard = lambda inner: Guard(inner, metrics=metrics, log=log)
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
            expose_headers=["Content-Disposition", "Location", "Repr-Digest", "Retry-After", "X-Request-ID"],
        )
    app.include_router(operations.router(access, metrics=metrics, is_ready=operations.Readiness(store)))
    app.include_router(reads.router(services, homes=options.homes))
    for kind in (budgets, spending, studies, runs, datasets, nodes, keys):
        app.include_router(kind.router(services))
    return app
