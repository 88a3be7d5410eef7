"""Which patients a node holds out: decided by a secret key of the node and the patient's id alone."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aevorium.errors import ArtefactError
from aevorium.governance.keys import create_secret, read_secret

__all__ = ["HoldoutKey"]

_BYTES = 32
_FILE = "holdout.key"
_PLACES = 2.0**64
"""The first 8 bytes of a hash are one of so many whole numbers."""


@dataclass(frozen=True)
class HoldoutKey:
    """Draws a node's holdouts.

    Whoever knows the key knows who is held out, given their ids; what a run releases is as private with it as without.

    Attributes:
        secret: 32 bytes.
    """

    secret: bytes = field(repr=False)

    @classmethod
    def load_or_create(cls, home: Path) -> HoldoutKey:
        """Reads the key in a node's home, or makes it: once, so that all runs hold out the same patients.

        Raises:
            ArtefactError: KEY_INVALID, if it can be read by others, or is no such key.
            ConfigError: WORKSPACE_UNWRITABLE, if it cannot be made.
        """
        path = home / _FILE
        create_secret(path, lambda: secrets.token_hex(_BYTES).encode(), hint="Choose another node's home.")
        try:
            secret = bytes.fromhex(read_secret(path).decode("ascii"))
        except ValueError:
            secret = b""
        if len(secret) != _BYTES:
            raise ArtefactError("KEY_INVALID", f"The key file {str(path)!r} does not hold {2 * _BYTES} hex digits.")
        return cls(secret)

    def holds_out(self, unit_ids: Iterable[str], *, share: float) -> NDArray[np.bool_]:
        """Whether each patient is held out, bool [n]. Reads patient records (their ids only).

        A patient's place in [0, 1) is the first 8 bytes of HMAC-SHA256(key, id), as a fraction. Those below `share` are
        held out: the same ones whoever else is in the table, and among them all those of a smaller share.

        Args:
            unit_ids: The ids, as text.
            share: The share of patients that is held out, in expectation.
        """
        below = share * _PLACES
        places = (
            int.from_bytes(hmac.digest(self.secret, unit.encode("utf-8", "surrogatepass"), "sha256")[:8], "big")
            for unit in unit_ids
        )
        return np.fromiter((place < below for place in places), dtype=np.bool_)
