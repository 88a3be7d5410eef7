"""Rows of the surrogate alone, or of the diffusion model as it is before private training, from a run's released files.

python released_rows.py --workspace DIR --stage surrogate|pretrained --rows 1000 --out rows.csv

Nothing but released numbers is read: everything here is post-processing, at no cost in ε. The seed is the run's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from aevorium.diffusion.denoiser import TabularDiffusion
from aevorium.encoding.associations import Associations, TableDesign
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.statistics import TableStatistics
from aevorium.progress import ignore
from aevorium.schema.output import write_table
from aevorium.schema.rules import derive
from aevorium.server.record import load_study
from aevorium.server.synthesis import Synthesis
from aevorium.server.warm_start import WarmStart, pretraining
from aevorium.settings import load_settings
from aevorium.workspace import Workspace


def read_associations(workspace: Workspace) -> list[Associations]:
    """The two-way tables that a run released."""
    content = json.loads(workspace.associations.read_text(encoding="utf-8"))
    return [
        Associations(
            design=TableDesign.model_validate(table["design"]),
            counts=tuple(np.array(counts, dtype=np.int64) for counts in table["counts"]),
            noise=table["noise"],
        )
        for table in content["tables"]
    ]


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
        noise=statistics.noise,
        seed=record.seed,
        report=ignore,
    )
    encoder = warm.surrogate.encoder
    if given.stage == "surrogate":
        drawn = warm.surrogate.rows(given.rows, generator=np.random.default_rng(record.seed))
        frames = iter([derive(encoder.decode(drawn.values, drawn.codes, schema), schema)])
    else:
        if record.model is None:
            raise SystemExit("the run's record names no model")
        generator = torch.Generator().manual_seed(record.seed)
        model = TabularDiffusion(record.model, priors=encoder.priors(schema), generator=generator)
        steps = load_settings({}).values.pretraining_steps
        warm.pretrain(model, plan=pretraining(columns=record.plan.columns, steps=steps))
        synthesis = Synthesis(model=model, encoder=encoder, schema=schema, seed=record.seed)
        frames = synthesis.frames(given.rows, advance=lambda done: None)
    write_table(frames, given.out, schema)


if __name__ == "__main__":
    main()
