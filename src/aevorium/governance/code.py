"""Which code a node runs: one hash over the sources of the installed package.

A steward who has reviewed a version lists its hash in the policy (`allow.code`); any other then takes part in no run.
The hash guards against an update that nobody looked at. It is no proof against who can change the installation: they
could change what computes it too.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import aevorium

__all__ = ["code_hash", "hash_of_sources"]


@cache
def code_hash() -> str:
    """SHA-256 (hex) of this installation, as it was when first asked for: what was loaded then. Public."""
    return hash_of_sources(Path(aevorium.__file__).parent)


def hash_of_sources(folder: Path) -> str:
    """SHA-256 (hex) of the Python sources of a folder: names and contents, in the order of names.

    Args:
        folder: The package.
    """
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.py")):
        # A checkout may have other line ends than a wheel; Python reads both alike.
        content = path.read_bytes().replace(b"\r\n", b"\n")
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()
