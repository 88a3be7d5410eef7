"""Works through the queue of a workspace, for the two commands that do."""

from __future__ import annotations

import sys
import threading

from aevorium.api.configuration import database_of
from aevorium.cli.console import Console
from aevorium.cli.interrupt import Interrupt
from aevorium.cli.progress_view import ProgressView
from aevorium.governance.secrets import Secrets
from aevorium.jobs.folders import RunFolders
from aevorium.jobs.sites import Site
from aevorium.jobs.worker import Worker
from aevorium.settings import Settings
from aevorium.state.jobs import JobStore
from aevorium.state.store import Store
from aevorium.workspace import Workspace

__all__ = ["work_through"]


def work_through(settings: Settings, *, site: Site, console: Console, attached: bool = False) -> None:
    """Does what is ordered until it is told to end.

    Args:
        settings: Name workspace, database and keys.
        site: Where runs are conducted.
        console: Shows what goes on.
        attached: Whether it ends, after the work that it is at, when its standard input does.
    """
    drained = threading.Event()
    if attached:
        threading.Thread(target=_await_end, args=(drained,), daemon=True).start()
    store = Store(database_of(settings))
    with ProgressView(console) as view, Interrupt(console, leaves=True) as interrupt:
        worker = Worker(
            JobStore(store),
            folders=RunFolders(Workspace(settings.workspace)),
            site=site,
            settings=settings,
            secrets=Secrets.of(settings),
            report=view,
        )
        console.say(f"The worker of {settings.workspace} waits for orders.")
        worker.work(should_stop=interrupt.is_requested, should_drain=drained.is_set)
    store.close()


def _await_end(ended: threading.Event) -> None:
    sys.stdin.buffer.read()
    ended.set()
