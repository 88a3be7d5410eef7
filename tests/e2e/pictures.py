"""Takes the pictures of the dashboard in the documentation anew: `PYTHONPATH=src python tests/e2e/pictures.py`.

Real runs of the product, on two nodes with invented patients; some minutes.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from browser import ROOT, chromium
from desk import SCHEMA
from test_e2e_dashboard import come_in, served

from aevorium.client import Client

PICTURES = ROOT / "docs" / "images"
SIZE = {"width": 1200, "height": 860}


def take(folder: Path) -> None:
    """The overview while a run goes on, and the training history after it."""
    with served(folder) as site, Client(site.api, token=site.token) as client, chromium() as browser:
        client.wait_for_run(client.order_run(schema_text=SCHEMA, choices={"epsilon": 1.0}).id)
        rounds = {"epsilon": 1.5, "recipe": "dp-sgd", "rounds": 40, "epochs": 1}
        run = client.order_run(schema_text=SCHEMA, choices=rounds)
        guest = come_in(browser, site)
        guest.page.set_viewport_size(SIZE)
        guest.page.get_by_text(re.compile("[6-9] of 40")).wait_for(timeout=240_000)
        guest.page.wait_for_timeout(1500)
        guest.page.screenshot(path=PICTURES / "dashboard-overview.png")
        client.wait_for_run(run.id)
        guest.go("Training history")
        guest.page.get_by_text("40 of 40").wait_for()
        guest.page.wait_for_timeout(1500)
        guest.page.screenshot(path=PICTURES / "dashboard-training.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        take(Path(made))
