"""Replies that are refused before any of their numbers is added to another node's."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from aevorium.errors import FederationError
from aevorium.federation.flower_internals.messages import assume_identity
from aevorium.federation.protocol import CountReply, GradientReply, StatisticsReply, TrainReply, pack
from aevorium.server.forms import LARGEST_CELL, ReplyForm

TABLE = ReplyForm(StatisticsReply, np.int64, size=3)
MODEL = ReplyForm(TrainReply, np.float32, size=3, is_weighted=True)
TRAINED = TrainReply(loss=0.5, loss_noise=0.1, spent=1.0)


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_identity(1)


def _message(content: RecordDict) -> Message:
    return Message(content, dst_node_id=7, message_type="train")


def _is_refused(form: ReplyForm, content: RecordDict) -> bool:
    codes = []
    try:
        form.check(_message(content))
    except FederationError as error:
        codes.append(error.code)
    return codes == ["REPLY_UNUSABLE"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_a_model_with_a_number_that_is_not_finite_is_refused(bad: float, place: int) -> None:
    vector = np.ones(3, dtype=np.float32)
    assert not _is_refused(MODEL, pack(TRAINED, vector, weight=2.0))
    vector[place] = bad
    assert _is_refused(MODEL, pack(TRAINED, vector, weight=2.0))


@pytest.mark.parametrize("field", ["loss", "loss_noise", "spent"])
def test_a_loss_that_is_no_number_is_refused(field: str) -> None:
    told = TRAINED.model_copy(update={field: math.nan})
    assert _is_refused(MODEL, pack(told, np.ones(3, dtype=np.float32), weight=2.0))


@pytest.mark.parametrize("weight", [None, 0.0, -1.0, math.nan, math.inf, 1e300])
def test_a_weight_that_would_spoil_the_average_is_refused(weight: float | None) -> None:
    assert _is_refused(MODEL, pack(TRAINED, np.ones(3, dtype=np.float32), weight=weight))


@pytest.mark.parametrize(
    "array",
    [
        np.ones(2, dtype=np.float32), np.ones(4, dtype=np.float32), np.ones((1, 3), dtype=np.float32),
        np.ones(3), np.ones(3, dtype=np.int64), None,
    ],
    ids=["short", "long", "matrix", "float64", "int64", "none"],
)  # fmt: skip
def test_another_shape_or_type_is_refused(array: np.ndarray | None) -> None:
    assert _is_refused(MODEL, pack(TRAINED, array, weight=2.0))


@pytest.mark.parametrize("cell", [LARGEST_CELL + 1, -LARGEST_CELL - 1, 2**63 - 1, -(2**63)])
def test_cells_that_would_wrap_a_sum_around_are_refused_and_parts_of_a_masked_sum_are_not(cell: int) -> None:
    cells = np.array([0, cell, 5], dtype=np.int64)
    assert _is_refused(TABLE, pack(StatisticsReply(), cells))
    assert not _is_refused(ReplyForm(GradientReply, np.int64, size=3, largest=None), pack(GradientReply(), cells))
    cells[1] = LARGEST_CELL
    assert not _is_refused(TABLE, pack(StatisticsReply(), cells))


def test_bytes_that_are_no_array_are_refused() -> None:
    good = np.ones(3, dtype=np.float32)
    pickled = io.BytesIO()
    np.save(pickled, np.ones(3, dtype=object), allow_pickle=True)
    for data in (b"", b"nothing", Array(good).data[:-4], pickled.getvalue()):
        content = pack(TRAINED, good, weight=2.0)
        content["arrays"] = ArrayRecord({"0": Array("float32", (3,), "numpy.ndarray", data)})
        assert _is_refused(MODEL, content)
    content["arrays"] = ArrayRecord({"other": Array(good)})
    assert _is_refused(MODEL, content)


def test_bodies_of_another_kind_and_counts_beyond_all_patients_are_refused() -> None:
    form = ReplyForm(CountReply)
    assert not _is_refused(form, pack(CountReply(count=-3, is_simulated=True)))
    texts = ('{"count": 1e30, "is_simulated": true}', '{"count": NaN, "is_simulated": true}', '{"count": 1}', "")
    for text in texts:
        assert _is_refused(form, RecordDict({"body": ConfigRecord({"json": text})}))
