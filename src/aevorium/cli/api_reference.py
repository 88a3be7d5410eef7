"""The page of the API, from its OpenAPI document: every operation with what it takes and answers, and every type."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["api_page", "openapi_document"]

_HEAD = """\
# API reference

Generated from the OpenAPI document that `aevorium api` serves at `/openapi.json`; `/docs` shows the same, to try out.
Who may ask, how often, and what failures look like is in [API.md](API.md). Every failure is a [Problem](#problem)."""

_TAGS = {
    "read": "Results of the newest run",
    "budgets": "Budgets",
    "studies": "Studies and plans",
    "runs": "Runs and models",
    "datasets": "Tables",
    "nodes": "Nodes",
    "keys": "Keys",
    "operations": "For those who run it",
}

_UNSAID = 2**53
"""A bound that says only how far whole numbers are exact in JSON."""


def openapi_document() -> dict[str, Any]:
    """The API's own description. Serves nothing: its database is an empty file that is gone at the end."""
    from aevorium.api.app import ApiOptions, create_app
    from aevorium.governance.signing import SigningKey
    from aevorium.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        options = ApiOptions(
            workspace=Workspace(root / "workspace"),
            database=f"sqlite:///{(root / 'api.db').as_posix()}",
            log_key=SigningKey(root / "audit.key", hint=""),
        )
        return create_app(options).openapi()


def api_page(document: Mapping[str, Any]) -> str:
    """The page.

    Args:
        document: An OpenAPI document, of version 3.1.
    """
    parts = [_HEAD]
    operations = [
        (method, path, operation)
        for path, operations_of_path in document["paths"].items()
        for method, operation in operations_of_path.items()
    ]
    used = {tag for _, _, operation in operations for tag in operation["tags"]}
    for tag in (*_TAGS, *sorted(used - set(_TAGS))):
        parts.append(f"## {_TAGS.get(tag, tag)}")
        for method, path, operation in operations:
            if tag in operation["tags"]:
                parts += _operation(method, path, operation)
    parts += ["## The client in Python", _client()]
    parts.append("## Types")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts += _type(name, schema)
    return "\n\n".join(parts) + "\n"


def _client() -> str:
    """Every method of the client: what it takes, and the first sentence of what it says of itself."""
    from aevorium.client import Client

    rows = []
    for name, method in vars(Client).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            taken = [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]
            rows.append(f"| `{name}({', '.join(taken)})` | {_line(inspect.getdoc(method) or '').split(' Args:')[0]} |")
    return "\n".join(
        ["Of `aevorium.client.Client(url, token=...)`:", "", "| method | what it does |", "|---|---|", *rows]
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} `{path}`"
    if operation.get("deprecated"):
        yield "*Deprecated: it stays, and another route says the same.*"
    yield _line(operation.get("description") or operation["summary"])
    if operation.get("parameters"):
        rows = [
            f"| `{parameter['name']}` | {parameter['in']} | {_shown(parameter['schema'])} | {_meaning(parameter)} |"
            for parameter in operation["parameters"]
        ]
        yield "\n".join(["| parameter | in | type | meaning |", "|---|---|---|---|", *rows])
    if "requestBody" in operation:
        yield f"Takes {_content(operation['requestBody']['content'])}."
    answers = [
        f"{status}: {_content(answer['content'])}" if answer.get("content") else f"{status}: no JSON"
        for status, answer in operation["responses"].items()
        if status != "default"
    ]
    yield f"Answers {'; '.join(answers)}."


def _type(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    if schema.get("description"):
        yield _line(schema["description"])
    fields = schema.get("properties", {})
    if not fields:
        yield _shown(schema)
        return
    required = set(schema.get("required", ()))
    rows = [
        f"| `{field}` | {_shown(value)} | {'yes' if field in required else 'no'} | {_meaning(value)} |"
        for field, value in fields.items()
    ]
    yield "\n".join(["| field | type | always there | meaning |", "|---|---|---|---|", *rows])


def _content(content: Mapping[str, Any]) -> str:
    return " or ".join(f"{_shown(body.get('schema', {}))} (`{kind}`)" for kind, body in content.items())


def _shown(schema: Mapping[str, Any]) -> str:
    """A type in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(_shown(part) for part in schema[union]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_shown(schema.get('items', {}))}"
    return f"{schema.get('format') or schema.get('type', 'anything')}{_bounds(schema)}"


def _bounds(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if abs(schema.get(name, _UNSAID)) < _UNSAID]
    return f" ({', '.join(said)})" if said else ""


def _meaning(described: Mapping[str, Any]) -> str:
    return _line(described.get("description", ""))


def _line(text: str) -> str:
    """Text that fits a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
