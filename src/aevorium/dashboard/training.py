"""Training history: order a run, watch it, stop it, compare two, read a model's card."""

from __future__ import annotations

import streamlit as st

from aevorium.client.answers import ModelView, RunView
from aevorium.dashboard import comparing, ordering, paging, session, story
from aevorium.dashboard.choosing import choose_model
from aevorium.dashboard.states import allowed, ends_here, live
from aevorium.dashboard.wording import STATES, count, delta, epsilon, epsilon_left, moment, names, plain, table

__all__ = ["page"]


def page() -> None:
    """Draws the page."""
    history, order, cards, compare = st.tabs(["Runs", "Order a run", "Models", "Compare two"])
    with history:
        _history()
    with order, ends_here(key="ordering"):
        if allowed("run", "order runs"):
            ordering.draw()
    with cards, ends_here(key="cards"):
        _models()
    with compare, ends_here(key="comparing"):
        comparing.draw()


def _history() -> None:
    found = session.api().run_page(before=paging.position("runs"), limit=paging.LINES)
    if not found.runs:
        st.info("No run has been ordered here yet. The next tab orders the first; models of other runs are in Models.")
        return
    table(
        ("run", "ordered", "ε", "recipe", "state", "by"),
        [
            (
                run.id[:6],
                moment(run.created_at),
                epsilon(run.epsilon),
                str(run.choices.get("recipe") or "as set"),
                STATES[run.state],
                run.actor,
            )
            for run in found.runs
        ],
        numbers=("ε",),
    )
    paging.turn("runs", following=found.next)
    known = [run.id for run in found.runs]
    wanted = st.session_state.get("_run")
    chosen: RunView = st.selectbox(
        "Look at", found.runs, format_func=_label, index=known.index(wanted) if wanted in known else 0
    )
    st.session_state["_run"] = chosen.id
    if chosen.has_ended:
        _ended(chosen)
    else:
        live(_going, seconds=2)(chosen.id)


def _label(run: RunView) -> str:
    return f"{run.id[:6]}, ε {epsilon(run.epsilon)}, {STATES[run.state]}, {moment(run.created_at)}"


def _going(run_id: str) -> None:
    run = session.api().run(run_id)
    if run.has_ended:
        st.rerun()
    story.draw(run, story.story_of(run_id), key="going")
    if run.is_stop_requested:
        st.caption("It was asked to stop, and does so after the exchange that goes on.")
    elif session.may("run"):
        is_sure = st.checkbox("Stop it. What nodes have released stays charged.", key="stop-sure")
        if st.button("Stop the run", disabled=not is_sure):
            session.api().stop_run(run_id)
            st.rerun(scope="fragment")


def _ended(run: RunView) -> None:
    if run.error is not None:
        st.error(plain(f"{run.error.message} {run.error.hint}"))
    if run.state == "stopped":
        st.info("It was stopped. What nodes had released stays charged.")
    story.draw(run, story.story_of(run.id), key="ended")
    chosen = {name: value for name, value in run.choices.items() if value is not None}
    with st.expander("What was ordered"):
        table(("choice", "value"), [(name.replace("_", " "), str(value)) for name, value in sorted(chosen.items())])
    if run.has_results:
        _card(session.api().model(run.id), key="run-card")


def _models() -> None:
    """Every model, also of runs that were ordered elsewhere."""
    found = session.api().models()
    if found:
        _card(choose_model(found, key="card-model", label="Model"), key="model-card")
    else:
        st.info("There is no model yet. It is what a run leaves behind.")


def _card(model: ModelView, *, key: str) -> None:
    """The model card."""
    st.header("Model card")
    checkpoints = [f"round {number:,}" if number else "pre-training" for number in model.checkpoints]
    many = f"{len(checkpoints):,}: {names(checkpoints[:10])}" + (", …" if len(checkpoints) > 10 else "")
    table(
        ("fact", "value"),
        [
            ("Study", f"{model.study}, schema {model.schema_hash[:16]}"),
            ("Purpose", model.purpose),
            ("Columns", f"{len(model.columns):,}: {names(model.columns)}"),
            ("Target", model.target or "none"),
            ("Recipe, trust", f"{model.recipe}, {model.trust}"),
            ("Privacy", f"ε {epsilon(model.epsilon)}, δ {delta(model.delta)}"),
            ("Patients", f"{count(model.patients)} by noisy counts{', all simulated' if model.is_simulated else ''}"),
            ("State", f"{model.status}, {moment(model.started_at)} to {moment(model.finished_at)}"),
            ("Checkpoints", many),
            ("Versions", names([f"{name} {version}" for name, version in sorted(model.versions.items())])),
        ],
    )
    nodes = model.nodes[: paging.LINES]
    table(
        ("node", "patients, noisy", "ε spent", "ε left"),
        [
            (str(one["name"]), count(one.get("count")), epsilon(one.get("spent")), epsilon_left(one.get("left")))
            for one in nodes
        ],
        numbers=("patients, noisy", "ε spent", "ε left"),
    )
    if len(model.nodes) > len(nodes):
        st.caption(f"{len(nodes)} of {len(model.nodes):,} nodes; all are in the file.")
    st.download_button(
        "Download the card", data=model.model_dump_json(indent=1), file_name=f"model-{model.id}.json",
        mime="application/json", on_click="ignore", key=key,
    )  # fmt: skip
