"""The use case of the server: nodes of other processes, one study, its results."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from flwr.serverapp import Grid, ServerApp

from aevorium.conducting import RunResult, conduct_run
from aevorium.errors import AevoriumError, ConfigError
from aevorium.federation.identity import read_public_key
from aevorium.federation.link import ServerLink
from aevorium.federation.protocol import DISMISS, DismissReply, DismissRequest, pack
from aevorium.governance.secrets import Secrets
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.plan import StudyPlan
from aevorium.progress import NodesOnline, Report, ServerListening, ignore
from aevorium.schema.table import TableSchema
from aevorium.server.exchange import ask
from aevorium.server.forms import ReplyForm
from aevorium.workspace import Workspace

__all__ = ["ServerOptions", "serve_study"]

_LOOK = 0.2
_GOODBYE = 5.0


@dataclass(frozen=True)
class ServerOptions:
    """How nodes reach the server, and for how many it waits.

    Attributes:
        host: Address to listen on; that of this machine alone unless chosen otherwise.
        port: Its port; 0 takes a free one.
        names: Further names and addresses under which nodes reach it, for its certificate.
        enrol: Public key files of nodes on other machines, by name.
        min_nodes: How many nodes make a study; also the valid replies without which a phase fails.
    """

    host: str = "127.0.0.1"
    port: int = 8091
    names: tuple[str, ...] = ()
    enrol: Mapping[str, Path] = field(default_factory=dict)
    min_nodes: int = 2


def serve_study(
    schema: TableSchema,
    *,
    schema_text: str,
    server: ServerOptions,
    options: RunOptions,
    workspace: Workspace,
    secrets: Secrets,
    report: Report = ignore,
    announce: Callable[[StudyPlan], None] = lambda plan: None,
    should_stop: Callable[[], bool] = lambda: False,
    federation: Path | None = None,
    run_id: str | None = None,
) -> RunResult:
    """Waits for nodes and conducts one study with those that came.

    Args:
        schema: The study's schema.
        schema_text: The same as TOML, kept in the workspace.
        server: How nodes reach the server.
        options: What the study is.
        workspace: Where results, certificates and the keys of nodes go.
        secrets: Encrypt the checkpoints, and sign the audit log; made if absent.
        report: Takes the progress.
        announce: Takes the plan before any node is asked.
        should_stop: Asked whether the server is to end: while it waits, and between exchanges.
        federation: Folder of certificates and keys of nodes, where they outlive the workspace; within it if None.
        run_id: The run's name; a new one if None.

    Raises:
        UserError: What the person can change.
        FederationError: Nodes that did not answer, or too few of them.
        AevoriumError: RUN_INTERRUPTED; what was released stays charged.
    """
    options.require_available()
    if options.trust == "secure-aggregation":
        raise ConfigError(
            "FEATURE_UNAVAILABLE",
            "Secure aggregation between processes is not in this version. Without masks, the server would see each "
            "node's part, which one share of noise protects.",
            hint="Use --trust local, or try it in one process with 'aevorium run'.",
        )
    # A study that cannot be planned should not wait for nodes first.
    plan_study(schema, [f"node{number}" for number in range(server.min_nodes)], options)
    workspace.create()
    secrets.open(workspace.root)
    place = federation or workspace.federation
    for name, path in server.enrol.items():
        _keep_key(place / "nodes", name=name, path=path)
    with ServerLink(place, host=server.host, port=server.port, names=server.names) as link:
        identity = link.authority.fingerprint
        authority = str(link.authority.certificate_file)
        report(ServerListening(link.address, authority=authority, fingerprint=identity, needed=server.min_nodes))
        nodes = _await_nodes(link, needed=server.min_nodes, report=report, should_stop=should_stop)
        plan = plan_study(schema, sorted(nodes.values()), options)
        announce(plan)

        def carry(app: ServerApp) -> None:
            try:
                with _enrolling(link):
                    link.conduct(app, node_ids=nodes, after=lambda grid: _dismiss_others(link, grid, nodes))
            finally:
                _await_leave(link, nodes)

        return conduct_run(
            carry,
            schema=schema,
            schema_text=schema_text,
            plan=plan,
            workspace=workspace,
            secrets=secrets,
            options=options,
            server=identity,
            report=report,
            should_stop=should_stop,
            run_id=run_id,
        )


def _await_nodes(link: ServerLink, *, needed: int, report: Report, should_stop: Callable[[], bool]) -> dict[int, str]:
    """Lets nodes in until enough of them are connected."""
    known: dict[int, str] = {}
    while True:
        if should_stop():
            raise AevoriumError("RUN_INTERRUPTED", "The server was stopped while it waited for nodes.")
        link.enrol()
        online = link.online()
        if online != known:
            known = online
            report(NodesOnline(tuple(sorted(online.values())), needed=needed))
        if len(online) >= needed:
            return online
        time.sleep(_LOOK)


@contextmanager
def _enrolling(link: ServerLink) -> Iterator[None]:
    """Goes on letting nodes in while a run is conducted, so that they can be told that they came too late."""
    ended = threading.Event()

    def enrol() -> None:
        while not ended.wait(1.0):
            with suppress(httpx.HTTPError, AevoriumError):  # the run itself tells of a SuperLink that is gone
                link.enrol()

    thread = threading.Thread(target=enrol, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _dismiss_others(link: ServerLink, grid: Grid, nodes: Mapping[int, str]) -> None:
    """Tells nodes that came after the plan that there is nothing more for them."""
    others = [node_id for node_id in link.online() if node_id not in nodes]
    if others:
        request = pack(DismissRequest(run_id=str(link.run_id)))
        contents = dict.fromkeys(others, request)
        ask(grid, contents, message_type=DISMISS, timeout=_GOODBYE, form=ReplyForm(DismissReply))


def _await_leave(link: ServerLink, nodes: Mapping[int, str]) -> None:
    """Gives nodes the time to go first: to them a server that is gone could also be one that has failed."""
    end = time.monotonic() + _GOODBYE
    while time.monotonic() < end and any(node_id in nodes for node_id in link.online()):
        time.sleep(_LOOK)


def _keep_key(folder: Path, *, name: str, path: Path) -> None:
    """Puts a node's public key among those that are let in."""
    new, _ = read_public_key(path)
    target = folder / f"{name}.pub"
    if target.is_file() and read_public_key(target)[0] != new:
        raise ConfigError(
            "NODE_NAME_TAKEN",
            f"--enrol {name}={path} is not possible. Another key is enrolled under this name, in {str(target)!r}.",
            hint="Choose another name, or remove that file if its node is gone.",
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(path, target)
