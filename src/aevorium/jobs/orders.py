"""What can be ordered: a run, a table. Read from the wire and from the queue, so every field is checked."""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from aevorium.errors import ConfigError
from aevorium.planning import RunOptions
from aevorium.schema.table import TableSchema
from aevorium.settings import Settings

__all__ = ["Choices", "RunOrder", "TableOrder", "schema_of"]

_MOST_ROWS = 1_000_000
"""Of one table."""


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Choices(_Order):
    """What a person chooses of a study. What is absent is as the server's settings say."""

    epsilon: float | None = Field(default=None, ge=1e-3, le=1e4, description="Target ε, end to end.")
    delta: float | None = Field(default=None, ge=1e-12, le=0.1, description="Target δ.")
    recipe: Literal["warm-start", "dp-sgd"] | None = Field(default=None, description="How the model is trained.")
    trust: Literal["local", "secure-aggregation"] | None = Field(
        default=None, description="Who may see what a node sends."
    )
    rounds: int | None = Field(default=None, ge=1, le=1_000, description="Rounds of private training, if any.")
    epochs: int | None = Field(default=None, ge=1, le=10_000, description="Passes over the records in each round.")
    batch_size: int | None = Field(default=None, ge=1, le=10**9, description="Expected records in a step.")
    noise_multiplier: float | None = Field(
        default=None, ge=0.1, le=1e4, description="DP-SGD's noise as it is, instead of an ε."
    )
    records: int | None = Field(
        default=None, ge=1, le=10**9, description="Declared number of records of all nodes; absent: a noisy count."
    )
    evaluation_share: float = Field(
        default=0.0, ge=0, le=0.5, description="Share of patients or budget for evaluation."
    )
    seed: int | None = Field(default=None, ge=0, lt=2**53, description="Fixes initialisation; never the noise.")
    purpose: str = Field(
        default="synthetic data",
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="What the result is for; nodes may allow some purposes alone.",
    )

    def options(self, settings: Settings) -> RunOptions:
        """The options of a run.

        Args:
            settings: Say what was not chosen.

        Raises:
            ConfigError: CONFIG_CONFLICT, if both ε and the noise are chosen.
        """
        if self.noise_multiplier is not None and self.epsilon is not None:
            raise ConfigError("CONFIG_CONFLICT", "Both epsilon and noise_multiplier are given. Each fixes the other.")
        noise = self.noise_multiplier if self.noise_multiplier is not None else settings.dp_noise_multiplier
        return RunOptions(
            epsilon=self.epsilon or settings.epsilon,
            delta=self.delta or settings.delta,
            recipe=self.recipe or settings.recipe,
            trust=self.trust or settings.trust,
            rounds=self.rounds or settings.num_rounds,
            epochs=self.epochs or settings.training_epochs,
            batch_size=self.batch_size or settings.batch_size,
            noise_multiplier=None if self.epsilon is not None else noise,
            records=self.records,
            seed=settings.seed if self.seed is None else self.seed,
            device=settings.device,
            purpose=self.purpose,
            timeout=settings.timeout,
            pretraining_steps=settings.pretraining_steps,
            evaluation_share=self.evaluation_share,
        )


class RunOrder(_Order):
    """A run, as it stands in the queue."""

    schema_text: str = Field(description="The study's schema as TOML.")
    choices: Choices
    study: str | None = Field(default=None, description="Id of the study that it is a run of.")
    epsilon: float | None = Field(default=None, description="Target ε of its plan; null trains without privacy.")


def schema_of(text: str | None) -> tuple[TableSchema, str]:
    """A schema that was sent, or the bundled one, together with its text.

    Raises:
        SchemaError: SCHEMA_INVALID, naming the entry.
    """
    if text is None:
        text = resources.files("aevorium.schema").joinpath("presets", "synthea.toml").read_text("utf-8")
    return TableSchema.from_toml(text, source="schema_text"), text


class TableOrder(_Order):
    """A table of synthetic rows."""

    run: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = Field(
        default=None, description="Id of the run whose model makes them; absent: the newest that finished."
    )
    rows: int | None = Field(
        default=None, ge=1, le=_MOST_ROWS, description="How many; absent: as many as the noisy total of patients."
    )
    where: str | None = Field(
        default=None, min_length=1, max_length=2_000, description='Only rows that meet this, such as "Age > 65".'
    )
    balance: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Equal numbers of rows for each category of this column.",
    )
    seed: int = Field(default=0, ge=0, lt=2**53, description="Fixes the rows.")
    sampler: Literal["ddim", "ddpm"] = Field(default="ddim", description="ddim (deterministic) or ddpm (ancestral).")
    steps: int = Field(default=30, ge=2, le=1000, description="Noise levels of the sampler.")
    format: Literal["csv", "parquet"] = Field(default="csv", description="Kind of the file.")
