"""The node's app has two ways out: a session's typed reply, and a code of the catalogue."""

from __future__ import annotations

import ast
import inspect

from aevorium.governance import gate
from aevorium.node import app, checks, phases, run, session, summing


def _functions(module: object) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _returns(function: ast.FunctionDef) -> list[str]:
    own = [node for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
    return [ast.unparse(node.value) for node in own if node.value is not None]


def test_handlers_return_what_the_session_released_or_a_code() -> None:
    functions = _functions(app)
    for phase in ("plan", *PHASES, "gradient", "dismiss", "finish"):
        assert _returns(functions[phase]) == [f"_answer(message, _session(sessions, context), _{phase})"]
    assert set(_returns(functions["_answer"])) == {"reply", "error_reply(code, to=message)"}
    packed = {
        "_plan": "Message(pack(session.agree(_read(session, message, PlanRequest), until=until)), reply_to=message)",
        "_count": "Message(pack(session.count(_read(session, message, CountRequest))), reply_to=message)",
        "_statistics": "Message(pack(reply, values), reply_to=message)",
        "_associations": "Message(pack(reply, values), reply_to=message)",
        "_train": "Message(pack(reply, trained, weight=weight), reply_to=message)",
        "_gradient": "Message(pack(GradientReply(), values), reply_to=message)",
        "_loss": "Message(pack(reply, values), reply_to=message)",
        "_evaluation": "Message(pack(reply, values), reply_to=message)",
        "_dismiss": "Message(pack(session.dismiss(_read(session, message, DismissRequest))), reply_to=message)",
        "_finish": "Message(pack(session.finish(_read(session, message, FinishRequest))), reply_to=message)",
    }
    for name, expected in packed.items():
        assert _returns(functions[name]) == [expected]
    # A type that no node knows is answered with a code too.
    assert set(_returns(functions["__call__"])) == {
        "super().__call__(message, context)", "_answer(message, _session(self._sessions, context), _unknown)",
    }  # fmt: skip
    assert _returns(functions["_unknown"]) == []
    reading = {"_is_further_step", "_read", "_read_vector", "_phase", "_require_wanted", "_detail", "_session"}
    assert set(functions) == {
        "create_client_app", "plan", "count", "statistics", "associations", "train", "gradient", "loss", "evaluation",
        "dismiss", "finish", "__init__", "__call__", "_answer", "_unknown", *reading, *packed,
    }  # fmt: skip
    # What a steward is told goes to the node's own console, by `session.asked`, and nowhere else.
    assert ast.unparse(functions["_answer"]).count("_detail(") == 1
    # Only handlers and the code of a refusal make messages.
    makers = {name for name, function in functions.items() if "Message(" in ast.unparse(function)}
    assert makers == set(packed)


PHASES = ("count", "statistics", "associations", "train", "loss", "evaluation")
OUTSIDE = (
    "len(records)",
    "count_cells(",
    "count_roundings(",
    "count_evaluation(",
    "count_tables(",
    "train_round(",
    "noisy_gradient(",
    "noisy_loss(",
    "_records.encode(",
)


def test_records_are_used_inside_the_gate_alone() -> None:
    """In the session, what is computed from the table is computed in `produce`, or stays (`NodeRecords`)."""
    functions = _functions(session) | _functions(phases) | _functions(summing)
    for name in PHASES:
        calls = [ast.unparse(node) for node in ast.walk(functions[name]) if isinstance(node, ast.Call)]
        assert sum(call.startswith("self._gate.release(") for call in calls) == 1
    for name in ("agree", "finish"):
        assert "_records" not in ast.unparse(functions[name])
    steps = ast.unparse(functions["gradient"])
    assert steps.count("steps.released.release(") == steps.count("return values.") == 1
    for name in (*PHASES, "gradient"):
        function = functions[name]
        inner = [
            node
            for node in ast.walk(function)
            if isinstance(node, ast.FunctionDef | ast.Lambda) and node is not function
        ]
        for text in OUTSIDE:
            total = ast.unparse(function).count(text)
            within = sum(ast.unparse(node).count(text) for node in inner)
            assert total == within
    for module in (checks, run):
        assert not any(text in inspect.getsource(module) for text in (*OUTSIDE, "_records", "read_table"))
    # A phase names records once, and whose they are: the holdout's in the evaluation, the others' everywhere else.
    for name in (*PHASES, "gradient"):
        nodes = [node for node in ast.walk(functions[name]) if isinstance(node, ast.Attribute)]
        used = {node.attr for node in nodes if ast.unparse(node.value) == "self._records"} - {"encode"}
        wanted = {"evaluation"} if name == "evaluation" else {"training"}
        assert used - ({"load"} if name == "count" else set()) == wanted


def test_replies_are_made_of_what_the_gate_returned_and_of_public_facts() -> None:
    """The names that a reply is made of: numbers of the gate, the request, the run in the ledger, the configuration."""
    functions = _functions(session) | _functions(phases) | _functions(summing)
    allowed = {
        # Whether all ids say "simulated" is a mark of the export, not of a patient (`aevorium.data.simulated`).
        "count": {"CountReply", "noisy", "is_simulated"},
        "statistics": {"StatisticsReply", "values", "np"},
        "associations": {"AssociationsReply", "values", "np"},
        "train": {"reply", "trained", "np", "size"},
        "gradient": {"values", "np"},
        "evaluation": {"EvaluationReply", "values", "np"},
        "loss": {"LossReply", "self", "request", "run", "values", "np"},
    }
    for name, expected in allowed.items():
        statements = functions[name].body
        (result,) = [node for node in statements if isinstance(node, ast.Return)]
        assert {node.id for node in ast.walk(result) if isinstance(node, ast.Name)} == expected
    assigned = ast.unparse(functions["train"])
    assert "loss=float(loss[0]), loss_noise=loss_noise(schedule, size=size), spent=self._spent(" in assigned
    assert "trained, loss = self._gate.release(" in assigned
    assert "noisy = int(numbers[0])" in ast.unparse(functions["count"])


def test_the_gate_hands_out_committed_numbers_alone() -> None:
    """`release` returns what the ledger held, or what it committed just before."""
    function = _functions(gate)["release"]
    assert sorted(_returns(function)) == ["numbers", "reservation.numbers"]
    text = ast.unparse(function)
    committed = text.index("self._ledger.commit(reservation.id, numbers=numbers")
    assert text.index("self._ledger.reserve(") < text.index("produce()") < committed < text.rindex("return numbers")
