"""Data quality: scores, overlays of single columns, distances of pairs, and the whole report."""

from __future__ import annotations

import html
from typing import Any

import streamlit as st

from aevorium.client.answers import ModelView
from aevorium.dashboard import charts, session
from aevorium.dashboard.choosing import choose_model, models
from aevorium.dashboard.wording import VERDICTS, plain, table

__all__ = ["framed", "page"]


def page() -> None:
    """Draws the page."""
    found = models()
    if not found:
        return
    model = choose_model(found, key="quality-model")
    report = session.api().report(model.id)
    for warning in report["study"].get("warnings", []):
        st.warning(plain(str(warning)))
    scores, overlays, pairs, whole = st.tabs(["Scores", "Columns", "Pairs", "Report"])
    with scores:
        _scores(report["card"])
    with overlays:
        _overlays(report["overlays"])
    with pairs:
        _pairs(report)
    with whole:
        _whole(model)


def _scores(card: dict[str, Any]) -> None:
    st.caption(f"Compared with {plain(str(card['compared_with']))}.")
    table(
        ("score", "verdict", "value", "better is", "interval", "reference"),
        [
            (
                str(one["title"]),
                VERDICTS.get(one["verdict"], one["verdict"]),
                f"{one['value']:.3f}",
                str(one["direction"]).removesuffix(" is better"),
                "–" if one["interval"] is None else f"{one['interval'][0]:.3f} to {one['interval'][1]:.3f}",
                "–" if one["reference"] is None else f"{one['reference']:.3f}, {one['reference_name']}",
            )
            for one in card["scores"]
        ],
        numbers=("value",),
    )
    with st.expander("How to read them"):
        for one in card["scores"]:
            rule = one["thresholds"]
            title, reading = plain(one["title"]), plain(f"{one['reading']} {rule[:1].upper()}{rule[1:]}.")
            st.markdown(f"**{title}** ({plain(one['direction'])}). {reading}")
    for note in card.get("notes", []):
        st.caption(plain(str(note)))
    st.caption(
        "Scores say how close the rows are. They prove no privacy: the privacy statement does. Utility for a question"
        " and closeness to real records are measured where the records are: aevorium validate --real."
    )


def _overlays(overlays: list[dict[str, Any]]) -> None:
    if not overlays:
        st.info("This run released no table of single columns.")
        return
    chosen = st.selectbox("Column", overlays, format_func=lambda one: str(one["column"]), key="quality-column")
    labels, reference, synthetic, band = chosen["labels"], chosen["reference"], chosen["synthetic"], chosen["band"]
    points: list[dict[str, Any]] = []
    for label, real, made, noise in zip(labels, reference, synthetic, band, strict=True):
        low, high = max(0.0, real - noise), real + noise
        points.append({"label": label, "share": real, "low": low, "high": high, "table": "released, with noise"})
        points.append({"label": label, "share": made, "low": None, "high": None, "table": "synthetic"})
    summary = f"{100 * chosen['distance']:.1f}% of the rows would have to move for this column to match."
    charts.overlay(points, order=labels, key="quality-overlay", summary=summary)
    st.caption(f"{summary} Lines on the grey bars: 95% of the noise that the nodes added.")
    with st.expander("The same as a table"):
        table(
            ("value", "released", "noise ±", "synthetic"),
            [
                (str(label), f"{real:.3f}", f"{noise:.3f}", f"{made:.3f}")
                for label, real, made, noise in zip(labels, reference, synthetic, band, strict=True)
            ],
            numbers=("released", "noise ±", "synthetic"),
        )


def _pairs(report: dict[str, Any]) -> None:
    """Pairs by the evaluation's tables if the run paid for any, else by those that the model was made from."""
    comparison = report.get("comparison") or {}
    evaluated = comparison.get("pairs", [])
    pairs = evaluated or report.get("pairs", [])
    if not pairs:
        st.info(
            "This run has no tables of pairs that stand out of their noise. Order one with a share for evaluation, such"
            " as 0.1; or compare with real rows where they are: `aevorium validate --real`."
        )
        return
    of = "all patients, from which the model was made"
    if evaluated:
        of = "patients held out" if comparison["is_holdout"] else "all patients"
    points, lines = [], []
    for one in pairs:
        first, second = one["columns"]
        points += [
            {"first": first, "second": second, "distance": max(0.0, one["corrected"])},
            {"first": second, "second": first, "distance": max(0.0, one["corrected"])},
        ]
        told = (one["corrected"], 1.96 * one["deviation"], one["measured"], one["noise"])
        lines.append((one["corrected"], (f"{first}, {second}", *(f"{value:.3f}" for value in told))))
    lines.sort(key=lambda line: -line[0])
    worst = lines[0][1]
    summary = (
        f"Distance of pairs to noisy tables of {of}, without what noise adds on average. The largest is {worst[1]}"
        f" ± {worst[2]}, of {worst[0]}. What is blank was not measured."
    )
    order = sorted({str(point["first"]) for point in points})
    charts.heat(points, order=order, key="quality-pairs", summary=summary)
    st.caption(plain(summary))
    with st.expander("The same as a table, largest first"):
        header = ("pair", "distance", "95% ±", "with noise", "noise alone")
        table(header, [line for _, line in lines[:100]], numbers=header[1:])


def _whole(model: ModelView) -> None:
    st.markdown("One page that needs no network, for colleagues and for print.")
    api = session.api()
    if st.toggle("Show it here", key="quality-show"):
        st.iframe(framed(api.report_page(model.id)), height=900)
    st.download_button(
        "Download the report", data=lambda: api.report_page(model.id), file_name=f"report-{model.id}.html",
        mime="text/html", on_click="ignore",
    )  # fmt: skip


def framed(report: str) -> str:
    """The report in a frame of no origin: its scripts draw charts, and reach neither this page nor its key."""
    content = html.escape(report, quote=True)
    return (
        "<style>html,body{margin:0;height:100%}iframe{border:0;width:100%;height:100%}</style>"
        f'<iframe sandbox="allow-scripts" title="Report of the run" srcdoc="{content}"></iframe>'
    )
