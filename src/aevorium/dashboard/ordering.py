"""Ordering a run."""

from __future__ import annotations

from typing import Any

import streamlit as st

from aevorium.client import ApiProblem
from aevorium.client.answers import StudyView
from aevorium.dashboard import session
from aevorium.dashboard.planner import RECIPE_HELP, RECIPES, TRUST_HELP, TRUSTS, study_label
from aevorium.dashboard.states import problem_text

__all__ = ["draw"]


def draw() -> None:
    """Draws the form, and orders what it says."""
    st.markdown("A run that does not fit a node's budget is refused by the node, before it reads a record.")
    study: StudyView | None = st.selectbox(
        "Study", [None, *session.api().studies()], key="order-study",
        format_func=lambda study: study_label(study) if study else "none: what is chosen below",
        help="A study has its schema and privacy target already.",
    )  # fmt: skip
    with st.form("order-run"):
        if study is None:
            schema, choices = _choices()
        else:
            schema, choices = None, None
            st.markdown("The study says how it is run. Another target is another study.")
        is_sent = st.form_submit_button("Order the run", type="primary")
    if not is_sent:
        return
    try:
        if study is None:
            ordered = session.api().order_run(schema_text=schema, choices=choices)
        else:
            ordered = session.api().order_run(study=study.id)
    except ApiProblem as problem:
        if problem.code in ("API_UNREACHABLE", "UNAUTHENTICATED", "FORBIDDEN"):
            raise
        st.error(problem_text(problem))
        return
    st.session_state["_run"] = ordered.id
    st.session_state.pop("_at_runs", None)
    st.toast("The run is ordered. The first tab shows how it goes.")
    st.rerun()


def _choices() -> tuple[str | None, dict[str, Any]]:
    file = st.file_uploader("Schema (TOML)", type=["toml"], help="None: the bundled schema of Synthea exports.")
    left, right = st.columns(2)
    with left:
        target = st.number_input("Target ε", min_value=0.01, max_value=1e6, value=3.0, step=0.5, format="%.2f")
        delta = st.number_input("δ", min_value=1e-12, max_value=0.5, value=1e-5, format="%.0e")
        records = st.number_input(
            "Records of all nodes", min_value=1, max_value=10**9, value=None, placeholder="a noisy count is taken",
            help="Only what is publicly known anyway.",
        )  # fmt: skip
    with right:
        recipe = st.selectbox("Recipe", RECIPES, key="order-recipe", help=RECIPE_HELP)
        trust = st.selectbox("Trust", TRUSTS, key="order-trust", help=TRUST_HELP)
        share = st.number_input(
            "Share for evaluation", min_value=0.0, max_value=0.5, value=0.0, step=0.05,
            help="The part of ε that is spent on scoring pairs of columns.",
        )  # fmt: skip
    purpose = st.text_input("Purpose", value="synthetic data", max_chars=200)
    choices: dict[str, Any] = {
        "epsilon": float(target),
        "delta": float(delta),
        "recipe": recipe,
        "trust": trust,
        "evaluation_share": float(share),
        "purpose": purpose.strip() or "synthetic data",
    }
    if records is not None:
        choices["records"] = int(records)
    return None if file is None else file.getvalue().decode("utf-8", errors="replace"), choices
