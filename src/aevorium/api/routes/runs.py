"""Runs: ordered, watched, stopped, and what came of them."""

from __future__ import annotations

import json
import threading
from itertools import islice
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from aevorium.api.access import Principal
from aevorium.api.job_views import IdempotencyKey, JobId, JobView, LastEventId, job_fields, stream
from aevorium.api.legacy import succeeded_by
from aevorium.api.pages import Action, After, AuditPage, Cursor, Entries, Limit, audit_page, next_cursor
from aevorium.api.served_file import ServedFile
from aevorium.api.services import REPORT_HEADERS, Services
from aevorium.errors import ArtefactError
from aevorium.governance.chain import AuditChain, plain
from aevorium.jobs.folders import RunFolder
from aevorium.jobs.ordering import prepare_run, submit_run
from aevorium.jobs.orders import Choices, RunOrder
from aevorium.state.jobs import Job

__all__ = ["router"]


class NewRun(BaseModel):
    """A run to be ordered."""

    model_config = ConfigDict(extra="forbid")

    study: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{16}$",
        description="The study that it is a run of; then nothing else is given.",
    )
    schema_text: str | None = Field(
        default=None,
        max_length=500_000,
        description="Instead of a study: a schema as TOML; absent: the bundled schema of Synthea exports.",
    )
    choices: Choices = Choices()


class RunView(JobView):
    """A run."""

    study: str | None = Field(default=None, description="The study that it is a run of.")
    epsilon: float | str | None = Field(description="Its target ε.")
    choices: Choices
    has_results: bool = Field(description="Whether there is a model, be it that of a run that did not finish.")
    result: dict[str, Any] | None = Field(default=None, description="What it cost, once it has ended well.")


class RunPage(BaseModel):
    """Runs, newest first."""

    runs: list[RunView]
    next: int | None = Field(description="`before` of the next page; null at the end.")


class ModelView(BaseModel):
    """A model: what was trained, on how much, at which cost. Released numbers alone."""

    id: str = Field(description="That of its run.")
    study: str = Field(description="Name of the study's table.")
    schema_hash: str
    columns: list[str]
    target: str | None
    recipe: str
    trust: str
    purpose: str
    epsilon: float | str
    delta: float
    status: str
    started_at: str
    finished_at: str | None
    is_simulated: bool = Field(description="Whether every patient was made by a generator.")
    patients: float | None = Field(description="Their number, from noisy counts.")
    nodes: list[dict[str, Any]] = Field(description="What each node said at the end: noisy number, spend, limit.")
    checkpoints: list[int] = Field(description="Rounds with a checkpoint; 0 is a run without rounds.")
    parameters: dict[str, Any] | None = Field(description="Size and shape of the network.")
    versions: dict[str, str] = Field(description="Software that took part.")


class ModelPage(BaseModel):
    """Models, newest first."""

    models: list[ModelView]
    next: int | None = Field(description="`before` of the next page; null at the end.")


