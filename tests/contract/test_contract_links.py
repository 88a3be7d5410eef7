"""Links of the documentation: to files that exist, and to headings that are there. Without a network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*/*.md")),
    ROOT / "website" / "README.md",
]
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """As the usual renderers make them from headings; a heading that is there twice gets a number."""
    found: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def links(page: Path) -> list[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    # Links whose text is code stay: the brackets are outside of the backticks.
    return _LINK.findall(_CODE.sub("code", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            assert link.startswith("https://"), f"{link}: not over TLS"
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.exists(), f"{link}: no such file"
        assert target.resolve().is_relative_to(ROOT.resolve()), f"{link}: outside of the repository"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading among {sorted(anchors(target))}"


def test_every_page_is_in_the_site() -> None:
    """A page that no sidebar names is found by nobody."""
    sidebar = (ROOT / "website" / "sidebars.js").read_text(encoding="utf-8")
    named = set(re.findall(r"page\('([\w/]+)'", sidebar))
    pages = {page.relative_to(ROOT).with_suffix("").as_posix() for page in PAGES}
    assert pages - named == {"README", "website/README"}
    assert named - pages == set()


def test_the_readme_leads_everywhere() -> None:
    """All that a first visitor looks for, and every page within one step."""
    page = ROOT / "README.md"
    text, targets = page.read_text(encoding="utf-8"), {link.partition("#")[0] for link in links(page)}
    assert {"docs/images/report.png", "docs/images/dashboard-overview.png"} <= targets
    _, _, model = text.partition("## The privacy model in ten lines\n")
    assert re.findall(r"^(\d+)\. ", model, re.MULTILINE) == [str(number) for number in range(1, 11)]
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "fidelity" / "RESULTS.md"]
    assert {path.relative_to(ROOT).as_posix() for path in pages} - targets == {"README.md"}


def test_the_site_is_made_of_public_packages_and_asks_nothing_of_other_hosts() -> None:
    site = ROOT / "website"
    lock = json.loads((site / "package-lock.json").read_text(encoding="utf-8"))
    hosts = {urlsplit(package["resolved"]).netloc for package in lock["packages"].values() if "resolved" in package}
    assert hosts <= {"registry.npmjs.org"}
    assert all("integrity" in package for name, package in lock["packages"].items() if name)
    written = [site / "docusaurus.config.js", *(site / "src").rglob("*.*"), *(site / "static").rglob("*.*")]
    for path in written:
        hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+|localhost)", path.read_text(encoding="utf-8")))
        assert hosts <= {"localhost", "www.w3.org"}, f"{path.name}: {hosts}"


def test_anchors_are_told_from_text(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One: `two` & [three](x.md)\n## Same\n## Same\n```\n# none\n```\n[a](#same-1) `[b](#no)`\n")
    assert anchors(page) == {"one-two--three", "same", "same-1"}
    assert links(page) == ["x.md", "#same-1"]
