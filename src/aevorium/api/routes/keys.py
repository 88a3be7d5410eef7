"""API keys, for stewards: made, listed, revoked. A secret is shown once."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from aevorium.api.access import Principal
from aevorium.api.pages import After, Limit, page_of
from aevorium.api.services import Services
from aevorium.state.api_keys import NAME, ApiKey, Role

__all__ = ["router"]


class NewKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, pattern=NAME, description="Whose it is.")
    role: Role
    days: int | None = Field(default=None, ge=1, le=3650, description="How long it is accepted; absent for ever.")


class KeyView(BaseModel):
    """What is known of a key."""

    id: str
    name: str
    role: Role
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class KeyPage(BaseModel):
    """Keys, oldest first."""

    keys: list[KeyView]
    next: int | None = Field(description="`after` of the next page; null at the end.")


class MadeKey(KeyView):
    """A key that was just made."""

    secret: str = Field(description="Send it as 'Authorization: Bearer ...'. It is shown this once.")


def router(services: Services) -> APIRouter:
    """The operations on keys."""
    routes = APIRouter(prefix="/v1/keys", tags=["keys"])
    stewards = Depends(services.access.require("keys"))

    def note(actor: Principal, action: str, key: ApiKey) -> None:
        services.log.note(actor.name, action, {"key": key.id, "role": key.role})

    @routes.post("", status_code=201)
    def create(wanted: NewKey, actor: Principal = stewards) -> MadeKey:
        """Makes a key."""
        lifetime = None if wanted.days is None else timedelta(days=wanted.days)
        key, secret = services.keys.create(
            name=wanted.name,
            role=wanted.role,
            lifetime=lifetime,
            note=lambda made: note(actor, "api_key_created", made),
        )
        return MadeKey(**vars(key), secret=secret)

    @routes.get("")
    def listed(_: Principal = stewards, after: After = 0, limit: Limit = 50) -> KeyPage:
        """Every key, oldest first, without secrets."""
        found, following = page_of(services.keys.all(), after=after, limit=limit)
        return KeyPage(keys=[KeyView(**vars(key)) for key in found], next=following)

    @routes.delete("/{key_id}")
    def revoke(key_id: Annotated[str, InPath(pattern=r"^[0-9a-f]{12}$")], actor: Principal = stewards) -> KeyView:
        """Refuses a key from now on."""
        key = services.keys.revoke(key_id)
        # After it: a log that cannot be written keeps no key alive.
        note(actor, "api_key_revoked", key)
        return KeyView(**vars(key))

    return routes
