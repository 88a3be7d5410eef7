"""Audit log: who did what, whether the chain holds, and the log as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence

import streamlit as st

from aevorium.client import ApiProblem, Client
from aevorium.client.answers import CheckFinding
from aevorium.dashboard import paging, session
from aevorium.dashboard.states import allowed, empty, problem_text
from aevorium.dashboard.wording import plain, table

__all__ = ["export", "page"]

_LINES = 50
_MOST = 500
_ANY = "any"
_ACTIONS = (
    "study_registered", "run_ordered", "order_refused", "run_stop_asked", "run_ended", "dataset_ordered",
    "dataset_stop_asked", "dataset_ended", "dataset_downloaded", "planning_limit_set", "planning_period_opened",
    "api_key_created", "api_key_revoked", "login_failed", "access_denied", "study_planned", "nodes_agreed",
    "nodes_lost", "encoder_fitted", "surrogate_fitted", "evaluated", "checkpoint_written", "run_finished", "run_failed",
    "results_written", "table_generated",
)  # fmt: skip


def page() -> None:
    """Draws the page."""
    if not allowed("audit", "read the audit log"):
        return
    st.markdown("Each entry holds the hash of the one before: none can be changed or taken out unseen.")
    api = session.api()
    _verify()
    action = st.selectbox(
        "Action", [_ANY, *_ACTIONS], key="audit-action", on_change=_first_page, accept_new_options=True
    )
    wanted = None if action in (None, _ANY) else str(action)
    try:
        found = api.audit_log(after=paging.position("audit") or 0, limit=_LINES, action=wanted)
    except ApiProblem as problem:
        if problem.code != "ARTEFACT_NOT_FOUND":
            raise
        empty("The log is empty. Its first entry is written with the first run.", page="training", label="Order a run")
        return
    if not found.entries:
        st.info("No entry has this action." if wanted else "The log is empty.")
    else:
        st.dataframe(
            [
                {
                    "number": one.seq,
                    "time (UTC)": one.time[:19].replace("T", " "),
                    "who": one.actor,
                    "action": one.action,
                    "particulars": json.dumps(one.detail, ensure_ascii=False, sort_keys=True),
                    "hash": one.hash,
                }
                for one in found.entries
            ],
            hide_index=True,
            height=min(36 * (len(found.entries) + 1) + 4, 620),
            key="audit-entries",
        )
    paging.turn("audit", following=found.next, back="Earlier", forth="Later")
    st.caption(f"Head of the whole log: {plain(found.head)}. Note it down to be able to see a cut.")
    st.download_button(
        "Export as JSON",
        data=lambda: export(api),
        file_name="audit_log.json",
        mime="application/json",
        on_click="ignore",
    )


def export(api: Client) -> str:
    """The whole log as JSON, with its head."""
    entries, after = [], 0
    while True:
        found = api.audit_log(after=after, limit=_MOST)
        entries += [one.model_dump(mode="json") for one in found.entries]
        if found.next is None:
            return json.dumps({"entries": entries, "head": found.head}, ensure_ascii=False, indent=1)
        after = found.next


def _first_page() -> None:
    st.session_state.pop("_at_audit", None)


def _verify() -> None:
    if not session.is_signed_in():
        st.caption("Sign in to verify the log.")
        return
    if st.button("Verify"):
        with st.spinner("Verifying chains, ledgers and statement"):
            try:
                found = session.api().verification()
            except ApiProblem as problem:
                if problem.status != 404:
                    raise
                st.info(problem_text(problem))
                return
        if found.is_sound:
            st.success("Everything that could be checked holds.")
        else:
            st.error("Something does not hold. Treat the log's claims as unproven until it is explained.")
            _checks([one for one in found.checks if one.is_sound is False])
        with st.expander(f"All {len(found.checks):,} checks"):
            _checks(found.checks)


def _checks(found: Sequence[CheckFinding]) -> None:
    verdicts = {True: "holds", False: "DOES NOT HOLD", None: "not checked here"}
    table(("what", "verdict", "found"), [(one.subject, verdicts[one.is_sound], one.text) for one in found])
