"""`Metrics`: what Prometheus is told of an API. Labels are few and fixed: nothing that was sent becomes one."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from aevorium.errors import AevoriumError
from aevorium.governance.chain import AuditChain
from aevorium.state.jobs import JobState, JobStore
from aevorium.workspace import Workspace

__all__ = ["Metrics"]

_NO_ROUTE = "none"

_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
"""Seconds."""


class Metrics:
    """The measurements of one API, in a registry of its own.

    Args:
        workspace: The length of its audit log is among them.
        jobs: How many orders wait, and how others ended, are among them.
    """

    def __init__(self, workspace: Workspace, *, jobs: JobStore) -> None:
        self.registry = CollectorRegistry()
        self._jobs = jobs
        self._requests = Counter(
            "aevorium_api_requests", "Requests that were answered.", ("route", "method", "status"),
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "aevorium_api_request_seconds", "Until the end of the answer.", ("route", "method"),
            buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._orders = Gauge(
            "aevorium_jobs", "Runs and tables that were ordered, by their state.", ("state",), registry=self.registry
        )
        entries = Gauge("aevorium_audit_entries", "Entries of the audit log.", registry=self.registry)
        entries.set_function(lambda: _length(workspace))

    def observe(self, *, route: str | None, method: str, status: int, seconds: float) -> None:
        """Counts a request.

        Args:
            route: The template of its path; None if there is no such route.
            method: One of those that HTTP knows.
            status: Of the answer.
            seconds: Until the end of the answer.
        """
        place = _NO_ROUTE if route is None else route
        self._requests.labels(place, method, f"{status // 100}xx").inc()
        self._seconds.labels(place, method).observe(seconds)

    def text(self) -> str:
        """All of it, in Prometheus's text format."""
        try:
            counts = self._jobs.counts()
        except AevoriumError:
            counts = None  # a database that does not answer counts nothing; the rest is told all the same
        for state in get_args(JobState):
            self._orders.labels(state).set(float("nan") if counts is None else counts.get(state, 0))
        return generate_latest(self.registry).decode()


def _length(workspace: Workspace) -> float:
    if not workspace.database.is_file():
        return 0.0
    try:
        last = AuditChain(workspace.database).last
    except (AevoriumError, ValueError):
        # A damaged log has no length; /v1/audit/verification says what is wrong with it.
        return float("nan")
    return 0.0 if last is None else float(last.seq)
