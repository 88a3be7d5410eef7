"""Conditions on the rows of a generated table: parsed, checked against the schema, refused where no row can meet them.

A row meets a condition that is definitely true of it: what rests on a missing cell is unknown, and unknown is not true.

Whether any row can follows from public bounds and categories alone, so that a mistake costs no search. What compares a
single column with fixed values changes its truth only at those values, so trying them, the bounds and the places
between decides it. Arithmetic is decided by intervals. What is let through may still be impossible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.errors import UserError
from aevorium.schema.expression import Expression, listed, parse_expression, shortened
from aevorium.schema.frame import round_frame
from aevorium.schema.logic import numbers_of, truth_of
from aevorium.schema.ranges import range_of
from aevorium.schema.table import Categorical, Continuous, TableSchema
from aevorium.schema.terms import (
    Cell,
    Comparison,
    Conjunction,
    Disjunction,
    Literal,
    Membership,
    Missing,
    Negation,
    Term,
    walk,
    written,
)

__all__ = ["Condition", "parse_condition"]

_SLACK = 1e-9
"""Relative room for the rounding of interval arithmetic."""

_TOLD = 5
"""Most parts that a message quotes."""

_NO_CELLS = pd.DataFrame(index=[0])


@dataclass(frozen=True)
class Condition:
    """A condition that rows of a schema can meet, as far as bounds and categories tell.

    Attributes:
        expression: The whole.
        parts: The conditions that it joins by "and", in order; a row meets it if it meets each.
    """

    expression: Expression
    parts: tuple[Expression, ...]

    @property
    def text(self) -> str:
        """As it was written."""
        return self.expression.text

    def met(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows of a typed frame meet each part; [rows, parts]."""
        return np.stack([part.holds(frame) for part in self.parts], axis=1)

    def require_within(self, reach: Mapping[str, tuple[float, float]], schema: TableSchema) -> None:
        """Passes unless no row can meet the condition whose numbers lie where a run's statistics have any.

        Args:
            reach: Between which numbers those of some continuous columns lie, within the schema's bounds.
            schema: The table's schema.

        Raises:
            UserError: CONDITION_UNSATISFIABLE.
        """
        columns = dict(schema.columns)
        for name, (low, high) in reach.items():
            columns[name] = columns[name].model_copy(update={"min": low, "max": high})
        narrowed = schema.model_copy(update={"columns": columns})
        try:
            _Possibility(narrowed, every=False).check(self.expression.term, wanted=True)
        except _NoSuchRow as found:
            raise UserError("CONDITION_UNSATISFIABLE", f"As far as the run can tell, {found}.") from None

    def categories(self, name: str, column: Categorical) -> tuple[str, ...]:
        """The categories of a column that the parts about this column alone leave possible."""
        frame = _frame_of({name: column}, list(column.categories))
        for part in self.parts:
            if part.columns == {name}:
                frame = frame[part.holds(frame)]
        return tuple(frame[name])


def parse_condition(text: str, schema: TableSchema) -> Condition:
    """Parses a condition on generated rows.

    Args:
        text: The condition, in the language of constraints.
        schema: The table's schema.

    Raises:
        SchemaError: EXPRESSION_INVALID, if it cannot be parsed, does not fit the columns, or is true of no row that the
            schema allows.
    """
    expression = parse_expression(text)
    if not expression.is_condition:
        raise expression.refusal(expression.term.at, "it is a number, not a condition")
    expression.check(schema.columns)
    try:
        _Possibility(schema, every=True).check(expression.term, wanted=True)
    except _NoSuchRow as found:
        raise expression.refusal(found.at, str(found), hint="Ask for what a row can hold.") from None
    parts = tuple(Expression(written(term), term) for term in _joined(expression.term))
    return Condition(expression, parts)


def _joined(term: Term) -> Iterator[Term]:
    if isinstance(term, Conjunction):
        for operand in term.operands:
            yield from _joined(operand)
    else:
        yield term


class _NoSuchRow(Exception):
    """A part of a condition is true of no row. Its text says which, and what a row can hold.

    Args:
        at: Where the part begins, from 0.
        reason: Which, and why.
    """

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at


