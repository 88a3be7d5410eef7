"""What runs and tables that were ordered have in common: their state, their story as server-sent events, their end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Header
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from aevorium.state.jobs import Job, JobEvent, JobState, JobStore

__all__ = [
    "IdempotencyKey",
    "JobError",
    "JobId",
    "JobView",
    "LastEventId",
    "job_fields",
    "stream",
]

_LOOK = 0.4
_HEARTBEAT = 15.0
_LONGEST = 3600.0
"""Seconds after which a stream ends; its reader asks again, from the last event on."""

JobId = Annotated[str, InPath(pattern=r"^[0-9a-f]{16}$", description="Its id.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Names the order: sent again with it, it is not done twice.",
    ),
]
LastEventId = Annotated[
    int, Header(alias="Last-Event-ID", ge=0, le=2**53, description="Only what came after this event.")
]


class JobError(BaseModel):
    """Why an order failed."""

    code: str = Field(description="The code of the error catalogue.")
    message: str
    hint: str


class JobView(BaseModel):
    """How far an order is."""

    id: str
    state: JobState
    actor: str = Field(description="Who ordered it.")
    created_at: str = Field(description="UTC, ISO 8601.")
    started_at: str | None = None
    ended_at: str | None = None
    is_stop_requested: bool = False
    error: JobError | None = None


def job_fields(job: Job) -> dict[str, Any]:
    """The fields of a `JobView`."""
    return {
        "id": job.id,
        "state": job.state,
        "actor": job.actor,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "is_stop_requested": job.is_stop_requested,
        "error": None if job.error is None else JobError(**job.error),
    }


def stream(jobs: JobStore, job: Job, *, after: int) -> StreamingResponse:
    """A job's story as server-sent events, until it has ended.

    Args:
        jobs: The queue.
        job: The job.
        after: Number of the last event that the reader knows.
    """
    # Without it nginx keeps events back until it has a page of them.
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_events(jobs, job, after), media_type="text/event-stream", headers=headers)


async def _events(jobs: JobStore, job: Job, after: int) -> AsyncIterator[str]:
    started = told = time.monotonic()
    yield ": the story of an order\n\n"
    while time.monotonic() - started < _LONGEST:
        # First the state, then the events: what was told before the end is not left out.
        now = await run_in_threadpool(jobs.find, job.id)
        # A part at a time: a long story is told to its end all the same.
        while events := await run_in_threadpool(jobs.story, job, after=after):
            for event in events:
                after, told = event.number, time.monotonic()
                yield _framed(event)
        if now.has_ended:
            yield f"event: ended\ndata: {json.dumps({'state': now.state, 'error': now.error})}\n\n"
            return
        if time.monotonic() - told > _HEARTBEAT:
            told = time.monotonic()
            yield ": still there\n\n"
        await asyncio.sleep(_LOOK)


def _framed(event: JobEvent) -> str:
    content = {"time": event.time, **event.event}
    return f"id: {event.number}\nevent: {event.event['event']}\ndata: {json.dumps(content)}\n\n"
