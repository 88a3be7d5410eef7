"""Options that several commands share; their text is written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BatchSize",
    "Colluding",
    "Delta",
    "Dropouts",
    "Epochs",
    "Epsilon",
    "EvaluationShare",
    "Home",
    "NodesPerPatient",
    "NoiseMultiplier",
    "Purpose",
    "Recipe",
    "Records",
    "Rounds",
    "SchemaSource",
    "Seed",
    "Timeout",
    "Trust",
    "WorkspaceFolder",
]

Epsilon = Annotated[
    float | None,
    typer.Option(
        "--epsilon",
        help="Target ε, end to end; 'inf' trains without privacy (env AEVORIUM_EPSILON, default 3).",
        show_default=False,
    ),
]
Delta = Annotated[
    float | None,
    typer.Option("--delta", help="Target δ (env AEVORIUM_DELTA, default 1e-05).", show_default=False),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="How the model is trained: warm-start or dp-sgd (env AEVORIUM_RECIPE, default warm-start).",
        show_default=False,
    ),
]
Trust = Annotated[
    str | None,
    typer.Option(
        "--trust",
        help="Who may see what a node sends: local, or secure-aggregation (env AEVORIUM_TRUST, default local).",
        show_default=False,
    ),
]
Dropouts = Annotated[
    int,
    typer.Option("--dropouts", min=0, help="Secure aggregation: nodes that may fail before a sum is no longer opened."),
]
Colluding = Annotated[
    int,
    typer.Option("--colluding", min=0, help="Secure aggregation: nodes that may tell the server their noise."),
]
NodesPerPatient = Annotated[
    int,
    typer.Option("--max-nodes-per-patient", min=1, help="At how many nodes a patient may have a record."),
]
EvaluationShare = Annotated[
    float,
    typer.Option(
        "--evaluation-share",
        min=0.0,
        max=0.5,
        help="Share of the patients that is held out to compare with, at no cost to the others; of the budget, where"
        " the schema names no unit_id.",
    ),
]
Rounds = Annotated[
    int | None,
    typer.Option("--rounds", help="Rounds of training (env NUM_ROUNDS, default 5).", show_default=False),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        help="Passes over a node's records in each round, instead of the recipe's own (env TRAINING_EPOCHS, unset).",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        help="Expected records in a step, instead of the recipe's own (env BATCH_SIZE, unset).",
        show_default=False,
    ),
]
NoiseMultiplier = Annotated[
    float | None,
    typer.Option(
        "--noise-multiplier",
        help="DP-SGD's noise, as it is, instead of --epsilon; needs --records (env DP_NOISE_MULTIPLIER, unset).",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Where models compute: auto (a CUDA device if there is one), cpu or cuda (env AEVORIUM_DEVICE, default "
        "auto).",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="Fixes initialisation and generated rows, never the privacy noise (env AEVORIUM_SEED, default 0).",
        show_default=False,
    ),
]
WorkspaceFolder = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        help="Folder of results (env AEVORIUM_WORKSPACE, default workspace).",
        show_default=False,
    ),
]
SchemaSource = Annotated[str, typer.Option("--schema", help="A schema file, or the name of a bundled schema: synthea.")]
Purpose = Annotated[str, typer.Option("--purpose", help="What the result is for; a node's policy may ask.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        help="Seconds after which a node that has not answered counts as lost (env AEVORIUM_TIMEOUT, default 3600).",
        show_default=False,
    ),
]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Folder of nodes' ledgers, policies and keys (env AEVORIUM_NODE_HOME, default per user).",
        show_default=False,
    ),
]
Records = Annotated[
    int | None,
    typer.Option(
        "--records",
        help="Number of records of all nodes, where it is public; otherwise a noisy count is taken.",
        show_default=False,
    ),
]
