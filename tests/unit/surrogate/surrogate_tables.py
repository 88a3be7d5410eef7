"""A small study with known associations, for the tests of the surrogate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from aevorium.encoding.associations import Associations, TableDesign, count_tables
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.statistics import TableStatistics, count_cells
from aevorium.schema.table import TableSchema

BINS = 24

SCHEMA = TableSchema.from_toml(
    """
name = "study"
target = "ill"
[columns.age]
kind = "continuous"
min = 0
max = 100
integer = true
[columns.cost]
kind = "continuous"
min = 0
max = 100
[columns.lab]
kind = "continuous"
min = 0
max = 100
missing = true
[columns.ill]
kind = "categorical"
categories = ["yes", "no"]
[columns.ward]
kind = "categorical"
categories = ["a", "b", "c", "d", "e"]
[columns.coin]
kind = "categorical"
categories = ["heads", "tails"]
""",
    source="test",
)


def make_frame(rows: int, *, seed: int) -> pd.DataFrame:
    """Age drives illness, illness drives the lab value and whether it is missing; ward and coin know nothing."""
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 101, rows)
    ill = rng.random(rows) < 0.05 + 0.9 * (age > 60)
    cost = np.where(rng.random(rows) < 0.3, 0.0, np.clip(rng.exponential(20, rows), 0, 100))
    lab = np.clip(rng.normal(np.where(ill, 70, 30), 8), 0, 100)
    lab[rng.random(rows) < np.where(ill, 0.1, 0.6)] = np.nan
    return pd.DataFrame(
        {
            "age": age.astype(float),
            "cost": cost,
            "lab": lab,
            "ill": pd.Categorical.from_codes(np.where(ill, 0, 1), categories=["yes", "no"]),
            "ward": pd.Categorical.from_codes(rng.integers(0, 5, rows), categories=list("abcde")),
            "coin": pd.Categorical.from_codes(rng.integers(0, 2, rows), categories=["heads", "tails"]),
        }
    )


def make_encoder(frame: pd.DataFrame) -> TableEncoder:
    counts = count_cells(frame, SCHEMA, bins=BINS)
    statistics = TableStatistics.from_sum(counts, SCHEMA, bins=BINS, noise=0.0)
    return TableEncoder.fit(statistics, SCHEMA, total=float(len(frame)))


def make_tables(
    frame: pd.DataFrame,
    *,
    cells: dict[str, tuple[int, ...]],
    pairs: Sequence[tuple[str, str]],
    sigma: float,
    rng: np.random.Generator,
) -> Associations:
    design = TableDesign(cells=cells, pairs=tuple(pairs))
    exact = count_tables(frame, SCHEMA, bins=BINS, design=design)
    noisy = np.round(exact + rng.normal(0, sigma, len(exact))).astype(np.int64)
    return Associations.from_sum(noisy, design, noise=sigma)
