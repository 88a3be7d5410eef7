"""`aevorium node`: one node, which holds a table and takes part in the studies of its server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aevorium.cli.console import Console, console_of
from aevorium.cli.options import Home, SchemaSource, WorkspaceFolder
from aevorium.errors import ConfigError

if TYPE_CHECKING:
    from aevorium.node.home import NodeHome

__all__ = ["node"]

_DATA_FOLDER = Path("data") / "csv"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def node(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="The node's table, CSV or Parquet. Default: a free part of data/csv."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The node's name. Default: that of its table or part.")
    ] = None,
    schema: SchemaSource = "synthea",
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="What the node allows. Default: policy.toml in its home, written if absent."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server", help="The server's HOST:PORT (env SERVER_ADDRESS, default 127.0.0.1:8091).", show_default=False
        ),
    ] = None,
    authority: Annotated[
        Path | None,
        typer.Option(
            "--authority", help="The certificate that the server's is signed with; needed unless it is on this machine."
        ),
    ] = None,
    home: Home = None,
    workspace: WorkspaceFolder = None,
    stay: Annotated[bool, typer.Option("--stay", help="Go on after a run, for the next one.")] = False,
) -> dict[str, object]:
    """Starts one node. It waits for its server, answers within its policy, and ends when the run does.

    With --json, every event is one line on the standard output, and the result is the last one.
    """
    from aevorium.inputs import check_name, read_schema
    from aevorium.settings import load_settings

    settings = load_settings({"server_address": server, "node_home": home, "workspace": workspace}).values
    console = console_of(context)
    table, _ = read_schema(schema)
    if name is not None:
        check_name(name, flag="--name")
    address = settings.server_address
    is_here = address.rsplit(":", 1)[0] in _LOOPBACK
    if not is_here and authority is None:
        raise ConfigError(
            "CONFIG_INVALID",
            f"--authority is missing. The server {address!r} is on another machine.",
            hint="Ask the server's engineer for federation/ca.crt, and send the node's key (node.pub) in return.",
        )
    from aevorium.cli.event_stream import EventStream
    from aevorium.cli.progress_view import ProgressView
    from aevorium.joining import JoinOptions, join_federation
    from aevorium.node.home import NodeTables
    from aevorium.workspace import Workspace

    federation = Workspace(settings.workspace).federation
    options = JoinOptions(
        address=address,
        authority=authority or federation / "ca.crt",
        enrol_in=federation / "nodes" if is_here and authority is None else None,
        stay=stay,
        device=settings.device,
    )
    with _claimed(data, name=name, root=settings.node_home, console=console) as (folder, held, holdout):
        allowed, is_new = folder.policy(policy, period=str(datetime.now(UTC).year))
        if is_new:
            console.note(
                f"No policy yet: {folder.policy_file} was written (max_epsilon {allowed.budget.max_epsilon:g} for the "
                f"period {allowed.budget.period}, consent automatic). Its steward may change it."
            )
        folder.note_tables(NodeTables(table=held.resolve(), holdout=None if holdout is None else holdout.resolve()))
        with ProgressView(console, is_of_node=True) as view:
            session = join_federation(
                name=folder.folder.name,
                data=held,
                schema=table,
                policy=allowed,
                policy_file=policy or folder.policy_file,
                home=folder,
                options=options,
                report=EventStream(view, console=console),
            )
        spend = session.write_views()
        console.say(
            f"The run is over. Spent in the period {spend.period}: ε = {spend.spent:.4g} of {spend.max_epsilon:g}; "
            f"over all periods: {spend.lifetime:.4g}. Ledger, audit log and policy: {folder.folder}"
        )
        return {"node": spend.node, "home": str(folder.folder), "budget": spend.model_dump(mode="json")}


@contextmanager
def _claimed(
    data: Path | None, *, name: str | None, root: Path, console: Console
) -> Iterator[tuple[NodeHome, Path, Path | None]]:
    """The node's folder, held for this process, its table, and a table of patients of no node if there is one."""
    from aevorium.inputs import check_name
    from aevorium.node.home import NodeHome
    from aevorium.node.parts import claim_part, find_parts, prepare_part

    if data is not None:
        chosen = name or check_name(data.stem, flag="--data")
        home = NodeHome(root / chosen)
        with home.claim() as is_claimed:
            if not is_claimed:
                raise ConfigError(
                    "NODE_NAME_TAKEN", f"The name {chosen!r} is not possible. A node of this machine runs under it."
                )
            yield home, data, None
        return
    parts = find_parts(_DATA_FOLDER)
    if name is not None:
        parts = [part for part in parts if part.name == name]
        if not parts:
            raise ConfigError(
                "CONFIG_INVALID",
                f"--name {name!r} is not possible without --data. No part of {str(_DATA_FOLDER)!r} has this name.",
                hint="Give --data FILE.",
            )
    with claim_part(parts, root=root) as (home, part):
        if part.source is None:
            console.warn(f"{_DATA_FOLDER} is empty: taking the simulated {part.name}. No person is concerned.")
        with console.busy(f"Preparing the table of {part.name} …"):
            table, holdout, findings = prepare_part(part, home=home)
        for line in findings:
            console.note(f"  [{part.name}, for its steward only] {line}")
        yield home, table, holdout
