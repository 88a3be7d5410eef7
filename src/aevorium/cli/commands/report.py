"""`aevorium report`: where the reports of a workspace are."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from aevorium.cli.console import console_of
from aevorium.cli.options import WorkspaceFolder

__all__ = ["report"]


def report(
    context: typer.Context,
    workspace: WorkspaceFolder = None,
    open_it: Annotated[bool, typer.Option("--open", help="Also open the run's report in the browser.")] = False,
) -> dict[str, object]:
    """Names the reports and the privacy statement of a workspace."""
    from aevorium.cli.workspaces import existing_workspace
    from aevorium.errors import ArtefactError
    from aevorium.settings import load_settings

    console = console_of(context)
    folder = existing_workspace(load_settings({"workspace": workspace}).values.workspace, console=console)
    statements = (folder.privacy_statement, folder.privacy_statement_json)
    shared = [path for path in (folder.report_html, folder.report_json, *statements) if path.is_file()]
    local = [path for path in (folder.local_report_html, folder.local_report_json) if path.is_file()]
    if not shared:
        raise ArtefactError(
            "ARTEFACT_NOT_FOUND",
            f"No report in {str(folder.root)!r}. No run was finished there.",
            hint="Run 'aevorium run' or 'aevorium demo' first, or give --workspace.",
        )
    console.say("May be shared (released numbers only):")
    for path in shared:
        console.say(f"  {path}")
    if local:
        console.say("Do not share (exact statistics of real records):")
        for path in local:
            console.say(f"  {path}")
    if open_it:
        webbrowser.open(folder.report_html.resolve().as_uri())
    return {"shared": [str(path) for path in shared], "local": [str(path) for path in local]}
