"""A request that a node was lost with is sent again, to that node alone, for as long as that may help."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from pydantic import BaseModel

from aevorium.federation import resending
from aevorium.federation.flower_internals.messages import assume_identity, lost_reply, new_run
from aevorium.federation.link import PollingGrid
from aevorium.federation.local import InProcessGrid
from aevorium.federation.protocol import error_reply
from aevorium.federation.resending import ResendingGrid
from aevorium.server.exchange import ask
from aevorium.server.forms import ReplyForm

Behave = Callable[[Message, int], Message]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assume_identity(1)
    monkeypatch.setattr(resending, "_AGAIN", 0.02)
    monkeypatch.setattr(resending, "_PRESENT", 0.3)


class _Anything(ReplyForm):
    """Takes every reply."""

    def check(self, message: Message) -> None:
        """Passes."""


class Nodes:
    """Nodes 1 and 2 of a grid; each answers its n-th request as it is told to."""

    def __init__(self, **behave: Behave) -> None:
        self.asked: Counter[int] = Counter()
        app = ClientApp()

        @app.query("plan")
        def plan(message: Message, context: Context) -> Message:
            self.asked[context.node_id] += 1
            return behave[f"node{context.node_id}"](message, self.asked[context.node_id])

        contexts = {
            number: Context(run_id=1, node_id=number, node_config={}, state=RecordDict(), run_config={})
            for number in (1, 2)
        }
        self.grid = InProcessGrid(app, contexts=contexts, run=new_run(1), workers=2)

    def ask(self, grid: ResendingGrid, *, timeout: float = 10.0) -> dict[int, str | int]:
        contents = {number: RecordDict({"c": ConfigRecord({"to": number})}) for number in (1, 2)}
        replies = ask(grid, contents, message_type="query.plan", timeout=timeout, form=_Anything(BaseModel))
        valid = {number: int(str(reply.content["c"]["x"])) for number, reply in replies.valid.items()}
        return {**valid, **replies.codes}


@pytest.fixture
def nodes() -> Iterator[list[Nodes]]:
    made: list[Nodes] = []
    yield made
    for each in made:
        each.grid.close()


def answers(message: Message, number: int) -> Message:
    assert message.content["c"]["to"] == message.metadata.dst_node_id
    return Message(RecordDict({"c": ConfigRecord({"x": number})}), reply_to=message)


def is_lost(message: Message, number: int) -> Message:
    return lost_reply(message)


def comes_back(message: Message, number: int) -> Message:
    return answers(message, number) if number > 3 else lost_reply(message)


def refuses(message: Message, number: int) -> Message:
    return error_reply("BUDGET_EXCEEDED", to=message)


def test_a_node_that_comes_back_answers_and_the_other_is_asked_once(nodes: list[Nodes]) -> None:
    nodes.append(study := Nodes(node1=comes_back, node2=answers))
    assert study.ask(ResendingGrid(study.grid, patience=10)) == {1: 4, 2: 1}
    assert study.asked == {1: 4, 2: 1}


def test_a_node_that_crashed_while_it_answered_is_asked_again(nodes: list[Nodes]) -> None:
    def crashes(message: Message, number: int) -> Message:
        return (
            answers(message, number) if number > 1 else Message(Error(ErrorCode.CLIENT_APP_CRASHED), reply_to=message)
        )

    nodes.append(study := Nodes(node1=crashes, node2=answers))
    assert study.ask(ResendingGrid(study.grid, patience=10)) == {1: 2, 2: 1}


def test_a_refusal_is_an_answer(nodes: list[Nodes]) -> None:
    nodes.append(study := Nodes(node1=refuses, node2=answers))
    assert study.ask(ResendingGrid(study.grid, patience=10)) == {1: "BUDGET_EXCEEDED", 2: 1}
    assert study.asked == {1: 1, 2: 1}


def test_a_node_that_stays_away_is_waited_for_once_and_not_for_the_whole_time(nodes: list[Nodes]) -> None:
    nodes.append(study := Nodes(node1=is_lost, node2=answers))
    grid = ResendingGrid(study.grid, patience=0.2)
    began = time.monotonic()
    assert study.ask(grid, timeout=60) == {1: "NODE_UNREACHABLE", 2: 1}
    assert 0.2 <= time.monotonic() - began < 10
    tries = study.asked[1]
    assert tries > 2
    assert study.ask(grid, timeout=60) == {1: "NODE_UNREACHABLE", 2: 2}
    assert study.asked[1] == tries + 1


def test_a_node_that_was_given_up_and_answers_is_waited_for_again(nodes: list[Nodes]) -> None:
    is_back = threading.Event()

    def behave(message: Message, number: int) -> Message:
        return answers(message, number) if is_back.is_set() else lost_reply(message)

    nodes.append(study := Nodes(node1=behave, node2=answers))
    grid = ResendingGrid(study.grid, patience=0.1)
    study.ask(grid)
    is_back.set()
    before = study.asked[1]
    assert study.ask(grid)[1] == before + 1
    is_back.clear()
    before = study.asked[1]
    study.ask(grid)
    assert study.asked[1] > before + 1


def test_each_absence_is_waited_for_as_long_as_the_first(nodes: list[Nodes]) -> None:
    """A node that had taken the request before it was lost once more was back in between."""

    def behave(message: Message, number: int) -> Message:
        if number in (2, 4):
            time.sleep(0.4)
        return answers(message, number) if number > 5 else lost_reply(message)

    nodes.append(study := Nodes(node1=behave, node2=answers))
    assert study.ask(ResendingGrid(study.grid, patience=0.3)) == {1: 6, 2: 1}


def test_the_time_out_holds_also_for_a_node_that_is_away(nodes: list[Nodes]) -> None:
    nodes.append(study := Nodes(node1=is_lost, node2=answers))
    began = time.monotonic()
    assert study.ask(ResendingGrid(study.grid, patience=60), timeout=0.5) == {1: "NODE_UNREACHABLE", 2: 1}
    assert time.monotonic() - began < 10


def test_a_copy_is_wanted_no_longer_than_the_first_one(nodes: list[Nodes]) -> None:
    until: list[float] = []

    def behave(message: Message, number: int) -> Message:
        until.append(message.metadata.created_at + message.metadata.ttl)
        return comes_back(message, number)

    nodes.append(study := Nodes(node1=behave, node2=answers))
    study.ask(ResendingGrid(study.grid, patience=10), timeout=30)
    assert len(until) == 4
    assert max(until) - min(until) < 0.5


def test_a_message_taken_by_a_connection_that_has_ended_counts_as_lost(
    nodes: list[Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's process was killed with the message, and connected again before Flower had missed it."""
    monkeypatch.setattr("aevorium.federation.link._LOOK", 0.05)
    ended = threading.Event()
    began = {1: "early", 2: "early"}

    def never(message: Message, number: int) -> Message:
        if number == 1:
            began[1] = "later"
            ended.wait(20)
        return answers(message, number)

    nodes.append(study := Nodes(node1=never, node2=answers))
    grid = PollingGrid(study.grid, node_ids=(1, 2), connections=lambda: dict(began))
    # Both nodes' threads: one of node 1 hangs, as a message that nobody will answer.
    try:
        assert study.ask(ResendingGrid(grid, patience=10)) == {1: 2, 2: 1}
    finally:
        ended.set()
