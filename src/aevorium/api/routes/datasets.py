"""Tables of synthetic rows: ordered, looked at, downloaded with checksum and data card."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow.parquet
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field

from aevorium.api.access import Principal
from aevorium.api.job_views import IdempotencyKey, JobId, JobView, LastEventId, job_fields, stream
from aevorium.api.legacy import succeeded_by
from aevorium.api.pages import Cursor, Limit, next_cursor
from aevorium.api.served_file import ServedFile
from aevorium.api.services import Services
from aevorium.errors import AevoriumError, ArtefactError
from aevorium.jobs.cards import DataCard, data_card
from aevorium.jobs.orders import TableOrder
from aevorium.schema.condition import parse_condition
from aevorium.server.search import balance_of
from aevorium.state.jobs import Job

__all__ = ["router"]

_PREVIEWS = 64
"""So many are remembered: a table's file is written once, and its first rows are what people look at."""

_MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


class DatasetView(JobView):
    """A table."""

    order: TableOrder
    rows: int | None = Field(default=None, description="How many it has, once it is made.")
    bytes: int | None = None
    sha256: str | None = None
    result: dict[str, Any] | None = Field(default=None, description="How it was made.")


class DatasetPage(BaseModel):
    """Tables, newest first."""

    datasets: list[DatasetView]
    next: int | None = Field(description="`before` of the next page; null at the end.")


class Preview(BaseModel):
    """The first rows of a table."""

    columns: list[str]
    rows: list[list[str | float | int | bool | None]]


def router(services: Services) -> APIRouter:
    """The operations on tables."""
    routes = APIRouter(tags=["datasets"])
    reads = Depends(services.access.require("read"))
    orders = Depends(services.access.require("generate"))

    def order(wanted: TableOrder, actor: Principal, key: str | None, response: Response) -> DatasetView:
        # Which run is the newest is settled now, for a table that is made again too; the same words with the same key
        # are the same order, whichever run has become the newest since.
        settled = _checked(services, wanted)

        def note(made: Job) -> None:
            detail = {"job": made.id, "run": settled.run, "rows": settled.rows}
            services.log.chain.append(actor=actor.name, action="dataset_ordered", detail=detail)

        job, _ = services.jobs.submit(
            "generate",
            settled.model_dump(mode="json"),
            actor=actor.name,
            idempotency_key=key,
            asked=wanted.model_dump(mode="json"),
            note=note,
        )
        services.log.publish()
        response.headers["Location"] = f"/v1/datasets/{job.id}"
        return _view(job)

    @routes.post("/v1/datasets", status_code=202)
    def create(
        wanted: TableOrder, response: Response, actor: Principal = orders, idempotency_key: IdempotencyKey = None
    ) -> DatasetView:
        """Orders a table; Location says where to watch it."""
        return order(wanted, actor, idempotency_key, response)

    @routes.post("/generate", status_code=202, deprecated=True, dependencies=[succeeded_by("/v1/datasets")])
    def generate(
        response: Response,
        wanted: TableOrder | None = None,
        actor: Principal = orders,
        idempotency_key: IdempotencyKey = None,
    ) -> DatasetView:
        """The same, in the words of the first specification."""
        return order(wanted or TableOrder(), actor, idempotency_key, response)

    @routes.get("/v1/datasets")
    def listed(_: Principal = reads, before: Cursor = None, limit: Limit = 50) -> DatasetPage:
        """Every table that was ordered, newest first."""
        found = services.jobs.page(kind="generate", before=before, limit=limit + 1)
        following = next_cursor([job.number for job in found], limit=limit)
        return DatasetPage(datasets=[_view(job) for job in found[:limit]], next=following)

    @routes.get("/v1/datasets/{job_id}")
    def shown(job_id: JobId, _: Principal = reads) -> DatasetView:
        """One table."""
        return _view(services.jobs.find(job_id, kind="generate"))

    @routes.get("/v1/datasets/{job_id}/events", response_class=StreamingResponse)
    def events(job_id: JobId, _: Principal = reads, after: LastEventId = 0) -> StreamingResponse:
        """Its story as server-sent events."""
        return stream(services.jobs, services.jobs.find(job_id, kind="generate"), after=after)

    @routes.post("/v1/datasets/{job_id}/stop", status_code=202)
    def stop(job_id: JobId, actor: Principal = orders) -> DatasetView:
        """Asks it to stop. No file is left then."""
        services.jobs.find(job_id, kind="generate")
        job = services.jobs.request_stop(job_id)
        services.log.note(actor.name, "dataset_stop_asked", {"job": job.id, "state": job.state})
        return _view(job)

    @routes.get("/v1/datasets/{job_id}/preview")
    def preview(
        job_id: JobId, _: Principal = reads, rows: Annotated[int, Query(ge=1, le=100, description="How many.")] = 20
    ) -> Preview:
        """Its first rows: a look, of which the audit log has no entry. Whoever wants more downloads the file."""
        path, job = _file(services, job_id)
        found = path.stat()
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        return _preview(path, state, rows, sha256=(job.result or {})["sha256"])

    @routes.get("/v1/datasets/{job_id}/download", response_class=ServedFile)
    def download(job_id: JobId, actor: Principal = reads) -> ServedFile:
        """The file itself, with its SHA-256 in `Repr-Digest` (RFC 9530)."""
        path, job = _file(services, job_id)
        result = job.result or {}
        _require_unchanged(path, sha256=result["sha256"])
        services.log.note(actor.name, "dataset_downloaded", {"job": job.id, "sha256": result["sha256"]})
        digest = base64.b64encode(bytes.fromhex(result["sha256"])).decode()
        order = TableOrder.model_validate(job.request)
        return ServedFile(
            path,
            media_type=_MEDIA[order.format],
            filename=f"synthetic-{job.id}.{order.format}",
            headers={"Repr-Digest": f"sha-256=:{digest}:"},
        )

    @routes.get("/v1/datasets/{job_id}/card")
    def card(job_id: JobId, _: Principal = reads) -> DataCard:
        """Its data card."""
        return _card(services, job_id)

    @routes.get("/v1/datasets/{job_id}/card.md", response_class=PlainTextResponse)
    def card_page(job_id: JobId, _: Principal = reads) -> PlainTextResponse:
        """The same for people, as Markdown."""
        return PlainTextResponse(_card(services, job_id).to_markdown(), media_type="text/markdown; charset=utf-8")

    return routes


