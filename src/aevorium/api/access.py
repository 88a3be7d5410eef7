"""Who may do what: roles, API keys, the token of a start, and what loopback may read without any.

A request from loopback needs more than the address: a proxy on the same machine forwards the whole world's, and a web
page can send a browser to any name that resolves to 127.0.0.1. So it must not have been forwarded, and must name a
loopback host itself.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fastapi import Request

from aevorium.errors import PolicyRefused, UserError
from aevorium.state.api_keys import ROLES, ApiKeyStore, Role

__all__ = ["Access", "Permission", "Principal", "is_loopback"]

Permission = Literal["read", "audit", "run", "generate", "budget", "keys"]

_ALLOWED: Mapping[Role, frozenset[Permission]] = {
    "steward": frozenset({"read", "audit", "run", "generate", "budget", "keys"}),
    "engineer": frozenset({"read", "audit", "run", "generate"}),
    "researcher": frozenset({"read", "generate"}),
    "auditor": frozenset({"read", "audit"}),
}

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True)
class Principal:
    """Who sends a request.

    Attributes:
        name: For the audit log.
        permissions: What they may do.
    """

    name: str
    permissions: frozenset[Permission]


class Access:
    """Knows who sends a request.

    Args:
        keys: The API keys.
        start_token: Accepted as every role while this process lives; None if keys alone are.
    """

    def __init__(self, keys: ApiKeyStore, *, start_token: str | None) -> None:
        self._keys = keys
        self._start_token = start_token

    def require(self, permission: Permission, *, loopback: bool = False) -> Callable[[Request], Principal]:
        """A dependency that passes who may.

        Args:
            permission: What the operation takes.
            loopback: Whether requests of this machine need no token.
        """

        def check(request: Request) -> Principal:
            principal = self._principal(request, open_to_loopback=loopback)
            if permission not in principal.permissions:
                raise PolicyRefused("FORBIDDEN", f"{principal.name!r} may not do this. It takes another role.")
            return principal

        return check

    def _principal(self, request: Request, *, open_to_loopback: bool) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not token:
            if open_to_loopback and is_loopback(request):
                return Principal("loopback", frozenset({"read", "audit"}))
            raise UserError("UNAUTHENTICATED", "The request is not accepted. It names nobody.")
        token = token.strip()
        if scheme.lower() == "bearer":
            if self._start_token is not None and secrets.compare_digest(token.encode(), self._start_token.encode()):
                return Principal("start token", frozenset().union(*(_ALLOWED[role] for role in ROLES)))
            key = self._keys.accept(token)
            if key is not None:
                return Principal(f"key {key.id}", _ALLOWED[key.role])
        raise UserError("UNAUTHENTICATED", "The request is not accepted. Its token is wrong, expired or revoked.")


def is_loopback(request: Request) -> bool:
    """Whether a request was made on this machine, by something that knows that it was."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        is_near = ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    return is_near and (request.url.hostname or "") in _LOCAL_NAMES
