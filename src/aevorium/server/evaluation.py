"""Which evaluation tables the server asks for: a public rule of released numbers."""

from __future__ import annotations

from aevorium.encoding.associations import TableDesign
from aevorium.encoding.encoder import TableEncoder
from aevorium.privacy.evaluation import EvaluationSchedule
from aevorium.privacy.plan import StudyPlan
from aevorium.schema.table import TableSchema
from aevorium.surrogate.cells import cut_columns, number_of_cells
from aevorium.surrogate.pairs import candidate_pairs

__all__ = ["evaluated_records", "evaluation_design"]


def evaluated_records(plan: StudyPlan, *, total: float) -> float:
    """About how many patients the evaluation tables are of.

    Args:
        plan: The plan.
        total: The estimated number of records that were trained on.
    """
    if not plan.has_holdout:
        return total
    return total * plan.evaluation_share / (1 - plan.evaluation_share)


def evaluation_design(
    encoder: TableEncoder, schema: TableSchema, *, schedule: EvaluationSchedule, records: float, nodes: int
) -> TableDesign:
    """The tables of an evaluation.

    Cells are cut as for two-way tables: so coarse that in a table of a pair a cell holds about as many records as its
    noise is large. Of a category the rarest share a cell, twice as many cells as a continuous column has at the most.

    Pairs follow from the schema: those with the target first, then columns that stand near each other. They do not
    depend on the tables that the model was fitted to, which it would match best.

    Args:
        encoder: What is known of single columns.
        schema: The study's schema.
        schedule: How many tables, with how much noise.
        records: About how many patients they are of.
        nodes: Nodes that add noise.
    """
    cells = number_of_cells(records=records, noise=schedule.cells.noise_of(nodes=nodes))
    return TableDesign(
        cells=cut_columns(encoder, schema, cells=cells, most=2 * cells),
        pairs=candidate_pairs(list(schema.measured), target=schema.target, most=schedule.pairs),
    )
