"""Nodes that are killed at any moment: they start again, the run goes on, and no ε is spent twice or forgotten.

What is asserted holds whenever a process dies, so a failure is never a matter of timing: the false-alarm rate is none.
How much of what could go wrong is met depends on the moments; those between the steps of a release are met for certain.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import Message
from forked_nodes import POINTS, Fate, ForkedGrid, Judge

from aevorium.federation import resending
from aevorium.federation.flower_internals.messages import take_apart
from aevorium.federation.protocol import (
    COUNT,
    FINISH,
    PLAN,
    STATISTICS,
    TRAIN,
    TrainingSettings,
    TrainRequest,
    error_code,
    read_body,
)
from aevorium.governance.chain import AuditChain
from aevorium.governance.policy import NodePolicy
from aevorium.governance.secrets import Secrets
from aevorium.node.run import NodeRun
from aevorium.node.session import NodeConfig
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import is_within
from aevorium.privacy.ledger import LedgerRun, SqliteLedger
from aevorium.progress import ignore
from aevorium.schema.table import TableSchema
from aevorium.server.journal import Journal
from aevorium.server.record import StudyRecord
from aevorium.server.study import StudyConductor
from aevorium.workspace import Workspace

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="starts nodes by fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SCHEMA = """
name = "clinic"
[columns.age]
kind = "continuous"
min = 18
max = 90
[columns.ill]
kind = "categorical"
categories = ["yes", "no"]
"""
RUN = "run-1"
PHASES = {COUNT: "count", STATISTICS: "statistics", TRAIN: "training"}


class Study:
    """A run over nodes that are killed, and what is known of it from outside."""

    def __init__(self, folder: Path, judge: Judge, *, rounds: int, nodes: int = 2) -> None:
        schema = TableSchema.from_toml(SCHEMA, source="test")
        names = [f"node{number}" for number in range(nodes)]
        options = RunOptions(epsilon=4.0, rounds=rounds, recipe="dp-sgd", epochs=1, batch_size=100)
        self.plan = plan_study(schema, names, options)
        self.homes = {number: folder / name for number, name in enumerate(names, start=1)}
        self.payloads: dict[tuple[int, str, int], set[bytes]] = {}
        configs = {}
        for number, home in self.homes.items():
            table = folder / f"{home.name}.csv"
            rng = np.random.default_rng(number)
            pd.DataFrame({"age": rng.integers(18, 91, 200), "ill": rng.choice(["yes", "no"], 200)}).to_csv(table)
            configs[number] = NodeConfig(home.name, data=table, schema=schema, home=home, policy=NodePolicy())
        self.grid = ForkedGrid(configs, judge=judge, after_kill=self.check, received=self._receive)
        workspace = Workspace(folder / "workspace")
        workspace.create()
        record = StudyRecord(
            run_id=RUN, server="s", plan=self.plan, seed=0, is_simulated_federation=True, started_at="2026"
        )
        secrets = Secrets.in_files(folder / "key")
        secrets.keys.load_or_create()
        self.journal = Journal(workspace, secrets=secrets, record=record, schema_text=SCHEMA)
        self._conductor = StudyConductor(
            self.grid,
            schema=schema,
            journal=self.journal,
            settings=TrainingSettings(draws=1),
            report=ignore,
            timeout=600,
            should_stop=lambda: False,
        )

    def conduct(self) -> None:
        try:
            self._conductor.conduct()
        finally:
            self.grid.close()

    def _receive(self, message: Message, reply: Message) -> None:
        assert error_code(reply) is None, error_code(reply)
        # All of the content, array and body, without the numbers that Flower gives to each message.
        _, parts = take_apart(reply)
        content = b"".join(parts[key] for key in sorted(parts) if key != reply.object_id)
        self.payloads.setdefault(_place(message), set()).add(content)

    def run(self, number: int) -> LedgerRun | None:
        return SqliteLedger(self.homes[number] / "ledger.db").run(RUN)

    def check(self, number: int) -> None:
        """What holds of a node whenever it was killed."""
        chain = AuditChain(self.homes[number] / "audit.db").verify()
        assert chain.is_sound, chain.problem
        run = self.run(number)
        received = [place for place in self.payloads if place[0] == number]
        if run is None:
            assert not received
            return
        # Its noise is calibrated here once, and not in every process that is started after this one.
        assert NodeRun.read(run).schedule is not None or run.find(phase="statistics", round=0) is None
        releases = [
            release
            for _, kind, round_number in received
            if kind in PHASES and (release := run.find(phase=PHASES[kind], round=round_number)) is not None
        ]
        assert len(releases) == sum(kind in PHASES for _, kind, _ in received)
        assert {release.state for release in releases} <= {"committed"}
        events = [event for release in releases for event in release.events]
        assert is_within(events, run.events)
        assert epsilon(events, delta=self.plan.delta) <= epsilon(run.events, delta=self.plan.delta)
        assert all(len(contents) == 1 for contents in self.payloads.values())

    def check_end(self) -> None:
        """The run has finished, and cost each node what its plan says, told once."""
        assert self.journal.record.status == "finished"
        releases = [("count", 0), ("statistics", 0)]
        releases += [("training", number) for number in range(1, self.plan.rounds + 1)]
        for number, home in self.homes.items():
            self.check(number)
            run = self.run(number)
            assert run is not None
            assert run.closed_at is not None
            assert run.events == run.planned_events
            assert [(release.phase, release.round) for release in run.releases] == releases
            entries = AuditChain(home / "audit.db").entries()
            told = [(entry.detail["phase"], entry.detail["round"]) for entry in entries if entry.action == "release"]
            assert told == releases
            for action in ("plan_agreed", "events_fixed", "run_closed"):
                assert sum(entry.action == action for entry in entries) == 1
            assert SqliteLedger(home / "ledger.db").owed() == ()
            assert not [entry.action for entry in entries if "refused" in entry.action or "failed" in entry.action]
        assert {place[1] for place in self.payloads} == {PLAN, COUNT, STATISTICS, TRAIN, FINISH}
        spent = {node.name: node.spent for node in self.journal.record.nodes}
        for number, home in self.homes.items():
            assert spent[home.name] == epsilon(self.run(number).events, delta=self.plan.delta) <= self.plan.epsilon


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Study]]:
    threads = torch.get_num_threads()
    # A forked process must not wait for threads that only its parent has.
    torch.set_num_threads(1)
    monkeypatch.setattr(resending, "_AGAIN", 0.0)
    monkeypatch.setattr(resending, "_LONGEST_POLL", 0.001)
    yield lambda judge, **options: Study(tmp_path, judge, **options)
    torch.set_num_threads(threads)


WHERE: dict[tuple[int, str, int], tuple[str, ...]] = {
    (1, PLAN, 0): ("before the agreement", "after the agreement", "before the reply"),
    (2, PLAN, 0): ("before the audit entry",),
    (1, COUNT, 0): ("after the reservation", "after the commit", "before the reply"),
    (1, STATISTICS, 0): ("before the events are fixed", "after the events are fixed", "while the noise is drawn"),
    (2, STATISTICS, 0): ("before the audit entry", "before the commit", "before the reply"),
    (1, TRAIN, 1): (
        "before the reservation", "after the reservation", "while the noise is drawn", "before the commit",
        "within the commit", "after the commit",
    ),
    (1, TRAIN, 2): ("before the audit entry",),
    (2, TRAIN, 2): ("after the audit entry", "before the audit entry"),
    (1, TRAIN, 3): ("after the entry is settled", "before the views are written"),
    (2, TRAIN, 3): ("before the reply",),
    (1, FINISH, 0): ("before the end", "after the end", "before the reply"),
    (2, FINISH, 0): ("before the audit entry",),
}  # fmt: skip
"""Where a node dies while it answers a message, one point after the other as it is asked again."""


def _place(message: Message) -> tuple[int, str, int]:
    kind = message.metadata.message_type
    return message.metadata.dst_node_id, kind, read_body(message, TrainRequest).round if kind == TRAIN else 0


def test_a_node_may_die_at_any_step_of_a_release(study: Callable[..., Study]) -> None:
    """Each point in turn, each time the message is sent again; then the reply itself is lost."""
    assert set(POINTS) == {point for points in WHERE.values() for point in points}

    def judge(message: Message, count: int) -> Fate:
        points = WHERE.get(_place(message), ())
        if count < len(points):
            return Fate(point=points[count])
        return Fate(is_dropped=count == len(points))

    run = study(judge, rounds=3)
    run.conduct()
    run.check_end()
    # Every one of them was reached.
    assert run.grid.kills == sum(len(points) for points in WHERE.values())


def _at_random(seed: int, *, times: int) -> Judge:
    """Kills a node at each message so many times, within the time that an answer commonly takes or soon after."""
    moments = random.Random(seed)

    def judge(message: Message, count: int) -> Fate:
        if count < times:
            return Fate(delay=moments.uniform(0, 1.2))
        return Fate(is_dropped=count == times and moments.random() < 0.5)

    return judge


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_nodes_die_at_random_moments(study: Callable[..., Study]) -> None:
    run = study(_at_random(1, times=4), rounds=21)
    run.conduct()
    run.check_end()
    assert run.grid.kills == 2 * 25 * 4


def test_nodes_die_at_random_moments(study: Callable[..., Study]) -> None:
    run = study(_at_random(2, times=2), rounds=2)
    run.conduct()
    run.check_end()
    assert run.grid.kills == 2 * 6 * 2
