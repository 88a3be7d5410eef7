"""What noise does to the surrogate's fit and to the choice of pairs, with stated rates of false alarm."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from surrogate_tables import SCHEMA, make_encoder, make_frame, make_tables

from aevorium.encoding.associations import Associations, TableDesign
from aevorium.surrogate.cells import cut_columns
from aevorium.surrogate.density import fit_surrogate
from aevorium.surrogate.mixture import FitSettings
from aevorium.surrogate.pairs import candidate_pairs, excess_of, select_pairs

NAMES = tuple(SCHEMA.measured)
PLANTED = {("age", "ill"), ("age", "lab"), ("lab", "ill")}


@pytest.mark.parametrize(
    ("rows", "sigma", "error", "kept"),
    [
        (500, 60.0, 0.085, 0.5),
        (1_000, 40.0, 0.3, 0.6),
        (5_000, 40.0, 0.3, 0.9),
        (5_000, 10.0, 0.8, 0.9),
        (20_000, 20.0, 1.0, 0.9),
    ],
)
def test_the_fit_is_nearer_to_the_truth_than_its_tables_are(rows: int, sigma: float, error: float, kept: float):
    """Mean squared errors, where that of the noisy tables is 1.

    Without a pull the first three are .10, .39 and .44; with one ten times as strong all but the first are above
    these bounds.
    """
    frame = make_frame(rows, seed=1)
    encoder = make_encoder(frame)
    cells = cut_columns(encoder, SCHEMA, cells=5)
    pairs = tuple(combinations(NAMES, 2))
    noisy = make_tables(frame, cells=cells, pairs=pairs, sigma=sigma, rng=np.random.default_rng(2))
    truth = make_tables(frame, cells=cells, pairs=pairs, sigma=0.0, rng=np.random.default_rng(2))
    surrogate = fit_surrogate(
        encoder,
        SCHEMA,
        cells=cells,
        tables=[noisy],
        total=float(rows),
        noise=sigma,
        seed=0,
        advance=lambda done, steps: None,
        settings=FitSettings(components=60, steps=600),
    )
    off = [
        (rows * surrogate.mixture.pair(NAMES.index(first), NAMES.index(second)) - counts).ravel()
        for (first, second), counts in zip(pairs, truth.counts, strict=True)
    ]
    assert np.mean((np.concatenate(off) / sigma) ** 2) < error
    # What stands out of the noise is kept: so much of the distance of age and illness from independence, .36.
    found = surrogate.mixture.pair(NAMES.index("age"), NAMES.index("ill"))
    apart = 0.5 * np.abs(found - np.outer(found.sum(axis=1), found.sum(axis=0))).sum()
    assert apart > kept * 0.36


def test_the_surrogate_is_the_mean_of_its_fits():
    frame = make_frame(1_000, seed=1)
    encoder = make_encoder(frame)
    cells = cut_columns(encoder, SCHEMA, cells=5)
    tables = make_tables(frame, cells=cells, pairs=(("age", "ill"),), sigma=10.0, rng=np.random.default_rng(2))
    made = []
    surrogate = fit_surrogate(
        encoder,
        SCHEMA,
        cells=cells,
        tables=[tables],
        total=1_000.0,
        noise=10.0,
        seed=0,
        advance=lambda done, steps: made.append((done, steps)),
        settings=FitSettings(components=10, steps=50, fits=3),
    )
    assert made == sorted(made)
    assert made[-1] == (150, 150)
    parts = surrogate.parts()
    assert [len(part.mixture.weights) for part in parts] == [10, 10, 10]
    assert all(part.mixture.weights.sum() == pytest.approx(1) for part in parts)
    age, ill = NAMES.index("age"), NAMES.index("ill")
    pairs = [part.mixture.pair(age, ill) for part in parts]
    np.testing.assert_allclose(np.mean(pairs, axis=0), surrogate.mixture.pair(age, ill), rtol=1e-9)
    assert np.abs(pairs[0] - pairs[1]).max() > 1e-6


def test_planted_associations_are_selected():
    """At this noise each planted pair stands 10 or more deviations out of it; a miss would be one in millions."""
    frame = make_frame(2_000, seed=1)
    encoder = make_encoder(frame)
    for seed in range(20):
        coarse = make_tables(
            frame,
            cells=cut_columns(encoder, SCHEMA, cells=3, most=3),
            pairs=candidate_pairs(NAMES, target="ill", most=100),
            sigma=40.0,
            rng=np.random.default_rng(seed),
        )
        assert set(select_pairs(coarse, count=4, target="ill")) > PLANTED


def test_pure_noise_seldom_looks_like_an_association():
    """Excess is above three of its standard deviations in about 1 of 100 tables of independent columns.

    It is a chi-square with 4 degrees of freedom, centred and scaled, so its tail beyond 3 has probability .013.
    Of 2,000 tables more than 50 are then above it with probability 1e-5.
    """
    rng = np.random.default_rng(0)
    expected = 500 * np.outer([0.2, 0.3, 0.5], [0.3, 0.3, 0.4])
    noisy = np.round(expected + rng.normal(0, 30, (2_000, 3, 3))).astype(np.int64)
    found = np.array([excess_of(table, noise=30.0) for table in noisy]) / (30**2 * np.sqrt(2 * 4))
    assert (found > 3).sum() <= 50
    assert abs(found.mean()) < 0.15


def test_of_two_pairs_the_one_further_from_independence_has_more_excess_whatever_its_cells():
    """Three cells and sixteen a column, the same squared distance: means of 500 tables within four deviations."""
    rng = np.random.default_rng(0)
    means = []
    for cells in (3, 16):
        table = np.full((cells, cells), 100.0)
        table[:2, :2] += [[100, -100], [-100, 100]]
        noisy = np.round(table + rng.normal(0, 30, (500, cells, cells))).astype(np.int64)
        means.append(np.mean([excess_of(one, noise=30.0) for one in noisy]))
    # A chi-square of 225 degrees of freedom and a shift of 4 · 100², in records².
    deviation = 30**2 * np.sqrt(2 * 225 + 4 * 4 * 100**2 / 30**2) / np.sqrt(500)
    assert means == pytest.approx([4 * 100**2] * 2, abs=4 * deviation)


def test_as_many_pairs_are_selected_as_the_plan_says_and_a_quarter_have_the_target():
    cells = dict.fromkeys("abcdef", (0, 1))
    pairs = candidate_pairs("abcdef", target="f", most=100)
    rng = np.random.default_rng(0)
    tables = tuple(rng.integers(0, 50, (2, 2)) for _ in pairs)
    coarse = Associations(design=TableDesign(cells=cells, pairs=pairs), counts=tables, noise=1.0)
    for count in (1, 4, 8, 15):
        chosen = select_pairs(coarse, count=count, target="f")
        assert len(set(chosen)) == count
        assert sum("f" in pair for pair in chosen) >= min(5, round(count / 4))
    # A column of one cell has no association to show, and still may be asked for.
    assert excess_of(np.ones((1, 3), dtype=np.int64), noise=1.0) == -np.inf
    assert len(select_pairs(coarse, count=15, target=None)) == 15


def test_of_too_many_pairs_those_with_the_target_and_neighbours_are_looked_at():
    names = [f"c{number}" for number in range(70)]
    pairs = candidate_pairs(names, target="c9", most=2_000)
    assert len(set(pairs)) == 2_000
    assert sum("c9" in pair for pair in pairs) == 69
    assert {(f"c{n}", f"c{n + 1}") for n in range(69)} <= set(pairs)
    assert len(candidate_pairs(names[:5], target=None, most=2_000)) == 10
