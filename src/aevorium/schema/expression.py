"""Expressions over the columns of a table: constraints, rules, and conditions on what to generate.

The grammar is in `grammar.lark` and, for people, in docs/SCHEMA.md. An expression is parsed into data (`terms`) and
computed by `logic`; no part of it is ever run as code, and its length and depth are limited, because a node reads the
schemas that others write.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NoReturn, cast

import numpy as np
import pandas as pd
from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args
from numpy.typing import NDArray

from aevorium.errors import SchemaError
from aevorium.schema.logic import Truth, frame_kinds, numbers_of, truth_of
from aevorium.schema.terms import (
    Arithmetic,
    Cell,
    Comparison,
    Conjunction,
    Disjunction,
    Kind,
    KindError,
    Literal,
    Membership,
    Missing,
    Negation,
    Negative,
    Term,
    kind_of,
    parts_of,
    walk,
)

if TYPE_CHECKING:
    from aevorium.schema.table import Categorical, Continuous

__all__ = ["MAX_DEPTH", "MAX_LENGTH", "Expression", "Truth", "listed", "parse_expression", "shortened", "similar"]

MAX_LENGTH = 10_000
"""Longest expression, in characters."""

MAX_DEPTH = 100
"""Deepest nesting of an expression: far below what would exhaust the interpreter's stack."""

_SHOWN = 200
"""Longest part of an expression that a message quotes, in characters."""

_LISTED = 20
"""Most words that a message lists."""

_HABITS = {
    "=": "compare with '=='",
    "&": "write 'and'",
    "|": "write 'or'",
    "!": "write 'not', or '!=' between values",
    "%": "there is no remainder",
    "^": "there is no power; multiply",
    "AND": "write 'and' in lower case",
    "OR": "write 'or' in lower case",
    "NOT": "write 'not' in lower case",
    "IN": "write 'in' in lower case",
    "IS": "write 'is' in lower case",
    "NULL": "write 'is missing'",
    "(": "there are no functions",
}


