"""The page of a report made from real rows. Exact statistics of real records: not for release."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from aevorium.evaluation.report import charts
from aevorium.evaluation.report.model import LocalReport
from aevorium.evaluation.report.view import (
    Banner,
    Card,
    Chart,
    Page,
    Section,
    Table,
    about_study,
    overlay_charts,
    score_card,
    score_groups,
    study_banners,
)
from aevorium.evaluation.score import EXACT_MARKING, format_value, percent

if TYPE_CHECKING:
    from aevorium.evaluation.fidelity import PairTrend
    from aevorium.evaluation.risk import ClosestRecords
    from aevorium.evaluation.utility import ModelScore

__all__ = ["local_page"]

_CARDS = {
    "shapes": ("Column shapes", "columns"),
    "trends": ("Pair trends", "scores"),
    "2way": ("Distance, pairs", "scores"),
    "tstr": ("Utility (TSTR)", "scores"),
    "c2st": ("Told apart (C2ST)", "scores"),
    "dcr_share": ("Closer to training", "scores"),
}
_MOST_PAIRS = 300
_EXACT = Banner(
    "danger",
    EXACT_MARKING.capitalize(),
    "This page was computed from patients' records without noise. Keep it where the records are: no privacy budget "
    "covers it.",
)


def local_page(report: LocalReport) -> Page:
    """Lays the report out."""
    study, card = report.study, report.card
    return Page(
        title=study.name,
        subtitle=f"{study.synthetic_rows:,} synthetic rows compared with {card.compared_with}.",
        kind="Local report",
        created=study.created,
        version=study.version,
        marking=EXACT_MARKING,
        banners=(_EXACT, *study_banners(study), *(Banner("warning", "Please note", note) for note in card.notes)),
        cards=_cards(report),
        sections=tuple(section for section in _sections(report) if section is not None),
    )


def _cards(report: LocalReport) -> tuple[Card, ...]:
    shown = [score for score in report.card.scores if score.name in _CARDS]
    return tuple(score_card(score, label=_CARDS[score.name][0], link=_CARDS[score.name][1]) for score in shown)


def _sections(report: LocalReport) -> list[Section | None]:
    scores = Section(
        "scores",
        "Scores",
        "Each score stands beside a reference that says what is possible; the verdict follows from the gap to it.",
        scores=score_groups(report.card),
    )
    columns = Section(
        "columns",
        "Columns",
        "Shares of each column's values: real rows filled, synthetic rows a line or diamonds; missing cells in a panel "
        "of their own.",
        charts=overlay_charts(report.overlays, reference_name="real"),
    )
    return [
        scores,
        columns,
        _pairs(report.pairs),
        _utility(report.tstr, report.trtr, report.study.target),
        _closeness(report.closest),
        about_study(report.study),
    ]


def _pairs(pairs: tuple[PairTrend, ...]) -> Section | None:
    known = [pair for pair in pairs if not math.isnan(pair.synthetic - pair.real)]
    if not known:
        return None
    order = sorted(known, key=lambda pair: abs(pair.synthetic - pair.real), reverse=True)
    widest, table = order[0], _pair_table(order[:_MOST_PAIRS])
    strong = sum(pair.is_associated for pair in known)
    told = {
        "difference": (
            "Difference, synthetic − real",
            f"The largest is {widest.first} × {widest.second}: {widest.real:.2f} real, {widest.synthetic:.2f} "
            "synthetic.",
        ),
        "real": (
            "Associations, real",
            f"{strong} of {len(pairs)} pairs have an association above the thresholds of the trends score.",
        ),
        "synthetic": ("Associations, synthetic", "The same for the synthetic table."),
    }
    shown = []
    for value, (title, summary) in told.items():
        is_difference = value == "difference"
        names, cells = charts.matrix_of(pairs, value=value)
        limit = max(0.1, abs(widest.synthetic - widest.real)) if is_difference else 1.0
        figure = charts.heatmap(names, cells, limit=limit)
        size = "large" if is_difference else "medium"
        shown.append(Chart(f"pairs-{value}", title, summary, figure, table, size))
    lead = (
        "Pearson's r for two continuous columns, Cramér's V (never negative) for every other pair. Missing numbers "
        "take the real rows' median; columns named “(missing?)” say where."
    )
    return Section("pairs", "Pairs of columns", lead, charts=tuple(shown))


def _pair_table(pairs: list[PairTrend]) -> Table:
    rows = tuple(
        (
            f"{pair.first} × {pair.second}",
            f"{pair.real:.2f}",
            f"{pair.synthetic:.2f}",
            f"{pair.synthetic - pair.real:+.2f}",
            f"{pair.score:.3f}",
        )
        for pair in pairs
    )
    return Table("Pairs by the size of the difference", ("pair", "real", "synthetic", "difference", "similarity"), rows)


def _utility(tstr: ModelScore | None, trtr: ModelScore | None, target: str | None) -> Section | None:
    if tstr is None or trtr is None or tstr.value is None or trtr.value is None:
        return None
    real = {entry.category: entry.value for entry in trtr.classes}
    rows = [
        (entry.category, format_value(entry.value), format_value(real.get(entry.category)), entry.note)
        for entry in tstr.classes
    ]
    rows.append(
        ("mean" if tstr.metric == "AUC" else "all rows", format_value(tstr.value), format_value(trtr.value), "")
    )
    table = Table(f"{tstr.metric} by class", ("class", "trained on synthetic", "trained on real", "note"), tuple(rows))
    summary = f"Trained on synthetic rows a model reaches {tstr.value:.3f}, trained on real rows {trtr.value:.3f}."
    chart = Chart("utility", f"Predicting {target}", summary, charts.utility(tstr, trtr), table, "large")
    lead = (
        f"Boosted trees learn to predict {target} from {tstr.train_rows:,} synthetic and from {trtr.train_rows:,} real "
        f"rows, and are tested on {tstr.test_rows:,} other real rows."
    )
    return Section("utility", "Utility", lead, charts=(chart,))


def _closeness(closest: ClosestRecords | None) -> Section | None:
    if closest is None:
        return None
    histogram = closest.histogram
    rows = tuple(
        (f"{low:.2f} to {high:.2f}", percent(train), percent(holdout))
        for (low, high), train, holdout in zip(
            itertools.pairwise(histogram.edges), histogram.train, histogram.holdout, strict=True
        )
    )
    table = Table("Synthetic rows by distance", ("distance", "to training rows", "to holdout rows"), rows)
    summary = (
        f"{percent(closest.share)} of the synthetic rows lie closer to a training row (95% interval "
        f"{percent(closest.interval[0])} to {percent(closest.interval[1])}); half are expected by chance."
    )
    figure = charts.closest_records(histogram)
    chart = Chart("closest", "Distance to the closest record", summary, figure, table, "large")
    lead = (
        "Had the table copied its training rows, it would lie closer to them than to as many rows that the run never "
        "saw. That it does not is no proof of privacy: similarity shows what was noticed, ε bounds what is possible."
    )
    return Section("closeness", "Closeness to training rows", lead, charts=(chart,))
