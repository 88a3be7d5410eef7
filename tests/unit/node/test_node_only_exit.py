"""The node's app has two ways out: a session's typed reply, and a code of the catalogue."""

from __future__ import annotations

import ast
import inspect

from aevorium.node import app, session


def _functions(module: object) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _returns(function: ast.FunctionDef) -> list[str]:
    own = [node for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
    return [ast.unparse(node.value) for node in own if node.value is not None]


def test_handlers_return_what_the_session_released_or_a_code() -> None:
    functions = _functions(app)
    for phase in ("plan", "count", "statistics", "associations", "train", "dismiss", "finish"):
        assert _returns(functions[phase]) == [f"_answer(message, _session(sessions, context), _{phase})"]
    assert set(_returns(functions["_answer"])) == {"reply", "error_reply(code, to=message)"}
    packed = {
        "_plan": "Message(pack(session.agree(read_body(message, PlanRequest), until=until)), reply_to=message)",
        "_count": "Message(pack(session.count(read_body(message, CountRequest))), reply_to=message)",
        "_statistics": "Message(pack(reply, values), reply_to=message)",
        "_associations": "Message(pack(reply, values), reply_to=message)",
        "_train": "Message(pack(reply, trained, weight=weight), reply_to=message)",
        "_dismiss": "Message(pack(session.dismiss(read_body(message, DismissRequest))), reply_to=message)",
        "_finish": "Message(pack(session.finish(read_body(message, FinishRequest))), reply_to=message)",
    }
    for name, expected in packed.items():
        assert _returns(functions[name]) == [expected]
    assert set(functions) == {
        "create_client_app", "plan", "count", "statistics", "associations", "train", "dismiss", "finish", "_session",
        "_answer", "_detail", *packed,
    }  # fmt: skip
    # What a steward is told goes to the node's own console, by `session.asked`, and nowhere else.
    assert ast.unparse(functions["_answer"]).count("_detail(") == 1


def test_records_are_used_inside_the_gate_alone() -> None:
    """In the session, what is computed from the table is computed in `produce`, or stays (`_load`, `_encode`)."""
    functions = _functions(session)
    for name in ("count", "statistics", "associations", "train"):
        calls = [ast.unparse(node) for node in ast.walk(functions[name]) if isinstance(node, ast.Call)]
        assert sum(call.startswith("self._gate.release(") for call in calls) == 1
    for name in ("agree", "finish"):
        assert "_load" not in ast.unparse(functions[name])
        assert "_encode" not in ast.unparse(functions[name])
    outside = ("len(table.frame)", "count_cells(", "count_pairs(", "train_round(")
    for name in ("count", "statistics", "associations", "train"):
        function = functions[name]
        inner = [
            node
            for node in ast.walk(function)
            if isinstance(node, ast.FunctionDef | ast.Lambda) and node is not function
        ]
        for text in outside:
            total = ast.unparse(function).count(text)
            within = sum(ast.unparse(node).count(text) for node in inner)
            assert total == within
