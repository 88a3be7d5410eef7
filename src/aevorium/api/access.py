"""Who may do what: roles, API keys, tokens of an issuer, the token of a start, and what loopback may read without any.

The token of a start counts from loopback alone. A request from loopback needs more than the address: a proxy on the
same machine forwards the whole world's, and a web page can send a browser to any name that resolves to 127.0.0.1. So
it must not have been forwarded, and must name a loopback host itself.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fastapi import Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from aevorium.api.addresses import address_of, network_of
from aevorium.api.oidc import OidcTokens
from aevorium.api.problems import BEARER, BEARER_OR_NEAR, RetryLater
from aevorium.api.rates import Rates
from aevorium.api.refusals import Refusals, TokenRefused
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


class _Requirement(SecurityBase):
    """A dependency of which FastAPI tells in the OpenAPI document.

    Args:
        check: Passes who may.
        scheme: What the document calls it.
    """

    def __init__(self, check: Callable[[Request], Principal], *, scheme: str) -> None:
        self.model = HTTPBearer(description="An API key, a token of the issuer, or the token of the start.")
        self.scheme_name = scheme
        self._check = check

    def __call__(self, request: Request) -> Principal:
        """Who sends a request, if they may."""
        return self._check(request)


class Access:
    """Knows who sends a request.

    Args:
        keys: The API keys.
        rates: How often they may ask.
        refusals: Notes whom it turns away.
        tokens: Judges the tokens of an issuer; None if there is none.
        start_token: Accepted from loopback as every role while this process lives; None if keys alone are.
    """

    def __init__(
        self,
        keys: ApiKeyStore,
        *,
        rates: Rates,
        refusals: Refusals,
        tokens: OidcTokens | None = None,
        start_token: str | None = None,
    ) -> None:
        self._keys = keys
        self._rates = rates
        self._refusals = refusals
        self._tokens = tokens
        self._start_token = start_token

    def require(
        self, permission: Permission, *, loopback: bool = False, is_probe: bool = False
    ) -> Callable[[Request], Principal]:
        """A dependency that passes who may.

        Args:
            permission: What the operation takes.
            loopback: Whether requests of this machine need no token.
            is_probe: Whether requests of this machine are not counted: what watches the API may not be kept out by it.
        """

        def check(request: Request) -> Principal:
            principal = self._principal(request, open_to_loopback=loopback)
            request.state.principal = principal.name
            if not (is_probe and is_loopback(request)):
                self._rates.count(principal.name)
            if permission not in principal.permissions:
                detail = {"address": address_of(request), "permission": permission}
                self._refusals.note("access_denied", about=principal.name, detail=detail)
                raise PolicyRefused("FORBIDDEN", f"{principal.name!r} may not do this. It takes another role.")
            return principal

        return _Requirement(check, scheme=BEARER_OR_NEAR if loopback else BEARER)

    def _principal(self, request: Request, *, open_to_loopback: bool) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        network = network_of(request)
        if not token:
            if open_to_loopback and is_loopback(request):
                return Principal("loopback", frozenset({"read", "audit"}))
            self._rates.count(network)
            raise UserError("UNAUTHENTICATED", "The request is not accepted. It names nobody.")
        try:
            return self._holder(scheme.lower(), token.strip(), is_near=is_loopback(request))
        except RetryLater:
            self._rates.count(network)
            raise
        except TokenRefused as refused:
            detail = {"address": address_of(request), "reason": refused.reason}
            detail |= {} if refused.key is None else {"key": refused.key}
            self._refusals.note("login_failed", about=network, detail=detail)
            # A right token passes however many wrong ones came before: it cannot be guessed, and whoever shares an
            # address with somebody else, as all do behind a proxy, must not be kept out by him.
            self._rates.count_refused(network)
        raise UserError("UNAUTHENTICATED", "The request is not accepted. Its token is wrong, expired or revoked.")

    def _holder(self, scheme: str, token: str, *, is_near: bool) -> Principal:
        """Who holds a token; raises TokenRefused if nobody does."""
        if scheme != "bearer":
            raise TokenRefused("scheme")
        if self._start_token is not None and secrets.compare_digest(token.encode(), self._start_token.encode()):
            if not is_near:
                raise TokenRefused("elsewhere")
            return Principal("start token", _permissions(ROLES))
        # Only tokens of an issuer hold points.
        if self._tokens is not None and "." in token:
            identity = self._tokens.identify(token)
            return Principal(f"oidc {identity.subject}", _permissions(identity.roles))
        key = self._keys.find(token)
        if key is None:
            raise TokenRefused("unknown")
        standing = self._keys.standing(key)
        if standing != "accepted":
            raise TokenRefused(standing, key=key.id)
        return Principal(f"key {key.id}", _permissions([key.role]))


def _permissions(roles: Iterable[Role]) -> frozenset[Permission]:
    return frozenset().union(*(_ALLOWED[role] for role in roles))


def is_loopback(request: Request) -> bool:
    """Whether a request was made on this machine, by something that knows that it was."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        is_near = ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    return is_near and (request.url.hostname or "") in _LOCAL_NAMES
