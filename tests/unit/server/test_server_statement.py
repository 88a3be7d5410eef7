"""What a reader of a run's results should know first."""

import math

import pytest

from aevorium.privacy.plan import StudyPlan
from aevorium.server.record import NodeRecord, StudyRecord
from aevorium.server.statement import cautions, node_size


def record_of(*, total=1000.0, simulated=False, records=None, **plan):
    entries = {"study": "s", "schema_hash": "0" * 64, "columns": 3, "epsilon": 3.0, "delta": 1e-5}
    study = StudyPlan(**(entries | plan), nodes=("a",), min_nodes=1, rounds=1, epochs=1, batch_size=8, records=records)
    return StudyRecord(
        run_id="r",
        server="s",
        plan=study,
        seed=0,
        is_simulated_federation=simulated,
        started_at="2026-11-24T09:12:00+00:00",
        total=total,
    )


@pytest.mark.parametrize(("delta", "is_told"), [(1e-5, False), (0.99e-4, False), (1.01e-4, True), (1e-3, True)])
def test_a_delta_is_large_from_one_in_ten_times_the_patients(delta, is_told):
    told = cautions(record_of(total=1000.0, delta=delta))
    assert [line.startswith(f"δ = {delta:g} is above 1/(10·n̂) = 0.0001") for line in told] == [True] * is_told


def test_a_large_delta_says_nothing_where_no_claim_is_made_or_no_count_is_known():
    assert cautions(record_of(delta=0.1, epsilon=math.inf)) == ()
    assert cautions(record_of(delta=0.1, total=None)) == ()


def test_a_simulated_federation_says_that_other_workspaces_add_up():
    (line,) = cautions(record_of(simulated=True))
    assert "add up" in line


def test_a_node_is_as_large_as_declared_or_else_as_counted():
    counted, silent = NodeRecord(name="a", count=-4), NodeRecord(name="a")
    assert node_size(record_of(records=50), counted) == node_size(record_of(records=50), silent) == 50
    assert node_size(record_of(), counted) == 1
    assert node_size(record_of(), silent) is None
