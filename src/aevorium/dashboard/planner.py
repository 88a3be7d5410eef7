"""The what-if planner: what a run would cost, phase by phase, before any record is read."""

from __future__ import annotations

from typing import Any

import streamlit as st

from aevorium.client import ApiProblem
from aevorium.client.answers import PlanView, StudyView
from aevorium.dashboard import session
from aevorium.dashboard.states import problem_text
from aevorium.dashboard.wording import count, epsilon, plain, table

__all__ = ["choose_study", "draw", "study_label"]

RECIPES = ("warm-start", "dp-sgd")
TRUSTS = ("local", "secure-aggregation")
RECIPE_HELP = "warm-start: noisy tables first, private training where it pays. dp-sgd: private training alone."
TRUST_HELP = "local: each node adds all its noise. secure-aggregation: three nodes or more, their sum alone is opened."
BUNDLED = "the bundled schema of Synthea exports"


def study_label(study: StudyView | None) -> str:
    """A study in one line."""
    return BUNDLED if study is None else f"{study.name} ({study.id[:6]})"


def choose_study(*, key: str) -> StudyView | None:
    """Asks for a study; None is the bundled schema."""
    chosen: StudyView | None = st.selectbox(
        "Schema of", [None, *session.api().studies()], format_func=study_label, key=key
    )
    return chosen


def draw() -> None:
    """Draws the form and, once it was sent, the plan."""
    with st.form("plan"):
        study = choose_study(key="plan-study")
        left, middle, right = st.columns(3)
        with left:
            target = st.slider("Target ε", 0.1, 20.0, 3.0, 0.1)
            delta = st.selectbox("δ", [1e-4, 1e-5, 1e-6, 1e-7], index=1, format_func=lambda value: f"{value:g}")
        with middle:
            records = st.number_input("Records of all nodes", min_value=1, max_value=10**9, value=2000, step=500)
            nodes = st.number_input("Nodes", min_value=1, max_value=1000, value=3)
        with right:
            recipe = st.selectbox("Recipe", RECIPES, help=RECIPE_HELP)
            trust = st.selectbox("Trust", TRUSTS, help=TRUST_HELP)
        is_sent = st.form_submit_button("Plan it")
    if is_sent:
        choices: dict[str, Any] = {"epsilon": target, "delta": delta, "recipe": recipe, "trust": trust}
        try:
            plan = session.api().plan(
                records=int(records),
                nodes=int(nodes),
                schema_text=None if study is None else study.schema_text,
                choices=choices,
            )
        except ApiProblem as problem:
            if problem.code in ("API_UNREACHABLE", "UNAUTHENTICATED", "FORBIDDEN"):
                raise
            st.error(problem_text(problem))
            return
        _plan(plan)


def _plan(plan: PlanView) -> None:
    trains = "with" if plan.has_private_training else "without"
    st.markdown(
        f"**ε {epsilon(plan.epsilon)}** at δ {plan.delta:g}, for {count(plan.records)} records at {count(plan.nodes)}"
        f" nodes, {trains} private training. No record was read for it."
    )
    table(
        ("phase", "mechanism", "parameters", "ε by itself"),
        [(one.phase, one.mechanism, one.parameters, epsilon(one.epsilon)) for one in plan.phases],
        numbers=("ε by itself",),
    )
    st.caption("Together the phases cost less than their sum.")
    for view in plan.views:
        st.markdown(f"- {plain(view.viewer)}: ε {epsilon(view.epsilon)}. {plain(view.reason)}.")
