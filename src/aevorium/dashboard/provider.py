"""Signing in at the institution's identity provider (OpenID Connect). Streamlit does it: authorization code, with PKCE.

What Streamlit must know of it is put into its memory before it starts: the client's secret stands in no file, command
line or log of ours. The tokens that the provider gives are kept in a signed cookie, so the key that signs it is made
anew at each start, and with it every sign-in ends.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from typing import Any, cast

import httpx
import streamlit as st

from aevorium.errors import ConfigError
from aevorium.settings import Settings, load_settings

__all__ = ["begin", "end", "has_expired", "host", "introduce", "is_known", "name", "token"]

_PROVIDER = "issuer"
"""What Streamlit calls it; takes no underscore."""

_SECONDS = 5.0
_LEEWAY = 30
"""Seconds by which clocks may differ: the API's own."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def introduce(settings: Settings, *, port: int) -> None:
    """Tells Streamlit of the provider, if the settings name one. Call it before Streamlit starts.

    Args:
        settings: They.
        port: Where the dashboard listens.

    Raises:
        ConfigError: CONFIG_INVALID, if something is missing, or the issuer is none that a password may be typed at.
    """
    if settings.oidc_client is None:
        return
    if settings.oidc_issuer is None or not _is_trustworthy(settings.oidc_issuer):
        raise ConfigError(
            "CONFIG_INVALID",
            "AEVORIUM_OIDC_CLIENT is set, and AEVORIUM_OIDC_ISSUER is no https address. People have to sign in there.",
            hint="Set AEVORIUM_OIDC_ISSUER as for the API.",
        )
    known: dict[str, Any] = {
        "client_id": settings.oidc_client,
        "client_secret": _secret(settings),
        "server_metadata_url": _discovery(settings.oidc_issuer),
        "client_kwargs": {"scope": settings.oidc_scope, "code_challenge_method": "S256"},
    }
    entry: dict[str, Any] = {
        "redirect_uri": f"{settings.dashboard_url or f'http://localhost:{port}'}/oauth2callback",
        "cookie_secret": secrets.token_hex(32),
        "expose_tokens": [settings.oidc_token],
        _PROVIDER: known,
    }
    st.secrets.merge_programmatic_secrets({"auth": entry})


def is_known() -> bool:
    """Whether people can sign in at a provider."""
    return st.secrets.load_if_toml_exists() and _PROVIDER in st.secrets.get("auth", {})


def host() -> str:
    """Where people sign in, as they know it."""
    return httpx.URL(_issuer()).host


def begin() -> str | None:
    """Sends the browser to the provider, which sends it back.

    Returns:
        What is wrong, if the provider does not answer; the browser then stays.
    """
    try:
        httpx.get(_discovery(_issuer()), timeout=_SECONDS).raise_for_status()
    except httpx.HTTPError:
        return f"The identity provider {host()} does not answer. Try again soon, or sign in with an API key."
    st.login(_PROVIDER)
    return None


def end() -> None:
    """Signs out at the provider too, if it knows how, and forgets the cookie. The browser loads the page anew."""
    st.logout()


def token() -> str | None:
    """The token with which the browser came back; None if it did not sign in at the provider."""
    if not is_known() or not st.user.get("is_logged_in", False):
        return None
    return st.user.tokens.get(load_settings().values.oidc_token)


def name() -> str:
    """Who signed in there, as the provider says; empty if it does not."""
    found = (st.user.get(claim) for claim in ("name", "preferred_username", "email"))
    return next((text for text in found if isinstance(text, str) and text), "")


def has_expired(token: str) -> bool:
    """Whether a token says of itself that it is over. Nothing is proven by it: the API alone judges tokens.

    Args:
        token: It.
    """
    part = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    ends_at = cast("dict[str, Any]", claims).get("exp") if isinstance(claims, dict) else None
    return isinstance(ends_at, int | float) and ends_at + _LEEWAY < time.time()


def _issuer() -> str:
    return load_settings().values.oidc_issuer or ""


def _discovery(issuer: str) -> str:
    """OpenID Connect Discovery 1.0, section 4."""
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def _secret(settings: Settings) -> str:
    if settings.oidc_client_secret is not None:
        return settings.oidc_client_secret.get_secret_value()
    file = settings.oidc_client_secret_file
    try:
        found = "" if file is None else file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        found = ""
    if not found:
        raise ConfigError(
            "CONFIG_INVALID",
            "AEVORIUM_OIDC_CLIENT is set, and its secret cannot be read. The issuer answers no client without one.",
            hint="Set AEVORIUM_OIDC_CLIENT_SECRET_FILE to the file that holds it, or AEVORIUM_OIDC_CLIENT_SECRET.",
        )
    return found


def _is_trustworthy(issuer: str) -> bool:
    try:
        url = httpx.URL(issuer)
    except httpx.InvalidURL:
        return False
    return bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and url.host in _LOOPBACK))
