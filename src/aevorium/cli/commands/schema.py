"""`aevorium schema`: the public description of a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aevorium.cli.console import console_of

if TYPE_CHECKING:
    from aevorium.schema.table import Categorical, Continuous, TableSchema

__all__ = ["app"]

app = typer.Typer(help="Schemas: the public description of a table.", no_args_is_help=True)


@app.command("list")
def list_bundled(context: typer.Context) -> dict[str, object]:
    """Lists the schemas that come with Aevorium."""
    from aevorium.schema.table import BUNDLED, load_schema

    console = console_of(context)
    schemas = {name: load_schema(name) for name in BUNDLED}
    rows = [(name, str(len(found.columns)), found.content_hash[:16]) for name, found in schemas.items()]
    console.table(("schema", "columns", "content hash"), rows, numbers=("columns",))
    return {"schemas": [_summary(found) for found in schemas.values()]}


@app.command("show")
def show(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="A schema file, or the name of a bundled schema.")] = "synthea",
    toml: Annotated[bool, typer.Option("--toml", help="Print the file instead, to start one of your own.")] = False,
) -> dict[str, object]:
    """Shows the columns, rules and constraints of a schema."""
    from aevorium.inputs import read_schema

    console = console_of(context)
    schema, text = read_schema(source)
    if toml:
        console.say(text.rstrip())
        return {**_summary(schema), "toml": text}
    console.say(f"Schema {schema.name!r}, one row a {schema.unit}, content hash {schema.content_hash}")
    rows = [(name, *_describe(column)) for name, column in schema.columns.items()]
    console.table(("column", "kind", "values", "remarks"), rows)
    for constraint in schema.constraints:
        console.say(f"Every row satisfies: {constraint.check}")
    return {**_summary(schema), "schema": schema.model_dump(mode="json")}


@app.command("check")
def check(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="A schema file, or the name of a bundled schema.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Also read this table, of records or generated, as a node would.")
    ] = None,
) -> dict[str, object]:
    """Checks a schema file, and on request a table against it."""
    from aevorium.inputs import read_schema

    console = console_of(context)
    schema, _ = read_schema(source)
    console.say(f"The schema {source!r} is sound: {len(schema.columns)} columns, content hash {schema.content_hash}")
    if data is None:
        return _summary(schema)
    from aevorium.data.table import read_table

    table = read_table(data, schema, unit_id="optional")
    findings = table.findings.lines()
    if schema.unit_id is not None and table.unit_ids is None:
        findings.insert(
            0,
            f"It has no {schema.unit_id} column: duplicates were not looked for. A generated table has none; a node "
            "refuses records without it.",
        )
    console.say(f"The table {str(data)!r} can be used:")
    for line in findings:
        console.say(f"  {line}")
    return {**_summary(schema), "data": str(data), "findings": findings}


def _summary(schema: TableSchema) -> dict[str, object]:
    return {
        "name": schema.name,
        "content_hash": schema.content_hash,
        "columns": len(schema.columns),
        "measured": len(schema.measured),
    }


def _describe(column: Continuous | Categorical) -> tuple[str, str, str]:
    if column.kind == "continuous":
        values = f"{column.min:g} to {column.max:g}"
        remarks = ["whole numbers"] if column.integer else []
    else:
        values = ", ".join(column.categories)
        remarks = [f"unknown values become {column.other!r}"] if column.other is not None else []
    remarks += ["may be empty"] if column.missing else []
    remarks += [f"derived by rule {column.derived!r}"] if column.derived is not None else []
    return column.kind, values, "; ".join(remarks)
