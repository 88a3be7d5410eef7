"""Nodes that are forked child processes, to be killed at any moment and started again within milliseconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from aevorium.federation.flower_internals.messages import (
    Run,
    assume_identity,
    lost_reply,
    new_run,
    put_together,
    set_answered_id,
    set_message_id,
    take_apart,
)
from aevorium.governance.chain import AuditChain
from aevorium.node import session as session_module
from aevorium.node.app import create_client_app
from aevorium.node.session import NodeConfig, NodeSession
from aevorium.privacy import ledger as ledger_module
from aevorium.privacy.ledger import SqliteLedger
from aevorium.privacy.mechanisms import OsNoise
from aevorium.progress import ignore


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_around(owner: Any, name: str, *, after: bool) -> None:
    """Lets a process die when a function is called, before or after its work."""
    original = getattr(owner, name)

    def deadly(*arguments: Any, **named: Any) -> Any:
        if not after:
            _die()
        original(*arguments, **named)
        _die()

    setattr(owner, name, deadly)


POINTS: dict[str, Callable[[], None]] = {
    "before the agreement": lambda: _die_around(SqliteLedger, "open_run", after=False),
    "after the agreement": lambda: _die_around(SqliteLedger, "open_run", after=True),
    "before the events are fixed": lambda: _die_around(SqliteLedger, "fix_events", after=False),
    "after the events are fixed": lambda: _die_around(SqliteLedger, "fix_events", after=True),
    "before the reservation": lambda: _die_around(SqliteLedger, "reserve", after=False),
    "after the reservation": lambda: _die_around(SqliteLedger, "reserve", after=True),
    "while the noise is drawn": lambda: _die_around(OsNoise, "gaussian", after=True),
    "before the commit": lambda: _die_around(SqliteLedger, "commit", after=False),
    "within the commit": lambda: _die_around(ledger_module, "_owe", after=True),
    "after the commit": lambda: _die_around(SqliteLedger, "commit", after=True),
    "before the audit entry": lambda: _die_around(AuditChain, "append", after=False),
    "after the audit entry": lambda: _die_around(AuditChain, "append", after=True),
    "after the entry is settled": lambda: _die_around(SqliteLedger, "settle", after=True),
    "before the views are written": lambda: _die_around(session_module, "write_spend", after=False),
    "before the reply": lambda: _die_around(NodeSession, "answered", after=True),
    "before the end": lambda: _die_around(SqliteLedger, "close_run", after=False),
    "after the end": lambda: _die_around(SqliteLedger, "close_run", after=True),
}
"""Where a process can be made to die, by what it has just done or is about to do."""


def _serve(config: NodeConfig, connection: Connection) -> None:
    """The child: opens the node from its folder, and answers until it is killed."""
    session = NodeSession(config, noise=OsNoise(), report=ignore)
    app = create_client_app({config.name: session})
    context = Context(run_id=1, node_id=0, node_config={"name": config.name}, state=RecordDict(), run_config={})
    while True:
        name, parts, message_id, point = connection.recv()
        if point is not None:
            POINTS[point]()
        reply = app(put_together(name, parts, message_id=message_id), context)
        connection.send(take_apart(reply))


@dataclass
class Delivery:
    """One message on its way.

    Attributes:
        message: The message.
        sent_at: When it was sent.
        kill_at: When its node is killed; None if it is not, or kills itself.
    """

    message: Message
    sent_at: float
    kill_at: float | None


@dataclass
class Fate:
    """What happens to one delivery of a message.

    Attributes:
        delay: The node is killed after this share of the time that such a message commonly takes, whether it has
            answered or not; None: it is not.
        point: The point where it dies; None: it does not.
        is_dropped: Whether its reply is lost on the way, if it comes.
    """

    delay: float | None = None
    point: str | None = None
    is_dropped: bool = False


Judge = Callable[[Message, int], Fate]
"""Decides on a message, by how often it was delivered before (0 at first)."""


@dataclass
class ForkedGrid(Grid):
    """Carries messages to child processes, kills them, and starts them again.

    Attributes:
        configs: The nodes by number.
        judge: Decides who is killed when.
        after_kill: Called with the number of a node that was killed, before it is started again.
        received: Called with every reply that has arrived, also if it is dropped then.
        kills: How many were killed.
    """

    configs: dict[int, NodeConfig]
    judge: Judge
    after_kill: Callable[[int], None]
    received: Callable[[Message, Message], None]
    kills: int = 0
    _run: Run = field(default_factory=lambda: new_run(1))
    _children: dict[int, tuple[Any, Connection]] = field(default_factory=dict)
    _waiting: dict[str, Delivery] = field(default_factory=dict)
    _counts: dict[tuple[int, str, str], int] = field(default_factory=dict)
    _times: dict[str, float] = field(default_factory=dict)
    _fates: dict[str, Fate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assume_identity(1)
        for number in self.configs:
            self._start(number)

    def close(self) -> None:
        for process, connection in self._children.values():
            process.kill()
            process.join()
            connection.close()

    def _start(self, number: int) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self.configs[number], theirs), daemon=True)
        process.start()
        theirs.close()
        self._children[number] = process, ours

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.configs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        message_id, number = str(uuid4()), message.metadata.dst_node_id
        set_message_id(message, message_id)
        kind = message.metadata.message_type
        place = number, kind, str(message.content["body"]["json"])
        count = self._counts.get(place, 0)
        self._counts[place] = count + 1
        fate = self._fates[message_id] = self.judge(message, count)
        now = time.monotonic()
        kill_at = None if fate.delay is None else now + fate.delay * self._times.get(kind, 0.1)
        self._waiting[message_id] = Delivery(message, now, kill_at)
        self._children[number][1].send((*take_apart(message), message_id, fate.point))
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [reply for key in message_ids if (reply := self._pull(key)) is not None]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise AssertionError("the server waits for lost nodes by itself")

    def _pull(self, message_id: str) -> Message | None:
        """The reply to a message if it has come, or what takes its place if the node was killed."""
        delivery = self._waiting[message_id]
        number = delivery.message.metadata.dst_node_id
        process, connection = self._children[number]
        reply = self._take(delivery, connection)
        if reply is not None and delivery.kill_at is None:
            del self._waiting[message_id]
            return lost_reply(delivery.message) if self._fates[message_id].is_dropped else reply
        if delivery.kill_at is not None and time.monotonic() >= delivery.kill_at:
            process.kill()
        elif process.is_alive():
            return None
        process.join()
        # What it had sent before it died did arrive; then the reply was lost on its way.
        self._take(delivery, connection)
        connection.close()
        self.kills += 1
        self.after_kill(number)
        self._start(number)
        del self._waiting[message_id]
        return lost_reply(delivery.message)

    def _take(self, delivery: Delivery, connection: Connection) -> Message | None:
        """The reply to a message, if it has come whole just now."""
        try:
            if not connection.poll():
                return None
            name, parts = connection.recv()
        except (EOFError, OSError):
            return None
        reply = put_together(name, parts, message_id=str(uuid4()))
        set_answered_id(reply, delivery.message.metadata.message_id)
        self.received(delivery.message, reply)
        self._times[delivery.message.metadata.message_type] = time.monotonic() - delivery.sent_at
        return reply
