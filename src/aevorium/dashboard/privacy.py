"""Privacy budget: what each node has spent, what the server plans, and how many further runs fit."""

from __future__ import annotations

import math

import streamlit as st

from aevorium.client import ApiProblem
from aevorium.client.answers import BudgetPage, Planning
from aevorium.dashboard import paging, planner, session, spending
from aevorium.dashboard.states import allowed, empty, problem_text
from aevorium.dashboard.wording import epsilon, epsilon_left, moment, number_of, plain, table

__all__ = ["page"]


def page() -> None:
    """Draws the page."""
    budget, told = session.api().budget(), session.api().spending()
    st.markdown("Each node keeps its own limit and ledger, and refuses what does not fit. Nothing here changes them.")
    _nodes(budget)
    if budget.nodes or len(told.periods) > 1:
        spending.draw(told)
    _planning(budget.planning)
    _forecast(budget)
    st.header("What would a run cost?")
    if allowed("read", "plan runs") and session.is_signed_in():
        planner.draw()
    st.header("Change the planning view")
    if allowed("budget", "set the planning limit or open a period"):
        left, right = st.columns(2)
        with left:
            _set_limit(budget.planning)
        with right:
            _new_period()


def _nodes(budget: BudgetPage) -> None:
    st.header("Nodes, as of the newest run")
    if not budget.nodes:
        empty(
            "Nothing is spent yet. What nodes spend is known after the first run.", page="training", label="Order a run"
        )
        return
    everything = sorted(budget.nodes.items())
    shown = paging.window("budget-nodes", everything)
    for name, node in shown:
        limit, left = number_of(node.get("limit")), number_of(node.get("left"))
        if limit is None or left is None or math.isinf(limit) or limit <= 0:
            continue
        used = min(1.0, max(0.0, 1 - left / limit))
        spent = f"ε {epsilon(limit - left)} of {epsilon_left(limit)} spent in its period"
        st.progress(used, text=f"{plain(name)}: {spent}, {epsilon_left(left)} left")
    table(
        ("node", "spent in the newest run", "left in the period", "limit", "δ"),
        [
            (
                name,
                epsilon(node.get("spent")),
                epsilon_left(node.get("left")),
                epsilon_left(node.get("limit")),
                f"{node['delta']:g}" if "delta" in node else "–",
            )
            for name, node in shown
        ],
        numbers=("spent in the newest run", "left in the period", "limit", "δ"),
    )
    paging.turn("budget-nodes", following=paging.next_of("budget-nodes", everything), back="Back", forth="More nodes")
    st.caption(
        "Patients of different nodes are different people: the ε of a run is the largest of the nodes', not their sum."
    )


def _planning(planning: Planning) -> None:
    st.header("Planning view of the server")
    ordered = number_of(planning.ordered) or 0.0
    columns = st.columns(4)
    columns[0].metric("Period", plain(planning.period), help=f"Opened {moment(planning.opened_at)}")
    columns[1].metric("ε ordered", epsilon(planning.ordered), help="The sum of the targets of the runs ordered in it.")
    columns[2].metric("Limit", "none" if planning.limit is None else epsilon_left(planning.limit))
    left = None if planning.limit is None else max(0.0, planning.limit - ordered)
    columns[3].metric("Left", "no limit" if left is None else epsilon_left(left))
    st.caption(plain(planning.note))


def _forecast(budget: BudgetPage) -> None:
    st.header("How many further runs fit?")
    target = st.number_input("ε of each run", min_value=0.01, value=1.0, step=0.5, format="%.2f", key="forecast")
    left = {name: number_of(node.get("left")) for name, node in budget.nodes.items()}
    known = {name: value for name, value in left.items() if value is not None}
    lines = []
    if known:
        name = min(known, key=lambda one: known[one])
        lines.append(f"- {_runs(known[name], target)} at node {plain(name)}, which has the least left.")
    planning = budget.planning
    if planning.limit is not None:
        rest = max(0.0, planning.limit - (number_of(planning.ordered) or 0.0))
        lines.append(f"- {_runs(rest, target)} within the planning limit.")
    st.markdown("\n".join(lines) if lines else "No limit is known yet.")
    if known:
        st.caption("By their plain sum. Runs compose to less, so one more may fit: the node decides.")


def _runs(left: float, target: float) -> str:
    """How many runs fit by their plain sum, which never promises too many."""
    if math.isinf(left):
        return "**Any number of runs**"
    fitting = math.floor(left / target + 1e-9)
    if fitting == 0:
        return "**No run**"
    return f"**At least {fitting:,} {'run' if fitting == 1 else 'runs'}**"


def _set_limit(planning: Planning) -> None:
    with st.form("limit"):
        st.markdown("**Limit of this period**")
        limit = st.number_input(
            "ε of all its runs", min_value=0.01, max_value=1e9, value=planning.limit or 10.0, format="%.2f"
        )
        is_open = st.checkbox("No limit", value=False)
        is_sent = st.form_submit_button("Set the limit")
    if is_sent:
        try:
            session.api().set_planning_limit(None if is_open else float(limit))
        except ApiProblem as problem:
            if problem.status not in (400, 422):
                raise
            st.error(problem_text(problem))
            return
        st.toast("The limit is set, and noted in the audit log.")
        st.rerun()


def _new_period() -> None:
    with st.form("period"):
        st.markdown("**New period**")
        label = st.text_input("Its name", placeholder="the next number", max_chars=100)
        limit = st.number_input(
            "Its limit", min_value=0.01, max_value=1e9, value=None, placeholder="as before", format="%.2f"
        )
        is_sure = st.checkbox("Open it. The old one stays in the audit log, and nodes are not affected.")
        is_sent = st.form_submit_button("Open the period")
    if not is_sent:
        return
    if not is_sure:
        st.error("Tick the box to confirm. A period cannot be closed again.")
        return
    try:
        session.api().open_planning_period(label.strip() or None, limit=limit)
    except ApiProblem as problem:
        if problem.status not in (400, 422):
            raise
        st.error(problem_text(problem))
        return
    st.toast("The period is open.")
    st.rerun()
