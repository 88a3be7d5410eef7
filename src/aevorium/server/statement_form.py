"""The form of the privacy statement: its fields, as `privacy_statement.json` has them. Safe to release."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from aevorium.privacy.events import PrivacyEvent
from aevorium.server.attack_terms import AttackTerms

__all__ = [
    "FederationFacts",
    "Hashes",
    "MechanismRow",
    "NodeRow",
    "PrivacyStatement",
    "ViewRow",
]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class ViewRow(_Facts):
    """What holds against somebody who sees a certain part of what is sent."""

    viewer: str = Field(description="Who looks.")
    epsilon: float = Field(description="ε of everything that this viewer sees.")
    delta: float = Field(description="The δ at which it holds.")
    why: str = Field(description="Why.")


class NodeRow(_Facts):
    """One node's spend, from its ledger."""

    name: str = Field(description="The node.")
    released: float = Field(description="ε of what it released in the run, at the plan's δ; the claim is above it.")
    limit: float | None = Field(description="Its limit for the period; null if it did not say.")
    left: float | None = Field(description="What was left of it when the run ended.")


class FederationFacts(_Facts):
    """The nodes together: their patients are different people, so that the largest ε counts and not the sum."""

    epsilon: float = Field(description="The claim: the largest of the nodes'.")
    released: float = Field(description="The largest of what the nodes released.")
    rule: str = Field(description="How the nodes' ε make the federation's.")


class MechanismRow(_Facts):
    """One mechanism and the nodes at which it ran with the same parameters."""

    phase: str = Field(description="The phase.")
    nodes: tuple[str, ...] = Field(description="The nodes.")
    mechanism: str = Field(description="Its name.")
    parameters: str = Field(description="Its parameters, for people.")
    event: PrivacyEvent = Field(description="What is charged for it each time.")
    times: int = Field(ge=1, description="How often it was planned.")


class Hashes(_Facts):
    """What the statement is about, by content."""

    schema_: str = Field(alias="schema", description="Content hash of the schema.")
    plan: str = Field(description="Content hash of the plan.")
    code: dict[str, str] = Field(description="SHA-256 of the code that each node ran, as it told.")
    audit_head: str | None = Field(description="Hash of the server's last audit entry of the run.")


class PrivacyStatement(_Facts):
    """The statement: `privacy_statement.json`. Safe to release."""

    schema_version: int = Field(default=1, description="Version of this format.")
    study: str = Field(description="Name of the schema.")
    run_id: str = Field(description="The run.")
    started_at: str = Field(description="UTC, ISO 8601.")
    finished_at: str | None = Field(description="UTC, ISO 8601.")
    purpose: str = Field(description="What the result is for.")
    recipe: str = Field(description="How the model was trained.")
    trust: str = Field(description="The trust model.")
    is_private: bool = Field(description="Whether there is a claim at all.")
    warnings: tuple[str, ...] = Field(description="What to know first.")
    unit: str = Field(description="Whose participation is protected.")
    adjacency: str = Field(description="Which tables are neighbours.")
    epsilon: float = Field(description="The claim's ε for every node, end to end.")
    delta: float = Field(description="The claim's δ.")
    subject: str = Field(description="What is private.")
    covers: str = Field(description="What the claim covers.")
    views: tuple[ViewRow, ...] = Field(description="Against whom it holds.")
    federation: FederationFacts = Field(description="The nodes together.")
    nodes: tuple[NodeRow, ...] = Field(description="The nodes one by one.")
    attack: AttackTerms | None = Field(description="What an attacker can do at the most; null without privacy.")
    mechanisms: tuple[MechanismRow, ...] = Field(description="What was planned, none of it more often than here.")
    sensitivity: tuple[str, ...] = Field(description="How far one record moves each release.")
    sampling: str = Field(description="How records enter a step of training.")
    composition: str = Field(description="How the ε of releases make that of the run.")
    assumptions: tuple[str, ...] = Field(description="What the claim rests on.")
    uncharged: tuple[str, ...] = Field(description="What is not charged, and why.")
    software: dict[str, str] = Field(description="Versions.")
    hashes: Hashes = Field(description="What the statement is about.")

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"
