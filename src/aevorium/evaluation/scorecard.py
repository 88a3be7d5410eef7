"""Scores a synthetic table: against real rows (exact, not for release), or against released noisy tables (for release).

The parts of a card are measured by `fidelity`, `utility`, `risk` and `released`; here is what is compared with what,
with which reference, and what it means in a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aevorium.evaluation import fidelity, risk, utility
from aevorium.evaluation.closeness import closeness_scores
from aevorium.evaluation.completion import complete
from aevorium.evaluation.overlays import MarginalOverlay, overlay_frames
from aevorium.evaluation.released import ReleasedTable, score_released
from aevorium.evaluation.score import CARD_COLUMNS, EXACT_MARKING, Score, Scorecard, percent
from aevorium.evaluation.selection import seeded, select_columns
from aevorium.schema.table import TableSchema

__all__ = [
    "CARD_COLUMNS",
    "EXACT_MARKING",
    "Evaluation",
    "ReleasedTable",
    "Score",
    "Scorecard",
    "evaluate_tables",
    "score_released",
    "score_tables",
]

Progress = Callable[[str], None]

_TEST_SHARE = 0.3
_NO_HOLDOUT = (
    "There is no holdout: the real rows may be the ones that the run trained on. A model that copied them would score"
    " well here, so nothing on this card speaks for privacy, and fidelity and utility may be flattered."
)


@dataclass(frozen=True)
class Evaluation:
    """A card and what its charts are drawn from. Exact statistics of real records: not for release.

    Attributes:
        card: The scores.
        overlays: One a column.
        pairs: One a pair of columns of the completed tables.
        tstr: Trained on synthetic, tested on real; None if there is no target.
        trtr: Trained on real, tested on real; None if there is no target.
        closest: Distances to closest records; None without a holdout or with too few rows.
    """

    card: Scorecard
    overlays: tuple[MarginalOverlay, ...]
    pairs: tuple[fidelity.PairTrend, ...]
    tstr: utility.ModelScore | None = None
    trtr: utility.ModelScore | None = None
    closest: risk.ClosestRecords | None = None


@dataclass(frozen=True, eq=False)
class _Tables:
    """What is compared: `judged` against `reference`, and, for the floor, `floor` against `floor_reference`."""

    synthetic: pd.DataFrame
    reference: pd.DataFrame
    train: pd.DataFrame
    holdout: pd.DataFrame | None
    floor: pd.DataFrame
    floor_reference: pd.DataFrame
    floor_name: str


def score_tables(
    *,
    synthetic: pd.DataFrame,
    real: pd.DataFrame,
    holdout: pd.DataFrame | None = None,
    schema: TableSchema,
    seed: int = 0,
    simulated: bool = False,
    progress: Progress = lambda step: None,
) -> Scorecard:
    """Scores a synthetic table against real rows. Reads patient records; the card is not for release.

    Args:
        synthetic: Typed frame of generated rows.
        real: Typed frame of the rows that the run trained on (or may have).
        holdout: Typed frame of rows that it did not train on; everything is then measured against these.
        schema: The schema of all three; its `target` is what models predict.
        seed: Fixes every draw.
        simulated: Whether the "real" rows are simulated patients.
        progress: Takes the name of each step as it begins.

    Raises:
        DataError: DATA_COLUMN_MISSING or DATA_EMPTY, naming the table.
    """
    return evaluate_tables(
        synthetic=synthetic,
        real=real,
        holdout=holdout,
        schema=schema,
        seed=seed,
        simulated=simulated,
        progress=progress,
    ).card


def evaluate_tables(
    *,
    synthetic: pd.DataFrame,
    real: pd.DataFrame,
    holdout: pd.DataFrame | None = None,
    schema: TableSchema,
    seed: int = 0,
    simulated: bool = False,
    progress: Progress = lambda step: None,
) -> Evaluation:
    """As `score_tables`, together with what the report draws. Reads patient records; nothing of it is for release."""
    tables = _prepare(synthetic, real, holdout, schema=schema, rng=seeded(seed, 0))
    progress("columns and pairs")
    completed = complete(tables.reference, tables.synthetic)
    pairs = fidelity.pair_trends(*completed)
    scores = _fidelity_scores(tables, completed, pairs)
    progress("missing cells")
    scores += _missing_scores(tables, target=schema.target)
    progress("models of the target")
    tstr, trtr = _train_models(tables, schema=schema, seed=seed)
    scores += _utility_scores(tstr, trtr, target=schema.target)
    progress("telling synthetic from real")
    scores.append(_detection_score(tables, seed=seed))
    progress("closeness to training rows")
    closest, closeness = closeness_scores(
        synthetic=tables.synthetic, train=tables.train, holdout=tables.holdout, rng=seeded(seed, 3)
    )
    scores += closeness
    progress("charts")
    rows = f"{len(tables.reference):,}"
    card = Scorecard(
        scores=tuple(scores),
        compared_with=f"{rows} real rows held out" if holdout is not None else f"{rows} real rows (no holdout)",
        marking=EXACT_MARKING,
        simulated=simulated,
        notes=() if holdout is not None else (_NO_HOLDOUT,),
    )
    return Evaluation(card, overlay_frames(tables.reference, tables.synthetic), pairs, tstr, trtr, closest)


def _prepare(
    synthetic: pd.DataFrame,
    real: pd.DataFrame,
    holdout: pd.DataFrame | None,
    *,
    schema: TableSchema,
    rng: np.random.Generator,
) -> _Tables:
    columns = list(schema.columns)
    generated = select_columns(synthetic, columns, name="synthetic")
    known = select_columns(real, columns, name="real")
    if holdout is not None:
        unseen = select_columns(holdout, columns, name="holdout")
        return _Tables(generated, unseen, known, unseen, known, unseen, "training rows")
    order = rng.permutation(len(known))
    half = max(len(known) // 2, 1)
    first, second = known.iloc[order[:half]], known.iloc[order[-half:]]
    return _Tables(generated, known, known, None, first, second, "halves of the real rows")


def _fidelity_scores(
    tables: _Tables, completed: Sequence[pd.DataFrame], pairs: Sequence[fidelity.PairTrend]
) -> list[Score]:
    """Scores of completed tables: where cells are missing is part of what is compared."""
    reference, synthetic = completed
    floor_reference, floor = complete(tables.floor_reference, tables.floor)
    shapes = fidelity.column_shapes(reference, synthetic)
    floor_shapes = fidelity.column_shapes(floor_reference, floor)
    floor_pairs = fidelity.pair_trends(floor_reference, floor)
    known = [shape for shape in shapes if not math.isnan(shape.score)]
    worst = min(known, key=lambda shape: shape.score, default=None)
    scores = [
        _measured(
            tables,
            "shapes",
            fidelity.mean_score(shape.score for shape in shapes),
            fidelity.mean_score(shape.score for shape in floor_shapes),
            reading="" if worst is None else f"The column least alike is {worst.column!r} ({worst.score:.3f}).",
        ),
        _measured(
            tables,
            "trends",
            fidelity.trends(pairs),
            fidelity.trends(floor_pairs),
            reading=f"Over the {sum(pair.is_associated for pair in pairs)} pairs that are associated in the real rows.",
        ),
        _measured(
            tables,
            "trends_all",
            fidelity.trends_all(pairs),
            fidelity.trends_all(floor_pairs),
            reading=f"Over all {len(pairs)} pairs, most of them with little to find.",
        ),
    ]
    for ways, noun in ((1, "a column's"), (2, "a pair's"), (3, "a triple's")):
        value = fidelity.distance(reference, synthetic, ways=ways)
        scores.append(
            _measured(
                tables,
                f"{ways}way",
                value,
                fidelity.distance(floor_reference, floor, ways=ways),
                reading=f"On average {percent(value)} of {noun} rows would have to move to match.",
            )
        )
    return scores


def _measured(tables: _Tables, name: str, value: float, floor: float, *, reading: str) -> Score:
    if math.isnan(value):
        return Score.skipped(name, "It is not defined for these tables: too few columns, values or associations.")
    return Score.judged(name, value, reading=reading, reference=floor, reference_name=tables.floor_name)


def _missing_scores(tables: _Tables, *, target: str | None) -> list[Score]:
    rates = fidelity.missing_rates(tables.reference, tables.synthetic)
    if not rates:
        reason = "No table has a missing cell."
        return [Score.skipped("missing_rate_error", reason), Score.skipped("missing_by_target", reason)]
    worst = max(rates, key=lambda rate: rate.error)
    floor = fidelity.missing_rates(tables.floor_reference, tables.floor)
    found = [
        Score.judged(
            "missing_rate_error",
            worst.error,
            reading=f"Column {worst.column!r} is missing in {percent(worst.synthetic)} of synthetic and"
            f" {percent(worst.real)} of real rows.",
            reference=max((rate.error for rate in floor), default=0.0),
            reference_name=tables.floor_name,
        )
    ]
    if target is None:
        return [*found, Score.skipped("missing_by_target", "The schema names no target.")]
    value = fidelity.missing_by_target(tables.reference, tables.synthetic, target=target)
    base = fidelity.missing_by_target(tables.floor_reference, tables.floor, target=target)
    reading = f"Within the classes of {target!r}, missing rates differ by {percent(value)} on average."
    return [*found, _measured(tables, "missing_by_target", value, base, reading=reading)]


def _train_models(
    tables: _Tables, *, schema: TableSchema, seed: int
) -> tuple[utility.ModelScore | None, utility.ModelScore | None]:
    if schema.target is None:
        return None, None
    train, test = tables.train, tables.holdout
    if test is None:
        order = seeded(seed, 4).permutation(len(train))
        size = math.ceil(_TEST_SHARE * len(train))
        train, test = train.iloc[order[size:]], train.iloc[order[:size]]
    leave_out = _derived_from(schema, schema.target)
    tstr, trtr = (
        utility.train_and_test(rows, test, target=schema.target, leave_out=leave_out, rng=seeded(seed, 1))
        for rows in (tables.synthetic, train)
    )
    return tstr, trtr


def _derived_from(schema: TableSchema, target: str) -> list[str]:
    rules = {name: column.derived for name, column in schema.columns.items() if column.derived is not None}
    return [name for name, rule in rules.items() if target in schema.rules[rule].columns]


def _utility_scores(
    tstr: utility.ModelScore | None, trtr: utility.ModelScore | None, *, target: str | None
) -> list[Score]:
    if tstr is None or trtr is None:
        reason = "The schema names no target."
        return [Score.skipped("tstr", reason), Score.skipped("trtr", reason)]
    scores = []
    if tstr.value is None:
        scores.append(Score.skipped("tstr", tstr.note))
    else:
        reading = f"{tstr.metric} for {target!r} of a model that saw {tstr.train_rows:,} synthetic rows."
        scores.append(
            Score.judged(
                "tstr",
                tstr.value,
                reading=f"{reading} {tstr.note}".strip(),
                reference=trtr.value,
                reference_name="trained on real rows",
                interval=tstr.interval,
            )
        )
    if trtr.value is None:
        return [*scores, Score.skipped("trtr", trtr.note)]
    reading = f"{trtr.metric} for {target!r} of a model that saw {trtr.train_rows:,} real rows: what can be had."
    return [*scores, Score("trtr", trtr.value, f"{reading} {trtr.note}".strip(), trtr.interval)]


def _detection_score(tables: _Tables, *, seed: int) -> Score:
    found = utility.detect_synthetic(tables.reference, tables.synthetic, rng=seeded(seed, 2))
    if found.value is None:
        return Score.skipped("c2st", found.note)
    return Score.judged(
        "c2st",
        found.value,
        reading=f"Shown a synthetic and a real row, a classifier picks the right one in {percent(found.value)} of"
        " cases.",
        reference=0.5,
        reference_name="cannot tell",
        interval=found.interval,
    )
