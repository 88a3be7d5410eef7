"""Each measurement: what it runs, and what it finds. Times are CPU seconds of one thread unless they say otherwise."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fidelity.cells import Cell
from benchmarks.fidelity.environments import interpreter
from benchmarks.fidelity.methods import DELTA, Runner, environment
from benchmarks.fidelity.tables import PreparedTable, prepare

__all__ = ["MEASURES", "Bench"]

_ROOT = Path(__file__).parent.parent.parent
_BATCHES = (256, 1024, 4096, 16384)
_HOOKS_MOST = 1024
"""All gradients of more records would not fit common machines."""

_FITS = 3
_GENERATED = 20_000
_OWN = (sys.executable, "-m", "aevorium")


@dataclass(frozen=True)
class Bench:
    """What measurements need.

    Attributes:
        data: The folder that holds `tables/`.
        cache: Environments and files of the fidelity benchmark.
        table: The table of those that need one.
        epsilon: The ε of those that need one.
    """

    data: Path
    cache: Path
    table: str
    epsilon: float

    def prepared(self) -> PreparedTable:
        """The table."""
        return prepare(self.table, data=self.data, folder=self.cache / "tables" / self.table)


def step_times(bench: Bench) -> dict[str, Any]:
    """A private step against one without privacy and against Opacus' hooks: same records, same draws, in turn."""
    found = {}
    for batch in (256, 1024):
        told = _child("steps", "--kinds", "private", "plain", "hooks", "--batch", str(batch), "--repetitions", "9")
        private, plain, hooks = (told["seconds"][kind] for kind in ("private", "plain", "hooks"))
        found[str(batch)] = {**told, "private_to_plain": private / plain, "hooks_to_private": hooks / private}
    return found


def step_memory(bench: Bench) -> dict[str, Any]:
    """Peak memory of a process by batch, above that of a batch of one: what the batch itself takes."""
    found: dict[str, dict[str, float]] = {}
    for kind in ("private", "plain", "hooks"):
        least = _peak(kind, batch=1)
        batches = [batch for batch in _BATCHES if kind != "hooks" or batch <= _HOOKS_MOST]
        found[kind] = {str(batch): _peak(kind, batch=batch) - least for batch in batches}
    return {"megabytes_above_a_batch_of_one": found}


def run_times(bench: Bench) -> dict[str, Any]:
    """A whole run and its surrogate's fit against AIM; fits before and after AIM, which takes long."""
    table = bench.prepared()
    with tempfile.TemporaryDirectory(dir=bench.cache) as name:
        folder = Path(name)
        workspace, whole = _run(bench, table, folder=folder)
        rows = ["--rows", str(table.rows), "--output", str(folder / "rows.csv")]
        made = _timed(folder, [*_OWN, "generate", "--workspace", str(workspace), *rows], settings=_key(folder))
        fits = [_child("fit", "--workspace", str(workspace)) for _ in range(_FITS)]
        aim = _timed(folder, _aim(bench, table, out=folder / "aim.csv"))
        fits += [_child("fit", "--workspace", str(workspace)) for _ in range(_FITS)]
    fit = statistics.median(told["seconds"] for told in fits)
    return {
        "table": bench.table,
        "epsilon": bench.epsilon,
        "rows": table.rows,
        "run_seconds": whole,
        "generate_seconds": made,
        "surrogate_fit_seconds": fit,
        "surrogate": {name: fits[0][name] for name in ("pairs", "components")},
        "aim_seconds": aim,
        "aim_to_surrogate_fit": aim / fit,
        "aim_to_whole_run": aim / (whole + made),
    }


def generation_rates(bench: Bench) -> dict[str, Any]:
    """Rows a second of `aevorium generate` with its default sampler, from a run of the table, on all cores and on one.

    By the wall clock, from the opening of the checkpoint to the written file, and by CPU seconds of the whole process.
    """
    table, most = bench.prepared(), os.cpu_count() or 1
    with tempfile.TemporaryDirectory(dir=bench.cache) as name:
        folder = Path(name)
        workspace, _ = _run(bench, table, folder=folder)
        found = {str(cores): _generation(workspace, folder=folder, cores=cores) for cores in sorted({1, most})}
    return {"table": bench.table, "epsilon": bench.epsilon, "rows": _GENERATED, "by_cores": found}


