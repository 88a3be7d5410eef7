"""Rows of the surrogate alone, or as the pre-trained model draws them, from a run's released files.

python released_rows.py --workspace DIR --stage surrogate|pretrained --rows 1000 --out rows.csv

Nothing but released numbers is read: everything here is post-processing, at no cost in ε. The seed is the run's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from aevorium.diffusion.denoiser import TabularDiffusion
from aevorium.diffusion.sampler import ddim
from aevorium.diffusion.schedule import karras_levels
from aevorium.encoding.associations import Associations
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.statistics import TableStatistics
from aevorium.privacy.phases import plan_budget
from aevorium.progress import ignore
from aevorium.schema.frame import round_frame
from aevorium.schema.output import write_table
from aevorium.schema.rules import derive
from aevorium.schema.table import TableSchema
from aevorium.server.record import StudyRecord, load_study
from aevorium.server.synthesis import STEPS
from aevorium.server.warm_start import WarmStart, pretraining
from aevorium.settings import load_settings
from aevorium.workspace import Workspace

_BATCH = 2048


def read_associations(workspace: Workspace) -> list[Associations]:
    """The two-way tables that a run released."""
    content = json.loads(workspace.associations.read_text(encoding="utf-8"))
    return [Associations.from_dict(table) for table in content["tables"]]


def draw(warm: WarmStart, record: StudyRecord, schema: TableSchema, *, rows: int) -> pd.DataFrame:
    """Pre-trains a model as the run did and samples it; no row is turned away or chosen among several."""
    if record.model is None:
        raise SystemExit("the run's record names no model")
    generator = torch.Generator().manual_seed(record.seed)
    encoder = warm.surrogate.encoder
    model = TabularDiffusion(record.model, priors=encoder.priors(schema), generator=generator)
    signal = plan_budget(record.plan, records=record.records).signal
    steps = load_settings({}).values.pretraining_steps
    warm.pretrain(model, plan=pretraining(columns=record.plan.columns, signal=signal, steps=steps))
    model.eval()
    levels, parts = karras_levels(STEPS), []
    with torch.inference_mode():
        for start in range(0, rows, _BATCH):
            made = ddim(model, rows=min(_BATCH, rows - start), levels=levels, generator=generator)
            parts.append(encoder.decode(made.values.numpy(), made.codes.numpy(), schema))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Fits the surrogate again, and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--stage", choices=["surrogate", "pretrained"], required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    workspace = Workspace(given.workspace)
    record, schema = load_study(workspace)
    statistics = TableStatistics.from_json(workspace.statistics.read_text(encoding="utf-8"))
    total = record.total or 1.0
    warm = WarmStart(
        TableEncoder.fit(statistics, schema, total=total),
        schema,
        tables=read_associations(workspace),
        total=total,
        statistics=statistics,
        seed=record.seed,
        report=ignore,
    )
    if given.stage == "surrogate":
        drawn = warm.surrogate.rows(given.rows, generator=np.random.default_rng(record.seed))
        frame = warm.surrogate.encoder.decode(drawn.values, drawn.codes, schema)
    else:
        frame = draw(warm, record, schema, rows=given.rows)
    write_table(iter([derive(round_frame(frame, schema), schema)]), given.out, schema)


if __name__ == "__main__":
    main()
