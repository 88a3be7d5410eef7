"""What an expression is made of, and which kind of value each part has. Plain data: nothing here reads a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "Arithmetic",
    "Cell",
    "Comparison",
    "Conjunction",
    "Disjunction",
    "Kind",
    "KindError",
    "Literal",
    "Membership",
    "Missing",
    "Negation",
    "Negative",
    "Term",
    "kind_of",
    "parts_of",
    "walk",
    "written",
]

_RESERVED = {"and", "or", "not", "implies", "in", "is", "missing"}
_PLAIN_NAME = re.compile(r"[^\W\d]\w*")


class Kind(Enum):
    """What a term yields. A column whose table is not known yet is a CELL: number or text."""

    NUMBER = "a number"
    TEXT = "text"
    CELL = "a column"
    CONDITION = "a condition"


class KindError(Exception):
    """A term stands where its kind cannot: position (from 0) and reason."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at
        self.reason = reason


@dataclass(frozen=True)
class Literal:
    """A number or text written in the expression."""

    at: int
    value: float | str


@dataclass(frozen=True)
class Cell:
    """The value of a column."""

    at: int
    name: str


@dataclass(frozen=True)
class Negative:
    """Minus a number."""

    at: int
    operand: Term


@dataclass(frozen=True)
class Arithmetic:
    """Two numbers joined by + - * or /."""

    at: int
    sign: str
    left: Term
    right: Term


@dataclass(frozen=True)
class Comparison:
    """Two numbers compared, or two texts by == or !=."""

    at: int
    sign: str
    left: Term
    right: Term


@dataclass(frozen=True)
class Membership:
    """Whether a value is in a list of numbers or of texts."""

    at: int
    operand: Term
    values: tuple[Literal, ...]


@dataclass(frozen=True)
class Missing:
    """Whether a value is missing."""

    at: int
    operand: Term


@dataclass(frozen=True)
class Negation:
    """Not."""

    at: int
    operand: Term


@dataclass(frozen=True)
class Conjunction:
    """All of several conditions."""

    at: int
    operands: tuple[Term, ...]


@dataclass(frozen=True)
class Disjunction:
    """At least one of several conditions. `A implies B` is one: not A, or B."""

    at: int
    operands: tuple[Term, ...]


Term = Literal | Cell | Negative | Arithmetic | Comparison | Membership | Missing | Negation | Conjunction | Disjunction
"""A part of an expression; `at` is the position of its sign in the text, from 0."""


def parts_of(term: Term) -> tuple[Term, ...]:
    """The terms that a term is made of."""
    match term:
        case Literal() | Cell():
            return ()
        case Negative() | Negation() | Missing():
            return (term.operand,)
        case Arithmetic() | Comparison():
            return (term.left, term.right)
        case Membership():
            return (term.operand, *term.values)
        case Conjunction() | Disjunction():
            return term.operands


def walk(term: Term) -> Iterator[Term]:
    """The term and everything in it, left to right."""
    waiting = [term]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(reversed(parts_of(current)))


def written(term: Term) -> str:
    """A term as text: parsed again, it is the same term."""
    match term:
        case Literal(value=value):
            return _quoted(value, "'") if isinstance(value, str) else repr(value).removesuffix(".0")
        case Cell(name=name):
            return name if _PLAIN_NAME.fullmatch(name) and name not in _RESERVED else _quoted(name, "`")
        case Negative(operand=operand):
            return f"-{_inner(operand)}"
        case Arithmetic(sign=sign, left=left, right=right) | Comparison(sign=sign, left=left, right=right):
            return f"{_inner(left)} {sign} {_inner(right)}"
        case Membership(operand=operand, values=values):
            return f"{_inner(operand)} in [{', '.join(map(written, values))}]"
        case Missing(operand=operand):
            return f"{_inner(operand)} is missing"
        case Negation(operand=operand):
            return f"not {_inner(operand)}"
        case Conjunction(operands=operands):
            return " and ".join(map(_inner, operands))
        case Disjunction(operands=operands):
            return " or ".join(map(_inner, operands))


def _inner(term: Term) -> str:
    return written(term) if isinstance(term, Literal | Cell) else f"({written(term)})"


def _quoted(text: str, quote: str) -> str:
    return quote + text.replace(quote, quote * 2) + quote


def kind_of(term: Term, columns: Mapping[str, Kind]) -> Kind:
    """The kind of a term's value.

    Args:
        term: The term.
        columns: Kinds of the columns, as far as they are known.

    Raises:
        KindError: if a part of it stands where its kind cannot.
    """
    kinds = [kind_of(part, columns) for part in parts_of(term)]
    match term:
        case Literal(value=value):
            return Kind.TEXT if isinstance(value, str) else Kind.NUMBER
        case Cell(name=name):
            return columns.get(name, Kind.CELL)
        case Negative() | Arithmetic():
            _require(kinds, {Kind.NUMBER, Kind.CELL}, at=term.at, what="arithmetic needs numbers")
            return Kind.NUMBER
        case Comparison():
            _check_comparison(term, kinds)
        case Membership():
            _check_membership(term, kinds)
        case Missing():
            if kinds[0] is Kind.CONDITION or isinstance(term.operand, Literal):
                raise KindError(term.at, "only a column or a computed number can be missing")
        case Negation() | Conjunction() | Disjunction():
            _require(kinds, {Kind.CONDITION}, at=term.at, what="'and', 'or', 'not' and 'implies' join conditions")
    return Kind.CONDITION


def _require(kinds: list[Kind], allowed: set[Kind], *, at: int, what: str) -> None:
    for kind in kinds:
        if kind not in allowed:
            raise KindError(at, f"{what}, not {kind.value}")


def _check_comparison(term: Comparison, kinds: list[Kind]) -> None:
    _require(kinds, {Kind.NUMBER, Kind.TEXT, Kind.CELL}, at=term.at, what=f"{term.sign!r} compares numbers or texts")
    if Kind.TEXT in kinds:
        if term.sign not in ("==", "!="):
            raise KindError(term.at, f"text is compared by == and != only, not by {term.sign!r}")
        if Kind.NUMBER in kinds:
            raise KindError(term.at, "a number is compared with text")
        if all(isinstance(side, Literal) for side in (term.left, term.right)):
            raise KindError(term.at, "two fixed texts are compared; a column's name takes no quotes")


def _check_membership(term: Membership, kinds: list[Kind]) -> None:
    operand, *listed = kinds
    if len(set(listed)) > 1:
        raise KindError(term.at, "the list mixes numbers and texts")
    if operand not in (Kind.CELL, listed[0]):
        raise KindError(term.at, f"{operand.value} is looked for in a list of another kind")
    if operand is Kind.TEXT and isinstance(term.operand, Literal):
        raise KindError(term.at, "a fixed text is looked for in a list; a column's name takes no quotes")
