"""The node's Flower app: messages in, messages out, and nothing else.

Flower would send the text of an exception to the server, and a text can quote a patient. So every handler ends in one
of two ways: with a typed reply from the session, which took it through the gate, or with a code of the catalogue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from aevorium.errors import AevoriumError, DataError, InternalError
from aevorium.federation.protocol import (
    PLAN,
    TRAIN,
    AssociationsRequest,
    CountRequest,
    DismissRequest,
    FinishRequest,
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


def create_client_app(sessions: Mapping[str, NodeSession]) -> ClientApp:
    """The app of the nodes that live in this process.

    Args:
        sessions: Their sessions, by the name in the node's configuration.
    """
    app = ClientApp()

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

    @app.query("dismiss")
    def dismiss(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _dismiss)

    @app.query("finish")
    def finish(message: Message, context: Context) -> Message:
        return _answer(message, _session(sessions, context), _finish)

    return app


Handler = Callable[[NodeSession, Message], Message]


def _session(sessions: Mapping[str, NodeSession], context: Context) -> NodeSession:
    return sessions[str(context.node_config["name"])]


def _answer(message: Message, session: NodeSession, handler: Handler) -> Message:
    phase = message.metadata.message_type.removeprefix("query.")
    try:
        session.asked(phase, detail=_detail(message))
        reply = handler(session, message)
        session.answered(phase, code=None)
        return reply
    except AevoriumError as error:
        code = "NODE_NOT_READY" if isinstance(error, DataError) else error.code
        session.problem = error
    except Exception as error:  # the process's edge: the text stays here, the server learns a code
        _log.error(
            "node %s failed while it answered %s", session.config.name, message.metadata.message_type, exc_info=True
        )
        session.problem = InternalError(f"Node {session.config.name!r} failed with {type(error).__name__}.")
        code = "INTERNAL"
    session.notice(session.problem.message)
    session.is_over = session.is_over or message.metadata.message_type == PLAN
    session.answered(phase, code=code)
    return error_reply(code, to=message)


def _detail(message: Message) -> str:
    """What a steward wants to know of a request before it is answered. Nothing in it comes from a record."""
    if message.metadata.message_type == PLAN:
        request = read_body(message, PlanRequest)
        plan = request.plan
        return (
            f"study {plan.study!r}, ε = {plan.epsilon:g}, δ = {plan.delta:g}, recipe {plan.recipe}, trust {plan.trust},"
            f" purpose {plan.purpose!r}, by server {request.server[:16]}, run {request.run_id}"
        )
    if message.metadata.message_type == TRAIN:
        return f"round {read_body(message, TrainRequest).round}"
    return ""


def _plan(session: NodeSession, message: Message) -> Message:
    until = message.metadata.created_at + message.metadata.ttl
    return Message(pack(session.agree(read_body(message, PlanRequest), until=until)), reply_to=message)


def _count(session: NodeSession, message: Message) -> Message:
    return Message(pack(session.count(read_body(message, CountRequest))), reply_to=message)


def _statistics(session: NodeSession, message: Message) -> Message:
    reply, values = session.statistics(read_body(message, StatisticsRequest))
    return Message(pack(reply, values), reply_to=message)


def _associations(session: NodeSession, message: Message) -> Message:
    reply, values = session.associations(read_body(message, AssociationsRequest))
    return Message(pack(reply, values), reply_to=message)


def _train(session: NodeSession, message: Message) -> Message:
    vector = read_array(message, np.float32).astype(np.float32, copy=False)
    reply, trained, weight = session.train(read_body(message, TrainRequest), vector)
    return Message(pack(reply, trained, weight=weight), reply_to=message)


def _dismiss(session: NodeSession, message: Message) -> Message:
    return Message(pack(session.dismiss(read_body(message, DismissRequest))), reply_to=message)


def _finish(session: NodeSession, message: Message) -> Message:
    return Message(pack(session.finish(read_body(message, FinishRequest))), reply_to=message)
