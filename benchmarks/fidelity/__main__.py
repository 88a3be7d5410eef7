"""python -m benchmarks.fidelity --data DIR: runs what has not been run, then writes table and plots."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fidelity.cells import TABLES, Cell, ablation, grid, select
from benchmarks.fidelity.comparison import write_comparison
from benchmarks.fidelity.environments import interpreter, versions
from benchmarks.fidelity.methods import DELTA, CellFailed, Made, OutOfTime, Runner, Workshop
from benchmarks.fidelity.report import write_report
from benchmarks.fidelity.results import Result, Store, summarise
from benchmarks.fidelity.tables import PreparedTable, prepare

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs cells one at a time; a cell that fails is written down and the next one is run."""
    given = _parse(arguments)
    # Whoever is asked to end also ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    store = Store(given.results)
    if not given.report:
        if given.data is None:
            sys.stderr.write("--data is missing: the folder that holds tables/\n")
            return 2
        make = ablation if given.ablation else grid
        try:
            cells = select(make(given.seeds, tables=given.tables), given.only)
        except ValueError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        _run(cells, store=store, given=given)
    results = store.everything()
    write_report(results, folder=given.results.parent, cache=given.cache)
    if given.results == _RESULTS:
        write_comparison(_HERE.parent.parent / "README.md", summarise(results))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that holds tables/")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of every cell")
    parser.add_argument("--only", action="append", default=[], help="table=adult,method=mst|aim,epsilon=1; repeat it")
    parser.add_argument("--ablation", action="store_true", help="the cells that say what each step buys")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds that a cell may take")
    parser.add_argument("--threads", type=int, default=1, help="threads of numerical libraries")
    parser.add_argument("--again", choices=["failed", "all"], help="run cells again: those without scores, or all")
    parser.add_argument("--report", action="store_true", help="only write table and plots again")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--cache", type=Path, default=_HERE / ".cache", help="environments and workspaces")
    return parser.parse_args(arguments)


def _run(cells: Sequence[Cell], *, store: Store, given: argparse.Namespace) -> None:
    tables: dict[str, PreparedTable] = {}
    for number, cell in enumerate(cells, start=1):
        found = store.find(cell)
        if found is not None and not (given.again == "all" or (given.again and found.status != "done")):
            continue
        if cell.table not in tables:
            tables[cell.table] = prepare(cell.table, data=given.data, folder=given.cache / "tables" / cell.table)
        _say(f"[{number}/{len(cells)}] {cell} ...")
        result = run_cell(cell, tables[cell.table], cache=given.cache, limit=given.timeout, threads=given.threads)
        store.write(result)
        _say(f"[{number}/{len(cells)}] {cell}: {_outcome(result)}")


def run_cell(cell: Cell, table: PreparedTable, *, cache: Path, limit: float, threads: int) -> Result:
    """Makes rows and scores them; never raises for what a method does.

    Args:
        cell: What is asked for.
        table: The table.
        cache: Environments and workspaces.
        limit: Seconds that the rows may take.
        threads: Threads of numerical libraries.
    """
    (cache / "work").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=cache / "work"))
    run = Runner(limit=limit, threads=threads, log=folder / "log.txt")
    known = {"cell": cell, "delta": DELTA, "rows": table.rows, "cores": os.cpu_count() or 1, "threads": threads}
    try:
        made = Workshop(cache=cache, folder=folder).make(cell, table, run=run)
        scoring = time.monotonic()
        scores = _score(made, table, cache=cache, folder=folder, threads=threads)
        used = versions(interpreter("scores", cache=cache))
        return Result(
            **known,
            status="done",
            scores={name: value for name, value in scores.items() if isinstance(value, float)},
            missing_by_column=scores.get("missing_by_column", {}),
            epsilon_spent=made.epsilon,
            seconds=run.seconds,
            seconds_cpu=run.seconds_cpu,
            seconds_scoring=time.monotonic() - scoring,
            versions={**made.versions, **{name: used[name] for name in ("sdmetrics", "xgboost-cpu", "scikit-learn")}},
        )
    except OutOfTime as error:
        return Result(**known, status="timeout", reason=str(error), seconds=run.seconds, seconds_cpu=run.seconds_cpu)
    except Exception as error:  # whatever goes wrong in one cell, the others go on
        reason = str(error) if isinstance(error, CellFailed) else f"{type(error).__name__}: {error}"
        return Result(**known, status="failed", reason=reason, seconds=run.seconds, seconds_cpu=run.seconds_cpu)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _score(made: Made, table: PreparedTable, *, cache: Path, folder: Path, threads: int) -> dict[str, object]:
    out = folder / "scores.json"
    run = Runner(limit=float("inf"), threads=threads, log=folder / "scores.txt")
    run(
        [
            *(str(interpreter("scores", cache=cache)), "-m", "benchmarks.fidelity.scores", "--out", str(out)),
            *("--train", str(table.scored_train), "--holdout", str(table.scored_holdout)),
            *("--synthetic", str(made.rows), "--layout", str(table.layout)),
        ]
    )
    found: dict[str, object] = json.loads(out.read_text(encoding="utf-8"))
    return found


def _outcome(result: Result) -> str:
    if result.status != "done":
        return result.reason
    scores = " ".join(f"{name}={value:.3f}" for name, value in result.scores.items())
    return f"{result.seconds:.0f} s, {scores}"


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
