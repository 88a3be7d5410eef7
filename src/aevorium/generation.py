"""The use case of generating: a table from the newest checkpoint of a workspace."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aevorium.diffusion.device import DeviceName, find_device
from aevorium.errors import ConfigError
from aevorium.governance.chain import AuditChain
from aevorium.governance.secrets import Secrets
from aevorium.progress import Report, StepProgress, ignore
from aevorium.schema.condition import parse_condition
from aevorium.schema.output import check_output_path, write_table
from aevorium.server.record import load_study
from aevorium.server.search import balance_of
from aevorium.server.synthesis import SAMPLER, STEPS, open_synthesis
from aevorium.workspace import Workspace

__all__ = ["GenerationResult", "choice_of", "generate_table"]

_ACTION = "table_generated"


@dataclass(frozen=True)
class GenerationResult:
    """A generated table.

    Attributes:
        path: Where it is.
        rows: How many rows it has.
        drawn: How many rows were drawn for them.
        rejected: How many of the drawn rows a constraint turned away.
        where: The condition that each row meets; None if every row was welcome.
        balance: The column of whose categories there are equal numbers of rows, or None.
        sha256: Hash (hex) of the file.
        seconds: How long it took.
        is_simulated: Whether the model was trained on simulated patients.
        is_private: Whether the run had a finite ε.
        is_finished: Whether the run reached its end; otherwise the model is that of its last round.
    """

    path: Path
    rows: int
    drawn: int
    rejected: int
    where: str | None
    balance: str | None
    sha256: str
    seconds: float
    is_simulated: bool
    is_private: bool
    is_finished: bool


def _write(path: Path, chain: AuditChain) -> None:
    chain.write_view(path)


def generate_table(
    *,
    workspace: Workspace,
    secrets: Secrets,
    output: Path,
    rows: int | None = None,
    where: str | None = None,
    balance: str | None = None,
    seed: int = 0,
    sampler: Literal["ddim", "ddpm"] = SAMPLER,
    steps: int = STEPS,
    device: DeviceName = "auto",
    report: Report = ignore,
    publish: Callable[[Path, AuditChain], None] = _write,
) -> GenerationResult:
    """Generates a table from the newest checkpoint of a workspace.

    Args:
        workspace: The workspace of a run.
        secrets: Decrypt its checkpoints, and sign its audit log.
        output: Where the table goes: .csv or .parquet.
        rows: How many rows; None makes as many as the noisy total says.
        where: A condition that each row is to meet, in the language of constraints. Rows are drawn until so many meet
            it: they are a sample of the plain table given the condition, and no longer of the population.
        balance: A categorical column; equal numbers of rows have each of its categories (the first take one more where
            the number does not divide), and none has it missing. No sample of the population either.
        seed: Fixes the rows, on one kind of device.
        sampler: "ddpm" (ancestral) or "ddim" (deterministic).
        steps: Noise levels of the sampler.
        device: Where the rows are drawn; "auto" takes a CUDA device if there is one.
        report: Takes the progress.
        publish: Renews the file of the audit log, for one who makes many tables; written at once unless given.

    Raises:
        ArtefactError: No checkpoint, or one that cannot be used.
        SchemaError: EXPRESSION_INVALID, if the condition cannot be parsed or no row of the schema can meet it.
        UserError: CONSTRAINT_UNSATISFIABLE or CONDITION_UNSATISFIABLE, if the model makes next to no such row. No file
            is left then, and one that was there stays as it was.
        ConfigError: The output cannot be written, the column cannot be balanced, or DEVICE_NOT_FOUND.
    """
    started = time.monotonic()
    check_output_path(output)
    place = find_device(device)
    record, schema = load_study(workspace)
    count = max(1, round(record.total or 1)) if rows is None else rows
    if count < 1:
        raise ConfigError("CONFIG_INVALID", f"rows = {count!r} is not possible. It must be at least 1.")
    condition = None if where is None else parse_condition(where, schema)
    kinds = None if balance is None else balance_of(balance, schema, condition=condition)
    chain = AuditChain(workspace.database, key=secrets.log)
    chain.require_key()
    synthesis = open_synthesis(
        workspace,
        schema=schema,
        run_id=record.run_id,
        cipher=secrets.keys.load(),
        seed=seed,
        sampler=sampler,
        steps=steps,
        device=place,
    )

    def advance(done: int) -> None:
        searched = "" if where is None and balance is None else f", {synthesis.drawn:,} drawn"
        report(StepProgress(f"generating rows{searched}", done, count))

    frames = synthesis.frames(count, advance=advance, condition=condition, balance=kinds)
    written = write_table(frames, output, schema)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    chain.append(
        actor=record.server,
        action=_ACTION,
        detail={
            "run_id": record.run_id,
            "file": output.name,
            "rows": written,
            "drawn": synthesis.drawn,
            "where": where,
            "balance": balance,
            "seed": seed,
            "sha256": digest,
        },
    )
    publish(workspace.audit_log, chain)
    return GenerationResult(
        path=output,
        rows=written,
        drawn=synthesis.drawn,
        rejected=synthesis.rejected,
        where=where,
        balance=balance,
        sha256=digest,
        seconds=time.monotonic() - started,
        is_simulated=record.is_simulated_data,
        is_private=record.plan.is_private,
        is_finished=record.status == "finished",
    )


def choice_of(table: Path, *, workspace: Workspace) -> str | None:
    """How the rows of a table were chosen, as the workspace's audit log tells; None for a sample or another's table.

    Args:
        table: A generated table; it is known by its content.
        workspace: Where it was generated.
    """
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    for entry in reversed(AuditChain(workspace.database).entries_of([_ACTION])):
        where, balance = entry.detail.get("where"), entry.detail.get("balance")
        if entry.detail.get("sha256") == digest:
            told = [f'--where "{where}"'] if where is not None else []
            told += [f"--balance {balance}"] if balance is not None else []
            return " ".join(told) or None
    return None
