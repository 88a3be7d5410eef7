"""One exchange: a request to some nodes, their replies by name, and what to do when too few are valid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from aevorium.errors import CATALOGUE, AevoriumError, BudgetExceeded, ExitStatus, FederationError, PolicyRefused
from aevorium.federation.protocol import error_code
from aevorium.server.forms import ReplyForm

__all__ = ["Replies", "ask", "read_replies", "refusal", "require_going_on"]


@dataclass(frozen=True)
class Replies:
    """What came back.

    Attributes:
        valid: Replies by node id.
        codes: Error codes by node id: of nodes that refused, failed, did not answer, or sent what is not of the form.
    """

    valid: Mapping[int, Message]
    codes: Mapping[int, str]

    def require(self, minimum: int, *, phase: str, names: Mapping[int, str]) -> None:
        """Passes if enough nodes answered.

        Args:
            minimum: How many are enough.
            phase: For the message.
            names: Names of the nodes, as far as they are known.

        Raises:
            PolicyRefused: A node's policy refused.
            BudgetExceeded: A node's budget refused.
            FederationError: Nodes failed or did not answer.
        """
        if len(self.valid) < minimum:
            raise refusal(self, minimum=minimum, phase=phase, names=names)


def ask(
    grid: Grid, contents: Mapping[int, RecordDict], *, message_type: str, timeout: float, form: ReplyForm
) -> Replies:
    """Sends a request to each node and waits for the replies.

    Args:
        grid: The transport.
        contents: The request to each node id.
        message_type: The phase.
        timeout: Seconds after which a missing reply counts as NODE_UNREACHABLE.
        form: What a reply must hold; one that does not counts as REPLY_UNUSABLE.
    """
    messages = [
        # A request that waits longer is not answered any more: nothing is spent on it.
        Message(content, dst_node_id=node_id, message_type=message_type, ttl=timeout)
        for node_id, content in contents.items()
    ]
    # A reply that Flower makes up for a lost node bears another sender: the message it answers says whose it is.
    replies = list(grid.send_and_receive(messages, timeout=timeout))
    receivers = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    return read_replies(replies, receivers=receivers, form=form)


def read_replies(replies: Iterable[Message], *, receivers: Mapping[str, int], form: ReplyForm) -> Replies:
    """Sorts replies into valid ones and codes.

    Args:
        replies: What came back.
        receivers: The node id that each message, by its id, was sent to.
        form: What a reply must hold.
    """
    valid: dict[int, Message] = {}
    codes = dict.fromkeys(receivers.values(), "NODE_UNREACHABLE")
    for reply in replies:
        node_id = receivers[reply.metadata.reply_to_message_id]
        code = error_code(reply) or _fault(reply, form)
        if code is None:
            valid[node_id] = reply
            del codes[node_id]
        else:
            codes[node_id] = code
    return Replies(valid=valid, codes=codes)


def _fault(reply: Message, form: ReplyForm) -> str | None:
    """The code of a reply whose numbers may not be used; None if they may."""
    try:
        form.check(reply)
    except FederationError as error:
        return error.code
    return None


def require_going_on(should_stop: Callable[[], bool]) -> None:
    """Passes unless somebody asked the run to stop; asked between exchanges, when no node is at work.

    Raises:
        AevoriumError: RUN_INTERRUPTED.
    """
    if should_stop():
        raise AevoriumError("RUN_INTERRUPTED", "The run was stopped. What nodes had released stays charged.")


def refusal(replies: Replies, *, minimum: int, phase: str, names: Mapping[int, str]) -> AevoriumError:
    """The error of a phase that too few nodes answered: that of the policy or budget, if one refused."""
    reasons = sorted(set(replies.codes.values()), key=lambda code: -CATALOGUE[code].exit_status)
    listed = "; ".join(
        f"{names.get(node_id, f'node {node_id}')}: {code}" for node_id, code in sorted(replies.codes.items())
    )
    message = (
        f"Phase {phase!r} failed. {len(replies.valid)} of {len(replies.valid) + len(replies.codes)} nodes answered,"
        f" at least {minimum} are needed ({listed})."
    )
    for code in reasons:
        if CATALOGUE[code].exit_status == ExitStatus.REFUSED:
            kind = BudgetExceeded if code == "BUDGET_EXCEEDED" else PolicyRefused
            return kind(code, message)
    if len(reasons) == 1:
        return FederationError(reasons[0], message)
    return FederationError("TOO_FEW_NODES", message)
