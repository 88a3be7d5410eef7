"""The use cases: plan a study, run a federation in this process, generate a table, verify a workspace.

What the command line and the API both call. Nothing here reads a record: simulated nodes do, behind their gates.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch
from flwr.serverapp import Grid
from pydantic import ValidationError

from aevorium.errors import AevoriumError, ConfigError, InternalError
from aevorium.federation.local import run_in_process
from aevorium.federation.protocol import TrainingSettings
from aevorium.governance.chain import AuditChain
from aevorium.governance.keys import load_key, load_or_create_key
from aevorium.governance.policy import NodePolicy, simulated_policy
from aevorium.node.app import create_client_app
from aevorium.node.session import NodeConfig, NodeSession
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import PrivacyEvent
from aevorium.privacy.mechanisms import OsNoise
from aevorium.privacy.plan import StudyPlan, cost_of, plan_budget
from aevorium.progress import PhaseStarted, ProgressEvent, Report, RoundFinished, StepProgress, ignore
from aevorium.results import write_results
from aevorium.schema.output import check_output_path, write_table
from aevorium.schema.table import TableSchema
from aevorium.server.app import create_server_app
from aevorium.server.journal import Journal
from aevorium.server.record import NodeRecord, StudyRecord, load_study, software_versions
from aevorium.server.statement import describe_event
from aevorium.server.study import StudyConductor
from aevorium.server.synthesis import SAMPLER, STEPS, open_synthesis
from aevorium.verification import VerificationResult, verify_workspace
from aevorium.workspace import Workspace

__all__ = [
    "GenerationResult",
    "NodeSource",
    "PhaseCost",
    "RunOptions",
    "RunResult",
    "VerificationResult",
    "generate_table",
    "load_study",
    "plan_cost",
    "plan_study",
    "run_federation",
    "verify_workspace",
]

_SERVER = "local"
"""Identity of the server of a federation in one process."""


@dataclass(frozen=True)
class NodeSource:
    """A simulated node.

    Attributes:
        name: Its name.
        data: Its table.
        policy: What it allows; None limits it to the run's own ε and δ.
    """

    name: str
    data: Path
    policy: NodePolicy | None = None


@dataclass(frozen=True)
class RunOptions:
    """What a person chooses of a run; the contract's settings.

    Attributes:
        epsilon: Target ε of the whole run; infinite trains without privacy.
        delta: Target δ.
        recipe: How the model is trained.
        trust: Who may see what a node sends.
        rounds: Rounds of training.
        epochs: Passes over a node's records in each round.
        batch_size: Expected records in a step.
        noise_multiplier: DP-SGD's noise, as it is; None calibrates it from ε.
        records: Declared number of records of all nodes; None plans from a noisy count.
        seed: Fixes initialisation and generated rows; never the privacy noise.
        device: Where models are trained; this version knows the CPU alone.
        min_nodes: Valid replies without which the run fails; None asks for all.
        purpose: What the result is for.
    """

    epsilon: float = 3.0
    delta: float = 1e-5
    recipe: Literal["dp-sgd"] = "dp-sgd"
    trust: Literal["local"] = "local"
    rounds: int = 5
    epochs: int = 20
    batch_size: int = 32
    noise_multiplier: float | None = None
    records: int | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    min_nodes: int | None = None
    purpose: str = "synthetic data"


@dataclass(frozen=True)
class PhaseCost:
    """What one phase of a plan costs by itself.

    Attributes:
        phase: The phase.
        mechanism: Its mechanism.
        parameters: The mechanism's parameters.
        epsilon: ε of this phase alone, at the plan's δ; phases together cost less than the sum.
    """

    phase: str
    mechanism: str
    parameters: str
    epsilon: float


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Attributes:
        record: The run as written in `study.json`.
        schema: The study's schema.
        rounds: The rounds in order.
        seconds: How long it took.
        outputs: The files that it left.
    """

    record: StudyRecord
    schema: TableSchema
    rounds: tuple[RoundFinished, ...]
    seconds: float
    outputs: tuple[Path, ...]

    @property
    def nodes(self) -> tuple[NodeRecord, ...]:
        """What each node spent."""
        return self.record.nodes


