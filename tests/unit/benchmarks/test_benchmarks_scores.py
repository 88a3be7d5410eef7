from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from benchmarks.fidelity.completion import Layout, complete, missing
from benchmarks.fidelity.distances import ways

LAYOUT = Layout(
    columns={
        "Age": {"kind": "continuous", "missing": False},
        "Glucose": {"kind": "continuous", "missing": True},
        "Sex": {"kind": "categorical", "categories": ["F", "M"], "missing": False},
        "Smoker": {"kind": "categorical", "categories": ["no", "yes"], "missing": True},
    },
    target="Sex",
    target_categories=["F", "M"],
    no_predictors=[],
)


def table(rows, *, seed, shift=0.0):
    generator = np.random.default_rng(seed)
    glucose = generator.normal(100 + shift, 15, rows)
    glucose[generator.random(rows) < 0.4] = np.nan
    return pd.DataFrame(
        {
            "Age": generator.normal(50 + shift, 10, rows).round(),  # whole, so that some lie on the cuts
            "Glucose": glucose,
            "Sex": generator.choice(["F", "M"], rows),
            "Smoker": generator.choice(["no", "yes", None], rows),
        }
    )


def completed(frame, *, medians=None):
    return complete(frame, LAYOUT, medians=frame[["Age", "Glucose"]].median() if medians is None else medians)


def test_an_empty_number_becomes_the_reference_median_and_is_flagged_and_an_empty_category_is_one_more():
    frame = pd.DataFrame({"Age": [20.0, 30.0], "Glucose": [np.nan, 90.0], "Sex": ["F", "M"], "Smoker": [None, "yes"]})
    done = completed(frame, medians=pd.Series({"Age": 1.0, "Glucose": 77.0}))
    assert done.frame["Glucose"].tolist() == [77.0, 90.0]
    assert done.frame["Glucose missing"].tolist() == ["yes", "no"]
    assert done.frame["Smoker"].tolist() == ["∅", "yes"]
    assert done.categories["Smoker"] == ["no", "yes", "∅"]
    assert "Age missing" not in done.frame
    assert not done.frame.isna().any().any()


def _naive(real, other, *, together, bins):
    """The definition, cell by cell."""

    def cells(done):
        parts = {}
        for name in done.frame:
            values = done.frame[name]
            if name in done.numbers:
                edges = np.unique(np.quantile(real.frame[name], np.linspace(0, 1, bins + 1)))[1:-1]
                values = values.map(lambda value, edges=edges: sum(value >= edge for edge in edges))
            parts[name] = list(values)
        return parts

    ours, theirs = cells(real), cells(other)
    found = []
    for names in combinations(ours, together):
        counts = [Counter(zip(*(part[name] for name in names), strict=True)) for part in (ours, theirs)]
        keys = counts[0].keys() | counts[1].keys()
        sizes = [counts[0].total(), counts[1].total()]
        found.append(sum(abs(counts[0][key] / sizes[0] - counts[1][key] / sizes[1]) for key in keys) / 2)
    return np.mean(found)


@pytest.mark.parametrize(("together", "bins"), [(1, 32), (2, 12), (3, 6)])
def test_distances_are_the_mean_total_variation_over_all_combinations(together, bins):
    real = completed(table(150, seed=0))
    other = completed(table(220, seed=1, shift=8.0))
    assert ways(real, other, together=together) == pytest.approx(_naive(real, other, together=together, bins=bins))
    assert ways(real, real, together=together) == 0


def test_a_spike_takes_several_quantiles_and_is_cut_once():
    frame = table(100, seed=0).assign(Age=[0.0] * 80 + list(range(1, 21)))
    moved = frame.assign(Age=[5.0] * 80 + list(range(1, 21)))
    assert ways(completed(frame), completed(moved), together=1) > 0.1


def test_missing_rates_are_compared_with_the_training_rows_and_within_each_target_category():
    train = pd.DataFrame(
        {"Age": 1.0, "Glucose": [np.nan, 1.0, 1.0, 1.0], "Sex": ["F", "F", "M", "M"], "Smoker": ["no"] * 4}
    )
    made = train.assign(Glucose=[1.0, 1.0, np.nan, 1.0])
    found = missing(train, made, LAYOUT)
    assert found["missing_by_column"] == {"Glucose": 0.0, "Smoker": 0.0}
    assert found["missing_mean"] == 0.0
    assert found["missing_by_target"] == pytest.approx(25.0), "50 points in either category for one of two columns"
    everything = missing(train, train.assign(Glucose=np.nan), LAYOUT)
    assert everything["missing_by_column"]["Glucose"] == 75.0
    assert everything["missing_most"] == 75.0
    assert everything["missing_mean"] == 37.5


def test_a_target_category_that_is_never_made_counts_as_wholly_off():
    train = pd.DataFrame({"Age": 1.0, "Glucose": 1.0, "Sex": ["F", "M"], "Smoker": "no"})
    assert missing(train, train.assign(Sex="F"), LAYOUT)["missing_by_target"] == pytest.approx(50.0)