def router(services: Services) -> APIRouter:
    """The operations on runs."""
    routes = APIRouter(tags=["runs"])
    reads = Depends(services.access.require("read"))
    audits = Depends(services.access.require("audit"))
    orders = Depends(services.access.require("run"))
    ordering = threading.Lock()

    def order(wanted: NewRun, actor: Principal, key: str | None, response: Response) -> RunView:
        text, choices = wanted.schema_text, wanted.choices
        if wanted.study is not None:
            study = services.studies.find(wanted.study)
            text, choices = study.schema_text, Choices.model_validate(study.choices)
        prepared = prepare_run(text, choices, study=wanted.study, settings=services.settings, nodes=services.nodes)
        # One at a time: two orders that fit the planning limit one by one may not fit it together.
        with ordering:
            job = submit_run(
                prepared, jobs=services.jobs, chain=services.log.chain, actor=actor.name, idempotency_key=key
            )
        services.log.publish()
        response.headers["Location"] = f"/v1/runs/{job.id}"
        return _view(services, job)

    @routes.post("/v1/runs", status_code=202)
    def create(
        wanted: NewRun, response: Response, actor: Principal = orders, idempotency_key: IdempotencyKey = None
    ) -> RunView:
        """Orders a run. It waits its turn; Location says where to watch it."""
        return order(wanted, actor, idempotency_key, response)

    @routes.post("/train", status_code=202, deprecated=True, dependencies=[succeeded_by("/v1/runs")])
    def train(
        response: Response,
        wanted: Choices | None = None,
        actor: Principal = orders,
        idempotency_key: IdempotencyKey = None,
    ) -> RunView:
        """The same for the bundled schema, in the words of the first specification."""
        return order(NewRun(choices=wanted or Choices()), actor, idempotency_key, response)

    @routes.get("/v1/runs")
    def listed(_: Principal = reads, before: Cursor = None, limit: Limit = 50) -> RunPage:
        """Every run that was ordered, newest first."""
        found = services.jobs.page(kind="train", before=before, limit=limit + 1)
        following = next_cursor([job.number for job in found], limit=limit)
        return RunPage(runs=[_view(services, job) for job in found[:limit]], next=following)

    @routes.get("/v1/runs/{job_id}")
    def shown(job_id: JobId, _: Principal = reads) -> RunView:
        """One run."""
        return _view(services, services.jobs.find(job_id, kind="train"))

    @routes.get("/v1/runs/{job_id}/events", response_class=StreamingResponse)
    def events(job_id: JobId, _: Principal = reads, after: LastEventId = 0) -> StreamingResponse:
        """Its story as server-sent events: phases, rounds with their charged loss and ε, its end."""
        return stream(services.jobs, services.jobs.find(job_id, kind="train"), after=after)

    @routes.post("/v1/runs/{job_id}/stop", status_code=202)
    def stop(job_id: JobId, actor: Principal = orders) -> RunView:
        """Asks it to stop. What nodes have released stays charged."""
        services.jobs.find(job_id, kind="train")
        job = services.jobs.request_stop(job_id)
        services.log.note(actor.name, "run_stop_asked", {"job": job.id, "state": job.state})
        return _view(services, job)

    @routes.get("/v1/runs/{job_id}/statement")
    def statement(job_id: JobId, _: Principal = reads) -> dict[str, Any]:
        """Its privacy statement."""
        return _json(_results(services, job_id), "privacy_statement.json")

    @routes.get("/v1/runs/{job_id}/report")
    def report(job_id: JobId, _: Principal = reads) -> dict[str, Any]:
        """Its own report: charged numbers alone."""
        return _json(_results(services, job_id), "report.json")

    @routes.get("/v1/runs/{job_id}/report.html", response_class=ServedFile)
    def report_page(job_id: JobId, _: Principal = reads) -> ServedFile:
        """The same for people."""
        path = _results(services, job_id).workspace.report_html
        if not path.is_file():
            raise _absent("report")
        return ServedFile(path, media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)

    @routes.get("/v1/runs/{job_id}/audit")
    def log(
        job_id: JobId, _: Principal = audits, after: After = 0, limit: Entries = 100, action: Action = None
    ) -> AuditPage:
        """Its own audit log, oldest entry first."""
        chain = AuditChain(_results(services, job_id).workspace.database)
        return audit_page(chain, after=after, limit=limit, action=action)

    @routes.get("/v1/models")
    def models(_: Principal = reads, before: Cursor = None, limit: Limit = 50) -> ModelPage:
        """Every model that rows can be drawn from, newest first."""
        # Counted from the oldest on, so that a newer one changes no number.
        runs = services.folders.all()
        numbered = zip(range(len(runs), 0, -1), runs, strict=True)
        older = ((number, run) for number, run in numbered if before is None or number < before)
        found = list(islice((each for each in older if each[1].workspace.checkpoints()), limit + 1))
        following = next_cursor([number for number, _ in found], limit=limit)
        return ModelPage(models=[_model(run) for _, run in found[:limit]], next=following)

    @routes.get("/v1/models/{job_id}")
    def model(job_id: JobId, _: Principal = reads) -> ModelView:
        """One model."""
        return _model(_results(services, job_id))

    return routes


def _results(services: Services, run_id: str) -> RunFolder:
    """The results of a run; raises ArtefactError (RUN_WITHOUT_RESULTS, RUN_NOT_FOUND) if there are none."""
    try:
        return services.folders.find(run_id)
    except ArtefactError as error:
        if error.code != "RUN_NOT_FOUND":
            raise
        job = services.jobs.find(run_id, kind="train")
        raise ArtefactError("RUN_WITHOUT_RESULTS", f"The run has no results. Its state is {job.state!r}.") from error


def _view(services: Services, job: Job) -> RunView:
    order = RunOrder.model_validate(job.request)
    return RunView(
        **job_fields(job),
        study=order.study,
        epsilon="Infinity" if order.epsilon is None else order.epsilon,
        choices=order.choices,
        has_results=bool(services.folders.workspace_of(job.id).checkpoints()),
        result=None if job.result is None else dict(job.result),
    )


def _model(run: RunFolder) -> ModelView:
    record, plan = run.record, run.record.plan
    return ModelView(
        id=record.run_id,
        study=plan.study,
        schema_hash=plan.schema_hash,
        columns=list(run.schema.columns),
        target=run.schema.target,
        recipe=plan.recipe,
        trust=plan.trust,
        purpose=plan.purpose,
        epsilon=plain(plan.epsilon),
        delta=plan.delta,
        status=record.status,
        started_at=record.started_at,
        finished_at=record.finished_at,
        is_simulated=record.is_simulated_data,
        patients=record.total,
        nodes=[plain(node.model_dump(mode="json")) for node in record.nodes],
        checkpoints=list(run.workspace.checkpoints()),
        parameters=None if record.model is None else record.model.model_dump(mode="json"),
        versions=record.versions,
    )


def _json(run: RunFolder, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((run.workspace.root / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _absent(name) from error
    return content


def _absent(name: str) -> ArtefactError:
    return ArtefactError("RUN_WITHOUT_RESULTS", f"The run has no {name}. It did not reach its end.")
