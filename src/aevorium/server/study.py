"""How a run flows: plan, count, statistics, associations, training, evaluation, finish.

All of it works on released numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import torch
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp import Grid
from pydantic import BaseModel

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion, to_vector
from aevorium.diffusion.device import CPU
from aevorium.diffusion.layout import Layout
from aevorium.encoding.associations import Associations, TableDesign
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.evaluation import EvaluationTables
from aevorium.encoding.grid import number_of_bins
from aevorium.encoding.rounding import roundings_in_total
from aevorium.encoding.statistics import TableStatistics, cells_in_total
from aevorium.errors import FederationError
from aevorium.federation.protocol import (
    ASSOCIATIONS,
    COUNT,
    EVALUATION,
    FINISH,
    PLAN,
    STATISTICS,
    AssociationsReply,
    AssociationsRequest,
    CountReply,
    CountRequest,
    EvaluationReply,
    EvaluationRequest,
    FinishReply,
    FinishRequest,
    PlanReply,
    PlanRequest,
    StatisticsReply,
    StatisticsRequest,
    TrainingSettings,
    TrainRequest,
    pack,
    read_array,
    read_body,
)
from aevorium.federation.resending import ResendingGrid
from aevorium.privacy.phases import PhaseBudget, plan_budget
from aevorium.privacy.schedule import CellNoise
from aevorium.progress import PhaseStarted, ProgressEvent, Report
from aevorium.schema.table import TableSchema
from aevorium.server.evaluation import evaluated_records, evaluation_design
from aevorium.server.exchange import Replies, ask, require_going_on
from aevorium.server.forms import ReplyForm
from aevorium.server.journal import Journal
from aevorium.server.record import NodeRecord
from aevorium.server.strategy import PrivateAveraging
from aevorium.server.summed import SummedTraining
from aevorium.server.warm_start import WarmStart, coarse_design, fine_design, learning_rate, pretraining

__all__ = ["StudyConductor"]

_PATIENCE = 90.0
"""Seconds for which a node that was lost is waited for: time to start it again, and for its old connection to end."""

_FAREWELL, _HURRY = 30.0, 2.0
"""Seconds that a node has to take leave (it only reads its ledger then): commonly, and when somebody is waiting."""


class StudyConductor:
    """Conducts one run over a grid.

    Args:
        grid: The transport to the nodes.
        schema: The study's schema.
        journal: Where the run is written down; its record holds the plan.
        settings: How the model is trained.
        report: Takes the progress.
        timeout: Seconds after which a node that has not answered a request counts as lost.
        should_stop: Asked between exchanges, and between the server's own steps, whether the run is to end.
        device: Where the server computes.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        schema: TableSchema,
        journal: Journal,
        settings: TrainingSettings,
        report: Report,
        timeout: float,
        should_stop: Callable[[], bool],
        device: torch.device = CPU,
    ) -> None:
        self._grid = ResendingGrid(grid, patience=min(_PATIENCE, timeout))
        self._schema = schema
        self._journal = journal
        self._settings = settings
        self._report = report
        self._timeout = timeout
        self._should_stop = should_stop
        self._device = device
        self._plan = journal.record.plan
        self._run_id = journal.record.run_id
        self._agreed: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._counts: dict[int, int] = {}
        self._code: dict[str, str] = {}
        self._budget: PhaseBudget = plan_budget(self._plan)

    def conduct(self) -> None:
        """Runs all phases.

        Raises:
            AevoriumError: Nodes refused, failed, or did not answer. What they had agreed to is closed then.
        """
        self._journal.note("study_planned", {"plan": self._plan.model_dump(mode="json")})
        try:
            self._agree()
            self._count()
            encoder, statistics = self._measure()
            warm = self._warm_start(encoder, statistics) if self._plan.recipe == "warm-start" else None
            self._train(encoder if warm is None else warm.surrogate.encoder, warm)
            self._evaluate(encoder, bins=statistics.bins)
        except BaseException as error:
            finished = self._finish(timeout=_HURRY if isinstance(error, KeyboardInterrupt) else _FAREWELL)
            code = getattr(error, "code", type(error).__name__)
            self._journal.note("run_failed", {"code": code})
            self._journal.update(status="failed", finished_at=_now(), nodes=self._node_records(finished))
            raise
        finished = self._finish(timeout=_FAREWELL)
        self._journal.note("run_finished", {"spent": {name: reply.spent for name, reply in finished.items()}})
        self._journal.update(status="finished", finished_at=_now(), nodes=self._node_records(finished))

    def _agree(self) -> None:
        everyone = list(self._grid.get_node_ids())
        self._report(PhaseStarted("plan", nodes=len(everyone)))
        request = PlanRequest(run_id=self._run_id, server=self._journal.record.server, plan=self._plan)
        contents = {node_id: pack(request) for node_id in everyone}
        form = ReplyForm(PlanReply)
        replies = ask(self._grid, contents, message_type=PLAN, timeout=self._timeout, form=form)
        bodies = {node_id: read_body(message, PlanReply) for node_id, message in replies.valid.items()}
        for node_id, body in bodies.items():
            is_known = body.node in self._plan.nodes and body.node not in self._agreed.values()
            if body.plan_hash != self._plan.content_hash or not is_known:
                raise FederationError("MESSAGE_INVALID", f"Node {body.node!r} agreed to another plan than the study's.")
            self._agreed[node_id] = self._names[node_id] = body.node
            self._code[body.node] = body.code_hash
        self._require(replies, phase="plan")
        self._journal.update(is_noise_secret=all(body.is_noise_secret for body in bodies.values()))
        self._journal.note("nodes_agreed", {"nodes": sorted(self._names.values()), "refused": len(replies.codes)})

    def _count(self) -> None:
        replies = self._ask_all(
            CountRequest(**self._run), message_type=COUNT, phase="count", form=ReplyForm(CountReply)
        )
        bodies = {node_id: read_body(message, CountReply) for node_id, message in replies.valid.items()}
        self._counts = {node_id: body.count for node_id, body in bodies.items()}
        self._journal.update(is_simulated_data=all(body.is_simulated for body in bodies.values()))

    def _measure(self) -> tuple[TableEncoder, TableStatistics]:
        plan, schema = self._plan, self._schema
        records = plan.declared_records or self._counted()
        self._budget = budget = plan_budget(plan, records=records)
        bins = number_of_bins(records=records, epsilon=plan.epsilon, nodes=plan.noise_piles)
        request = StatisticsRequest(**self._run, bins=bins, records=records)
        cells, roundings = cells_in_total(schema, bins=bins), budget.roundings
        size = cells + (0 if roundings is None else roundings_in_total(schema))
        form = ReplyForm(StatisticsReply, np.int64, size=size)
        replies = self._ask_all(request, message_type=STATISTICS, phase="statistics", form=form)
        vectors = [np.asarray(read_array(message, np.int64), dtype=np.int64) for message in replies.valid.values()]
        statistics = TableStatistics.from_sum(
            budget.histograms.open([vector[:cells] for vector in vectors]),
            schema,
            bins=bins,
            noise=budget.histograms.noise_of(nodes=len(vectors)),
        )
        if roundings is not None:
            statistics = statistics.with_roundings(
                roundings.open([vector[cells:] for vector in vectors]),
                schema,
                noise=roundings.noise_of(nodes=len(vectors)),
            )
        total = statistics.total(
            count=float(sum(self._counts.values())), count_variance=budget.count_variance * len(self._counts)
        )
        encoder = TableEncoder.fit(statistics, schema, total=total)
        self._journal.begin_results()
        self._journal.write_encoder(encoder, statistics)
        model = DenoiserConfig.for_layout(Layout.for_table(encoder, schema))
        self._journal.update(records=records, total=total, model=model)
        self._journal.note("encoder_fitted", {"bins": bins, "nodes": sorted(self._names.values())})
        return encoder, statistics

    def _counted(self) -> float:
        """The noisy number of records by which phases are planned: what all nodes of the plan hold.

        Where all nodes train by the mean size, those that were lost on the way count as much as the others.
        """
        counted = float(sum(max(count, 1) for count in self._counts.values()))
        return counted * len(self._plan.nodes) / len(self._counts) if self._plan.has_equal_schedules else counted

    def _warm_start(self, encoder: TableEncoder, statistics: TableStatistics) -> WarmStart:
        """Asks for tables of several columns, as the plan has them, and fits the surrogate to all that was released."""
        schema, schedule = self._schema, self._budget.associations
        released = []
        if schedule.candidates:
            design = coarse_design(encoder, schema, schedule=schedule, total=self._total, nodes=len(self._names))
            released.append(self._associate("coarse", design, cells=schedule.coarse))
        if schedule.pairs:
            design = fine_design(
                encoder,
                schema,
                statistics=statistics,
                schedule=schedule,
                signal=self._budget.signal,
                coarse=released[0] if released else None,
                total=self._total,
                nodes=len(self._names),
            )
            released.append(self._associate("fine", design, cells=schedule.fine))
        self._journal.write_associations(released)
        self._report(PhaseStarted("surrogate"))
        warm = WarmStart(
            encoder,
            schema,
            tables=released,
            statistics=statistics,
            total=self._total,
            seed=self._journal.record.seed,
            report=self._report_unless_stopped,
        )
        # Two-way tables tell of single columns too: the encoder takes over what all tables agree on.
        self._journal.write_encoder(warm.surrogate.encoder, statistics)
        mixture = warm.surrogate.mixture
        self._journal.note(
            "surrogate_fitted",
            {"components": len(mixture.weights), "residual": mixture.residual, "nodes": sorted(self._names.values())},
        )
        return warm

    def _report_unless_stopped(self, event: ProgressEvent) -> None:
        """Of work that takes minutes and asks no node: it may be given up at every step."""
        require_going_on(self._should_stop)
        self._report(event)

    def _associate(self, stage: Literal["coarse", "fine"], design: TableDesign, *, cells: CellNoise) -> Associations:
        request = AssociationsRequest(**self._run, stage=stage, design=design)
        form = ReplyForm(AssociationsReply, np.int64, size=design.size)
        replies = self._ask_all(request, message_type=ASSOCIATIONS, phase="associations", form=form)
        vectors = [np.asarray(read_array(message, np.int64), dtype=np.int64) for message in replies.valid.values()]
        return Associations.from_sum(cells.open(vectors), design, noise=cells.noise_of(nodes=len(vectors)))

    def _train(self, encoder: TableEncoder, warm: WarmStart | None) -> None:
        plan, model_config = self._plan, self._journal.model
        generator = torch.Generator().manual_seed(self._journal.record.seed)
        model = TabularDiffusion(model_config, priors=encoder.priors(self._schema), generator=generator)
        if warm is not None:
            self._report(PhaseStarted("pre-training"))
            steps = self._settings.pretraining_steps
            pretrained = pretraining(columns=plan.columns, signal=self._budget.signal, steps=steps)
            warm.pretrain(model, plan=pretrained, device=self._device)
        if not self._budget.rounds:
            self._report(PhaseStarted("no training"))
            self._journal.write_model(to_vector(model))
            return
        self._report(PhaseStarted("training", nodes=len(self._names)))
        settings = self._settings.model_copy(
            update={"learning_rate": self._settings.learning_rate or learning_rate(plan.recipe)}
        )

        def request(server_round: int) -> TrainRequest:
            return TrainRequest(**self._run, round=server_round, encoder=encoder, model=model_config, settings=settings)

        if plan.noise_shares is not None:
            SummedTraining(
                self._grid,
                model=model,
                encoder=encoder,
                schedule=self._budget.training(self._mean_size),
                settings=settings,
                names=self._names,
                journal=self._journal,
                report=self._report,
                timeout=self._timeout,
                should_stop=self._should_stop,
                # Without noise there is nothing to keep the model from: records then say it better than the tables.
                anchor=warm.anchor if warm is not None and plan.is_private else None,
            ).conduct()
            return
        strategy = PrivateAveraging(
            request=request,
            names=dict(self._names),
            min_nodes=plan.min_nodes,
            rounds=plan.rounds,
            epsilon=plan.epsilon,
            journal=self._journal,
            report=self._report,
            timeout=self._timeout,
            should_stop=self._should_stop,
        )
        strategy.start(
            grid=self._grid,
            initial_arrays=ArrayRecord([to_vector(model)]),
            num_rounds=plan.rounds,
            timeout=self._timeout,
        )

    def _evaluate(self, encoder: TableEncoder, *, bins: int) -> None:
        """Asks for the tables that the result is compared with, if the plan holds any."""
        schedule, schema = self._budget.evaluation, self._schema
        if not schedule.columns:
            return
        records = evaluated_records(self._plan, total=self._total)
        design = evaluation_design(encoder, schema, schedule=schedule, records=records, nodes=len(self._names))
        request = EvaluationRequest(**self._run, design=design)
        form = ReplyForm(EvaluationReply, np.int64, size=EvaluationTables.size(design))
        replies = self._ask_all(request, message_type=EVALUATION, phase="evaluation", form=form)
        vectors = [np.asarray(read_array(message, np.int64), dtype=np.int64) for message in replies.valid.values()]
        cells = schedule.cells
        tables = EvaluationTables.from_sum(
            cells.open(vectors), design, bins=bins, noise=cells.noise_of(nodes=len(vectors))
        )
        self._journal.write_evaluation(tables)
        self._journal.note("evaluated", {"nodes": sorted(self._names.values())})

    def _finish(self, *, timeout: float) -> dict[str, FinishReply]:
        """Ends the run at every node that agreed to it, also at those that were lost on the way.

        A node that no longer answers keeps its own record.
        """
        if not self._agreed:
            return {}
        contents = {node_id: pack(FinishRequest(**self._run)) for node_id in self._agreed}
        form = ReplyForm(FinishReply)
        replies = ask(self._grid, contents, message_type=FINISH, timeout=min(timeout, self._timeout), form=form)
        bodies = [read_body(message, FinishReply) for message in replies.valid.values()]
        return {body.node: body for body in bodies}

    def _ask_all(self, request: BaseModel, *, message_type: str, phase: str, form: ReplyForm) -> Replies:
        """Asks every node that is still in the run; those that fail are out of it."""
        require_going_on(self._should_stop)
        self._report(PhaseStarted(phase, nodes=len(self._names)))
        contents: dict[int, RecordDict] = {node_id: pack(request) for node_id in self._names}
        replies = ask(self._grid, contents, message_type=message_type, timeout=self._timeout, form=form)
        self._require(replies, phase=phase)
        if replies.codes:
            lost = {self._names[node_id]: code for node_id, code in replies.codes.items()}
            self._journal.note("nodes_lost", {"phase": phase, "nodes": lost})
            self._names = {node_id: name for node_id, name in self._names.items() if node_id in replies.valid}
        return replies

    def _require(self, replies: Replies, *, phase: str) -> None:
        replies.require(self._plan.min_nodes, phase=phase, names=self._names)

    @property
    def _mean_size(self) -> float:
        """The number of records of a node by which all nodes train."""
        size = self._plan.node_size(count=None, records=self._journal.record.records)
        return size or 1.0

    @property
    def _total(self) -> float:
        """The estimated number of records."""
        return self._journal.record.total or 1.0

    @property
    def _run(self) -> dict[str, str]:
        return {"run_id": self._run_id, "plan_hash": self._plan.content_hash}

    def _node_records(self, finished: Mapping[str, FinishReply]) -> tuple[NodeRecord, ...]:
        counts = {self._agreed[node_id]: count for node_id, count in self._counts.items()}
        return tuple(self._node_record(name, finished.get(name), counts.get(name)) for name in self._plan.nodes)

    def _node_record(self, name: str, reply: FinishReply | None, count: int | None) -> NodeRecord:
        code = self._code.get(name)
        if reply is not None:
            return NodeRecord(
                name=name, count=count, spent=reply.spent, limit=reply.limit, left=reply.left, code_hash=code
            )
        # A node that agreed and does not answer may have spent all that it agreed to; never less is said of it.
        spent = self._plan.epsilon if name in self._agreed.values() else 0.0
        return NodeRecord(name=name, count=count, spent=spent, code_hash=code)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
