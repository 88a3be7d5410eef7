"""Is this container's process of use? Exit status 0 if so: `python health.py server|node|api|dashboard`.

Needs nothing but the standard library: it runs several times a minute, and must not cost what an import of ours does.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

__all__ = ["Door", "doors", "main"]

_TIMEOUT = 5.0


@dataclass(frozen=True)
class Door:
    """What a role's health is read off.

    Attributes:
        address: Host and port.
        path: Answered with 200 by a process that is well.
        authority: File of the certificate that the server's is signed with; None for plain HTTP on loopback.
    """

    address: str
    path: str = "/health"
    authority: Path | None = None

    def is_open(self) -> bool:
        """Whether it answers, and with a certificate of its authority. Asks it directly, never through a proxy."""
        if self.authority is None:
            connection = HTTPConnection(self.address, timeout=_TIMEOUT)
        else:
            context = ssl.create_default_context(cafile=str(self.authority))
            connection = HTTPSConnection(self.address, timeout=_TIMEOUT, context=context)
        try:
            connection.request("GET", self.path)
            return connection.getresponse().status == 200
        finally:
            connection.close()


def doors(environment: Mapping[str, str]) -> dict[str, Door]:
    """The door of each role. A node is of use if it reaches its server, and knows it for the right one."""
    workspace = Path(environment.get("AEVORIUM_WORKSPACE", "workspace"))
    server = environment.get("AEVORIUM_SERVER_ADDRESS") or environment.get("SERVER_ADDRESS", "127.0.0.1:8091")
    return {
        "server": Door("127.0.0.1:8091", authority=workspace / "federation" / "ca.crt"),
        "node": Door(server, authority=Path(environment.get("AEVORIUM_AUTHORITY", "/var/lib/aevorium/public/ca.crt"))),
        "api": Door("127.0.0.1:8000"),
        "dashboard": Door("127.0.0.1:8501", path="/_stcore/health"),
    }


def main(arguments: list[str]) -> int:
    """Looks at one role's door."""
    known = doors(os.environ)
    if len(arguments) != 1 or arguments[0] not in known:
        sys.stderr.write(f"Usage: python health.py {'|'.join(known)}\n")
        return 2
    door = known[arguments[0]]
    try:
        is_open = door.is_open()
    except (OSError, HTTPException) as error:
        sys.stderr.write(f"{door.address}{door.path} does not answer. {type(error).__name__}: {error}.\n")
        return 1
    if not is_open:
        sys.stderr.write(f"{door.address}{door.path} answers, but not that it is well.\n")
    return 0 if is_open else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
