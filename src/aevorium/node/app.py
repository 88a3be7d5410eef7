"""The node's Flower app: messages in, messages out, and nothing else.

Flower would send the text of an exception to the server, and a text can quote a patient. So every handler ends in one
of two ways: with a typed reply from the session, which took it through the gate, or with a code of the catalogue. What
is refused, readable or not, is also an entry of the node's audit chain.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from pydantic import BaseModel

from aevorium.errors import AevoriumError, DataError, FederationError, InternalError
from aevorium.federation.protocol import (
    ASSOCIATIONS,
    COUNT,
    DISMISS,
    EVALUATION,
    FINISH,
    GRADIENT,
    LOSS,
    PLAN,
    STATISTICS,
    TRAIN,
    AssociationsRequest,
    CountRequest,
    DismissRequest,
    EvaluationRequest,
    FinishRequest,
    GradientReply,
    GradientRequest,
    LossRequest,
    PlanRequest,
    StatisticsRequest,
    TrainRequest,
    error_reply,
    pack,
    read_array,
    read_body,
)
from aevorium.node.session import NodeSession

__all__ = ["create_client_app"]

_log = logging.getLogger(__name__)

_KNOWN = frozenset({PLAN, COUNT, STATISTICS, ASSOCIATIONS, TRAIN, GRADIENT, LOSS, EVALUATION, DISMISS, FINISH})

Body = TypeVar("Body", bound=BaseModel)


def create_client_app(sessions: Mapping[str, NodeSession]) -> ClientApp:
    """The app of the nodes that live in this process.

    Args:
        sessions: Their sessions, by the name in the node's configuration.
    """
    app = _NodeApp(sessions)

    @app.query("plan")
    def plan(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _plan)

    @app.query("count")
    def count(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _count)

    @app.query("statistics")
    def statistics(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _statistics)

    @app.query("associations")
    def associations(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _associations)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _train)

    @app.query("gradient")
    def gradient(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _gradient)

    @app.query("loss")
    def loss(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _loss)

    @app.query("evaluation")
    def evaluation(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _evaluation)

    @app.query("dismiss")
    def dismiss(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _dismiss)

    @app.query("finish")
    def finish(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _finish)

    return app


class _NodeApp(ClientApp):
    """Answers messages of a type that no node knows too, where Flower would raise an exception.

    Args:
        sessions: The sessions, by the name in the node's configuration.
    """

    def __init__(self, sessions: Mapping[str, NodeSession]) -> None:
        super().__init__()
        self._sessions = sessions

    def __call__(self, message: Message, context: Context) -> Message:
        """Answers a message."""
        if message.metadata.message_type in _KNOWN:
            return super().__call__(message, context)
        return _answer(message, _session(self._sessions, context), _unknown)


Handler = Callable[[NodeSession, Message], Message]


def _session(sessions: Mapping[str, NodeSession], context: Context) -> NodeSession:
    return sessions[str(context.node_config["name"])]


def _answer(message: Message, session: NodeSession, handler: Handler) -> Message:
    phase = _phase(message)
    try:
        _require_wanted(session, message)
        is_news = not _is_further_step(session, message)
        if is_news:
            session.asked(phase, detail=_detail(session, message))
        reply = handler(session, message)
        if is_news:
            session.answered(phase, code=None)
        return reply
    except AevoriumError as error:
        code = "NODE_NOT_READY" if isinstance(error, DataError) else error.code
        session.problem = error
    except Exception as error:  # the process's edge: the text stays here, the server learns a code
        _log.error("node %s failed while it answered %s", session.config.name, phase, exc_info=True)
        session.problem = InternalError(f"Node {session.config.name!r} failed with {type(error).__name__}.")
        code = "INTERNAL"
        with suppress(AevoriumError):
            session.refuse(session.problem, phase=phase)
    session.notice(session.problem.message)
    is_plan = message.metadata.message_type == PLAN and code != "REQUEST_EXPIRED"
    session.is_over = session.is_over or is_plan
    session.answered(phase, code=code)
    return error_reply(code, to=message)


def _phase(message: Message) -> str:
    return message.metadata.message_type.removeprefix("query.")


def _require_wanted(session: NodeSession, message: Message) -> None:
    """Passes unless a request waited too long: the server no longer wants the answer, so nothing is spent."""
    if message.metadata.created_at + message.metadata.ttl < time.time():
        expired = FederationError("REQUEST_EXPIRED", "A request came after its time had passed.")
        session.refuse(expired, phase=_phase(message))


def _read(session: NodeSession, message: Message, kind: type[Body]) -> Body:
    try:
        return read_body(message, kind)
    except FederationError as error:
        session.refuse(error, phase=_phase(message))


def _read_vector(session: NodeSession, message: Message) -> NDArray[np.float32]:
    try:
        return read_array(message, np.float32).astype(np.float32, copy=False)
    except FederationError as error:
        session.refuse(error, phase=_phase(message))


def _is_further_step(session: NodeSession, message: Message) -> bool:
    """Whether this is one of hundreds of steps whose round was announced, and paid for, with its first."""
    return message.metadata.message_type == GRADIENT and _read(session, message, GradientRequest).step > 1


def _detail(session: NodeSession, message: Message) -> str:
    """What a steward wants to know of a request before it is answered. Nothing in it comes from a record."""
    if message.metadata.message_type == PLAN:
        request = _read(session, message, PlanRequest)
        plan = request.plan
        return (
            f"study {plan.study!r}, ε = {plan.epsilon:g}, δ = {plan.delta:g}, recipe {plan.recipe}, trust {plan.trust},"
            f" purpose {plan.purpose!r}, by server {request.server[:16]}, run {request.run_id}"
        )
    if message.metadata.message_type == TRAIN:
        return f"round {_read(session, message, TrainRequest).round}"
    return ""


def _plan(session: NodeSession, message: Message) -> Message:
    until = message.metadata.created_at + message.metadata.ttl
    return Message(pack(session.agree(_read(session, message, PlanRequest), until=until)), reply_to=message)


def _count(session: NodeSession, message: Message) -> Message:
    return Message(pack(session.count(_read(session, message, CountRequest))), reply_to=message)


def _statistics(session: NodeSession, message: Message) -> Message:
    reply, values = session.statistics(_read(session, message, StatisticsRequest))
    return Message(pack(reply, values), reply_to=message)


def _associations(session: NodeSession, message: Message) -> Message:
    reply, values = session.associations(_read(session, message, AssociationsRequest))
    return Message(pack(reply, values), reply_to=message)


def _train(session: NodeSession, message: Message) -> Message:
    reply, trained, weight = session.train(_read(session, message, TrainRequest), _read_vector(session, message))
    return Message(pack(reply, trained, weight=weight), reply_to=message)


def _gradient(session: NodeSession, message: Message) -> Message:
    values = session.gradient(_read(session, message, GradientRequest), _read_vector(session, message))
    return Message(pack(GradientReply(), values), reply_to=message)


def _loss(session: NodeSession, message: Message) -> Message:
    reply, values = session.loss(_read(session, message, LossRequest), _read_vector(session, message))
    return Message(pack(reply, values), reply_to=message)


def _evaluation(session: NodeSession, message: Message) -> Message:
    reply, values = session.evaluation(_read(session, message, EvaluationRequest))
    return Message(pack(reply, values), reply_to=message)


def _dismiss(session: NodeSession, message: Message) -> Message:
    return Message(pack(session.dismiss(_read(session, message, DismissRequest))), reply_to=message)


def _finish(session: NodeSession, message: Message) -> Message:
    return Message(pack(session.finish(_read(session, message, FinishRequest))), reply_to=message)


def _unknown(session: NodeSession, message: Message) -> Message:
    kind = message.metadata.message_type
    session.refuse(FederationError("MESSAGE_INVALID", f"No node answers messages of type {kind!r}."), phase=kind)
