"""Two runs beside each other."""

from __future__ import annotations

from typing import Any

import streamlit as st

from aevorium.client import ApiProblem
from aevorium.client.answers import ModelView
from aevorium.dashboard import charts, session, story
from aevorium.dashboard.choosing import choose_model, models
from aevorium.dashboard.wording import VERDICTS, count, delta, epsilon, moment, table

__all__ = ["draw"]


def draw() -> None:
    """Draws both, what differs first."""
    found = models()
    if not found:
        return
    if len(found) == 1:
        st.info("There is one model only. A second run makes two to compare.")
        return
    left, right = st.columns(2)
    with left:
        first = choose_model(found, key="compare-first", label="First", index=1)
    with right:
        second = choose_model(found, key="compare-second", label="Second", index=0)
    scores = [_scores(first), _scores(second)]
    facts = _facts(first, second)
    for name in dict.fromkeys([*scores[0], *scores[1]]):
        facts.append((name, scores[0].get(name, "–"), scores[1].get(name, "–")))
    facts.sort(key=lambda row: row[1] == row[2])
    table(("fact", f"first ({first.id[:6]})", f"second ({second.id[:6]})"), facts)
    _rounds(first, second)


def _facts(first: ModelView, second: ModelView) -> list[tuple[str, str, str]]:
    def of(model: ModelView) -> dict[str, str]:
        return {
            "Study": model.study,
            "Schema": model.schema_hash[:16],
            "Recipe": model.recipe,
            "Trust": model.trust,
            "ε": epsilon(model.epsilon),
            "δ": delta(model.delta),
            "Nodes": count(len(model.nodes)),
            "Patients, noisy": count(model.patients),
            "Checkpoints": count(len(model.checkpoints)),
            "Started": moment(model.started_at),
            "Version": model.versions.get("aevorium", "–"),
        }

    one, other = of(first), of(second)
    return [(name, one[name], other[name]) for name in one]


def _scores(model: ModelView) -> dict[str, str]:
    try:
        card = session.api().report(model.id)["card"]
    except ApiProblem as problem:
        if problem.status != 404:
            raise
        return {}
    return {
        str(one["title"]): f"{one['value']:.3f} ({VERDICTS.get(one['verdict'], one['verdict'])})"
        for one in card["scores"]
    }


def _rounds(first: ModelView, second: ModelView) -> None:
    points: list[dict[str, Any]] = []
    for name, model in (("first", first), ("second", second)):
        try:
            rounds = story.rounds_of(story.story_of(model.id))
        except ApiProblem as problem:
            if problem.status != 404:
                raise
            continue
        points += [{"run": name, "round": one["round"], "loss": one["loss"], "spent": one["spent"]} for one in rounds]
    if not points:
        st.caption("Neither has rounds of private training.")
        return
    left, right = st.columns(2)
    with left:
        st.markdown("**Charged loss after each round**")
        charts.line(
            points,
            x="round",
            y="loss",
            title="loss",
            series="run",
            key="compare-loss",
            summary="Charged loss of both runs.",
        )
    with right:
        st.markdown("**ε spent**")
        charts.line(
            points, x="round", y="spent", title="ε", series="run", key="compare-eps", summary="ε spent by both runs."
        )
