"""Non-interference: with the gate's numbers replaced by fixed ones, nothing that a node sends depends on its records.

The same study runs twice, on tables with other values and another number of rows. Everything that a node computes
from records and lets out through `ReleaseGate.release` is replaced by fixed numbers of the same shape; whatever still
differed in the bytes that leave would have left by another way. Times and Flower's message numbers are left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from aevorium.errors import AevoriumError, DataError
from aevorium.federation.local import InProcessGrid
from aevorium.federation.protocol import CountReply, CountRequest, TrainRequest
from aevorium.governance.gate import ReleasedSteps, ReleaseGate
from aevorium.governance.secrets import Secrets
from aevorium.node.session import NodeConfig, NodeSession, OpenSession, open_session
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.mechanisms import OsNoise
from aevorium.privacy.numbers import Numbers
from aevorium.progress import Report
from aevorium.schema.table import TableSchema
from aevorium.workspace import Workspace

pytestmark = pytest.mark.long

SCHEMA = """
name = "clinic"
unit_id = "id"
[columns.age]
kind = "continuous"
min = 18
max = 90
integer = true
[columns.glucose]
kind = "continuous"
min = 50
max = 400
missing = true
[columns.ill]
kind = "categorical"
categories = ["yes", "no"]
"""
OPTIONS = RunOptions(epsilon=3.0, rounds=2, epochs=1, batch_size=64, pretraining_steps=5, min_nodes=1)
Produce = Callable[[], Numbers]
Sent = dict[int, list[tuple[str, object]]]


def _table(path: Path, *, rows: int, share: float) -> Path:
    """A table whose number of rows, values and missing cells all follow from the arguments."""
    rng = np.random.default_rng(rows)
    glucose = np.round(rng.uniform(50, 400, rows), 1).astype(object)
    glucose[rng.random(rows) < share] = ""
    frame = pd.DataFrame(
        {
            "id": [f"patient-{rows}-{place}" for place in range(rows)],
            "age": rng.integers(18, 30 + int(60 * share), rows),
            "glucose": glucose,
            "ill": np.where(rng.random(rows) < share, "yes", "no"),
        }
    )
    frame.to_csv(path, index=False)
    return path


def _fixed(numbers: Numbers, place: str) -> Numbers:
    """Numbers of the same types and shapes that depend on nothing but the place."""
    rng = np.random.default_rng(zlib.crc32(place.encode()))

    def fixed(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind == "f":
            return rng.normal(0, 0.05, array.shape).astype(array.dtype)
        return (np.full(array.shape, 250) if array.size == 1 else rng.integers(0, 40, array.shape)).astype(array.dtype)

    return tuple(fixed(array) for array in numbers)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What each node sends, message by message."""
    collected: Sent = {}
    answer = InProcessGrid._answer

    def spy(self: InProcessGrid, message: Message) -> Message:
        reply = answer(self, message)
        node = message.metadata.dst_node_id
        collected.setdefault(node, []).append((message.metadata.message_type, _content(reply)))
        return reply

    monkeypatch.setattr(InProcessGrid, "_answer", spy)
    return collected


def _content(reply: Message) -> object:
    """Every byte of a reply but its head, which holds numbers and times of Flower's; of the head, what is ours."""
    head = (reply.metadata.message_type, reply.metadata.src_node_id, reply.metadata.dst_node_id)
    if reply.has_error():
        return (*head, reply.error.code, reply.error.reason)
    parts = {key: part.deflate() for key, part in get_all_nested_objects(reply).items() if part is not reply}
    parts.pop(reply.object_id, None)
    return (*head, parts)


@pytest.fixture
def closed_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    release, step_release = ReleaseGate.release, ReleasedSteps.release

    def fixed(self: ReleaseGate, run_id: str, *, phase: str, round: int, produce: Produce, **rest: Any) -> Numbers:
        place = f"{self._node} {phase} {round}"
        return release(self, run_id, phase=phase, round=round, produce=lambda: _fixed(produce(), place), **rest)

    def fixed_step(self: ReleasedSteps, step: int, *, produce: Produce) -> Numbers:
        return step_release(self, step, produce=lambda: _fixed(produce(), str(step)))

    monkeypatch.setattr(ReleaseGate, "release", fixed)
    monkeypatch.setattr(ReleasedSteps, "release", fixed_step)


def _run(
    folder: Path, tables: dict[str, Path], *, opening: OpenSession = open_session, options: RunOptions = OPTIONS
) -> None:
    schema = TableSchema.from_toml(SCHEMA, source="test")
    run_federation(
        schema,
        schema_text=SCHEMA,
        plan=plan_study(schema, list(tables), options),
        nodes=[NodeSource(name, path) for name, path in tables.items()],
        workspace=Workspace(folder / "workspace"),
        secrets=Secrets.in_files(folder / "key"),
        options=options,
        open_session=opening,
    )


