"""Nodes: who takes part, when it was last seen, which code it ran."""

from __future__ import annotations

import streamlit as st

from aevorium.dashboard import paging, session
from aevorium.dashboard.states import empty
from aevorium.dashboard.wording import count, epsilon, epsilon_left, moment, table

__all__ = ["page"]

_KINDS = {"local": "on this server", "enrolled": "over the network", "former": "from earlier runs"}


def page() -> None:
    """Draws the page."""
    st.markdown("What is shown of a node is what it told in its newest run. The number of patients carries noise.")
    everything = session.api().nodes()
    if not everything:
        empty("No node is known yet. Let one in with `aevorium server enrol`, or order a run on the simulated ones.",
              page="training", label="Order a run")  # fmt: skip
        return
    wanted = st.text_input("Find", placeholder="part of a name", on_change=_first_page).strip().lower()
    found = [node for node in everything if wanted in node.name.lower()]
    if not found:
        st.info("No node has such a name.")
        return
    shown = paging.window("nodes", found)
    table(
        ("node", "where", "last seen", "patients, noisy", "ε of its run", "ε left", "limit", "code"),
        [
            (
                node.name,
                _KINDS.get(node.kind, node.kind),
                moment(node.last_seen),
                count(node.patients),
                epsilon(node.spent),
                epsilon_left(node.left),
                epsilon_left(node.limit),
                (node.code_hash or "–")[:12],
            )
            for node in shown
        ],
        numbers=("patients, noisy", "ε of its run", "ε left", "limit"),
    )
    paging.turn("nodes", following=paging.next_of("nodes", found), back="Back", forth="More")
    st.caption(f"{len(found):,} of {len(everything):,} nodes")
    _codes([node.code_hash for node in everything if node.code_hash])


def _codes(hashes: list[str]) -> None:
    """Whether all run the same code."""
    different = sorted(set(hashes))
    if len(different) > 1:
        st.warning(f"The nodes ran {len(different)} different versions of the code. Update those that are behind.")
    with st.expander("Code hashes"):
        for one in different:
            st.code(one, language=None)


def _first_page() -> None:
    st.session_state.pop("_at_nodes", None)
