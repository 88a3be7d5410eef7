"""What the template shows: banners, summary cards, sections of text, tables and charts. Plain values, no markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from aevorium.evaluation.overlays import MarginalOverlay
from aevorium.evaluation.report import charts
from aevorium.evaluation.report.model import StudyFacts
from aevorium.evaluation.score import Score, Scorecard, format_value, percent

__all__ = [
    "Banner",
    "Card",
    "Chart",
    "Page",
    "ScoreGroup",
    "Section",
    "Table",
    "about_study",
    "format_epsilon",
    "overlay_charts",
    "plural",
    "score_card",
    "score_groups",
    "study_banners",
]

_NO_PRIVACY = (
    "This run was trained without differential privacy (ε = ∞). The model and the table may hold patients' data: use "
    "them only where the records themselves may be used."
)
_SIMULATED = (
    "The patients behind this report were made up by a generator. Nothing here says anything about real people."
)


@dataclass(frozen=True)
class Banner:
    """A warning over the whole page.

    Attributes:
        tone: "danger", "warning" or "note".
        title: A few words.
        text: A sentence or two.
    """

    tone: str
    title: str
    text: str


@dataclass(frozen=True)
class Card:
    """One number at the top of the page.

    Attributes:
        label: What it is.
        value: The number, as text.
        detail: What to compare it with.
        verdict: A verdict word, or "".
        link: The section that says more.
    """

    label: str
    value: str
    detail: str
    verdict: str = ""
    link: str = "scores"


@dataclass(frozen=True)
class Table:
    """A table of text; the first column holds the row headings.

    Attributes:
        caption: What it shows.
        headers: Column headings.
        rows: Cells.
    """

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A figure with what those need who cannot see it.

    Attributes:
        key: Unique on the page.
        title: Its heading.
        summary: What it shows, in a sentence.
        figure: The plotly figure.
        table: The same numbers.
        size: "small" (three a line), "medium" (two a line) or "large".
    """

    key: str
    title: str
    summary: str
    figure: go.Figure
    table: Table
    size: str = "small"


@dataclass(frozen=True)
class ScoreGroup:
    """Scores under one heading."""

    title: str
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Section:
    """A part of the page, shown in the order of its fields.

    Attributes:
        key: Its anchor.
        title: Its heading.
        lead: A paragraph, or "".
        scores: Groups of scores.
        points: A list of sentences.
        charts: Charts.
        tables: Tables.
        facts: Pairs of a name and a value.
    """

    key: str
    title: str
    lead: str = ""
    scores: tuple[ScoreGroup, ...] = ()
    points: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole report.

    Attributes:
        title: Its heading.
        subtitle: A line below.
        kind: What sort of report, as a label.
        created: When it was made.
        version: Version of Aevorium.
        marking: How it may be used; "" if it may be shared.
        banners: Most important first.
        cards: The summary.
        sections: In order.
    """

    title: str
    subtitle: str
    kind: str
    created: str
    version: str
    marking: str
    banners: tuple[Banner, ...]
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]


def format_epsilon(epsilon: float) -> str:
    """ε with three significant digits; ∞ without privacy."""
    return "∞" if math.isinf(epsilon) else f"{epsilon:.3g}"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def study_banners(study: StudyFacts) -> tuple[Banner, ...]:
    """What a reader must not miss about a study."""
    banners = [] if study.is_private else [Banner("danger", "NO PRIVACY", _NO_PRIVACY)]
    if study.simulated:
        banners.append(Banner("note", "Simulated data", _SIMULATED))
    return (*banners, *(Banner("warning", "Please note", warning) for warning in study.warnings))


def about_study(study: StudyFacts) -> Section:
    """The facts of a study."""
    facts = (
        ("Schema", f"{study.schema_name} ({study.schema_hash[:12]})"),
        ("Unit of privacy", study.unit),
        ("Target column", study.target or "none"),
        ("Derived columns", ", ".join(study.derived) or "none"),
        ("Recipe", study.recipe),
        ("Trust", study.trust),
        ("Target ε", format_epsilon(study.epsilon)),
        ("δ", f"{study.delta:g}"),
        ("Data", "simulated" if study.simulated else "records of the nodes"),
        ("Made", study.created),
        ("Aevorium", study.version),
    )
    return Section("study", "The study", facts=facts)


def score_card(score: Score, *, label: str, link: str = "scores") -> Card:
    """A score as a summary card."""
    detail = "no reference" if score.reference is None else f"{format_value(score.reference)} {score.reference_name}"
    if score.value is None:
        return Card(label, "–", "skipped", link=link)
    return Card(label, format_value(score.value), detail, score.verdict, link)


def score_groups(card: Scorecard) -> tuple[ScoreGroup, ...]:
    """The scores under their groups, in the card's order."""
    titles = dict.fromkeys(score.definition.group for score in card.scores)
    return tuple(
        ScoreGroup(title, tuple(score for score in card.scores if score.definition.group == title)) for title in titles
    )


def overlay_charts(overlays: Sequence[MarginalOverlay], *, reference_name: str) -> tuple[Chart, ...]:
    """One small chart a column."""
    return tuple(
        _overlay_chart(overlay, key=f"column-{number}", reference_name=reference_name)
        for number, overlay in enumerate(overlays)
    )


def _overlay_chart(overlay: MarginalOverlay, *, key: str, reference_name: str) -> Chart:
    headers = ("value", reference_name, "synthetic", *(["± noise (95%)"] if overlay.band is not None else []))
    rows = []
    for index, label in enumerate(overlay.labels):
        cells = [label, percent(overlay.reference[index]), percent(overlay.synthetic[index])]
        if overlay.band is not None:
            cells.append(percent(overlay.band[index]))
        rows.append(tuple(cells))
    return Chart(
        key=key,
        title=overlay.column,
        summary=_overlay_summary(overlay, reference_name=reference_name),
        figure=charts.marginal(overlay, reference_name=reference_name),
        table=Table(f"Shares of {overlay.column}", headers, tuple(rows)),
    )


def _overlay_summary(overlay: MarginalOverlay, *, reference_name: str) -> str:
    if math.isnan(overlay.distance):
        return "There is nothing to compare with: one side is empty, or noise is all that was released."
    gaps = [abs(a - b) for a, b in zip(overlay.reference, overlay.synthetic, strict=True)]
    widest = max(range(len(gaps)), key=gaps.__getitem__)
    told = (
        f"Distance {overlay.distance:.3f}, widest at “{overlay.labels[widest]}”: {reference_name} "
        f"{percent(overlay.reference[widest])}, synthetic {percent(overlay.synthetic[widest])}."
    )
    if overlay.band is not None:
        inside = sum(gap <= band for gap, band in zip(gaps, overlay.band, strict=True))
        told += f" {inside} of {len(gaps)} bars lie within the noise."
    return told
