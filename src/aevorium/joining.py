"""The use case of a node: one table, one server, until the run ends."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.clientapp import ClientApp

from aevorium.diffusion.device import DeviceName, find_device
from aevorium.errors import ConfigError, FederationError
from aevorium.federation.identity import fingerprint, load_or_create_node_key, public_pem
from aevorium.federation.relay import NodeRelay, ServerDoor
from aevorium.governance.policy import NodePolicy
from aevorium.node.app import create_client_app
from aevorium.node.home import NodeHome
from aevorium.node.session import NodeConfig, NodeSession, OpenSession, open_session
from aevorium.progress import NodeState, Report, ignore
from aevorium.schema.table import TableSchema
from aevorium.workspace import write_atomically

__all__ = ["JoinOptions", "join_federation"]

_LOOK = 0.5
_LET_IN = 20.0
_LOCK_OUT = 3.0
"""Seconds between two attempts at a server that does not let the node in: it may enrol it any moment."""


@dataclass(frozen=True)
class JoinOptions:
    """Where the server is.

    Attributes:
        address: Host and port.
        authority: File of the certificate to trust; it may come into being later.
        enrol_in: Folder where a server on this machine looks for keys of nodes; None for a server elsewhere.
        patience: Seconds after which a server that was there and no longer answers is given up.
        stay: Whether to go on after a run, for the next one.
        device: Where gradients and losses are computed; "auto" takes a CUDA device if there is one.
    """

    address: str
    authority: Path
    enrol_in: Path | None
    patience: float = 60.0
    stay: bool = False
    device: DeviceName = "auto"


def join_federation(
    *,
    name: str,
    data: Path,
    schema: TableSchema,
    policy: NodePolicy,
    policy_file: Path | None = None,
    home: NodeHome,
    options: JoinOptions,
    report: Report = ignore,
    open_session: OpenSession = open_session,
) -> NodeSession:
    """Takes part in a run, from the wait for the server to the end of the run.

    Args:
        name: Name of the node.
        data: Its table.
        schema: The schema in which it holds its data.
        policy: What its steward allows.
        policy_file: Where the policy is read anew at each plan.
        home: The node's folder, claimed by this process.
        options: Where the server is.
        report: Takes what the steward should see.
        open_session: Opens the node.

    Returns:
        The session, over.

    Raises:
        DataError: The table cannot be used; nothing was sent to anyone.
        PolicyRefused: The plan was refused. BudgetExceeded: it does not fit.
        FederationError: SERVER_UNREACHABLE, RUN_MISSED.
        ConfigError: DEVICE_NOT_FOUND.
    """
    device = find_device(options.device)
    key = load_or_create_node_key(home.key_file)
    if options.enrol_in is not None:
        # The server and other nodes want the same cores.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
        _enrol(public_pem(key), name=name, folder=options.enrol_in)
    config = NodeConfig(
        name=name,
        data=data,
        schema=schema,
        home=home.folder,
        policy=policy,
        policy_file=policy_file,
        device=device,
    )
    session = open_session(config, report)
    session.open_table()
    app = create_client_app({name: session})
    while True:
        door = _await_server(options, name=name, report=report)
        session.connect(fingerprint(door.root_certificates))
        with NodeRelay(door, name=name, private_key=key, folder=home.folder / "flower") as relay:
            if relay.await_connection(timeout=_LET_IN):
                report(NodeState(name, "connected", f"Connected to {options.address}. Waiting for a plan."))
                _answer(relay, app, session, options=options)
            else:
                report(NodeState(name, "not_enrolled", _not_let_in(options, home=home, key=key)))
        if session.is_over and not options.stay:
            return _outcome(session)
        session.is_over = False
        time.sleep(_LOCK_OUT)


def _answer(relay: NodeRelay, app: ClientApp, session: NodeSession, *, options: JoinOptions) -> None:
    relay.answer(app, until=lambda: session.is_over or relay.seconds_away > options.patience)
    if not session.is_over and relay.seconds_away > options.patience and not options.stay:
        raise FederationError(
            "SERVER_UNREACHABLE",
            f"The server at {options.address} has not answered for {relay.seconds_away:.0f} s.",
            hint="What was released stays charged. Start the node again when the server is back.",
        )


def _outcome(session: NodeSession) -> NodeSession:
    if session.problem is not None and not session.has_finished:
        raise session.problem
    return session


def _await_server(options: JoinOptions, *, name: str, report: Report) -> ServerDoor:
    """Waits, for as long as it takes, until the server is there and shows a certificate of its authority."""
    is_told = False
    while True:
        if options.authority.is_file():
            door = ServerDoor(options.address, options.authority.read_bytes())
            if door.is_open():
                return door
        if not is_told:
            text = f"No server at {options.address} yet (its authority: {options.authority}). Trying until it is there."
            report(NodeState(name, "waiting", text))
            is_told = True
        time.sleep(_LOOK)


def _enrol(public: bytes, *, name: str, folder: Path) -> None:
    """Puts the node's public key where a server on this machine finds it."""
    target = folder / f"{name}.pub"
    if target.is_file() and target.read_bytes() != public:
        raise ConfigError(
            "NODE_NAME_TAKEN",
            f"The name {name!r} is not possible. Another node's key is enrolled under it, in {str(target)!r}.",
            hint="Choose another with --name, or remove that file if its node is gone.",
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with write_atomically(target) as temporary:
        temporary.write_bytes(public)


def _not_let_in(options: JoinOptions, *, home: NodeHome, key: bytes) -> str:
    public = home.folder / "node.pub"
    with write_atomically(public) as temporary:
        temporary.write_bytes(public_pem(key))
    print_of = hashlib.sha256(public_pem(key)).hexdigest()[:16]
    return (
        f"The server at {options.address} does not let this node in yet. It has to enrol the key {print_of}"
        f" ({public}), or still holds the connection of a node that was killed. Trying again."
    )
