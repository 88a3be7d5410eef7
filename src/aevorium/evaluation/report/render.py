"""Renders a report to one HTML page that asks nothing of any network, and to its twin in JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import asdict
from importlib import resources
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from aevorium.evaluation.report.local_page import local_page
from aevorium.evaluation.report.model import LocalReport, RunReport
from aevorium.evaluation.report.run_page import run_page
from aevorium.evaluation.report.view import Page

__all__ = ["local_report_html", "local_report_json", "run_report_html", "run_report_json"]

_PACKAGE = "aevorium.evaluation.report"


def run_report_html(report: RunReport) -> str:
    """The run's own report: charged numbers only. Safe to release."""
    return _render(run_page(report))


def local_report_html(report: LocalReport) -> str:
    """A comparison with real rows. Exact statistics of real records: not for release, and it says so."""
    return _render(local_page(report))


def run_report_json(report: RunReport) -> str:
    """The run's own report as JSON. Safe to release."""
    return _json({"kind": "run", "marking": "", **asdict(report), "card": report.card.to_json()})


def local_report_json(report: LocalReport) -> str:
    """A comparison with real rows as JSON: not for release."""
    content = asdict(report)
    return _json({"kind": "local", "marking": report.card.marking, **content, "card": report.card.to_json()})


def _json(content: dict[str, Any]) -> str:
    """Infinity becomes "Infinity", and what is not a number null: JSON has neither."""
    plain = _plain({"schema_version": 1, **content})
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _render(page: Page) -> str:
    """Styles, scripts and data inside; the content security policy forbids requests, and scripts but these two."""
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure_json
    library, script = get_plotlyjs().replace("\r\n", "\n"), _template_text("report.js")
    return environment.get_template("report.html.j2").render(
        page=page,
        style=Markup(_template_text("report.css")),  # noqa: S704 - our own file
        library=Markup(library),  # noqa: S704 - plotly's own library
        script=Markup(script),  # noqa: S704 - our own file
        script_hashes=[_content_hash(library), _content_hash(script)],
    )


def _template_text(name: str) -> str:
    text = resources.files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _content_hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}"


def _figure_json(figure: go.Figure) -> Markup:
    """A figure as JSON inside a script element: no character in it can end the element."""
    text = json.dumps(_plain(figure.to_plotly_json()), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
