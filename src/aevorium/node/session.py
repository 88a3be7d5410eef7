"""`NodeSession`: one node's data, ledger, policy and model, kept open from the first message to the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from aevorium import __version__
from aevorium.data.simulated import looks_simulated
from aevorium.data.table import PatientTable, read_table
from aevorium.diffusion.denoiser import TabularDiffusion, load_vector
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.encoding.associations import count_pairs
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.statistics import count_cells
from aevorium.errors import AevoriumError, FederationError, PolicyRefused
from aevorium.federation.protocol import (
    AssociationsReply,
    AssociationsRequest,
    CountReply,
    CountRequest,
    DismissReply,
    DismissRequest,
    FinishReply,
    FinishRequest,
    PlanReply,
    PlanRequest,
    StatisticsReply,
    StatisticsRequest,
    TrainReply,
    TrainRequest,
)
from aevorium.governance.budget import BudgetView
from aevorium.governance.chain import AuditChain
from aevorium.governance.gate import AgreedPlan, ReleaseGate
from aevorium.governance.policy import NodePolicy
from aevorium.governance.spend import write_spend
from aevorium.node.oversight import Oversight
from aevorium.node.training import train_round
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.entropy import os_generator
from aevorium.privacy.ledger import SqliteLedger
from aevorium.privacy.mechanisms import NoiseSource, OsNoise, noisy_count, noisy_histogram
from aevorium.privacy.plan import PhaseBudget, StudyPlan, TrainingSchedule, estimated_events, plan_budget
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
        policy_file: Where the policy is read anew at each plan; None if it is on no file.
    """

    name: str
    data: Path
    schema: TableSchema
    home: Path
    policy: NodePolicy
    policy_file: Path | None = None


