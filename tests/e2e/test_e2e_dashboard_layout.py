"""The dashboard with names as long as they may be, on a phone, in the dark, and by keyboard alone."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_e2e_dashboard import PAGES, SIZES, Guest, _port, _process

from aevorium.client import Client

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

LONG = "the_cost_of_all_encounters_of_a_patient_in_the_first_year_after_the_diagnosis_"
COLUMN, OTHER = (f"{LONG}{end}".ljust(120, "x") for end in ("in_euro", "in_dollar"))
STUDY = "costofcare" * 12
NODES = tuple(f"{name}-university-hospital-{'of-the-region-' * 4}"[:63].rstrip("-") for name in ("north", "south"))
PERIOD = "winter " * 13
CATEGORY = "a very long name of a category " * 3
SCHEMA = f"""
name = "{STUDY}"
target = "sick"
[columns.{COLUMN}]
kind = "continuous"
min = 0
max = 10
[columns.{OTHER}]
kind = "continuous"
min = 0
max = 10
[columns.sick]
kind = "categorical"
categories = ["yes", "{CATEGORY}"]
"""


@dataclass
class Place:
    """Where the dashboard and its API are, and the token."""

    url: str
    api: str
    token: str
    folder: Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    rng = np.random.default_rng(4)
    for name in NODES:
        values = rng.uniform(0, 10, 700).round(2)
        sick = np.where(values > 6, "yes", CATEGORY)
        pd.DataFrame({COLUMN: values, OTHER: values, "sick": sick}).to_csv(tmp_path / f"{name}.csv", index=False)
    api, dashboard = _port(), _port()
    environment = {
        "AEVORIUM_WORKSPACE": str(tmp_path / "w"),
        "AEVORIUM_KEY_FILE": str(tmp_path / "key"),
        "AEVORIUM_NODES": ",".join(f"{name}={tmp_path / name}.csv" for name in NODES),
        "AEVORIUM_PRETRAINING_STEPS": "5",
        "AEVORIUM_API_URL": f"http://localhost:{api}",
    }
    serve = [sys.executable, "-m", "aevorium", "api", "--port", str(api)]
    show = [sys.executable, "-m", "aevorium", "dashboard", "--port", str(dashboard)]
    url, health = f"http://localhost:{dashboard}", f"http://127.0.0.1:{api}/health"
    with (
        _process(serve, log=tmp_path / "api.log", url=health, environment=environment) as said,
        _process(show, log=tmp_path / "dashboard.log", url=f"{url}/_stcore/health", environment=environment),
    ):
        found = re.search(r"\b([0-9a-f]{48})\b", said)
        assert found is not None, said
        yield Place(url, f"http://localhost:{api}", found[1], tmp_path)


@pytest.fixture
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


def _fill(place: Place) -> None:
    """Two runs in two periods, each of a long name, and a table."""
    with Client(place.api, token=place.token) as client:
        client.register_study(STUDY[:100], schema_text=SCHEMA, choices={"epsilon": 1.0, "records": 400})
        for epsilon in (1.0, 0.5):
            choices = {"epsilon": epsilon, "records": 400, "evaluation_share": 0.1}
            run = client.wait_for_run(client.order_run(schema_text=SCHEMA, choices=choices).id)
            assert run.state == "succeeded", run.error
            client.open_planning_period(f"{PERIOD}{epsilon}", limit=5.0)
        client.wait_for_table(client.order_table(rows=20).id)


def _sign_in(visit: Guest, token: str) -> None:
    visit.page.get_by_text("Sign in", exact=True).first.click()
    visit.page.locator("input[type=password]").first.fill(token)
    visit.press("Sign in")
    visit.page.get_by_text("Signed in as start token").wait_for()


def _turn_to_a_spent_period(visit: Guest) -> None:
    visit.page.get_by_role("combobox", name="Planning period").click()
    visit.page.get_by_role("option").nth(1).click()
    visit.page.get_by_text("Sums over runs").wait_for()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_long_names_are_no_wider_than_a_phone(place: Place, browser: Any, scheme: str) -> None:
    _fill(place)
    visit = Guest(browser.new_context(viewport=SIZES["desk"], color_scheme=scheme).new_page())
    visit.page.set_default_timeout(60_000)
    visit.page.goto(place.url)
    _sign_in(visit, place.token)
    for title in PAGES:
        visit.go(title)
        if title == "Privacy budget":
            _turn_to_a_spent_period(visit)
        visit.page.set_viewport_size({"width": 1280, "height": 2600})
        visit.page.wait_for_timeout(700)
        visit.page.screenshot(path=place.folder / f"{title}-{scheme}-desk.png")
        visit.page.set_viewport_size({"width": 390, "height": 2600})
        visit.page.wait_for_timeout(700)
        visit.page.screenshot(path=place.folder / f"{title}-{scheme}-phone.png")
        for part in ("html", "body", "[data-testid=stMain]"):
            wide = f"(found => found.scrollWidth - found.clientWidth)(document.querySelector('{part}'))"
            assert visit.page.evaluate(wide) <= 0, (title, part)
        visit.page.set_viewport_size(SIZES["desk"])
        visit.page.wait_for_timeout(300)
        expand = visit.page.locator("[data-testid=stExpandSidebarButton]")
        if expand.count():
            expand.click()
    assert visit.errors == []
    assert visit.elsewhere == []


_FOCUSED = """() => {
  const found = document.activeElement;
  const label = found.getAttribute('aria-label') || found.innerText || found.type || '';
  const side = found.closest('[data-testid=stSidebar]') ? 'sidebar' : 'page';
  return `${side}: ${label.trim().split('\\n')[0]}`;
}"""


def _tab_to(visit: Guest, name: str) -> list[str]:
    """Presses Tab until something of this name has the focus. Returns all that had it on the way."""
    passed: list[str] = []
    while len(passed) < 80:
        visit.page.keyboard.press("Tab")
        passed.append(visit.page.evaluate(_FOCUSED))
        if passed[-1] == name:
            return passed
    raise AssertionError(f"{name!r} is not reached: {passed}")


@pytest.mark.timeout(300)
def test_everything_is_reached_by_keyboard_in_order_and_enter_sends(place: Place, browser: Any) -> None:
    visit = Guest(browser.new_context(viewport=SIZES["desk"]).new_page())
    visit.page.set_default_timeout(30_000)
    visit.page.goto(place.url)
    visit.page.get_by_text("Sign in to see runs").wait_for()
    passed = _tab_to(visit, "sidebar: Nodes")
    order = visit.page.locator("[data-testid=stSidebarNavLink]").all_inner_texts()
    assert [name.removeprefix("sidebar: ") for name in passed if name.startswith("sidebar: ")][-8:] == order
    assert set(order) == set(PAGES)
    visit.page.keyboard.press("Enter")
    visit.page.get_by_text("Sign in to see this page").wait_for()
    passed = _tab_to(visit, "page: API key")
    visit.page.keyboard.type(place.token)
    visit.page.keyboard.press("Enter")
    visit.page.get_by_text("Signed in as start token").wait_for()
    # To another page, through its form and off with it: no mouse, no reading of where things are.
    visit.page.locator("[data-testid=stSidebarNavLink]").first.focus()
    _tab_to(visit, "sidebar: Privacy budget")
    visit.page.keyboard.press("Enter")
    visit.page.get_by_role("heading", name="Privacy budget", level=1).wait_for()
    visit.page.get_by_role("button", name="Open the period").wait_for()
    visit.page.get_by_label("ε of each run", exact=True).wait_for()
    visit.page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    # What had the focus may have been drawn anew meanwhile: the way through the page begins at its own link.
    visit.page.locator("[data-testid=stSidebarNavLink]").last.focus()
    passed = _tab_to(visit, "page: Open the period")
    fields = ["page: ε of each run", "page: ε of all its runs", "page: Set the limit", "page: Its name"]
    assert [name for name in passed if name in fields] == fields
    visit.page.keyboard.press("Enter")
    visit.page.get_by_text("Tick the box to confirm").wait_for()
    field = visit.page.get_by_label("ε of all its runs", exact=True)
    field.focus()
    visit.page.keyboard.press("ControlOrMeta+a")
    visit.page.keyboard.type("7.5")
    visit.page.keyboard.press("Enter")
    visit.page.get_by_test_id("stMetricValue").get_by_text("7.500").first.wait_for()
    assert visit.errors == []
