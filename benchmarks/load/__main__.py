"""python -m benchmarks.load: measures, and writes the table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from aevorium.workspace import write_atomically
from benchmarks.fidelity.methods import own_versions
from benchmarks.load.measure import measure
from benchmarks.load.report import markdown

_HERE = Path(__file__).parent


def main() -> int:
    """The measurement is one JSON file, from which the table is written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="to each of the two servers")
    parser.add_argument("--clients", type=int, default=50, help="that ask at once")
    parser.add_argument("--results", type=Path, default=_HERE, help="folder of RESULTS.md and results/")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure(requests=given.requests, clients=given.clients)
    result = {"versions": own_versions(), "cores": os.cpu_count(), "load_before": load, **found}
    with write_atomically(given.results / "results" / "load.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    with write_atomically(given.results / "RESULTS.md") as temporary:
        temporary.write_text(markdown(result), encoding="utf-8")
    return 0 if result["is_log_sound"] and not result["lost"] and not result["errors"] else 1


if __name__ == "__main__":
    sys.exit(main())