@dataclass(frozen=True)
class GenerationResult:
    """A generated table.

    Attributes:
        path: Where it is.
        rows: How many rows it has.
        rejected: How many drawn rows a constraint turned away.
        seconds: How long it took.
        is_simulated: Whether the model was trained on simulated patients.
        is_private: Whether the run had a finite ε.
        is_finished: Whether the run reached its end; otherwise the model is that of its last round.
    """

    path: Path
    rows: int
    rejected: int
    seconds: float
    is_simulated: bool
    is_private: bool
    is_finished: bool


def plan_study(schema: TableSchema, node_names: Sequence[str], options: RunOptions) -> StudyPlan:
    """Makes the plan that nodes will be asked to agree to. Reads no record.

    Raises:
        ConfigError: CONFIG_INVALID, naming the option; CONFIG_CONFLICT for a fixed noise without declared records.
    """
    try:
        plan = StudyPlan(
            study=schema.name,
            schema_hash=schema.content_hash,
            columns=len(schema.measured),
            purpose=options.purpose,
            recipe=options.recipe,
            trust=options.trust,
            epsilon=options.epsilon,
            delta=options.delta,
            nodes=tuple(node_names),
            min_nodes=options.min_nodes or len(node_names),
            rounds=options.rounds,
            epochs=options.epochs,
            batch_size=options.batch_size,
            records=options.records,
            noise_multiplier=options.noise_multiplier,
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][-1]) if problem["loc"] else "the plan"
        reason = str(problem["msg"]).removeprefix("Value error, ")
        raise ConfigError("CONFIG_INVALID", f"{name} = {problem['input']!r} is not possible. {reason}.") from error
    if plan.noise_multiplier is not None:
        plan = plan.model_copy(update={"epsilon": cost_of(plan)})
    return plan


def plan_cost(plan: StudyPlan, *, size: float) -> list[PhaseCost]:
    """What each phase of a plan costs a node. Reads no record.

    Args:
        plan: The plan.
        size: The node's declared number of records.
    """
    budget = plan_budget(plan)
    schedule = budget.training(size)
    phases: list[tuple[str, tuple[PrivacyEvent, ...]]] = [
        ("count", (budget.count,)),
        ("statistics", (budget.statistics,)),
    ]
    phases += [(f"training, {plan.rounds} rounds", (event,) * plan.rounds) for event in schedule.round_events()]
    costs = []
    for phase, events in phases:
        mechanism, parameters = describe_event(events[0])
        costs.append(PhaseCost(phase, mechanism, parameters, epsilon(events, delta=plan.delta)))
    return costs


