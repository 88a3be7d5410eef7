"""`TableSchema`: the public description of a table, read from TOML.

Everything in a schema is public knowledge, written down before any record is read. Its content hash is in every
artefact and message, so that two parties can tell whether they speak of the same table.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aevorium.errors import SchemaError
from aevorium.schema.expression import parse_expression, similar
from aevorium.schema.rules import Rule

__all__ = ["BUNDLED", "Categorical", "Column", "Constraint", "Continuous", "TableSchema", "load_schema"]

BUNDLED = ("synthea",)
"""Names of the schemas that come with Aevorium."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Continuous(_Entry):
    """A column of numbers within public bounds."""

    kind: Literal["continuous"]
    min: float = Field(description="Smallest value; smaller ones are clipped to it.", allow_inf_nan=False)
    max: float = Field(description="Largest value; larger ones are clipped to it.", allow_inf_nan=False)
    integer: bool = Field(default=False, description="Whether only whole numbers occur.")
    missing: bool = Field(default=False, description="Whether cells may be empty; emptiness is then reproduced.")
    derived: str | None = Field(default=None, description="Name of the rule that computes this column.")

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        if self.integer and (self.min != math.floor(self.min) or self.max != math.floor(self.max)):
            raise ValueError("an integer column needs whole min and max")
        return self


class Categorical(_Entry):
    """A column with a closed list of categories, compared as text exactly as written."""

    kind: Literal["categorical"]
    categories: tuple[str, ...] = Field(description="Every category that may occur.", min_length=1)
    other: str | None = Field(default=None, description="The category that takes every unknown value.")
    missing: bool = Field(default=False, description="Whether cells may be empty; emptiness is then reproduced.")
    derived: str | None = Field(default=None, description="Name of the rule that computes this column.")

    @model_validator(mode="after")
    def _check_categories(self) -> Self:
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("a category is listed twice")
        if "" in self.categories:
            raise ValueError("an empty category cannot be told from a missing cell; use 'missing = true'")
        if self.other is not None and self.other not in self.categories:
            raise ValueError(f"other = {self.other!r} is not among the categories")
        return self


Column = Annotated[Continuous | Categorical, Field(discriminator="kind")]


class Constraint(_Entry):
    """A condition that every generated row satisfies."""

    check: str = Field(description="An expression over the columns that must not be false.")


class TableSchema(_Entry):
    """What a table looks like, as far as the public knows.

    Attributes:
        name: Short name of the table.
        unit: Free text: what is protected ("patient").
        unit_id: The column that identifies a unit: read to find duplicates, never encoded or released.
        target: A column that people will want to predict.
        columns: The columns in order.
        rules: Named rules that compute derived columns after generation.
        constraints: Conditions that every generated row satisfies.
    """

    name: str = Field(min_length=1)
    unit: str = "patient"
    unit_id: str | None = Field(default=None, min_length=1)
    target: str | None = None
    columns: dict[str, Column] = Field(min_length=1)
    rules: dict[str, Rule] = Field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        if not self.measured:
            raise ValueError("every column is derived: nothing is left to learn")
        if self.target is not None and self.target not in self.columns:
            raise ValueError(f"target = {self.target!r} is not a column")
        if self.unit_id is not None and self.unit_id in self.columns:
            raise ValueError(f"unit_id = {self.unit_id!r} must not be a column: it is never encoded")
        if "" in self.columns:
            raise ValueError("a column has no name")
        self._check_rules()
        self._check_constraints()
        return self

    def _check_rules(self) -> None:
        derived = {name: column.derived for name, column in self.columns.items() if column.derived is not None}
        for name, rule_name in derived.items():
            rule = self.rules.get(rule_name)
            if rule is None:
                raise ValueError(f"columns.{name}: derived = {rule_name!r} names no rule under [rules]")
            for read in sorted(rule.columns - self.measured.keys()):
                reason = (
                    "is derived itself" if read in self.columns else f"is not a column{similar(read, self.measured)}"
                )
                raise ValueError(f"rules.{rule_name}: {read!r} {reason}")
            try:
                rule.check(name, self.columns)
            except ValueError as error:
                raise ValueError(f"rules.{rule_name}: {error}") from error
        unused = sorted(self.rules.keys() - derived.values())
        if unused:
            raise ValueError(f"rules.{unused[0]}: no column is derived by it")

    def _check_constraints(self) -> None:
        for constraint in self.constraints:
            expression = parse_expression(constraint.check)
            if not expression.is_condition:
                raise ValueError(f"constraint {constraint.check!r} is a number, not a condition")
            expression.check(self.columns)

    @property
    def numbers(self) -> dict[str, Continuous]:
        """The measured columns of numbers."""
        return {name: column for name, column in self.measured.items() if not isinstance(column, Categorical)}

    @property
    def measured(self) -> dict[str, Continuous | Categorical]:
        """The columns that are read from records: all but the derived ones, in order."""
        return {name: column for name, column in self.columns.items() if column.derived is None}

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON (RFC 8785) of the schema, column order included."""
        content = {"order": list(self.columns), **self.model_dump(mode="json")}
        return hashlib.sha256(rfc8785.dumps(content)).hexdigest()

    @classmethod
    def from_toml(cls, text: str, *, source: str) -> TableSchema:
        """Reads a schema.

        Args:
            text: TOML.
            source: Where it came from, for messages.

        Raises:
            SchemaError: SCHEMA_INVALID, naming the first entry that is wrong.
        """
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise SchemaError("SCHEMA_INVALID", f"The schema {source!r} is not valid TOML. {error}.") from error
        except ValidationError as error:
            raise SchemaError("SCHEMA_INVALID", f"The schema {source!r} is wrong. {_first_problem(error)}.") from error
        except SchemaError as error:
            raise SchemaError(
                error.code, f"The schema {source!r} is wrong. {error.message}", hint=error.hint
            ) from error


def _first_problem(error: ValidationError) -> str:
    problem: Any = error.errors(include_url=False)[0]
    # The third part of such a place is pydantic's own name of the entry's kind.
    place = [
        part for index, part in enumerate(problem["loc"]) if index != 2 or problem["loc"][0] not in ("columns", "rules")
    ]
    where = ".".join(str(part) for part in place)
    reason = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {reason}" if where else reason


def load_schema(source: str | Path) -> TableSchema:
    """Reads a schema file, or a bundled schema by its name.

    Args:
        source: A path to a TOML file, or one of `BUNDLED`.

    Raises:
        SchemaError: SCHEMA_NOT_FOUND or SCHEMA_INVALID.
    """
    if str(source) in BUNDLED:
        text = resources.files("aevorium.schema").joinpath("presets", f"{source}.toml").read_text(encoding="utf-8")
        return TableSchema.from_toml(text, source=str(source))
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SchemaError(
            "SCHEMA_NOT_FOUND",
            f"No schema file {str(source)!r}.",
            hint=f"Check the path, or name a bundled schema: {', '.join(BUNDLED)}.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError("SCHEMA_INVALID", f"The schema file {str(source)!r} cannot be read as UTF-8 text.") from error
    return TableSchema.from_toml(text, source=str(source))
