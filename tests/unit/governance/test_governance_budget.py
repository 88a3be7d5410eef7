"""How the runs of a period add up. Each test says what could be released in all, and that it is within the limit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from aevorium.errors import BudgetExceeded
from aevorium.governance.budget import PeriodBudget, lifetime_spend
from aevorium.governance.policy import Budget
from aevorium.privacy.accountant import epsilon, spent
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, NonPrivate
from aevorium.privacy.ledger import LedgerRelease, LedgerRun
from aevorium.privacy.renyi import RenyiOdometer

DELTA = 1e-5
COUNT = DiscreteLaplace(purpose="count", epsilon=0.1)
LIMIT = Budget(max_epsilon=10.0, max_delta=DELTA, period="2026")


def tables(sigma: float) -> DiscreteGaussian:
    return DiscreteGaussian(purpose="tables", sigma=sigma, count=14)


def run(
    run_id: str,
    *,
    planned=None,
    released=(),
    closed: bool = False,
    target: float = 3.0,
    delta: float = DELTA,
    fixed=None,
) -> LedgerRun:
    release = LedgerRelease(
        id=1,
        run_id=run_id,
        phase="x",
        round=0,
        events=tuple(released),
        state="committed",
        reserved_at="",
        committed_at="",
        fingerprint=None,
    )
    return LedgerRun(
        run_id=run_id,
        plan_json="{}",
        plan_hash="",
        epsilon=target,
        delta=delta,
        period="2026",
        agreed_events=planned,
        fixed_events=fixed,
        agreed_at="",
        closed_at="later" if closed else None,
        facts={},
        releases=(release,) if released else (),
    )


def period(*runs: LedgerRun, limit: Budget = LIMIT) -> PeriodBudget:
    return PeriodBudget(limit, {run.run_id: run for run in runs})


def admits(budget: PeriodBudget, *, planned, target: float = 3.0, delta: float = DELTA) -> bool:
    try:
        budget.admit_plan("new", epsilon=target, delta=delta, planned=planned)
    except BudgetExceeded:
        return False
    return True


# tables(5.0) costs ε = 3.14 at δ = 10⁻⁵; the odometer of the limit 10 reads 4.0 for one and just below 10 for six.
PLAN = (tables(5.0),)


def test_the_first_plan_settles_how_costs_add_up():
    assert period().composition is None
    assert period(run("a", planned=PLAN)).composition == "renyi"
    assert period(run("a", planned=None)).composition == "basic"
    assert period(run("a", planned=(tables(1.8),))).composition == "basic"
    assert period(run("a", planned=None), run("b", planned=PLAN)).composition == "basic"


def test_fixing_events_after_the_count_does_not_change_it():
    """The choice must not depend on output, so it may not depend on events that were fixed by a noisy count."""
    assert period(run("a", planned=PLAN, fixed=(tables(1.8),))).composition == "renyi"
    assert period(run("a", planned=(tables(1.8),), fixed=PLAN)).composition == "basic"


def test_plans_are_taken_until_the_filter_is_full_and_the_whole_period_is_then_within_the_limit():
    runs: list[LedgerRun] = []
    while admits(period(*runs), planned=PLAN):
        runs.append(run(f"r{len(runs)}", planned=PLAN, released=PLAN, closed=True))
    assert len(runs) == 6
    events = [event for each in runs for event in each.events]
    assert period(*runs).spent == spent(events, odometer=RenyiOdometer.for_limit(10.0, delta=DELTA)) <= 10.0
    assert epsilon(events, DELTA) <= 10.0
    assert sum(each.epsilon for each in runs) > 10.0, "adding up the targets would have stopped earlier"


def test_an_open_run_counts_with_all_it_plans_and_a_closed_one_with_what_it_released():
    open_runs = [run(f"r{number}", planned=PLAN) for number in range(6)]
    assert not admits(period(*open_runs), planned=PLAN)
    closed = [run("r0", planned=PLAN, released=(tables(50.0),), closed=True), *open_runs[1:]]
    assert admits(period(*closed), planned=PLAN)
    unclosed = [run("r0", planned=PLAN, released=(tables(50.0),)), *open_runs[1:]]
    assert not admits(period(*unclosed), planned=PLAN)


def test_fixed_events_replace_the_estimate_in_the_sum():
    others = [run(f"r{number}", planned=PLAN) for number in range(5)]
    assert admits(period(*others, run("x", planned=PLAN, fixed=(tables(50.0),))), planned=PLAN)
    assert not admits(period(*others, run("x", planned=(tables(50.0),), fixed=PLAN)), planned=PLAN)


def test_a_plan_that_does_not_say_what_it_needs_can_only_be_the_first():
    assert admits(period(), planned=None)
    assert not admits(period(run("a", planned=PLAN)), planned=None)


def test_basic_composition_adds_targets_used_up_or_not():
    first = run("a", planned=None, released=(COUNT,), target=4.0, delta=4e-6, closed=True)
    assert admits(period(first), planned=PLAN, target=6.0, delta=6e-6)
    assert not admits(period(first), planned=PLAN, target=6.001, delta=6e-6)
    assert not admits(period(first), planned=PLAN, target=6.0, delta=6.001e-6)
    assert not admits(period(first), planned=PLAN, target=3.0, delta=DELTA)


def test_a_run_that_ended_before_it_released_anything_gives_its_budget_back():
    """When one node of a federation refuses, the others' runs are closed unused: they may be repeated."""
    limit = Budget(max_epsilon=3.0, max_delta=DELTA, period="2026")
    unused = run("a", planned=None, closed=True)
    assert admits(period(unused, limit=limit), planned=None)
    assert period(unused, limit=limit).composition == "basic"
    assert period(unused, limit=limit).view(node="n").committed == 0
    assert period(unused, limit=limit).view(node="n").left == 3.0
    assert not admits(period(run("a", planned=None), limit=limit), planned=None), "an open one may still release"
    assert not admits(period(run("a", released=(COUNT,), closed=True), limit=limit), planned=None)
    reserved = replace(unused, releases=(replace(run("a", released=(COUNT,)).releases[0], state="reserved"),))
    assert not admits(period(reserved, limit=limit), planned=None), "what was reserved was perhaps released"


