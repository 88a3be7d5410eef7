"""Charts as pure functions: values in, a plotly figure out. The page sets text and grid colours by its theme.

A series is told from another by its form as well as by its colour: the reference is filled, the synthetic table is a
line or hatched.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aevorium.evaluation.overlays import MarginalOverlay
from aevorium.evaluation.report.model import NodeSpend, RoundFacts

if TYPE_CHECKING:
    from aevorium.evaluation.fidelity import PairTrend
    from aevorium.evaluation.risk import DistanceHistogram
    from aevorium.evaluation.utility import ModelScore

__all__ = [
    "closest_records",
    "epsilon_by_node",
    "epsilon_by_round",
    "heatmap",
    "loss_by_round",
    "marginal",
    "matrix_of",
    "plain",
    "utility",
]

REFERENCE_COLOUR = "#8a97a8"
SYNTHETIC_COLOUR = "#1f7a8c"
BAND_COLOUR = "rgba(138, 151, 168, 0.35)"
LIMIT_COLOUR = "#c2410c"
_DIVERGING = [[0.0, "#b45309"], [0.25, "#e9b872"], [0.5, "#eef1f4"], [0.75, "#7fb9c4"], [1.0, "#0f5566"]]
_LONGEST_LABEL = 22


def plain(text: str) -> str:
    """Text that plotly shows as it is, shortened: plotly reads a few HTML tags, and links, in labels."""
    short = text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
    return html.escape(short, quote=False)


def _layout(figure: go.Figure, *, height: int, legend: bool = True) -> go.Figure:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 48, "r": 12, "t": 8 if not legend else 34, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        hovermode="closest",
        dragmode=False,
    )
    figure.update_xaxes(zeroline=False, automargin=True, fixedrange=True)
    figure.update_yaxes(zeroline=False, automargin=True, fixedrange=True)
    return figure


def marginal(overlay: MarginalOverlay, *, reference_name: str) -> go.Figure:
    """Shares of one column's states in the reference (filled) and the synthetic table (line or hatched)."""
    present = len(overlay.labels) - int(overlay.has_missing)
    if overlay.has_missing:
        figure = make_subplots(rows=1, cols=2, column_widths=[0.84, 0.16], horizontal_spacing=0.1)
    else:
        figure = make_subplots(rows=1, cols=1)
    is_dense = overlay.is_ordered and present > 12
    for trace in (
        _dense_traces(overlay, present, reference_name)
        if is_dense
        else _bar_traces(overlay, slice(0, present), reference_name)
    ):
        figure.add_trace(trace, row=1, col=1)
    if overlay.has_missing:
        for trace in _bar_traces(overlay, slice(present, None), reference_name):
            figure.add_trace(trace.update(showlegend=False), row=1, col=2)
    figure.update_layout(barmode="group", bargap=0.04 if is_dense else 0.28)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", nticks=5)
    figure.update_xaxes(type="category")
    if is_dense:
        figure.update_xaxes(nticks=7, row=1, col=1)
    return _layout(figure, height=250)


def _bar_traces(overlay: MarginalOverlay, part: slice, reference_name: str) -> list[go.Bar]:
    labels = [plain(label) for label in overlay.labels[part]]
    errors = None
    if overlay.band is not None:
        errors = {"type": "data", "array": overlay.band[part], "thickness": 1, "width": 3}
    hover = "%{x}<br>%{y:.1%}"
    return [
        go.Bar(
            x=labels,
            y=overlay.reference[part],
            error_y=errors,
            name=reference_name,
            marker={"color": REFERENCE_COLOUR},
            hovertemplate=hover,
        ),
        go.Bar(
            x=labels,
            y=overlay.synthetic[part],
            name="synthetic",
            marker={
                "color": SYNTHETIC_COLOUR,
                "pattern": {"shape": "/", "size": 6, "solidity": 0.35, "fgcolor": "rgba(255,255,255,0.75)"},
            },
            hovertemplate=hover,
        ),
    ]


