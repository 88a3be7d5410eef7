"""The value of a term over the rows of a frame: numbers with gaps, or truth with gaps.

Truth is three-valued (S. C. Kleene, "Introduction to Metamathematics", 1952, section 64): what rests on a missing
value is unknown unless the rest decides it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.errors import InternalError
from aevorium.schema.terms import (
    Arithmetic,
    Cell,
    Comparison,
    Conjunction,
    Disjunction,
    Kind,
    Literal,
    Membership,
    Missing,
    Negation,
    Negative,
    Term,
    kind_of,
)

__all__ = ["Truth", "frame_kinds", "numbers_of", "truth_of"]

_BoolArray = NDArray[np.bool_]
_FloatArray = NDArray[np.float64]

_OPERATIONS = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
_COMPARISONS = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


@dataclass(frozen=True, eq=False)
class Truth:
    """Truth per row: true, false, or (neither) unknown.

    Attributes:
        is_true: Boolean array (rows).
        is_false: Boolean array (rows), nowhere true together with `is_true`.
    """

    is_true: _BoolArray
    is_false: _BoolArray

    @property
    def is_unknown(self) -> _BoolArray:
        """Rows that are neither true nor false."""
        return ~(self.is_true | self.is_false)

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.is_true & other.is_true, self.is_false | other.is_false)

    def __or__(self, other: Truth) -> Truth:
        return Truth(self.is_true | other.is_true, self.is_false & other.is_false)

    def __invert__(self) -> Truth:
        return Truth(self.is_false, self.is_true)


def frame_kinds(frame: pd.DataFrame) -> dict[str, Kind]:
    """Whether each column of a frame holds numbers or text."""
    return {
        str(name): Kind.NUMBER if pd.api.types.is_numeric_dtype(dtype) else Kind.TEXT
        for name, dtype in frame.dtypes.items()
    }


def numbers_of(term: Term, frame: pd.DataFrame) -> _FloatArray:
    """The value of a numeric term.

    Args:
        term: A term of kind NUMBER for this frame.
        frame: The rows.

    Returns:
        float64 (rows), or a scalar array if no column is involved. What is not a finite number (a missing input,
        division by zero, overflow) is NaN.
    """
    match term:
        case Literal(value=float(value)):
            return np.asarray(value)
        case Cell(name=name):
            numbers: _FloatArray = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
            return numbers
        case Negative(operand=operand):
            return np.asarray(-numbers_of(operand, frame))
        case Arithmetic(sign=sign, left=left, right=right):
            with np.errstate(all="ignore"):
                result = _OPERATIONS[sign](numbers_of(left, frame), numbers_of(right, frame))
            return np.where(np.isfinite(result), result, np.nan)
    raise InternalError(f"A term without a number: {type(term).__name__}.")


def truth_of(term: Term, frame: pd.DataFrame) -> Truth:
    """The value of a condition.

    Args:
        term: A term of kind CONDITION for this frame.
        frame: The rows.

    Returns:
        One truth per row.
    """
    match term:
        case Comparison():
            return _compare(term, frame)
        case Membership(operand=operand, values=values):
            listed = [literal.value for literal in values]
            if isinstance(listed[0], str) and isinstance(operand, Cell):
                codes, words = _words_of(frame[operand.name])
                return _truth(np.isin(codes, [words[w] for w in listed if w in words]), known=codes >= 0, frame=frame)
            numbers = numbers_of(operand, frame)
            return _truth(np.isin(numbers, listed), known=~np.isnan(numbers), frame=frame)
        case Missing(operand=operand):
            if isinstance(operand, Cell):
                missing = frame[operand.name].isna().to_numpy()
            else:
                missing = np.isnan(numbers_of(operand, frame))
            return _truth(missing, known=np.asarray(True), frame=frame)
        case Negation(operand=operand):
            return ~truth_of(operand, frame)
        case Conjunction(operands=(first, *rest)):
            result = truth_of(first, frame)
            for operand in rest:
                result = result & truth_of(operand, frame)
            return result
        case Disjunction(operands=(first, *rest)):
            result = truth_of(first, frame)
            for operand in rest:
                result = result | truth_of(operand, frame)
            return result
    raise InternalError(f"A term without a truth: {type(term).__name__}.")


def _compare(term: Comparison, frame: pd.DataFrame) -> Truth:
    compare = _COMPARISONS[term.sign]
    kinds = frame_kinds(frame)
    if Kind.TEXT in (kind_of(term.left, kinds), kind_of(term.right, kinds)):
        # Codes are compared in place of texts: a frame has few distinct texts and many rows.
        left, words = _words_of(_text_column(term.left, frame))
        right, right_words = _words_of(_text_column(term.right, frame))
        recode = np.array([words.get(word, -2) for word in right_words] + [-1])
        return _truth(compare(left, recode[right]), known=(left >= 0) & (right >= 0), frame=frame)
    numbers, others = numbers_of(term.left, frame), numbers_of(term.right, frame)
    return _truth(compare(numbers, others), known=~(np.isnan(numbers) | np.isnan(others)), frame=frame)


def _text_column(term: Term, frame: pd.DataFrame) -> pd.Series:
    match term:
        case Cell(name=name):
            return frame[name]
        case Literal(value=str(value)):
            return pd.Series([value])
    raise InternalError(f"A term without text: {type(term).__name__}.")


def _words_of(column: pd.Series) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Codes (rows; -1 = missing) and the code of each distinct text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, words = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, words = pd.factorize(column)
    return codes.astype(np.int64), {str(word): code for code, word in enumerate(words)}


def _truth(holds: _BoolArray, *, known: _BoolArray, frame: pd.DataFrame) -> Truth:
    shape = (len(frame),)
    return Truth(np.broadcast_to(holds & known, shape), np.broadcast_to(~holds & known, shape))
