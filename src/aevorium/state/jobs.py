"""`JobStore`: work that takes longer than a request. No job is lost, and none that must not be is run twice.

A job is queued, then running, then succeeded, failed or stopped; it never goes back, except that a worker's death puts
a job that may be repeated into the queue again. There is one worker, which holds a lock; so when a worker starts,
whatever is running belongs to one that is gone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import rfc8785
from sqlalchemy import RowMapping, Select, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from aevorium.errors import AevoriumError, ArtefactError, ConfigError
from aevorium.state.store import Store
from aevorium.state.tables import JOB_EVENTS, JOBS
from aevorium.state.worker_lock import WorkerLock

__all__ = ["ENDED", "INTERRUPTED", "Job", "JobEvent", "JobKind", "JobState", "JobStore"]

JobKind = Literal["train", "generate"]
JobState = Literal["queued", "running", "succeeded", "failed", "stopped"]

ENDED: tuple[JobState, ...] = ("succeeded", "failed", "stopped")

_REPEATABLE: tuple[JobKind, ...] = ("generate",)
"""What a new worker does again if the old one died: its file appears whole or not at all. What nodes released in a
training stays charged, so that is never begun twice."""

INTERRUPTED: Mapping[str, str] = {
    "code": "JOB_INTERRUPTED",
    "message": "The job was not finished. The process that ran it ended before it did.",
    "hint": "What nodes had released stays charged. Start it again if it is still wanted.",
}
"""The error of a job whose worker ended first."""

_WAITING_AT_MOST = 1_000
"""Jobs in the queue."""


@dataclass(frozen=True)
class Job:
    """A job as it stands.

    Attributes:
        number: Its place in the order of submission.
        id: Its name for the world.
        kind: What it does.
        state: How far it is.
        actor: Who asked for it.
        request: What was asked, as JSON values.
        created_at: UTC, ISO 8601.
        started_at: When a worker took it, last.
        ended_at: When it ended.
        attempts: How often a worker took it.
        is_stop_requested: Whether it is asked to stop.
        result: What came of it.
        error: `code`, `message` and `hint`, if it failed.
    """

    number: int
    id: str
    kind: JobKind
    state: JobState
    actor: str
    request: Mapping[str, Any]
    created_at: str
    started_at: str | None
    ended_at: str | None
    attempts: int
    is_stop_requested: bool
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


@dataclass(frozen=True)
class JobEvent:
    """Something that a job told.

    Attributes:
        number: Ascending over all events.
        time: UTC, ISO 8601.
        event: JSON values.
    """

    number: int
    time: str
    event: Mapping[str, Any]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class JobStore:
    """The jobs of a server.

    Args:
        store: The database.
        now: The clock.
    """

    def __init__(self, store: Store, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._store = store
        self._now = now

    def submit(
        self,
        kind: JobKind,
        request: Mapping[str, Any],
        *,
        actor: str,
        idempotency_key: str | None = None,
        asked: Mapping[str, Any] | None = None,
        note: Callable[[Job], object] = lambda _: None,
    ) -> tuple[Job, bool]:
        """Puts a job into the queue, unless this actor has already asked for it with this key.

        Args:
            kind: What it does.
            request: What is asked, as JSON values.
            actor: Who asks.
            idempotency_key: Names the request for good: sent again, it yields the job that there is.
            asked: What the key names, in the words of who asked; the request itself if None.
            note: Told of a new job before it is there. A death in between leaves a note without a job; never a job
                without its note.

        Returns:
            The job, and whether it is new.

        Raises:
            ConfigError: IDEMPOTENCY_KEY_REUSED, if the key named another request.
            AevoriumError: QUEUE_FULL.
        """
        digest = _digest(kind, request if asked is None else asked)
        row = {
            "id": secrets.token_hex(8),
            "kind": kind,
            "state": "queued",
            "actor": actor,
            "request": dict(request),
            "created_at": self._time(),
            "attempts": 0,
            "is_stop_requested": False,
            "idempotency_key": idempotency_key,
            "request_hash": digest,
        }
        with self._store.write() as connection:
            waiting = connection.scalar(select(func.count()).select_from(JOBS).where(JOBS.c.state == "queued"))
            earlier = _only(connection.execute(_with_key(actor, idempotency_key)).mappings().all())
            if earlier is None:
                if (waiting or 0) >= _WAITING_AT_MOST:
                    raise AevoriumError(
                        "QUEUE_FULL", f"The request is not accepted. {_WAITING_AT_MOST} jobs wait already."
                    )
                try:
                    with connection.begin_nested():
                        connection.execute(insert(JOBS).values(row))
                except IntegrityError:
                    # Another process asked with the same key meanwhile: PostgreSQL lets both come this far.
                    earlier = _only(connection.execute(_with_key(actor, idempotency_key)).mappings().all())
                    if earlier is None:
                        raise
            if earlier is None:
                made = _job(connection.execute(select(JOBS).where(JOBS.c.id == row["id"])).mappings().one())
                note(made)
                return made, True
        return _same(earlier, digest), False

    def ordered(self, kind: JobKind, request: Mapping[str, Any], *, actor: str, idempotency_key: str) -> Job | None:
        """The job that this actor has already asked for with this key; None if there is none.

        Args:
            kind: What it does.
            request: What is asked, as JSON values.
            actor: Who asks.
            idempotency_key: The key.

        Raises:
            ConfigError: IDEMPOTENCY_KEY_REUSED, if the key named another request.
        """
        with self._store.read() as connection:
            earlier = _only(connection.execute(_with_key(actor, idempotency_key)).mappings().all())
        return None if earlier is None else _same(earlier, _digest(kind, request))

    def find(self, job_id: str, *, kind: JobKind | None = None) -> Job:
        """The job of this id.

        Args:
            job_id: Its id.
            kind: What it must be.

        Raises:
            ArtefactError: JOB_NOT_FOUND, if there is none.
        """
        kinds = (JOBS.c.kind == kind,) if kind is not None else ()
        with self._store.read() as connection:
            row = _only(connection.execute(select(JOBS).where(JOBS.c.id == job_id, *kinds)).mappings().all())
        if row is None:
            raise ArtefactError("JOB_NOT_FOUND", "There is no such job.")
        return _job(row)

    def page(self, *, kind: JobKind | None = None, before: int | None = None, limit: int) -> tuple[Job, ...]:
        """Jobs, newest first.

        Args:
            kind: Only those.
            before: Only those submitted before the job of this number.
            limit: How many at most.
        """
        query = select(JOBS).order_by(JOBS.c.number.desc()).limit(limit)
        if kind is not None:
            query = query.where(JOBS.c.kind == kind)
        if before is not None:
            query = query.where(JOBS.c.number < before)
        with self._store.read() as connection:
            return tuple(_job(row) for row in connection.execute(query).mappings())

    def since(self, time: str, *, kind: JobKind) -> tuple[Job, ...]:
        """Jobs submitted at or after a moment.

        Args:
            time: UTC, ISO 8601; empty for all.
            kind: Only those.
        """
        query = select(JOBS).where(JOBS.c.kind == kind, JOBS.c.created_at >= time).order_by(JOBS.c.number)
        with self._store.read() as connection:
            return tuple(_job(row) for row in connection.execute(query).mappings())

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        query = select(JOBS.c.state, func.count()).group_by(JOBS.c.state)
        with self._store.read() as connection:
            return {state: count for state, count in connection.execute(query)}  # noqa: C416 - rows are no pairs to mypy

    def claim(self, worker: str, *, kind: JobKind | None = None) -> Job | None:
        """Takes the oldest job of the queue, for one worker alone; None if there is none.

        Args:
            worker: Who takes it.
            kind: Only those.
        """
        kinds = (JOBS.c.kind == kind,) if kind is not None else ()
        with self._store.write() as connection:
            oldest = (
                select(JOBS.c.number)
                .where(JOBS.c.state == "queued", *kinds)
                .order_by(JOBS.c.number)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            number = connection.scalar(oldest)
            if number is None:
                return None
            connection.execute(
                update(JOBS)
                .where(JOBS.c.number == number)
                .values(state="running", worker=worker, started_at=self._time(), attempts=JOBS.c.attempts + 1)
            )
            return _job(connection.execute(select(JOBS).where(JOBS.c.number == number)).mappings().one())

    def request_stop(self, job_id: str) -> Job:
        """Asks a job to stop: one that waits stops at once, one that runs when it next looks.

        Raises:
            ArtefactError: JOB_NOT_FOUND.
        """
        with self._store.write() as connection:
            connection.execute(
                update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.state == "queued")
                .values(state="stopped", ended_at=self._time(), is_stop_requested=True)
            )
            connection.execute(
                update(JOBS).where(JOBS.c.id == job_id, JOBS.c.state == "running").values(is_stop_requested=True)
            )
        return self.find(job_id)

    def finish(
        self,
        job: Job,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> bool:
        """Writes down how a running job ended; one that has ended, or that another worker took since, stays as it is.

        Returns:
            Whether it was written down.
        """
        with self._store.write() as connection:
            done = connection.execute(
                update(JOBS)
                .where(JOBS.c.number == job.number, JOBS.c.state == "running", JOBS.c.attempts == job.attempts)
                .values(state=state, ended_at=self._time(), result=result, error=error)
            )
        return done.rowcount == 1

    def worker_lock(self) -> WorkerLock:
        """What the one worker of the queue holds."""
        return WorkerLock(self._store)

    def begun_and_ended(self) -> tuple[Job, ...]:
        """Every job that a worker took and that has ended, in the order of submission."""
        query = select(JOBS).where(JOBS.c.attempts > 0, JOBS.c.state.in_(ENDED)).order_by(JOBS.c.number)
        with self._store.read() as connection:
            return tuple(_job(row) for row in connection.execute(query).mappings())

    def recover(self) -> tuple[Job, ...]:
        """What a new worker does with the jobs of one that died: repeats or fails them. The caller holds the lock."""
        with self._store.write() as connection:
            running = connection.execute(select(JOBS).where(JOBS.c.state == "running")).mappings().all()
            for row in running:
                again = row["kind"] in _REPEATABLE and not row["is_stop_requested"]
                values = (
                    {"state": "queued", "worker": None} if again else {"state": "failed", "error": dict(INTERRUPTED)}
                )
                if not again:
                    values["ended_at"] = self._time()
                connection.execute(update(JOBS).where(JOBS.c.number == row["number"]).values(values))
        return tuple(self.find(row["id"]) for row in running)

    def tell(self, job: Job, event: Mapping[str, Any]) -> None:
        """Adds an event to a job's story."""
        with self._store.write() as connection:
            connection.execute(insert(JOB_EVENTS).values(job=job.number, time=self._time(), event=dict(event)))

    def story(self, job: Job, *, after: int = 0, limit: int = 500) -> tuple[JobEvent, ...]:
        """A job's events in order.

        Args:
            job: The job.
            after: Only events of a larger number.
            limit: How many at most.
        """
        query = (
            select(JOB_EVENTS.c.number, JOB_EVENTS.c.time, JOB_EVENTS.c.event)
            .where(JOB_EVENTS.c.job == job.number, JOB_EVENTS.c.number > after)
            .order_by(JOB_EVENTS.c.number)
            .limit(limit)
        )
        with self._store.read() as connection:
            return tuple(JobEvent(*row) for row in connection.execute(query))

    def _time(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="milliseconds")


def _with_key(actor: str, key: str | None) -> Select[Any]:
    # An absent key equals nothing in SQL, so it finds nothing.
    return select(JOBS).where(JOBS.c.actor == actor, JOBS.c.idempotency_key == key, JOBS.c.idempotency_key.is_not(None))


def _digest(kind: JobKind, request: Mapping[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps({"kind": kind, "request": dict(request)})).hexdigest()


def _same(earlier: RowMapping, digest: str) -> Job:
    """The earlier job, if it is the one that is asked for again."""
    if earlier["request_hash"] != digest:
        raise ConfigError(
            "IDEMPOTENCY_KEY_REUSED", "The request is not accepted. Its idempotency key named another request."
        )
    return _job(earlier)


def _only(rows: Sequence[RowMapping]) -> RowMapping | None:
    return rows[0] if rows else None


def _job(row: RowMapping) -> Job:
    return Job(**{name: row[name] for name in Job.__dataclass_fields__})
