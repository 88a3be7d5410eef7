"""Charts in Vega-Lite, drawn by the browser from what the API told. No plotting library is loaded here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

__all__ = ["heat", "line", "overlay", "stack"]

Points = Sequence[Mapping[str, Any]]

_SYNTHETIC, _REFERENCE = "#1f8fa3", "#8a97a8"
"""Both stand out from a white and from a dark page."""


def line(
    points: Points,
    *,
    x: str,
    y: str,
    title: str,
    key: str,
    summary: str,
    limit: float | None = None,
    series: str | None = None,
) -> None:
    """A line over rounds.

    Args:
        points: What is drawn.
        x: Field across.
        y: Field up.
        title: Of the upward axis.
        key: Tells the chart from others.
        summary: The same in a sentence, for those who do not see it.
        limit: A line across, at this height.
        series: Field that tells several lines apart.
    """
    encoding: dict[str, Any] = {
        "x": {
            "field": x,
            "type": "quantitative",
            "scale": {"zero": False, "nice": False},
            "axis": {"tickMinStep": 1, "title": x, "format": "d"},
        },
        "y": {"field": y, "type": "quantitative", "axis": {"title": title}},
    }
    mark: dict[str, Any] = {"type": "line", "point": True}
    if series is None:
        mark |= {"color": _SYNTHETIC, "point": {"color": _SYNTHETIC}}
    else:
        scale = {"range": [_SYNTHETIC, _REFERENCE]}
        encoding["color"] = {
            "field": series,
            "type": "nominal",
            "scale": scale,
            "legend": {"orient": "bottom", "title": None},
        }
        encoding["strokeDash"] = {"field": series, "type": "nominal"}
    layers: list[dict[str, Any]] = [{"data": {"values": list(points)}, "mark": mark, "encoding": encoding}]
    if limit is not None:
        rule = {"type": "rule", "strokeDash": [6, 4], "color": _REFERENCE}
        layers.append(
            {
                "data": {"values": [{"limit": limit}]},
                "mark": rule,
                "encoding": {"y": {"field": "limit", "type": "quantitative"}},
            }
        )
    _draw({"layer": layers, "height": 220}, key=key, summary=summary)


def overlay(points: Points, *, order: Sequence[str], key: str, summary: str) -> None:
    """Shares of a column's categories or intervals, reference and synthetic beside each other.

    Args:
        points: Fields "label", "share", "low", "high" (noise of the reference) and "table".
        order: The labels as they stand.
        key: Tells the chart from others.
        summary: The same in a sentence.
    """
    across = {
        "field": "label",
        "type": "nominal",
        "sort": list(order),
        "axis": {"title": None, "labelAngle": -40, "labelLimit": 120},
    }
    colour = {
        "field": "table", "type": "nominal", "legend": {"orient": "bottom", "title": None},
        "scale": {"domain": ["released, with noise", "synthetic"], "range": [_REFERENCE, _SYNTHETIC]},
    }  # fmt: skip
    bars = {
        "mark": {"type": "bar"},
        "encoding": {
            "x": across, "xOffset": {"field": "table"}, "color": colour,
            "y": {"field": "share", "type": "quantitative", "axis": {"title": "share of rows", "format": "%"}},
        },
    }  # fmt: skip
    band = {
        "transform": [{"filter": "datum.table !== 'synthetic'"}],
        "mark": {"type": "rule", "color": _REFERENCE, "strokeWidth": 1.5},
        "encoding": {
            "x": across,
            "xOffset": {"field": "table"},
            "y": {"field": "low", "type": "quantitative"},
            "y2": {"field": "high"},
        },
    }
    _draw({"data": {"values": list(points)}, "layer": [bars, band], "height": 300}, key=key, summary=summary)


def heat(points: Points, *, order: Sequence[str], key: str, summary: str) -> None:
    """Distances of pairs of columns.

    Args:
        points: Fields "first", "second" and "distance".
        order: The columns as they stand.
        key: Tells the chart from others.
        summary: The same in a sentence.
    """
    axis = {"title": None, "labelLimit": 140, "labelOverlap": False}
    spec = {
        "data": {"values": list(points)},
        "mark": {"type": "rect"},
        "height": max(240, 28 * len(order) + 80),
        "encoding": {
            "x": {"field": "first", "type": "nominal", "sort": list(order), "axis": {**axis, "labelAngle": -40}},
            "y": {"field": "second", "type": "nominal", "sort": list(order), "axis": axis},
            "color": {
                "field": "distance", "type": "quantitative", "scale": {"scheme": "teals", "domainMin": 0},
                "legend": {"title": "distance", "format": "%"},
            },
            "tooltip": [{"field": "first"}, {"field": "second"}, {"field": "distance", "format": ".1%"}],
        },
    }  # fmt: skip
    _draw(spec, key=key, summary=summary)


def stack(points: Points, *, order: Sequence[str], key: str, summary: str) -> None:
    """ε of each purpose, one bar a node.

    Args:
        points: Fields "node", "purpose", "epsilon" and "place", the purpose's in `order`.
        order: The purposes as they stand.
        key: Tells the chart from others.
        summary: The same in a sentence.
    """
    bars = len({point["node"] for point in points})
    spec = {
        "data": {"values": list(points)},
        "mark": {"type": "bar"},
        # Streamlit fits axis and legend into it.
        "height": 30 * bars + 18 * len(order) + 125,
        "encoding": {
            "y": {"field": "node", "type": "nominal", "axis": {"title": None, "labelLimit": 120}},
            "x": {
                "field": "epsilon", "type": "quantitative",
                "axis": {"title": "ε, each purpose by itself", "tickCount": 6},
            },
            "order": {"field": "place"},
            "color": {
                "field": "purpose", "type": "nominal", "sort": list(order), "scale": {"scheme": "tableau10"},
                "legend": {"orient": "bottom", "title": None, "columns": 1, "labelLimit": 280},
            },
            "tooltip": [{"field": "node"}, {"field": "purpose"}, {"field": "epsilon", "format": ".4f"}],
        },
    }  # fmt: skip
    _draw(spec, key=key, summary=summary)


def _draw(spec: dict[str, Any], *, key: str, summary: str) -> None:
    st.vega_lite_chart({**spec, "description": summary}, key=key)
