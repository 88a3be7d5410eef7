"""An API and its worker, killed again and again at random moments: no order is lost, and none is done twice.

AEVORIUM_TEST_KILLS says how often (8 unless set); AEVORIUM_TEST_SEED fixes the moments as far as a seed can.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from besieged import ROWS, Besieged, Client, order_runs, order_tables, read

from aevorium.governance.chain import AuditChain
from aevorium.jobs.checks import verify_server
from aevorium.jobs.folders import RunFolders
from aevorium.state.jobs import JobStore
from aevorium.state.store import Store, sqlite_url
from aevorium.verification import verify_export

KILLS = int(os.environ.get("AEVORIUM_TEST_KILLS", "8"))
SEED = int(os.environ.get("AEVORIUM_TEST_SEED", str(random.SystemRandom().randrange(10**6))))
SECONDS_TO_END = 120.0
"""For so long no order may end while some still wait: a backlog takes its time, a worker that is stuck does not."""

SECONDS_TO_START = 60.0

_HOW = ("worker", "worker", "both", "api")

pytestmark = [
    pytest.mark.timeout(SECONDS_TO_END * 2 + 30 * KILLS),
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc"),
]


@pytest.fixture
def besieged(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    made = Besieged(tmp_path, port=port)
    yield made
    made.end()


def _besiege(besieged: Besieged, moments: random.Random) -> Counter[str]:
    """Kills processes, and starts the API when it is gone."""
    done: Counter[str] = Counter()
    besieged.start()
    while (count := sum(done.values())) < KILLS:
        how, place = moments.choice(_HOW), moments.random()
        # The first cuts off a run. Of the others some lie in the work and some at the end of a job, where a worker has
        # several things to write; many lie in the start of a process.
        if count > 0 and place < 0.3:
            done["end of a job"] += _kill_at_the_end_of_a_job(besieged)
            continue
        if count == 0:
            _await(besieged, lambda jobs: any(job.state == "running" for job in jobs.page(kind="train", limit=1)), 60)
        elif place < 0.5:
            _await(besieged, lambda jobs: jobs.counts().get("running", 0) > 0, 10)
        time.sleep(moments.uniform(0.05, 1.5))
        if how != "worker":
            besieged.kill_api()
        if how == "api" or besieged.kill_workers(besieged.workers()):
            done[how] += 1
        if not besieged.is_served:
            besieged.start()
    return done


def _kill_at_the_end_of_a_job(besieged: Besieged) -> bool:
    """Kills the workers at once when a table is said to be made; whether it came to that."""
    deadline = time.monotonic() + 15
    while not (workers := besieged.workers()) and time.monotonic() < deadline:
        time.sleep(0.1)
    with _jobs(besieged) as jobs:
        made = jobs.counts().get("succeeded", 0)
    is_made = _await(besieged, lambda jobs: jobs.counts().get("succeeded", 0) > made, 15)
    return is_made and besieged.kill_workers(workers) > 0


def _await(besieged: Besieged, is_time: Callable[[JobStore], bool], seconds: float) -> bool:
    """Waits until it is time; whether it is, or it took too long."""
    deadline = time.monotonic() + seconds
    with _jobs(besieged) as jobs:
        while time.monotonic() < deadline:
            if is_time(jobs):
                return True
            time.sleep(0.001)
    return False


@contextmanager
def _jobs(besieged: Besieged) -> Iterator[JobStore]:
    store = Store(sqlite_url(besieged.workspace.api_database))
    try:
        yield JobStore(store)
    finally:
        store.close()


def _await_answers(besieged: Besieged) -> None:
    """Until the API answers, however its last process ended: the last blow may just have hit it."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not besieged.answers():
        assert time.monotonic() < deadline, "the API does not come back"
        if not besieged.is_served:
            besieged.start()
        time.sleep(0.3)


def _await_end(besieged: Besieged) -> None:
    """Until every order has ended."""
    fewest, deadline = math.inf, time.monotonic() + SECONDS_TO_END
    while time.monotonic() < deadline:
        if not besieged.is_served:
            besieged.start()
        if besieged.answers():
            waiting = [one for kind in ("datasets", "runs") for one in besieged.listed(kind) if not one["ended_at"]]
            if not waiting:
                return
            if len(waiting) < fewest:
                fewest, deadline = len(waiting), time.monotonic() + SECONDS_TO_END
        time.sleep(0.3)
    raise AssertionError(f"{len(waiting)} orders did not end, of these at first: {waiting[:3]}")


