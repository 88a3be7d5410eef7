"""Signing in at an identity provider: real provider on loopback, real API, real Streamlit, real Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from identity import AUDIENCE, CLIENT, SECRET, Provider, providing
from test_e2e_dashboard import Guest, _port, _process

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

_LEEWAY = 30
"""Seconds for which the API takes a token that is over."""


@dataclass
class Place:
    """Where the dashboard is, who lets people in, and what the dashboard told its log."""

    url: str
    provider: Provider
    log: Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    api, dashboard = _port(), _port()
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    with providing() as provider:
        environment = {
            "AEVORIUM_WORKSPACE": str(tmp_path / "w"),
            "AEVORIUM_KEY_FILE": str(tmp_path / "key"),
            "AEVORIUM_OIDC_ISSUER": provider.url,
            "AEVORIUM_OIDC_AUDIENCE": AUDIENCE,
            "AEVORIUM_OIDC_CLIENT": CLIENT,
            "AEVORIUM_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
            "AEVORIUM_API_URL": f"http://localhost:{api}",
        }
        serve = [sys.executable, "-m", "aevorium", "api", "--port", str(api)]
        show = [sys.executable, "-m", "aevorium", "dashboard", "--port", str(dashboard)]
        url, log = f"http://localhost:{dashboard}", tmp_path / "dashboard.log"
        health = f"http://127.0.0.1:{api}/health"
        with (
            _process(serve, log=tmp_path / "api.log", url=health, environment=environment),
            _process(show, log=log, url=f"{url}/_stcore/health", environment=environment),
        ):
            yield Place(url, provider, log)


@pytest.fixture
def page() -> Iterator[Any]:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        found = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        found.set_default_timeout(30_000)
        yield found
        browser.close()


def _sign_in(visit: Guest) -> None:
    """From the page that says so, to the provider and back."""
    visit.page.get_by_role("button", name=re.compile("Sign in at 127")).first.click()
    visit.page.get_by_role("button", name="Sign in as Ann").click()


@pytest.mark.timeout(300)
def test_a_steward_signs_in_sees_what_takes_a_role_and_signs_out(place: Place, page: Any) -> None:
    visit = Guest(page)
    page.goto(place.url)
    visit.go("Nodes")
    page.get_by_text("Sign in to see this page").wait_for()
    _sign_in(visit)
    page.get_by_text("Signed in as Ann Lee").wait_for()
    assert place.provider.challenges == ["S256"]
    visit.go("Nodes")
    page.get_by_text("Sign in to see this page").wait_for(state="detached")
    visit.go("Privacy budget")
    page.get_by_role("button", name="Open the period").wait_for()
    # A page that is loaded anew knows them still.
    visit.go("Overview")
    page.reload()
    page.get_by_text("Signed in as Ann Lee").wait_for()
    cookies = {each["name"]: each for each in page.context.cookies() if each["name"].startswith("_streamlit_user")}
    assert cookies
    assert all(each["httpOnly"] and each["sameSite"] == "Lax" for each in cookies.values())
    visit.press("Sign out")
    page.get_by_text("Sign in to see runs").wait_for()
    assert [asked["client_id"] for asked in place.provider.ended] == [CLIENT]
    assert not [each for each in page.context.cookies() if each["name"].startswith("_streamlit_user")]
    page.reload()
    page.get_by_text("Sign in to see runs").wait_for()
    assert not page.get_by_text("Ann Lee").count()
    assert visit.errors == []
    assert visit.elsewhere == []
    told = place.log.read_text()
    assert SECRET not in told
    assert "eyJ" not in told


@pytest.mark.timeout(300)
def test_who_has_another_role_is_told_and_who_has_none_may_leave(place: Place, page: Any) -> None:
    visit = Guest(page)
    place.provider.roles = ["auditor"]
    page.goto(f"{place.url}/nodes")
    _sign_in(visit)
    page.get_by_text("Signed in as Ann Lee").wait_for()
    visit.go("Privacy budget")
    page.get_by_text("A steward can.").wait_for()
    assert not page.get_by_role("button", name="Open the period").count()
    visit.press("Sign out")
    page.get_by_text("Sign in to see runs").wait_for()
    place.provider.roles = ["visitor"]
    page.goto(f"{place.url}/nodes")
    _sign_in(visit)
    page.get_by_text("gives you no role here").wait_for()
    for title in ("Audit log", "Privacy budget"):
        visit.go(title)
        page.get_by_text("gives you no role here").wait_for()
    entries = sqlite3.connect(place.log.parent / "w" / "server.db").execute("SELECT entry FROM entries").fetchall()
    refusals = [entry for (text,) in entries if (entry := json.loads(text))["action"] == "access_denied"]
    assert [entry["detail"]["left_out"] for entry in refusals] == [0], "a page asked again for what was refused"
    visit.press("Sign out")
    page.get_by_text("Sign in to see runs").wait_for()


@pytest.mark.timeout(300)
def test_a_token_that_expires_leads_back_to_signing_in(place: Place, page: Any) -> None:
    visit = Guest(page)
    place.provider.lifetime = 10 - _LEEWAY
    page.goto(f"{place.url}/nodes")
    _sign_in(visit)
    page.get_by_text("Signed in as Ann Lee").wait_for()
    ends_at = time.monotonic() + 11
    page.wait_for_timeout(1000 * max(0.0, ends_at - time.monotonic()))
    page.get_by_role("link", name="Nodes", exact=True).first.click()
    page.get_by_text("Your sign-in is no longer accepted").first.wait_for()
    page.reload()
    page.get_by_text("Your sign-in is no longer accepted").first.wait_for()
    place.provider.lifetime = 300
    _sign_in(visit)
    page.get_by_text("Signed in as Ann Lee").wait_for()
    assert not page.get_by_text("Your sign-in is no longer accepted").count()


@pytest.mark.timeout(300)
def test_a_provider_that_is_down_is_said_to_be_and_keeps_nobody_in(place: Place, page: Any) -> None:
    visit = Guest(page)
    place.provider.is_down = True
    page.goto(f"{place.url}/nodes")
    page.get_by_role("button", name=re.compile("Sign in at 127")).first.click()
    page.get_by_text("does not answer. Try again soon").wait_for()
    assert page.url.startswith(place.url)
    place.provider.is_down = False
    _sign_in(visit)
    page.get_by_text("Signed in as Ann Lee").wait_for()
    place.provider.is_down = True
    visit.press("Sign out")
    page.get_by_text("Sign in to see runs").wait_for()
    assert not [each for each in page.context.cookies() if each["name"].startswith("_streamlit_user")]
