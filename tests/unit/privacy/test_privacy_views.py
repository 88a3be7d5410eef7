"""Who sees what: the first view is the claim, and whoever knows more shares is protected from less."""

from __future__ import annotations

import math

import pytest

from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import with_shares
from aevorium.privacy.phases import plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.privacy.views import views_of


def make_plan(**changes) -> StudyPlan:
    facts = {
        "study": "s",
        "schema_hash": "ab" * 32,
        "columns": 6,
        "recipe": "dp-sgd",
        "epsilon": 2.0,
        "delta": 1e-5,
        "nodes": ("a", "b", "c", "d", "e", "f"),
        "min_nodes": 5,
        "rounds": 2,
        "records": 1200,
        "trust": "secure-aggregation",
        "dropouts": 1,
    }
    return StudyPlan(**{**facts, **changes})


@pytest.mark.parametrize(("colluding", "unknown"), [(0, [5, 4, 1]), (2, [5, 3, 4, 1])])
def test_each_viewer_is_protected_from_by_the_shares_it_does_not_know(colluding, unknown):
    plan = make_plan(colluding=colluding)
    events = plan_budget(plan).events(200.0)
    views = views_of(plan, events)
    assert [view.shares for view in views] == unknown
    assert views[0].epsilon == plan.epsilon
    assert epsilon(events, plan.delta) <= plan.epsilon
    for view in views[1:]:
        assert view.epsilon == epsilon(with_shares(events, unknown=view.shares), plan.delta) > plan.epsilon
    assert views[-1].epsilon == max(view.epsilon for view in views)


def test_a_share_known_to_all_but_one_protects_about_as_much_as_noise_of_that_share():
    """Twice the shares unknown is a standard deviation larger by the root of two."""
    plan = make_plan(nodes=("a", "b", "c", "d"), min_nodes=4, dropouts=0)
    world, other, alone = views_of(plan, plan_budget(plan).events(300.0))
    assert 1 < other.epsilon / world.epsilon < 4 / 3
    assert 1.7 < alone.epsilon / world.epsilon < 3


def test_under_trust_local_everybody_sees_the_same():
    plan = make_plan(trust="local", dropouts=0)
    (view,) = views_of(plan, ())
    assert (view.epsilon, view.shares) == (plan.epsilon, None)


def test_without_privacy_nobody_is_protected_from():
    plan = make_plan(epsilon=math.inf)
    assert {view.epsilon for view in views_of(plan, plan_budget(plan).events(200.0))} == {math.inf}
