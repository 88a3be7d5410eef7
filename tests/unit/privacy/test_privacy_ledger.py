from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aevorium.errors import ArtefactError, InternalError, PolicyRefused
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, SampledGaussian
from aevorium.privacy.ledger import BudgetLedger, SqliteLedger

COUNT = DiscreteLaplace(purpose="count", epsilon=0.1)
TABLES = DiscreteGaussian(purpose="tables", sigma=5.0, count=14)
TRAINING = SampledGaussian(purpose="training", sampling_rate=0.1, noise_multiplier=1.0, steps=10)


class Refusal(Exception):
    """Raised by an `admit` function."""


def refuse(_runs) -> None:
    raise Refusal


def open_run(ledger: BudgetLedger, run_id: str = "r1", *, period: str = "2026", **extra) -> None:
    ledger.open_run(run_id, plan_json="{}", plan_hash="ab", epsilon=3.0, delta=1e-5, period=period, **extra)


class LedgerConformance:
    """What every ledger must do. A subclass gives `ledger` (empty) and `reopened` (the same ledger, opened anew)."""

    def test_an_empty_ledger_knows_no_run(self, ledger):
        assert ledger.run("r1") is None
        assert ledger.runs("2026") == {}
        assert ledger.periods() == ()

    def test_a_run_is_kept_as_agreed(self, ledger, reopened):
        open_run(ledger, agreed_events=[COUNT, TABLES])
        run = reopened().run("r1")
        assert (run.run_id, run.plan_json, run.plan_hash, run.period) == ("r1", "{}", "ab", "2026")
        assert (run.epsilon, run.delta) == (3.0, 1e-5)
        assert run.agreed_events == run.planned_events == (COUNT, TABLES)
        assert run.events == ()
        assert run.fixed_events is None
        assert run.closed_at is None

    def test_an_infinite_target_survives(self, ledger, reopened):
        ledger.open_run("r1", plan_json="{}", plan_hash="ab", epsilon=float("inf"), delta=1e-5, period="p")
        assert reopened().run("r1").epsilon == float("inf")

    def test_a_run_is_agreed_once(self, ledger):
        open_run(ledger)
        with pytest.raises(PolicyRefused) as caught:
            open_run(ledger, period="2027")
        assert caught.value.code == "RELEASE_OUTSIDE_PLAN"
        assert list(ledger.runs("2026")) == ["r1"]
        assert ledger.runs("2027") == {}

    def test_reserved_and_committed_are_both_spent_for_ever(self, ledger, reopened):
        open_run(ledger)
        first = ledger.reserve("r1", phase="count", round=0, events=[COUNT])
        second = ledger.reserve("r1", phase="tables", round=0, events=[TABLES])
        ledger.commit(first)
        assert first != second
        run = reopened().run("r1")
        assert run.events == (COUNT, TABLES)
        assert [release.state for release in run.releases] == ["committed", "reserved"]

    def test_a_release_of_nothing_costs_nothing_but_is_written_down(self, ledger):
        open_run(ledger)
        ledger.reserve("r1", phase="hello", round=0, events=[])
        assert ledger.run("r1").events == ()
        assert len(ledger.run("r1").releases) == 1

    def test_a_phase_and_round_are_released_once(self, ledger):
        open_run(ledger)
        open_run(ledger, "r2")
        ledger.commit(ledger.reserve("r1", phase="training", round=1, events=[TRAINING]))
        with pytest.raises(PolicyRefused) as caught:
            ledger.reserve("r1", phase="training", round=1, events=[TRAINING])
        assert caught.value.code == "RELEASE_OUTSIDE_PLAN"
        assert "replayed" in caught.value.message
        assert ledger.run("r1").events == (TRAINING,)
        ledger.reserve("r1", phase="training", round=2, events=[TRAINING])
        ledger.reserve("r1", phase="tables", round=1, events=[TABLES])
        ledger.reserve("r2", phase="training", round=1, events=[TRAINING])

    def test_an_unknown_run_releases_nothing(self, ledger):
        with pytest.raises(PolicyRefused) as caught:
            ledger.reserve("r1", phase="count", round=0, events=[COUNT])
        assert caught.value.code == "RELEASE_OUTSIDE_PLAN"
        with pytest.raises(PolicyRefused):
            ledger.fix_events("r1", [COUNT])

    def test_a_closed_run_releases_nothing_more_and_stays_closed(self, ledger):
        open_run(ledger)
        ledger.reserve("r1", phase="count", round=0, events=[COUNT])
        ledger.close_run("r1")
        closed_at = ledger.run("r1").closed_at
        assert closed_at is not None
        for attempt in (
            lambda: ledger.reserve("r1", phase="tables", round=0, events=[TABLES]),
            lambda: ledger.fix_events("r1", [COUNT]),
        ):
            with pytest.raises(PolicyRefused):
                attempt()
        ledger.close_run("r1")
        assert ledger.run("r1").closed_at == closed_at
        assert ledger.run("r1").events == (COUNT,)

    def test_events_are_fixed_once(self, ledger):
        open_run(ledger, agreed_events=[COUNT])
        ledger.fix_events("r1", [COUNT, TABLES])
        with pytest.raises(PolicyRefused):
            ledger.fix_events("r1", [COUNT])
        run = ledger.run("r1")
        assert run.agreed_events == (COUNT,)
        assert run.planned_events == run.fixed_events == (COUNT, TABLES)

    @pytest.mark.parametrize("reservation", [0, 7])
    def test_an_unknown_reservation_cannot_be_committed(self, ledger, reservation):
        with pytest.raises(InternalError):
            ledger.commit(reservation)

    def test_a_reservation_is_committed_once(self, ledger):
        open_run(ledger)
        reservation = ledger.reserve("r1", phase="count", round=0, events=[COUNT])
        ledger.commit(reservation)
        with pytest.raises(InternalError):
            ledger.commit(reservation)

    def test_whoever_is_not_admitted_leaves_no_trace(self, ledger):
        with pytest.raises(Refusal):
            open_run(ledger, admit=refuse)
        assert ledger.run("r1") is None
        open_run(ledger)
        with pytest.raises(Refusal):
            ledger.reserve("r1", phase="count", round=0, events=[COUNT], admit=refuse)
        with pytest.raises(Refusal):
            ledger.fix_events("r1", [COUNT], admit=refuse)
        run = ledger.run("r1")
        assert run.releases == ()
        assert run.fixed_events is None

    def test_admission_sees_the_period_before_the_change(self, ledger):
        open_run(ledger, "old", period="2025")
        open_run(ledger, "r1")
        ledger.reserve("r1", phase="count", round=0, events=[COUNT])
        seen = []

        def look(runs):
            seen.append({name: run.events for name, run in runs.items()})

        open_run(ledger, "r2", admit=look)
        ledger.reserve("r1", phase="tables", round=0, events=[TABLES], admit=look)
        assert seen == [{"r1": (COUNT,)}, {"r1": (COUNT,), "r2": ()}]

    def test_runs_come_in_the_order_of_agreement_and_periods_oldest_first(self, ledger):
        for run_id, period in [("z", "2025"), ("b", "2026"), ("a", "2026"), ("c", "2025")]:
            open_run(ledger, run_id, period=period)
        assert list(ledger.runs("2026")) == ["b", "a"]
        assert list(ledger.runs("2025")) == ["z", "c"]
        assert ledger.periods() == ("2025", "2026")

    def test_many_threads_cannot_share_budget_for_one(self, ledger, reopened):
        """Each of eight threads is admitted only while nothing is reserved: one may pass, whatever the timing."""
        open_run(ledger)
        barrier = threading.Barrier(8)
        admitted: list[int] = []

        def only_the_first(runs):
            if runs["r1"].releases:
                raise Refusal

        def attempt(number: int):
            own = reopened()
            barrier.wait()
            try:
                own.reserve("r1", phase="training", round=number, events=[TRAINING], admit=only_the_first)
            except Refusal:
                return
            admitted.append(number)

        threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(admitted) == 1
        assert ledger.run("r1").events == (TRAINING,)


