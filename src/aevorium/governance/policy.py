"""The steward's policy: what a node allows, read from TOML that lies with the data."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium.errors import ConfigError
from aevorium.workspace import write_atomically

__all__ = [
    "Allowance",
    "Budget",
    "NodePolicy",
    "load_policy",
    "new_limit",
    "simulated_policy",
    "write_default_policy",
    "write_policy",
]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Budget(_Entry):
    """How much may be spent in a period."""

    max_epsilon: float = Field(default=10.0, gt=0, description="Largest ε of a period at max_delta; inf sets no limit.")
    max_delta: float = Field(default=1e-5, ge=1e-12, lt=1, description="The δ at which max_epsilon holds.")
    period: str = Field(
        default="1", min_length=1, description="Label of the period; a new one is opened by the steward."
    )


class Allowance(_Entry):
    """Who may ask for what."""

    schemas: tuple[str, ...] = Field(default=(), description="Content hashes of the schemas allowed; empty allows any.")
    purposes: tuple[str, ...] = Field(default=(), description="Purposes allowed; empty allows any.")
    servers: tuple[str, ...] = Field(default=(), description="Identities of servers; empty allows any enrolled one.")
    code: tuple[str, ...] = Field(
        default=(), description="Hashes of the versions of this package that may take part; empty allows any."
    )
    min_patients: int = Field(default=20, ge=0, description="Smallest noisy number of patients to take part with.")
    consent: Literal["automatic", "ask"] = Field(
        default="automatic", description="Whether a plan that fits is agreed to, or waits for the steward."
    )


class NodePolicy(_Entry):
    """What a node allows. Owned by the steward: no request from outside changes it."""

    budget: Budget = Field(default=Budget(), description="How much may be spent in a period.")
    allow: Allowance = Field(default=Allowance(), description="Who may ask for what.")

    @classmethod
    def from_toml(cls, text: str, *, source: str) -> NodePolicy:
        """Reads a policy.

        Args:
            text: TOML.
            source: Where it came from, for messages.

        Raises:
            ConfigError: POLICY_INVALID, naming the first entry that is wrong.
        """
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError("POLICY_INVALID", f"The policy {source!r} is not valid TOML. {error}.") from error
        except ValidationError as error:
            raise ConfigError("POLICY_INVALID", f"The policy {source!r} is wrong. {_first_problem(error)}.") from error

    def to_toml(self) -> str:
        """The policy as a file that `from_toml` reads, with a comment on each line."""
        lines = ["# What this node allows. Owned by its steward; nothing outside this machine can change it."]
        for table, entry in (("budget", self.budget), ("allow", self.allow)):
            lines += ["", f"[{table}]"]
            for name, field in type(entry).model_fields.items():
                lines.append(f"{name} = {_toml(getattr(entry, name))}  # {field.description}")
        return "\n".join(lines) + "\n"


def _toml(value: str | float | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"[{', '.join(json.dumps(item) for item in value)}]"
    return repr(value)


def _first_problem(error: ValidationError) -> str:
    problem: Any = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where or 'top level'}: {problem['msg']}"


def load_policy(path: Path) -> NodePolicy:
    """Reads a policy file.

    Raises:
        ConfigError: POLICY_INVALID, if it is absent, unreadable, or wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError("POLICY_INVALID", f"No policy file {str(path)!r}.", hint="Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("POLICY_INVALID", f"The policy file {str(path)!r} cannot be read as UTF-8 text.") from error
    return NodePolicy.from_toml(text, source=str(path))


def write_default_policy(path: Path, *, period: str) -> NodePolicy:
    """Writes the policy of a node whose steward has written none: max_epsilon 10, consent automatic.

    Args:
        path: The file to make; one that exists is replaced.
        period: Label of the first period, such as the year.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    policy = NodePolicy(budget=Budget(period=period))
    write_policy(path, policy)
    return policy


def write_policy(path: Path, policy: NodePolicy) -> None:
    """Writes a policy file; who may read one that exists stays as it was.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    with write_atomically(path, mode=mode) as temporary:
        temporary.write_text(policy.to_toml(), encoding="utf-8")


def new_limit(budget: Budget, *, epsilon: float, delta: float | None) -> Budget:
    """A period's budget with another limit.

    Args:
        budget: The budget.
        epsilon: The new limit.
        delta: The δ at which it holds; None leaves it as it is.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    wanted = {**budget.model_dump(), "max_epsilon": epsilon}
    if delta is not None:
        wanted["max_delta"] = delta
    try:
        return Budget.model_validate(wanted)
    except ValidationError as error:
        raise ConfigError("CONFIG_INVALID", f"The limit is not possible. {_first_problem(error)}.") from error


def simulated_policy(*, epsilon: float, delta: float) -> NodePolicy:
    """The policy of a simulated node: its limit is the run's own target, so a workspace pays for one such run."""
    return NodePolicy(budget=Budget(max_epsilon=epsilon, max_delta=delta, period="simulated"))