def test_no_order_is_lost_or_done_twice_however_often_processes_are_killed(besieged: Besieged):
    ended = threading.Event()
    clients = [Client(besieged, name=f"orders{number}", act=order_tables, ended=ended) for number in range(3)]
    clients += [Client(besieged, name=f"reads{number}", act=read, ended=ended) for number in range(2)]
    trainer = Client(besieged, name="trains", act=order_runs, ended=ended)
    for client in (*clients, trainer):
        client.start()
    kills = _besiege(besieged, random.Random(SEED))
    besieged.kill_workers(besieged.workers())  # a run that was begun has been cut off
    ended.set()
    for client in (*clients, trainer):
        client.join(60)
        assert not client.is_alive()
    _await_answers(besieged)
    for run in besieged.listed("runs"):
        if run["ended_at"] is None:
            besieged.stop_run(run["id"])
    _await_end(besieged)
    tables, runs = besieged.listed("datasets"), besieged.listed("runs")
    answers = sum((Counter(client.answers) for client in (*clients, trainer)), Counter())
    figures = {"kills": dict(kills), "tables": len(tables), "runs": len(runs), "answers": dict(answers)}
    sys.stderr.write(f"seed {SEED}: {json.dumps(figures)}\n")

    assert [complaint for client in (*clients, trainer) for complaint in client.complaints] == []
    _check_tables(besieged, tables, accepted=[order for client in clients for order in client.accepted.values()])
    _check_runs(besieged, runs, accepted=list(trainer.accepted.values()))
    _check_log(besieged, tables=tables, runs=runs)
    _check_leftovers(besieged)


def _check_tables(besieged: Besieged, tables: list[dict], *, accepted: list[str]) -> None:
    """Every order is there once, was done, and its file is what is told of it."""
    assert sorted(table["id"] for table in tables) == sorted(accepted)
    assert {(table["state"], table["rows"]) for table in tables} == {("succeeded", ROWS)}
    folders = RunFolders(besieged.workspace)
    files = {folders.dataset(table["id"], kind=table["order"]["format"]): table["sha256"] for table in tables}
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == files
    assert set(besieged.workspace.datasets.iterdir()) == set(files)


def _check_runs(besieged: Besieged, runs: list[dict], *, accepted: list[str]) -> None:
    """What was begun was begun once, and ended with its worker."""
    assert sorted(run["id"] for run in runs) == sorted(accepted)
    assert {run["state"] for run in runs} <= {"failed", "stopped"}
    cut = [run for run in runs if run["state"] == "failed"]
    assert cut, "no run was cut off: nothing is shown of runs"
    assert {run["error"]["code"] for run in cut} == {"JOB_INTERRUPTED"}
    with _jobs(besieged) as jobs:
        assert {jobs.find(run["id"]).attempts for run in cut} == {1}
    # The logs of runs and nodes say the same, who know nothing of the queue.
    logs = [RunFolders(besieged.workspace).workspace_of(run["id"]).database for run in runs]
    planned = [len(AuditChain(log).entries_of(["study_planned"])) for log in logs if log.is_file()]
    assert planned
    assert set(planned) <= {0, 1}
    for home in besieged.workspace.nodes.iterdir():
        agreed = Counter(entry.detail["run_id"] for entry in AuditChain(home / "audit.db").entries_of(["plan_agreed"]))
        assert agreed[besieged.run] == 1
        assert set(agreed.values()) == {1}


def _check_log(besieged: Besieged, *, tables: list[dict], runs: list[dict]) -> None:
    """The log is sound, and says of every order exactly once how it ended."""
    judged = verify_server(RunFolders(besieged.workspace), homes=(besieged.workspace.nodes,))
    assert judged.is_sound, judged.findings
    ends = {check.subject for check in judged.checks if check.subject.endswith("its log and the server's")}
    assert ends, "the end of no run was compared with its log"
    exported = verify_export(besieged.workspace.audit_log)
    assert exported.is_sound, exported.findings
    entries = AuditChain(besieged.workspace.database).entries()
    told = {
        action: Counter(entry.detail["job"] for entry in entries if entry.action == action)
        for action in ("run_ordered", "run_ended", "dataset_ordered", "dataset_ended")
    }
    assert told["dataset_ended"] == Counter(table["id"] for table in tables)
    begun = [run["id"] for run in runs if run["started_at"] is not None]
    assert told["run_ended"] == Counter(begun)
    # An order that is told of and was never accepted can be; one that was accepted and is not told of cannot.
    assert {run["id"]: 1 for run in runs}.items() <= told["run_ordered"].items()
    assert {table["id"]: 1 for table in tables}.items() <= told["dataset_ordered"].items()


def _check_leftovers(besieged: Besieged) -> None:
    """What killed processes had begun to write is gone where tables lie, and elsewhere does not grow for ever."""
    left = [path for path in besieged.workspace.root.rglob("*.part") if path.parent == besieged.workspace.datasets]
    assert left == []
    assert len(list(besieged.workspace.root.rglob("*.part"))) <= KILLS
