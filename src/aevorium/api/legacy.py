"""Addresses of the first specification: they stay, and say which address of `/v1` succeeds them."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Response

__all__ = ["succeeded_by"]

_DEPRECATED_SINCE = 1795478400
"""24 November 2026 (Unix time, RFC 9745): when the addresses without a version got successors."""


def succeeded_by(successor: str) -> Any:  # noqa: ANN401 - FastAPI's own type for it is Any
    """A dependency that names the successor in every answer (RFC 9745, RFC 8594).

    Args:
        successor: Its path.
    """

    def tell(response: Response) -> None:
        response.headers["Deprecation"] = f"@{_DEPRECATED_SINCE}"
        response.headers["Link"] = f'<{successor}>; rel="successor-version"'

    return Depends(tell)
