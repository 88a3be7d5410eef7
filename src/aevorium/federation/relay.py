"""`NodeRelay`: the node's end of a federation of processes.

It starts a SuperNode, which carries the messages, and answers each of them in this process: data, model and ledger
stay open from the first message to the last, and nothing that the server sent is unpacked or run.
"""

from __future__ import annotations

import logging
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from flwr.clientapp import ClientApp

from aevorium.errors import InternalError
from aevorium.federation.child import ChildProcess
from aevorium.federation.flower_internals.clients import Executor
from aevorium.federation.supernode import SupernodeConfig

__all__ = ["NodeRelay", "ServerDoor"]

_log = logging.getLogger(__name__)

_START = 60.0
_POLL = 0.05
_PROBE = 3.0
_LINGER = 2.0


@dataclass(frozen=True)
class ServerDoor:
    """Where a server is, and how it is known to be the right one.

    Attributes:
        address: Host and port.
        root_certificates: The authority that signed its certificate, PEM.
    """

    address: str
    root_certificates: bytes

    def is_open(self) -> bool:
        """Whether the server answers, with a certificate of its authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.root_certificates.decode("ascii"))
        try:
            # No proxy: nodes reach their server directly, and loopback must never be looked for elsewhere.
            with httpx.Client(verify=context, timeout=_PROBE, trust_env=False) as client:
                return client.get(f"https://{self.address}/health").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


class NodeRelay:
    """A connection to a server, from when it lets the node in.

    Args:
        door: The server.
        name: The node's name.
        private_key: The node's key, PEM.
        folder: Where the SuperNode keeps its files and its log.
    """

    def __init__(self, door: ServerDoor, *, name: str, private_key: bytes, folder: Path) -> None:
        self._door = door
        secret = secrets.token_urlsafe(32)
        config = SupernodeConfig(
            server=door.address,
            root_certificates=door.root_certificates.decode("ascii"),
            private_key=private_key.decode("ascii"),
            name=name,
            secret=secret,
            folder=folder.resolve(),
        )
        self._child = ChildProcess("aevorium.federation.supernode", config, log=folder / "supernode.log")
        self._sent = self._answered = 0
        self.is_connected = False
        self._away_since: float | None = None
        try:
            port = self._await_ready()
            self._executor = Executor(f"127.0.0.1:{port}", secret=secret.encode(), root_certificates=None)
        except BaseException:
            self._child.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.close()
        self._child.stop()

    @property
    def is_alive(self) -> bool:
        """Whether the SuperNode runs: it ends when the server does not let the node in."""
        return self._child.is_running

    @property
    def seconds_away(self) -> float:
        """For how long the server has not answered, by the last look at it; 0 if it answers."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def await_connection(self, *, timeout: float) -> bool:
        """Waits until the server has let the node in; False if it does not."""
        end = time.monotonic() + timeout
        while not self.is_connected and time.monotonic() < end and self.is_alive:
            self._listen(timeout=_POLL)
        self._listen(timeout=0)
        return self.is_connected

    def answer(self, app: ClientApp, *, until: Callable[[], bool]) -> None:
        """Answers messages until it is time to stop, the SuperNode ends, or the server is away.

        Args:
            app: What answers them.
            until: Asked between messages whether it is time to stop. The last reply has left by then.
        """
        probed = time.monotonic()
        before = self._answered
        while not until() and self.is_alive:
            try:
                token = self._executor.acquire("flwr-clientapp")
                if token is not None:
                    self._answer_one(app, token)
                    self._away_since = None
                    probed = time.monotonic()
                    continue
            except httpx.HTTPError:
                # The SuperNode has ended, or gave the message up; whoever called sees the one, the server the other.
                _log.warning("the SuperNode did not take a reply", exc_info=True)
            if time.monotonic() - probed > _PROBE:
                is_open = self._door.is_open()
                probed = time.monotonic()
                self._away_since = None if is_open else self._away_since or probed
            time.sleep(_POLL)
        if self._answered > before and self.is_alive:
            # To Flower, a node that has left has not answered, although its reply has arrived: the server, which asks
            # many times a second, must have fetched it before this one goes.
            time.sleep(_LINGER)

    def _answer_one(self, app: ClientApp, token: str) -> None:
        task = self._executor.client_task(token)
        context, is_answered = None, False
        try:
            message, context = task.receive()
            reply = app(message, context)
            task.answer(reply, context)
            is_answered = True
        finally:
            task.finish(context, is_answered=is_answered)
        self._answered += 1
        self._await_departure()

    def _await_departure(self) -> None:
        """Waits until the SuperNode has sent the reply: whoever stops after it must not take it along."""
        end = time.monotonic() + _START
        while self._sent < self._answered and self.is_alive and time.monotonic() < end:
            self._listen(timeout=_POLL)

    def _listen(self, *, timeout: float) -> None:
        while (event := self._child.next_event(timeout=timeout)) is not None:
            if event.get("event") == "sent":
                self._sent += 1
            elif event.get("event") == "connected":
                self.is_connected = True
            timeout = 0

    def _await_ready(self) -> int:
        event = self._child.next_event(timeout=_START)
        port = None if event is None else event.get("port")
        if not isinstance(port, int):
            raise InternalError("The SuperNode does not start.", hint=f"Report it with {str(self._child.log)!r}.")
        return port
