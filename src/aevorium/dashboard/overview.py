"""Overview: whether all works, what goes on, and what needs attention."""

from __future__ import annotations

import time
from collections.abc import Sequence

import streamlit as st

from aevorium.client import ApiProblem
from aevorium.client.answers import BudgetPage, NodeView, RunView, Verification
from aevorium.dashboard import session, story
from aevorium.dashboard.states import empty, live
from aevorium.dashboard.wording import STATES, count, epsilon, epsilon_left, moment, names, number_of, plain, table

__all__ = ["page"]

_NEARLY = 0.1
"""A node with less than this part of its limit left is named."""

_LISTED = 5
"""As many runs, nodes and names are listed."""

_VERIFIED_FOR = 300.0
"""Seconds that a verification counts: it recomputes ε from the ledgers."""


def page() -> None:
    """Draws the page."""
    api = session.api()
    health = api.health()
    budget = api.budget()
    if not session.is_signed_in():
        _figures(health.version, nodes=len(budget.nodes) or None, spent=_highest(budget), runs="–")
        _attention([], budget, is_signed_in=False)
        st.info("Sign in to see runs and nodes, and to order data. The key is made with `aevorium api key create`.")
        return
    runs = api.run_page(limit=20).runs
    nodes = api.nodes()
    running = [run for run in runs if not run.has_ended]
    _figures(health.version, nodes=len(nodes), spent=_highest(budget), runs=count(len(running)))
    if not runs and not health.has_run:
        empty(
            "No run has been ordered yet. Plan one and order it; rows, report and statement follow.",
            page="training",
            label="Order a run",
        )
    elif not runs:
        empty(
            "This workspace holds a finished run, ordered on the command line. Draw rows from its model.",
            page="generate",
            label="Generate data",
        )
    active = next((run for run in running if run.state == "running"), running[-1] if running else None)
    if active is not None:
        st.header("Running now")
        live(_running, seconds=2)(active.id)
    _attention(runs, budget, is_signed_in=True)
    if runs:
        _latest(runs[:_LISTED])
    if nodes:
        _nodes(nodes[:_LISTED], many=len(nodes))


def _highest(budget: BudgetPage) -> str:
    spent = [number_of(node.get("spent")) or 0.0 for node in budget.nodes.values()]
    return epsilon(max(spent)) if spent else "–"


def _figures(version: str, *, nodes: int | None, spent: str, runs: str) -> None:
    columns = st.columns(4)
    columns[0].metric("API", "works", help=f"Version {version}")
    columns[1].metric("Nodes", count(nodes))
    columns[2].metric("ε of the newest run", spent, help="At the node that spent most. Patients of nodes differ.")
    columns[3].metric("Runs going on", runs, help="Running, or waiting their turn.")


def _running(run_id: str) -> None:
    run = session.api().run(run_id)
    if run.has_ended:
        st.rerun()
    st.caption(f"Run {run.id}, target ε {epsilon(run.epsilon)}, ordered {moment(run.created_at)}")
    story.draw(run, story.story_of(run_id), key="running")


def _attention(runs: Sequence[RunView], budget: BudgetPage, *, is_signed_in: bool) -> None:
    st.header("Needs attention")
    found = [*_failed(runs), *_near_limit(budget), *_overdrawn(budget)]
    for text in found:
        st.warning(text)
    broken = _broken(is_signed_in=is_signed_in)
    for text in broken:
        st.error(text)
    if not found and not broken:
        st.markdown("Nothing.")


def _failed(runs: Sequence[RunView]) -> list[str]:
    """The newest run, if it failed: older failures are history."""
    newest = next((run for run in runs if run.has_ended), None)
    if newest is None or newest.state != "failed" or newest.error is None:
        return []
    return [f"Run {newest.id[:6]} failed. {plain(newest.error.message)} {plain(newest.error.hint)}"]


def _near_limit(budget: BudgetPage) -> list[str]:
    found = []
    for name, node in budget.nodes.items():
        limit, left = number_of(node.get("limit")), number_of(node.get("left"))
        if limit is not None and left is not None and left < _NEARLY * limit:
            found.append(f"{plain(name)} (ε {epsilon_left(left)} of {epsilon_left(limit)})")
    if not found:
        return []
    more = f" and {len(found) - _LISTED:,} more" if len(found) > _LISTED else ""
    return [f"Little is left in this period at {names(found[:_LISTED])}{more}. A node's steward can open a new one."]


def _overdrawn(budget: BudgetPage) -> list[str]:
    planning = budget.planning
    ordered = number_of(planning.ordered) or 0.0
    if planning.limit is None or ordered < planning.limit:
        return []
    return ["The planning limit of this period is reached. A steward can raise it, or open a new period."]


def _broken(*, is_signed_in: bool) -> list[str]:
    if not is_signed_in:
        try:
            session.api().audit_log(limit=1)
        except ApiProblem as problem:
            if problem.code == "AUDIT_BROKEN":
                return [plain(f"{problem.detail} {problem.hint}")]
        return []
    if not session.may("audit"):
        return []
    found = _verification()
    if found is None or found.is_sound:
        return []
    return [f"{plain(one.subject)}: {plain(one.text)}" for one in found.checks if one.is_sound is False]


def _verification() -> Verification | None:
    known = st.session_state.get("_verified")
    if known is not None and time.monotonic() - known[0] < _VERIFIED_FOR:
        kept: Verification | None = known[1]
        return kept
    found: Verification | None = None
    with st.spinner("Verifying the audit chain"):
        try:
            found = session.api().verification()
        except ApiProblem as problem:
            if problem.status != 404:
                raise
    st.session_state["_verified"] = (time.monotonic(), found)
    return found


def _latest(runs: Sequence[RunView]) -> None:
    st.header("Latest runs")
    table(
        ("run", "ordered", "ε", "state"),
        [(run.id[:6], moment(run.created_at), epsilon(run.epsilon), STATES[run.state]) for run in runs],
        numbers=("ε",),
    )


def _nodes(nodes: Sequence[NodeView], *, many: int) -> None:
    st.header("Nodes")
    table(
        ("node", "last seen", "ε left", "limit"),
        [(node.name, moment(node.last_seen), epsilon_left(node.left), epsilon_left(node.limit)) for node in nodes],
        numbers=("ε left", "limit"),
    )
    if many > len(nodes):
        st.caption(f"{len(nodes)} of {many:,}. The page Nodes has all.")
