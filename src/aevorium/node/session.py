"""`NodeSession`: one node's data, ledger, policy and model, kept open from the first message to the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from aevorium import __version__
from aevorium.data.simulated import looks_simulated
from aevorium.encoding.associations import count_pairs
from aevorium.encoding.evaluation import count_evaluation
from aevorium.encoding.statistics import count_cells
from aevorium.errors import AevoriumError, FederationError
from aevorium.federation.protocol import (
    AssociationsReply,
    AssociationsRequest,
    CountReply,
    CountRequest,
    DismissReply,
    DismissRequest,
    EvaluationReply,
    EvaluationRequest,
    FinishReply,
    FinishRequest,
    GradientRequest,
    LossReply,
    LossRequest,
    PlanReply,
    PlanRequest,
    StatisticsReply,
    StatisticsRequest,
    TrainReply,
    TrainRequest,
)
from aevorium.governance.admission import AgreedPlan
from aevorium.governance.budget import BudgetView
from aevorium.governance.chain import AuditChain
from aevorium.governance.code import code_hash
from aevorium.governance.gate import ReleaseGate
from aevorium.governance.policy import NodePolicy
from aevorium.governance.spend import write_spend
from aevorium.node.checks import (
    RunRequest,
    check_design,
    check_evaluation,
    check_plan,
    known,
    model_of,
    require_agreed,
    require_as_fixed,
    require_trust,
    require_turn,
)
from aevorium.node.oversight import Oversight
from aevorium.node.records import NodeRecords
from aevorium.node.run import NodeRun, fingerprint_of, learn_count
from aevorium.node.steps import OpenSteps, require_encoder, require_open
from aevorium.node.training import loss_noise, noisy_gradient, noisy_loss, train_round
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.entropy import os_generator
from aevorium.privacy.ledger import SqliteLedger
from aevorium.privacy.mechanisms import NoiseSource, OsNoise, noisy_count
from aevorium.privacy.numbers import Numbers
from aevorium.privacy.phases import estimated_events
from aevorium.privacy.plan import StudyPlan
from aevorium.progress import NodeAnswered, NodeAsked, NodeNotice, Report
from aevorium.schema.table import TableSchema

__all__ = ["NodeConfig", "NodeSession", "OpenSession", "open_session"]


@dataclass(frozen=True)
class NodeConfig:
    """What a node is started with.

    Attributes:
        name: Its name, unique in the study.
        data: Its table, CSV or Parquet.
        schema: The schema in which it holds its data.
        home: Where ledger and audit chain lie, whatever the study's workspace.
        policy: What its steward allows.
        is_simulated: Whether server and nodes are one process, where secure aggregation needs no masks.
        policy_file: Where the policy is read anew at each plan; None if it is on no file.
    """

    name: str
    data: Path
    schema: TableSchema
    home: Path
    policy: NodePolicy
    is_simulated: bool = False
    policy_file: Path | None = None


class NodeSession:
    """Answers the phases of a study.

    Args:
        config: What the node was started with.
        noise: Source of the noise of counts and histograms.
        generator: Makes generators for gradient noise and batches.
        report: Takes notices for the steward's own console.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        noise: NoiseSource,
        report: Report,
        generator: Callable[[], torch.Generator] = os_generator,
    ) -> None:
        self.config = config
        self.problem: AevoriumError | None = None
        self.is_over = self.has_finished = False
        self._server: str | None = None
        self._noise = noise
        self._generator = generator
        self._report = report
        self._records = NodeRecords(
            config.data, schema=config.schema, home=config.home, generator=generator, notice=self.notice
        )
        self._steps: OpenSteps | None = None
        self._ledger = SqliteLedger(config.home / "ledger.db")
        self._chain = AuditChain(config.home / "audit.db")
        self._oversight = Oversight(
            config.home,
            node=config.name,
            policy=config.policy,
            file=config.policy_file,
            ledger=self._ledger,
            chain=self._chain,
            report=report,
        )
        self._gate = ReleaseGate(node=config.name, policy=config.policy, ledger=self._ledger, chain=self._chain)

    def notice(self, text: str) -> None:
        """Tells the node's own steward, and nobody else."""
        self._report(NodeNotice(node=self.config.name, text=text))

    def write_views(self) -> BudgetView:
        """Writes the node's own `privacy_budget.json` and `audit_log.json` from ledger and chain."""
        view = self._gate.spend()
        write_spend(self.config.home, view, chain=self._chain)
        return view

    def asked(self, phase: str, *, detail: str) -> None:
        """Tells the steward what the server asks for."""
        self._report(NodeAsked(node=self.config.name, phase=phase, detail=detail))

    def answered(self, phase: str, *, code: str | None) -> None:
        """Renews the node's views, and tells the steward what came of a request and what is left.

        Args:
            phase: What was asked for.
            code: Why it was refused; None if it was answered.
        """
        view = self.write_views()
        self._report(
            NodeAnswered(
                node=self.config.name,
                phase=phase,
                code=code,
                spent=view.spent,
                limit=view.max_epsilon,
                left=max(0.0, view.left),
            )
        )

    def open_table(self) -> None:
        """Reads the table and tells the steward what is in it. Reads patient records; releases nothing.

        Raises:
            DataError: The table cannot be used.
        """
        self._records.load()

    def connect(self, server: str) -> None:
        """From now on, only plans of this server are agreed to.

        Args:
            server: Its identity, proven by the certificate of the connection.
        """
        self._server = server

    def agree(self, request: PlanRequest, *, until: float = 0.0) -> PlanReply:
        """Phase "plan": agrees or refuses, by the policy as it is now. Reads no record.

        Args:
            request: The plan.
            until: When the server stops waiting: seconds since 1970. So long the steward may take, if they are asked.

        Raises:
            PolicyRefused: SCHEMA_MISMATCH, or what the gate refuses.
            BudgetExceeded: BUDGET_EXCEEDED.
        """
        plan = request.plan
        with self._refusing("plan", run_id=request.run_id):
            check_plan(
                request,
                schema=self.config.schema,
                node=self.config.name,
                server=self._server,
                is_simulated=self.config.is_simulated,
            )
            planned = estimated_events(plan)
            self._gate.renew(self._oversight.policy())
        self._gate.agree(
            AgreedPlan(
                run_id=request.run_id,
                plan_json=plan.canonical_json,
                schema_hash=plan.schema_hash,
                purpose=plan.purpose,
                server=request.server,
                epsilon=plan.epsilon,
                delta=plan.delta,
                planned_events=planned,
                nodes_per_patient=plan.max_nodes_per_patient,
            ),
            consent=lambda agreed: self._gate.renew(self._oversight.await_consent(agreed, study=plan, until=until)),
        )
        return PlanReply(
            node=self.config.name,
            plan_hash=plan.content_hash,
            version=__version__,
            code_hash=code_hash(),
            is_noise_secret=self._noise.is_secret,
        )

    def count(self, request: CountRequest) -> CountReply:
        """Phase "count": the noisy number of patients, of those not held out. Reads patient records.

        The reply is safe to release.

        Raises:
            DataError: The table cannot be used; nothing is spent then.
            PolicyRefused: POLICY_MIN_PATIENTS, by the noisy count.
        """
        run = self._run(request, phase="count")
        records = self._records.training(run.plan)
        event, private = run.budget.count, run.plan.is_private

        def produce() -> Numbers:
            exact = len(records)
            noisy = noisy_count(exact, epsilon=getattr(event, "epsilon", 0.0), noise=self._noise) if private else exact
            return (np.array([noisy], dtype=np.int64),)

        (numbers,) = self._gate.release(
            request.run_id,
            phase="count",
            round=0,
            events=(event,),
            fingerprint=fingerprint_of(request),
            produce=produce,
            learn=learn_count,
        )
        noisy = int(numbers[0])
        self._gate.require_patients(request.run_id, noisy_count=noisy)
        unit_ids = self._records.load().unit_ids
        is_simulated = unit_ids is not None and looks_simulated(unit_ids)
        return CountReply(count=noisy, is_simulated=is_simulated)

    def statistics(self, request: StatisticsRequest) -> tuple[StatisticsReply, NDArray[np.int64]]:
        """Phase "statistics": noisy one-way histograms. Reads patient records. The reply is safe to release.

        First fixes every event that the run may still release, by noisy or declared numbers alone, and once: a second
        request must not change what the first one fixed.
        """
        run = self._run(request, phase="statistics")
        records = self._records.training(run.plan)
        run = self._fix(run, request)
        cells = run.budget.histograms

        def produce() -> Numbers:
            exact = count_cells(records, self.config.schema, bins=request.bins)
            return (cells.protect(exact, noise=self._noise),)

        (values,) = self._gate.release(
            request.run_id,
            phase="statistics",
            round=0,
            events=(run.budget.statistics,),
            fingerprint=fingerprint_of(request),
            produce=produce,
        )
        return StatisticsReply(), values.astype(np.int64, copy=False)

    def associations(self, request: AssociationsRequest) -> tuple[AssociationsReply, NDArray[np.int64]]:
        """Phase "associations": noisy two-way tables. Reads patient records. The reply is safe to release.

        Which pairs and cells the server asks for is its own affair; how many tables, and with how much noise, was
        fixed before the first histogram.
        """
        is_coarse = request.stage == "coarse"
        number = 1 if is_coarse else 2
        run = self._run(request, phase="associations", round=number)
        schema, design, tables = self.config.schema, request.design, run.budget.associations
        with self._refusing("associations", run_id=request.run_id):
            bins = known(run, run.bins)
            check_design(request, schema=schema, bins=bins, tables=tables)
        records = self._records.training(run.plan)
        cells = tables.coarse if is_coarse else tables.fine

        def produce() -> Numbers:
            exact = count_pairs(records, schema, bins=bins, design=design)
            return (cells.protect(exact, noise=self._noise),)

        (values,) = self._gate.release(
            request.run_id,
            phase="associations",
            round=number,
            events=tables.coarse_events() if is_coarse else tables.fine_events(),
            fingerprint=fingerprint_of(request),
            produce=produce,
        )
        return AssociationsReply(), values.astype(np.int64, copy=False)

    def train(
        self, request: TrainRequest, vector: NDArray[np.float32]
    ) -> tuple[TrainReply, NDArray[np.float32], float]:
        """Phase "training", one round: private training from the global model. Reads patient records.

        Args:
            request: The round.
            vector: float32 [parameters], the global model.

        Returns:
            The reply, the node's model, and the public weight of it. All are safe to release.
        """
        run = self._run(request, phase="training", round=request.round)
        with self._refusing("training", run_id=request.run_id):
            schedule, size = require_trust(run, is_summed=False), known(run, run.size)
            if request.settings.learning_rate is None:
                raise FederationError("MESSAGE_INVALID", "A round came without the step size that belongs to it.")
            model = model_of(request.model, vector, encoder=request.encoder, schema=self.config.schema)
        records = self._records.training(run.plan)

        def produce() -> Numbers:
            return train_round(
                model,
                self._records.encode(records, request.encoder),
                schedule=schedule,
                settings=request.settings,
                noise=self._noise,
                generator=self._generator,
                size=size,
            )

        trained, loss = self._gate.release(
            request.run_id,
            phase="training",
            round=request.round,
            events=schedule.round_events(),
            fingerprint=fingerprint_of(request, vector),
            produce=produce,
        )
        reply = TrainReply(
            loss=float(loss[0]),
            loss_noise=loss_noise(schedule, size=size),
            spent=self._spent(request.run_id, run.plan),
        )
        return reply, trained.astype(np.float32, copy=False), size

    def gradient(self, request: GradientRequest, vector: NDArray[np.float32]) -> NDArray[np.int64]:
        """Phase "training" under secure aggregation, one step. Reads patient records.

        The sum over the nodes is safe to release; what this returns is protected by one share of the noise alone.

        Args:
            request: The step.
            vector: float32 [parameters], the global model.

        Returns:
            int64 [parameters], modulo 2^64.
        """
        if request.step == 1:
            self._steps = self._open_steps(request)
        with self._refusing("training", run_id=request.run_id):
            steps = require_open(self._steps, request)
            model = model_of(request.model, vector, encoder=steps.encoder, schema=self.config.schema)
        records = self._records.training(steps.plan)

        def produce() -> Numbers:
            encoded = self._records.encode(records, steps.encoder)
            return noisy_gradient(
                model, encoded, schedule=steps.schedule, settings=request.settings, generator=self._generator
            )

        with self._refusing("training", run_id=request.run_id):
            (values,) = steps.released.release(request.step, produce=produce)
        return values.astype(np.int64, copy=False)

    def loss(self, request: LossRequest, vector: NDArray[np.float32]) -> tuple[LossReply, NDArray[np.int64]]:
        """The charged loss of a round under secure aggregation. Reads patient records; their sum is safe to release.

        Args:
            request: The round.
            vector: float32 [parameters], the model.
        """
        run = self._run(request, phase="loss", round=request.round)
        with self._refusing("loss", run_id=request.run_id):
            schedule = require_trust(run, is_summed=True)
            model = model_of(request.model, vector, encoder=request.encoder, schema=self.config.schema)
        records = self._records.training(run.plan)

        def produce() -> Numbers:
            encoded = self._records.encode(records, request.encoder)
            return noisy_loss(model, encoded, schedule=schedule, noise=self._noise, generator=self._generator)

        (values,) = self._gate.release(
            request.run_id,
            phase="loss",
            round=request.round,
            events=(schedule.loss.event("training loss"),),
            fingerprint=fingerprint_of(request, vector),
            produce=produce,
        )
        return LossReply(spent=self._spent(request.run_id, run.plan)), values.astype(np.int64, copy=False)

    def evaluation(self, request: EvaluationRequest) -> tuple[EvaluationReply, NDArray[np.int64]]:
        """Phase "evaluation": noisy tables of the holdout, or of all patients where nobody is held out.

        Reads patient records. The reply is safe to release; under secure aggregation, its sum over the nodes is.
        """
        run = self._run(request, phase="evaluation")
        schema, design, schedule = self.config.schema, request.design, run.budget.evaluation
        with self._refusing("evaluation", run_id=request.run_id):
            bins = check_evaluation(request, run, schema=schema, schedule=schedule)
        records = self._records.evaluation(run.plan)

        def produce() -> Numbers:
            exact = count_evaluation(records, schema, bins=bins, design=design)
            return (schedule.cells.protect(exact, noise=self._noise),)

        (values,) = self._gate.release(
            request.run_id,
            phase="evaluation",
            round=0,
            events=schedule.events(),
            fingerprint=fingerprint_of(request),
            produce=produce,
        )
        return EvaluationReply(), values.astype(np.int64, copy=False)

    def finish(self, request: FinishRequest) -> FinishReply:
        """Phase "finish": nothing more is released in this run. Reads no record. May be asked again."""
        with self._refusing("finish", run_id=request.run_id):
            run = require_agreed(request, self._ledger.run(request.run_id), server=self._server)
        self._steps = None
        self._gate.close(request.run_id)
        view = self._gate.spend(request.run_id)
        self.is_over = self.has_finished = True
        return FinishReply(
            node=self.config.name,
            spent=self._spent(request.run_id, run.plan),
            limit=view.max_epsilon,
            left=max(0.0, view.left),
        )

    def dismiss(self, request: DismissRequest) -> DismissReply:
        """The server ends, and this node was in no run of it. Reads no record."""
        self.problem = FederationError(
            "RUN_MISSED", f"Run {request.run_id!r} ended without node {self.config.name!r}, which came too late."
        )
        self.is_over = True
        return DismissReply()

    def refuse(self, error: AevoriumError, *, phase: str) -> NoReturn:
        """Refuses what cannot even be read as a request: writes it down, and raises the error."""
        self._gate.refuse(error, phase=phase)

    @contextmanager
    def _refusing(self, phase: str, *, run_id: str) -> Iterator[None]:
        """Whatever is found wrong before the gate is asked for a release is a refusal of the gate too."""
        try:
            yield
        except AevoriumError as error:
            self._gate.refuse(error, phase=phase, run_id=run_id)

    def _run(self, request: RunRequest, *, phase: str, round: int = 0) -> NodeRun:
        """The run that a request for a release belongs to, if the request comes in its turn."""
        with self._refusing(phase, run_id=request.run_id):
            run = require_agreed(request, self._ledger.run(request.run_id), server=self._server)
            require_turn(run, phase, round)
        if phase != "count" and run.count is not None:
            # Also of a run that goes on after a restart: the policy may have been changed in between.
            self._gate.require_patients(request.run_id, noisy_count=run.count, phase=phase)
        return run

    def _fix(self, run: NodeRun, request: StatisticsRequest) -> NodeRun:
        """Fixes all that the run may release by a request for histograms, or checks that it says what the first did."""
        if run.bins is None:
            fixed = replace(run, bins=request.bins, records=request.records)
            with self._refusing("statistics", run_id=request.run_id):
                events = fixed.budget.events(known(fixed, fixed.size))
            self._gate.fix_events(
                request.run_id, events, basis=fixed.basis, nodes_per_patient=run.plan.max_nodes_per_patient
            )
            return fixed
        with self._refusing("statistics", run_id=request.run_id):
            require_as_fixed(run, request)
        return run

    def _open_steps(self, request: GradientRequest) -> OpenSteps:
        """Pays for a round under secure aggregation, by its first step."""
        run = self._run(request, phase="training", round=request.round)
        with self._refusing("training", run_id=request.run_id):
            schedule, encoder = require_trust(run, is_summed=True), require_encoder(request)
        released = self._gate.open_steps(
            request.run_id,
            phase="training",
            round=request.round,
            events=(schedule.step_event(steps=schedule.steps),),
        )
        return OpenSteps(
            request.run_id, request.round, plan=run.plan, schedule=schedule, encoder=encoder, released=released
        )

    def _spent(self, run_id: str, plan: StudyPlan) -> float:
        entry = self._ledger.run(run_id)
        return epsilon(entry.events, delta=plan.delta) if entry is not None else 0.0


OpenSession = Callable[[NodeConfig, Report], NodeSession]
"""Opens a node: `open_session`, or, in tests, something with seeded noise."""


def open_session(config: NodeConfig, report: Report) -> NodeSession:
    """Opens a node with noise that nobody can repeat.

    Args:
        config: What it is started with.
        report: Takes notices for its own steward.
    """
    return NodeSession(config, noise=OsNoise(), report=report)
