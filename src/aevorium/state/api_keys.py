"""`ApiKeyStore`: who may use the API, and as what. A key is shown once; the database knows its hash alone."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import RowMapping, bindparam, insert, select, update

from aevorium.errors import ArtefactError
from aevorium.state.roles import ROLES, Role
from aevorium.state.store import Store
from aevorium.state.tables import API_KEYS

__all__ = ["NAME", "ROLES", "ApiKey", "ApiKeyStore", "Role", "Standing"]

Standing = Literal["accepted", "expired", "revoked"]

NAME = r"^[\w .,@+-]{1,100}$"
"""How whoever holds a key may be called: nothing that breaks a line, or that a terminal would obey."""

_PREFIX = "aev_"
"""Tells people and scanners of leaked secrets what it is."""


_OF_DIGEST = select(API_KEYS).where(API_KEYS.c.digest == bindparam("digest"))
"""Asked with every request: it is made once."""


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key. Safe to show.

    Attributes:
        id: Its name; the secret begins with it.
        name: Whose it is, in the words of who made it.
        role: What it may do.
        created_at: UTC, ISO 8601.
        expires_at: From then on it is refused; None if it does not expire.
        revoked_at: When it was revoked, or None.
    """

    id: str
    name: str
    role: Role
    created_at: str
    expires_at: str | None
    revoked_at: str | None


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ApiKeyStore:
    """The keys of a server.

    Args:
        store: The database.
        now: The clock.
    """

    def __init__(self, store: Store, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._store = store
        self._now = now

    def create(
        self,
        *,
        name: str,
        role: Role,
        lifetime: timedelta | None = None,
        note: Callable[[ApiKey], object] = lambda _: None,
    ) -> tuple[ApiKey, str]:
        """Makes a key.

        Args:
            name: Whose it is.
            role: What it may do.
            lifetime: How long it is accepted; None for ever.
            note: Told of the key before it is there; if it fails, there is none.

        Returns:
            What is known of it, and the secret, which is nowhere else.
        """
        now = self._now()
        key = ApiKey(
            id=secrets.token_hex(6),
            name=name,
            role=role,
            created_at=_text(now),
            expires_at=None if lifetime is None else _text(now + lifetime),
            revoked_at=None,
        )
        # 256 bits of chance: a plain hash at rest is enough, there is nothing to guess.
        secret = f"{_PREFIX}{key.id}_{secrets.token_urlsafe(32)}"
        with self._store.write() as connection:
            connection.execute(insert(API_KEYS).values(**vars(key), digest=_digest(secret)))
            note(key)
        return key, secret

    def accept(self, secret: str) -> ApiKey | None:
        """The key of a secret; None if it is none, or one that has expired or was revoked."""
        key = self.find(secret)
        return key if key is not None and self.standing(key) == "accepted" else None

    def find(self, secret: str) -> ApiKey | None:
        """The key of a secret, whatever its standing; None if there is none."""
        with self._store.read() as connection:
            row = connection.execute(_OF_DIGEST, {"digest": _digest(secret)}).mappings().first()
        return None if row is None else _key(row)

    def standing(self, key: ApiKey) -> Standing:
        """Whether a key is accepted now, and if not, why."""
        if key.revoked_at is not None:
            return "revoked"
        return "expired" if key.expires_at is not None and key.expires_at <= _text(self._now()) else "accepted"

    def revoke(self, key_id: str) -> ApiKey:
        """Refuses a key from now on; raises ArtefactError (API_KEY_NOT_FOUND) if there is none of this id."""
        with self._store.write() as connection:
            connection.execute(
                update(API_KEYS)
                .where(API_KEYS.c.id == key_id, API_KEYS.c.revoked_at.is_(None))
                .values(revoked_at=_text(self._now()))
            )
            row = connection.execute(select(API_KEYS).where(API_KEYS.c.id == key_id)).mappings().first()
        if row is None:
            raise ArtefactError("API_KEY_NOT_FOUND", "There is no such API key.")
        return _key(row)

    def all(self) -> tuple[ApiKey, ...]:
        """Every key, oldest first."""
        with self._store.read() as connection:
            return tuple(
                _key(row) for row in connection.execute(select(API_KEYS).order_by(API_KEYS.c.number)).mappings()
            )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(**{name: row[name] for name in ApiKey.__dataclass_fields__})
