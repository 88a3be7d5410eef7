"""OpenID Connect: whose token it is, what that person may do here, and if it is refused, why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from jwt.exceptions import InvalidSubjectError

from aevorium.api.issuer_keys import IssuerKeys
from aevorium.api.refusals import TokenRefused
from aevorium.state.roles import ROLES, Role

__all__ = ["OidcIdentity", "OidcOptions", "OidcTokens"]

_LEEWAY = 30
"""Seconds by which clocks may differ."""

_MOST_CHARACTERS = 8192

_ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)  # fmt: skip
"""A shared secret would let whoever checks tokens make them too."""

_SUBJECT = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
"""OpenID Connect Core 1.0, section 2: at most 255 ASCII characters."""

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "expired"),
    (jwt.ImmatureSignatureError, "not yet valid"),
    (jwt.InvalidAudienceError, "audience"),
    (jwt.InvalidIssuerError, "issuer"),
    (jwt.MissingRequiredClaimError, "claims"),
    (InvalidSubjectError, "claims"),
    (jwt.InvalidAlgorithmError, "algorithm"),
    (jwt.InvalidSignatureError, "signature"),
)


@dataclass(frozen=True)
class OidcOptions:
    """Whose tokens are accepted, and what they mean.

    Attributes:
        issuer: The issuer's address, exactly as its tokens name it.
        audience: What a token must be meant for.
        role_claim: The claim with the roles; if there is none of this name, dots lead into objects.
        roles: What the claim's values mean; empty where they are the names of roles.
    """

    issuer: str
    audience: str
    role_claim: str = "roles"
    roles: Mapping[str, Role] = field(default_factory=dict)


@dataclass(frozen=True)
class OidcIdentity:
    """Whose token it is.

    Attributes:
        subject: The issuer's name for the person or program.
        roles: What they are here; perhaps nothing.
    """

    subject: str
    roles: frozenset[Role]


class OidcTokens:
    """Judges the tokens of an issuer.

    Args:
        options: Whose tokens, and what they mean.
        keys: The issuer's keys; fetched from its address if None.
    """

    def __init__(self, options: OidcOptions, *, keys: IssuerKeys | None = None) -> None:
        self._options = options
        self._keys = IssuerKeys(options.issuer) if keys is None else keys

    def identify(self, token: str) -> OidcIdentity:
        """Whose token it is.

        Raises:
            TokenRefused: If it is not accepted.
            RetryLater: ISSUER_UNREACHABLE.
        """
        if len(token) > _MOST_CHARACTERS:
            raise TokenRefused("too long")
        try:
            claims = self._claims(token)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "malformed")
            raise TokenRefused(reason) from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
            raise TokenRefused("claims")
        return OidcIdentity(subject, self._roles(claims))

    def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in _ASYMMETRIC:
            raise TokenRefused("algorithm")
        key = self._keys.find(header.get("kid"))
        if key is None:
            raise TokenRefused("unknown key")
        if algorithm not in key.algorithms:
            raise TokenRefused("algorithm")
        return jwt.decode(
            token,
            key.value,
            algorithms=[algorithm],
            audience=self._options.audience,
            issuer=self._options.issuer,
            leeway=_LEEWAY,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )

    def _roles(self, claims: Mapping[str, Any]) -> frozenset[Role]:
        found: Any = claims.get(self._options.role_claim)
        if found is None:
            found = claims
            for part in self._options.role_claim.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        values = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        meanings: Mapping[str, Role] = self._options.roles or {role: role for role in ROLES}
        return frozenset(meanings[value] for value in values if isinstance(value, str) and value in meanings)
