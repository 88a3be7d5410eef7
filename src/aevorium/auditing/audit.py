"""The use case of a privacy audit: nodes are attacked as they are, on records that nobody has.

One run is rehearsed. Then nodes answer its requests again and again, with one known record, the canary, and without it:

1. without noise, each release must move by no more than what is charged, whichever canary is added, and nothing else
   may change at all;
2. with noise, there must be as much of it as is charged;
3. an attacker who knows everything else must not find the canary more often than the ledger's events allow.

What passes is not proven private: an attack shows what is lost at the least. What fails is proven wrong, but for a
stated chance.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.auditing.attack import Attack, Suspect
from aevorium.auditing.releases import ReleaseAudit, releases_of
from aevorium.auditing.replay import Exchange, NoNoise, Observation, Recorder, replay
from aevorium.auditing.tables import AuditTables
from aevorium.conducting import SIMULATED, conduct_run
from aevorium.errors import AevoriumError, ConfigError
from aevorium.federation.local import run_in_process
from aevorium.federation.protocol import STATISTICS, StatisticsRequest, read_body
from aevorium.governance.policy import Allowance, NodePolicy, simulated_policy
from aevorium.governance.secrets import Secrets
from aevorium.node.app import create_client_app
from aevorium.node.records import NodeRecords
from aevorium.node.session import NodeConfig, NodeSession
from aevorium.planning import RunOptions
from aevorium.privacy.attack import exact_curve
from aevorium.privacy.entropy import os_generator
from aevorium.privacy.hits import Hits, exceeds, gaussian_epsilon, least_epsilon, tries_to_refute
from aevorium.privacy.mechanisms import NoiseSource, OsNoise
from aevorium.privacy.phases import PhaseBudget, plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.progress import PhaseStarted, Report, StepProgress, ignore
from aevorium.schema.table import TableSchema
from aevorium.server.record import software_versions
from aevorium.workspace import Workspace

__all__ = ["PrivacyAudit", "audit_privacy"]

_CONFIDENCE = 0.95
"""Of the bounds that are shown."""

_PROOF = 1 - 1e-5
"""Of the verdict: an audit of what keeps its promise fails once in 100,000."""

_NORMAL = 1.0
"""Noise as wide as this is taken as normal."""

_LEARNT = 0.25
"""Share of the repeats that the attack learns from and is not judged by."""


class PrivacyAudit(BaseModel):
    """What an audit found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str = Field(description="Name of the schema.")
    epsilon: float = Field(description="The plan's ε.")
    delta: float = Field(description="The plan's δ.")
    recipe: str = Field(description="The plan's recipe.")
    trust: str = Field(description="Who may see what nodes send.")
    nodes: int = Field(description="How many nodes.")
    records: int = Field(description="Made-up records of all nodes, without the canary.")
    repeats: int = Field(description="How often the run was released with the canary, and how often without.")
    releases: tuple[ReleaseAudit, ...] = Field(description="What was found of each noisy count.")
    true_positive_rate: float = Field(description="Share of the canaries that the attack found.")
    false_positive_rate: float = Field(description="Share of its false alarms.")
    allowed_true_positive_rate: float = Field(
        description="The most that the events of the run allow at as many false alarms."
    )
    confidence: float = Field(description="Of `least_epsilon` and `gaussian_epsilon`.")
    least_epsilon: float = Field(description="ε that the attack showed at δ, whatever the mechanism.")
    gaussian_epsilon: float | None = Field(
        description="ε that it showed if the noise is normal; null where it is too narrow, or a model was trained."
    )
    refuting_repeats: int | None = Field(
        description="Repeats in which a perfect attack would have refuted the plan; null if no number would do."
    )
    problems: tuple[str, ...] = Field(description="What contradicts the plan; none if it passed.")
    seconds: float = Field(description="How long it took.")
    versions: dict[str, str] = Field(description="Versions of what it depends on.")

    @property
    def passed(self) -> bool:
        """Whether nothing contradicts the plan."""
        return not self.problems

    @property
    def could_be_refuted(self) -> bool:
        """Whether the attack had a chance to contradict the plan in so many repeats."""
        return self.refuting_repeats is not None and self.refuting_repeats <= self.repeats


