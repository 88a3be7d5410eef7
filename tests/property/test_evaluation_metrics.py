"""What holds for every pair of tables: identity, symmetry, range, and that the order of rows says nothing."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aevorium.evaluation.completion import complete
from aevorium.evaluation.fidelity import column_shapes, distance, mean_score, missing_rates, pair_trends, trends_all
from aevorium.evaluation.marginals import Axis, MarginalTable, project_to_simplex, total_variation

CATEGORIES = ["a", "b", "c"]
NUMBERS = st.one_of(st.none(), st.integers(-3, 3), st.floats(-1e6, 1e6, allow_nan=False))
CELLS = st.sampled_from([*CATEGORIES, None])


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 25))
    columns = {
        "x": pd.Series(draw(st.lists(NUMBERS, min_size=rows, max_size=rows)), dtype="float64"),
        "y": pd.Series(draw(st.lists(NUMBERS, min_size=rows, max_size=rows)), dtype="float64"),
        "k": pd.Series(pd.Categorical(draw(st.lists(CELLS, min_size=rows, max_size=rows)), categories=CATEGORIES)),
    }
    return pd.DataFrame(columns)


def scores(reference, synthetic):
    shapes = [shape.score for shape in column_shapes(reference, synthetic)]
    pairs = [pair.score for pair in pair_trends(reference, synthetic)]
    completed = complete(reference, synthetic)
    distances = [distance(*completed, ways=ways) for ways in (1, 2, 3)]
    return np.array([*shapes, *pairs, *distances])


@settings(max_examples=25, deadline=None)
@given(tables(), tables())
def test_scores_lie_between_zero_and_one(first, second):
    found = scores(first, second)
    assert ((found >= -1e-9) & (found <= 1 + 1e-9))[~np.isnan(found)].all()


@settings(max_examples=25, deadline=None)
@given(tables())
def test_a_table_is_at_no_distance_from_itself(table):
    found = scores(table, table)
    expected = np.array([1.0] * 6 + [0.0] * 3)
    known = ~np.isnan(found)
    assert found[known] == pytest.approx(expected[known], abs=1e-9)
    assert known[-3:].all()
    assert all(rate.error == 0 for rate in missing_rates(table, table))


@settings(max_examples=25, deadline=None)
@given(tables(), tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_says_nothing(first, second, random):
    order = list(range(len(second)))
    random.shuffle(order)
    shuffled = second.iloc[order].reset_index(drop=True)
    assert scores(first, shuffled) == pytest.approx(scores(first, second), abs=1e-9, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(tables(), tables())
def test_shapes_and_trends_do_not_depend_on_which_table_is_the_reference(first, second):
    there, back = column_shapes(first, second), column_shapes(second, first)
    assert [s.score for s in there] == pytest.approx([s.score for s in back], abs=1e-9, nan_ok=True)
    ahead, behind = trends_all(pair_trends(first, second)), trends_all(pair_trends(second, first))
    assert ahead == pytest.approx(behind, abs=1e-9, nan_ok=True)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.lists(st.floats(0, 50), min_size=1, max_size=20))
def test_total_variation_of_noisy_counts_is_a_distance(noisy, exact):
    size = min(len(noisy), len(exact))
    axis = Axis.from_categories("k", [str(state) for state in range(size)], missing=False)
    first, second = (MarginalTable(axes=(axis,), counts=np.array(side[:size]), noise_sd=1.0) for side in (noisy, exact))
    value = total_variation(first, second)
    if first.total > 0 and second.total > 0:
        assert -1e-9 <= value <= 1 + 1e-9
        assert value == pytest.approx(total_variation(second, first))
    else:
        assert math.isnan(value)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_no_share_vector_is_nearer_than_the_projection(values, random):
    point = np.array(values)
    projected = project_to_simplex(point)
    assert projected.min() >= 0
    assert projected.sum() == pytest.approx(1)
    other = np.array([random.random() + 1e-6 for _ in values])
    other /= other.sum()
    assert np.linalg.norm(point - projected) <= np.linalg.norm(point - other) + 1e-9


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=8))
def test_mean_score_leaves_out_what_is_not_defined(values):
    known = [value for value in values if not math.isnan(value)]
    expected = sum(known) / len(known) if known else math.nan
    assert mean_score(values) == pytest.approx(expected, nan_ok=True)
