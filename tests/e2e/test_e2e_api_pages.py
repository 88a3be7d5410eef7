"""The pages that the API shows to people, in a browser for which no other host exists."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from besieged import Besieged
from browser import CHROMIUM, Visit, chromium

pytestmark = [pytest.mark.timeout(240), pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    made = Besieged(tmp_path_factory.mktemp("pages"), port=port)
    made.start()
    deadline = time.monotonic() + 60
    while not made.answers() and time.monotonic() < deadline:
        time.sleep(0.2)
    yield made
    made.end()


@pytest.fixture
def visit(served: Besieged) -> Iterator[Visit]:
    with chromium() as browser:
        yield Visit(browser.new_page(extra_http_headers=served.headers))


def test_the_operations_are_explained_and_tried_out_without_the_internet(served: Besieged, visit: Visit):
    answer = visit.page.goto(f"{served.url}/docs")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    visit.page.get_by_role("button", name="Authorize").wait_for()
    assert visit.page.locator(".opblock").count() == sum(
        len(operations) for operations in served.get("/openapi.json")["paths"].values()
    )
    visit.page.locator("#operations-runs-listed_v1_runs_get .opblock-summary-control").click()
    visit.page.get_by_role("button", name="Try it out").click()
    visit.page.get_by_role("button", name="Execute").click()
    shown = visit.page.locator(".live-responses-table .response-col_status").last
    shown.wait_for()
    assert shown.inner_text().startswith("200")
    assert (visit.errors, visit.elsewhere) == ([], [])


def test_a_report_shows_its_charts_and_asks_nobody(served: Besieged, visit: Visit):
    answer = visit.page.goto(f"{served.url}/v1/runs/{served.run}/report.html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    visit.page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert (visit.errors, visit.elsewhere) == ([], [])
