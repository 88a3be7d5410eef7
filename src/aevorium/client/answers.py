"""What the API answers, as far as a client reads it. Fields of a newer server are passed over.

A test compares every model with the API's own OpenAPI document.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = [
    "AuditEntry",
    "AuditPage",
    "BudgetPage",
    "CheckFinding",
    "DataCard",
    "DatasetPage",
    "DatasetView",
    "Health",
    "JobError",
    "KeyPage",
    "KeyView",
    "MadeKey",
    "MeView",
    "ModelPage",
    "ModelView",
    "NodePage",
    "NodeSpending",
    "NodeView",
    "PeriodSpending",
    "PhaseView",
    "PlanView",
    "Planning",
    "Preview",
    "PurposeSpending",
    "RunPage",
    "RunView",
    "SpendingPage",
    "StudyPage",
    "StudyView",
    "Verification",
    "ViewerView",
]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Health(_Answer):
    """Whether the API works."""

    status: str
    version: str
    has_run: bool


class MeView(_Answer):
    """Who asks."""

    name: str
    permissions: list[str]


class JobError(_Answer):
    """Why an order failed."""

    code: str
    message: str
    hint: str


class _Job(_Answer):
    id: str
    state: str
    actor: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    is_stop_requested: bool
    error: JobError | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.ended_at is not None


class RunView(_Job):
    """A run."""

    study: str | None
    epsilon: float | str | None
    choices: dict[str, Any]
    has_results: bool
    result: dict[str, Any] | None


class RunPage(_Answer):
    """Runs, newest first."""

    runs: list[RunView]
    next: int | None


class ModelView(_Answer):
    """A model."""

    id: str
    study: str
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
    is_simulated: bool
    patients: float | None
    nodes: list[dict[str, Any]]
    checkpoints: list[int]
    parameters: dict[str, Any] | None
    versions: dict[str, str]


class ModelPage(_Answer):
    """Models, newest first."""

    models: list[ModelView]
    next: int | None


class DatasetView(_Job):
    """A table."""

    order: dict[str, Any]
    rows: int | None
    bytes: int | None
    sha256: str | None
    result: dict[str, Any] | None


class DatasetPage(_Answer):
    """Tables, newest first."""

    datasets: list[DatasetView]
    next: int | None


class Preview(_Answer):
    """The first rows of a table."""

    columns: list[str]
    rows: list[list[Any]]


class DataCard(_Answer):
    """What a person must know of a table before using it."""

    id: str
    file: str
    sha256: str
    bytes: int
    rows: int
    made_at: str
    made_with: str
    unit: str
    columns: list[dict[str, Any]]
    target: str | None
    run: str
    study: str
    schema_hash: str
    epsilon: float | str
    delta: float
    trust: str
    nodes: list[str]
    where: str | None
    balance: str | None
    seed: int
    cautions: list[str]


class StudyView(_Answer):
    """A study."""

    id: str
    name: str
    actor: str
    created_at: str
    schema_text: str
    schema_hash: str
    choices: dict[str, Any]


class StudyPage(_Answer):
    """Studies, newest first."""

    studies: list[StudyView]
    next: int | None


class PhaseView(_Answer):
    """What one phase costs by itself."""

    phase: str
    mechanism: str
    parameters: str
    epsilon: float | str


class ViewerView(_Answer):
    """Who sees what, at which ε."""

    viewer: str
    epsilon: float | str
    reason: str


class PlanView(_Answer):
    """What a run would cost."""

    epsilon: float | str
    delta: float
    nodes: int
    records: int
    has_private_training: bool
    phases: list[PhaseView]
    views: list[ViewerView]
    plan: dict[str, Any]


class Planning(_Answer):
    """The open planning period."""

    period: str
    limit: float | None
    ordered: float | str
    opened_at: str | None
    note: str


class BudgetPage(_Answer):
    """What the nodes of the newest run have spent, and what the server plans."""

    nodes: dict[str, Any]
    planning: Planning


class PurposeSpending(_Answer):
    """What a node spent on one purpose in a period."""

    purpose: str
    epsilon: float | str
    releases: int


class NodeSpending(_Answer):
    """What a node spent in a period."""

    name: str
    runs: int
    spent: float | str
    delta: float
    purposes: list[PurposeSpending]
    untold: float | str
    limit: float | str | None
    left: float | str | None


class PeriodSpending(_Answer):
    """What was spent in a planning period."""

    period: str
    opened_at: str | None
    closed_at: str | None
    limit: float | None
    nodes: list[NodeSpending]


class SpendingPage(_Answer):
    """Spending by period, newest first."""

    periods: list[PeriodSpending]
    composition: str


class NodeView(_Answer):
    """A node."""

    name: str
    kind: str
    last_run: str | None
    last_seen: str | None
    patients: int | None
    spent: float | str | None
    limit: float | str | None
    left: float | str | None
    code_hash: str | None


class NodePage(_Answer):
    """Nodes, by name."""

    nodes: list[NodeView]
    next: int | None


class AuditEntry(_Answer):
    """One entry of an audit log."""

    seq: int
    time: str
    actor: str
    action: str
    detail: dict[str, Any]
    previous: str
    hash: str


class AuditPage(_Answer):
    """A part of an audit log."""

    entries: list[AuditEntry]
    head: str
    next: int | None


class CheckFinding(_Answer):
    """One thing that was checked."""

    subject: str
    is_sound: bool | None
    text: str


class Verification(_Answer):
    """What a verification found."""

    is_sound: bool
    checks: list[CheckFinding]


class KeyView(_Answer):
    """What is known of an API key."""

    id: str
    name: str
    role: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class KeyPage(_Answer):
    """API keys, oldest first."""

    keys: list[KeyView]
    next: int | None


class MadeKey(KeyView):
    """A key that was just made; its secret is shown this once."""

    secret: str
