"""The parts of Flower that we rely on. After an upgrade that breaks them, read `federation/flower_internals.py`."""

from __future__ import annotations

from importlib import metadata

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.supercore.task_identity import TaskIdentity

from aevorium.federation.flower_internals import assume_identity, new_run, set_message_id, through_the_wire
from aevorium.federation.local import InProcessGrid, run_in_process


def test_the_version_is_the_one_whose_private_parts_were_read() -> None:
    assert metadata.version("flwr") == "1.41.0"


def test_the_grid_has_the_members_that_ours_implements() -> None:
    assert Grid.__abstractmethods__ <= set(vars(InProcessGrid))


def test_the_strategy_has_the_hooks_that_ours_overrides() -> None:
    for hook in ("configure_train", "aggregate_train"):
        assert callable(getattr(FedAvg, hook))
    assert callable(Strategy.start)


def test_identity_and_message_ids_are_where_we_set_them() -> None:
    assume_identity(77)
    assert (TaskIdentity.task_id, TaskIdentity.run_id) == (1, 77)
    assert new_run(77).run_id == 77
    message = Message(RecordDict({"c": ConfigRecord({"x": 1})}), dst_node_id=5, message_type="query.plan")
    set_message_id(message, "abc")
    received = through_the_wire(message)
    assert received is not message
    assert received.metadata.message_id == "abc"
    assert received.content["c"]["x"] == 1


def test_a_message_that_a_node_cannot_answer_comes_back_as_an_error_without_text() -> None:
    app = ClientApp()

    @app.query("boom")
    def boom(message: Message, context: object) -> Message:
        raise ValueError("Jane Doe, born 1931")

    replies: list[Message] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: object) -> None:
        nodes = list(grid.get_node_ids())
        messages = [Message(RecordDict(), dst_node_id=node, message_type="query.boom") for node in nodes]
        replies.extend(grid.send_and_receive(messages, timeout=10))

    run_in_process(server, app, nodes=["a", "b"], workers=2, run_config={})
    assert len(replies) == 2
    for reply in replies:
        assert reply.has_error()
        assert "Jane" not in str(reply.error.reason)


def test_what_cannot_travel_fails_in_process_too() -> None:
    with pytest.raises(TypeError):
        ConfigRecord({"x": object()})
    with pytest.raises((TypeError, AttributeError)):
        ArrayRecord([object()])