def _checked(services: Services, wanted: TableOrder) -> TableOrder:
    """The order with its run named, if its condition and column are possible at all.

    Raises:
        ArtefactError: RUN_NOT_FOUND, ARTEFACT_NOT_FOUND.
        SchemaError: EXPRESSION_INVALID.
        ConfigError: CONFIG_INVALID.
    """
    run = services.folders.find(wanted.run)
    run.workspace.newest_checkpoint()
    condition = None if wanted.where is None else parse_condition(wanted.where, run.schema)
    if wanted.balance is not None:
        balance_of(wanted.balance, run.schema, condition=condition)
    return wanted.model_copy(update={"run": run.record.run_id})


def _view(job: Job) -> DatasetView:
    result = None if job.result is None else dict(job.result)
    made = result or {}
    return DatasetView(
        **job_fields(job),
        order=TableOrder.model_validate(job.request),
        rows=made.get("rows"),
        bytes=made.get("bytes"),
        sha256=made.get("sha256"),
        result=result,
    )


def _file(services: Services, job_id: str) -> tuple[Path, Job]:
    """The file of a table that is made; raises ArtefactError (JOB_NOT_FOUND, DATASET_NOT_READY, ARTEFACT_NOT_FOUND)."""
    job = services.jobs.find(job_id, kind="generate")
    if job.state != "succeeded":
        raise ArtefactError("DATASET_NOT_READY", f"The table cannot be had. Its state is {job.state!r}.")
    path = services.folders.dataset(job.id, kind=TableOrder.model_validate(job.request).format)
    if not path.is_file():
        raise ArtefactError("ARTEFACT_NOT_FOUND", "The table's file is gone.", hint="Order it again.")
    return path, job


@lru_cache(maxsize=_PREVIEWS)
def _preview(path: Path, state: tuple[int, ...], rows: int, *, sha256: str) -> Preview:
    _require_unchanged(path, sha256=sha256)
    frame = _head(path, rows)
    cells = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return Preview(columns=list(frame.columns), rows=cells)


def _head(path: Path, rows: int) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path, nrows=rows, keep_default_na=False, na_values=[""])
    with pyarrow.parquet.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=rows), None)
        return file.schema_arrow.empty_table().to_pandas() if batch is None else batch.to_pandas()


def _require_unchanged(path: Path, *, sha256: str) -> None:
    """Passes if a file is the one that was made; raises AevoriumError (DATASET_DAMAGED) if not."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise AevoriumError("DATASET_DAMAGED", "The table is not served. Its file was changed since it was made.")


def _card(services: Services, job_id: str) -> DataCard:
    path, job = _file(services, job_id)
    result = job.result or {}
    return data_card(
        job.id,
        order=TableOrder.model_validate(job.request),
        result=result,
        made_at=job.ended_at or "",
        file=path.name,
        run=services.folders.find(result["run"]),
    )