def test_sums_of_targets_are_those_of_the_decimals():
    """As floating-point numbers 0.1 + 0.2 is above 0.3, which would refuse what fits."""
    limit = Budget(max_epsilon=0.3, max_delta=3e-6, period="2026")
    assert admits(period(run("a", target=0.1, delta=1e-6), limit=limit), planned=None, target=0.2, delta=2e-6)


def test_a_plan_equal_to_the_limit_fits_once():
    limit = Budget(max_epsilon=3.0, max_delta=DELTA, period="2026")
    exact = (tables(5.3),)
    assert 2.9 < epsilon(exact, DELTA) <= 3.0
    assert RenyiOdometer.for_limit(3.0, delta=DELTA).read(exact) > 3.0
    assert admits(period(limit=limit), planned=exact, target=3.0)
    assert not admits(period(run("a", planned=exact), limit=limit), planned=(tables(500.0),), target=0.1)
    used = run("a", planned=exact, released=exact, closed=True)
    assert not admits(period(used, limit=limit), planned=(tables(500.0),), target=0.1)


def test_a_target_above_the_limit_is_refused_even_if_the_events_would_fit():
    assert not admits(period(), planned=PLAN, target=10.01)
    assert admits(period(), planned=PLAN, target=10.0)


def test_releases_are_checked_against_the_limit_of_the_day():
    agreed = run("a", planned=PLAN, target=3.2)
    period(agreed).admit_events("a", planned=PLAN)
    lowered = Budget(max_epsilon=2.0, max_delta=DELTA, period="2026")
    with pytest.raises(BudgetExceeded):
        period(agreed, limit=lowered).admit_events("a", planned=PLAN)
    basic = run("a", planned=None, target=3.2)
    period(basic).admit_events("a", planned=PLAN)
    with pytest.raises(BudgetExceeded):
        period(basic, limit=lowered).admit_events("a", planned=PLAN)


def test_a_run_is_not_counted_against_itself():
    full = [run(f"r{number}", planned=PLAN) for number in range(6)]
    period(*full).admit_events("r0", planned=PLAN)
    with pytest.raises(BudgetExceeded):
        period(*full).admit_events("r0", planned=PLAN * 2)


def test_without_a_limit_everything_passes():
    limit = Budget(max_epsilon=math.inf, max_delta=DELTA, period="2026")
    unprotected = (NonPrivate(purpose="x"),)
    assert admits(period(limit=limit), planned=unprotected, target=math.inf)
    assert admits(period(run("a", planned=PLAN), limit=limit), planned=None, target=math.inf)
    period(run("a", planned=PLAN), limit=limit).admit_events("a", planned=unprotected)


def test_a_run_without_privacy_fills_a_period_whose_limit_is_set_later():
    assert not admits(period(run("a", planned=None, target=math.inf)), planned=PLAN, target=0.1, delta=1e-9)


def test_the_view_of_a_period_before_its_first_run():
    view = period().view(node="n")
    assert (view.spent, view.committed, view.left, view.composition) == (0, 0, 10.0, None)
    assert view.runs == ()


