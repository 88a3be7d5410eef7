"""The use case of one run, by whatever carries its messages. No node's code is part of it, and none is loaded here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from flwr.serverapp import Grid, ServerApp

from aevorium.diffusion.device import find_device
from aevorium.errors import AevoriumError
from aevorium.evaluation.comparison import Comparison
from aevorium.federation.protocol import TrainingSettings
from aevorium.governance.secrets import Secrets
from aevorium.planning import RunOptions
from aevorium.privacy.plan import StudyPlan
from aevorium.progress import PhaseStarted, ProgressEvent, Report, RoundFinished
from aevorium.results import write_results
from aevorium.schema.table import TableSchema
from aevorium.server.app import create_server_app
from aevorium.server.journal import Journal
from aevorium.server.record import NodeRecord, StudyRecord, software_versions
from aevorium.server.study import StudyConductor
from aevorium.workspace import Workspace

__all__ = ["SIMULATED", "RunResult", "conduct_run"]

SIMULATED = "local"
"""Identity of the server of a federation in one process."""


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Attributes:
        record: The run as written in `study.json`.
        schema: The study's schema.
        rounds: The rounds in order.
        seconds: How long it took.
        outputs: The files that it left.
        comparison: How its rows compare with the evaluation tables; None if it paid for none.
    """

    record: StudyRecord
    schema: TableSchema
    rounds: tuple[RoundFinished, ...]
    seconds: float
    outputs: tuple[Path, ...]
    comparison: Comparison | None = None

    @property
    def nodes(self) -> tuple[NodeRecord, ...]:
        """What each node spent."""
        return self.record.nodes


def conduct_run(
    carry: Callable[[ServerApp], None],
    *,
    schema: TableSchema,
    schema_text: str,
    plan: StudyPlan,
    workspace: Workspace,
    secrets: Secrets,
    options: RunOptions,
    server: str,
    report: Report,
    should_stop: Callable[[], bool],
    run_id: str | None = None,
) -> RunResult:
    """Conducts one run, by whatever carries its messages, and writes its results.

    Args:
        carry: Runs a ServerApp to its end.
        schema: The study's schema.
        schema_text: The same as TOML, kept in the workspace.
        plan: The plan.
        workspace: Where the results go.
        secrets: Encrypt the checkpoints, and sign the audit log.
        options: Seed, time-out and what else is not in the plan.
        server: Identity of the server; `SIMULATED` if nodes and server are one process.
        report: Takes the progress.
        should_stop: Asked between exchanges whether the run is to end.
        run_id: The run's name; a new one if None.

    Raises:
        AevoriumError: Whatever ends the run before its time.
    """
    started = time.monotonic()
    record = StudyRecord(
        run_id=run_id or token_hex(8),
        server=server,
        plan=plan,
        seed=options.seed,
        is_simulated_federation=server == SIMULATED,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=software_versions(),
    )
    journal = Journal(workspace, secrets=secrets, record=record, schema_text=schema_text)
    rounds: list[RoundFinished] = []

    def note(event: ProgressEvent) -> None:
        if isinstance(event, RoundFinished):
            rounds.append(event)
        report(event)

    def conduct(grid: Grid) -> None:
        StudyConductor(
            grid,
            schema=schema,
            journal=journal,
            settings=TrainingSettings(pretraining_steps=options.pretraining_steps),
            report=note,
            timeout=options.timeout,
            should_stop=should_stop,
            device=find_device(options.device),
        ).conduct()

    # Flower tells a round's story in its own log; here it is told by `progress`.
    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        carry(create_server_app(conduct))
    except KeyboardInterrupt as error:
        raise AevoriumError("RUN_INTERRUPTED", "The run was stopped. What nodes had released stays charged.") from error
    report(PhaseStarted("report"))
    results = write_results(journal, schema=schema, keys=secrets.keys, rounds=rounds, report=report)
    return RunResult(
        record=journal.record,
        schema=schema,
        rounds=tuple(rounds),
        seconds=time.monotonic() - started,
        outputs=results.outputs,
        comparison=results.comparison,
    )
