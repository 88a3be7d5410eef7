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
    "put_together",
    "set_answered_id",
    "set_message_id",
    "take_apart",
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


def take_apart(message: Message) -> tuple[str, dict[str, bytes]]:
    """A message as it travels: the name of its outermost part, and all parts by their names."""
    return message.object_id, {key: part.deflate() for key, part in get_all_nested_objects(message).items()}


def put_together(name: str, parts: dict[str, bytes], *, message_id: str) -> Message:
    """The message that was taken apart.

    Args:
        name: The name of its outermost part.
        parts: All parts by their names.
        message_id: The number that the server gave it.
    """
    received = inflate_object_from_contents(name, parts)
    if not isinstance(received, Message):
        raise TypeError("a message came back as something else")
    set_message_id(received, message_id)
    return received


def through_the_wire(message: Message) -> Message:
    """The message as the other side would receive it: taken apart to bytes and put together again."""
    return put_together(*take_apart(message), message_id=message.metadata.message_id)
