"""What a page shows instead of its content: nothing yet, no permission, no key, no API. Failures end here alone."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import streamlit as st

from aevorium.client import ApiProblem
from aevorium.dashboard import provider, session
from aevorium.dashboard.wording import plain
from aevorium.errors import AevoriumError

__all__ = ["allowed", "empty", "ends_here", "live", "problem_text", "sign_in_form"]

_LOGGER = logging.getLogger(__name__)

WHO: Mapping[str, str] = {
    "read": "Any role",
    "audit": "A steward, an engineer or an auditor",
    "run": "A steward or an engineer",
    "generate": "A steward, an engineer or a researcher",
    "budget": "A steward",
}
"""Who holds each permission of the API."""


def problem_text(problem: ApiProblem) -> str:
    """What happened, why, and what to do."""
    return plain(f"{problem.detail} {problem.hint}".strip())


def empty(text: str, *, page: str | None = None, label: str = "") -> None:
    """Says that there is nothing yet, and what to do first.

    Args:
        text: Two sentences.
        page: Where it is done.
        label: What is done there.
    """
    st.info(text)
    if page is not None and st.button(label, type="primary"):
        st.switch_page(st.session_state["_pages"][page])


def allowed(permission: str, what: str) -> bool:
    """Whether somebody may do something; else says who may.

    Args:
        permission: The API's.
        what: As in "order runs".
    """
    if session.may(permission):
        return True
    if not session.is_signed_in():
        st.info(f"Sign in to {what}.")
    else:
        st.info(f"Your role may not {what}. {WHO[permission]} can.")
    return False


def sign_in_form(*, key: str) -> None:
    """Sends to the identity provider, if there is one, or asks for a key.

    Args:
        key: Tells it from other forms of the page.
    """
    if provider.is_known() and st.button(f"Sign in at {plain(provider.host())}", type="primary", key=f"{key}-provider"):
        wrong = provider.begin()
        if wrong is not None:
            st.error(plain(wrong))
    with st.form(key, clear_on_submit=True, border=True):
        token = st.text_input(
            "API key", type="password", help="Made by a steward: aevorium api key create", key=f"{key}-in"
        )
        is_sent = st.form_submit_button("Sign in", type="secondary" if provider.is_known() else "primary")
    if not is_sent:
        return
    if not token.strip().isascii() or not token.strip():
        st.error("This is no key. Paste the whole line that 'aevorium api key create' printed.")
        return
    try:
        session.sign_in(token.strip())
    except ApiProblem as problem:
        refused = "The key is not accepted. It is wrong, expired or revoked: ask a steward for another."
        st.error(refused if problem.code == "UNAUTHENTICATED" else problem_text(problem))
        return
    st.rerun()


@contextmanager
def ends_here(*, key: str) -> Iterator[None]:
    """Turns every failure into a message with a way out.

    Args:
        key: Tells its buttons from others of the page.
    """
    try:
        yield
    except ApiProblem as problem:
        _show(problem, key=key)
    except AevoriumError as error:
        st.error(plain(f"{error.message} {error.hint}"))
    except Exception as error:  # the process's edge: a trace is for the log, not for the page
        _LOGGER.exception("a page failed")
        st.error(f"Something failed inside the dashboard: {type(error).__name__}. Load the page again, or report it.")


def _show(problem: ApiProblem, *, key: str) -> None:
    if problem.code == "UNAUTHENTICATED":
        if provider.token() is not None:
            session.refuse()
            st.warning("Your sign-in is no longer accepted. It has expired, or was ended: sign in again.")
        elif session.is_signed_in():
            session.sign_out()
            st.warning("Your key is no longer accepted. It has expired, or was revoked.")
        else:
            st.info("Sign in to see this page.")
        sign_in_form(key=f"{key}-sign-in")
        return
    if problem.code == "FORBIDDEN":
        if provider.token() is not None and not session.is_signed_in():
            st.info(f"{plain(provider.host())} gives you no role here. Ask a steward which groups have one.")
            sign_in_form(key=f"{key}-sign-in")
        else:
            st.info("Your role may not see this page. Sign in with a key of another role, or ask a steward.")
        return
    if problem.code == "API_UNREACHABLE":
        st.error(
            f"The API at {plain(session.api_url())} does not answer. Start it with `aevorium api`, or set"
            " `AEVORIUM_API_URL` to where it is."
        )
    else:
        st.error(problem_text(problem))
    if st.button("Try again", key=f"{key}-again"):
        st.rerun()


def live(function: Callable[..., None], *, seconds: float) -> Callable[..., None]:
    """A part of a page that draws itself again and again, failures included."""

    @functools.wraps(function)
    def guarded(*arguments: object) -> None:
        with ends_here(key=function.__name__):
            function(*arguments)

    return st.fragment(guarded, run_every=seconds)
