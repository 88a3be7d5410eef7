"""`create_app`: the API of one workspace."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware

from aevorium import __version__
from aevorium.api.access import Access
from aevorium.api.problems import RESPONSES, add_problems, problem_response
from aevorium.api.routes import budgets, datasets, keys, nodes, reads, runs, studies
from aevorium.api.services import ServerLog, Services
from aevorium.errors import ConfigError
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

_MOST_BYTES = 1_048_576
"""Of a request's body."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class ApiOptions:
    """What an API serves, and to whom.

    Attributes:
        workspace: The results that it shows.
        database: URL of the server's database.
        log_key: Signs the audit log, in which API keys are noted.
        settings: Say what an order leaves open.
        homes: Folders with homes of nodes on this machine.
        nodes: Names of the nodes within the worker, if it has any.
        worker: How the worker beside it is started, after `python -m`; None if there is none, or one elsewhere.
        start_token: Accepted as every role while the process lives; None where API keys are configured.
        origins: Web origins that may call it from a browser; none unless chosen.
    """

    workspace: Workspace
    database: str
    log_key: SigningKey
    settings: Settings = field(default_factory=Settings)
    homes: tuple[Path, ...] = ()
    nodes: tuple[str, ...] = ()
    worker: tuple[str, ...] | None = None
    start_token: str | None = None
    origins: tuple[str, ...] = ()


def create_app(options: ApiOptions) -> FastAPI:
    """Makes the API.

    Raises:
        ArtefactError: DATABASE_UNUSABLE.
        ConfigError: CONFIG_INVALID, if the database's URL cannot be read.
    """
    store = Store(options.database)
    api_keys = ApiKeyStore(store)
    services = Services(
        access=Access(api_keys, start_token=options.start_token),
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
        store.close()

    app = FastAPI(
        title="Aevorium",
        version=__version__,
        summary="Synthetic patient tables from federated, differentially private training.",
        lifespan=lifespan,
        responses=dict(RESPONSES),
    )
    add_problems(app)
    app.middleware("http")(_guard)
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        )
    app.include_router(reads.router(services, homes=options.homes))
    for kind in (budgets, studies, runs, datasets, nodes, keys):
        app.include_router(kind.router(services))
    return app


async def _guard(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    """Bodies have an end, answers have the headers that browsers heed, and every request has a name."""
    given = request.headers.get("x-request-id", "")
    # A name that could break a line of a log, or stand in a header for more than itself, is not taken over.
    name = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    length = request.headers.get("content-length", "0")
    is_chunked = "transfer-encoding" in request.headers
    if is_chunked or not length.isascii() or not length.isdigit() or int(length) > _MOST_BYTES:
        response: Response = problem_response(
            ConfigError("REQUEST_TOO_LARGE", "The request is not read. Its body is too long, or does not say how long.")
        )
    else:
        response = await proceed(request)
    response.headers["X-Request-ID"] = name
    for header, value in _HEADERS.items():
        response.headers.setdefault(header, value)
    return response
