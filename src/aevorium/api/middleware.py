"""`Guard`: what holds for every request and every answer, whatever the route.

It is outermost, so that answers to failures pass it too, and plain ASGI, so that answers that never end can.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aevorium.api.metrics import Metrics
from aevorium.api.problems import problem_response
from aevorium.api.request_log import RequestLine, RequestLog
from aevorium.errors import ConfigError

__all__ = ["Guard"]

_MOST_BYTES = 1_048_576
"""Of a request's body."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_LENGTH = re.compile(r"[0-9]{1,12}")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

_FAILED = 500

_LOGGER = logging.getLogger(__name__)


@dataclass
class _Answer:
    status: int | None = None


class Guard:
    """Bodies have an end, answers have the headers that browsers heed, and every request has a name and a line.

    Args:
        app: What answers.
        metrics: Counts.
        log: Tells.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log: RequestLog) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        # A name that could break a line of a log, or stand in a header for more than itself, is not taken over.
        name = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        state = scope.setdefault("state", {})
        answer = _Answer()

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                found = MutableHeaders(scope=message)
                found["X-Request-ID"] = name
                for header, value in _HEADERS.items():
                    found.setdefault(header, value)
            await send(message)

        try:
            if _is_endless(headers):
                state["code"] = "REQUEST_TOO_LARGE"
                await _TOO_LARGE(scope, receive, send_guarded)
            else:
                await self._app(scope, receive, send_guarded)
        except Exception as error:
            # The last edge of the process. The answer was given, or its end is missing, which tells its reader enough;
            # the server above would write the error's text to its log, and texts may quote data.
            if state.setdefault("code", None) is None:
                _LOGGER.error("an answer broke off: %s", type(error).__name__)
                state["code"] = "INTERNAL"
        finally:
            self._tell(scope, name=name, status=answer.status or _FAILED, seconds=time.perf_counter() - started)

    def _tell(self, scope: Scope, *, name: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None)
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.observe(route=route, method=method, status=status, seconds=seconds)
        state = scope["state"]
        self._log.write(
            RequestLine(
                request=name,
                principal=state.get("principal"),
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000, 1),
                code=state.get("code"),
            )
        )


def _is_endless(headers: Headers) -> bool:
    length = headers.get("content-length", "0")
    return "transfer-encoding" in headers or not _LENGTH.fullmatch(length) or int(length) > _MOST_BYTES


_TOO_LARGE = problem_response(
    ConfigError("REQUEST_TOO_LARGE", "The request is not read. Its body is too long, or does not say how long.")
)
