"""Scores of a synthetic table against held-out rows, in an environment of its own.

python -m benchmarks.fidelity.scores --train scored_train.csv --holdout scored_holdout.csv --synthetic rows.csv
                                     --layout layout.json --out scores.json

Every table is completed first: an empty number becomes the column's median and is flagged in a column of its own, an
empty category is one more category. All comparisons are with held-out rows but those of missing rates, which are with
the rows that were learnt from: held-out rows have a chance error of their own, larger than what is asked of a method.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost
from numpy.typing import NDArray
from sdmetrics.reports.single_table import QualityReport
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

from benchmarks.fidelity.completion import Completed, Layout, complete, missing, read
from benchmarks.fidelity.distances import ways

_FOLDS = 3
_FEWEST_TESTED, _FEWEST_TRAINED = 5, 2
"""Rows of a class without which it is not tested, or not learnt (an AUC of one half)."""


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