@dataclass(frozen=True)
class Expression:
    """A parsed expression.

    Attributes:
        text: As it was written.
        term: What it is made of.
    """

    text: str
    term: Term

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        return frozenset(term.name for term in walk(self.term) if isinstance(term, Cell))

    @property
    def is_condition(self) -> bool:
        """Whether it is true or false, rather than a number."""
        return kind_of(self.term, {}) is Kind.CONDITION

    def check(self, columns: Mapping[str, Continuous | Categorical]) -> None:
        """Checks it against the columns of a table.

        Raises:
            SchemaError: EXPRESSION_INVALID, if it names an unknown column or category, or mixes numbers and text.
        """
        for term in walk(self.term):
            if isinstance(term, Cell) and term.name not in columns:
                _refuse(self.text, term.at, f"there is no column {term.name!r}{_column_hint(term.name, columns)}")
        self._check_kinds(
            {name: Kind.NUMBER if entry.kind == "continuous" else Kind.TEXT for name, entry in columns.items()}
        )
        for term in walk(self.term):
            for cell, literal in _text_pairs(term):
                entry = columns[cell.name]
                if entry.kind == "categorical" and literal.value not in entry.categories:
                    hint = similar(str(literal.value), entry.categories)
                    reason = (
                        f"{literal.value!r} is no category of {cell.name!r}{hint}; it has {listed(entry.categories)}"
                    )
                    _refuse(self.text, literal.at, reason)

    def evaluate(self, frame: pd.DataFrame) -> NDArray[np.float64] | Truth:
        """Its value in each row.

        Args:
            frame: Rows with the columns it reads: numeric ones, and text as categories or strings.

        Returns:
            For a condition its truth; else float64 (rows), NaN where an input is missing or the result is not finite.

        Raises:
            SchemaError: EXPRESSION_INVALID, if a column is absent or of the wrong kind.
        """
        for term in walk(self.term):
            if isinstance(term, Cell) and term.name not in frame.columns:
                _refuse(self.text, term.at, f"there is no column {term.name!r}")
        self._check_kinds(frame_kinds(frame[sorted(self.columns)]))
        if self.is_condition:
            return truth_of(self.term, frame)
        return np.broadcast_to(numbers_of(self.term, frame), (len(frame),))

    def holds(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Rows in which the condition is definitely true; raises as `evaluate`."""
        return self._truth(frame).is_true

    def violated(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Rows in which the condition is definitely false: not those that a missing input leaves open."""
        return self._truth(frame).is_false

    def refusal(self, at: int, reason: str, *, hint: str | None = None) -> SchemaError:
        """An error about the place `at` (from 0) of the expression."""
        return _refusal(self.text, at, reason, hint=hint)

    def _truth(self, frame: pd.DataFrame) -> Truth:
        value = self.evaluate(frame)
        if not isinstance(value, Truth):
            _refuse(self.text, self.term.at, "it is a number, not a condition")
        return value

    def _check_kinds(self, columns: Mapping[str, Kind]) -> None:
        try:
            kind = kind_of(self.term, columns)
        except KindError as error:
            _refuse(self.text, error.at, error.reason)
        if kind is Kind.TEXT:
            _refuse(self.text, self.term.at, "text alone is neither a number nor a condition")


def parse_expression(text: str) -> Expression:
    """Parses an expression.

    Args:
        text: The expression, at most `MAX_LENGTH` characters.

    Raises:
        SchemaError: EXPRESSION_INVALID, with the position of the first problem.
    """
    if len(text) > MAX_LENGTH:
        raise SchemaError("EXPRESSION_INVALID", f"An expression has {len(text)} characters. {MAX_LENGTH} are allowed.")
    try:
        term = cast(Term, _parser().parse(text))
    except UnexpectedInput as error:
        _refuse(text, *_explain(error, end=len(text)))
    except KindError as error:
        _refuse(text, error.at, error.reason)
    _check_depth(text, term)
    expression = Expression(text, term)
    expression._check_kinds({})
    return expression


class _Builder(Transformer[Token, Term]):
    """Makes terms while the parser reduces: no tree is walked, so that depth costs no stack."""

    @staticmethod
    @v_args(inline=True)
    def number(token: Token) -> Literal:
        return Literal(_at(token), _finite(token))

    @staticmethod
    @v_args(inline=True)
    def negative_number(sign: Token, token: Token) -> Literal:
        return Literal(_at(sign), -_finite(token))

    @staticmethod
    @v_args(inline=True)
    def text(token: Token) -> Literal:
        return Literal(_at(token), _unquoted(token))

    @staticmethod
    @v_args(inline=True)
    def column(token: Token) -> Cell:
        return Cell(_at(token), str(token))

    @staticmethod
    @v_args(inline=True)
    def quoted_column(token: Token) -> Cell:
        return Cell(_at(token), _unquoted(token))

    @staticmethod
    @v_args(inline=True)
    def negative(sign: Token, operand: Term) -> Negative:
        return Negative(_at(sign), operand)

    @staticmethod
    @v_args(inline=True)
    def arithmetic(left: Term, sign: Token, right: Term) -> Arithmetic:
        return Arithmetic(_at(sign), str(sign), left, right)

    @staticmethod
    @v_args(inline=True)
    def compared(left: Term, sign: Token, right: Term) -> Comparison:
        return Comparison(_at(sign), str(sign), left, right)

    @staticmethod
    def listed(items: list[Literal]) -> tuple[Literal, ...]:
        return tuple(items)

    @staticmethod
    @v_args(inline=True)
    def within(operand: Term, word: Token, values: tuple[Literal, ...]) -> Membership:
        return Membership(_at(word), operand, values)

    @staticmethod
    @v_args(inline=True)
    def without(operand: Term, word: Token, _in: Token, values: tuple[Literal, ...]) -> Negation:
        return Negation(_at(word), Membership(_at(word), operand, values))

    @staticmethod
    @v_args(inline=True)
    def missing(operand: Term, word: Token, _missing: Token) -> Missing:
        return Missing(_at(word), operand)

    @staticmethod
    @v_args(inline=True)
    def present(operand: Term, word: Token, _not: Token, _missing: Token) -> Negation:
        return Negation(_at(word), Missing(_at(word), operand))

    @staticmethod
    @v_args(inline=True)
    def negated(word: Token, operand: Term) -> Negation:
        return Negation(_at(word), operand)

    @staticmethod
    @v_args(inline=True)
    def both(first: Term, word: Token, *rest: Term) -> Conjunction:
        return Conjunction(_at(word), (first, *rest[::2]))

    @staticmethod
    @v_args(inline=True)
    def either(first: Term, word: Token, *rest: Term) -> Disjunction:
        return Disjunction(_at(word), (first, *rest[::2]))

    @staticmethod
    @v_args(inline=True)
    def implies(premise: Term, word: Token, conclusion: Term) -> Disjunction:
        return Disjunction(_at(word), (Negation(_at(word), premise), conclusion))


@cache
def _parser() -> Lark:
    grammar = resources.files("aevorium.schema").joinpath("grammar.lark").read_text(encoding="utf-8")
    # The basic lexer keeps words such as "in" reserved wherever they stand.
    return Lark(grammar, parser="lalr", lexer="basic", transformer=_Builder())


def _at(token: Token) -> int:
    assert token.start_pos is not None
    return token.start_pos


def _finite(token: Token) -> float:
    value = float(token)
    if not math.isfinite(value):
        raise KindError(_at(token), "the number is too large")
    return value


def _unquoted(token: Token) -> str:
    quote = token[0]
    return token[1:-1].replace(quote * 2, quote)


def _check_depth(text: str, term: Term) -> None:
    level: list[Term] = [term]
    for _ in range(MAX_DEPTH):
        level = [part for parent in level for part in parts_of(parent)]
        if not level:
            return
    _refuse(text, level[0].at, f"it is nested deeper than {MAX_DEPTH} levels")


def _explain(error: UnexpectedInput, *, end: int) -> tuple[int, str]:
    if isinstance(error, UnexpectedCharacters):
        sign, at = error.char, cast(int, error.pos_in_stream)
    elif isinstance(error, UnexpectedToken) and error.token.type != "$END":
        sign, at = str(error.token), _at(error.token)
    else:
        return end, "it ends too early"
    if sign in "\"'`":
        return at, "a quote is not closed"
    habit = _HABITS.get(sign.upper())
    if isinstance(error, UnexpectedToken) and error.token.type == "COMPARISON" and "AND" in error.expected:
        habit = "compare two values at a time, and join with 'and'"
    return at, f"{sign!r} is not expected here" + (f": {habit}" if habit else "")


def _refuse(text: str, at: int, reason: str) -> NoReturn:
    raise _refusal(text, at, reason)


def _refusal(text: str, at: int, reason: str, *, hint: str | None = None) -> SchemaError:
    message = f"The expression {shortened(text, around=at)!r} cannot be used. At character {at + 1}: {reason}."
    return SchemaError("EXPRESSION_INVALID", message, hint=hint)


def shortened(text: str, *, around: int = 0) -> str:
    """A text for a message: all of it, or what is near a place."""
    return text if len(text) <= _SHOWN else f"…{text[max(0, around - _SHOWN // 2) : around + _SHOWN // 2]}…"


def _column_hint(name: str, columns: Iterable[str]) -> str:
    for column in columns:
        if name in column and not column.isidentifier():
            return f" ({column!r} is written in backticks)"
    return similar(name, columns) or f"; there are {listed(list(columns))}"


def similar(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest known word, or nothing."""
    lower = {name.lower(): name for name in known}
    nearest = difflib.get_close_matches(word.lower(), lower, n=1)
    return f" (did you mean {lower[nearest[0]]!r}?)" if nearest else ""


def listed(words: Sequence[str]) -> str:
    """Words of a closed list for a message: all of them, or the first ones and how many more."""
    shown = ", ".join(repr(word) for word in words[:_LISTED])
    return shown if len(words) <= _LISTED else f"{shown} and {len(words) - _LISTED:,} more"


def _text_pairs(term: Term) -> list[tuple[Cell, Literal]]:
    """Which column is compared with which fixed text in a term."""
    match term:
        case Comparison(left=Cell() as cell, right=Literal(value=str()) as literal):
            return [(cell, literal)]
        case Comparison(left=Literal(value=str()) as literal, right=Cell() as cell):
            return [(cell, literal)]
        case Membership(operand=Cell() as cell, values=values):
            return [(cell, literal) for literal in values if isinstance(literal.value, str)]
    return []
