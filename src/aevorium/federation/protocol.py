"""What server and nodes say to each other: one typed request and reply for each phase, as Flower messages.

A message holds one JSON body, and at most one flat array (Flower pays for every array it carries). Nothing that is
received is unpickled: bodies are validated against the models below, arrays are plain numbers of a known type.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aevorium.diffusion.denoiser import DenoiserConfig
from aevorium.encoding.associations import TableDesign
from aevorium.encoding.encoder import TableEncoder
from aevorium.errors import CATALOGUE, FederationError
from aevorium.privacy.plan import StudyPlan

__all__ = [
    "ASSOCIATIONS",
    "COUNT",
    "DISMISS",
    "EVALUATION",
    "FINISH",
    "GRADIENT",
    "LOSS",
    "PLAN",
    "STATISTICS",
    "TRAIN",
    "AssociationsReply",
    "AssociationsRequest",
    "CountReply",
    "CountRequest",
    "DismissReply",
    "DismissRequest",
    "EvaluationReply",
    "EvaluationRequest",
    "FinishReply",
    "FinishRequest",
    "GradientReply",
    "GradientRequest",
    "LossReply",
    "LossRequest",
    "PlanReply",
    "PlanRequest",
    "StatisticsReply",
    "StatisticsRequest",
    "TrainReply",
    "TrainRequest",
    "TrainingSettings",
    "error_code",
    "error_reply",
    "pack",
    "read_array",
    "read_body",
    "read_weight",
]

PLAN, COUNT, STATISTICS, FINISH, TRAIN = "query.plan", "query.count", "query.statistics", "query.finish", "train"
DISMISS = "query.dismiss"
ASSOCIATIONS = "query.associations"
GRADIENT, LOSS = "query.gradient", "query.loss"
EVALUATION = "query.evaluation"

_BODY, _ARRAY, _METRICS = "body", "arrays", "metrics"

_LARGEST_COUNT = 10**12
"""Of patients; a noisy count beyond it is none."""

_REFUSAL = 100
"""Flower keeps error codes below 100 for itself."""

Body = TypeVar("Body", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class PlanRequest(_Body):
    """Asks a node to agree to a plan, before it reads any record."""

    run_id: str = Field(min_length=1, description="The run; unique for ever.")
    server: str = Field(description="Identity of the server.")
    plan: StudyPlan = Field(description="What the node agrees to.")


class PlanReply(_Body):
    """The node agrees."""

    node: str = Field(description="Name of the node.")
    plan_hash: str = Field(description="Content hash of the plan agreed to.")
    version: str = Field(description="Version of Aevorium at the node.")
    code_hash: str = Field(description="SHA-256 of its sources there, as the node tells it.")
    is_noise_secret: bool = Field(description="Whether nobody can repeat the node's noise; false in tests only.")


class CountRequest(_Body):
    """Asks for the noisy number of patients."""

    run_id: str
    plan_hash: str


class CountReply(_Body):
    """The noisy count. Safe to release."""

    count: int = Field(
        ge=-_LARGEST_COUNT, le=_LARGEST_COUNT, description="Number of records plus noise; may be negative."
    )
    is_simulated: bool = Field(description="Whether every patient id says that the patient is simulated.")


class StatisticsRequest(_Body):
    """Asks for the noisy one-way histograms, and counts by rounding where the plan has them.

    Before it answers, the node fixes all events of the run.
    """

    run_id: str
    plan_hash: str
    bins: int = Field(ge=1, le=4096, description="Bins of the public grids.")
    records: float = Field(
        ge=1, le=1e12, description="Declared or noisy number of records of all nodes: divides what is left of ε."
    )


class StatisticsReply(_Body):
    """The noisy histograms are in the array, and then the counts by rounding: int64 [cells]. Safe to release."""


class AssociationsRequest(_Body):
    """Asks for noisy tables: coarse ones of all candidate pairs, or fine ones of what was selected by them."""

    run_id: str
    plan_hash: str
    stage: Literal["coarse", "fine"]
    design: TableDesign = Field(description="Columns and cells; as many tables as the plan says, no more and no fewer.")


class AssociationsReply(_Body):
    """The noisy tables are in the array: int64 [cells]. Safe to release."""


class TrainingSettings(_Body):
    """How the model is trained. Within these bounds, none of it touches the privacy accounting.

    A clipping norm near the smallest numbers would be rounded up by single precision; more draws could need more memory
    than there is, for some sizes of a batch and not for others.
    """

    pretraining_steps: int | None = Field(
        default=None, ge=0, description="Steps on rows of the surrogate before the first round; absent = a public rule."
    )

    clip_norm: float = Field(default=1.0, ge=1e-3, le=1e3, description="Largest norm of a record's gradient.")
    learning_rate: float | None = Field(
        default=None, gt=0, le=1e3, description="Step size of Adam at the start of a round; absent = the recipe's own."
    )
    draws: int = Field(default=8, ge=1, le=32, description="Noise draws per record, averaged before the clip.")
    ema_decay: float = Field(default=0.99, ge=0, lt=1, description="Decay of the running average of the weights.")


class TrainRequest(_Body):
    """Asks for one round of private training. The array holds the global model: float32 [parameters]."""

    run_id: str
    plan_hash: str
    round: int = Field(ge=1)
    encoder: TableEncoder = Field(description="The shared encoder.")
    model: DenoiserConfig = Field(description="Size and shape of the model.")
    settings: TrainingSettings = Field(description="How it is trained.")


class TrainReply(_Body):
    """The node's model is in the array: float32 [parameters]. Safe to release."""

    loss: float = Field(allow_inf_nan=False, description="Mean loss per record, from a noisy sum over the noisy size.")
    loss_noise: float = Field(ge=0, allow_inf_nan=False, description="Standard deviation of the noise in it.")
    spent: float = Field(ge=0, description="ε of what the run released so far, at the plan's δ.")