def audit_privacy(
    schema: TableSchema,
    *,
    schema_text: str,
    plan: StudyPlan,
    tables: AuditTables,
    options: RunOptions,
    folder: Path,
    repeats: int,
    report: Report = ignore,
    noise: NoiseSource | None = None,
) -> PrivacyAudit:
    """Audits the nodes of this installation by a plan.

    Args:
        schema: The schema.
        schema_text: The same as TOML.
        plan: A private plan that declares its records, without evaluation (each node would hold out other records).
        tables: Tables of made-up records.
        options: What else a run needs.
        folder: Where the nodes' homes are made; it must be empty, and its owner removes it.
        repeats: How often to release the run with the canary, and how often without.
        report: Takes the progress.
        noise: Source of the noise of counts and tables; the nodes' own if None.

    Raises:
        ConfigError: CONFIG_CONFLICT, if the plan has no privacy to audit.
        AevoriumError: PRIVACY_AUDIT_FAILED, if an answer tells of a record in what nobody is charged for.
    """
    if not plan.is_private:
        raise ConfigError(
            "CONFIG_CONFLICT",
            "A run without privacy promises nothing that could be audited.",
            hint="Give a finite --epsilon, and no noise multiplier of 0.",
        )
    started = time.monotonic()
    desk = _Desk(schema, plan=plan, tables=tables, folder=folder, noise=noise or OsNoise())
    report(PhaseStarted("rehearsal", nodes=len(tables.nodes)))
    exchanges = desk.rehearse(schema_text=schema_text, options=options)
    without = desk.exact(exchanges)
    budget = plan_budget(plan)
    shown = list(tables.nodes) if plan.noise_shares is not None else [desk.first]
    releases = releases_of(exchanges, budget, schema=schema, nodes=len(shown))
    present = {kind: desk.exact(exchanges, canary=kind) for kind in tables.canaries}
    for observed in present.values():
        _require_alike(exchanges, without, observed)
        for release in releases:
            release.move(without, observed)
    attacked = next(iter(present))
    attack = Attack(exchanges, without=without, present=present[attacked], suspect=desk.suspect(exchanges))
    report(PhaseStarted("audit"))
    readings: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for done in range(repeats):
        for world, (kind, exact) in enumerate(((None, without), (attacked, present[attacked]))):
            observed = desk.noisy(exchanges, canary=kind)
            readings[world].append(attack.read(observed))
            for release in releases:
                release.watch(observed, exact=exact)
        report(StepProgress("repeats", done=done + 1, total=repeats))
    hits = _hits(attack, absent=np.array(readings[0]), present=np.array(readings[1]))
    found = tuple(release.audit() for release in releases)
    return _result(
        plan,
        budget,
        tables=tables,
        hits=hits,
        repeats=repeats,
        releases=found,
        problems=[f"{item.release}: {problem}" for item in found for problem in item.problems],
        seconds=time.monotonic() - started,
    )


def _result(
    plan: StudyPlan,
    budget: PhaseBudget,
    *,
    tables: AuditTables,
    hits: Hits,
    repeats: int,
    releases: tuple[ReleaseAudit, ...],
    problems: list[str],
    seconds: float,
) -> PrivacyAudit:
    curve = exact_curve(budget.events(plan.declared_size or 1.0))
    tries = tries_to_refute(curve, confidence=_PROOF)
    if exceeds(hits, curve, confidence=_PROOF):
        problems.append("an attack finds the canary more often than the events of the run allow")
    return PrivacyAudit(
        study=plan.study,
        epsilon=plan.epsilon,
        delta=plan.delta,
        recipe=plan.recipe,
        trust=plan.trust,
        nodes=len(tables.nodes),
        records=tables.records,
        repeats=repeats,
        releases=releases,
        true_positive_rate=hits.true_positive_rate,
        false_positive_rate=hits.false_positive_rate,
        allowed_true_positive_rate=curve.true_positive_rate(false_positive_rate=hits.false_positive_rate),
        confidence=_CONFIDENCE,
        least_epsilon=least_epsilon(hits, delta=plan.delta, confidence=_CONFIDENCE),
        gaussian_epsilon=(
            gaussian_epsilon(hits, delta=plan.delta, confidence=_CONFIDENCE) if _is_nearly_gaussian(budget) else None
        ),
        refuting_repeats=None if tries is None else math.ceil((tries + 1) / (1 - _LEARNT)),
        problems=tuple(problems),
        seconds=seconds,
        versions=software_versions(),
    )


def _hits(attack: Attack, *, absent: NDArray[np.float64], present: NDArray[np.float64]) -> Hits:
    learnt = max(2, round(_LEARNT * len(absent)))
    test = attack.learn(absent[:learnt], present[:learnt])
    found, alarms = test.finds(present[learnt:]), test.finds(absent[learnt:])
    return Hits(found=int(found.sum()), present=len(found), false_alarms=int(alarms.sum()), absent=len(alarms))


