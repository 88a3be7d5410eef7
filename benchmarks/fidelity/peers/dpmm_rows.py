"""Rows of AIM or MST, as dpmm has them, in an environment of its own.

python dpmm_rows.py --method mst --train train.csv --layout layout.json --epsilon 1 --delta 1e-5 --seed 0 --rows 1000
                    --out rows.csv
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dpmm.pipelines import AIMPipeline, MSTPipeline

_DISCRETISING, _DISCRETISING_FEW = 0.1, 0.3
"""Share of ε that cuts numbers into bins: 0.1 of 1 in dpmm's own example, and as much of any other ε. Tables of few
rows get more: with a tenth, noise puts the cuts of 1,000 rows anywhere (MST on Synthea at ε = 1: 2way .24, not .21)."""

_FEW = 5_000
"""Rows below which a table has few."""

_MODEL_SIZE = 80
"""Megabytes to which AIM's model may grow: the paper's limit and that of dpmm's own AIM."""


def read(path: Path, columns: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """The training rows in the types that dpmm tells kinds of columns by."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).replace("", np.nan)
    for name, column in columns.items():
        if column["kind"] == "categorical":
            # All public categories: dpmm also generates those that do not occur, and empties them otherwise.
            frame[name] = frame[name].astype(object).astype(pd.CategoricalDtype(list(column["categories"])))
        else:
            numbers = pd.to_numeric(frame[name])
            whole = column["integer"] and not numbers.isna().any()
            frame[name] = numbers.astype("int64" if whole else "float64")
    return frame[list(columns)]


def domain(columns: dict[str, dict[str, Any]]) -> dict[str, dict[str, object]]:
    """Public bounds and categories, so that no budget is spent and nothing is leaked to find them."""
    return {
        name: {"categories": list(column["categories"])}
        if column["kind"] == "categorical"
        else {"lower": column["min"], "upper": column["max"]}
        for name, column in columns.items()
    }


def main() -> None:
    """Fits and generates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["mst", "aim"], required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--layout", type=Path, required=True)
    parser.add_argument("--epsilon", type=float, required=True)
    parser.add_argument("--delta", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    columns = json.loads(given.layout.read_text(encoding="utf-8"))["columns"]
    kind, limit = {"mst": (MSTPipeline, None), "aim": (AIMPipeline, _MODEL_SIZE)}[given.method]
    share = _DISCRETISING_FEW if given.rows < _FEW else _DISCRETISING
    pipeline = kind(
        epsilon=given.epsilon * (1 - share),
        delta=given.delta,
        proc_epsilon=given.epsilon * share,
        max_model_size=limit,
        n_jobs=1,
    )
    pipeline.fit(read(given.train, columns), domain(columns), random_state=given.seed)
    rows = pipeline.generate(n_records=given.rows, random_state=given.seed)
    rows.to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
