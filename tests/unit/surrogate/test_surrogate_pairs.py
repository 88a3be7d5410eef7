"""Which pairs and triples get a table, by noisy coarse tables."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from aevorium.encoding.associations import Associations, TableDesign
from aevorium.surrogate.pairs import select_pairs, select_triples

COLUMNS = tuple("abcdt")


def _coarse(excess: dict[tuple[str, str], int]) -> Associations:
    """Tables of 3 x 3 cells with 100 records each, and so many more on the diagonal than beside it."""
    pairs = tuple(combinations(COLUMNS, 2))
    counts = tuple(np.full((3, 3), 100) + excess.get(pair, 0) * np.eye(3, dtype=np.int64) for pair in pairs)
    cells = dict.fromkeys(COLUMNS, (0, 1, 2))
    return Associations(design=TableDesign(cells=cells, pairs=pairs), counts=counts, noise=10.0)


COARSE = _coarse({("a", "t"): 90, ("c", "t"): 80, ("d", "t"): 70, ("a", "b"): 95, ("b", "c"): 60})


def test_the_pairs_that_stand_out_most_are_taken_and_a_quarter_of_them_with_the_target():
    assert select_pairs(COARSE, count=3, target=None) == (("a", "b"), ("a", "t"), ("c", "t"))
    few = _coarse({("a", "b"): 95, ("b", "c"): 60, ("c", "d"): 50, ("a", "c"): 40, ("d", "t"): 1})
    assert select_pairs(few, count=4, target="t") == (("a", "b"), ("b", "c"), ("c", "d"), ("d", "t"))


def test_triples_are_of_the_columns_that_both_tell_of_the_target():
    found = select_triples(COLUMNS, target="t", count=3, coarse=COARSE)
    assert found == (("a", "c", "t"), ("a", "d", "t"), ("c", "d", "t"))
    # b goes with a and c, and tells nothing of the target: it comes last.
    assert all("b" in triple for triple in select_triples(COLUMNS, target="t", count=6, coarse=COARSE)[3:])


def test_there_are_no_triples_without_a_target_and_all_of_them_without_coarse_tables():
    assert select_triples(COLUMNS, target=None, count=3, coarse=COARSE) == ()
    assert select_triples(COLUMNS, target="t", count=0, coarse=COARSE) == ()
    everything = select_triples(COLUMNS, target="t", count=6, coarse=None)
    assert {frozenset(triple) for triple in everything} == {frozenset((*pair, "t")) for pair in combinations("abcd", 2)}
