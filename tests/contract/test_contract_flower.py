"""The parts of Flower that we rely on. After an upgrade that breaks them, read `federation/flower_internals`."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import time
from importlib import metadata

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from aevorium.federation.flower_internals.messages import (
    assume_identity,
    is_lost,
    lost_reply,
    new_run,
    set_answered_id,
    set_message_id,
    through_the_wire,
)
from aevorium.federation.flower_internals.processes import keep_durations
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


def test_the_supernode_s_loop_has_the_parts_that_we_replace() -> None:
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    source = inspect.getsource(loop.start_client_internal)
    assert loop.time is time
    for part in ("_pull_and_store_message(", "_push_messages(", "time.sleep("):
        assert part in source, part
    used = set(inspect.signature(loop.start_client_internal).parameters)
    assert {
        "state_factory", "server_address", "node_config", "root_certificates", "insecure", "authentication_keys",
        "isolation",
    } <= used  # fmt: skip


def test_pulls_can_be_retried_sooner() -> None:
    for function in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        assert {"initial_backoff", "backoff_cap"} <= set(function.__kwdefaults__ or {})


def test_the_superlink_can_be_made_with_our_doors_and_secrets() -> None:
    config = importlib.import_module("flwr.superlink.config_loader").SuperLinkLifespanConfig
    names = {field.name for field in dataclasses.fields(config)}
    assert {"authn_plugin", "superexec_auth_secret", "enable_supernode_auth", "isolation", "database"} <= names
    source = inspect.getsource(importlib.import_module("flwr.superlink.main").create_app)
    for attribute in ("superexec_auth_secret", "enable_supernode_auth", "authn_plugin"):
        assert attribute in source


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


def test_what_a_lost_node_is_known_by_is_where_we_look() -> None:
    from flwr.proto.node_pb2 import NodeInfo

    message = Message(RecordDict(), dst_node_id=5, message_type="query.plan")
    set_message_id(message, "first")
    reply = lost_reply(message)
    assert is_lost(reply)
    assert reply.metadata.reply_to_message_id == "first"
    set_answered_id(reply, "second")
    assert reply.metadata.reply_to_message_id == "second"
    assert NodeInfo(last_activated_at="2026").last_activated_at == "2026"


def test_heartbeats_are_announced_and_sent_by_the_names_that_we_set() -> None:
    """A node is missed after twice the interval that it announces, which may be 10 s at the least."""
    from flwr.common import constant

    assert (constant.HEARTBEAT_MIN_INTERVAL, constant.HEARTBEAT_PATIENCE) == (10, 2)
    for name, parts in (
        ("flwr.supercore.heartbeat", ("HEARTBEAT_DEFAULT_INTERVAL - HEARTBEAT_CALL_TIMEOUT",)),
        ("flwr.supernode.fleet_http_connection", ("heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL",)),
    ):
        module = importlib.import_module(name)
        assert module.HEARTBEAT_DEFAULT_INTERVAL == 30
        source = inspect.getsource(module)
        assert all(part in source for part in parts)


def test_a_supernode_does_not_tell_how_long_an_answer_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training takes longer with more records; Flower reports the seconds with every reply."""
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    source = inspect.getsource(loop._push_messages)
    assert source.count("clientapp_runtime = state.get_message_processing_duration(") == 1
    state = InMemoryNodeState(ObjectStoreFactory().store())
    state.msg_store["m"] = object()
    monkeypatch.setattr(
        InMemoryNodeState, "get_message_processing_duration", InMemoryNodeState.get_message_processing_duration
    )
    for call in (state.record_message_processing_start, state.record_message_processing_end):
        call("m")
        time.sleep(0.01)
    assert state.get_message_processing_duration("m") > 0
    keep_durations()
    assert state.get_message_processing_duration("m") == 0
