"""How each method makes rows: commands to run, one after another, in the environment that each needs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from benchmarks.fidelity.cells import PRIVATE_PEERS, Cell
from benchmarks.fidelity.environments import interpreter, versions
from benchmarks.fidelity.tables import PreparedTable, write_scored

__all__ = ["DELTA", "CellFailed", "Made", "OutOfTime", "Runner", "Workshop", "environment", "own_versions"]

DELTA = 1e-5

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_REASON_LENGTH = 300
_BARE = ("NUM_ROUNDS", "TRAINING_EPOCHS", "BATCH_SIZE", "DP_NOISE_MULTIPLIER", "SERVER_PORT")
"""Settings of Aevorium that go without its name."""

_TOOK = "took.json"
"""In a finished run's workspace: what the run took, for the cell that reports it."""


class CellFailed(Exception):
    """A command of a cell failed; the message is its reason."""


class OutOfTime(Exception):
    """A cell was not finished in its time."""


@dataclass
class Runner:
    """Runs commands under one limit of time and adds up what they took.

    Attributes:
        limit: Seconds that all commands together may take, wall clock.
        threads: Threads that numerical libraries are allowed.
        log: What the commands print.
        seconds: Wall clock so far.
        seconds_cpu: Time of all cores so far.
    """

    limit: float
    threads: int
    log: Path
    seconds: float = 0.0
    seconds_cpu: float = 0.0

    def __call__(self, command: Sequence[str], *, settings: Mapping[str, str] | None = None) -> None:
        """Runs one command.

        Raises:
            CellFailed: It ended with another status than 0.
            OutOfTime: The limit is reached; the command and all its children are ended.
        """
        began, used = time.monotonic(), _children_seconds()
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            process = subprocess.Popen(  # noqa: S603 - commands of this file
                command,
                cwd=_ROOT,
                env=environment(threads=self.threads, settings=settings or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(timeout=max(0.1, self.limit - self.seconds))
            except subprocess.TimeoutExpired as error:
                raise OutOfTime(f"did not finish in {self.limit:g} s") from error
            finally:
                _end(process)
                self.seconds += time.monotonic() - began
                self.seconds_cpu += _children_seconds() - used
        if status:
            raise CellFailed(_reason(self.log, status=status))

    def add(self, took: Mapping[str, float]) -> None:
        """Adds what was done before, by another cell."""
        self.seconds += took["seconds"]
        self.seconds_cpu += took["seconds_cpu"]


@dataclass(frozen=True)
class Made:
    """What a method made.

    Attributes:
        rows: The rows as they are scored.
        epsilon: ε spent; None if none was asked for.
        versions: Software that made them.
    """

    rows: Path
    epsilon: float | None
    versions: dict[str, str]


@dataclass(frozen=True)
class Workshop:
    """Where rows are made.

    Attributes:
        cache: Environments, and workspaces of Aevorium's runs.
        folder: Files of the cell at work.
    """

    cache: Path
    folder: Path

    def make(self, cell: Cell, table: PreparedTable, *, run: Runner) -> Made:
        """Makes as many rows as there are training rows.

        Args:
            cell: What is asked for.
            table: The table.
            run: Runs commands.
        """
        if cell.method == "real":
            return Made(rows=table.scored_train, epsilon=None, versions=own_versions())
        if cell.trust is None:
            return self._peer(cell, table, run=run)
        return self._own(cell, table, run=run)

    def _peer(self, cell: Cell, table: PreparedTable, *, run: Runner) -> Made:
        environment = "dpmm" if cell.method in PRIVATE_PEERS else "ctgan"
        python = interpreter(environment, cache=self.cache)
        raw = self.folder / "raw.csv"
        run(
            [
                *(str(python), str(_HERE / "peers" / f"{environment}_rows.py"), "--method", cell.method),
                *("--train", str(table.train), "--layout", str(table.layout), "--out", str(raw)),
                *("--epsilon", f"{cell.epsilon:g}", "--delta", str(DELTA)),
                *("--seed", str(cell.seed), "--rows", str(table.rows)),
            ]
        )
        spent = cell.epsilon if math.isfinite(cell.epsilon) else None
        return Made(rows=self._scored(raw, table), epsilon=spent, versions=versions(python))

    def _own(self, cell: Cell, table: PreparedTable, *, run: Runner) -> Made:
        raw = self.folder / "raw.csv"
        workspace = self._workspace(cell, table, run=replace(run))
        if cell.method in ("aevorium-surrogate", "aevorium-pretrained"):
            stage = cell.method.removeprefix("aevorium-")
            run(
                [
                    *(sys.executable, "-m", "benchmarks.fidelity.released_rows", "--workspace", str(workspace)),
                    *("--stage", stage, "--rows", str(table.rows), "--out", str(raw)),
                ],
                settings=cell.settings,
            )
        else:
            run.add(json.loads((workspace / _TOOK).read_text(encoding="utf-8")))
            run(
                [
                    *(sys.executable, "-m", "aevorium", "generate", "--workspace", str(workspace)),
                    *("--rows", str(table.rows), "--output", str(raw), "--seed", str(cell.seed)),
                ],
                settings={"AEVORIUM_KEY_FILE": str(self.cache / "checkpoint.key"), **cell.settings},
            )
        return Made(rows=self._scored(raw, table), epsilon=_spent(workspace), versions=own_versions())

    def _workspace(self, cell: Cell, table: PreparedTable, *, run: Runner) -> Path:
        """The workspace of a finished run; those that only read what a run released share it."""
        recipe = "dp-sgd" if cell.method == "dp-sgd" else "warm-start"
        settings = "-".join(f"{name}={value}" for name, value in sorted(cell.settings.items()))
        parts = [recipe, cell.trust or "", f"eps{cell.epsilon:g}", settings, f"seed{cell.seed}"]
        name = "_".join([*(part for part in parts if part), *(["pooled"] if cell.is_pooled else [])])
        finished = self.cache / "workspaces" / _commit() / table.name / name
        if finished.is_dir():
            return finished
        workspace = self.folder / "workspace"
        nodes = {"pooled": table.pooled} if cell.is_pooled else table.nodes
        run(
            [
                *(sys.executable, "-m", "aevorium", "run", "--schema", table.schema_source),
                *(part for name, path in nodes.items() for part in ("--node", f"{name}={path}")),
                *("--epsilon", f"{cell.epsilon:g}", "--delta", str(DELTA), "--workspace", str(workspace)),
                *("--recipe", recipe, "--trust", cell.trust or "local", "--seed", str(cell.seed)),
            ],
            settings={"AEVORIUM_KEY_FILE": str(self.cache / "checkpoint.key"), **cell.settings},
        )
        (workspace / _TOOK).write_text(json.dumps({"seconds": run.seconds, "seconds_cpu": run.seconds_cpu}))
        finished.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(workspace, finished)
        return finished

    def _scored(self, raw: Path, table: PreparedTable) -> Path:
        scored = self.folder / "scored.csv"
        write_scored(pd.read_csv(raw, dtype=str, keep_default_na=False), table.schema, path=scored)
        return scored


def _spent(workspace: Path) -> float | None:
    """The largest ε of any node, by the ledgers; None without privacy."""
    study = json.loads((workspace / "study.json").read_text(encoding="utf-8"))
    spent = max(float(node["spent"]) for node in study["nodes"])
    return spent if math.isfinite(spent) else None


def environment(*, threads: int, settings: Mapping[str, str]) -> dict[str, str]:
    """What a command sees: this working tree's Aevorium, and no setting but those that are given.

    Args:
        threads: Threads of numerical libraries.
        settings: Settings of Aevorium by their variables.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AEVORIUM_") and name not in _BARE}
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    places = os.pathsep.join(place for place in (str(_ROOT / "src"), os.environ.get("PYTHONPATH", "")) if place)
    return {**kept, **limits, "PYTHONHASHSEED": "0", "PYTHONPATH": places, **settings}


def own_versions() -> dict[str, str]:
    """Aevorium's commit, and the packages that bear on a result."""
    return {**versions(Path(sys.executable)), "aevorium commit": _commit()}


def _commit() -> str:
    """The commit of the working tree; where the sources are not as committed, also a hash of the difference."""
    head, changes = _git("rev-parse", "--short=12", "HEAD") or "unknown", _git("diff", "HEAD", "--", "src")
    return f"{head}-changed-{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else head


def _git(*command: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run([git, *command], cwd=_ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip()


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a command with all that it started; nothing happens if it has ended by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(log: Path, *, status: int) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1].replace(str(_ROOT), ".") if lines else ""
    return f"exit status {status}: {last}"[:_REASON_LENGTH]
