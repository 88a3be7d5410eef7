"""Who sits before the browser: the client of this session, and what it may do.

An API key lives here and nowhere else. A token of the identity provider comes with the browser's cookie.
"""

from __future__ import annotations

import time

import streamlit as st

from aevorium.client import ApiProblem, Client
from aevorium.client.answers import MeView
from aevorium.dashboard import provider
from aevorium.settings import load_settings

__all__ = ["api", "api_url", "arrive", "is_local", "is_signed_in", "may", "me", "refuse", "sign_in", "sign_out"]

_SECONDS = 30.0
"""How long an answer on what somebody may do counts: a key can be revoked meanwhile, and the API refuses it then."""

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def api_url() -> str:
    """Where the API is. Raises ConfigError."""
    return load_settings().values.api_url


def api() -> Client:
    """The client of this session."""
    found = st.session_state.get("_client")
    if found is None:
        found = st.session_state["_client"] = Client(api_url())
    client: Client = found
    return client


def is_signed_in() -> bool:
    """Whether a key or a token was accepted in this session."""
    return bool(st.session_state.get("_is_signed_in", False))


def is_local() -> bool:
    """Whether the browser is on this machine.

    To the API every request of the dashboard comes from loopback. What it tells loopback without a key must not pass
    through to other machines.
    """
    headers = st.context.headers
    if st.context.ip_address is not None or any(headers.get(name) for name in _FORWARDED):
        return False
    host = headers.get("host")
    return host is None or host.rpartition(":")[0] in _LOCAL_NAMES or host in _LOCAL_NAMES


def sign_in(token: str) -> MeView:
    """Takes a key for this session, if the API accepts it.

    Args:
        token: An API key, or a token of the API's issuer.

    Raises:
        ApiProblem: UNAUTHENTICATED, or the API does not answer.
    """
    candidate = Client(api_url(), token=token)
    try:
        who = candidate.me()
    except BaseException:
        candidate.close()
        raise
    sign_out()
    st.session_state.update(_client=candidate, _is_signed_in=True, _me=(time.monotonic(), who))
    return who


def arrive() -> None:
    """Signs in whoever comes back from the identity provider.

    Raises:
        ApiProblem: UNAUTHENTICATED, if the token is over or refused; FORBIDDEN, if it carries no role; or the API does
            not answer. What was refused once is not asked again.
    """
    token = provider.token()
    if token is None or is_signed_in():
        return
    refused, code, status = st.session_state.get("_refused", ("", "", 0))
    if token == refused:
        raise ApiProblem(code=code, status=status, detail="")
    if provider.has_expired(token):
        raise ApiProblem(code="UNAUTHENTICATED", status=401, detail="")
    try:
        sign_in(token)
    except ApiProblem as problem:
        if problem.status in (401, 403):
            st.session_state["_refused"] = (token, problem.code, problem.status)
        raise


def refuse() -> None:
    """Forgets the provider's token, which the API accepts no longer, so that it is not asked again."""
    # Signed in alone: what a person does after that is in the state that is cleared.
    if is_signed_in():
        sign_out()
        st.session_state["_refused"] = (provider.token(), "UNAUTHENTICATED", 401)


def sign_out() -> None:
    """Forgets the key, and all that was read with it."""
    client = st.session_state.get("_client")
    if client is not None:
        client.close()
    st.session_state.clear()


def me() -> MeView:
    """Who asks, and what they may do. Raises ApiProblem."""
    known = st.session_state.get("_me")
    if known is not None and time.monotonic() - known[0] < _SECONDS:
        who: MeView = known[1]
        return who
    who = api().me()
    st.session_state["_me"] = (time.monotonic(), who)
    return who


def may(permission: str) -> bool:
    """Whether they may do something: "read", "audit", "run", "generate", "budget" or "keys"."""
    return permission in me().permissions
