"""The fit of the surrogate alone, from a run's released files, in a process of its own.

python -m benchmarks.speed.fit --workspace DIR

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.statistics import TableStatistics
from aevorium.progress import ignore
from aevorium.server.record import load_study
from aevorium.server.warm_start import WarmStart
from aevorium.workspace import Workspace
from benchmarks.fidelity.released_rows import read_associations


def main() -> None:
    """Fits once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    workspace = Workspace(parser.parse_args().workspace)
    record, schema = load_study(workspace)
    statistics = TableStatistics.from_json(workspace.statistics.read_text(encoding="utf-8"))
    total, tables = record.total or 1.0, read_associations(workspace)
    encoder = TableEncoder.fit(statistics, schema, total=total)
    began = time.process_time()
    warm = WarmStart(
        encoder, schema, tables=tables, total=total, statistics=statistics, seed=record.seed, report=ignore
    )
    answer = {
        "seconds": time.process_time() - began,
        "pairs": sum(len(table.design.pairs) for table in tables),
        "components": len(warm.surrogate.mixture.weights),
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
