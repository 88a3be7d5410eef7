"""Which workspace a command means."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from aevorium.cli.console import Console
from aevorium.errors import ArtefactError
from aevorium.settings import load_settings
from aevorium.workspace import Workspace

__all__ = [
    "DEMO_PREFIX",
    "existing_workspace",
    "home_of",
    "new_demo_folder",
    "node_folder",
    "node_homes",
    "workspaces_under",
]

DEMO_PREFIX = "demo-"
"""How the folder of a demo begins."""


def existing_workspace(root: Path, *, console: Console) -> Workspace:
    """The workspace at `root`, or the newest demo in it if no run was made in `root` itself; says so then."""
    demos = sorted(path for path in root.glob(f"{DEMO_PREFIX}*") if Workspace(path).database.is_file())
    if Workspace(root).database.is_file() or not demos:
        return Workspace(root)
    console.note(f"No run was made in {str(root)!r} itself: using the newest demo, {str(demos[-1])!r}.")
    return Workspace(demos[-1])


def workspaces_under(root: Path) -> tuple[Workspace, ...]:
    """Every workspace with a log: that at `root`, the demos in it, and the runs that were ordered of it.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, if there is none.
    """
    runs = sorted(Workspace(root).runs.glob("*"))
    found = [Workspace(path) for path in (root, *sorted(root.glob(f"{DEMO_PREFIX}*")), *runs)]
    kept = tuple(workspace for workspace in found if workspace.database.is_file())
    if not kept:
        raise ArtefactError(
            "ARTEFACT_NOT_FOUND",
            f"No run in {str(root)!r}. Nothing there is encrypted.",
            hint="Run 'aevorium run' or 'aevorium demo' first, or give --workspace.",
        )
    return kept


def node_homes(folder: Workspace, *, home: Path) -> tuple[Path, ...]:
    """Where nodes of this machine may have their homes, by name.

    Args:
        folder: The workspace: its simulated nodes, and real ones that a launcher started beside it. Nodes of a run that
            was ordered of a server have their homes with the server.
        home: Where real nodes have theirs otherwise.
    """
    server = Workspace(folder.root.parent.parent)
    outliving = (server.nodes,) if folder.root.parent == server.runs else ()
    return (folder.nodes, folder.root / "node-home", home, *outliving)


def node_folder(folder: Workspace, name: str, *, home: Path) -> Path:
    """The home of a node on this machine; that of a simulated one if there is none."""
    candidates = [root / name for root in node_homes(folder, home=home)]
    return next((path for path in candidates if (path / "ledger.db").is_file()), candidates[0])


def home_of(name: str, *, workspace: Path | None, home: Path | None, console: Console) -> Path:
    """The home of a node on this machine, for its steward's commands.

    Args:
        name: The node.
        workspace: The workspace given; it may have simulated nodes.
        home: The folder of homes given; then no other is looked at.
        console: Where the choice of a demo is told.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, if no node of this name has a ledger here.
    """
    settings = load_settings({"workspace": workspace, "node_home": home}).values
    if home is None:
        folder = node_folder(existing_workspace(settings.workspace, console=console), name, home=settings.node_home)
    else:
        folder = home / name
    if not (folder / "ledger.db").is_file():
        raise ArtefactError(
            "ARTEFACT_NOT_FOUND",
            f"No ledger in {str(folder)!r}. There is no such node on this machine, or it never ran.",
            hint="Run 'aevorium run' or 'aevorium node' first, or give --home or --workspace.",
        )
    return folder


def new_demo_folder(root: Path, *, now: datetime) -> Path:
    """A folder under `root` that no demo had before."""
    name = f"{DEMO_PREFIX}{now:%Y%m%d-%H%M%S}"
    taken = {path.name for path in root.glob(f"{name}*")}
    return root / next(choice for choice in (name, *(f"{name}-{n}" for n in range(2, 100))) if choice not in taken)
