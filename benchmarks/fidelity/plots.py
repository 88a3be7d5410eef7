"""Plots of the table of results, in an environment of its own.

python plots.py --results results.csv --folder plots
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt  # the backend is chosen first

_PANELS = {
    "2way": "two-way error (lower is better)",
    "3way": "three-way error (lower is better)",
    "tstr": "train on synthetic, test on real: AUC (higher)",
    "c2st": "told from real rows: AUC (lower)",
    "shapes": "shapes (higher)",
    "trends": "trends (higher)",
}
_COLOURS = {
    "real": "#555555",
    "aevorium, secure-aggregation": "#0b6e4f",
    "aevorium, local": "#5fb49c",
    "aevorium-surrogate, secure-aggregation": "#7a5195",
    "aevorium-surrogate, local": "#bc9fd1",
    "dp-sgd, secure-aggregation": "#8c564b",
    "dp-sgd, local": "#c49c94",
    "mst": "#e08e0b",
    "aim": "#c1272d",
    "ctgan": "#3b6fb6",
    "tvae": "#8fb4e3",
}


def name_of(row: dict[str, str]) -> str:
    """The method with its trust."""
    return f"{row['method']}, {row['trust']}" if row["trust"] else row["method"]


def draw(table: str, rows: Sequence[dict[str, str]], *, path: Path) -> None:
    """One figure of a table: a panel for each score, a line for each method, a place for each ε."""
    epsilons = sorted({float(row["epsilon"]) for row in rows})
    place = {epsilon: number for number, epsilon in enumerate(epsilons)}
    figure, axes = plt.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    for axis, (score, title) in zip(axes.flat, _PANELS.items(), strict=True):
        for name in [known for known in _COLOURS if any(name_of(row) == known for row in rows)]:
            found = [row for row in rows if name_of(row) == name and row[score]]
            if not found:
                continue
            if name == "real":
                axis.axhline(float(found[0][score]), color=_COLOURS[name], linestyle="--", label=name)
                continue
            found.sort(key=lambda row: float(row["epsilon"]))
            axis.errorbar(
                [place[float(row["epsilon"])] for row in found],
                [float(row[score]) for row in found],
                yerr=[float(row[f"{score}_se"] or 0) for row in found],
                color=_COLOURS[name],
                marker="o",
                capsize=3,
                label=name,
            )
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(epsilons)), ["∞" if math.isinf(value) else f"{value:g}" for value in epsilons])
        axis.set_xlabel("ε")
        axis.grid(alpha=0.3)
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes.flat), key=lambda pair: len(pair[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(f"{table}: means and standard errors over seeds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Draws a figure for each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    with given.results.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["step"] and int(row["seeds"])]
    given.folder.mkdir(parents=True, exist_ok=True)
    for table in sorted({row["table"] for row in rows}):
        draw(table, [row for row in rows if row["table"] == table], path=given.folder / f"{table}.png")


if __name__ == "__main__":
    main()
