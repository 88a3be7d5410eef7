"""The dashboard's frame: navigation, who is signed in, and the page."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

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
[data-testid="stMainBlockContainer"] { padding-top: 4.5rem; }
[data-testid="stHeaderActionElements"] { display: none; }
[data-testid="stMarkdownContainer"]:has(table) { overflow-x: auto; }
[data-testid="stMarkdownContainer"]:has(table)::-webkit-scrollbar { height: 8px; }
[data-testid="stMarkdownContainer"]:has(table)::-webkit-scrollbar-thumb { background: #8a97a8; border-radius: 4px; }
[data-testid="stMarkdownContainer"] td[style*="right"] { white-space: nowrap; }
@media (max-width: 640px) {
  [data-testid="stColumn"]:has([data-testid="stMetric"]) { min-width: calc(50% - 1rem); }
  [data-testid="stMarkdownContainer"] table { width: max-content; min-width: 100%; }
  [data-testid="stMarkdownContainer"] :is(th, td) { padding: 0.4rem 0.5rem; }
  [data-testid="stMarkdownContainer"] td { min-width: 5.5rem; max-width: 12rem; overflow-wrap: anywhere; }
}
[data-testid="stCaptionContainer"] { color: #55616d; opacity: 1; }
@media (prefers-color-scheme: dark) {
  [data-testid="stCaptionContainer"] { color: #a9b4bf; }
  [data-testid^="stBaseButton-primary"] { color: #0e141a; }
}
</style>"""
"""Tables that are wider than a phone move under the finger, and the page does not; a bar says so, and no number is
broken. Small text and buttons have enough contrast in both modes."""

_LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 150 32" height="32">
<circle cx="16" cy="16" r="15" fill="#1b6f80"/>
<path d="M6 21c4 0 5-11 10-11s6 11 10 11" fill="none" stroke="#fff" stroke-width="2" stroke-linecap="round"/>
<g fill="#fff"><circle cx="8" cy="13" r="1.6"/><circle cx="24" cy="13" r="1.6"/><circle cx="16" cy="25" r="1.6"/></g>
<text x="40" y="23" font-family="sans-serif" font-size="21" font-weight="600" fill="#2b8698">Aevorium</text></svg>"""
"""Stands out from a white and from a dark page."""


def main() -> None:
    """Draws the page that the address names. Streamlit calls it anew for everything that a person does."""
    st.set_page_config(layout="wide")
    st.html(_STYLE)
    st.logo(_LOGO, size="large")
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
    st.set_page_config(page_title=f"{chosen.title} · Aevorium")
    frame(chosen.title, chosen.run)


def frame(title: str, page: Callable[[], None]) -> None:
    """Draws a page under its title, and beside it who is signed in. Whatever fails in either becomes a message."""
    head = st.container(horizontal=True, vertical_alignment="center")
    head.title(title, width="content")
    with states.ends_here(key="page"), ExitStack() as loading:
        with head:
            loading.enter_context(st.spinner("Loading"))
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
