"""What nodes have spent, by purpose and by planning period, earlier ones included."""

from __future__ import annotations

import math
from collections.abc import Sequence

import streamlit as st

from aevorium.client.answers import NodeSpending, PeriodSpending, SpendingPage
from aevorium.dashboard import charts, paging
from aevorium.dashboard.wording import count, delta, epsilon, epsilon_left, moment, number_of, plain, table

__all__ = ["draw"]

_UNTOLD = "not told apart"


def draw(spending: SpendingPage) -> None:
    """Draws a period that a person chooses, and all of them beside each other.

    Args:
        spending: What the API told.
    """
    st.header("Spent by purpose")
    chosen = spending.periods[0]
    if len(spending.periods) > 1:
        chosen = st.selectbox(
            "Planning period", spending.periods, format_func=_label, key="spending-period", on_change=_first_page
        )
    if not chosen.nodes:
        st.info("Nothing was spent in this period" + (" yet." if chosen.closed_at is None else "."))
    else:
        shown = paging.window("spending-nodes", chosen.nodes)
        _chart(shown, period=chosen.period)
        _purposes(shown)
        following = paging.next_of("spending-nodes", chosen.nodes)
        paging.turn("spending-nodes", following=following, back="Back", forth="More nodes")
        st.caption(plain(spending.composition))
    if len(spending.periods) > 1:
        _periods(spending.periods)


def _first_page() -> None:
    st.session_state.pop("_at_spending-nodes", None)


def _label(period: PeriodSpending) -> str:
    if period.closed_at is None:
        return f"{period.period} (open)"
    return f"{period.period} (until {moment(period.closed_at)})"


def _parts(node: NodeSpending) -> dict[str, float]:
    """ε by purpose, in the order of a run."""
    found = {one.purpose: number_of(one.epsilon) or 0.0 for one in node.purposes}
    untold = number_of(node.untold) or 0.0
    return {**found, _UNTOLD: untold} if untold else found


def _order(nodes: Sequence[NodeSpending]) -> tuple[str, ...]:
    """All purposes that occur, what is not told apart last."""
    found = dict.fromkeys(one.purpose for node in nodes for one in node.purposes)
    return (*found, _UNTOLD) if any(number_of(node.untold) for node in nodes) else tuple(found)


def _chart(nodes: Sequence[NodeSpending], *, period: str) -> None:
    order = _order(nodes)
    points = [
        {"node": node.name, "purpose": purpose, "epsilon": value, "place": order.index(purpose)}
        for node in nodes
        for purpose, value in _parts(node).items()
        if math.isfinite(value)
    ]
    if points:
        most = max(nodes, key=lambda node: number_of(node.spent) or 0.0)
        summary = (
            f"ε of each purpose by itself, by node, in period {period}. Node {most.name} spent most:"
            f" {epsilon(most.spent)} in all. The table below has the numbers."
        )
        charts.stack(points, order=order, key="spending-chart", summary=summary)


def _purposes(nodes: Sequence[NodeSpending]) -> None:
    """Two tables: one with all of it would be wider than the page, and its end out of a keyboard's reach."""
    totals = ("runs", "together", "δ", "left", "limit")
    table(
        ("node", *totals),
        [
            (
                node.name,
                count(node.runs),
                epsilon(node.spent),
                delta(node.delta),
                epsilon_left(node.left),
                epsilon_left(node.limit),
            )
            for node in nodes
        ],
        numbers=totals,
    )
    order, parts = _order(nodes), [(node.name, _parts(node)) for node in nodes]
    rows = [(name, *(epsilon(found[one]) if one in found else "–" for one in order)) for name, found in parts]
    table(("node", *order), rows, numbers=order)


def _periods(periods: Sequence[PeriodSpending]) -> None:
    st.header("Periods")
    shown = paging.window("spending-periods", periods)
    numbers = ("runs", "most spent by a node", "might be ordered")
    table(
        ("period", "opened", "closed", *numbers),
        [
            (
                period.period,
                moment(period.opened_at) if period.opened_at else "from the start",
                moment(period.closed_at) if period.closed_at else "open",
                count(max((node.runs for node in period.nodes), default=0)),
                epsilon(max((number_of(node.spent) or 0.0 for node in period.nodes), default=0.0)),
                "no limit" if period.limit is None else epsilon_left(period.limit),
            )
            for period in shown
        ],
        numbers=numbers,
    )
    following = paging.next_of("spending-periods", periods)
    paging.turn("spending-periods", following=following, back="Newer", forth="Earlier")