@dataclass
class _Run:
    """What a node remembers of the run it takes part in."""

    plan: StudyPlan
    plan_hash: str
    budget: PhaseBudget
    size: float | None = None
    bins: int | None = None
    schedule: TrainingSchedule | None = None
    encoder: TableEncoder | None = None
    encoded: EncodedTable | None = field(default=None, repr=False)


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
        self._table: PatientTable | None = None
        self._runs: dict[str, _Run] = {}
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
        self._load()

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
        plan, schema = request.plan, self.config.schema
        if self._server is not None and request.server != self._server:
            raise PolicyRefused(
                "POLICY_SERVER_REFUSED",
                f"Run {request.run_id!r} refused. It names another server than the one that node"
                f" {self.config.name!r} is connected to.",
            )
        if plan.schema_hash != schema.content_hash or plan.columns != len(schema.measured):
            raise PolicyRefused(
                "SCHEMA_MISMATCH",
                f"Run {request.run_id!r} refused. Its schema {plan.study!r} differs from that of node"
                f" {self.config.name!r}.",
            )
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
                planned_events=estimated_events(plan),
            ),
            consent=lambda agreed: self._gate.renew(self._oversight.await_consent(agreed, study=plan, until=until)),
        )
        self._runs[request.run_id] = _Run(plan=plan, plan_hash=plan.content_hash, budget=plan_budget(plan))
        return PlanReply(
            node=self.config.name,
            plan_hash=plan.content_hash,
            version=__version__,
            is_noise_secret=self._noise.is_secret,
        )

    def count(self, request: CountRequest) -> CountReply:
        """Phase "count": the noisy number of patients. Reads patient records. The reply is safe to release.

        Raises:
            DataError: The table cannot be used; nothing is spent then.
            PolicyRefused: POLICY_MIN_PATIENTS, by the noisy count.
        """
        run = self._run(request.run_id, request.plan_hash)
        table = self._load()
        private = run.plan.is_private
        epsilon_of_count = getattr(run.budget.count, "epsilon", 0.0)

        def produce() -> int:
            exact = len(table.frame)
            return noisy_count(exact, epsilon=epsilon_of_count, noise=self._noise) if private else exact

        noisy = self._gate.release(request.run_id, phase="count", round=0, events=(run.budget.count,), produce=produce)
        self._gate.require_patients(request.run_id, noisy_count=noisy)
        run.size = run.plan.declared_size or float(max(noisy, 1))
        is_simulated = table.unit_ids is not None and looks_simulated(table.unit_ids)
        return CountReply(count=noisy, is_simulated=is_simulated)

    def statistics(self, request: StatisticsRequest) -> tuple[StatisticsReply, NDArray[np.int64]]:
        """Phase "statistics": noisy one-way histograms. Reads patient records. The reply is safe to release.

        First fixes every event that the run may still release, by noisy or declared numbers alone.
        """
        run = self._run(request.run_id, request.plan_hash)
        if run.size is None:
            raise _out_of_order(request.run_id)
        table = self._load()
        budget = plan_budget(run.plan, records=request.records)
        self._gate.fix_events(request.run_id, budget.events(run.size))
        # Only now: a second request for histograms must not change what the first one fixed.
        run.bins, run.budget, run.schedule = request.bins, budget, budget.training(run.size)
        sigma = run.budget.histogram_sigma

        def produce() -> NDArray[np.int64]:
            exact = count_cells(table.frame, self.config.schema, bins=request.bins)
            return noisy_histogram(exact, sigma=sigma, noise=self._noise) if sigma > 0 else exact

        values = self._gate.release(
            request.run_id, phase="statistics", round=0, events=(run.budget.statistics,), produce=produce
        )
        return StatisticsReply(), values

    def associations(self, request: AssociationsRequest) -> tuple[AssociationsReply, NDArray[np.int64]]:
        """Phase "associations": noisy two-way tables. Reads patient records. The reply is safe to release.

        Which pairs and cells the server asks for is its own affair; how many tables, and with how much noise, was
        fixed before the first histogram.
        """
        run, schema = self._run(request.run_id, request.plan_hash), self.config.schema
        if run.bins is None:
            raise _out_of_order(request.run_id)
        bins, tables, design = run.bins, run.budget.associations, request.design
        is_coarse = request.stage == "coarse"
        if not 0 < len(design.pairs) == (tables.candidates if is_coarse else tables.pairs):
            raise PolicyRefused(
                "RELEASE_OUTSIDE_PLAN",
                f"Run {request.run_id!r} refused. Its plan holds another number of {request.stage} tables.",
            )
        problem = design.problem(schema, bins=bins)
        if problem is not None:
            raise FederationError("MESSAGE_INVALID", f"A request for two-way tables cannot be served: {problem}.")
        table = self._load()
        sigma = tables.coarse_sigma if is_coarse else tables.fine_sigma

        def produce() -> NDArray[np.int64]:
            exact = count_pairs(table.frame, schema, bins=bins, design=design)
            return noisy_histogram(exact, sigma=sigma, noise=self._noise) if sigma > 0 else exact

        values = self._gate.release(
            request.run_id,
            phase="associations",
            round=1 if is_coarse else 2,
            events=tables.coarse_events() if is_coarse else tables.fine_events(),
            produce=produce,
        )
        return AssociationsReply(), values

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
        run = self._run(request.run_id, request.plan_hash)
        if run.schedule is None or run.size is None:
            raise _out_of_order(request.run_id)
        schedule, size, schema = run.schedule, run.size, self.config.schema
        encoder = request.encoder
        fits = encoder.schema_hash == schema.content_hash
        if not fits or request.model.layout != Layout.for_table(encoder, schema):
            raise FederationError("MESSAGE_INVALID", "The model or encoder of a round does not fit the node's schema.")
        model = TabularDiffusion(
            request.model, priors=encoder.priors(schema), generator=torch.Generator().manual_seed(0)
        )
        load_vector(model, vector)
        encoded = self._encode(run, encoder)
        outcome = self._gate.release(
            request.run_id,
            phase="training",
            round=request.round,
            events=schedule.round_events(),
            produce=lambda: train_round(
                model,
                encoded,
                schedule=schedule,
                settings=request.settings,
                noise=self._noise,
                generator=self._generator,
                size=size,
            ),
        )
        reply = TrainReply(
            loss=outcome.loss, loss_noise=outcome.loss_noise, spent=self._spent(request.run_id, run.plan)
        )
        return reply, outcome.vector, size

    def finish(self, request: FinishRequest) -> FinishReply:
        """Phase "finish": nothing more is released in this run. Reads no record."""
        run = self._run(request.run_id, request.plan_hash)
        self._gate.close(request.run_id)
        view = self._gate.spend(request.run_id)
        del self._runs[request.run_id]
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

    def _run(self, run_id: str, plan_hash: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None or run.plan_hash != plan_hash:
            raise PolicyRefused("RELEASE_OUTSIDE_PLAN", f"Run {run_id!r} refused. No such plan was agreed here.")
        return run

    def _spent(self, run_id: str, plan: StudyPlan) -> float:
        entry = self._ledger.run(run_id)
        return epsilon(entry.events, delta=plan.delta) if entry is not None else 0.0

    def _load(self) -> PatientTable:
        if self._table is None:
            self._table = read_table(self.config.data, self.config.schema)
            for line in self._table.findings.lines():
                self.notice(line)
        return self._table

    def _encode(self, run: _Run, encoder: TableEncoder) -> EncodedTable:
        if run.encoded is None or run.encoder != encoder:
            # Where a value lies within its bin says nothing that is kept.
            seed = int(torch.randint(2**62, (1,), generator=self._generator()))
            arrays = encoder.encode(self._load().frame, self.config.schema, generator=np.random.default_rng(seed))
            run.encoded = EncodedTable.from_arrays(arrays.values, codes=arrays.codes, observed=arrays.observed)
            run.encoder = encoder
        return run.encoded


OpenSession = Callable[[NodeConfig, Report], NodeSession]
"""Opens a node: `open_session`, or, in tests, something with seeded noise."""


def open_session(config: NodeConfig, report: Report) -> NodeSession:
    """Opens a node with noise that nobody can repeat.

    Args:
        config: What it is started with.
        report: Takes notices for its own steward.
    """
    return NodeSession(config, noise=OsNoise(), report=report)


def _out_of_order(run_id: str) -> PolicyRefused:
    return PolicyRefused("RELEASE_OUTSIDE_PLAN", f"Run {run_id!r} refused. Its phases come in another order.")
