"""What those who run the API look at: whether it lives, whether it is ready, and how it fares."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from aevorium.api.access import Access, Principal
from aevorium.api.metrics import Metrics
from aevorium.api.problems import RetryLater
from aevorium.errors import AevoriumError
from aevorium.state.store import Store

__all__ = ["Readiness", "router"]

_SECONDS = 1.0
"""How long a finding counts: the probes need no token, so they may not cost anything."""


class State(BaseModel):
    """Nothing but this."""

    status: Literal["ok"] = "ok"


class Readiness:
    """Whether the database answers.

    Args:
        store: The database.
        now: A clock in seconds that never goes back.
    """

    def __init__(self, store: Store, *, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._is_ready = False

    def __call__(self) -> bool:
        """What was found a moment ago, or is found now; one request at a time asks, and the others do not wait."""
        if self._now() - self._asked_at >= _SECONDS and self._lock.acquire(blocking=False):
            try:
                self._store.check()
                self._is_ready = True
            except AevoriumError:
                self._is_ready = False
            finally:
                self._asked_at = self._now()
                self._lock.release()
        return self._is_ready


def router(access: Access, *, metrics: Metrics, is_ready: Callable[[], bool]) -> APIRouter:
    """The operations of those who run the API.

    Args:
        access: Knows who asks.
        metrics: The measurements.
        is_ready: Whether requests can be served.
    """
    routes = APIRouter(tags=["operations"])
    scrapers = Depends(access.require("audit", loopback=True, is_probe=True))

    @routes.get("/health/live")
    def live() -> State:
        """Whether the process answers. Anyone may ask."""
        return State()

    @routes.get("/health/ready")
    def ready() -> State:
        """Whether the database answers too. Anyone may ask."""
        if not is_ready():
            raise RetryLater("NOT_READY", "The API is not ready.", seconds=_SECONDS)
        return State()

    @routes.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def measured(_: Principal = scrapers) -> PlainTextResponse:
        """Requests, their times and the length of the audit log, in Prometheus's text format."""
        return PlainTextResponse(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