@dataclass(frozen=True)
class _Possibility:
    """Looks for a part of a condition that is true of no row.

    Attributes:
        schema: What rows can hold.
        every: Whether each alternative ("or", "in") must be possible, as whoever writes one expects; or one of them.
    """

    schema: TableSchema
    every: bool

    def check(self, term: Term, *, wanted: bool) -> None:
        """Raises _NoSuchRow if no row gives the term, or a part of it, the truth that is wanted of it."""
        match term:
            case Negation(operand=operand):
                self.check(operand, wanted=not wanted)
            case Conjunction(operands=operands) | Disjunction(operands=operands):
                joined = isinstance(term, Conjunction) is wanted
                if joined or self.every:
                    for operand in operands:
                        self.check(operand, wanted=wanted)
                else:
                    self._check_any(operands, wanted=wanted)
                if joined:
                    self._check_together(operands, wanted=wanted)
            case Membership(operand=operand, values=values) if wanted and self.every:
                for value in values:
                    self.check(Comparison(value.at, "==", operand, value), wanted=True)
            case _:
                if not self._is_possible(term, wanted=wanted):
                    self._refuse([term], wanted=wanted)

    def _check_any(self, operands: Sequence[Term], *, wanted: bool) -> None:
        """Raises _NoSuchRow for the first operand if all would."""
        refused: list[_NoSuchRow] = []
        for operand in operands:
            try:
                self.check(operand, wanted=wanted)
            except _NoSuchRow as found:
                refused.append(found)
            else:
                return
        raise refused[0]

    def _check_together(self, operands: Sequence[Term], *, wanted: bool) -> None:
        """Several conditions on one column may exclude each other."""
        together: dict[str, list[Term]] = {}
        for operand in operands:
            name = _only_column(operand)
            if name is not None:
                together.setdefault(name, []).append(operand)
        for name, terms in together.items():
            if len(terms) > 1 and not self._has_value(name, terms, wanted=wanted):
                self._refuse(terms, wanted=wanted)

    def _is_possible(self, term: Term, *, wanted: bool) -> bool:
        name = _only_column(term)
        if name is not None:
            return self._has_value(name, [term], wanted=wanted)
        columns = self.schema.columns
        if isinstance(term, Comparison) and _is_numeric(term, columns):
            return _can_compare(term, columns, wanted=wanted)
        return True

    def _has_value(self, name: str, terms: Sequence[Term], *, wanted: bool) -> bool:
        column = self.schema.columns[name]
        if isinstance(column, Categorical):
            values: list[object] = list(column.categories)
        else:
            values = _places(column, [number for term in terms for number in _fixed_numbers(term)])
        frame = _frame_of({name: column}, [*values, None] if column.missing else values)
        # Rounded as generated rows are: a value between two that a file can hold is in no row.
        frame = round_frame(frame, self.schema)
        possible = np.ones(len(frame), dtype=np.bool_)
        for term in terms:
            truth = truth_of(term, frame)
            possible &= truth.is_true if wanted else truth.is_false
        return bool(possible.any())

    def _refuse(self, terms: Sequence[Term], *, wanted: bool) -> None:
        told = " and ".join(repr(shortened(written(term))) for term in terms[:_TOLD])
        verb = ("are" if len(terms) > 1 else "is") + (" true" if wanted else " false")
        together = " together" if len(terms) > 1 else ""
        names = {cell.name for term in terms for cell in walk(term) if isinstance(cell, Cell)}
        allowed = "; ".join(_allowed(name, column) for name, column in self.schema.columns.items() if name in names)
        reason = f"{told} {verb}{together} of no possible row" + (f": {allowed}" if allowed else "")
        raise _NoSuchRow(terms[0].at, reason)


def _allowed(name: str, column: Continuous | Categorical) -> str:
    if isinstance(column, Categorical):
        told = f"{name!r} is {listed(column.categories)}"
    else:
        number = "a whole number" if column.integer else "a number"
        told = f"{name!r} is {number} from {column.min:.15g} to {column.max:.15g}"
    return f"{told}, or missing" if column.missing else f"{told}, and never missing"


def _only_column(term: Term) -> str | None:
    """The column that a term compares with fixed values, if it does nothing else."""
    names = {part.name for part in walk(term) if isinstance(part, Cell)}
    if len(names) != 1:
        return None
    for part in walk(term):
        match part:
            case Comparison(left=left, right=right):
                sides = [side for side in (left, right) if not _is_fixed(side)]
                if len(sides) != 1 or not isinstance(sides[0], Cell):
                    return None
            case Membership(operand=operand) | Missing(operand=operand) if not isinstance(operand, Cell):
                return None
    return names.pop()


def _is_fixed(term: Term) -> bool:
    return not any(isinstance(part, Cell) for part in walk(term))


def _fixed_numbers(term: Term) -> Iterator[float]:
    """The numbers that a term compares its column with."""
    for part in walk(term):
        sides: Iterable[Term] = ()
        match part:
            case Comparison(left=left, right=right):
                sides = (left, right)
            case Membership(values=values):
                sides = values
        for side in sides:
            if _is_fixed(side) and not (isinstance(side, Literal) and isinstance(side.value, str)):
                yield float(numbers_of(side, _NO_CELLS))


def _places(column: Continuous, numbers: Iterable[float]) -> list[object]:
    """Where a comparison with these numbers can change its truth, and a place between each two."""
    inside = {number for number in numbers if column.min <= number <= column.max}
    ends = np.unique([column.min, *inside, column.max])
    return [*ends, *((ends[:-1] + ends[1:]) / 2)]


def _frame_of(columns: Mapping[str, Continuous | Categorical], values: Sequence[object]) -> pd.DataFrame:
    """A typed frame with the same values in each of the columns."""
    return pd.DataFrame(
        {
            name: pd.Categorical(values, categories=list(column.categories))
            if isinstance(column, Categorical)
            else np.array(values, dtype=np.float64)
            for name, column in columns.items()
        }
    )


def _is_numeric(term: Comparison, columns: Mapping[str, Continuous | Categorical]) -> bool:
    return not any(
        (isinstance(part, Cell) and isinstance(columns[part.name], Categorical))
        or (isinstance(part, Literal) and isinstance(part.value, str))
        for part in walk(term)
    )


def _can_compare(term: Comparison, columns: Mapping[str, Continuous | Categorical], *, wanted: bool) -> bool:
    """Whether intervals leave it open that two numbers compare so."""
    left, right = range_of(term.left, columns), range_of(term.right, columns)
    room = _SLACK * (1 + max(abs(bound) for bound in (left.low, left.high, right.low, right.high)))
    if not np.isfinite(room):
        return True
    sign = term.sign if wanted else _OPPOSITE[term.sign]
    match sign:
        case "<" | "<=":
            return left.low <= right.high + room
        case ">" | ">=":
            return left.high >= right.low - room
        case "==":
            return left.low <= right.high + room and right.low <= left.high + room
    return True


_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
