"""Which drawn rows a table takes: those that meet a condition, in equal numbers for each category of a column.

Rows are drawn as for any other table and kept or dropped (rejection sampling). The rows kept of one category are
therefore distributed as those of a plain table that are of that category and meet the condition; nothing bends the
sampler towards them, and how many there are is the only thing that is decided here. All of it is post-processing: safe
to release.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevorium.errors import ConfigError, UserError
from aevorium.schema.condition import Condition
from aevorium.schema.expression import listed, shortened, similar
from aevorium.schema.table import Categorical, TableSchema

__all__ = ["RAREST", "Balance", "Search", "balance_of"]

RAREST = 20_000
"""A kind of rows is given up once it is clear that fewer than one drawn row in so many is of it."""

_SURE = 5.0
"""Standard deviations of a count of rare events that no chance explains."""

_UNSEEN = 15.0
"""How many rows must be expected before having none means that they are rarer: a chance of e⁻¹⁵."""


@dataclass(frozen=True)
class Balance:
    """Equal numbers of rows for each category of a column. A row in which it is missing is of no category.

    Attributes:
        column: The column.
        categories: Its categories, but for those that the condition rules out; the first take what does not divide.
    """

    column: str
    categories: tuple[str, ...]


def balance_of(name: str, schema: TableSchema, *, condition: Condition | None) -> Balance:
    """What balancing a column means.

    Args:
        name: A categorical column, derived or not.
        schema: The study's schema.
        condition: What the rows are to meet besides.

    Raises:
        ConfigError: CONFIG_INVALID, if there is no such column or it has no categories.
    """
    column = schema.columns.get(name)
    if isinstance(column, Categorical):
        categories = column.categories if condition is None else condition.categories(name, column)
        return Balance(name, categories)
    possible = [other for other, entry in schema.columns.items() if isinstance(entry, Categorical)]
    reason = f"There is no such column{similar(name, possible)}" if column is None else "It is a column of numbers"
    hint = f"Name one of {listed(possible)}." if possible else "This schema has no categorical column."
    raise ConfigError("CONFIG_INVALID", f"No balance over column {name!r} is possible. {reason}.", hint=hint)


@dataclass
class Search:
    """Takes rows until there are enough, or gives up.

    Attributes:
        rows: How many are wanted.
        condition: What each is to meet.
        balance: In which categories they are wanted in equal numbers.
        drawn: Rows looked at so far.
        taken: Rows taken so far.
    """

    rows: int
    condition: Condition | None = None
    balance: Balance | None = None
    drawn: int = 0
    taken: int = 0
    _missing: NDArray[np.int64] = field(init=False)
    _seen: NDArray[np.int64] = field(init=False)
    _met: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        kinds = 1 if self.balance is None else len(self.balance.categories)
        # The first kinds take one more where the rows do not divide.
        self._missing = np.array([(self.rows + kinds - 1 - kind) // kinds for kind in range(kinds)])
        self._seen = np.zeros(kinds, dtype=np.int64)
        self._met = np.zeros(0 if self.condition is None else len(self.condition.parts), dtype=np.int64)

    @property
    def is_complete(self) -> bool:
        """Whether there are enough rows."""
        return self.taken == self.rows

    @property
    def is_choosy(self) -> bool:
        """Whether rows may be dropped."""
        return self.condition is not None or self.balance is not None

    @property
    def draws(self) -> int:
        """How many rows to draw for what is missing, as far as the shares are known by now; at least 1."""
        # As if one row of each kind had been drawn before the first: a kind not seen yet asks for many rows.
        share = (self._seen + 1) / (self.drawn + 1)
        return int(np.ceil((self._missing / share).max()))

    def take(self, frame: pd.DataFrame, *, drawn: int) -> pd.DataFrame:
        """The rows of a frame that are still wanted, in their order.

        Args:
            frame: Typed rows of all columns that satisfy the schema's constraints.
            drawn: Rows that were drawn for it, those included that a constraint turned away.
        """
        self.drawn += drawn
        if self.condition is not None:
            met = self.condition.met(frame)
            self._met += met.sum(axis=0)
            frame = frame[met.all(axis=1)]
        kind = np.zeros(len(frame), dtype=np.int64)
        if self.balance is not None:
            kind = pd.Index(self.balance.categories).get_indexer(pd.Index(frame[self.balance.column].astype(object)))
        wanted = np.zeros(len(frame), dtype=np.bool_)
        for number in range(len(self._seen)):
            places = np.flatnonzero(kind == number)
            self._seen[number] += len(places)
            wanted[places[: self._missing[number]]] = True
            self._missing[number] -= min(len(places), self._missing[number])
        self.taken += int(wanted.sum())
        return frame[wanted]

    def check(self) -> None:
        """Gives up if a kind of rows that is still missing is too rare.

        Raises:
            UserError: CONDITION_UNSATISFIABLE.
        """
        most = self._seen + _SURE * np.sqrt(self._seen) + _UNSEEN
        hopeless = (self._missing > 0) & (most * RAREST < self.drawn)
        if hopeless.any():
            raise UserError("CONDITION_UNSATISFIABLE", self._reason(int(np.argmax(hopeless))))

    def _reason(self, kind: int) -> str:
        seen, wanted = int(self._seen[kind]), int(self._seen[kind] + self._missing[kind])
        told = []
        if self.balance is not None:
            told.append(f"have {self.balance.column} = {self.balance.categories[kind]!r}")
        if self.condition is not None:
            told.append(f"meet the condition {shortened(self.condition.text)!r}")
        what = " and ".join(told)
        reason = (
            f"Only {seen:,} of {self.drawn:,} generated rows {what}, a share of {seen / self.drawn:.1g}: "
            f"{seen:,} rows could be had, not {wanted:,}."
            if seen
            else f"None of {self.drawn:,} generated rows {what}: they are rarer than one in {RAREST:,}."
        )
        if self.condition is not None and len(self.condition.parts) > 1:
            hardest = int(np.argmin(self._met))
            text, share = self.condition.parts[hardest].text, self._met[hardest] / self.drawn
            reason += f" Its hardest part is {shortened(text)!r}, which {share:.2g} of the rows meet."
        return reason
