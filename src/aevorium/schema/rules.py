"""Rules: how a derived column follows from the measured ones. Derived columns are computed, never read or charged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aevorium.schema.expression import Expression, parse_expression
from aevorium.schema.ranges import range_of

if TYPE_CHECKING:
    from aevorium.schema.table import Categorical, Continuous, TableSchema

__all__ = ["Case", "CaseRule", "Rule", "ScoreRule", "ValueRule", "derive"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScoreRule(_Entry):
    """Points for thresholds exceeded, added up over columns and read as a level."""

    kind: Literal["score"]
    levels: dict[str, float] = Field(
        description="Category and the total from which it holds; the highest that is reached counts.", min_length=1
    )
    points: dict[str, tuple[tuple[float, float], ...]] = Field(
        description="Per column [threshold, points]; the largest threshold that the value exceeds counts.", min_length=1
    )

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        if len(set(self.levels.values())) != len(self.levels):
            raise ValueError("two levels begin at the same total")
        for name, steps in self.points.items():
            if not steps:
                raise ValueError(f"no points are listed for {name!r}")
            if len({threshold for threshold, _ in steps}) != len(steps):
                raise ValueError(f"a threshold of {name!r} is listed twice")
        numbers = [*self.levels.values(), *(n for steps in self.points.values() for step in steps for n in step)]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("levels, thresholds and points must be finite numbers")
        return self

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        return frozenset(self.points)

    def check(self, name: str, columns: Mapping[str, Continuous | Categorical]) -> None:
        """Raises ValueError if the rule cannot give column `name` a value in every row."""
        for read in self.points:
            if columns[read].kind != "continuous":
                raise ValueError(f"points need a continuous column, and {read!r} is categorical")
        _check_categories(self.levels, name, columns[name])
        smallest = sum(min(0.0, *(points for _, points in steps)) for steps in self.points.values())
        if min(self.levels.values()) > smallest:
            raise ValueError(
                f"column {name!r} would be empty for some rows: "
                f"the smallest total is {smallest:g} and the lowest level begins at {min(self.levels.values()):g}"
            )

    def apply(self, frame: pd.DataFrame) -> pd.Series:
        """The level of each row, as text. A missing value scores no points."""
        total = np.zeros(len(frame))
        for name, steps in self.points.items():
            thresholds, points = np.array(sorted(steps)).T
            values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
            exceeded = np.where(np.isnan(values), 0, np.searchsorted(thresholds, values, side="left"))
            total += np.concatenate([[0.0], points])[exceeded]
        ascending = sorted(self.levels, key=lambda level: self.levels[level])
        reached = np.searchsorted([self.levels[level] for level in ascending], total, side="right") - 1
        return pd.Series(np.array(ascending, dtype=object)[reached], index=frame.index)


class Case(_Entry):
    """One case of a `CaseRule`."""

    when: str = Field(description="A condition over measured columns.")
    then: str = Field(description="The category of rows in which it is true.")

    @model_validator(mode="after")
    def _check_condition(self) -> Self:
        if not self.condition.is_condition:
            raise ValueError(f"when = {self.when!r} is a number, not a condition")
        return self

    @property
    def condition(self) -> Expression:
        """The parsed condition."""
        return parse_expression(self.when)


class CaseRule(_Entry):
    """The first case whose condition is true; unknown, because of a missing value, is not true."""

    kind: Literal["cases"]
    cases: tuple[Case, ...] = Field(description="Cases in order of precedence.", min_length=1)
    otherwise: str = Field(description="The category of every other row.")

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        return frozenset().union(*(case.condition.columns for case in self.cases))

    def check(self, name: str, columns: Mapping[str, Continuous | Categorical]) -> None:
        """Raises ValueError or SchemaError if the rule cannot give column `name` a value in every row."""
        for case in self.cases:
            case.condition.check(columns)
        _check_categories([*(case.then for case in self.cases), self.otherwise], name, columns[name])

    def apply(self, frame: pd.DataFrame) -> pd.Series:
        """The category of each row, as text."""
        conditions = [case.condition.holds(frame) for case in self.cases]
        chosen = np.select(
            conditions,
            [np.array(case.then, dtype=object) for case in self.cases],
            default=np.array(self.otherwise, dtype=object),
        )
        return pd.Series(chosen, index=frame.index, dtype=object)


class ValueRule(_Entry):
    """A number computed from other numbers, clipped to the column's bounds."""

    kind: Literal["value"]
    value: str = Field(description="An arithmetic expression over measured columns.")

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        if self.expression.is_condition:
            raise ValueError(f"value = {self.value!r} is a condition, not a number")
        return self

    @property
    def expression(self) -> Expression:
        """The parsed expression."""
        return parse_expression(self.value)

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        return self.expression.columns

    def check(self, name: str, columns: Mapping[str, Continuous | Categorical]) -> None:
        """Raises ValueError or SchemaError if the rule cannot give column `name` a value in every row."""
        if columns[name].kind != "continuous":
            raise ValueError(f"a value rule computes numbers, and column {name!r} is categorical")
        self.expression.check(columns)
        if range_of(self.expression.term, columns).may_miss and not columns[name].missing:
            raise ValueError(
                f"column {name!r} could be empty, because an input may be missing or a divisor zero; "
                "say 'missing = true' for it"
            )

    def apply(self, frame: pd.DataFrame) -> pd.Series:
        """The number in each row as float64, NaN where an input is missing or the result is not finite."""
        return pd.Series(self.expression.evaluate(frame), index=frame.index)


Rule = Annotated[ScoreRule | CaseRule | ValueRule, Field(discriminator="kind")]


def _check_categories(produced: Mapping[str, float] | list[str], name: str, column: Continuous | Categorical) -> None:
    if column.kind != "categorical":
        raise ValueError(f"the rule yields categories, and column {name!r} is continuous")
    for category in produced:
        if category not in column.categories:
            raise ValueError(f"{category!r} is not a category of column {name!r}")


def derive(frame: pd.DataFrame, schema: TableSchema) -> pd.DataFrame:
    """Computes the derived columns of a typed frame.

    Args:
        frame: At least the measured columns; derived ones among them are overwritten.
        schema: Its schema.

    Returns:
        A new typed frame with exactly the schema's columns, in order.
    """
    result = frame.copy(deep=False)
    for name, column in schema.columns.items():
        if column.derived is None:
            continue
        values = schema.rules[column.derived].apply(frame)
        if column.kind == "categorical":
            result[name] = values.astype(pd.CategoricalDtype(list(column.categories)))
        else:
            values = values.round() if column.integer else values
            result[name] = values.clip(column.min, column.max)
    return result[list(schema.columns)]
