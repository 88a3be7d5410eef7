"""Which drawn rows are taken, and when a search is given up."""

import numpy as np
import pandas as pd
import pytest

from aevorium.errors import ConfigError, UserError
from aevorium.schema.condition import parse_condition
from aevorium.schema.table import TableSchema
from aevorium.server.search import RAREST, Search, balance_of

SCHEMA = TableSchema.model_validate(
    {
        "name": "t",
        "columns": {
            "Age": {"kind": "continuous", "min": 0, "max": 100, "integer": True},
            "Ill": {"kind": "categorical", "categories": ["no", "flu", "cold"], "missing": True},
        },
    }
)


def _frame(ages: list[float], ills: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame({"Age": ages, "Ill": pd.Categorical(ills, categories=["no", "flu", "cold"])})


@pytest.mark.parametrize(
    ("rows", "expected"), [(6, (2, 2, 2)), (7, (3, 2, 2)), (8, (3, 3, 2)), (1, (1, 0, 0)), (2, (1, 1, 0))]
)
def test_the_first_categories_take_what_does_not_divide(rows: int, expected: tuple[int, ...]) -> None:
    search = Search(rows, balance=balance_of("Ill", SCHEMA, condition=None))
    kinds = np.random.default_rng(1).choice(["no", "flu", "cold"], 100, p=[0.8, 0.1, 0.1])
    taken = search.take(_frame(list(range(100)), list(kinds)), drawn=100)
    assert search.is_complete
    assert tuple(taken["Ill"].value_counts()[["no", "flu", "cold"]]) == expected


def test_rows_are_taken_in_their_order_and_none_with_the_category_missing() -> None:
    search = Search(4, balance=balance_of("Ill", SCHEMA, condition=None))
    first = search.take(_frame([1, 2, 3, 4, 5], ["no", None, "no", "no", "cold"]), drawn=5)
    assert first["Age"].tolist() == [1, 3, 5]
    assert not search.is_complete
    second = search.take(_frame([6, 7, 8], [None, "cold", "flu"]), drawn=3)
    assert second["Age"].tolist() == [8]
    assert (search.is_complete, search.taken, search.drawn) == (True, 4, 8)


def test_a_condition_and_a_balance_hold_together() -> None:
    condition = parse_condition("Age > 2 and Ill != 'flu'", SCHEMA)
    balance = balance_of("Ill", SCHEMA, condition=condition)
    assert balance.categories == ("no", "cold")
    search = Search(2, condition=condition, balance=balance)
    taken = search.take(_frame([1, 2, 3, 4, 5], ["no", "cold", "flu", "cold", "no"]), drawn=5)
    assert taken["Age"].tolist() == [4, 5]


@pytest.mark.parametrize(
    ("name", "reason"), [("Age", "a column of numbers"), ("ill", "did you mean 'Ill'"), ("Weight", "no such column")]
)
def test_only_a_categorical_column_is_balanced(name: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        balance_of(name, SCHEMA, condition=None)
    assert reason in caught.value.message
    assert "'Ill'" in caught.value.hint


def test_a_search_is_given_up_with_the_share_and_the_hardest_part() -> None:
    condition = parse_condition("Age > 10 and Ill == 'cold'", SCHEMA)
    search = Search(3, condition=condition)
    found = search.take(_frame([20, 20, 5, 30], ["no", "cold", "cold", "flu"]), drawn=4)
    assert len(found) == 1
    search.check()
    search.take(_frame([20] * 996, ["no"] * 996), drawn=996)
    search.check()
    search.take(_frame([20], ["no"]), drawn=22 * RAREST)
    with pytest.raises(UserError) as caught:
        search.check()
    assert caught.value.code == "CONDITION_UNSATISFIABLE"
    told = caught.value.message
    assert "Only 1 of 441,000 generated rows meet the condition" in told
    assert "1 rows could be had, not 3" in told
    assert "The hardest part is \"Ill == 'cold'\"" in told.replace("Its hardest", "The hardest")


def test_a_category_that_is_never_made_is_named() -> None:
    search = Search(9, balance=balance_of("Ill", SCHEMA, condition=None))
    search.take(_frame([1] * 6, ["no", "flu"] * 3), drawn=6)
    search.take(_frame([1] * 5, ["no"] * 5), drawn=15 * RAREST)
    with pytest.raises(UserError) as caught:
        search.check()
    assert "None of 300,006 generated rows have Ill = 'cold'" in caught.value.message


def test_a_category_that_is_full_is_not_waited_for() -> None:
    search = Search(3, balance=balance_of("Ill", SCHEMA, condition=None))
    search.take(_frame([1, 2], ["cold", "flu"]), drawn=2)
    assert search.draws == 3
    search.take(_frame([1] * 7, ["flu"] * 7), drawn=7)
    assert search.draws == 10


@pytest.mark.parametrize("share", [1 / 4_000, 1 / 10_000])
def test_what_is_not_too_rare_is_not_given_up(share: float) -> None:
    """A share of twice or five times the smallest: each search is given up by chance less than once in 10^5."""
    rng = np.random.default_rng(7)
    condition = parse_condition("Age > 50", SCHEMA)
    hits, none = _frame([60] * 80, ["no"] * 80), _frame([], [])
    for _ in range(50):
        search = Search(400, condition=condition)
        while not search.is_complete:
            found = rng.poisson(share * 100_000)
            search.take(hits[:found] if found else none, drawn=100_000)
            search.check()
