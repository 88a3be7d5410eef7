"""Made-up tables with a target, numbers and missing cells, for the tests of the scores."""

import numpy as np
import pandas as pd

from aevorium.schema.table import TableSchema

SCHEMA = TableSchema.from_toml(
    """
    name = "made-up"
    target = "Outcome"
    [columns.Age]
    kind = "continuous"
    min = 0
    max = 100
    [columns.Dose]
    kind = "continuous"
    min = -10
    max = 10
    missing = true
    [columns.Ward]
    kind = "categorical"
    categories = ["north", "south", "west"]
    [columns.Outcome]
    kind = "categorical"
    categories = ["well", "ill"]
    """,
    source="test",
)


def make_table(rows, *, seed):
    """Rows of one distribution: the outcome depends on age and dose, and doses miss more often in one ward."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, 100, rows)
    dose = rng.normal(0, 2, rows)
    ward = rng.integers(3, size=rows)
    ill = rng.random(rows) < 1 / (1 + np.exp(-(age - 50) / 8 - dose))
    dose[rng.random(rows) < np.where(ward == 0, 0.4, 0.05)] = np.nan
    return pd.DataFrame(
        {
            "Age": age,
            "Dose": dose,
            "Ward": pd.Categorical.from_codes(ward, categories=["north", "south", "west"]),
            "Outcome": pd.Categorical.from_codes(ill.astype(int), categories=["well", "ill"]),
        }
    )


def shuffle_column(table, column, *, seed):
    """The same table with one column's cells in another order."""
    order = np.random.default_rng(seed).permutation(len(table))
    return table.assign(**{column: table[column].iloc[order].array})
