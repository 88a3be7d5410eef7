"""Released numbers as bytes: what a node keeps of a reply until the run ends, so that it can be sent again."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aevorium.errors import InternalError

__all__ = ["Numbers", "numbers_from_bytes", "numbers_to_bytes"]

Numbers = tuple[NDArray[np.generic], ...]
"""What one release consists of: plain arrays of numbers, in an order that its phase knows. Safe to release."""


def numbers_to_bytes(numbers: Sequence[NDArray[np.generic]]) -> bytes:
    """Arrays one after the other in NumPy's own format. The same numbers are always the same bytes.

    Raises:
        InternalError: One of them holds something that is no number.
    """
    stream = io.BytesIO()
    for array in numbers:
        if array.dtype.kind not in "iuf":
            raise InternalError(f"A release holds values of type {array.dtype}, which are no numbers.")
        np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def numbers_from_bytes(content: bytes) -> Numbers:
    """Reads what `numbers_to_bytes` wrote. Nothing is unpickled."""
    stream, arrays = io.BytesIO(content), []
    while stream.tell() < len(content):
        arrays.append(np.load(stream, allow_pickle=False))
    return tuple(arrays)
