"""Studies, which runs are made of, and plans: what a run would cost, before any record is read."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from aevorium.api.access import Principal
from aevorium.api.pages import Cursor, Limit, next_cursor
from aevorium.api.services import Services
from aevorium.governance.chain import plain
from aevorium.jobs.orders import Choices, schema_of
from aevorium.planning import node_names, plan_cost, plan_study, plan_views
from aevorium.state.studies import Study

__all__ = ["router"]

_SCHEMA = Field(
    default=None,
    max_length=500_000,
    description="The schema as TOML (docs/SCHEMA.md); absent: the bundled schema of Synthea exports.",
)


class NewStudy(BaseModel):
    """A study to be registered."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w .,@+-]+$", description="What people call it.")
    schema_text: str | None = _SCHEMA
    choices: Choices = Choices()


class StudyView(BaseModel):
    """A study. It never changes: another schema or target is another study."""

    id: str
    name: str
    actor: str = Field(description="Who registered it.")
    created_at: str
    schema_text: str
    schema_hash: str = Field(description="Content hash, which nodes' policies may name.")
    choices: Choices


class StudyPage(BaseModel):
    """Studies, newest first."""

    studies: list[StudyView]
    next: int | None = Field(description="`before` of the next page; null at the end.")


class NewPlan(BaseModel):
    """What is to be planned."""

    model_config = ConfigDict(extra="forbid")

    schema_text: str | None = _SCHEMA
    choices: Choices = Choices()
    records: int = Field(ge=1, le=10**9, description="Records of all nodes, as declared.")
    nodes: int = Field(ge=1, le=1000, description="How many nodes.")


class PhaseView(BaseModel):
    """What one phase costs by itself."""

    phase: str
    mechanism: str
    parameters: str
    epsilon: float | str = Field(description="Of this phase alone; together they cost less than the sum.")


class ViewerView(BaseModel):
    """Who sees what, at which ε."""

    viewer: str
    epsilon: float | str
    reason: str


class PlanView(BaseModel):
    """What a run would cost. No record was read for it."""

    epsilon: float | str
    delta: float
    nodes: int
    records: int
    has_private_training: bool
    phases: list[PhaseView]
    views: list[ViewerView]
    plan: dict[str, Any]


def router(services: Services) -> APIRouter:
    """The operations on studies and plans."""
    routes = APIRouter(prefix="/v1", tags=["studies"])
    reads = Depends(services.access.require("read"))
    orders = Depends(services.access.require("run"))

    @routes.post("/studies", status_code=201)
    def register(wanted: NewStudy, response: Response, actor: Principal = orders) -> StudyView:
        """Registers a study."""
        schema, text = schema_of(wanted.schema_text)
        # What can never be planned is refused now, and not when somebody orders a run.
        plan_study(schema, node_names(3), wanted.choices.options(services.settings))
        study = services.studies.add(
            name=wanted.name,
            actor=actor.name,
            schema_text=text,
            schema_hash=schema.content_hash,
            choices=wanted.choices.model_dump(mode="json", exclude_defaults=True),
            note=lambda made: services.log.note(
                actor.name, "study_registered", {"study": made.id, "schema": made.schema_hash}
            ),
        )
        response.headers["Location"] = f"/v1/studies/{study.id}"
        return _view(study)

    @routes.get("/studies")
    def listed(_: Principal = reads, before: Cursor = None, limit: Limit = 50) -> StudyPage:
        """Every study, newest first."""
        found = services.studies.page(before=before, limit=limit + 1)
        following = next_cursor([study.number for study in found], limit=limit)
        return StudyPage(studies=[_view(study) for study in found[:limit]], next=following)

    @routes.get("/studies/{study_id}")
    def shown(study_id: Annotated[str, InPath(pattern=r"^[0-9a-f]{16}$")], _: Principal = reads) -> StudyView:
        """One study."""
        return _view(services.studies.find(study_id))

    @routes.post("/plans")
    def planned(wanted: NewPlan, _: Principal = reads) -> PlanView:
        """What a run would cost, phase by phase. Nothing is kept, and no record is read."""
        schema, _text = schema_of(wanted.schema_text)
        options = wanted.choices.model_copy(update={"records": wanted.records}).options(services.settings)
        plan = plan_study(schema, node_names(wanted.nodes), options)
        size = plan.declared_size or wanted.records / wanted.nodes
        costs = plan_cost(plan, size=size)
        return PlanView(
            epsilon=plain(plan.epsilon),
            delta=plan.delta,
            nodes=wanted.nodes,
            records=wanted.records,
            has_private_training=any(cost.phase.startswith("training") for cost in costs),
            phases=[
                PhaseView(
                    phase=cost.phase,
                    mechanism=cost.mechanism,
                    parameters=cost.parameters,
                    epsilon=plain(cost.epsilon),
                )
                for cost in costs
            ],
            views=[
                ViewerView(viewer=view.viewer, epsilon=plain(view.epsilon), reason=view.reason)
                for view in plan_views(plan, size=size)
            ],
            plan=plan.model_dump(mode="json"),
        )

    return routes


def _view(study: Study) -> StudyView:
    fields = {name: value for name, value in vars(study).items() if name != "number"}
    return StudyView.model_validate(fields)
