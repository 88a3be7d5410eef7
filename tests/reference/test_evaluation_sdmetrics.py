"""Shapes and trends against SDMetrics 0.32.0.

`test_evaluation_sdmetrics.json` holds small made-up tables and what `QualityReport` (default thresholds) and
`ColumnPairTrends` (no threshold) said of them in an environment of their own; SDMetrics itself is not a dependency.
"""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from aevorium.evaluation.fidelity import column_shapes, mean_score, pair_trends, trends, trends_all

RECORDED = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))["cases"]
CONTINUOUS = {"Age", "BMI", "Cost", "Visits"}
CATEGORIES = {
    "Sex": ["Female", "Male", "Other"],
    "Diagnosis": ["Healthy", "Diabetes", "Cancer"],
    "Risk": ["Low", "Medium", "High"],
}


def frame_of(columns):
    return pd.DataFrame(
        {
            name: pd.Series(cells, dtype="float64")
            if name in CONTINUOUS
            else pd.Series(pd.Categorical(cells, categories=CATEGORIES[name]))
            for name, cells in columns.items()
        }
    )


def number(value):
    return math.nan if value is None else value


@pytest.fixture(params=sorted(RECORDED))
def case(request):
    recorded = RECORDED[request.param]
    return recorded, frame_of(recorded["real"]), frame_of(recorded["synthetic"])


def test_column_shapes_equal_sdmetrics(case):
    recorded, real, synthetic = case
    shapes = column_shapes(real, synthetic)
    assert {shape.column: shape.score for shape in shapes} == pytest.approx(
        {name: number(score) for name, score in recorded["columns"].items()}, abs=1e-12, nan_ok=True
    )
    assert mean_score(shape.score for shape in shapes) == pytest.approx(recorded["shapes"], abs=1e-12)


def test_pair_trends_equal_sdmetrics(case):
    recorded, real, synthetic = case
    pairs = pair_trends(real, synthetic)
    assert [(pair.first, pair.second) for pair in pairs] == [(first, second) for first, second, *_ in recorded["pairs"]]
    for pair, (_, _, score, association, is_counted) in zip(pairs, recorded["pairs"], strict=True):
        assert pair.score == pytest.approx(number(score), abs=1e-12, nan_ok=True), pair
        if association is not None:
            assert pair.real == pytest.approx(association, abs=1e-12), pair
        assert (pair.is_associated and not math.isnan(pair.score)) == bool(is_counted), pair
    assert trends(pairs) == pytest.approx(recorded["trends"], abs=1e-12)
    assert trends_all(pairs) == pytest.approx(recorded["trends_all"], abs=1e-12)
