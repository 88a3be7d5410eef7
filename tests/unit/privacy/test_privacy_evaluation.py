"""How a plan pays for its evaluation: by a holdout of its own, or with a share of everybody's budget."""

from __future__ import annotations

import math

import pytest

from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.evaluation import number_of_evaluation_pairs
from aevorium.privacy.events import NonPrivate, is_within
from aevorium.privacy.phases import plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.schema.table import TableSchema

COLUMNS = "".join(f'[columns.c{place}]\nkind = "categorical"\ncategories = ["a", "b"]\n' for place in range(8))
WITH_IDS = TableSchema.from_toml('name = "clinic"\nunit_id = "patient"\n' + COLUMNS, source="test")
WITHOUT = TableSchema.from_toml('name = "clinic"\n' + COLUMNS, source="test")
NODES = ["a", "b", "c"]
SHARE = 0.2


def plan_of(schema: TableSchema = WITH_IDS, **options: object) -> StudyPlan:
    given = {"epsilon": 2.0, "rounds": 2, "evaluation_share": SHARE, **options}
    return plan_study(schema, NODES, RunOptions(**given))  # type: ignore[arg-type]


def rho_of_tables(plan: StudyPlan) -> dict[str, float]:
    budget = plan_budget(plan, records=1500.0)
    events = [*budget.statistics, *budget.associations.coarse_events(), *budget.associations.fine_events()]
    return {event.purpose: event.count / (2 * event.sigma**2) for event in (*events, *budget.evaluation.events())}


def test_patients_are_held_out_where_they_are_told_apart_and_at_one_node_each() -> None:
    assert plan_of().has_holdout
    assert not plan_of(evaluation_share=0.0).has_holdout
    assert not plan_of(WITHOUT).has_holdout
    assert not plan_of(max_nodes_per_patient=2).has_holdout


@pytest.mark.parametrize("options", [{}, {"recipe": "dp-sgd"}, {"trust": "secure-aggregation"}, {"epsilon": 0.2}])
def test_a_holdout_leaves_the_others_everything_and_has_everything_itself(options: dict[str, object]) -> None:
    plan, without = plan_of(**options), plan_of(evaluation_share=0.0, **options)
    budget, reference = plan_budget(plan, records=1500.0), plan_budget(without, records=1500.0)
    for_training = [event for event in budget.events(500.0) if event.units == "training"]
    (evaluation,) = budget.evaluation.events()
    assert evaluation.units == "holdout"
    assert len(for_training) + 1 == len(budget.events(500.0))
    assert [event.model_copy(update={"units": "all"}) for event in for_training] == list(reference.events(500.0))
    # Each group meets the target by itself, and hardly anything of it is left over.
    for group in (for_training, [evaluation]):
        assert 0.99 * plan.epsilon <= epsilon(group, plan.delta) <= plan.epsilon
    assert epsilon(budget.events(500.0), plan.delta) <= plan.epsilon


@pytest.mark.parametrize("options", [{}, {"recipe": "dp-sgd"}, {"trust": "secure-aggregation"}])
def test_without_a_holdout_the_evaluation_takes_its_share_and_the_sum_meets_the_target(
    options: dict[str, object],
) -> None:
    plan, without = plan_of(WITHOUT, **options), plan_of(WITHOUT, evaluation_share=0.0, **options)
    events = plan_budget(plan, records=1500.0).events(500.0)
    assert {event.units for event in events} == {"all"}
    assert 0.99 * plan.epsilon <= epsilon(events, plan.delta) <= plan.epsilon
    before = [event for event in events if event.purpose != "evaluation tables"]
    assert len(before) + 1 == len(events)
    assert epsilon(before, plan.delta) < 0.97 * plan.epsilon
    if "trust" not in options:
        tables, reference = rho_of_tables(plan), rho_of_tables(without)
        paid = tables.pop("evaluation tables")
        assert {name: rho / reference[name] for name, rho in tables.items()} == pytest.approx(
            dict.fromkeys(reference, 1 - SHARE), rel=1e-3
        )
        assert paid / tables["one-way histograms"] > 0


def test_patients_at_several_nodes_pay_for_all_copies_of_everything() -> None:
    plan = plan_of(max_nodes_per_patient=2)
    events = plan_budget(plan, records=1500.0).events(500.0)
    assert {event.units for event in events} == {"all"}
    assert 0.98 * plan.epsilon <= epsilon(events * 2, plan.delta) <= plan.epsilon


def test_a_fixed_noise_costs_what_training_does_and_a_holdout_gets_as_much() -> None:
    plan, without = (
        plan_of(noise_multiplier=2.0, records=1500, batch_size=50, epochs=2, evaluation_share=share)
        for share in (SHARE, 0.0)
    )
    events = plan_budget(plan).events(plan.declared_size or 0.0)
    assert epsilon(events, plan.delta) <= plan.epsilon
    assert epsilon([event for event in events if event.units == "training"], plan.delta) == plan.epsilon
    # Fewer records are trained on, so each enters a step more often.
    assert plan.epsilon > without.epsilon


def test_declared_records_are_those_that_are_trained_on() -> None:
    assert plan_of(records=1500).declared_records == pytest.approx(1200.0)
    assert plan_of(records=1500).declared_size == pytest.approx(400.0)
    assert plan_of(WITHOUT, records=1500).declared_records == 1500.0
    assert plan_of().declared_records is None


def test_without_privacy_both_groups_say_so() -> None:
    events = plan_budget(plan_of(epsilon=math.inf)).events(500.0)
    assert all(isinstance(event, NonPrivate) for event in events)
    assert [event.units for event in events if event.purpose == "evaluation tables"] == ["holdout"]
    assert {event.units for event in events if event.purpose != "evaluation tables"} == {"training"}


def test_no_share_leaves_every_event_as_it_was() -> None:
    events = plan_budget(plan_of(evaluation_share=0.0), records=1500.0).events(500.0)
    assert "units" not in "".join(event.model_dump_json() for event in events)
    assert not is_within(plan_budget(plan_of(), records=1500.0).evaluation.events(), events)


def test_a_table_for_each_column_and_as_many_pairs() -> None:
    assert [number_of_evaluation_pairs(columns) for columns in (1, 2, 3, 4, 30)] == [0, 1, 3, 4, 30]
    schedule = plan_budget(plan_of()).evaluation
    (event,) = schedule.events()
    assert (schedule.columns, schedule.pairs, event.count) == (8, 8, 16)
