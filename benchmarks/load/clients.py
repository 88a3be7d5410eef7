"""Clients that ask one after another over a connection of their own, and note how long each answer took.

They speak HTTP by themselves: a client library takes longer for a request than the empty application does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["Answer", "Request", "ask_all"]

_LIMIT = 120.0
"""Seconds for an answer."""


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        kind: What it counts as.
        method: GET or POST.
        path: With its query.
        body: As JSON values; None if there is none.
        headers: Further headers.
    """

    kind: str
    method: str
    path: str
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self, host: str) -> bytes:
        """As it goes over the wire."""
        content = b"" if self.body is None else json.dumps(self.body).encode()
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(content)}"]
        if content:
            lines.append("Content-Type: application/json")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        request: The request.
        status: HTTP's; 0 if there was no answer.
        seconds: Until the last byte.
        body: The answer's.
    """

    request: Request
    status: int
    seconds: float
    body: bytes


async def ask_all(requests: Sequence[Request], *, port: int, clients: int) -> list[Answer]:
    """Sends all requests, as many at a time as there are clients.

    Args:
        requests: In the order in which they are taken up.
        port: Of a server on this machine.
        clients: How many ask at once.
    """
    waiting = iter(requests)
    answers: list[Answer] = []
    await asyncio.gather(*(_client(waiting, answers, port) for _ in range(clients)))
    return answers


async def _client(waiting: Iterator[Request], answers: list[Answer], port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in waiting:
        started = time.perf_counter()
        try:
            writer.write(request.encoded(f"127.0.0.1:{port}"))
            status, body = await asyncio.wait_for(_answer(reader), _LIMIT)
        except (OSError, ValueError, EOFError, TimeoutError):
            status, body = 0, b""
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers.append(Answer(request, status, time.perf_counter() - started, body))
    writer.close()
    await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split(" ")[1]), await reader.readexactly(int(headers["content-length"]))
