"""Databases for the tests of the server's state: SQLite, and a PostgreSQL of the test's own where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Runs a server on a socket in a folder, and yields the URL of its database."""
    data, socket = folder / "data", folder / "s"
    socket.mkdir(parents=True)
    as_owner: Sequence[str] = ()
    if os.geteuid() == 0:
        # It refuses to run as root; the account comes with the package.
        as_owner = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
        for path in (folder, socket):
            shutil.chown(path, "postgres", "postgres")
        for path in folder.parents:
            if path.stat().st_uid == os.geteuid() and path != Path(path.anchor):
                path.chmod(path.stat().st_mode | 0o711)
    run = {"check": True, "capture_output": True, "cwd": folder, "timeout": 60}
    bin_folder = PROGRAMS[-1]
    initdb = [*as_owner, bin_folder / "initdb", "-D", data, "-U", "aevorium", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, **run)
    options = f"-k {socket} -c listen_addresses='' -c fsync=off"
    control = [*as_owner, bin_folder / "pg_ctl", "-D", data, "-l", folder / "log", "-w"]
    # Its children keep what they inherit open: a pipe would never end.
    subprocess.run([*control, "-o", options, "start"], check=True, cwd=folder, timeout=60, stdout=subprocess.DEVNULL)
    try:
        yield f"postgresql+psycopg://aevorium@/postgres?host={socket}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **run)
