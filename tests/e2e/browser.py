"""The system's Chromium without a network, what a page complains of in it, and axe's opinion of the page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WEBSITE = ROOT / "website"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
_AXE = WEBSITE / "node_modules" / "axe-core" / "axe.min.js"
_INSTALL_SECONDS = 180


def install_website() -> None:
    """What the site is built and judged with, from its lock file; skips the test where that cannot be had."""
    if _AXE.is_file():
        return
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, or an installed website (npm ci)")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        subprocess.run(command, cwd=WEBSITE, check=True, capture_output=True, timeout=_INSTALL_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"the site's packages cannot be installed: {error}")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser for which no host exists but this machine."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A browser's page, with whatever it complained of and asked of others."""

    page: Any
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: self._note(asked.url))
        self.page.on("websocket", lambda socket: self._note(socket.url))

    def _note(self, url: str) -> None:
        if not re.match(r"(https?|wss?)://(localhost|127\.0\.0\.1)[:/]|data:|blob:|about:", url):
            self.elsewhere.append(url)

    def barriers(self) -> list[str]:
        """What keeps people out of the page: axe's serious and critical faults, each with an element.

        A page has a moment to follow a change of its size: what is gone a second later kept nobody out.
        """
        if faults := self._barriers():
            self.page.wait_for_timeout(1000)
            faults = self._barriers()
        return faults

    def _barriers(self) -> list[str]:
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{fault['id']}: {fault['help']} ({len(fault['nodes'])} times, as in {fault['nodes'][0]['html'][:200]})"
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
