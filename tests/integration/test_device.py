"""A whole run on a named device: pre-training, private training, rows. What needs CUDA is skipped where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from aevorium.diffusion.device import DeviceName
from aevorium.generation import generate_table
from aevorium.governance.secrets import Secrets
from aevorium.pipeline import NodeSource, run_federation
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.plan import Trust
from aevorium.schema.table import TableSchema
from aevorium.workspace import Workspace

SCHEMA = """
name = "clinic"
[columns.age]
kind = "continuous"
min = 18
max = 90
[columns.glucose]
kind = "continuous"
min = 50
max = 400
missing = true
[columns.ill]
kind = "categorical"
categories = ["yes", "no"]
"""


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.long
@pytest.mark.parametrize(
    ("device", "trust"),
    [
        ("cpu", "local"),
        pytest.param("cuda", "local", marks=NEEDS_CUDA),
        pytest.param("cuda", "secure-aggregation", marks=NEEDS_CUDA),
    ],
)
def test_a_run_and_its_rows_on_a_device_and_its_checkpoint_on_the_cpu(
    tmp_path: Path, device: DeviceName, trust: Trust
) -> None:
    rng = np.random.default_rng(1)
    names = ["a", "b", "c"]
    for name in names:
        age = rng.uniform(18, 90, 300)
        ill = np.where(age + rng.normal(0, 10, 300) > 55, "yes", "no")
        glucose = np.where(rng.random(300) < 0.2, np.nan, 90 + age + 30 * (ill == "yes"))
        pd.DataFrame({"age": age, "glucose": glucose, "ill": ill}).to_csv(tmp_path / f"{name}.csv", index=False)
    schema = TableSchema.from_toml(SCHEMA, source="test")
    options = RunOptions(
        epsilon=10,
        rounds=1,
        epochs=1,
        batch_size=60,
        pretraining_steps=20,
        trust=trust,
        device=device,
    )
    workspace = Workspace(tmp_path / "workspace")
    run_federation(
        schema,
        schema_text=SCHEMA,
        plan=plan_study(schema, names, options),
        nodes=[NodeSource(name, tmp_path / f"{name}.csv") for name in names],
        workspace=workspace,
        secrets=Secrets.in_files(tmp_path / "key"),
        options=options,
    )
    shares = []
    places: list[DeviceName] = [device, "cpu"]
    for number, place in enumerate(places):
        output = tmp_path / f"{number}.csv"
        made = generate_table(
            workspace=workspace,
            secrets=Secrets.in_files(tmp_path / "key"),
            output=output,
            rows=2000,
            device=place,
        )
        assert made.rows == 2000
        shares.append(pd.crosstab(pd.read_csv(output)["ill"], pd.read_csv(output)["age"] > 54, normalize=True))
    assert np.abs(shares[0] - shares[1]).to_numpy().max() < 0.06
