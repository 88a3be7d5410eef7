"""What values a numeric term can take, from public bounds alone (interval arithmetic)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aevorium.errors import InternalError
from aevorium.schema.terms import Arithmetic, Cell, Literal, Negative, Term

if TYPE_CHECKING:
    from aevorium.schema.table import Categorical, Continuous

__all__ = ["Range", "range_of"]


@dataclass(frozen=True)
class Range:
    """The smallest interval that is known to hold every value.

    Attributes:
        low: No value is smaller; may be -inf.
        high: No value is larger; may be inf.
        may_miss: Whether a value can be missing.
    """

    low: float
    high: float
    may_miss: bool


def range_of(term: Term, columns: Mapping[str, Continuous | Categorical]) -> Range:
    """The range of a numeric term.

    Args:
        term: A term of kind NUMBER for these columns.
        columns: The columns that it reads, all continuous.
    """
    match term:
        case Literal(value=float(value)):
            return Range(value, value, may_miss=False)
        case Cell(name=name):
            column = columns[name]
            if column.kind == "continuous":
                return Range(column.min, column.max, may_miss=column.missing)
        case Negative(operand=operand):
            inner = range_of(operand, columns)
            return Range(-inner.high, -inner.low, inner.may_miss)
        case Arithmetic(sign=sign, left=left, right=right):
            return _combine(sign, range_of(left, columns), range_of(right, columns))
    raise InternalError(f"A term without a range: {type(term).__name__}.")


def _combine(sign: str, left: Range, right: Range) -> Range:
    may_miss = left.may_miss or right.may_miss
    if sign == "/":
        if right.low <= 0 <= right.high:
            return Range(-math.inf, math.inf, may_miss=True)
        sign, right = "*", Range(1 / right.high, 1 / right.low, may_miss)
    if sign == "-":
        sign, right = "+", Range(-right.high, -right.low, may_miss)
    if sign == "+":
        corners = [left.low + right.low, left.high + right.high]
    else:
        corners = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
    if not all(math.isfinite(corner) for corner in corners):
        # What overflows is missing.
        return Range(-math.inf, math.inf, may_miss=True)
    return Range(min(corners), max(corners), may_miss)
