"""python -m benchmarks.speed --data DIR: measures what has not been measured, then writes the table."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from aevorium.workspace import write_atomically
from benchmarks.fidelity.cells import TABLES
from benchmarks.fidelity.environments import interpreter
from benchmarks.fidelity.methods import own_versions
from benchmarks.speed.measures import MEASURES, Bench
from benchmarks.speed.report import markdown

_HERE = Path(__file__).parent


def main() -> int:
    """Each measurement is one JSON file; one that is there is not made again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds tables/")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--table", choices=TABLES, default="adult", help="the table of whole runs")
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--again", action="store_true", help="measure also what has its file")
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    parser.add_argument("--cache", type=Path, default=_HERE.parent / "fidelity" / ".cache")
    given = parser.parse_args()
    bench = Bench(data=given.data, cache=given.cache, table=given.table, epsilon=given.epsilon)
    if "runs" in given.only:
        interpreter("dpmm", cache=given.cache)
    for name in given.only:
        of_table = f"_{given.table}_eps{given.epsilon:g}" if name in ("runs", "generation") else ""
        path = given.results / f"{name}{of_table}.json"
        if path.is_file() and not given.again:
            continue
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {path.stem} ...\n")
        found = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0], **MEASURES[name](bench)}
        with write_atomically(path) as temporary:
            text = json.dumps({"measure": name, "versions": own_versions(), **found}, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(given.results.glob("*.json"))]
    with write_atomically(_HERE / "RESULTS.md") as temporary:
        temporary.write_text(markdown(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
