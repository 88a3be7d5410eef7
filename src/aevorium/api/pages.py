"""Lists in pages: what is asked of one, where the next begins, and the page of an audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from aevorium.governance.chain import AuditChain, AuditEntry

__all__ = ["Action", "After", "AuditPage", "Cursor", "Entries", "Limit", "audit_page", "next_cursor", "page_of"]

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[int | None, Query(ge=1, le=2**53, description="`next` of the page before.")]
After = Annotated[
    int, Query(ge=0, le=2**53, description="Only what comes after this number: `next` of the page before.")
]
Entries = Annotated[int, Query(ge=1, le=500, description="How many at most.")]
Action = Annotated[str | None, Query(max_length=100, description="Only entries of this action.")]


class AuditPage(BaseModel):
    """A part of an audit log."""

    entries: list[AuditEntry]
    head: str = Field(description="Hash of the last entry of the whole log; note it to be able to see a cut.")
    next: int | None = Field(description="`after` of the next page; null at the end.")


def audit_page(chain: AuditChain, *, after: int, limit: int, action: str | None) -> AuditPage:
    """A page of an audit log, oldest entry first.

    Args:
        chain: The log.
        after: Only entries of a larger number.
        limit: How many at most.
        action: Only entries of this action.

    Raises:
        ArtefactError: AUDIT_BROKEN, if one of them is damaged.
    """
    found = chain.page(after=after, limit=limit + 1, action=action)
    following = next_cursor([entry.seq for entry in found], limit=limit)
    return AuditPage(entries=list(found[:limit]), head=chain.head, next=following)


def next_cursor(numbers: Sequence[int], *, limit: int) -> int | None:
    """The cursor of the next page; None at the end.

    Args:
        numbers: Of what was found, of which one more was asked for than is shown.
        limit: How many are shown.
    """
    return numbers[limit - 1] if len(numbers) > limit else None


def page_of(items: Sequence[Item], *, after: int, limit: int) -> tuple[Sequence[Item], int | None]:
    """A part of a list that is at hand, and the cursor of the next one.

    Args:
        items: All of it.
        after: How many come before.
        limit: How many are shown.
    """
    end = after + limit
    return items[after:end], end if end < len(items) else None
