"""Messages: what is packed comes out the same; what is not ours is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from aevorium.errors import FederationError
from aevorium.federation.flower_internals.messages import assume_identity, through_the_wire
from aevorium.federation.protocol import (
    CountReply,
    PlanReply,
    PlanRequest,
    StatisticsReply,
    error_code,
    error_reply,
    pack,
    read_array,
    read_body,
    read_weight,
)
from aevorium.privacy.plan import StudyPlan


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_identity(1)


def _plan(**changes: object) -> StudyPlan:
    fields = {
        "study": "s", "schema_hash": "0" * 64, "columns": 3, "epsilon": 1.5, "delta": 1e-5, "nodes": ("a", "b"),
        "min_nodes": 2, "rounds": 2, "epochs": 1, "batch_size": 8, "recipe": "dp-sgd",
    }  # fmt: skip
    return StudyPlan.model_validate({**fields, **changes})


def _message(content: RecordDict) -> Message:
    return Message(content, dst_node_id=7, message_type="query.plan")


@pytest.mark.parametrize("epsilon", [0.25, 3.0, math.inf])
def test_a_plan_survives_the_wire(epsilon: float) -> None:
    request = PlanRequest(run_id="r", server="s", plan=_plan(epsilon=epsilon))
    received = read_body(through_the_wire(_message(pack(request))), PlanRequest)
    assert received == request
    assert received.plan.content_hash == request.plan.content_hash


@pytest.mark.parametrize("array", [np.arange(5, dtype=np.int64) - 3, np.linspace(-1, 1, 100_000, dtype=np.float32)])
def test_an_array_survives_the_wire(array: np.ndarray) -> None:
    received = through_the_wire(_message(pack(StatisticsReply(), array, weight=2.5)))
    assert np.array_equal(read_array(received, array.dtype.type), array)
    assert read_weight(received) == 2.5


def test_other_types_shapes_and_bodies_are_refused() -> None:
    floats = _message(pack(StatisticsReply(), np.ones(3)))
    square = _message(pack(StatisticsReply(), np.ones((2, 2), dtype=np.int64)))
    nothing = _message(pack(StatisticsReply()))
    for message in (floats, square, nothing):
        with pytest.raises(FederationError) as caught:
            read_array(message, np.int64)
        assert caught.value.code == "MESSAGE_INVALID"
    wrong = _message(RecordDict({"body": ConfigRecord({"json": '{"count": 4, "is_simulated": false, "exact": 5}'})}))
    for message in (wrong, _message(RecordDict())):
        with pytest.raises(FederationError):
            read_body(message, CountReply)
    for weight in (-1.0, 0.0, math.inf, math.nan):
        with pytest.raises(FederationError):
            read_weight(_message(pack(StatisticsReply(), weight=weight)))


def test_errors_carry_a_code_and_nothing_else() -> None:
    request = _message(pack(PlanReply(node="a", plan_hash="h", version="1", code_hash="c", is_noise_secret=True)))
    assert error_code(request) is None
    assert error_code(error_reply("BUDGET_EXCEEDED", to=request)) == "BUDGET_EXCEEDED"
    assert error_code(error_reply("Jane Doe, 1931", to=request)) == "INTERNAL"
    foreign = Message(Error(2, reason="<class 'ValueError'>:<'Jane Doe'>"), reply_to=request)
    assert error_code(foreign) == "NODE_UNREACHABLE"
    assert error_code(Message(Error(100, reason="made up"), reply_to=request)) == "NODE_UNREACHABLE"


def test_plan_hash_depends_on_every_field() -> None:
    base = _plan()
    changed = {
        "study": "t", "schema_hash": "1" * 64, "columns": 4, "epsilon": 1.6, "delta": 1e-6, "nodes": ("a", "c"),
        "min_nodes": 1, "has_target": True, "rounds": 3, "epochs": 2, "batch_size": 9, "purpose": "x", "records": 10,
        "noise_multiplier": 1.0, "recipe": "warm-start",
        "max_nodes_per_patient": 2, "evaluation_share": 0.2, "numbers": 1,
    }  # fmt: skip
    hashes = {_plan(**{name: value}).content_hash for name, value in changed.items()}
    hashes.add(_plan(evaluation_share=0.2, has_holdout=True).content_hash)
    assert len(hashes) == len(changed) + 1
    assert base.content_hash not in hashes
    assert set(changed) | {"schema_version", "trust", "dropouts", "colluding", "has_holdout"} == set(
        StudyPlan.model_fields
    )