def run_federation(
    schema: TableSchema,
    *,
    schema_text: str,
    plan: StudyPlan,
    nodes: Sequence[NodeSource],
    workspace: Workspace,
    key_file: Path,
    options: RunOptions,
    report: Report = ignore,
) -> RunResult:
    """Runs a whole federation in this process.

    Args:
        schema: The study's schema.
        schema_text: The same as TOML, kept in the workspace.
        plan: The plan.
        nodes: The simulated nodes; their state is kept under the workspace.
        workspace: Where the results go.
        key_file: The key of the checkpoints; made if absent.
        options: Seed and device; the rest is in the plan.
        report: Takes the progress.

    Raises:
        UserError: What the person can change: data, policy, budget, workspace.
        AevoriumError: RUN_INTERRUPTED after Ctrl-C; what was released stays charged.
    """
    started = time.monotonic()
    if options.device == "cuda":
        raise ConfigError(
            "FEATURE_UNAVAILABLE",
            "device = 'cuda' is not possible. This version trains on the CPU.",
            hint="Use --device cpu, or leave the option out.",
        )
    workspace.create()
    key = load_or_create_key(key_file)
    sessions = {
        node.name: _session(node, schema=schema, plan=plan, workspace=workspace, report=report) for node in nodes
    }
    record = StudyRecord(
        run_id=secrets.token_hex(8),
        server=_SERVER,
        plan=plan,
        seed=options.seed,
        is_simulated_federation=True,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=software_versions(),
    )
    journal = Journal(workspace, key=key, record=record, schema_text=schema_text)
    rounds: list[RoundFinished] = []

    def note(event: ProgressEvent) -> None:
        if isinstance(event, RoundFinished):
            rounds.append(event)
        report(event)

    def conduct(grid: Grid) -> None:
        settings = TrainingSettings()
        StudyConductor(grid, schema=schema, journal=journal, settings=settings, report=note).conduct()

    _quiet_flower()
    workers = min(len(nodes), os.cpu_count() or 1)
    try:
        with _threads(max(1, (os.cpu_count() or 1) // workers)):
            run_in_process(
                create_server_app(conduct),
                create_client_app(sessions),
                nodes=[node.name for node in nodes],
                workers=workers,
                run_config={},
            )
    except KeyboardInterrupt as error:
        raise AevoriumError("RUN_INTERRUPTED", "The run was stopped. What nodes had released stays charged.") from error
    except AevoriumError as error:
        raise _reason(error, sessions) from error
    report(PhaseStarted("report"))
    outputs = write_results(journal, schema=schema, key=key, rounds=rounds, report=report)
    return RunResult(
        record=journal.record,
        schema=schema,
        rounds=tuple(rounds),
        seconds=time.monotonic() - started,
        outputs=outputs,
    )


def generate_table(
    *,
    workspace: Workspace,
    key_file: Path,
    output: Path,
    rows: int | None = None,
    seed: int = 0,
    sampler: Literal["ddim", "ddpm"] = SAMPLER,
    steps: int = STEPS,
    report: Report = ignore,
) -> GenerationResult:
    """Generates a table from the newest checkpoint of a workspace.

    Args:
        workspace: The workspace of a run.
        key_file: The key of its checkpoints.
        output: Where the table goes: .csv or .parquet.
        rows: How many rows; None makes as many as the noisy total says.
        seed: Fixes the rows.
        sampler: "ddpm" (ancestral) or "ddim" (deterministic).
        steps: Noise levels of the sampler.
        report: Takes the progress.

    Raises:
        ArtefactError: No checkpoint, or one that cannot be used.
        UserError: CONSTRAINT_UNSATISFIABLE.
        ConfigError: The output cannot be written.
    """
    started = time.monotonic()
    check_output_path(output)
    record, schema = load_study(workspace)
    count = max(1, round(record.total or 1)) if rows is None else rows
    if count < 1:
        raise ConfigError("CONFIG_INVALID", f"rows = {count!r} is not possible. It must be at least 1.")
    synthesis = open_synthesis(
        workspace, schema=schema, cipher=load_key(key_file), seed=seed, sampler=sampler, steps=steps
    )

    def advance(done: int) -> None:
        report(StepProgress("generating rows", done, count))

    written = write_table(synthesis.frames(count, advance=advance), output, schema)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    AuditChain(workspace.database).append(
        actor=record.server,
        action="table_generated",
        detail={"run_id": record.run_id, "file": output.name, "rows": written, "seed": seed, "sha256": digest},
    )
    AuditChain(workspace.database).write_view(workspace.audit_log)
    return GenerationResult(
        path=output,
        rows=written,
        rejected=synthesis.rejected,
        seconds=time.monotonic() - started,
        is_simulated=record.is_simulated_data,
        is_private=record.plan.is_private,
        is_finished=record.status == "finished",
    )


def _session(
    node: NodeSource, *, schema: TableSchema, plan: StudyPlan, workspace: Workspace, report: Report
) -> NodeSession:
    policy = node.policy or simulated_policy(epsilon=plan.epsilon, delta=plan.delta)
    config = NodeConfig(
        name=node.name, data=node.data, schema=schema, home=workspace.node_home(node.name), policy=policy
    )
    return NodeSession(config, noise=OsNoise(), report=report)


def _reason(error: AevoriumError, sessions: Mapping[str, NodeSession]) -> AevoriumError:
    """The reason why a run failed: the nodes' own, since here their stewards and the server are one person."""
    problems = [(name, session.problem) for name, session in sessions.items() if session.problem is not None]
    if not problems:
        return error
    _, first = max(problems, key=lambda item: item[1].exit_status)
    same = [(name, problem) for name, problem in problems if problem.code == first.code]
    message = " ".join(f"Node {name!r}: {problem.message}" for name, problem in same)
    if isinstance(first, InternalError):
        return first
    return type(first)(first.code, message, hint=first.hint)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Lets each node compute with so many threads: together they should not want more than there are cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quiet_flower() -> None:
    # Flower tells a round's story in its own log; here it is told by `progress`.
    logging.getLogger("flwr").setLevel(logging.ERROR)
