"""Messages within one process, as Flower would carry them between two."""

from __future__ import annotations

from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "SUPERLINK_NODE_ID",
    "Run",
    "assume_identity",
    "is_lost",
    "lost_reply",
    "new_run",
    "set_answered_id",
    "set_message_id",
    "through_the_wire",
]

_LOST = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED)


def new_run(run_id: int) -> Run:
    """A run with nothing but its number."""
    return Run.create_empty(run_id)


def assume_identity(run_id: int) -> None:
    """Lets this process create messages, as the process that Flower starts for a ServerApp may."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, SUPERLINK_NODE_ID


def set_message_id(message: Message, message_id: str) -> None:
    """Gives a message the number that the server would give it."""
    message.metadata.__dict__["_message_id"] = message_id


def set_answered_id(reply: Message, message_id: str) -> None:
    """Makes a reply one to another copy of the message that it answers."""
    reply.metadata.__dict__["_reply_to_message_id"] = message_id


def is_lost(reply: Message) -> bool:
    """Whether Flower made a reply up because the node, or its connection, was gone before it had answered."""
    return reply.has_error() and reply.error.code in _LOST


def lost_reply(message: Message) -> Message:
    """What Flower would make up if it knew that a message will not be answered."""
    return Message(Error(ErrorCode.NODE_UNAVAILABLE), reply_to=message)


def through_the_wire(message: Message) -> Message:
    """The message as the other side would receive it: taken apart to bytes and put together again."""
    parts = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
    received = inflate_object_from_contents(message.object_id, parts)
    if not isinstance(received, Message):
        raise TypeError("a message came back as something else")
    set_message_id(received, message.metadata.message_id)
    return received
