"""What a reader of a run's results should know first."""

import math

import pytest

from aevorium.privacy.events import SampledGaussian
from aevorium.privacy.plan import StudyPlan
from aevorium.schema.table import TableSchema
from aevorium.server.record import NodeRecord, StudyRecord
from aevorium.server.statement import cautions, node_size, privacy_statement
from aevorium.server.statement_form import PrivacyStatement
from aevorium.server.statement_page import statement_page


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


SCHEMA = TableSchema.from_toml('name = "s"\n[columns.a]\nkind = "categorical"\ncategories = ["x", "y"]', source="test")


def node(name, *, spent=2.9, count=100):
    return NodeRecord(name=name, count=count, spent=spent, limit=3.0, left=0.1)


def test_nodes_with_equal_mechanisms_share_a_row_and_others_have_their_own():
    alike = record_of().model_copy(update={"nodes": (node("a"), node("b"), node("c", count=200))})
    rows = privacy_statement(alike, SCHEMA).mechanisms
    assert {row.nodes for row in rows if not row.phase.startswith("training")} == {("a", "b", "c")}
    assert [row.nodes for row in rows if isinstance(row.event, SampledGaussian)] == [("a", "b"), ("c",)]
    assert statement_page(privacy_statement(alike, SCHEMA)).count("| a, b, c | 2.9 | 3 | 0.1 |") == 1


def test_the_federation_s_figure_is_the_largest_whatever_the_order():
    for nodes in ((node("a", spent=0.2), node("b", spent=2.9)), (node("b", spent=2.9), node("a", spent=0.2))):
        stated = privacy_statement(record_of().model_copy(update={"nodes": nodes}), SCHEMA).federation
        assert (stated.epsilon, stated.released) == (3.0, 2.9)


def test_a_figure_on_the_page_is_never_rounded_down():
    record = record_of(epsilon=12.34449).model_copy(update={"nodes": (node("a", spent=12.3443),)})
    page = statement_page(privacy_statement(record, SCHEMA))
    assert "ε = 12.34449, δ" in page
    assert "| a | 12.3443 |" in page


def test_the_json_form_survives_reading_even_without_privacy():
    for record in (record_of(), record_of(epsilon=math.inf)):
        stated = privacy_statement(record.model_copy(update={"nodes": (node("a"),)}), SCHEMA)
        assert PrivacyStatement.model_validate_json(stated.to_json()) == stated
        assert (stated.attack is None) == (not stated.is_private)


def test_the_claim_is_a_guarantee_of_its_own_beside_the_events():
    """Where events are known beforehand, bounds are at most those of the claim."""
    by_claim = privacy_statement(record_of(), SCHEMA).attack
    by_events = privacy_statement(record_of(records=500), SCHEMA).attack
    assert by_events.tests[0].true_positive_rate < by_claim.tests[0].true_positive_rate