class TestSqliteLedger(LedgerConformance):
    @pytest.fixture
    def path(self, tmp_path) -> Path:
        return tmp_path / "node" / "ledger.db"

    @pytest.fixture
    def ledger(self, path):
        return SqliteLedger(path)

    @pytest.fixture
    def reopened(self, ledger, path):
        return lambda: SqliteLedger(path)


def run_python(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


DIE_AFTER_RESERVING = """
import os, sys
from pathlib import Path
from aevorium.privacy.events import DiscreteLaplace
from aevorium.privacy.ledger import SqliteLedger

ledger = SqliteLedger(Path(sys.argv[1]))
ledger.reserve("r1", phase="count", round=0, events=[DiscreteLaplace(purpose="count", epsilon=0.1)])
os._exit(9)
"""


def test_a_process_that_dies_between_reservation_and_commit_has_spent(tmp_path):
    path = tmp_path / "ledger.db"
    open_run(SqliteLedger(path))
    process = run_python(DIE_AFTER_RESERVING, str(path))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 9, errors
    ledger = SqliteLedger(path)
    assert ledger.run("r1").events == (COUNT,)
    assert ledger.run("r1").releases[0].state == "reserved"
    with pytest.raises(PolicyRefused):
        ledger.reserve("r1", phase="count", round=0, events=[COUNT])


DIE_INSIDE_THE_TRANSACTION = """
import os, sys
from pathlib import Path
from aevorium.privacy.ledger import SqliteLedger

SqliteLedger(Path(sys.argv[1])).reserve("r1", phase="count", round=0, events=[], admit=lambda runs: os._exit(9))
"""


def test_a_process_that_dies_before_the_reservation_leaves_the_ledger_usable(tmp_path):
    path = tmp_path / "ledger.db"
    open_run(SqliteLedger(path))
    process = run_python(DIE_INSIDE_THE_TRANSACTION, str(path))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 9, errors
    ledger = SqliteLedger(path)
    assert ledger.run("r1").releases == ()
    ledger.reserve("r1", phase="count", round=0, events=[COUNT])


COMPETE = """
import sys
from pathlib import Path
from aevorium.privacy.events import DiscreteLaplace
from aevorium.privacy.ledger import SqliteLedger

def room(runs):
    if sum(len(run.releases) for run in runs.values()) >= 25:
        raise LookupError

path, name = Path(sys.argv[1]), sys.argv[2]
ledger = SqliteLedger(path)
ledger.open_run(name, plan_json="{}", plan_hash=name, epsilon=1.0, delta=1e-5, period="p")
print("ready", flush=True)
sys.stdin.readline()
admitted = 0
for round in range(25):
    try:
        ledger.reserve(name, phase="x", round=round, events=[DiscreteLaplace(purpose=name, epsilon=1.0)], admit=room)
    except LookupError:
        break
    admitted += 1
print(admitted)
"""


def test_two_processes_compete_for_one_budget_and_do_not_exceed_it(tmp_path):
    """Both also create the file at the same time."""
    path = tmp_path / "ledger.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMPETE, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum(int(output) for output, _ in outputs) == 25
    assert sum(len(run.events) for run in SqliteLedger(path).runs("p").values()) == 25


def test_times_come_from_the_clock_given(tmp_path):
    times = iter(datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(hours=hour) for hour in range(10))
    ledger = SqliteLedger(tmp_path / "ledger.db", now=lambda: next(times))
    open_run(ledger)
    ledger.commit(ledger.reserve("r1", phase="count", round=0, events=[COUNT]))
    ledger.close_run("r1")
    run = ledger.run("r1")
    assert run.agreed_at == "2026-03-01T12:00:00.000+00:00"
    assert run.releases[0].reserved_at == "2026-03-01T13:00:00.000+00:00"
    assert run.releases[0].committed_at == "2026-03-01T14:00:00.000+00:00"
    assert run.closed_at == "2026-03-01T15:00:00.000+00:00"


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_only_the_owner_can_read_a_ledger(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    SqliteLedger(folder / "ledger.db")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "ledger.db").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM releases",
        "DELETE FROM runs",
        "UPDATE releases SET events = '[]'",
        "UPDATE releases SET round = 99",
        "UPDATE releases SET state = 'reserved'",
        "UPDATE runs SET epsilon = 0.001",
        "UPDATE runs SET period = 'another'",
        "UPDATE runs SET agreed_events = '[]'",
        "UPDATE runs SET fixed_events = '[]'",
        "UPDATE runs SET closed_at = NULL",
    ],
)
def test_the_file_itself_refuses_to_forget(tmp_path, statement):
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path)
    open_run(ledger)
    ledger.fix_events("r1", [COUNT])
    ledger.commit(ledger.reserve("r1", phase="count", round=0, events=[COUNT]))
    ledger.close_run("r1")
    connection = sqlite3.connect(path)
    try:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    finally:
        connection.close()
    assert ledger.run("r1").events == (COUNT,)


def execute(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute(statement, values)
    finally:
        connection.close()


def test_a_ledger_of_another_version_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    SqliteLedger(path)
    execute(path, "PRAGMA user_version = 2")
    with pytest.raises(ArtefactError) as caught:
        SqliteLedger(path)
    assert caught.value.code == "DATABASE_UNUSABLE"
    assert "version 2" in caught.value.message


def test_an_event_of_a_newer_version_is_refused_not_ignored(tmp_path):
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path)
    open_run(ledger)
    execute(
        path,
        "INSERT INTO releases (run_id, phase, round, events, state, reserved_at)"
        " VALUES ('r1', 'x', 0, ?, 'reserved', '')",
        '[{"kind":"skellam","purpose":"x","mu":3}]',
    )
    with pytest.raises(ArtefactError) as caught:
        ledger.runs("2026")
    assert caught.value.code == "DATABASE_UNUSABLE"


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_text("Age,Gender\n" * 200, encoding="utf-8")
    with pytest.raises(ArtefactError) as caught:
        SqliteLedger(path)
    assert caught.value.code == "DATABASE_UNUSABLE"
    assert "Gender" not in caught.value.message
