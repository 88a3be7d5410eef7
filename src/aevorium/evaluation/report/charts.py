"""Charts as pure functions: values in, a plotly figure out.

Colours are names of the page's own, such as `var(--synthetic)`; the page fills them in by its theme. A series is told
from another by its form as well: the reference is filled, the synthetic table is a line or diamonds. Positions are
numbers and labels only their text, so that two labels that look the same after shortening stay two.
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

_REFERENCE, _SYNTHETIC, _LIMIT, _MUTED = "var(--reference)", "var(--synthetic)", "var(--usable)", "var(--muted)"
_DIVERGING = [[0.0, "#b45309"], [0.25, "#dfa25a"], [0.5, "var(--middle)"], [0.75, "#5fa7b5"], [1.0, "#0f6a80"]]
_LONGEST_LABEL = 22
_DENSE_BARS = 12
_DENSE_TICKS = 5


def plain(text: str) -> str:
    """Text that plotly shows as it is, shortened: plotly reads some HTML, links included, in labels."""
    short = text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
    return html.escape(short, quote=False)


def _layout(figure: go.Figure, *, height: int, legend: bool = True) -> go.Figure:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 44, "r": 12, "t": 34 if legend else 8, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12},
        showlegend=legend,
        legend={
            "orientation": "h",
            "xref": "container",
            "yref": "container",
            "x": 0,
            "y": 1,
            "xanchor": "left",
            "yanchor": "top",
            "font": {"size": 11},
        },
        hovermode="closest",
        dragmode=False,
    )
    figure.update_xaxes(zeroline=False, automargin=True, fixedrange=True)
    figure.update_yaxes(zeroline=False, automargin=True, fixedrange=True)
    return figure


def marginal(overlay: MarginalOverlay, *, reference_name: str) -> go.Figure:
    """Shares of one column's states: the reference filled, the synthetic table a line or diamonds; missing apart."""
    present = len(overlay.labels) - int(overlay.has_missing)
    widths = {"column_widths": [0.84, 0.16], "horizontal_spacing": 0.13} if overlay.has_missing else {}
    figure = make_subplots(rows=1, cols=1 + int(overlay.has_missing), **widths)
    is_dense = overlay.is_ordered and present > _DENSE_BARS
    for trace in _share_traces(overlay, range(present), reference_name, is_line=is_dense):
        figure.add_trace(trace, row=1, col=1)
    figure.update_xaxes(**_share_ticks(overlay.labels[:present], is_dense=is_dense), row=1, col=1)
    if overlay.has_missing:
        for trace in _share_traces(overlay, range(present, present + 1), reference_name, is_line=False):
            figure.add_trace(trace.update(showlegend=False), row=1, col=2)
        figure.update_xaxes(
            tickvals=[present], ticktext=["missing"], range=[present - 0.9, present + 0.9], row=1, col=2
        )
    figure.update_layout(bargap=0.06 if is_dense else 0.35)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(tickformat=".1~%", rangemode="tozero", nticks=5)
    return _layout(figure, height=250)


def _share_traces(
    overlay: MarginalOverlay, bars: range, reference_name: str, *, is_line: bool
) -> tuple[go.Bar, go.Scatter]:
    part = slice(bars.start, bars.stop)
    places, reference = list(bars), overlay.reference[part]
    shared = {
        "hovertext": [plain(label) for label in overlay.labels[part]],
        "hovertemplate": "%{hovertext}<br>%{y:.1%}",
    }
    band = None
    if overlay.band is not None:
        lower = [min(half, share) for half, share in zip(overlay.band[part], reference, strict=True)]
        band = {"type": "data", "symmetric": False, "array": overlay.band[part], "arrayminus": lower}
        band |= {"thickness": 1.2, "width": 0 if is_line else 4, "color": _MUTED}
    filled = go.Bar(x=places, y=reference, error_y=band, name=reference_name, marker={"color": _REFERENCE}, **shared)
    if is_line:
        form = {"mode": "lines", "line": {"shape": "hvh", "width": 2.5, "color": _SYNTHETIC}}
    else:
        edge = {"width": 1.5, "color": "var(--surface)"}
        form = {"mode": "markers", "marker": {"symbol": "diamond", "size": 13, "color": _SYNTHETIC, "line": edge}}
    return filled, go.Scatter(x=places, y=overlay.synthetic[part], name="synthetic", cliponaxis=False, **form, **shared)


