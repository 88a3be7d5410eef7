"""Scores of a synthetic table against held-out rows, in an environment of its own.

python scores.py --train scored_train.csv --holdout scored_holdout.csv --synthetic rows.csv --layout layout.json
                 --out scores.json

Every table is completed first: an empty number becomes the column's median and is flagged in a column of its own, an
empty category is one more category. All comparisons are with held-out rows but those of missing rates, which are with
the rows that were learnt from: held-out rows have a chance error of their own, larger than what is asked of a method.
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost
from numpy.typing import NDArray
from sdmetrics.reports.single_table import QualityReport
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

_BINS = {1: 32, 2: 12, 3: 6}
"""Quantile bins of a numeric column, by how many columns are looked at together."""

_MOST = {1: 1000, 2: 100, 3: 60}
"""Combinations of columns that are looked at; the same for all methods."""

_FOLDS = 3
_FEWEST_TESTED, _FEWEST_TRAINED = 5, 2
"""Rows of a class without which it is not tested, or not learnt (an AUC of one half)."""

_EMPTY = "∅"


@dataclass(frozen=True)
class Layout:
    """What scores know of columns.

    Attributes:
        columns: Kind and categories of each measured column.
        target: The column that is predicted.
        target_categories: Its categories.
        no_predictors: Columns that say what the target is.
    """

    columns: dict[str, dict[str, Any]]
    target: str
    target_categories: list[str]
    no_predictors: list[str]


@dataclass(frozen=True)
class Completed:
    """A table without empty cells.

    Attributes:
        frame: The measured columns and a flag for each number that may be missing.
        target: The target of each row.
        numbers: Names of numeric columns.
        categories: For every other column its categories.
    """

    frame: pd.DataFrame
    target: pd.Series
    numbers: list[str]
    categories: dict[str, list[str]]

    def head(self, rows: int) -> Completed:
        """The first rows."""
        return Completed(self.frame.iloc[:rows], self.target.iloc[:rows], self.numbers, self.categories)


def read(path: Path, layout: Layout) -> pd.DataFrame:
    """A table with numbers as numbers and everything else as text; empty cells stay empty."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).replace("", np.nan)
    for name, column in layout.columns.items():
        if column["kind"] == "continuous":
            frame[name] = pd.to_numeric(frame[name])
    return frame


def complete(frame: pd.DataFrame, layout: Layout, *, medians: pd.Series) -> Completed:
    """Fills and flags empty cells."""
    filled, categories, numbers = {}, {}, []
    for name, column in layout.columns.items():
        if column["kind"] == "continuous":
            numbers.append(name)
            filled[name] = frame[name].fillna(medians[name])
        else:
            categories[name] = [*column["categories"], *([_EMPTY] if column["missing"] else [])]
            filled[name] = frame[name].fillna(_EMPTY)
    for name in numbers:
        if layout.columns[name]["missing"]:
            flag = f"{name} missing"
            categories[flag] = ["no", "yes"]
            filled[flag] = frame[name].isna().map({True: "yes", False: "no"})
    return Completed(pd.DataFrame(filled), frame[layout.target], numbers, categories)


def ways(real: Completed, other: Completed, *, together: int) -> float:
    """Mean total-variation distance over combinations of columns, cut by the quantiles of the real rows."""
    edges = {name: _edges(real.frame[name], bins=_BINS[together]) for name in real.numbers}
    sizes = [len(edges[name]) + 1 for name in real.numbers] + [len(names) for names in real.categories.values()]
    ours, theirs = (_codes(table, edges=edges) for table in (real, other))
    chosen = list(itertools.combinations(range(len(sizes)), together))
    if len(chosen) > _MOST[together]:
        drawn = np.random.default_rng(0).choice(len(chosen), _MOST[together], replace=False)
        chosen = [chosen[place] for place in drawn]
    return float(np.mean([_distance(ours, theirs, columns=columns, sizes=sizes) for columns in chosen]))


def _edges(values: pd.Series, *, bins: int) -> NDArray[np.float64]:
    return np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))[1:-1]


def _codes(table: Completed, *, edges: dict[str, NDArray[np.float64]]) -> NDArray[np.int64]:
    cut = [np.searchsorted(edges[name], table.frame[name], side="right") for name in table.numbers]
    named = [pd.Categorical(table.frame[name], categories=names).codes for name, names in table.categories.items()]
    return np.stack([*cut, *named], axis=1).astype(np.int64)


def _distance(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], *, columns: tuple[int, ...], sizes: list[int]
) -> float:
    shape = [sizes[column] for column in columns]
    shares = [
        np.bincount(np.ravel_multi_index(codes[:, columns].T, shape), minlength=int(np.prod(shape))) / len(codes)
        for codes in (ours, theirs)
    ]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _features(table: Completed, *, without: list[str]) -> NDArray[np.float64]:
    """Numbers as they are, and one column for each category."""
    numbers = [table.frame[[name for name in table.numbers if name not in without]].to_numpy(dtype=np.float64)]
    named = [
        (table.frame[name].to_numpy()[:, None] == np.array(names, dtype=object)[None]).astype(np.float64)
        for name, names in table.categories.items()
        if name not in without
    ]
    return np.hstack([*numbers, *named])


