"""The reviewers' pages: nothing that leaves a node is missing from them, and every test that they name exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2

from aevorium.federation import protocol
from aevorium.governance import chain

ROOT = Path(__file__).parents[2]
REVIEW = ROOT / "docs" / "SECURITY_AND_PRIVACY.md"
PITFALLS = ROOT / "docs" / "PITFALLS.md"


def _rows(path: Path, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    text = path.read_text(encoding="utf-8").partition(f"{heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None, heading
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _named(path: Path) -> list[str]:
    return re.findall(r"`(test_\w+)`", path.read_text(encoding="utf-8"))


def test_every_field_of_every_reply_is_in_the_table() -> None:
    said = " ".join(row[0] for row in _rows(REVIEW, "## Everything that leaves a node"))
    replies = [getattr(protocol, name) for name in protocol.__all__ if name.endswith("Reply")]
    assert len(replies) >= 7
    expected = {f"{reply.__name__}.{field}" for reply in replies for field in reply.model_fields}
    assert set(re.findall(r"`(\w+Reply\.\w+)`", said)) == expected
    assert {reply.__name__ for reply in replies} <= set(re.findall(r"\w+Reply", said))


def test_every_line_of_the_table_has_a_reason_and_a_test() -> None:
    for what, sensitivity, _, charge, guards in _rows(REVIEW, "## Everything that leaves a node"):
        assert sensitivity, what
        assert charge, what
        assert _tests(guards), what


def test_every_act_of_consequence_is_in_the_table_of_the_audit_log() -> None:
    said = set(re.findall(r"`(\w+)`", " ".join(row[1] for row in _rows(REVIEW, "## The audit log"))))
    assert said >= {*chain._SIGNED_AFTER, "login_failed", "access_denied"}


def test_every_field_that_flower_sends_is_in_the_table() -> None:
    """Of the requests that a SuperNode makes, in the pinned version of Flower."""
    requests = [
        fleet_pb2.RegisterNodeFleetRequest,
        fleet_pb2.ActivateNodeRequest,
        fleet_pb2.DeactivateNodeRequest,
        fleet_pb2.PullMessagesRequest,
        fleet_pb2.PushMessagesRequest,
        heartbeat_pb2.SendNodeHeartbeatRequest,
        message_pb2.PushObjectRequest,
        message_pb2.PullObjectRequest,
        message_pb2.ConfirmMessageReceivedRequest,
        message_pb2.Metadata,
    ]
    said = " ".join(row[0] for row in _rows(REVIEW, "### What Flower adds"))
    assert {name for request in requests for name in request.DESCRIPTOR.fields_by_name} == set(
        re.findall(r"`(\w+)`", said)
    )


@pytest.mark.parametrize("path", [REVIEW, PITFALLS], ids=lambda path: path.stem)
def test_every_test_that_is_named_exists(path: Path) -> None:
    existing = {
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(_named(path)) > 20
    assert [name for name in _named(path) if name not in existing] == []


def test_every_pitfall_has_a_severity_a_guard_and_a_test() -> None:
    rows = _rows(PITFALLS, "# Pitfalls of private training, and what guards against them")
    assert len(rows) > 20
    order = ["critical", "theoretical", "negligible"]
    severities = [row[0] for row in rows]
    assert severities == sorted(severities, key=order.index)
    for severity, pitfall, failure, guard, tests in rows:
        assert pitfall, severity
        assert failure, pitfall
        assert guard, pitfall
        # What nothing guards against must be a stated assumption.
        assert _tests(tests) or "stated assumption" in guard, pitfall


def _tests(cell: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", cell)
