"""`NodeSession`: one node's data, ledger, policy and model, kept open from the first message to the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from aevorium import __version__
from aevorium.diffusion.device import CPU
from aevorium.errors import AevoriumError, FederationError
from aevorium.federation.protocol import (
    DismissReply,
    DismissRequest,
    FinishReply,
    FinishRequest,
    PlanReply,
    PlanRequest,
)
from aevorium.governance.admission import AgreedPlan
from aevorium.governance.budget import BudgetView
from aevorium.governance.chain import AuditChain
from aevorium.governance.code import code_hash
from aevorium.governance.gate import ReleaseGate
from aevorium.governance.policy import NodePolicy
from aevorium.governance.spend import write_spend
from aevorium.governance.steward import steward_key
from aevorium.node.checks import (
    check_plan,
    require_agreed,
)
from aevorium.node.oversight import Oversight
from aevorium.node.records import NodeRecords
from aevorium.node.summing import SummedPhases
from aevorium.privacy.entropy import os_generator
from aevorium.privacy.ledger import SqliteLedger
from aevorium.privacy.mechanisms import NoiseSource, OsNoise
from aevorium.privacy.phases import estimated_events
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
        device: Where gradients and losses are computed.
    """

    name: str
    data: Path
    schema: TableSchema
    home: Path
    policy: NodePolicy
    is_simulated: bool = False
    policy_file: Path | None = None
    device: torch.device = CPU


class NodeSession(SummedPhases):
    """Answers a server, from the plan to the end of the run.

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
        self._report = report
        ledger = SqliteLedger(config.home / "ledger.db")
        chain = AuditChain(config.home / "audit.db", key=steward_key(config.home))
        self._chain = chain
        self._oversight = Oversight(
            config.home,
            node=config.name,
            policy=config.policy,
            file=config.policy_file,
            ledger=ledger,
            chain=chain,
            report=report,
        )
        super().__init__(
            config.schema,
            records=NodeRecords(
                config.data, schema=config.schema, home=config.home, generator=generator, notice=self.notice
            ),
            ledger=ledger,
            gate=ReleaseGate(node=config.name, policy=config.policy, ledger=ledger, chain=chain),
            noise=noise,
            generator=generator,
            device=config.device,
        )

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


OpenSession = Callable[[NodeConfig, Report], NodeSession]
"""Opens a node: `open_session`, or, in tests, something with seeded noise."""


def open_session(config: NodeConfig, report: Report) -> NodeSession:
    """Opens a node with noise that nobody can repeat.

    Args:
        config: What it is started with.
        report: Takes notices for its own steward.
    """
    return NodeSession(config, noise=OsNoise(), report=report)