def _booster() -> xgboost.XGBClassifier:
    return xgboost.XGBClassifier(n_estimators=150, max_depth=5, learning_rate=0.1, n_jobs=1, verbosity=0)


def tstr(synthetic: Completed, real: Completed, layout: Layout) -> float:
    """Train on synthetic rows, test on real ones: mean one-vs-rest AUC over the target's categories."""
    without = [layout.target, *layout.no_predictors]
    learnt, tested = _features(synthetic, without=without), _features(real, without=without)
    names = layout.target_categories
    found = []
    for name in names[1:] if len(names) == 2 else names:
        is_class, is_tested = (synthetic.target == name).to_numpy(), (real.target == name).to_numpy()
        if is_tested.sum() < _FEWEST_TESTED:
            continue
        if min(is_class.sum(), (~is_class).sum()) < _FEWEST_TRAINED:
            found.append(0.5)
            continue
        model = _booster().fit(learnt, is_class.astype(int))
        found.append(roc_auc_score(is_tested, model.predict_proba(tested)[:, 1]))
    return float(np.mean(found))


def c2st(real: Completed, synthetic: Completed) -> float:
    """How well a classifier tells synthetic from real rows: AUC over three folds; one half = not at all."""
    rows = min(len(real.frame), len(synthetic.frame))
    features = np.vstack([_features(table.head(rows), without=[]) for table in (real, synthetic)])
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    return float(cross_val_score(_booster(), features, np.repeat([0, 1], rows), cv=folds, scoring="roc_auc").mean())


def shapes_and_trends(real: Completed, synthetic: Completed) -> dict[str, float]:
    """The two scores of sdmetrics; `trends` over the pairs it finds associated, `trends_all` over all pairs."""
    metadata = {
        "columns": {
            **{name: {"sdtype": "numerical"} for name in real.numbers},
            **{name: {"sdtype": "categorical"} for name in real.categories},
        }
    }
    report = QualityReport()
    report.generate(real.frame.copy(), synthetic.frame.copy(), metadata, verbose=False)
    properties = report.get_properties().set_index("Property")["Score"]
    every = QualityReport()
    every.real_correlation_threshold = every.real_association_threshold = 0
    every.generate(real.frame.copy(), synthetic.frame.copy(), metadata, verbose=False)
    return {
        "shapes": float(properties["Column Shapes"]),
        "trends": float(properties["Column Pair Trends"]),
        "trends_all": float(every.get_details("Column Pair Trends")["Score"].mean()),
    }


def missing(train: pd.DataFrame, synthetic: pd.DataFrame, layout: Layout) -> dict[str, object]:
    """How far missing rates are off, in percentage points: by column, and by column within each target category."""
    columns = [name for name, column in layout.columns.items() if column["missing"]]
    if not columns:
        return {}
    by_column = {name: 100 * float(synthetic[name].isna().mean() - train[name].isna().mean()) for name in columns}
    shares = train[layout.target].value_counts(normalize=True)
    ours, theirs = (
        table[columns].isna().groupby(table[layout.target]).mean().reindex(shares.index) for table in (train, synthetic)
    )
    # A category that was never generated has no missing rate; its whole share then counts as off.
    off = 100 * (theirs - ours).abs().fillna(1.0)
    return {
        "missing_by_column": by_column,
        "missing_mean": float(np.mean(np.abs(list(by_column.values())))),
        "missing_most": float(np.max(np.abs(list(by_column.values())))),
        "missing_by_target": float(off.mul(shares, axis=0).sum().mean()),
    }


def score(train: pd.DataFrame, holdout: pd.DataFrame, synthetic: pd.DataFrame, layout: Layout) -> dict[str, object]:
    """All scores of a synthetic table."""
    medians = holdout[[name for name, column in layout.columns.items() if column["kind"] == "continuous"]].median()
    real, made = (complete(table, layout, medians=medians) for table in (holdout, synthetic))
    return {
        "1way": ways(real, made, together=1),
        "2way": ways(real, made, together=2),
        "3way": ways(real, made, together=3),
        "tstr": tstr(made, real, layout),
        "c2st": c2st(real, made),
        **shapes_and_trends(real, made),
        **missing(train, synthetic, layout),
    }


def main() -> None:
    """Reads, scores, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "holdout", "synthetic", "layout", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    content = json.loads(given.layout.read_text(encoding="utf-8"))
    layout = Layout(**content)
    train, holdout, synthetic = (read(path, layout) for path in (given.train, given.holdout, given.synthetic))
    given.out.write_text(json.dumps(score(train, holdout, synthetic, layout)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
