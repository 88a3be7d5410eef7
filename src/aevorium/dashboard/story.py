"""How a run goes on: its events, kept in the session, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from aevorium.client import Event
from aevorium.client.answers import RunView
from aevorium.dashboard import charts, session
from aevorium.dashboard.wording import STATES, epsilon, names, plain, table

__all__ = ["draw", "rounds_of", "story_of"]


def story_of(run_id: str) -> list[Event]:
    """All that a run has told; what was read once is not asked for again."""
    stories: dict[str, list[Event]] = st.session_state.setdefault("_stories", {})
    known = stories.setdefault(run_id, [])
    if known and known[-1].name == "ended":
        return known
    after = next((event.number for event in reversed(known) if event.number is not None), 0)
    known.extend(session.api().run_story(run_id, after=after))
    return known


def rounds_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Its rounds, each with number, charged loss and ε."""
    return [dict(event.data) for event in events if event.name == "round_finished"]


def draw(run: RunView, events: Sequence[Event], *, key: str) -> None:
    """Draws where a run is: phase, progress, charged loss and ε after each round."""
    phases = [str(event.data["phase"]) for event in events if event.name == "phase_started"]
    rounds = rounds_of(events)
    columns = st.columns(4)
    if phases and not run.has_ended:
        columns[0].metric("Phase", plain(phases[-1]))
    else:
        columns[0].metric("State", STATES[run.state])
    spent = rounds[-1]["spent"] if rounds else (run.result or {}).get("epsilon")
    columns[1].metric(
        "ε spent", epsilon(spent), help="At the node that spent most. Known after a round, or at the end."
    )
    if rounds:
        columns[2].metric("Round", f"{rounds[-1]['round']:,} of {rounds[-1]['rounds']:,}")
        columns[3].metric("Charged loss", f"{rounds[-1]['loss']:.3f}")
    if not run.has_ended:
        if phases[:-1]:
            st.caption(f"Done: {plain(names(phases[:-1]))}")
        _progress(events, rounds)
    elif run.state == "succeeded" and not rounds:
        st.caption("It had no rounds of private training: its budget went into the released tables.")
    if len(rounds) > 1:
        _charts(rounds, target=run.epsilon, key=key)


def _progress(events: Sequence[Event], rounds: Sequence[dict[str, Any]]) -> None:
    if not events:
        st.caption("It waits its turn. One run goes on at a time.")
        return
    last = events[-1]
    if last.name == "step_progress" and last.data["total"]:
        done = min(1.0, last.data["done"] / last.data["total"])
        st.progress(done, text=f"{plain(str(last.data['label']))}: {last.data['done']:,} of {last.data['total']:,}")
    elif last.name == "nodes_online":
        st.caption(f"{len(last.data['names'])} of {last.data['needed']} nodes are there.")
    elif rounds:
        rest = rounds[-1]["remaining"]
        st.progress(min(1.0, rounds[-1]["round"] / rounds[-1]["rounds"]), text=f"about {rest:,.0f} s to the last round")


def _charts(rounds: Sequence[dict[str, Any]], *, target: float | str | None, key: str) -> None:
    left, right = st.columns(2)
    with left:
        st.markdown("**Charged loss after each round**")
        points = [{"round": one["round"], "value": one["loss"]} for one in rounds]
        charts.line(points, x="round", y="value", title="loss", key=f"{key}-loss", summary=_trend(rounds, "loss"))
        noise = max(one["loss_noise"] for one in rounds)
        st.caption(f"With privacy noise: standard deviation up to {noise:.3f}.")
    with right:
        st.markdown("**ε spent, at the node that spent most**")
        points = [{"round": one["round"], "value": one["spent"]} for one in rounds]
        limit = None if target is None or float(target) == float("inf") else float(target)
        charts.line(
            points, x="round", y="value", title="ε", key=f"{key}-eps", limit=limit, summary=_trend(rounds, "spent")
        )
        st.caption("The line across is the run's target." if limit is not None else "The run has no target.")
    with st.expander("The same as a table"):
        table(
            ("round", "loss", "ε spent", "ε left", "nodes", "seconds"),
            [
                (
                    f"{one['round']:,}",
                    f"{one['loss']:.3f}",
                    epsilon(one["spent"]),
                    f"{one['left']:.3f}",
                    f"{one['nodes_ok']} of {one['nodes_asked']}",
                    f"{one['seconds']:,.1f}",
                )
                for one in rounds[-200:]
            ],
            numbers=("round", "loss", "ε spent", "ε left", "seconds"),
        )


def _trend(rounds: Sequence[dict[str, Any]], field: str) -> str:
    return f"From {rounds[0][field]:.3f} after the first round to {rounds[-1][field]:.3f} after round {len(rounds)}."