def _dense_traces(overlay: MarginalOverlay, present: int, reference_name: str) -> list[go.Bar | go.Scatter]:
    labels = [plain(label) for label in overlay.labels[:present]]
    reference, hover = overlay.reference[:present], "%{x}<br>%{y:.1%}"
    traces: list[go.Bar | go.Scatter] = [
        go.Bar(x=labels, y=reference, name=reference_name, marker={"color": REFERENCE_COLOUR}, hovertemplate=hover)
    ]
    if overlay.band is not None:
        traces[0].update(
            error_y={"type": "data", "array": overlay.band[:present], "thickness": 1, "width": 0, "color": "#5b6777"}
        )
    line = {"shape": "hvh", "width": 2.5, "color": SYNTHETIC_COLOUR}
    traces.append(
        go.Scatter(
            x=labels, y=overlay.synthetic[:present], name="synthetic", mode="lines", line=line, hovertemplate=hover
        )
    )
    return traces


def matrix_of(pairs: Sequence[PairTrend], *, value: str) -> tuple[list[str], list[list[float | None]]]:
    """A symmetric matrix of one attribute of the pairs ("real", "synthetic", or "difference"); None where undefined."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
    place = {name: index for index, name in enumerate(names)}
    cells: list[list[float | None]] = [[None] * len(names) for _ in names]
    for pair in pairs:
        number = pair.synthetic - pair.real if value == "difference" else float(getattr(pair, value))
        shown = None if math.isnan(number) else number
        row, column = place[pair.first], place[pair.second]
        cells[row][column] = cells[column][row] = shown
    return names, cells


def heatmap(names: Sequence[str], cells: Sequence[Sequence[float | None]], *, limit: float = 1.0) -> go.Figure:
    """A square matrix on a diverging scale from -limit to limit; undefined cells stay empty."""
    labels = [plain(name) for name in names]
    figure = go.Figure(
        go.Heatmap(
            x=labels,
            y=labels,
            z=cells,
            zmin=-limit,
            zmax=limit,
            colorscale=_DIVERGING,
            xgap=1,
            ygap=1,
            hovertemplate="%{y} × %{x}<br>%{z:.2f}<extra></extra>",
            hoverongaps=False,
            colorbar={"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}, "len": 0.9},
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(tickangle=-45)
    figure.update_layout(meta={"grid": False})
    return _layout(figure, height=380, legend=False)


def utility(tstr: ModelScore, trtr: ModelScore) -> go.Figure:
    """Two dots a class: learnt from synthetic rows and from real rows; the mean with its interval at the bottom."""
    real = {entry.category: entry.value for entry in trtr.classes}
    rows = [
        (plain(entry.category), entry.value, real.get(entry.category))
        for entry in tstr.classes
        if entry.value is not None and real.get(entry.category) is not None
    ]
    labels = [*(label for label, _, _ in rows), "all" if tstr.metric == "R2" else "mean"]
    ours, theirs = [*(row[1] for row in rows), tstr.value], [*(row[2] for row in rows), trtr.value]
    figure = go.Figure()
    for label, left, right in zip(labels, ours, theirs, strict=True):
        figure.add_trace(
            go.Scatter(
                x=[left, right],
                y=[label, label],
                mode="lines",
                line={"color": BAND_COLOUR, "width": 4},
                showlegend=False,
                hoverinfo="skip",
            )
        )
    for name, values, score, colour, symbol in (
        ("trained on real", theirs, trtr, REFERENCE_COLOUR, "circle"),
        ("trained on synthetic", ours, tstr, SYNTHETIC_COLOUR, "diamond"),
    ):
        figure.add_trace(
            go.Scatter(
                x=values,
                y=labels,
                name=name,
                mode="markers",
                marker={"size": 13, "color": colour, "symbol": symbol},
                error_x=_interval_bars(score, len(labels), colour),
                hovertemplate="%{y}<br>%{x:.3f}",
            )
        )
    figure.update_yaxes(autorange="reversed", type="category")
    title = "R²" if tstr.metric == "R2" else "ROC AUC (0.5 = a coin, 1 = always right)"
    figure.update_xaxes(title={"text": title, "font": {"size": 12}})
    return _layout(figure, height=110 + 38 * len(labels))


def _interval_bars(score: ModelScore, length: int, colour: str) -> dict[str, object] | None:
    if score.interval is None or score.value is None:
        return None
    nothing = [0.0] * (length - 1)
    return {
        "type": "data",
        "symmetric": False,
        "array": [*nothing, score.interval[1] - score.value],
        "arrayminus": [*nothing, score.value - score.interval[0]],
        "color": colour,
        "thickness": 1.5,
    }


def closest_records(histogram: DistanceHistogram) -> go.Figure:
    """Distances of synthetic rows to the closest training row (line) and holdout row (filled)."""
    centres = [(a + b) / 2 for a, b in zip(histogram.edges[:-1], histogram.edges[1:], strict=True)]
    hover = "distance %{x:.2f}<br>%{y:.1%}"
    figure = go.Figure(
        [
            go.Bar(
                x=centres,
                y=histogram.holdout,
                name="to the closest holdout row",
                marker={"color": REFERENCE_COLOUR},
                hovertemplate=hover,
            ),
            go.Scatter(
                x=centres,
                y=histogram.train,
                name="to the closest training row",
                mode="lines",
                line={"shape": "hvh", "width": 2.5, "color": SYNTHETIC_COLOUR},
                hovertemplate=hover,
            ),
        ]
    )
    figure.update_layout(bargap=0.04)
    figure.update_xaxes(title={"text": "distance to the closest record", "font": {"size": 12}})
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", nticks=6)
    return _layout(figure, height=320)


def epsilon_by_node(nodes: Sequence[NodeSpend], *, target: float) -> go.Figure:
    """What the study cost each node, with each policy's limit and the study's target."""
    labels = [plain(node.node) for node in nodes]
    figure = go.Figure(
        go.Bar(
            x=[node.epsilon for node in nodes],
            y=labels,
            orientation="h",
            name="spent",
            marker={"color": SYNTHETIC_COLOUR},
            text=[f"{node.epsilon:.2f}" for node in nodes],
            textposition="auto",
            hovertemplate="%{y}<br>ε = %{x:.3f}",
        )
    )
    limited = [(plain(node.node), node.limit) for node in nodes if node.limit is not None and math.isfinite(node.limit)]
    if limited:
        figure.add_trace(
            go.Scatter(
                x=[limit for _, limit in limited],
                y=[label for label, _ in limited],
                name="limit of the node's policy",
                mode="markers",
                marker={"symbol": "line-ns-open", "size": 22, "color": LIMIT_COLOUR, "line": {"width": 3}},
                hovertemplate="%{y}<br>limit %{x:g}",
            )
        )
    figure.add_vline(x=target, line={"dash": "dash", "width": 1.5, "color": REFERENCE_COLOUR})
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(
        title={"text": "ε of this study (dashed: its target)", "font": {"size": 12}}, rangemode="tozero"
    )
    figure.update_layout(bargap=0.35)
    return _layout(figure, height=110 + 34 * len(labels))


def epsilon_by_round(rounds: Sequence[RoundFacts], *, target: float) -> go.Figure:
    """The highest ε of any node after each round, and the study's target."""
    figure = go.Figure(
        go.Scatter(
            x=[one.number for one in rounds],
            y=[one.epsilon for one in rounds],
            name="spent so far",
            mode="lines+markers",
            line={"width": 2.5, "color": SYNTHETIC_COLOUR},
            marker={"size": 8},
            hovertemplate="round %{x}<br>ε = %{y:.3f}",
        )
    )
    figure.add_hline(y=target, line={"dash": "dash", "width": 1.5, "color": LIMIT_COLOUR})
    figure.update_yaxes(rangemode="tozero", nticks=6, title={"text": "ε (dashed: target)", "font": {"size": 12}})
    figure.update_xaxes(title={"text": "round", "font": {"size": 12}}, tickformat="d", nticks=min(len(rounds) + 1, 10))
    return _layout(figure, height=280, legend=False)


def loss_by_round(rounds: Sequence[RoundFacts]) -> go.Figure:
    """The charged, noisy loss of each round that paid for one."""
    paid = [one for one in rounds if one.loss is not None]
    figure = go.Figure(
        go.Scatter(
            x=[one.number for one in paid],
            y=[one.loss for one in paid],
            name="loss (noisy)",
            mode="lines+markers",
            line={"width": 2.5, "color": SYNTHETIC_COLOUR},
            marker={"size": 8},
            hovertemplate="round %{x}<br>loss %{y:.4f}",
        )
    )
    figure.update_yaxes(nticks=6, title={"text": "loss (noisy)", "font": {"size": 12}})
    figure.update_xaxes(title={"text": "round", "font": {"size": 12}}, tickformat="d", nticks=min(len(paid) + 1, 10))
    return _layout(figure, height=280, legend=False)
