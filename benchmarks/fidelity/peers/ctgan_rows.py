"""Rows of CTGAN or TVAE, without privacy, in an environment of its own.

python ctgan_rows.py --method ctgan --train train.csv --layout layout.json --epsilon inf --delta 1e-5 --seed 0
                     --rows 1000 --out rows.csv
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ctgan import CTGAN, TVAE

_MISSING = "missing"


def read(path: Path, columns: dict[str, dict[str, Any]]) -> tuple[pd.DataFrame, list[str]]:
    """The training rows without empty cells, which neither model takes, and the names of discrete columns.

    An empty category is one more category. An empty number is the column's median, and a discrete column of its own
    says where.
    """
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).replace("", np.nan)
    discrete = []
    for name, column in columns.items():
        if column["kind"] == "categorical":
            frame[name] = frame[name].fillna(_MISSING)
            discrete.append(name)
            continue
        numbers = pd.to_numeric(frame[name])
        if numbers.isna().any():
            frame[f"{name} {_MISSING}"] = numbers.isna().map({True: "yes", False: "no"})
            discrete.append(f"{name} {_MISSING}")
        frame[name] = numbers.fillna(numbers.median())
    return frame, discrete


def write(rows: pd.DataFrame, columns: dict[str, dict[str, Any]], *, path: Path) -> None:
    """Writes generated rows with their empty cells."""
    for name, column in columns.items():
        if column["kind"] == "categorical":
            rows[name] = rows[name].replace(_MISSING, "")
        elif f"{name} {_MISSING}" in rows:
            rows.loc[rows[f"{name} {_MISSING}"] == "yes", name] = np.nan
    rows[list(columns)].to_csv(path, index=False)


def main() -> None:
    """Fits and generates; settings are the package's defaults, 300 epochs among them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["ctgan", "tvae"], required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--layout", type=Path, required=True)
    parser.add_argument("--epsilon", type=float, required=True)
    parser.add_argument("--delta", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    columns = json.loads(given.layout.read_text(encoding="utf-8"))["columns"]
    frame, discrete = read(given.train, columns)
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    np.random.seed(given.seed)
    model = {"ctgan": CTGAN, "tvae": TVAE}[given.method]()
    model.set_random_state(given.seed)
    model.fit(frame, discrete)
    write(model.sample(given.rows), columns, path=given.out)


if __name__ == "__main__":
    main()
