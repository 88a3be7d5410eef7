"""The documentation site in a browser: every page of its map, at both sizes and in both colours."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import CHROMIUM, SIZES, WEBSITE, Visit, chromium, install_website

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    # Installing and building come first, and take minutes where neither was done before.
    pytest.mark.timeout(2400),
]

_BUILD_SECONDS = 1200
_MISSING_IMAGES = """Promise.all([...document.images].map(image => {
  image.loading = 'eager';
  return image.decode().then(() => '', () => image.src);
})).then(sources => sources.filter(Boolean))"""
_IS_TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


class _Pages(SimpleHTTPRequestHandler):
    """The files of a site; a folder is its page, without a detour."""

    def translate_path(self, path: str) -> str:
        found = Path(super().translate_path(path))
        return str(found / "index.html" if found.is_dir() else found)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of each request."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site as it is now, built and served."""
    install_website()
    folder = tmp_path_factory.mktemp("site")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    built = subprocess.run(
        [npm, "run", "build", "--", "--out-dir", str(folder)],
        cwd=WEBSITE, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Pages, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _paths(visit: Visit, site: str) -> list[str]:
    """Every page that the site's map names."""
    text = visit.page.request.get(f"{site}/sitemap.xml").text()
    return re.findall(r"<loc>https?://[^/]+(/[^<]*)</loc>", text)


def _faults(visit: Visit, address: str) -> list[str]:
    """What is wrong with a page, at both sizes and in both colours."""
    faults = []
    for colour in ("light", "dark"):
        visit.page.emulate_media(color_scheme=colour)
        visit.page.goto(address)
        visit.page.locator(f"html[data-has-hydrated=true][data-theme={colour}]").wait_for()
        visit.page.get_by_role("heading", level=1).first.wait_for()
        for diagram in visit.page.locator(".docusaurus-mermaid-container").all():
            diagram.locator("svg").wait_for()
        faults += [f"no picture at {source}" for source in visit.page.evaluate(_MISSING_IMAGES)]
        for name, size in SIZES.items():
            visit.page.set_viewport_size(size)
            if visit.page.evaluate(_IS_TOO_WIDE):
                faults.append(f"wider than a {name}")
            faults += [f"{barrier}, {name}, {colour}" for barrier in visit.barriers()]
    faults += visit.errors
    visit.errors.clear()
    return faults


def test_every_page_is_whole_narrow_enough_and_open_to_everybody(site: str) -> None:
    with chromium() as browser:
        visit = Visit(browser.new_context(reduced_motion="reduce").new_page())
        paths = _paths(visit, site)
        assert "/docs/GETTING_STARTED" in paths
        faults = {path: _faults(visit, site + path) for path in paths}
        assert {path: found for path, found in faults.items() if found} == {}
        assert visit.elsewhere == []


def test_the_search_finds_a_page(site: str) -> None:
    with chromium() as browser:
        visit = Visit(browser.new_page())
        visit.page.goto(site)
        visit.page.get_by_label("Search", exact=True).press_sequentially("steward")
        visit.page.get_by_role("option", name="For the data steward").first.click()
        visit.page.get_by_role("heading", name="For the data steward", level=1).wait_for()
        assert visit.errors == []
        assert visit.elsewhere == []


def test_the_landing_page_compares_at_known_budgets(site: str) -> None:
    with chromium() as browser:
        visit = Visit(browser.new_page())
        visit.page.goto(site)
        groups = visit.page.locator("th[scope=rowgroup]").all_inner_texts()
        assert groups
        assert [name for name in groups if not re.search(r", ε = [\d.]+$", name)] == []


def test_a_page_that_keeps_people_out_is_told(tmp_path: Path) -> None:
    install_website()
    page = tmp_path / "page.html"
    page.write_text("<html lang='en'><title>A page</title><img src='data:,'><p style='color: #ccc'>Pale</p></html>")
    with chromium() as browser:
        visit = Visit(browser.new_page())
        visit.page.goto(page.as_uri())
        assert {barrier.partition(":")[0] for barrier in visit.barriers()} == {"image-alt", "color-contrast"}
