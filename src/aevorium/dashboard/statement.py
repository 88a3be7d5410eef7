"""Privacy statement: the claim of a run, what it means, and what it rests on."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from aevorium.dashboard import session
from aevorium.dashboard.choosing import choose_model, models
from aevorium.dashboard.wording import epsilon, epsilon_left, moment, names, plain, table

__all__ = ["page"]


def page() -> None:
    """Draws the page."""
    found = models()
    if not found:
        return
    model = choose_model(found, key="statement-model")
    told = session.api().statement(model.id)
    for warning in told.get("warnings", []):
        st.warning(plain(str(warning)))
    if not told.get("is_private", True):
        st.error("This run was made without privacy. Its results are as sensitive as the records.")
    columns = st.columns(3)
    columns[0].metric("ε", epsilon(told["epsilon"]))
    columns[1].metric("δ", f"{float(told['delta']):g}")
    columns[2].metric("Protected", plain(str(told["unit"])))
    st.markdown(f"{plain(str(told['subject']))}: {plain(str(told['covers']))}.")
    st.markdown(f"Neighbouring tables, {plain(str(told['adjacency']))}.")
    _attack(told.get("attack"))
    _views(told)
    _mechanisms(told)
    _list("What it rests on", told.get("assumptions"))
    _list("What is not charged", told.get("uncharged"))
    st.caption(f"Made {moment(told.get('finished_at'))}. Verify it with the button of the audit log.")
    st.download_button(
        "Download as JSON", data=json.dumps(told, ensure_ascii=False, indent=1),
        file_name=f"privacy_statement-{model.id}.json", mime="application/json", on_click="ignore",
    )  # fmt: skip


def _attack(attack: dict[str, Any] | None) -> None:
    if not attack:
        return
    st.header("What it means for an attacker")
    st.markdown("How sure anyone can become that one patient is in the data, whatever else they know:")
    table(
        ("sure before", "sure after, at most"),
        [(_percent(one["prior"]), _percent(one["at_most"])) for one in attack.get("posterior", [])],
        numbers=("sure before", "sure after, at most"),
    )
    exception = attack.get("exception")
    if exception:
        st.caption(f"Except with a probability of at most {exception:g}.")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _views(told: dict[str, Any]) -> None:
    st.header("Who sees what")
    for view in told.get("views", []):
        st.markdown(f"- {plain(str(view['viewer']))}: **ε {epsilon(view['epsilon'])}**, {plain(str(view['why']))}")
    nodes = told.get("nodes", [])
    table(
        ("node", "ε released", "ε left", "limit"),
        [
            (one["name"], epsilon(one["released"]), epsilon_left(one["left"]), epsilon_left(one["limit"]))
            for one in nodes
        ],
        numbers=("ε released", "ε left", "limit"),
    )
    st.caption(plain(f"Of the federation: {told['federation']['rule']}."))


def _mechanisms(told: dict[str, Any]) -> None:
    st.header("Mechanisms")
    table(
        ("phase", "mechanism", "parameters", "nodes"),
        [
            (one["phase"], one["mechanism"], one["parameters"], names(one["nodes"]))
            for one in told.get("mechanisms", [])
        ],
    )
    for title, field in (("Sensitivity", "sensitivity"), ("Sampling", "sampling"), ("Composition", "composition")):
        content = told.get(field)
        if content:
            with st.expander(title):
                for text in [content] if isinstance(content, str) else content:
                    st.markdown(f"- {plain(str(text))}")


def _list(title: str, texts: list[str] | None) -> None:
    if texts:
        st.header(title)
        st.markdown("\n".join(f"- {plain(str(text).replace('`', ''))}" for text in texts))
