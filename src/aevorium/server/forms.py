"""What a node's reply must hold before any of its numbers is used: body, array and weight as the request announced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flwr.app import Message
from pydantic import BaseModel

from aevorium.errors import FederationError
from aevorium.federation.protocol import read_array, read_body, read_weight

__all__ = ["LARGEST_CELL", "ReplyForm"]

LARGEST_CELL = 2**53
"""No noisy count of patients comes near it, and sums of a thousand of it do not wrap around."""


@dataclass(frozen=True)
class ReplyForm:
    """The form of the replies of one phase.

    Attributes:
        body: The kind of the body.
        dtype: The type of the numbers in the array; None if there is no array.
        size: How many numbers the array holds.
        largest: Magnitude that no number of an int64 array may exceed; None where they count modulo 2^64.
        is_weighted: Whether a public weight comes with the array.
    """

    body: type[BaseModel]
    dtype: type[np.generic] | None = None
    size: int = 0
    largest: int | None = LARGEST_CELL
    is_weighted: bool = False

    def check(self, message: Message) -> None:
        """Passes if a reply has the form, and all its numbers are finite.

        Raises:
            FederationError: REPLY_UNUSABLE.
        """
        try:
            read_body(message, self.body)
            if self.is_weighted:
                read_weight(message)
            if self.dtype is not None:
                self._check_array(message, self.dtype)
        except FederationError as error:
            raise FederationError("REPLY_UNUSABLE", error.message) from error

    def _check_array(self, message: Message, dtype: type[np.generic]) -> None:
        values = read_array(message, dtype)
        if len(values) != self.size:
            raise FederationError(
                "REPLY_UNUSABLE", f"A reply holds {len(values)} numbers. The request asked for {self.size}."
            )
        if values.dtype.kind == "f":
            is_sound = bool(np.isfinite(values).all())
        else:
            # Not by magnitudes: that of the smallest int64 is none.
            least, most = int(values.min(initial=0)), int(values.max(initial=0))
            is_sound = self.largest is None or -self.largest <= least <= most <= self.largest
        if not is_sound:
            raise FederationError("REPLY_UNUSABLE", "A reply holds numbers that are not finite, or beyond all bounds.")
