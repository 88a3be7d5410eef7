"""Generate data: order a table, see it, take it along with its data card."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from aevorium.client import ApiProblem
from aevorium.client.answers import DatasetView, ModelView
from aevorium.dashboard import paging, session
from aevorium.dashboard.choosing import choose_model, models
from aevorium.dashboard.states import allowed, live, problem_text
from aevorium.dashboard.wording import STATES, count, moment, names, plain, table

__all__ = ["page"]

_UNBALANCED = "no column"
_MOST_ROWS = 1_000_000
_PREVIEW = 100
_LONG = 30
"""Letters of a column's name beyond which it does not decide how wide the column is shown."""

_FIELD_OF: Mapping[str, str] = {
    "EXPRESSION_INVALID": "where",
    "CONDITION_UNSATISFIABLE": "where",
    "CONFIG_INVALID": "balance",
    "body.where": "where",
    "body.rows": "rows",
    "body.balance": "balance",
    "body.seed": "seed",
}
"""Which field of the form a code, or a field of the request, speaks of."""


def page() -> None:
    """Draws the page."""
    st.markdown("Rows are drawn from a run's model. They cost no privacy budget, however many.")
    found = models()
    if found:
        if allowed("generate", "order tables"):
            _order(found)
        _tables()


def _order(found: list[ModelView]) -> None:
    model = choose_model(found, key="generate-model")
    errors: dict[str, str] = st.session_state.get("_order_errors", {})
    with st.form("order-table"):
        left, right = st.columns(2)
        with left:
            rows = st.number_input(
                "Rows", min_value=1, max_value=_MOST_ROWS, value=None, step=100,
                placeholder=f"as many as patients, about {count(model.patients)}",
            )  # fmt: skip
            _error(errors, "rows")
            where = st.text_input(
                "Only rows that meet", placeholder="no condition", max_chars=2000,
                help="As in Age > 65 and Diagnosis == 'Diabetes'. Comparisons joined by and, or, not; texts in quotes.",
            )  # fmt: skip
            _error(errors, "where")
            st.caption(f"Columns: {plain(names(model.columns))}")
        with right:
            balance = st.selectbox("Equal numbers for each category of", [_UNBALANCED, *model.columns])
            _error(errors, "balance")
            seed = st.number_input("Seed", min_value=0, value=0, step=1, help="The same seed makes the same rows.")
            _error(errors, "seed")
            form = st.radio("Format", ["csv", "parquet"], horizontal=True)
        is_sent = st.form_submit_button("Make the table", type="primary")
        _error(errors, "")
    if not is_sent:
        return
    st.session_state["_order_errors"] = {}
    try:
        ordered = session.api().order_table(
            run=model.id,
            rows=None if rows is None else int(rows),
            where=where.strip() or None,
            balance=None if balance == _UNBALANCED else balance,
            seed=int(seed),
            format="parquet" if form == "parquet" else "csv",
        )
    except ApiProblem as problem:
        if problem.status not in (400, 422):
            raise
        st.session_state["_order_errors"] = _at_fields(problem)
    else:
        st.session_state["_table"] = ordered.id
        st.session_state.pop("_at_tables", None)
    st.rerun()


def _at_fields(problem: ApiProblem) -> dict[str, str]:
    """What is wrong, by the field of the form that it speaks of; "" if it speaks of none."""
    if problem.invalid:
        return {_FIELD_OF.get(field, ""): plain(reason) for field, reason in problem.invalid.items()}
    return {_FIELD_OF.get(problem.code, ""): problem_text(problem)}


def _error(errors: Mapping[str, str], field: str) -> None:
    if field in errors:
        st.error(errors[field])


def _tables() -> None:
    st.header("Tables")
    made = session.api().table_page(before=paging.position("tables"), limit=paging.LINES)
    if not made.datasets:
        st.info("No table has been ordered yet. Fill in the form above.")
        return
    known = [one.id for one in made.datasets]
    wanted = st.session_state.get("_table")
    chosen: DatasetView = st.selectbox(
        "Table", made.datasets, format_func=_label, index=known.index(wanted) if wanted in known else 0
    )
    paging.turn("tables", following=made.next)
    st.session_state["_table"] = chosen.id
    if chosen.has_ended:
        _ended(chosen)
    else:
        live(_progress, seconds=1)(chosen.id)


def _label(made: DatasetView) -> str:
    order = made.order
    rows = made.rows or order.get("rows")
    size = f"{rows:,} rows" if rows else "as many rows as patients"
    where = f", where {order['where']}" if order.get("where") else ""
    return f"{size}{where}, {STATES[made.state]}, {moment(made.created_at)} ({made.id[:6]})"


def _progress(table_id: str) -> None:
    api = session.api()
    made = api.table(table_id)
    if made.has_ended:
        st.rerun()
    steps = [event for event in api.table_story(table_id) if event.name == "step_progress" and event.data["total"]]
    if steps:
        last = steps[-1].data
        st.progress(min(1.0, last["done"] / last["total"]), text=f"{last['done']:,} of {last['total']:,} rows")
    else:
        st.progress(0.0, text="It waits its turn.")
    if st.button("Stop", disabled=made.is_stop_requested):
        api.stop_table(table_id)
        st.rerun(scope="fragment")


def _ended(made: DatasetView) -> None:
    if made.error is not None:
        st.error(plain(f"{made.error.message} {made.error.hint}"))
        return
    if made.state == "stopped":
        st.info("It was stopped. No file is left.")
        return
    api, kind = session.api(), str(made.order["format"])
    with st.container(horizontal=True):
        st.download_button(
            f"Download ({kind}, {_size(made.bytes or 0)})", data=lambda: api.download(made.id), type="primary",
            file_name=f"synthetic-{made.id}.{kind}", mime="text/csv" if kind == "csv" else "application/octet-stream",
            on_click="ignore",
        )  # fmt: skip
        card = api.card_page(made.id)
        st.download_button(
            "Data card", data=card, file_name=f"synthetic-{made.id}.card.md", mime="text/markdown", on_click="ignore"
        )
    shown = api.preview(made.id, rows=_PREVIEW)
    st.caption(f"The first {len(shown.rows):,} of {count(made.rows)} rows. None in grey is an empty cell.")
    long = [name for name in shown.columns if len(name) > _LONG]
    st.dataframe(
        [dict(zip(shown.columns, row, strict=True)) for row in shown.rows], hide_index=True, height=320, key="preview",
        column_config={name: st.column_config.Column(width="medium") for name in long},
    )  # fmt: skip
    with st.expander("Data card"):
        _card(made.id)


def _size(many: int) -> str:
    return f"{many / 1e6:,.1f} MB" if many >= 1e6 else f"{many / 1e3:,.1f} kB"


def _card(table_id: str) -> None:
    card = session.api().card(table_id)
    for caution in card.cautions:
        st.markdown(f"- {plain(caution)}")
    table(
        ("fact", "value"),
        [
            ("File", f"{card.file}, {card.rows:,} rows"),
            ("SHA-256", card.sha256),
            ("Study", f"{card.study}, run {card.run}"),
            ("Privacy", f"ε = {card.epsilon}, δ = {card.delta:g} for one {card.unit}, trust {card.trust}"),
            ("Nodes", names(card.nodes)),
            ("Condition", card.where or "none"),
            ("Balanced by", card.balance or "nothing"),
            ("Seed", str(card.seed)),
        ],
    )
    table(
        ("column", "kind", "values", "empty cells"),
        [
            (str(one["name"]), str(one["kind"]), str(one["values"]), "yes" if one["can_be_missing"] else "no")
            for one in card.columns
        ],
    )
