"""The tables of the server's database. Times are UTC, ISO 8601, so that they sort as text in every system."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["API_KEYS", "JOBS", "JOB_EVENTS", "METADATA", "STUDIES"]

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", String(40), nullable=False),
    Column("expires_at", String(40)),
    Column("revoked_at", String(40)),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("actor", String(300), nullable=False),
    Column("request", JSON, nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("started_at", String(40)),
    Column("ended_at", String(40)),
    Column("worker", String(64)),
    Column("attempts", Integer, nullable=False),
    Column("is_stop_requested", Boolean, nullable=False),
    Column("result", JSON),
    Column("error", JSON),
    # Of one actor a key names one request for good; keys that nobody gives are absent and never alike.
    Column("idempotency_key", String(200)),
    Column("request_hash", String(64), nullable=False),
    UniqueConstraint("actor", "idempotency_key", name="uq_jobs_idempotency"),
    Index("ix_jobs_state", "state"),
)

JOB_EVENTS = Table(
    "job_events",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job", Integer, ForeignKey("jobs.number", ondelete="CASCADE"), nullable=False),
    Column("time", String(40), nullable=False),
    Column("event", JSON, nullable=False),
    Index("ix_job_events_job", "job", "number"),
)

STUDIES = Table(
    "studies",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("actor", String(300), nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("schema_text", Text, nullable=False),
    Column("schema_hash", String(64), nullable=False),
    Column("choices", JSON, nullable=False),
)
