"""The dashboard in a browser, as a new user walks through it: real API, real worker, real Streamlit, real Chromium."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, SIZES, Visit, chromium, install_website
from desk import SCHEMA

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

ROOT = Path(__file__).parents[2]
PAGES = (
    "Overview", "Generate data", "Data quality", "Training history", "Nodes", "Privacy budget", "Privacy statement",
    "Audit log",
)  # fmt: skip


@dataclass
class Site:
    """Where the dashboard is, where its API and that one's token."""

    url: str
    token: str
    folder: Path
    api: str


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _process(command: list[str], *, log: Path, url: str, environment: dict[str, str]) -> Iterator[str]:
    """A process that serves a URL, and what it says until it does."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"}, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(url)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield log.read_text()
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def served(tmp_path: Path) -> Iterator[Site]:
    """An API with two nodes of 200 patients, and the dashboard beside it."""
    rng = np.random.default_rng(5)
    for name in ("north", "south"):
        ages = rng.integers(18, 91, 200)
        ill = np.where(ages > 60, "yes", "no")
        frame = pd.DataFrame({"id": range(200), "age": ages, "cost": rng.uniform(0, 1000, 200).round(2), "ill": ill})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "clinic.toml").write_text(SCHEMA)
    api, dashboard = _port(), _port()
    environment = {
        "AEVORIUM_WORKSPACE": str(tmp_path / "w"),
        "AEVORIUM_NODES": ",".join(f"{name}={tmp_path / name}.csv" for name in ("north", "south")),
        "AEVORIUM_API_URL": f"http://localhost:{api}",
    }
    serve = [sys.executable, "-m", "aevorium", "api", "--port", str(api)]
    show = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.port", str(dashboard)]
    url = f"http://localhost:{dashboard}"
    with (
        _process(
            serve, log=tmp_path / "api.log", url=f"http://127.0.0.1:{api}/health", environment=environment
        ) as said,
        _process(show, log=tmp_path / "dashboard.log", url=f"{url}/_stcore/health", environment=environment),
    ):
        found = re.search(r"\b([0-9a-f]{48})\b", said)
        assert found is not None, said
        yield Site(url, found[1], tmp_path, api=f"http://127.0.0.1:{api}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("dashboard")) as made:
        yield made


class Guest(Visit):
    """A visit to the dashboard."""

    def go(self, title: str) -> None:
        self.page.get_by_role("link", name=title, exact=True).first.click()
        self.page.get_by_role("heading", name=title, exact=True, level=1).wait_for()
        self.page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
        assert not self.page.get_by_text("Something failed").count()

    def press(self, label: str) -> None:
        self.page.get_by_role("button", name=label, exact=True).first.click()


@pytest.mark.timeout(400)
def test_a_new_user_walks_through_all_pages_and_leaves_with_a_table(site: Site) -> None:
    with chromium() as browser:
        visit = come_in(browser, site)
        visit.page.get_by_text("No run has been ordered yet").wait_for()
        for title in PAGES[1:]:
            visit.go(title)
        _order_a_run(visit, site.folder / "clinic.toml")
        _take_a_table(visit, site.folder)
        _look_around(visit, site.folder)
    assert visit.errors == []
    assert visit.elsewhere == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("colour", ["light", "dark"])
def test_no_page_keeps_anybody_out(site: Site, colour: str) -> None:
    """With the run of the test above on the pages; alone, they are judged as they are without one."""
    install_website()
    with chromium() as browser:
        visit = come_in(browser, site, color_scheme=colour)
        found = {}
        for title in PAGES:
            visit.go(title)
            visit.page.wait_for_timeout(500)
            if barriers := visit.barriers():
                found[title] = barriers
    assert found == {}
    assert visit.errors == []


def come_in(browser: Any, site: Site, **context: Any) -> Guest:
    visit = Guest(browser.new_context(viewport=SIZES["desk"], accept_downloads=True, **context).new_page())
    visit.page.set_default_timeout(60_000)
    visit.page.goto(site.url)
    _sign_in(visit, site.token)
    return visit


def _sign_in(visit: Guest, token: str) -> None:
    visit.page.get_by_text("Sign in to see runs").wait_for()
    visit.page.get_by_text("Sign in", exact=True).first.click()
    visit.page.locator("input[type=password]").first.fill(token)
    visit.press("Sign in")
    visit.page.get_by_text("Signed in as start token").wait_for()
    assert token not in visit.page.url


def _order_a_run(visit: Guest, schema: Path) -> None:
    visit.go("Overview")
    visit.press("Order a run")
    visit.page.get_by_role("heading", name="Training history", level=1).wait_for()
    visit.page.get_by_role("tab", name="Order a run").click()
    visit.page.locator("input[type=file]").set_input_files(schema)
    visit.page.get_by_text("clinic.toml").wait_for()
    visit.page.get_by_label("Share for evaluation", exact=True).fill("0.1")
    visit.press("Order the run")
    visit.page.get_by_role("tab", name="Runs").click()
    visit.page.get_by_role("heading", name="Model card").wait_for(timeout=120_000)


def _take_a_table(visit: Guest, folder: Path) -> None:
    visit.go("Generate data")
    visit.page.get_by_label("Rows", exact=True).fill("25")
    where = visit.page.get_by_label("Only rows that meet", exact=True)
    where.fill("agee > 60")
    visit.press("Make the table")
    visit.page.get_by_role("alert").get_by_text("agee").wait_for()
    where.fill("age > 60")
    visit.press("Make the table")
    visit.page.get_by_text("The first 25 of 25 rows").wait_for(timeout=120_000)
    with visit.page.expect_download() as taken:
        visit.page.get_by_role("button", name=re.compile("Download")).click()
    taken.value.save_as(folder / "rows.csv")
    frame = pd.read_csv(folder / "rows.csv")
    assert list(frame.columns) == ["age", "cost", "ill"]
    assert len(frame) == 25
    assert (frame["age"] > 60).all()
    with visit.page.expect_download() as taken:
        visit.press("Data card")
    assert "age > 60" in Path(taken.value.path()).read_text()


def _look_around(visit: Guest, folder: Path) -> None:
    """Every page with something on it, at both sizes; nothing is wider than the screen."""
    for title in PAGES:
        visit.go(title)
        for name, size in SIZES.items():
            visit.page.set_viewport_size(size)
            visit.page.wait_for_timeout(500)
            visit.page.screenshot(path=folder / f"{title}-{name}.png")
            main = "document.querySelector('[data-testid=stMain]')"
            assert visit.page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth"), (title, name)
        visit.page.set_viewport_size(SIZES["desk"])
        visit.page.wait_for_timeout(300)
        expand = visit.page.locator("[data-testid=stExpandSidebarButton]")
        if expand.count():
            expand.click()
    visit.go("Data quality")
    visit.page.get_by_role("tab", name="Report").click()
    visit.page.get_by_text("Show it here").click()
    inner = visit.page.frame_locator("iframe").frame_locator("iframe[title='Report of the run']")
    inner.get_by_role("heading", level=1).wait_for()
