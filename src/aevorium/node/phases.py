"""The phases in which a node releases something: each reads records inside the gate, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from aevorium.data.simulated import looks_simulated
from aevorium.encoding.associations import count_tables
from aevorium.encoding.evaluation import count_evaluation
from aevorium.encoding.rounding import count_roundings
from aevorium.encoding.statistics import count_cells
from aevorium.errors import AevoriumError, FederationError
from aevorium.federation.protocol import (
    AssociationsReply,
    AssociationsRequest,
    CountReply,
    CountRequest,
    EvaluationReply,
    EvaluationRequest,
    StatisticsReply,
    StatisticsRequest,
    TrainReply,
    TrainRequest,
)
from aevorium.governance.gate import ReleaseGate
from aevorium.node.checks import (
    RunRequest,
    check_design,
    check_evaluation,
    known,
    model_of,
    require_agreed,
    require_as_fixed,
    require_trust,
    require_turn,
)
from aevorium.node.records import NodeRecords
from aevorium.node.run import NodeRun, fingerprint_of, learn_count
from aevorium.node.training import loss_noise, train_round, try_device
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.ledger import SqliteLedger
from aevorium.privacy.mechanisms import NoiseSource, noisy_count
from aevorium.privacy.numbers import Numbers
from aevorium.privacy.plan import StudyPlan
from aevorium.schema.table import TableSchema

__all__ = ["ReleasingPhases"]


class ReleasingPhases:
    """Answers the requests for numbers that are computed from records.

    Args:
        schema: The schema in which the node holds its data.
        records: Its records.
        ledger: What it agreed to and has spent.
        gate: What lets numbers out.
        noise: Source of the noise of counts and tables.
        generator: Makes generators for gradient noise and batches.
        device: Where gradients and losses are computed.
    """

    def __init__(
        self,
        schema: TableSchema,
        *,
        records: NodeRecords,
        ledger: SqliteLedger,
        gate: ReleaseGate,
        noise: NoiseSource,
        generator: Callable[[], torch.Generator],
        device: torch.device,
    ) -> None:
        self._schema = schema
        self._records = records
        self._ledger = ledger
        self._gate = gate
        self._noise = noise
        self._generator = generator
        self._device = device
        self._server: str | None = None

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
        """Phase "statistics": noisy one-way histograms, and noisy counts of numbers by rounding.

        Reads patient records. The reply is safe to release.

        First fixes every event that the run may still release, by noisy or declared numbers alone, and once: a second
        request must not change what the first one fixed.
        """
        run = self._run(request, phase="statistics")
        records = self._records.training(run.plan)
        run = self._fix(run, request)
        budget, schema = run.budget, self._schema

        def produce() -> Numbers:
            cells = budget.histograms.protect(count_cells(records, schema, bins=request.bins), noise=self._noise)
            if budget.roundings is None:
                return (cells,)
            roundings = budget.roundings.protect(count_roundings(records, schema), noise=self._noise)
            return (np.concatenate([cells, roundings]),)

        (values,) = self._gate.release(
            request.run_id,
            phase="statistics",
            round=0,
            events=budget.statistics,
            fingerprint=fingerprint_of(request),
            produce=produce,
        )
        return StatisticsReply(), values.astype(np.int64, copy=False)

    def associations(self, request: AssociationsRequest) -> tuple[AssociationsReply, NDArray[np.int64]]:
        """Phase "associations": noisy tables of several columns. Reads patient records. The reply is safe to release.

        Which columns and cells the server asks for is its own affair; how many tables, and with how much noise, was
        fixed before the first histogram.
        """
        is_coarse = request.stage == "coarse"
        number = 1 if is_coarse else 2
        run = self._run(request, phase="associations", round=number)
        schema, design, tables = self._schema, request.design, run.budget.associations
        with self._refusing("associations", run_id=request.run_id):
            bins = known(run, run.bins)
            check_design(request, schema=schema, bins=bins, tables=tables)
        records = self._records.training(run.plan)
        cells = tables.coarse if is_coarse else tables.fine

        def produce() -> Numbers:
            exact = count_tables(records, schema, bins=bins, design=design)
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
            learning_rate = request.settings.learning_rate
            if learning_rate is None:
                raise FederationError("MESSAGE_INVALID", "A round came without the step size that belongs to it.")
            model = model_of(
                request.model, vector, encoder=request.encoder, schema=self._schema, bins=known(run, run.bins)
            )
        try_device(model, schedule=schedule, device=self._device, settings=request.settings)
        records = self._records.training(run.plan)

        def produce() -> Numbers:
            return train_round(
                model,
                self._records.encode(records, request.encoder),
                schedule=schedule,
                settings=request.settings,
                learning_rate=learning_rate,
                noise=self._noise,
                generator=self._generator,
                device=self._device,
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

    def evaluation(self, request: EvaluationRequest) -> tuple[EvaluationReply, NDArray[np.int64]]:
        """Phase "evaluation": noisy tables of the holdout, or of all patients where nobody is held out.

        Reads patient records. The reply is safe to release; under secure aggregation, its sum over the nodes is.
        """
        run = self._run(request, phase="evaluation")
        schema, design, schedule = self._schema, request.design, run.budget.evaluation
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

    def _spent(self, run_id: str, plan: StudyPlan) -> float:
        entry = self._ledger.run(run_id)
        return epsilon(entry.events, delta=plan.delta) if entry is not None else 0.0
