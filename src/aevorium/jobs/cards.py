"""`DataCard`: what a person must know of a table before using it. Goes with every download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from aevorium import __version__
from aevorium.governance.chain import plain
from aevorium.jobs.folders import RunFolder
from aevorium.jobs.orders import TableOrder
from aevorium.schema.table import Continuous
from aevorium.server.statement import cautions

__all__ = ["ColumnCard", "DataCard", "data_card"]


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnCard(_Card):
    """One column."""

    name: str
    kind: str
    values: str = Field(description="Its range, or its categories.")
    can_be_missing: bool
    is_derived: bool = Field(description="Whether it is computed from the others by a declared rule.")


class DataCard(_Card):
    """A table of synthetic rows: what it is, where it comes from, what it is not."""

    id: str
    file: str
    sha256: str
    bytes: int
    rows: int
    made_at: str = Field(description="UTC, ISO 8601.")
    made_with: str
    unit: str = Field(description="What is protected.")
    columns: list[ColumnCard]
    target: str | None
    run: str = Field(description="Id of the run whose model made the rows.")
    study: str
    schema_hash: str
    epsilon: float | str = Field(description="Privacy of the real records, end to end; whatever is drawn adds nothing.")
    delta: float
    trust: str
    nodes: list[str]
    where: str | None
    balance: str | None
    seed: int
    cautions: list[str] = Field(description="What a reader should know first.")

    def to_markdown(self) -> str:
        """The same for people."""
        lines = [f"# Synthetic table {self.id}", ""]
        lines += [f"> {caution}\n" for caution in self.cautions]
        facts = {
            "File": f"`{self.file}`, {self.rows:,} rows, {self.bytes:,} bytes",
            "SHA-256": f"`{self.sha256}`",
            "Made": f"{self.made_at} with {self.made_with}, seed {self.seed}",
            "Study": f"{self.study}, run `{self.run}`, schema `{self.schema_hash[:16]}…`",
            "Privacy": f"ε = {self.epsilon}, δ = {self.delta:g} for one {self.unit}, trust: {self.trust}",
            "Nodes": ", ".join(self.nodes),
            "Target": self.target or "none",
            "Condition": f"`{self.where}`" if self.where else "none",
            "Balanced by": self.balance or "nothing",
        }
        lines += ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in facts.items()), ""]
        lines += ["## Columns", "", "| column | kind | values | empty cells | derived |", "|---|---|---|---|---|"]
        lines += [
            f"| {_cell(column.name)} | {column.kind} | {_cell(column.values)} | {_yes(column.can_be_missing)} |"
            f" {_yes(column.is_derived)} |"
            for column in self.columns
        ]
        return "\n".join(lines) + "\n"


def data_card(
    table_id: str, *, order: TableOrder, result: Mapping[str, Any], made_at: str, file: str, run: RunFolder
) -> DataCard:
    """The card of a table.

    Args:
        table_id: Its id.
        order: What was ordered.
        result: What came of it, as the worker wrote it down.
        made_at: When it was made.
        file: Name of its file.
        run: The run whose model made it.
    """
    plan = run.record.plan
    return DataCard(
        id=table_id,
        file=file,
        sha256=result["sha256"],
        bytes=result["bytes"],
        rows=result["rows"],
        made_at=made_at,
        made_with=f"Aevorium {__version__}",
        unit=run.schema.unit,
        columns=_columns(run),
        target=run.schema.target,
        run=run.record.run_id,
        study=plan.study,
        schema_hash=plan.schema_hash,
        epsilon=plain(plan.epsilon),
        delta=plan.delta,
        trust=plan.trust,
        nodes=list(plan.nodes),
        where=order.where,
        balance=order.balance,
        seed=order.seed,
        cautions=_cautions(order, run),
    )


def _columns(run: RunFolder) -> list[ColumnCard]:
    cards = []
    for name, column in run.schema.columns.items():
        values = f"{column.min:g} to {column.max:g}" if isinstance(column, Continuous) else ", ".join(column.categories)
        cards.append(
            ColumnCard(
                name=name,
                kind=column.kind,
                values=values,
                can_be_missing=column.missing,
                is_derived=column.derived is not None,
            )
        )
    return cards


def _cautions(order: TableOrder, run: RunFolder) -> list[str]:
    told = ["Every row is made by a model. None is a person, and no finding in them is one about a person."]
    if not run.record.plan.is_private:
        told.append("NO PRIVACY: the model was trained with ε = ∞. Its rows may reveal real records.")
    if run.record.is_simulated_data:
        told.append("The model was trained on simulated patients.")
    if run.record.status != "finished":
        told.append("The run did not finish: the rows come from the model of its last round.")
    if order.where is not None or order.balance is not None:
        told.append("The rows were chosen. They are no sample of the population, and shares in them are not its.")
    return [*told, *cautions(run.record)]


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _yes(value: object) -> str:
    return "yes" if value else "no"