def _twice(
    folder: Path,
    sent: Sent,
    *,
    opening: OpenSession = open_session,
    options: RunOptions = OPTIONS,
    nodes: str = "ab",
) -> tuple[Sent, Sent]:
    """Runs the study on two tables that have nothing in common but their schema."""
    found = []
    for rows, share in ((300, 0.1), (130, 0.8)):
        part = folder / str(rows)
        part.mkdir()
        tables = {
            name: _table(part / f"{name}.csv", rows=rows + place, share=share) for place, name in enumerate(nodes)
        }
        _run(part, tables, opening=opening, options=options)
        found.append(dict(sent))
        sent.clear()
    return found[0], found[1]


def _differences(first: Sent, second: Sent) -> list[str]:
    """Messages in which two runs differ."""
    assert first.keys() == second.keys()
    assert [len(first[node]) for node in first] == [len(second[node]) for node in first]
    return [one[0] for node in first for one, other in zip(first[node], second[node], strict=True) if one != other]


@pytest.mark.usefixtures("closed_gate")
def test_nothing_but_the_gate_s_numbers_depends_on_records(tmp_path: Path, sent: Sent) -> None:
    first, second = _twice(tmp_path, sent)
    assert [kind for kind, _ in first[1001]] == [
        "query.plan", "query.count", "query.statistics", "query.associations", "train", "train", "query.finish",
    ]  # fmt: skip
    assert _differences(first, second) == []


@pytest.mark.usefixtures("closed_gate")
def test_nothing_but_the_gate_s_numbers_depends_on_records_under_secure_aggregation(tmp_path: Path, sent: Sent) -> None:
    options = replace(OPTIONS, trust="secure-aggregation", recipe="dp-sgd", rounds=1, min_nodes=3)
    first, second = _twice(tmp_path, sent, options=options, nodes="abc")
    kinds = [kind for kind, _ in first[1001]]
    assert kinds[:3] == ["query.plan", "query.count", "query.statistics"]
    assert kinds[-2:] == ["query.loss", "query.finish"]
    assert set(kinds[3:-2]) == {"query.gradient"}
    assert _differences(first, second) == []


def test_through_the_gate_every_phase_that_reads_records_differs(tmp_path: Path, sent: Sent) -> None:
    """What the test above would see if the gate's numbers were not replaced: it can see a difference."""
    first, second = _twice(tmp_path, sent)
    assert set(_differences(first, second)) >= {"query.count", "query.statistics", "query.associations", "train"}


class _ExactWeight(NodeSession):
    """Weighs its model by its exact number of records."""

    def train(self, request: TrainRequest, vector: np.ndarray) -> object:  # type: ignore[override]
        reply, trained, _ = super().train(request, vector)
        return reply, trained, float(len(self._records.load().frame))


class _ExactFlag(NodeSession):
    """Tells whether it holds more than 200 records."""

    def count(self, request: CountRequest) -> CountReply:
        reply = super().count(request)
        return reply.model_copy(update={"is_simulated": len(self._records.load().frame) > 200})


class _ExactRefusal(NodeSession):
    """Refuses a round by what its records are."""

    def train(self, request: TrainRequest, vector: np.ndarray) -> object:  # type: ignore[override]
        if self.config.name == "b" and len(self._records.load().frame) > 200:
            raise AevoriumError("RUN_MISSED", "Too many records.")
        return super().train(request, vector)


@pytest.mark.usefixtures("closed_gate")
@pytest.mark.parametrize(
    ("leaky", "messages"),
    [(_ExactWeight, {"train"}), (_ExactFlag, {"query.count"}), (_ExactRefusal, {"train"})],
    ids=["weight", "flag", "refusal"],
)
def test_a_node_that_leaks_is_noticed(
    tmp_path: Path, sent: Sent, leaky: Callable[..., NodeSession], messages: set[str]
) -> None:
    def opening(config: NodeConfig, report: Report) -> NodeSession:
        return leaky(config, noise=OsNoise(), report=report)

    first, second = _twice(tmp_path, sent, opening=opening)
    assert messages <= set(_differences(first, second))


BROKEN = {
    "text where a number belongs": "id,age,glucose,ill\np1,old,90,yes\n",
    "a category of nobody's": "id,age,glucose,ill\np1,40,90,maybe\n",
    "a cell that may not be empty": "id,age,glucose,ill\np1,,90,yes\n",
    "the same patient twice": "id,age,glucose,ill\np1,40,90,yes\np1,41,91,no\n",
    "a column too few": "id,age,ill\np1,40,yes\n",
    "another encoding": "id,age,glucose,ill\np\xe4,40,90,yes\n",
}


def test_a_table_that_cannot_be_used_says_the_same_whatever_is_wrong(tmp_path: Path, sent: Sent) -> None:
    told = {}
    for place, (name, text) in enumerate(BROKEN.items()):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "a.csv").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError):
            _run(folder, {"a": folder / "a.csv"})
        told[name] = dict(sent)
        sent.clear()
    first, *others = told.values()
    assert [kind for kind, _ in first[1001]] == ["query.plan", "query.count", "query.finish"]
    assert first[1001][1][1][-1] == "NODE_NOT_READY"  # type: ignore[index]
    for other in others:
        assert _differences(first, other) == []