MEASURES: Mapping[str, Callable[[Bench], dict[str, Any]]] = {
    "steps": step_times,
    "memory": step_memory,
    "runs": run_times,
    "generation": generation_rates,
}


def _peak(kind: str, *, batch: int) -> float:
    told = _child("steps", "--kinds", kind, "--batch", str(batch), "--steps", "1")
    return float(told["peak_megabytes"])


def _aim(bench: Bench, table: PreparedTable, *, out: Path) -> list[str]:
    cell = Cell(table=bench.table, method="aim", epsilon=bench.epsilon, seed=0)
    script = _ROOT / "benchmarks" / "fidelity" / "peers" / "dpmm_rows.py"
    return [
        *(str(interpreter("dpmm", cache=bench.cache)), str(script), "--method", cell.method),
        *("--train", str(table.train), "--layout", str(table.layout), "--out", str(out)),
        *("--epsilon", f"{cell.epsilon:g}", "--delta", str(DELTA), "--seed", "0", "--rows", str(table.rows)),
    ]


def _key(folder: Path) -> dict[str, str]:
    return {"AEVORIUM_KEY_FILE": str(folder / "checkpoint.key")}


def _run(bench: Bench, table: PreparedTable, *, folder: Path) -> tuple[Path, float]:
    """The workspace of a run of all nodes, and what it took."""
    workspace = folder / "workspace"
    nodes = [part for name, path in table.nodes.items() for part in ("--node", f"{name}={path}")]
    asked = ["--epsilon", f"{bench.epsilon:g}", "--delta", str(DELTA), "--workspace", str(workspace)]
    command = [*_OWN, "run", "--schema", table.schema_source, *nodes, *asked, "--trust", "secure-aggregation"]
    return workspace, _timed(folder, command, settings=_key(folder))


def _generation(workspace: Path, *, folder: Path, cores: int) -> dict[str, Any]:
    """Three times; the fastest by the wall clock besides the median, for a machine that others use too."""
    walls, used = zip(
        *(_generate(workspace, rows=_GENERATED, folder=folder, cores=cores) for _ in range(3)), strict=True
    )
    _, start = _generate(workspace, rows=1, folder=folder, cores=cores)
    return {
        "rows_per_second": _GENERATED / statistics.median(walls),
        "fastest_rows_per_second": _GENERATED / min(walls),
        "rows_per_cpu_second": _GENERATED / statistics.median(used),
        "rows_per_cpu_second_without_start": _GENERATED / (statistics.median(used) - start),
    }


def _generate(workspace: Path, *, rows: int, folder: Path, cores: int) -> tuple[float, float]:
    """Seconds of the wall clock that the product tells, and CPU seconds of the whole process."""
    asked = ["--workspace", str(workspace), "--rows", str(rows), "--output", str(folder / "many.csv")]
    began = _children_seconds()
    done = subprocess.run(  # noqa: S603 - the product
        [*_OWN, "--json", "generate", *asked],
        env=environment(threads=cores, settings=_key(folder)),
        cwd=_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(json.loads(done.stdout)["data"]["seconds"]), _children_seconds() - began


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _child(module: str, *arguments: str) -> dict[str, Any]:
    """What a script of this folder prints, one thread."""
    done = subprocess.run(  # noqa: S603 - a script of this folder
        [sys.executable, "-m", f"benchmarks.speed.{module}", *arguments],
        env=environment(threads=1, settings={}),
        cwd=_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _timed(folder: Path, command: list[str], *, settings: Mapping[str, str] | None = None) -> float:
    """CPU seconds of a command and its children, one thread."""
    run = Runner(limit=float("inf"), threads=1, log=folder / "log.txt")
    run(command, settings=settings)
    return run.seconds_cpu
