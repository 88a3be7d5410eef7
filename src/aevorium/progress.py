"""What long work tells its caller while it goes on. Safe to release: nothing here comes from a record uncharged."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "ConsentAwaited",
    "NodeAnswered",
    "NodeAsked",
    "NodeNotice",
    "NodeState",
    "NodesOnline",
    "PhaseStarted",
    "ProgressEvent",
    "Report",
    "RoundFinished",
    "ServerListening",
    "StepProgress",
    "event_name",
    "ignore",
]


@dataclass(frozen=True)
class PhaseStarted:
    """A phase of a run begins.

    Attributes:
        phase: Its name, in the words of the documentation ("plan", "count", "statistics", "training", …).
        nodes: How many nodes are asked; 0 if the phase is the server's own.
    """

    phase: str
    nodes: int = 0


@dataclass(frozen=True)
class RoundFinished:
    """A round of training has ended and its checkpoint is written.

    Attributes:
        round: Number of the round, from 1.
        rounds: How many there are.
        nodes_ok: Nodes with a valid reply.
        nodes_asked: Nodes that were asked.
        loss: Charged loss, the mean over the federation.
        loss_noise: Standard deviation of the privacy noise in it.
        spent: ε spent so far in the run, of the node that spent most.
        left: ε left of the plan, at that node.
        seconds: How long the round took.
        remaining: Estimated seconds until the last round ends.
    """

    round: int
    rounds: int
    nodes_ok: int
    nodes_asked: int
    loss: float
    loss_noise: float
    spent: float
    left: float
    seconds: float
    remaining: float


@dataclass(frozen=True)
class NodeNotice:
    """A line for the console of one node's own steward. May hold exact counts: it never leaves that node's machine.

    Attributes:
        node: Name of the node.
        text: One sentence.
    """

    node: str
    text: str


@dataclass(frozen=True)
class NodeAsked:
    """A server asks a node for something; for the node's own steward.

    Attributes:
        node: Name of the node.
        phase: What is asked for.
        detail: More about it.
    """

    node: str
    phase: str
    detail: str


@dataclass(frozen=True)
class NodeAnswered:
    """A node has answered, or refused; for the node's own steward.

    Attributes:
        node: Name of the node.
        phase: What was asked for.
        code: Why it was refused; None if it was answered.
        spent: ε spent in the period so far.
        limit: The period's limit.
        left: What is left of it.
    """

    node: str
    phase: str
    code: str | None
    spent: float
    limit: float
    left: float


@dataclass(frozen=True)
class ConsentAwaited:
    """A plan waits for a node's steward; for their own console.

    Attributes:
        node: Name of the node.
        plan: Content hash of the plan.
        text: What is asked, for people.
        agree: The command that agrees.
        decline: The command that declines.
        until: When the server stops waiting: seconds since 1970.
    """

    node: str
    plan: str
    text: str
    agree: str
    decline: str
    until: float


@dataclass(frozen=True)
class ServerListening:
    """The server waits for nodes.

    Attributes:
        address: Where.
        authority: File of the certificate that nodes have to trust.
        fingerprint: SHA-256 (hex) of that certificate: the server's identity.
        needed: How many nodes it waits for.
    """

    address: str
    authority: str
    fingerprint: str
    needed: int


@dataclass(frozen=True)
class NodesOnline:
    """Which nodes are connected to the server has changed.

    Attributes:
        names: Their names.
        needed: How many are needed.
    """

    names: tuple[str, ...]
    needed: int


@dataclass(frozen=True)
class NodeState:
    """A node's way to its server.

    Attributes:
        node: Name of the node.
        state: "waiting" (the server is not there), "not_enrolled" (it does not let the node in), "connected", "away".
        text: The same for people.
    """

    node: str
    state: str
    text: str


@dataclass(frozen=True)
class StepProgress:
    """Work with a known end advances.

    Attributes:
        label: What is being done.
        done: How much of it.
        total: Of how much; 0 if unknown.
    """

    label: str
    done: int
    total: int


ProgressEvent = (
    PhaseStarted
    | RoundFinished
    | NodeNotice
    | NodeAsked
    | NodeAnswered
    | NodeState
    | ConsentAwaited
    | ServerListening
    | NodesOnline
    | StepProgress
)

Report = Callable[[ProgressEvent], None]


def ignore(event: ProgressEvent) -> None:
    """Tells nobody."""


_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def event_name(event: ProgressEvent) -> str:
    """What an event is called in a stream for programs, such as "round_finished"."""
    return _CAPITAL.sub("_", type(event).__name__).lower()