def test_the_view_shows_what_is_released_and_what_is_promised():
    view = period(run("a", planned=(DiscreteLaplace(purpose="count", epsilon=0.1), tables(5.3)), released=())).view(
        node="n"
    )
    odometer = RenyiOdometer.for_limit(10.0, delta=DELTA)
    assert view.spent == view.lifetime == 0
    assert view.committed == spent([COUNT, tables(5.3)], odometer=odometer)
    assert view.left == pytest.approx(10 - view.committed, abs=1e-4)
    half = run("a", planned=(tables(5.3), tables(9.0)), released=(tables(9.0),))
    view = period(half, run("b", planned=(tables(9.0),), released=(tables(9.0),), closed=True)).view(node="n")
    assert view.spent == spent([tables(9.0)] * 2, odometer=odometer)
    assert view.committed > view.spent
    assert [each.run_id for each in view.runs] == ["a", "b"]
    assert [each.spent for each in view.runs] == [epsilon([tables(9.0)], DELTA)] * 2
    assert view.runs[0].releases[0].events == (tables(9.0),)


def test_the_view_of_a_basic_period_adds_targets():
    view = period(run("a", target=3.0, delta=5e-6, released=(tables(9.0),)), run("b", target=2.0, delta=5e-6)).view(
        node="n"
    )
    assert view.composition == "basic"
    assert view.committed == 5.0
    assert view.left == 5.0
    assert view.spent == epsilon([tables(9.0)], 5e-6)


def test_a_short_second_run_does_not_make_the_period_jump():
    """A run's own figure is exact; the period's is higher from the first release on, and then rises by little."""
    first = run("a", planned=PLAN, released=PLAN, closed=True)
    second = run("b", planned=(COUNT,), released=(COUNT,), target=0.15, closed=True)
    alone, both = period(first).spent, period(first, second).spent
    assert epsilon(PLAN, DELTA) < alone < 1.3 * epsilon(PLAN, DELTA)
    assert alone < both <= alone + 0.15


def test_another_limit_does_not_change_how_the_runs_of_a_period_add_up():
    """Else a steward could choose the proof after looking at what was released."""
    settled = Budget(max_epsilon=3.0, max_delta=DELTA, period="2026")
    exact = run("a", planned=(tables(5.3),), released=(tables(5.3),), closed=True)
    raised = PeriodBudget(LIMIT, {"a": exact}, settling=settled)
    assert raised.composition == "basic"
    assert period(exact).composition == "renyi"
    cheap = run("a", planned=(tables(9.0),), released=(tables(9.0),))
    lowered = PeriodBudget(Budget(max_epsilon=0.5, max_delta=DELTA, period="2026"), {"a": cheap}, settling=LIMIT)
    assert lowered.composition == "renyi"
    assert lowered.odometer == RenyiOdometer.for_limit(10.0, delta=DELTA)
    assert lowered.spent == period(cheap).spent > 0.5
    assert lowered.view(node="n").left == 0
    assert not admits(lowered, planned=(tables(900.0),), target=0.01)


def test_the_lifetime_total_covers_everything_and_is_never_below_a_period():
    old = run("a", planned=PLAN, released=PLAN, closed=True)
    new = run("b", planned=(tables(9.0),), released=(tables(9.0),))
    total = lifetime_spend([old, new], delta=DELTA, periods=[period(old).spent, period(new).spent])
    assert total >= epsilon([*old.events, *new.events], DELTA)
    assert total > max(period(old).spent, period(new).spent)
    assert lifetime_spend([old], delta=DELTA, periods=[9.9]) == 9.9
    assert lifetime_spend([], delta=DELTA, periods=[0.0]) == 0


def test_a_smaller_delta_set_later_raises_what_a_basic_period_shows_to_what_holds_there():
    alone = epsilon((tables(1.9),), delta=DELTA)
    settled = Budget(max_epsilon=alone, max_delta=DELTA, period="2026")
    lowered = settled.model_copy(update={"max_delta": 1e-8})
    runs = {"a": run("a", planned=(tables(1.9),), released=(tables(1.9),), closed=True, target=alone)}
    before, after = (PeriodBudget(limit, runs, settling=settled) for limit in (settled, lowered))
    assert before.composition == after.composition == "basic"
    assert before.spent == pytest.approx(alone, abs=1e-3)
    # No less than the exact ε at the δ that is shown beside it, and within what the odometer gives away.
    exact = epsilon((tables(1.9),), delta=1e-8)
    assert exact > 1.2 * alone
    assert exact <= after.spent < 1.3 * exact
    assert after.view(node="n").spent == after.as_earlier().spent == after.spent
    assert after.committed >= after.spent
    with pytest.raises(BudgetExceeded):
        after.admit_plan("b", epsilon=0.01, delta=1e-9, planned=PLAN)
