"""Is this container's process of use? Exit status 0 if so: `python health.py server|node|api|dashboard`.

Needs nothing but the standard library: it runs several times a minute, and must not cost what an import of ours does.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

__all__ = ["Door", "Post", "checks", "main"]

_TIMEOUT = 5.0


@dataclass(frozen=True)
class Door:
    """An address that a process answers at.

    Attributes:
        address: Host and port.
        path: Answered with 200 by a process that is well.
    """

    address: str
    path: str = "/health/live"

    def is_well(self) -> bool:
        """Whether it answers. Asks it directly, never through a proxy."""
        connection = HTTPConnection(self.address, timeout=_TIMEOUT)
        try:
            connection.request("GET", self.path)
            return connection.getresponse().status == 200
        except HTTPException:
            return False
        finally:
            connection.close()


@dataclass(frozen=True)
class Post:
    """A lock that a process holds as long as it is at its work. Between two runs, server and node answer nobody.

    Attributes:
        folder: Where it is looked for.
        pattern: What it is called there.
    """

    folder: Path
    pattern: str

    def is_well(self) -> bool:
        """Whether somebody holds it."""
        return any(_is_held(path) for path in self.folder.glob(self.pattern))


def _is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def checks(environment: Mapping[str, str]) -> dict[str, Callable[[], bool]]:
    """What is asked of each role."""
    workspace = Path(environment.get("AEVORIUM_WORKSPACE", "workspace"))
    home = Path(environment.get("AEVORIUM_NODE_HOME", "node-home"))
    return {
        "server": Post(workspace, ".worker.lock").is_well,
        "node": Post(home, "*/.lock").is_well,
        "api": Door("127.0.0.1:8000").is_well,
        "dashboard": Door("127.0.0.1:8501", path="/_stcore/health").is_well,
    }


def main(arguments: list[str]) -> int:
    """Asks one role."""
    known = checks(os.environ)
    if len(arguments) != 1 or arguments[0] not in known:
        sys.stderr.write(f"Usage: python health.py {'|'.join(known)}\n")
        return 2
    try:
        is_well = known[arguments[0]]()
    except OSError as error:
        sys.stderr.write(f"{arguments[0]} does not answer. {type(error).__name__}: {error}.\n")
        return 1
    if not is_well:
        sys.stderr.write(f"{arguments[0]} is not at its work.\n")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