def _share_ticks(labels: Sequence[str], *, is_dense: bool) -> dict[str, object]:
    """Every label, or, for many intervals, where a few of them begin."""
    if not is_dense:
        angle = -35 if len(labels) > 4 or max((len(label) for label in labels), default=0) > 10 else 0
        return {
            "tickvals": list(range(len(labels))),
            "ticktext": [plain(label) for label in labels],
            "tickangle": angle,
        }
    last = len(labels) - 1
    places = [round(last * step / (_DENSE_TICKS - 1)) for step in range(_DENSE_TICKS)]
    return {"tickvals": places, "ticktext": [plain(labels[place].split(" to ")[0]) for place in places], "tickangle": 0}


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
    places = list(range(len(labels)))
    figure = go.Figure(
        go.Heatmap(
            x=places,
            y=places,
            z=cells,
            hovertext=[[f"{row} × {column}" for column in labels] for row in labels],
            zmin=-limit,
            zmax=limit,
            colorscale=_DIVERGING,
            xgap=1,
            ygap=1,
            hovertemplate="%{hovertext}<br>%{z:.2f}<extra></extra>",
            hoverongaps=False,
            colorbar={"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}, "len": 0.9},
        )
    )
    ticks = {"tickvals": places, "ticktext": labels}
    figure.update_yaxes(autorange="reversed", **ticks)
    figure.update_xaxes(tickangle=-45, **ticks)
    figure.update_layout(meta={"grid": False})
    return _layout(figure, height=400, legend=False)


def utility(tstr: ModelScore, trtr: ModelScore) -> go.Figure:
    """Two marks a class: trained on synthetic and on real rows; all together, with intervals, at the bottom."""
    real = {entry.category: entry.value for entry in trtr.classes}
    known = [entry for entry in tstr.classes if entry.value is not None and real.get(entry.category) is not None]
    labels = [*(plain(entry.category) for entry in known), "all rows" if tstr.metric == "R2" else "mean"]
    ours = [*(entry.value for entry in known), tstr.value]
    theirs = [*(real[entry.category] for entry in known), trtr.value]
    places = list(range(len(labels)))
    figure = go.Figure()
    for place, ends in zip(places, zip(ours, theirs, strict=True), strict=True):
        line = {"color": "var(--grid)", "width": 5}
        figure.add_trace(
            go.Scatter(x=ends, y=[place, place], mode="lines", line=line, showlegend=False, hoverinfo="skip")
        )
    for name, values, score, colour, symbol in (
        ("trained on real", theirs, trtr, _REFERENCE, "circle"),
        ("trained on synthetic", ours, tstr, _SYNTHETIC, "diamond"),
    ):
        figure.add_trace(
            go.Scatter(
                x=values,
                y=places,
                name=name,
                mode="markers",
                marker={"size": 14, "color": colour, "symbol": symbol},
                error_x=_interval_bars(score, len(labels), colour),
                hovertext=labels,
                hovertemplate="%{hovertext}<br>%{x:.3f}",
            )
        )
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=labels, showgrid=False)
    title = "R²" if tstr.metric == "R2" else "ROC AUC (0.5: a coin, 1: always right)"
    figure.update_xaxes(title={"text": title, "font": {"size": 12}})
    return _layout(figure, height=120 + 38 * len(labels))


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
                marker={"color": _REFERENCE},
                hovertemplate=hover,
            ),
            go.Scatter(
                x=centres,
                y=histogram.train,
                name="to the closest training row",
                mode="lines",
                line={"shape": "hvh", "width": 2.5, "color": _SYNTHETIC},
                hovertemplate=hover,
            ),
        ]
    )
    figure.update_layout(bargap=0.04)
    figure.update_xaxes(title={"text": "distance to the closest record", "font": {"size": 12}})
    figure.update_yaxes(tickformat=".1~%", rangemode="tozero", nticks=6)
    return _layout(figure, height=320)


