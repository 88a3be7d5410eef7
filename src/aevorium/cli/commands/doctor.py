"""`aevorium doctor`: does this installation work?"""

from __future__ import annotations

import platform
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from aevorium import __version__
from aevorium.cli.console import console_of

__all__ = ["doctor"]

_LIBRARIES = ("numpy", "pandas", "pyarrow", "dp-accounting", "scikit-learn")

_ROLES = {
    "server": ("torch", "flwr", "opacus", "opendp"),
    "node": ("torch", "flwr", "opacus", "opendp"),
    "api": ("torch", "fastapi", "sqlalchemy"),
}
"""What each role needs besides: an installation for one role lacks what only the others do."""


def doctor(
    context: typer.Context,
    with_round: Annotated[
        bool, typer.Option("--with-round", help="Also run one tiny round in this process, on simulated patients.")
    ] = False,
) -> dict[str, object]:
    """Checks libraries, schema, disk, and on request one whole tiny federation."""
    from aevorium.errors import ConfigError
    from aevorium.governance.secrets import Secrets
    from aevorium.schema.table import load_schema
    from aevorium.settings import load_settings
    from aevorium.workspace import Workspace

    console = console_of(context)
    settings = load_settings().values
    versions = _versions()
    missing = [name for name in _LIBRARIES if name not in versions]
    roles = [role for role, libraries in _ROLES.items() if all(name in versions for name in libraries)]
    if missing or not roles:
        name = (missing or [name for name in _ROLES["api"] if name not in versions])[0]
        raise ConfigError(
            "DEPENDENCY_MISSING", f"The library {name!r} is not installed.", hint="Type: python start.py install"
        )
    console.say(f"ok: aevorium {__version__}, Python {platform.python_version()} on {platform.system()}")
    console.say("ok: libraries: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    console.say("ok: installed for: " + ", ".join(roles))
    schema = load_schema("synthea")
    console.say(f"ok: schema {schema.name!r}, {len(schema.columns)} columns, hash {schema.content_hash[:12]}")
    keys = Secrets.of(settings).keys
    if keys.exists():
        console.say(f"ok: key {keys.load().key_id} in {keys.place}")
    else:
        console.say(f"ok: no key yet; the first run makes {keys.place}")
    folder = settings.workspace
    if folder.exists():
        Workspace(folder).create()
    console.say(f"ok: workspace {folder.resolve()}, {'writable' if folder.exists() else 'made by the first run'}")
    if with_round:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            _tiny_round(Path(scratch), context)
    console.say("Everything works.")
    return {
        "version": __version__,
        "python": platform.python_version(),
        "versions": versions,
        "roles": roles,
        "schema": schema.content_hash,
        "with_round": with_round,
    }


def _versions() -> dict[str, str]:
    """The versions of the libraries that are installed."""
    found = {}
    for name in dict.fromkeys((*_LIBRARIES, *(name for libraries in _ROLES.values() for name in libraries))):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _tiny_round(folder: Path, context: typer.Context) -> None:
    from aevorium.cli.progress_view import ProgressView
    from aevorium.demo import make_tables
    from aevorium.errors import InternalError
    from aevorium.generation import generate_table
    from aevorium.governance.secrets import Secrets
    from aevorium.inputs import read_schema
    from aevorium.pipeline import NodeSource, run_federation
    from aevorium.planning import RunOptions, plan_study
    from aevorium.verification import verify_workspace
    from aevorium.workspace import Workspace

    console = console_of(context)
    schema, text = read_schema("synthea")
    options = RunOptions(epsilon=3.0, rounds=1, pretraining_steps=100)
    workspace = Workspace(folder / "workspace")
    secrets = Secrets.in_files(folder / "key")
    with ProgressView(console) as view:
        tables = make_tables(folder / "data", seed=0, report=view, adults=(200, 150), holdout=50)
        run_federation(
            schema,
            schema_text=text,
            plan=plan_study(schema, list(tables.nodes), options),
            nodes=[NodeSource(name, path) for name, path in tables.nodes.items()],
            workspace=workspace,
            secrets=secrets,
            options=options,
            report=view,
        )
        generate_table(workspace=workspace, secrets=secrets, output=workspace.synthetic, rows=50, report=view)
    result = verify_workspace(workspace)
    if not result.is_sound:
        raise InternalError("The tiny round's own audit does not verify: " + " ".join(result.findings))
    console.say("ok: one round of two simulated nodes, 50 rows, and the audit verifies")
