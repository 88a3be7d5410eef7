"""How recipe warm-start divides its budget, and what follows for a plan's events."""

from __future__ import annotations

import math

import pytest

from aevorium.errors import ConfigError
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import DiscreteGaussian, NonPrivate, SampledGaussian, is_within
from aevorium.privacy.phases import cost_of, plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.privacy.shares import MOST_CANDIDATES, NumberOfTables, number_of_tables, shares_of, signal_of


def make_plan(**changes) -> StudyPlan:
    fields = {
        "study": "s", "schema_hash": "ab" * 32, "columns": 14, "epsilon": 3.0, "delta": 1e-5, "nodes": ("a", "b"),
        "min_nodes": 2, "rounds": 5,
    }  # fmt: skip
    return StudyPlan.model_validate({**fields, **changes})


@pytest.mark.parametrize("target", [0.1, 1.0, 10.0, math.inf])
@pytest.mark.parametrize("records", [1, 300, 30_000, 1e9])
def test_shares_are_a_whole_of_which_training_gets_some_if_there_is_any(target: float, records: float):
    signal = signal_of(records=records, epsilon=target, nodes=5)
    for selects in (True, False):
        shares = shares_of("warm-start", epsilon=target, signal=signal, selects=selects, trains=True)
        parts = (shares.histograms, shares.coarse, shares.fine, shares.losses)
        assert 0.04 < 1 - sum(parts) < 0.2
        assert min(shares.histograms, shares.fine, shares.losses) > 0
        assert (shares.coarse > 0) is selects
        tables = shares_of("warm-start", epsilon=target, signal=signal, selects=selects, trains=False)
        assert tables.histograms + tables.coarse + tables.fine == pytest.approx(1, abs=1e-12)
        assert (tables.histograms, tables.coarse, tables.losses) == (shares.histograms, shares.coarse, 0)
        plain = shares_of("dp-sgd", epsilon=target, signal=signal, selects=False, trains=True)
        assert (plain.coarse, plain.fine) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "rounds"),
    [
        ({"records": 2_000}, 0),
        ({"records": 2_000, "epochs": 1}, 5),
        ({"records": 2_000, "batch_size": 50}, 5),
        ({"records": 2_000, "noise_multiplier": 1.0}, 5),
        ({"records": 2_000, "recipe": "dp-sgd"}, 5),
        ({"records": 2_000, "epsilon": math.inf}, 5),
        ({"records": 400_000}, 0),
        ({"records": 500_000}, 5),
        ({"records": 340_000, "trust": "secure-aggregation", "nodes": ("a", "b", "c"), "min_nodes": 3}, 5),
    ],
)
def test_records_are_trained_on_where_it_pays_or_is_asked_for(changes: dict[str, object], rounds: int):
    """Where it pays: from 10^6 records times ε, over the root of the nodes whose noise piles up."""
    plan = make_plan(**changes)
    budget = plan_budget(plan)
    assert budget.rounds == rounds
    size = plan.declared_size
    assert size is not None
    purposes = {event.purpose for event in budget.events(size)}
    assert ("training" in purposes) is bool(rounds)
    assert ("training loss" in purposes) is (rounds > 0 and plan.is_private)


