"""The dashboard's frame: navigation, who is signed in, and the page."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from aevorium.client import ApiProblem
from aevorium.dashboard import (
    audit,
    generate,
    nodes,
    overview,
    privacy,
    provider,
    quality,
    session,
    statement,
    states,
    training,
)
from aevorium.dashboard.wording import plain

__all__ = ["frame", "main"]

_STYLE = """<style>
[data-testid="stMarkdownContainer"]:has(table) { overflow-x: auto; }
[data-testid="stMarkdownContainer"] td[style*="right"] { white-space: nowrap; }
@media (max-width: 640px) {
  [data-testid="stMarkdownContainer"] td { min-width: 5.5rem; overflow-wrap: anywhere; }
}
[data-testid="stCaptionContainer"] { color: #55616d; opacity: 1; }
@media (prefers-color-scheme: dark) {
  [data-testid="stCaptionContainer"] { color: #a9b4bf; }
  [data-testid^="stBaseButton-primary"] { color: #0e141a; }
}
</style>"""
"""Tables that are wider than a phone move under the finger, and the page does not; no number is broken. Small text
and buttons have enough contrast in both modes."""


def main() -> None:
    """Draws the page that the address names. Streamlit calls it anew for everything that a person does."""
    st.set_page_config(page_title="Aevorium", layout="wide")
    st.html(_STYLE)
    pages = {
        "overview": st.Page(overview.page, title="Overview", url_path="overview", default=True),
        "generate": st.Page(generate.page, title="Generate data", url_path="generate"),
        "quality": st.Page(quality.page, title="Data quality", url_path="quality"),
        "training": st.Page(training.page, title="Training history", url_path="training"),
        "privacy": st.Page(privacy.page, title="Privacy budget", url_path="privacy"),
        "statement": st.Page(statement.page, title="Privacy statement", url_path="statement"),
        "audit": st.Page(audit.page, title="Audit log", url_path="audit"),
        "nodes": st.Page(nodes.page, title="Nodes", url_path="nodes"),
    }
    st.session_state["_pages"] = pages
    # Without groups: Streamlit nests them so that a screen reader takes them for no list.
    chosen = st.navigation(list(pages.values()))
    frame(chosen.title, chosen.run)


def frame(title: str, page: Callable[[], None]) -> None:
    """Draws a page under its title, and beside it who is signed in. Whatever fails in either becomes a message."""
    st.title(title)
    with states.ends_here(key="page"):
        session.arrive()
        if not session.is_signed_in() and not session.is_local():
            raise ApiProblem(code="UNAUTHENTICATED", status=401, detail="")
        page()
    with st.sidebar, states.ends_here(key="account"):
        _account()


def _account() -> None:
    if session.is_signed_in():
        who = st.session_state["_me"][1]
        called = provider.name() if provider.token() is not None else ""
        st.caption(f"Signed in as {plain(called or who.name)}", help=plain(who.name) if called else None)
    if session.is_signed_in() or provider.token() is not None:
        if st.button("Sign out"):
            _sign_out()
        return
    with st.expander("Sign in"):
        states.sign_in_form(key="account-sign-in")


def _sign_out() -> None:
    is_of_provider = provider.token() is not None
    session.sign_out()
    if is_of_provider:
        provider.end()
        st.stop()
    st.rerun()
