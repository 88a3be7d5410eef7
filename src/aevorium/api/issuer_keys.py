"""`IssuerKeys`: the public keys of an OpenID Connect issuer, fetched from where its discovery document says.

They are kept for a while: an issuer is not asked for every token. A key that is not among them may be new, so an
unknown name has them fetched again, but not more often than every `_FLOOR` seconds: names can be made up.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from aevorium.api.problems import RetryLater
from aevorium.errors import ConfigError

__all__ = ["IssuerKey", "IssuerKeys"]

_FLOOR = 30.0
"""Seconds between two fetches at least."""

_RENEW_AFTER = 1800.0
"""Age in seconds from which keys are fetched again, while the old ones still count."""

_KEEP = 3600.0
"""Age in seconds from which keys count no more: one that the issuer withdrew ends here at the latest."""

_SECONDS = 5.0
"""For each step of a fetch."""

_MOST_SECONDS, _MOST_BYTES = 10.0, 1_048_576
"""For the whole of a document."""

_MOST_WAITING = 4
"""Requests that wait for the issuer at once. The others must not wait for a place to be served in."""

_FEWEST_RSA_BITS = 2048

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

_OF_CURVE: Mapping[str, frozenset[str]] = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA"}),
    "Ed448": frozenset({"EdDSA"}),
}

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class IssuerKey:
    """A public key.

    Attributes:
        value: The key.
        algorithms: The signatures that it may check; never one with a shared secret.
    """

    value: Any
    algorithms: frozenset[str]


class IssuerKeys:
    """The keys of an issuer.

    Args:
        issuer: Its address: https, or http on this machine.
        now: A clock in seconds that never goes back.

    Raises:
        ConfigError: CONFIG_INVALID, if the address is none that tokens may depend on.
    """

    def __init__(self, issuer: str, *, now: Callable[[], float] = time.monotonic) -> None:
        if not _is_trustworthy(issuer):
            raise ConfigError(
                "CONFIG_INVALID",
                f"AEVORIUM_OIDC_ISSUER = {issuer!r} is not possible. It should be an https address.",
            )
        self._issuer = issuer
        self._now = now
        self._keys: Mapping[str | None, IssuerKey] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._is_away = False
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST_WAITING)

    def find(self, name: str | None) -> IssuerKey | None:
        """The key that a token names (`kid`); None if the issuer has no such key.

        Raises:
            RetryLater: ISSUER_UNREACHABLE, if that cannot be said.
        """
        known = self._keys.get(name) if self._age < _KEEP else None
        if known is not None:
            if self._age > _RENEW_AFTER and self._lock.acquire(blocking=False):
                try:
                    self._renew()
                finally:
                    self._lock.release()
            return known
        if not self._places.acquire(blocking=False):
            raise self._unreachable("Too many requests wait for it already.")
        try:
            with self._lock:
                self._renew()
        finally:
            self._places.release()
        if self._is_away or self._age >= _KEEP:
            raise self._unreachable("It does not answer as an issuer should.")
        return self._keys.get(name)

    @property
    def _age(self) -> float:
        return self._now() - self._fetched_at

    def _renew(self) -> None:
        if self._now() - self._asked_at < _FLOOR:
            return
        try:
            self._keys = _fetch_keys(self._issuer)
            self._fetched_at, self._is_away = self._now(), False
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError, RecursionError) as error:
            _LOGGER.warning("the keys of the issuer cannot be fetched: %s", type(error).__name__)
            self._is_away = True
        self._asked_at = self._now()

    def _unreachable(self, reason: str) -> RetryLater:
        message = f"The token cannot be checked now. Its issuer {self._issuer!r} cannot be asked for its keys. {reason}"
        return RetryLater("ISSUER_UNREACHABLE", message, seconds=_FLOOR)


def _is_trustworthy(address: str) -> bool:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return False
    return bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and url.host in _LOOPBACK))


def _fetch_keys(issuer: str) -> Mapping[str | None, IssuerKey]:
    """Discovery (OpenID Connect Discovery 1.0, section 4), then the key set (RFC 7517)."""
    with httpx.Client(timeout=_SECONDS, follow_redirects=False) as client:
        discovered = _fetch(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if discovered["issuer"] != issuer:
            raise ValueError("the document is of another issuer")
        published = _fetch(client, discovered["jwks_uri"])["keys"]
    found = {}
    for entry in published:
        key = _key(entry)
        if key is not None:
            found[entry.get("kid")] = key
    return found


def _fetch(client: httpx.Client, address: str) -> Any:  # noqa: ANN401 - JSON
    if not _is_trustworthy(address):
        raise ValueError("neither https nor of this machine")
    body, deadline = bytearray(), time.monotonic() + _MOST_SECONDS
    with client.stream("GET", address, headers={"Accept-Encoding": "identity"}) as answer:
        answer.raise_for_status()
        for part in answer.iter_raw():
            body += part
            if len(body) > _MOST_BYTES or time.monotonic() > deadline:
                raise ValueError("the document is too long, or comes too slowly")
    return json.loads(body)


def _key(entry: Mapping[str, Any]) -> IssuerKey | None:
    """The key of an entry; None if it is for something else, of a kind that is not known, or too weak."""
    kind = entry.get("kty")
    algorithms = _RSA if kind == "RSA" else _OF_CURVE.get(str(entry.get("crv")), frozenset())
    if "alg" in entry:
        algorithms &= {entry["alg"]}
    # A set that publishes a private key has lost it.
    if kind not in ("RSA", "EC", "OKP") or entry.get("use", "sig") != "sig" or "d" in entry or not algorithms:
        return None
    try:
        value = PyJWK(dict(entry), algorithm=min(algorithms)).key
    except (PyJWTError, ValueError, TypeError):
        return None
    if isinstance(value, RSAPublicKey) and value.key_size < _FEWEST_RSA_BITS:
        return None
    is_edwards = isinstance(value, Ed25519PublicKey | Ed448PublicKey)
    return IssuerKey(value, algorithms) if is_edwards == (kind == "OKP") else None
