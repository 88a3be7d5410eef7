"""A federation over a table with values that many records share: they keep their share, and a constant stays one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from aevorium.encoding.encoder import TableEncoder
from aevorium.generation import generate_table
from aevorium.governance.secrets import Secrets
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import RunOptions, plan_study
from aevorium.schema.table import TableSchema
from aevorium.workspace import Workspace

pytestmark = pytest.mark.long

SCHEMA = """
name = "ward"
columns.dose = { kind = "continuous", min = 0, max = 500 }
columns.weight = { kind = "continuous", min = 20, max = 160 }
columns.oxygen = { kind = "continuous", min = 0, max = 100, missing = true }
columns.sex = { kind = "categorical", categories = ["f", "m"] }
"""


def _table(path: Path, *, rows: int, seed: int) -> Path:
    """A third of the doses is 120, and twice as many of women's; weights are whole kilograms; oxygen is always 42.5."""
    rng = np.random.default_rng(seed)
    is_woman = rng.random(rows) < 0.5
    usual = rng.random(rows) < np.where(is_woman, 0.44, 0.22)
    frame = pd.DataFrame(
        {
            "dose": np.where(usual, 120, np.clip(rng.gamma(3, 40, rows), 0, 500).round(2)),
            "weight": np.clip(rng.normal(np.where(is_woman, 68, 80), 12, rows), 20, 160).round(),
            "oxygen": np.where(rng.random(rows) < 0.2, np.nan, 42.5),
            "sex": np.where(is_woman, "f", "m"),
        }
    )
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("trust", ["local", "secure-aggregation"])
def test_round_values_keep_their_shares(tmp_path: Path, trust: Literal["local", "secure-aggregation"]) -> None:
    schema = TableSchema.from_toml(SCHEMA, source="test")
    sources = [NodeSource(f"n{place}", _table(tmp_path / f"{place}.csv", rows=1_500, seed=place)) for place in range(3)]
    options = RunOptions(epsilon=10.0, trust=trust, pretraining_steps=200)
    workspace = Workspace(tmp_path / "workspace")
    run_federation(
        schema,
        schema_text=SCHEMA,
        plan=plan_study(schema, [source.name for source in sources], options),
        nodes=sources,
        workspace=workspace,
        secrets=Secrets.in_files(tmp_path / "key"),
        options=options,
    )
    encoder = TableEncoder.from_json(workspace.encoder.read_text(encoding="utf-8"), schema)
    assert [spike.value for spike in encoder.columns["dose"].spikes] == [120]
    secrets = Secrets.in_files(tmp_path / "key")
    generate_table(workspace=workspace, secrets=secrets, output=tmp_path / "rows.csv", rows=4_000)
    made = pd.read_csv(tmp_path / "rows.csv")
    real = pd.concat([pd.read_csv(source.data) for source in sources])
    assert (made["dose"] == 120).mean() == pytest.approx((real["dose"] == 120).mean(), abs=0.03)
    # Other doses are spread, and as high as they were.
    assert made["dose"].nunique() > 1_000
    assert made["dose"].quantile([0.1, 0.9]).to_numpy() == pytest.approx(real["dose"].quantile([0.1, 0.9]), rel=0.1)
    assert (made["weight"] == made["weight"].round()).mean() > 0.97
    present = made["oxygen"].dropna()
    assert (present == present.mode()[0]).mean() >= 0.999
    assert len(present) / len(made) == pytest.approx(0.8, abs=0.03)
    shares = made.assign(usual=made["dose"] == 120).groupby("sex")["usual"].mean()
    # A fifth apart in the records; the model is trained for a few steps only.
    assert shares["f"] > shares["m"] + 0.05
