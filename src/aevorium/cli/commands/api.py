"""`aevorium api`: serves a workspace over HTTP, and makes the keys with which people reach it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aevorium.cli.console import Console, console_of
from aevorium.cli.options import WorkspaceFolder
from aevorium.errors import ConfigError

if TYPE_CHECKING:
    from aevorium.api.app import ApiOptions
    from aevorium.settings import Settings
    from aevorium.state.api_keys import ApiKeyStore

__all__ = ["app"]

app = typer.Typer(help="The REST API of a workspace.", invoke_without_command=True)
keys = typer.Typer(help="The keys with which people reach the API.", no_args_is_help=True)
app.add_typer(keys, name="key")


@app.callback()
def api(
    context: typer.Context,
    workspace: WorkspaceFolder = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on. [default: 127.0.0.1]", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Its port. [default: 8000]", show_default=False)
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Starts none: 'aevorium server --queue' does what is ordered.")
    ] = False,
) -> None:
    """Serves a workspace: orders runs and tables, shows budget, audit log, statement and report; with /docs."""
    if context.invoked_subcommand is not None:
        return
    import uvicorn

    from aevorium.api.app import create_app
    from aevorium.api.configuration import configure
    from aevorium.settings import load_settings

    console = console_of(context)
    settings = load_settings({"workspace": workspace, "api_host": host, "api_port": port}).values
    options = configure(settings, has_worker=not no_worker)
    application = create_app(options)
    _tell(options, host=settings.api_host, port=settings.api_port, console=console)
    uvicorn.run(
        application, host=settings.api_host, port=settings.api_port, log_level="warning", access_log=False,
        server_header=False, proxy_headers=False,
    )  # fmt: skip


def _tell(options: ApiOptions, *, host: str, port: int, console: Console) -> None:
    shown = f"[{host}]" if ":" in host else host
    console.say(f"The API listens on http://{shown}:{port}, and explains itself at http://{shown}:{port}/docs")
    if options.start_token is not None:
        console.say(
            f"No API key exists yet. From this machine this token may do all while the API runs: {options.start_token}"
        )
        console.say("Make keys for people with: aevorium api key create NAME --role researcher")


@app.command("worker")
def worker(
    context: typer.Context,
    workspace: WorkspaceFolder = None,
    attached: Annotated[
        bool, typer.Option("--attached", hidden=True, help="Ends after its work when its standard input ends.")
    ] = False,
) -> None:
    """Does what is ordered over the API, on the nodes that AEVORIUM_NODES names. 'aevorium api' starts one itself."""
    from aevorium.cli.working import work_through
    from aevorium.jobs.local_site import LocalSite
    from aevorium.settings import load_settings
    from aevorium.workspace import Workspace

    settings = load_settings({"workspace": workspace}).values
    site = LocalSite(Workspace(settings.workspace), tables=settings.nodes, policy=settings.nodes_policy)
    work_through(settings, site=site, console=console_of(context), attached=attached)


@keys.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    role: Annotated[str, typer.Option("--role", help="steward, engineer, researcher or auditor.")],
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=3650, help="How long it is accepted.", show_default="for ever")
    ] = None,
    workspace: WorkspaceFolder = None,
) -> dict[str, object]:
    """Makes a key and shows it, once."""
    from aevorium.state.api_keys import NAME, ROLES

    if re.fullmatch(NAME, name) is None:
        raise ConfigError(
            "CONFIG_INVALID",
            f"NAME = {name!r} is not possible. It should be 1 to 100 letters, digits, spaces, or signs of . , @ + - _",
        )
    if role not in ROLES:
        known = ", ".join(ROLES)
        raise ConfigError("CONFIG_INVALID", f"--role = {role!r} is not possible. It should be one of {known}.")
    store, settings = _keys(workspace)
    key, secret = store.create(
        name=name,
        role=role,
        lifetime=None if days is None else timedelta(days=days),
        note=lambda made: _note(settings, "api_key_created", key_id=made.id, role=made.role),
    )
    console = console_of(context)
    console.say(f"Key {key.id} for {key.name!r}, {key.role}. It is shown this once:")
    console.say(secret)
    return {**vars(key), "secret": secret}


@keys.command("list")
def listed(context: typer.Context, workspace: WorkspaceFolder = None) -> dict[str, object]:
    """Lists the keys, without secrets."""
    store, _ = _keys(workspace)
    found = store.all()
    rows = []
    for key in found:
        moments = (key.created_at, key.expires_at or "never", key.revoked_at or "–")
        rows.append((key.id, key.name, key.role, *(moment[:10] for moment in moments)))
    console_of(context).table(("key", "name", "role", "made", "expires", "revoked"), rows)
    return {"keys": [vars(key) for key in found]}


@keys.command("revoke")
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(help="The key's id, not its secret.")],
    workspace: WorkspaceFolder = None,
) -> dict[str, object]:
    """Refuses a key from now on."""
    store, settings = _keys(workspace)
    key = store.revoke(key_id)
    _note(settings, "api_key_revoked", key_id=key.id, role=key.role)
    console_of(context).say(f"Key {key.id} is refused from now on.")
    return dict(vars(key))


def _keys(workspace: Path | None) -> tuple[ApiKeyStore, Settings]:
    from aevorium.api.configuration import database_of
    from aevorium.settings import load_settings
    from aevorium.state.api_keys import ApiKeyStore
    from aevorium.state.store import Store

    settings = load_settings({"workspace": workspace}).values
    return ApiKeyStore(Store(database_of(settings))), settings


def _note(settings: Settings, action: str, *, key_id: str, role: str) -> None:
    from aevorium.governance.chain import AuditChain
    from aevorium.governance.secrets import Secrets
    from aevorium.workspace import Workspace

    target = Workspace(settings.workspace)
    chain = AuditChain(target.database, key=Secrets.of(settings).log)
    chain.append(actor="command line", action=action, detail={"key": key_id, "role": role})
    chain.write_view(target.audit_log)
