"""A grid that sends a request again to a node that was lost on the way to its reply.

A node that was killed and started again is the same one to its server, and the same request costs it nothing more
(`aevorium.privacy.ledger`). So the server may ask it again: that node alone, while the others are at work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from aevorium.federation.flower_internals.messages import Run, is_lost, set_answered_id

__all__ = ["ResendingGrid"]

_AGAIN = 2.0
"""Seconds between two attempts at a node that is away."""

_PRESENT = 5.0
"""A request to a node that is away comes back at once; one that is lost after as many seconds had reached it."""

_FIRST_POLL, _LONGEST_POLL = 0.002, 0.05
"""Nodes of this process answer within milliseconds; for others a twentieth of a second is soon enough."""


@dataclass
class _Request:
    """One request to one node, however often it is sent.

    Attributes:
        message: As it was sent first.
        content: Its content.
        end: When its time has passed, by the monotonic clock.
        sent_at: When it was sent last, by the same.
        lost_at: When the node was found lost that is away now, by the same; None before.
        due: When to send it again; None while it is on its way.
        answer: The last thing that came back.
    """

    message: Message
    content: RecordDict
    end: float
    sent_at: float = 0.0
    lost_at: float | None = None
    due: float | None = None
    answer: Message | None = None

    def again(self) -> Message:
        """The same request, to be sent now, for as long as it still has."""
        metadata = self.message.metadata
        ttl = metadata.ttl if self.end == math.inf else max(1.0, self.end - time.monotonic())
        return Message(self.content, metadata.dst_node_id, metadata.message_type, ttl=ttl, group_id=metadata.group_id)


class ResendingGrid(Grid):
    """Waits for lost nodes to come back.

    Args:
        grid: What carries the messages.
        patience: Seconds for which a lost node is waited for. One that did not come back in that time is not waited for
            again, until it answers something.
    """

    def __init__(self, grid: Grid, *, patience: float) -> None:
        self._grid = grid
        self._patience = patience
        self._given_up: set[int] = set()

    def set_run(self, run: Run) -> None:
        """See `flwr.serverapp.Grid`."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """See `flwr.serverapp.Grid`."""
        return self._grid.run

    def create_message(  # the base class's own signature
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `flwr.serverapp.Grid`."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """See `flwr.serverapp.Grid`."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `flwr.serverapp.Grid`."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `flwr.serverapp.Grid`."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Sends messages and waits for the replies; after `timeout` seconds returns those that have come.

        A reply names the message as it was sent first, also if it answers a later copy of it.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        requests = [_Request(message, message.content, end) for message in messages]
        waiting = self._send(requests, [request.message for request in requests])
        away: list[_Request] = []
        pause = _FIRST_POLL
        while (waiting or away) and time.monotonic() < end:
            arrived = list(self.pull_messages(list(waiting)))
            for reply in arrived:
                self._sort(reply, waiting.pop(reply.metadata.reply_to_message_id), away)
            due = [request for request in away if request.due is not None and request.due <= time.monotonic()]
            if due:
                away = [request for request in away if request not in due]
                waiting |= self._send(due, [request.again() for request in due])
            pause = _FIRST_POLL if arrived else min(2 * pause, _LONGEST_POLL)
            if waiting or away:
                time.sleep(pause)
        return [self._reply(request) for request in requests if request.answer is not None]

    def _send(self, requests: list[_Request], messages: list[Message]) -> dict[str, _Request]:
        """Sends copies of requests, and returns the requests by the numbers of the copies."""
        for request in requests:
            request.due, request.sent_at = None, time.monotonic()
        sent = zip(self.push_messages(messages), requests, strict=False)
        return {message_id: request for message_id, request in sent if message_id}

    def _sort(self, reply: Message, request: _Request, away: list[_Request]) -> None:
        """Keeps a reply, or waits for the node to come back."""
        now, node_id = time.monotonic(), request.message.metadata.dst_node_id
        request.answer = reply
        if not is_lost(reply):
            self._given_up.discard(node_id)
            return
        if request.lost_at is None or now - request.sent_at > _PRESENT:
            request.lost_at = now
        if node_id in self._given_up or now - request.lost_at >= self._patience:
            self._given_up.add(node_id)
            return
        request.due = now + _AGAIN
        away.append(request)

    def _reply(self, request: _Request) -> Message:
        reply = request.answer
        if reply is None:
            raise ValueError("a request without an answer has no reply")
        set_answered_id(reply, request.message.metadata.message_id)
        return reply
