"""`RequestLog`: a line for each request, which nothing that was sent can break or forge."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

__all__ = ["RequestLine", "RequestLog"]

_SERVER_ERROR = 500


@dataclass(frozen=True)
class RequestLine:
    """What is told of a request. Neither its path nor its query: tokens are sent there by mistake.

    Attributes:
        request: Its name, as in the header X-Request-ID.
        principal: Who sent it; None if that is not known.
        method: GET, POST and so on.
        route: The template of its path; None if there is no such route.
        status: Of the answer.
        ms: Milliseconds until the end of the answer.
        code: Of the error catalogue, if it failed.
    """

    request: str
    principal: str | None
    method: str
    route: str | None
    status: int
    ms: float
    code: str | None


class RequestLog:
    """Writes lines.

    Args:
        is_json: Whether as JSON, or in a form for people.
        stream: Where to; the standard error stream if None.
    """

    def __init__(self, *, is_json: bool, stream: TextIO | None = None) -> None:
        self._is_json = is_json
        self._stream = stream

    def write(self, line: RequestLine) -> None:
        """Writes a line. A stream that was closed does not make requests fail."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        level = "error" if line.status >= _SERVER_ERROR else "info"
        # JSON in ASCII has neither line breaks nor control characters.
        text = json.dumps({"time": now, "level": level, **vars(line)}) if self._is_json else _plain(now, level, line)
        with suppress(OSError, ValueError):
            stream = sys.stderr if self._stream is None else self._stream
            stream.write(f"{text}\n")
            stream.flush()


def _plain(now: str, level: str, line: RequestLine) -> str:
    code = "" if line.code is None else f" {line.code}"
    text = f"{now} {level:5} {line.status} {line.method} {line.route or '-'} {line.ms:.1f} ms"
    text += f"{code} by {line.principal or '-'} ({line.request})"
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