def _is_nearly_gaussian(budget: PhaseBudget) -> bool:
    """Whether everything but the count is tables with noise wide enough to be taken as normal."""
    shares = math.sqrt(budget.plan.noise_shares or 1)
    cells = (budget.histograms, budget.roundings, budget.associations.coarse, budget.associations.fine)
    return not budget.rounds and all(each is None or not 0 < each.sigma * shares < _NORMAL for each in cells)


def _require_alike(exchanges: Sequence[Exchange], one: Sequence[Observation], other: Sequence[Observation]) -> None:
    """Passes if nothing that nobody is charged for differs: then the numbers can be compared at all."""
    for exchange, before, after in zip(exchanges, one, other, strict=True):
        if before.public != after.public:
            raise AevoriumError(
                "PRIVACY_AUDIT_FAILED",
                f"The nodes break their promise: in the answer to {exchange.kind!r}, something that nobody is charged "
                "for tells of one record.",
            )


class _Desk:
    """Where nodes are opened anew for each answer, each with a ledger that knows of nothing."""

    def __init__(
        self, schema: TableSchema, *, plan: StudyPlan, tables: AuditTables, folder: Path, noise: NoiseSource
    ) -> None:
        self._schema = schema
        self._plan = plan
        self._tables = tables
        self._folder = folder
        self._noise = noise
        self._numbers = count()
        # How many patients there are is no secret here, and no reason to refuse.
        policy = simulated_policy(epsilon=plan.epsilon, delta=plan.delta)
        self._policy = NodePolicy(budget=policy.budget, allow=Allowance(min_patients=0))
        self.first = next(iter(tables.nodes))

    def rehearse(self, *, schema_text: str, options: RunOptions) -> tuple[Exchange, ...]:
        """Holds the whole run once, server and all, and returns what the nodes were asked."""
        workspace = Workspace(self._folder / "rehearsal").create()
        recorder = Recorder(create_client_app(self._nodes(self._folder / "homes", canary=None, noise=self._noise)))
        conduct_run(
            lambda app: run_in_process(app, recorder, nodes=list(self._tables.nodes), workers=1, run_config={}),
            schema=self._schema,
            schema_text=schema_text,
            plan=self._plan,
            workspace=workspace,
            secrets=Secrets.in_files(self._folder / "keys" / "checkpoint.key").open(workspace.root),
            options=options,
            server=SIMULATED,
            report=ignore,
            should_stop=lambda: False,
        )
        return recorder.exchanges([self.first, *(name for name in self._tables.nodes if name != self.first)])

    def exact(self, exchanges: Sequence[Exchange], *, canary: str | None = None) -> list[Observation]:
        """What nodes would answer without noise."""
        return self._replay(exchanges, canary=canary, noise=NoNoise())

    def noisy(self, exchanges: Sequence[Exchange], *, canary: str | None = None) -> list[Observation]:
        """What nodes answer."""
        return self._replay(exchanges, canary=canary, noise=self._noise)

    def suspect(self, exchanges: Sequence[Exchange]) -> Suspect:
        """The canary that is attacked, as a model sees it."""
        bins = next(read_body(item.request, StatisticsRequest).bins for item in exchanges if item.kind == STATISTICS)
        records = NodeRecords(
            self._tables.suspect,
            schema=self._schema,
            home=self._folder / "suspect",
            generator=os_generator,
            notice=lambda text: None,
        )
        return Suspect(records, schema=self._schema, plan=self._plan, bins=bins)

    def _replay(self, exchanges: Sequence[Exchange], *, canary: str | None, noise: NoiseSource) -> list[Observation]:
        home = self._folder / f"nodes-{next(self._numbers)}"
        try:
            return replay(exchanges, self._nodes(home, canary=canary, noise=noise))
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _nodes(self, home: Path, *, canary: str | None, noise: NoiseSource) -> dict[str, NodeSession]:
        return {name: self._open(name, canary=canary, home=home / name, noise=noise) for name in self._tables.nodes}

    def _open(self, name: str, *, canary: str | None, home: Path, noise: NoiseSource) -> NodeSession:
        has_canary = canary is not None and name == self.first
        config = NodeConfig(
            name=name,
            data=self._tables.canaries[str(canary)] if has_canary else self._tables.nodes[name],
            schema=self._schema,
            home=home,
            policy=self._policy,
            is_simulated=True,
        )
        return _Node(config, noise=noise, report=ignore)


class _Node(NodeSession):
    """A node whose steward does not look on: views of ledger and log are not written after each answer."""

    def answered(self, phase: str, *, code: str | None) -> None:
        """Tells nobody."""
