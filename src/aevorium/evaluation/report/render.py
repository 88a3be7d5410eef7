"""Renders a report as one HTML file that needs nothing from anywhere: no network, no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from aevorium.evaluation.overlays import MarginalOverlay
from aevorium.evaluation.report import charts
from aevorium.evaluation.report.model import LocalReport, NodeSpend, RunReport, StudyFacts
from aevorium.evaluation.score import CARD_COLUMNS, Scorecard

__all__ = ["local_report_html", "local_report_json", "run_report_html", "run_report_json"]

_MARKS = {"good": "✓ good", "usable": "~ usable", "do not use": "✗ do not use", "info": "· no verdict"}

_LIMITS = (
    "It does not replace the real table: check a finding on real records before anyone acts on it.",
    "Intervals and p-values from synthetic rows are too narrow: they know nothing of the noise that made the rows.",
    "Rare combinations, small subgroups and extreme values are where it is weakest.",
    "Similarity to real rows is no proof of privacy, and distance from them is none either: ε is the claim.",
)


def run_report_html(report: RunReport) -> str:
    """The run's own report: charged numbers only. Safe to release."""
    study = report.study
    tables = [
        _score_table(report.card),
        {
            "title": "What it cost each node",
            "text": "Patients of different nodes are different people: the federation's ε is the largest, not the sum.",
            "head": ("node", "patients (noisy)", "ε spent", "limit"),
            "rows": [_node_row(node) for node in report.nodes],
        },
        {
            "title": "Rounds",
            "text": "Losses are charged releases and carry privacy noise.",
            "head": ("round", "nodes", "loss (noisy)", "ε so far", "seconds"),
            "rows": [
                (
                    str(entry.number),
                    f"{entry.nodes_replied}/{entry.nodes_asked}",
                    "–" if entry.loss is None else f"{entry.loss:.3f}",
                    _number(entry.epsilon),
                    f"{entry.seconds:.1f}",
                )
                for entry in report.rounds
            ],
        },
    ]
    return _render(
        study,
        title=f"Synthetic {study.name}: report of the run",
        cards=[_epsilon_card(study), *_score_cards(report.card), _rows_card(study)],
        banners=_banners(study),
        tables=tables,
        overlays=report.overlays,
        reference="released (noisy)",
    )


def local_report_html(report: LocalReport) -> str:
    """A comparison with real rows. Exact statistics of real records: not for release."""
    study, card = report.study, report.card
    return _render(
        study,
        title=f"Synthetic {study.name}: comparison with real rows",
        cards=[_epsilon_card(study), *_score_cards(card)],
        banners=[*([card.marking] if card.marking else []), *_banners(study), *card.notes],
        tables=[_score_table(card)],
        overlays=report.overlays,
        reference="real",
    )


def run_report_json(report: RunReport) -> str:
    """The run's own report as data. Safe to release."""
    return _json({**asdict(report), "card": report.card.to_json(), "schema_version": 1})


def local_report_json(report: LocalReport) -> str:
    """The same of a comparison with real rows: not for release."""
    return _json({**asdict(report), "card": report.card.to_json(), "schema_version": 1, "marking": report.card.marking})


def _render(
    study: StudyFacts,
    *,
    title: str,
    cards: Sequence[dict[str, str]],
    banners: Sequence[str],
    tables: Sequence[dict[str, Any]],
    overlays: Sequence[MarginalOverlay],
    reference: str,
) -> str:
    environment = Environment(
        loader=PackageLoader("aevorium.evaluation.report", "templates"), autoescape=True, undefined=StrictUndefined
    )
    figures = [charts.marginal(overlay, reference_name=reference) for overlay in overlays]
    return environment.get_template("page.html.j2").render(
        title=title,
        subtitle=f"{study.unit.capitalize()} records, schema {study.schema_name}, recipe {study.recipe}, "
        f"trust {study.trust}, made {study.created} by Aevorium {study.version}",
        banners=banners,
        cards=cards,
        tables=tables,
        charts=[_chart(overlay, reference) for overlay in overlays],
        charts_title="Column by column",
        charts_text=f"Filled: {reference}. Line or hatched: synthetic. Bands show the noise of what was released.",
        limits=(*_LIMITS, *study.limits),
        # Plotly's own library, and figures whose text can close no script element.
        plotly=Markup(get_plotlyjs()),  # noqa: S704
        figures=Markup(f"[{','.join(_script_json(figure.to_json()) for figure in figures)}]"),  # noqa: S704
    )


def _script_json(text: str) -> str:
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _chart(overlay: MarginalOverlay, reference: str) -> dict[str, Any]:
    known = "" if math.isnan(overlay.distance) else f" Total-variation distance {overlay.distance:.3f}."
    return {
        "title": overlay.column,
        "summary": f"Shares of {overlay.column}, {reference} and synthetic.{known}",
        "head": ("value", reference, "synthetic"),
        "rows": [
            (label, f"{first:.1%}", f"{second:.1%}")
            for label, first, second in zip(overlay.labels, overlay.reference, overlay.synthetic, strict=True)
        ],
    }


def _banners(study: StudyFacts) -> list[str]:
    texts = []
    if not study.is_private:
        texts.append("NO PRIVACY: ε = ∞. The model and its rows may reveal any record.")
    if study.simulated:
        texts.append("Simulated: every patient was made by a generator; no person is concerned.")
    return [*texts, *study.warnings]


def _epsilon_card(study: StudyFacts) -> dict[str, str]:
    return {"label": "Privacy, end to end", "value": f"ε = {_number(study.epsilon)}", "note": f"δ = {study.delta:g}"}


def _rows_card(study: StudyFacts) -> dict[str, str]:
    return {"label": "Rows looked at", "value": f"{study.synthetic_rows:,}", "note": "generated for this report"}


def _score_cards(card: Scorecard) -> list[dict[str, str]]:
    shown = [score for score in card.scores if score.value is not None][:5]
    return [{"label": score.title, "value": f"{score.value:.3f}", "note": _MARKS[score.verdict]} for score in shown]


def _score_table(card: Scorecard) -> dict[str, Any]:
    return {
        "title": "Scores",
        "text": f"Compared with {card.compared_with}. " + " ".join(card.notes),
        "head": CARD_COLUMNS,
        "rows": card.rows(),
    }


def _node_row(node: NodeSpend) -> tuple[str, ...]:
    records = "–" if node.records is None else f"{node.records:,.0f}"
    return (node.node, records, _number(node.epsilon), "–" if node.limit is None else _number(node.limit))


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.3f}"


def _json(content: dict[str, Any]) -> str:
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