class GradientRequest(_Body):
    """Asks for one step under secure aggregation. The array holds the global model: float32 [parameters]."""

    run_id: str
    plan_hash: str
    round: int = Field(ge=1)
    step: int = Field(ge=1, description="Step of the round; steps come in order, each once.")
    encoder: TableEncoder | None = Field(description="The shared encoder, with the first step of a round.")
    model: DenoiserConfig = Field(description="Size and shape of the model.")
    settings: TrainingSettings = Field(description="How it is trained.")


class GradientReply(_Body):
    """The node's part is in the array: int64 [parameters], modulo 2^64. The sum over nodes is safe to release."""


class LossRequest(_Body):
    """Asks for the loss of a round under secure aggregation. The array holds the model: float32 [parameters]."""

    run_id: str
    plan_hash: str
    round: int = Field(ge=1)
    encoder: TableEncoder = Field(description="The shared encoder.")
    model: DenoiserConfig = Field(description="Size and shape of the model.")


class LossReply(_Body):
    """The node's part is in the array: int64 [1], noisy levels. The sum over nodes is safe to release."""

    spent: float = Field(ge=0, description="ε of what the run released so far, at the plan's δ.")


class EvaluationRequest(_Body):
    """Asks for noisy tables of the patients that are held out, or of all where nobody is, once training is over."""

    run_id: str
    plan_hash: str
    design: TableDesign = Field(
        description="Cells of every column, which are counted by themselves too, and as many pairs as the plan says."
    )


class EvaluationReply(_Body):
    """The noisy tables are in the array: int64 [cells of the columns, then of the pairs]. Safe to release."""


class FinishRequest(_Body):
    """Tells a node that a run has ended."""

    run_id: str
    plan_hash: str


class FinishReply(_Body):
    """What the run cost at this node, from its own ledger. Safe to release."""

    node: str
    spent: float = Field(ge=0, description="ε of everything released in the run, at the plan's δ.")
    limit: float = Field(gt=0, description="The node's limit for the period.")
    left: float = Field(ge=0, description="What is left of it.")


class DismissRequest(_Body):
    """Tells a node that is connected but not in the run that the server ends."""

    run_id: str


class DismissReply(_Body):
    """The node knows."""


def pack(body: BaseModel, array: NDArray[np.generic] | None = None, *, weight: float | None = None) -> RecordDict:
    """Packs a body, and perhaps an array, for a message.

    Args:
        body: A request or reply.
        array: One flat array, or None.
        weight: The public weight of a model in the federated average, for `TrainReply`.
    """
    content = RecordDict({_BODY: ConfigRecord({"json": body.model_dump_json()})})
    if array is not None:
        content[_ARRAY] = ArrayRecord([np.ascontiguousarray(array)])
    if weight is not None:
        content[_METRICS] = MetricRecord({"weight": float(weight)})
    return content


def read_body(message: Message, kind: type[Body]) -> Body:
    """Reads the body of a message.

    Raises:
        FederationError: MESSAGE_INVALID, if it is not of the kind expected.
    """
    try:
        text = message.content[_BODY]["json"]
        return kind.model_validate_json(str(text))
    except (KeyError, TypeError, ValueError) as error:  # no content, none of this name, of another kind, or invalid
        raise FederationError(
            "MESSAGE_INVALID",
            f"A message does not hold a valid {kind.__name__}. Sender and receiver may differ in version.",
        ) from error


def read_array(message: Message, dtype: type[np.generic]) -> NDArray[np.generic]:
    """Reads the flat array of a message.

    Raises:
        FederationError: MESSAGE_INVALID, if there is none or it is of another type or shape.
    """
    record = message.content.get(_ARRAY) if message.has_content() else None
    try:
        # A name of its own would be a second array to Flower's average.
        arrays = record.to_numpy_ndarrays() if isinstance(record, ArrayRecord) and list(record) == ["0"] else []
    except (ValueError, TypeError, EOFError, OSError, MemoryError):  # bytes that are no array, or not of its length
        arrays = []
    if len(arrays) != 1 or arrays[0].dtype != np.dtype(dtype) or arrays[0].ndim != 1:
        raise FederationError("MESSAGE_INVALID", f"A message does not hold one flat array of {np.dtype(dtype)}.")
    return np.asarray(arrays[0])


def read_weight(message: Message) -> float:
    """Reads the public weight that came with a model.

    Raises:
        FederationError: MESSAGE_INVALID, if there is none, or it is not a positive number.
    """
    record = message.content.get(_METRICS)
    weight = record.get("weight") if isinstance(record, MetricRecord) else None
    if not isinstance(weight, int | float) or not 0 < weight <= _LARGEST_COUNT:
        raise FederationError("MESSAGE_INVALID", "A model came without the positive weight that belongs to it.")
    return float(weight)


def error_reply(code: str, *, to: Message) -> Message:
    """Answers with a code of the catalogue: the only thing that leaves a node when something goes wrong."""
    if code not in CATALOGUE:
        code = "INTERNAL"
    return Message(Error(_REFUSAL, reason=code), reply_to=to)


def error_code(message: Message) -> str | None:
    """The catalogue code of an error reply; None if the message is no error.

    Errors that Flower itself reports become NODE_UNREACHABLE.
    """
    if not message.has_error():
        return None
    if message.error.code == _REFUSAL and message.error.reason in CATALOGUE:
        return str(message.error.reason)
    return "NODE_UNREACHABLE"
