"""Is the synthetic table good for learning from, and can a classifier tell it from real rows?

All models are scikit-learn's histogram gradient-boosted trees (150 iterations, depth 5, learning rate 0.1). Everything
here reads typed frames, and so patient records; the results are exact statistics and not for release.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from aevorium.evaluation.completion import complete, is_continuous
from aevorium.evaluation.marginals import Floats

__all__ = ["MAX_DETECTION_ROWS", "MAX_MODEL_ROWS", "ClassScore", "ModelScore", "detect_synthetic", "train_and_test"]

MAX_MODEL_ROWS = 50_000
"""Most rows that a model for the target is trained on, and most that it is tested on; a random choice of more."""
MAX_DETECTION_ROWS = 20_000
"""Most rows of each table when a classifier is to tell them apart; a random choice of more."""

_MIN_CLASS_ROWS = 5
_MIN_REGRESSION_ROWS = 30
_MIN_DETECTION_ROWS = 30
_FOLDS = 3
_RESAMPLES = 100
_MAX_NATIVE_CATEGORIES = 255

Labels = NDArray[np.bool_]


@dataclass(frozen=True)
class ClassScore:
    """One class of the target against all others.

    Attributes:
        category: The class.
        value: ROC AUC; None if it was skipped.
        note: Why it was skipped, or what to know; "" if nothing.
    """

    category: str
    value: float | None
    note: str = ""


@dataclass(frozen=True)
class ModelScore:
    """What a model achieved.

    Attributes:
        metric: "AUC" or "R2".
        value: The (mean) score; None if it was skipped.
        interval: 95% bootstrap interval over the test rows (the model is held fixed).
        note: Why it was skipped, or what to know; "" if nothing.
        classes: Each class of the target; empty for a continuous target and for detection.
        train_rows: Rows that the model was trained on.
        test_rows: Rows that it was tested on.
    """

    metric: str
    value: float | None
    interval: tuple[float, float] | None = None
    note: str = ""
    classes: tuple[ClassScore, ...] = ()
    train_rows: int = 0
    test_rows: int = 0


def train_and_test(
    train: pd.DataFrame, test: pd.DataFrame, *, target: str, leave_out: Collection[str], rng: np.random.Generator
) -> ModelScore:
    """Trains on one table, predicts the target in another. Reads patient records if a table is real.

    A categorical target: mean one-vs-rest ROC AUC over the classes with at least 5 rows inside and outside the class
    among the test rows (two classes: one AUC). A class that the training rows cannot teach, for want of rows inside or
    outside it, counts 0.5: what a constant prediction scores. A continuous target: R². Rows without a target are left
    out.

    Args:
        train: Typed frame.
        test: Typed frame with the same columns.
        target: The column to predict.
        leave_out: Columns that are not to be used, such as those derived from the target.
        rng: Draws the rows if there are too many, and seeds the trees.
    """
    train, test = (_sample(table[table[target].notna()], limit=MAX_MODEL_ROWS, rng=rng) for table in (train, test))
    unused = {target, *leave_out}
    features = [name for name in test.columns if name not in unused]
    if not features:
        return ModelScore("AUC", None, note="There is no other column to predict the target from.")
    test_features, train_features = (_Features.of(table) for table in complete(test[features], train[features]))
    task = _Task(train_features, test_features, seed=int(rng.integers(2**31)))
    if is_continuous(test[target]):
        return _score_regression(task, train[target].to_numpy(), test[target].to_numpy(), rng=rng)
    return _score_classes(task, train[target], test[target], rng=rng)


def detect_synthetic(reference: pd.DataFrame, synthetic: pd.DataFrame, *, rng: np.random.Generator) -> ModelScore:
    """ROC AUC of a classifier that tells synthetic from reference rows (C2ST): 0.5 = it cannot, 1 = always.

    Equal numbers of both, three stratified folds; the mean of the folds. Reads patient records.

    Args:
        reference: Typed frame.
        synthetic: Typed frame with the same columns.
        rng: Draws rows and folds, and seeds the trees.
    """
    rows = min(len(reference), len(synthetic), MAX_DETECTION_ROWS)
    if rows < _MIN_DETECTION_ROWS:
        return ModelScore("AUC", None, note=f"It needs at least {_MIN_DETECTION_ROWS} rows of each table.")
    sampled = [_sample(table, limit=rows, rng=rng) for table in (reference, synthetic)]
    real, other = (_Features.of(table) for table in complete(*sampled))
    pooled = _Features(np.vstack([real.values, other.values]), real.categorical)
    labels: Labels = np.repeat([False, True], rows)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    seed = int(rng.integers(2**31))
    groups = []
    for train_rows, test_rows in folds.split(pooled.values, labels):
        train, test = pooled.rows(train_rows), pooled.rows(test_rows)
        groups.append((labels[test_rows], _predict_probability(train, labels[train_rows], test, seed=seed)))
    value = float(np.mean([roc_auc_score(truth, scores) for truth, scores in groups]))
    interval = _bootstrap(lambda: float(np.mean([_resampled_auc(truth, scores, rng=rng) for truth, scores in groups])))
    return ModelScore("AUC", value, interval, train_rows=2 * rows * (_FOLDS - 1) // _FOLDS, test_rows=2 * rows)


@dataclass(frozen=True, eq=False)
class _Features:
    values: Floats
    categorical: tuple[bool, ...]

    @classmethod
    def of(cls, completed: pd.DataFrame) -> _Features:
        """Numbers as they are, categories as codes that the trees split as sets (if there are not too many)."""
        columns = [completed[name] for name in completed.columns]
        values = [
            column.to_numpy(dtype=np.float64) if is_continuous(column) else column.cat.codes.to_numpy(dtype=np.float64)
            for column in columns
        ]
        categorical = (
            not is_continuous(column) and len(column.cat.categories) <= _MAX_NATIVE_CATEGORIES for column in columns
        )
        return cls(np.column_stack(values), tuple(categorical))

    def rows(self, chosen: NDArray[np.intp]) -> _Features:
        """Some of the rows."""
        return _Features(self.values[chosen], self.categorical)


@dataclass(frozen=True, eq=False)
class _Task:
    train: _Features
    test: _Features
    seed: int


def _predict_probability(train: _Features, labels: Labels, test: _Features, *, seed: int) -> Floats:
    # one thread: on a busy machine OpenMP's threads wait for each other, forty times longer than the work takes
    with threadpool_limits(limits=1, user_api="openmp"):
        model = HistGradientBoostingClassifier(**_settings(train.categorical, seed=seed))
        scores: Floats = model.fit(train.values, labels).predict_proba(test.values)[:, 1]
    return scores


def _predict_number(train: _Features, known: Floats, test: _Features, *, seed: int) -> Floats:
    with threadpool_limits(limits=1, user_api="openmp"):
        model = HistGradientBoostingRegressor(**_settings(train.categorical, seed=seed))
        predicted: Floats = model.fit(train.values, known).predict(test.values)
    return predicted


def _settings(categorical: tuple[bool, ...], *, seed: int) -> dict[str, Any]:
    return {
        "max_iter": 150,
        "max_depth": 5,
        "max_leaf_nodes": None,
        "learning_rate": 0.1,
        "early_stopping": False,
        "categorical_features": list(categorical),
        "random_state": seed,
    }


def _sample(table: pd.DataFrame, *, limit: int, rng: np.random.Generator) -> pd.DataFrame:
    if len(table) <= limit:
        return table.reset_index(drop=True)
    return table.iloc[rng.choice(len(table), limit, replace=False)].reset_index(drop=True)


def _score_regression(task: _Task, known: Floats, truth: Floats, *, rng: np.random.Generator) -> ModelScore:
    score = ModelScore("R2", None, train_rows=len(known), test_rows=len(truth))
    if min(len(known), len(truth)) < _MIN_REGRESSION_ROWS:
        return replace(score, note=f"It needs {_MIN_REGRESSION_ROWS} rows with a target in both tables.")
    if np.ptp(truth) == 0:
        return replace(score, note="The target is constant among the test rows.")
    predicted = _predict_number(task.train, known, task.test, seed=task.seed)

    def resampled() -> float:
        rows = rng.integers(len(truth), size=len(truth))
        return float(r2_score(truth[rows], predicted[rows])) if np.ptp(truth[rows]) > 0 else math.nan

    return replace(score, value=float(r2_score(truth, predicted)), interval=_bootstrap(resampled))


def _score_classes(task: _Task, known: pd.Series, truth: pd.Series, *, rng: np.random.Generator) -> ModelScore:
    categories = [str(category) for category in truth.cat.categories]
    scored = categories[1:] if len(categories) == 2 else categories
    classes, predictions = [], []
    for category in scored:
        labels = (truth == category).to_numpy()
        if min(labels.sum(), (~labels).sum()) < _MIN_CLASS_ROWS:
            note = f"fewer than {_MIN_CLASS_ROWS} test rows in or outside this class"
            classes.append(ClassScore(category, None, note))
            continue
        scores, note = _predict_class(task, (known == category).to_numpy())
        classes.append(ClassScore(category, float(roc_auc_score(labels, scores)), note))
        predictions.append((labels, scores))
    score = ModelScore("AUC", None, classes=tuple(classes), train_rows=len(known), test_rows=len(truth))
    note = "; ".join(f"{entry.category}: {entry.note}" for entry in classes if entry.note)
    values = [entry.value for entry in classes if entry.value is not None]
    if not values:
        return replace(score, note=f"No class of the target has {_MIN_CLASS_ROWS} test rows inside and outside it.")

    def resampled() -> float:
        rows = rng.integers(len(truth), size=len(truth))
        return float(np.mean([_auc(labels[rows], scores[rows]) for labels, scores in predictions]))

    return replace(score, value=float(np.mean(values)), interval=_bootstrap(resampled), note=note)


def _predict_class(task: _Task, known: Labels) -> tuple[Floats, str]:
    if min(known.sum(), (~known).sum()) < 2:
        return np.zeros(len(task.test.values)), "fewer than 2 training rows in or outside this class, counted as 0.5"
    return _predict_probability(task.train, known, task.test, seed=task.seed), ""


def _bootstrap(resampled: Callable[[], float]) -> tuple[float, float] | None:
    drawn = np.asarray([resampled() for _ in range(_RESAMPLES)])
    drawn = drawn[~np.isnan(drawn)]
    if not drawn.size:
        return None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _resampled_auc(labels: Labels, scores: Floats, *, rng: np.random.Generator) -> float:
    rows = rng.integers(len(labels), size=len(labels))
    return _auc(labels[rows], scores[rows])


def _auc(labels: Labels, scores: Floats) -> float:
    """ROC AUC by ranks: some ten times faster than scikit-learn's, which the bootstrap would call hundreds of times."""
    inside = int(labels.sum())
    outside = len(labels) - inside
    if not inside or not outside:
        return math.nan
    return float((rankdata(scores)[labels].sum() - inside * (inside + 1) / 2) / (inside * outside))