def epsilon_by_node(nodes: Sequence[NodeSpend], *, target: float) -> go.Figure:
    """What the study cost each node, with each policy's limit and the study's target."""
    places, labels = list(range(len(nodes))), [plain(node.node) for node in nodes]
    figure = go.Figure(
        go.Bar(
            x=[node.epsilon for node in nodes],
            y=places,
            orientation="h",
            name="spent",
            marker={"color": _SYNTHETIC},
            text=[f"{node.epsilon:.2f}" for node in nodes],
            textposition="auto",
            hovertext=labels,
            hovertemplate="%{hovertext}<br>ε = %{x:.3f}",
        )
    )
    limited = [
        (place, node.limit) for place, node in enumerate(nodes) if node.limit is not None and math.isfinite(node.limit)
    ]
    if limited:
        mark = {"symbol": "line-ns-open", "size": 22, "color": _LIMIT, "line": {"width": 3}}
        figure.add_trace(
            go.Scatter(
                x=[limit for _, limit in limited],
                y=[place for place, _ in limited],
                name="limit of the node's policy",
                mode="markers",
                marker=mark,
                hovertemplate="limit %{x:g}",
            )
        )
    figure.add_vline(x=target, line={"dash": "dash", "width": 1.5, "color": _MUTED})
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=labels, showgrid=False)
    title = {"text": "ε of this study (dashed: its target)", "font": {"size": 12}}
    figure.update_xaxes(title=title, rangemode="tozero")
    figure.update_layout(bargap=0.35)
    return _layout(figure, height=120 + 34 * len(labels))


def epsilon_by_round(rounds: Sequence[RoundFacts], *, target: float) -> go.Figure:
    """The highest ε of any node after each round, and the study's target."""
    figure = go.Figure(
        go.Scatter(
            x=[one.number for one in rounds],
            y=[one.epsilon for one in rounds],
            name="spent so far",
            mode="lines+markers",
            line={"width": 2.5, "color": _SYNTHETIC},
            marker={"size": 8},
            hovertemplate="round %{x}<br>ε = %{y:.3f}",
        )
    )
    figure.add_hline(y=target, line={"dash": "dash", "width": 1.5, "color": _LIMIT})
    figure.update_yaxes(rangemode="tozero", nticks=6, title={"text": "ε (dashed: target)", "font": {"size": 12}})
    figure.update_xaxes(title={"text": "round", "font": {"size": 12}}, tickformat="d", nticks=min(len(rounds) + 1, 10))
    return _layout(figure, height=280, legend=False)


def loss_by_round(rounds: Sequence[RoundFacts]) -> go.Figure:
    """The charged, noisy loss of rounds that paid for one."""
    figure = go.Figure(
        go.Scatter(
            x=[one.number for one in rounds],
            y=[one.loss for one in rounds],
            name="loss (noisy)",
            mode="lines+markers",
            line={"width": 2.5, "color": _SYNTHETIC},
            marker={"size": 8},
            hovertemplate="round %{x}<br>loss %{y:.4f}",
        )
    )
    figure.update_yaxes(nticks=6, title={"text": "loss (noisy)", "font": {"size": 12}})
    figure.update_xaxes(title={"text": "round", "font": {"size": 12}}, tickformat="d", nticks=min(len(rounds) + 1, 10))
    return _layout(figure, height=280, legend=False)