@pytest.mark.parametrize("trust", ["local", "secure-aggregation"])
@pytest.mark.parametrize("target", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("columns", [1, 2, 14, 60])
def test_a_run_without_training_spends_all_of_its_budget_on_tables_and_no_more(columns: int, target: float, trust: str):
    nodes = {"nodes": tuple("abcdef"), "min_nodes": 6}
    plan = make_plan(columns=columns, epsilon=target, trust=trust, records=1_200, **nodes)
    budget = plan_budget(plan)
    assert budget.rounds == 0
    spent = epsilon(budget.events(200), delta=plan.delta)
    assert 0.995 * target < spent <= target


def _tables(columns: int, signal: float, *, has_target: bool = True) -> NumberOfTables:
    return number_of_tables(columns=columns, signal=signal, has_target=has_target)


def test_tables_grow_with_the_signal_up_to_all_there_are():
    everything = [_tables(columns, 1e12) for columns in (1, 2, 14, 60)]
    assert [(tables.pairs, tables.triples) for tables in everything] == [(0, 0), (1, 0), (91, 78), (1700, 300)]
    assert [tables.candidates for tables in everything] == [0, 0, 0, 1770]
    widest = _tables(200, 1e12, has_target=False)
    assert (widest.pairs, widest.triples) == (MOST_CANDIDATES, 0)
    for has_target in (True, False):
        found = [_tables(14, 10.0**power, has_target=has_target) for power in range(9)]
        together = [tables.pairs + tables.triples for tables in found]
        assert together == sorted(together)
        assert together[0] == 14
        assert [tables.triples > 0 for tables in found] == [False] * 4 + [has_target] * 5
        # Pairs are never given up for triples alone.
        assert all(tables.triples <= 0.2 * together for tables, together in zip(found[:6], together[:6], strict=True))


def test_nothing_is_selected_where_there_is_no_triple_and_every_pair():
    assert _tables(4, 2_000) == NumberOfTables(pairs=6, triples=0, candidates=0)
    assert _tables(4, 1e6) == NumberOfTables(pairs=6, triples=3, candidates=0)
    assert _tables(7, 20_000).candidates == 21


def test_only_a_schema_s_target_makes_triples_and_none_that_is_not_measured_does():
    plan = make_plan(records=5_000)
    with_target = make_plan(records=5_000, has_target=True)
    assert plan_budget(plan).associations.triples == 0
    tables = plan_budget(with_target).associations
    assert tables.triples > 0
    assert tables.pairs + tables.triples == plan_budget(plan).associations.pairs
    # As many tables with as much noise cost as much, whatever they are of.
    assert plan_budget(with_target).events(2_500) == plan_budget(plan).events(2_500)
    assert "has_target" not in plan.canonical_json


@pytest.mark.parametrize(("columns", "candidates", "pairs"), [(1, 0, 0), (2, 0, 1), (3, 0, 3), (14, 91, 20)])
def test_there_is_no_selection_where_every_pair_gets_a_table(columns: int, candidates: int, pairs: int):
    budget = plan_budget(make_plan(columns=columns, records=800))
    assert (budget.associations.candidates, budget.associations.pairs) == (candidates, pairs)
    kinds = [type(event) for event in budget.events(400)[:4]]
    tables = bool(candidates) + bool(pairs)
    assert kinds[2 : 2 + tables] == [DiscreteGaussian] * tables


def test_node_and_server_compute_the_same_tables_from_what_is_public():
    """A node knows its own size, the server all counts; both plan the tables by the number in the request."""
    plan = make_plan()
    server, node = plan_budget(plan, records=1234.0), plan_budget(plan, records=1234.0)
    assert server.associations == node.associations
    assert server.released_before_training() == node.released_before_training()
    assert plan_budget(plan, records=90_000.0).associations != server.associations
    # What a plan declares counts, whatever a request says.
    declared = make_plan(records=500)
    assert plan_budget(declared, records=1e9) == plan_budget(declared)


def test_the_events_of_a_run_hold_every_table_once():
    budget = plan_budget(make_plan(has_target=True), records=15_000.0)
    tables, events = budget.associations, budget.events(700)
    assert [(e.sigma, e.sensitivity, e.count) for e in events[2:4] if isinstance(e, DiscreteGaussian)] == [
        (tables.coarse.sigma, 1, tables.candidates),
        (tables.fine.sigma, 1, tables.pairs + tables.triples),
    ]
    assert tables.triples > 0
    assert not is_within((*events, *tables.fine_events()), events)
    assert not is_within((*events, *tables.coarse_events()), events)


def test_without_privacy_tables_are_exact_and_said_to_be():
    budget = plan_budget(make_plan(epsilon=math.inf), records=1500.0)
    assert budget.associations.pairs > 0
    assert (budget.associations.coarse.sigma, budget.associations.fine.sigma) == (0, 0)
    assert all(isinstance(event, NonPrivate) for event in budget.events(700))


def test_private_steps_are_the_recipe_s_own_unless_the_plan_says_otherwise():
    assert make_plan().steps_of(1000) == (0.1, 40)
    assert make_plan(rounds=3).steps_of(7) == (0.1, 67)
    assert make_plan().steps_of(1_000_000) == (0.004096, 40)
    assert make_plan(batch_size=50, epochs=2).steps_of(1000) == (0.05, 40)
    assert make_plan(batch_size=5000).steps_of(1000) == (1.0, 40)
    assert make_plan(epochs=3).steps_of(1000) == (0.1, 30)
    assert make_plan(recipe="dp-sgd").steps_of(1000) == (0.032, 625)
    assert make_plan(recipe="dp-sgd", batch_size=100, epochs=4).steps_of(1000) == (0.1, 40)


def test_more_steps_than_can_be_composed_are_refused_before_they_are():
    """Composing these would take minutes in which nothing else is answered."""
    for changes in (
        {"recipe": "dp-sgd", "epochs": 10_000, "batch_size": 1, "noise_multiplier": 2.0},
        {"epochs": 10_000, "batch_size": 1},
        {"recipe": "dp-sgd", "nodes": tuple("abcdefgh"), "max_nodes_per_patient": 8, "epochs": 100},
    ):
        with pytest.raises(ConfigError, match="steps of private training are not possible") as refused:
            plan_budget(make_plan(records=100_000, **changes)).events(50_000)
        assert "--batch-size" in (refused.value.hint or "")


def test_a_fixed_noise_is_used_and_costs_what_all_phases_cost():
    plan = make_plan(records=1500, noise_multiplier=2.0)
    events = plan_budget(plan).events(750)
    assert {event.noise_multiplier for event in events if isinstance(event, SampledGaussian)} == {2.0}
    assert cost_of(plan) == epsilon(events, delta=plan.delta)
    with pytest.raises(ConfigError):
        cost_of(make_plan(noise_multiplier=2.0))
