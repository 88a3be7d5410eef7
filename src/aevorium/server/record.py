"""`StudyRecord`: what a run was and what came of it, as `study.json`. Safe to release."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium import __version__
from aevorium.diffusion.denoiser import DenoiserConfig
from aevorium.errors import ArtefactError
from aevorium.privacy.plan import StudyPlan
from aevorium.schema.table import TableSchema, load_schema
from aevorium.workspace import Workspace, write_atomically

__all__ = ["NodeRecord", "StudyRecord", "load_study", "software_versions"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class NodeRecord(_Record):
    """One node's part in a run. Safe to release."""

    name: str
    count: int | None = Field(default=None, description="Its released noisy number of patients.")
    spent: float = Field(default=0.0, description="ε of what it released in the run, at the plan's δ.")
    limit: float | None = Field(default=None, description="Its limit for the period.")
    left: float | None = Field(default=None, description="What is left of it.")
    code_hash: str | None = Field(default=None, description="SHA-256 of the code that it ran, as it told.")


class StudyRecord(_Record):
    """A run. Safe to release."""

    schema_version: int = 1
    run_id: str
    server: str = Field(description="Identity of the server.")
    plan: StudyPlan
    seed: int = Field(description="Fixes initialisation and generated rows; never the privacy noise.")
    is_simulated_federation: bool = Field(description="Whether nodes and server were one process on one machine.")
    is_simulated_data: bool = Field(default=False, description="Whether all patients are simulated.")
    is_noise_secret: bool = Field(default=True, description="Whether nobody can repeat the noise; false in tests only.")
    status: Literal["running", "finished", "failed"] = "running"
    started_at: str
    finished_at: str | None = None
    total: float | None = Field(default=None, description="Estimated number of patients, from noisy counts.")
    records: float | None = Field(
        default=None, description="Declared or noisy number of patients by which the phases were planned."
    )
    nodes: tuple[NodeRecord, ...] = ()
    model: DenoiserConfig | None = None
    audit_head: str | None = Field(default=None, description="Hash of the server's last audit entry of the run.")
    versions: dict[str, str] = Field(default_factory=dict, description="Software that took part.")

    def write(self, workspace: Workspace) -> None:
        """Writes `study.json`."""
        with write_atomically(workspace.study) as path:
            path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def software_versions() -> dict[str, str]:
    """Versions of what a run depends on."""
    packages = ("flwr", "torch", "opacus", "opendp", "dp-accounting", "numpy")
    found = {"aevorium": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def load_study(workspace: Workspace) -> tuple[StudyRecord, TableSchema]:
    """Reads what a workspace knows of its run.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND if there is no run; CHECKPOINT_DAMAGED if its record cannot be read;
            CHECKPOINT_SCHEMA_MISMATCH if schema and record differ.
    """
    try:
        text = workspace.study.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ArtefactError(
            "ARTEFACT_NOT_FOUND",
            f"No study in {str(workspace.root)!r}. No run was started there.",
            hint="Run 'aevorium run' or 'aevorium demo' first, or give --workspace.",
        ) from error
    try:
        record = StudyRecord.model_validate_json(text)
    except ValidationError as error:
        raise ArtefactError(
            "CHECKPOINT_DAMAGED", f"The record {str(workspace.study)!r} cannot be read. It is not what a run writes."
        ) from error
    schema = load_schema(workspace.schema)
    if schema.content_hash != record.plan.schema_hash:
        raise ArtefactError(
            "CHECKPOINT_SCHEMA_MISMATCH",
            f"The schema {str(workspace.schema)!r} is not the one of the workspace's run. It was changed since.",
        )
    return record, schema
