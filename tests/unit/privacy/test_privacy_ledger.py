from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from aevorium.database import Database
from aevorium.errors import ArtefactError, InternalError, PolicyRefused
from aevorium.privacy.events import DiscreteGaussian, DiscreteLaplace, SampledGaussian, events_to_json
from aevorium.privacy.ledger import BudgetLedger, Owed, SqliteLedger
from aevorium.privacy.ledger_tables import MIGRATIONS

COUNT = DiscreteLaplace(purpose="count", epsilon=0.1)
TABLES = DiscreteGaussian(purpose="tables", sigma=5.0, count=14)
TRAINING = SampledGaussian(purpose="training", sampling_rate=0.1, noise_multiplier=1.0, steps=10)


class Refusal(Exception):
    """Raised by an `admit` function."""


def refuse(_runs) -> None:
    raise Refusal


def open_run(ledger: BudgetLedger, run_id: str = "r1", *, period: str = "2026", **extra) -> None:
    ledger.open_run(run_id, plan_json="{}", plan_hash="ab", epsilon=3.0, delta=1e-5, period=period, **extra)


def reserve(ledger: BudgetLedger, run_id: str = "r1", *, phase: str, round: int, events, asked: str = "x", **extra):
    return ledger.reserve(run_id, phase=phase, round=round, events=events, fingerprint=asked, **extra)


def release(ledger: BudgetLedger, run_id: str = "r1", *, phase: str, round: int, events, numbers=(), **extra) -> None:
    ledger.commit(reserve(ledger, run_id, phase=phase, round=round, events=events).id, numbers=numbers, **extra)


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
        first = reserve(ledger, phase="count", round=0, events=[COUNT])
        second = reserve(ledger, phase="tables", round=0, events=[TABLES])
        ledger.commit(first.id, numbers=())
        assert first.id != second.id
        run = reopened().run("r1")
        assert run.events == (COUNT, TABLES)
        assert [release.state for release in run.releases] == ["committed", "reserved"]

    def test_a_release_of_nothing_costs_nothing_but_is_written_down(self, ledger):
        open_run(ledger)
        reserve(ledger, phase="hello", round=0, events=[])
        assert ledger.run("r1").events == ()
        assert len(ledger.run("r1").releases) == 1

    def test_a_phase_and_round_are_released_once(self, ledger):
        open_run(ledger)
        open_run(ledger, "r2")
        release(ledger, phase="training", round=1, events=[TRAINING])
        with pytest.raises(PolicyRefused) as caught:
            reserve(ledger, phase="training", round=1, events=[TRAINING], asked="another")
        assert caught.value.code == "RELEASE_OUTSIDE_PLAN"
        assert "replayed" in caught.value.message
        assert ledger.run("r1").events == (TRAINING,)
        reserve(ledger, phase="training", round=2, events=[TRAINING])
        reserve(ledger, phase="tables", round=1, events=[TABLES])
        reserve(ledger, "r2", phase="training", round=1, events=[TRAINING])

    def test_the_same_request_gets_the_same_numbers_free_of_charge(self, ledger, reopened):
        open_run(ledger)
        numbers = (np.array([1.5, -np.inf], np.float32), np.array([7], np.int64))
        release(ledger, phase="training", round=1, events=[TRAINING], numbers=numbers)
        for again in (ledger, reopened()):
            found = reserve(again, phase="training", round=1, events=[TRAINING], admit=refuse)
            assert [array.dtype for array in found.numbers] == [np.float32, np.int64]
            assert [array.tobytes() for array in found.numbers] == [array.tobytes() for array in numbers]
        assert ledger.run("r1").events == (TRAINING,)

    @pytest.mark.parametrize("change", [{"asked": "another"}, {"events": [TABLES]}, {"events": []}])
    def test_another_request_for_the_same_place_is_refused_reserved_or_committed(self, ledger, change):
        open_run(ledger)
        first = reserve(ledger, phase="training", round=1, events=[TRAINING])
        asked = {"phase": "training", "round": 1, "events": [TRAINING], **change}
        with pytest.raises(PolicyRefused):
            reserve(ledger, **asked)
        ledger.commit(first.id, numbers=(np.zeros(2),))
        with pytest.raises(PolicyRefused):
            reserve(ledger, **asked)
        assert ledger.run("r1").events == (TRAINING,)

    def test_a_reservation_that_was_not_committed_is_found_again_and_asks_the_policy_anew(self, ledger, reopened):
        open_run(ledger)
        first = reserve(ledger, phase="training", round=1, events=[TRAINING])
        second = reserve(reopened(), phase="training", round=1, events=[TRAINING])
        assert (second.id, second.numbers) == (first.id, None)
        with pytest.raises(Refusal):
            reserve(ledger, phase="training", round=1, events=[TRAINING], admit=refuse)
        assert ledger.run("r1").events == (TRAINING,)

    def test_of_two_draws_under_one_reservation_one_is_committed(self, ledger, reopened):
        open_run(ledger)
        first = reserve(ledger, phase="training", round=1, events=[TRAINING])
        second = reserve(reopened(), phase="training", round=1, events=[TRAINING])
        ledger.commit(second.id, numbers=(np.array([2.0]),))
        with pytest.raises(InternalError):
            ledger.commit(first.id, numbers=(np.array([1.0]),))
        assert reserve(ledger, phase="training", round=1, events=[TRAINING]).numbers[0].tolist() == [2.0]

    def test_what_failed_stays_spent_and_is_never_tried_again(self, ledger, reopened):
        open_run(ledger)
        failed = reserve(ledger, phase="training", round=1, events=[TRAINING])
        ledger.fail(failed.id)
        with pytest.raises(PolicyRefused, match="failed"):
            reserve(reopened(), phase="training", round=1, events=[TRAINING])
        for attempt in (lambda: ledger.commit(failed.id, numbers=()), lambda: ledger.fail(failed.id)):
            with pytest.raises(InternalError):
                attempt()
        run = reopened().run("r1")
        assert run.events == (TRAINING,)
        assert run.releases[0].state == "failed"

    def test_what_was_committed_cannot_fail(self, ledger):
        open_run(ledger)
        committed = reserve(ledger, phase="training", round=1, events=[TRAINING])
        ledger.commit(committed.id, numbers=())
        with pytest.raises(InternalError):
            ledger.fail(committed.id)

    def test_of_a_phase_only_the_newest_numbers_are_kept_and_of_a_closed_run_none(self, ledger):
        open_run(ledger)
        open_run(ledger, "r2")
        release(ledger, "r2", phase="training", round=1, events=[TRAINING], numbers=(np.zeros(2),))
        release(ledger, phase="count", round=0, events=[COUNT], numbers=(np.zeros(1),))
        for number in (1, 2):
            release(ledger, phase="training", round=number, events=[TRAINING], numbers=(np.full(3, number),))
        with pytest.raises(PolicyRefused, match="no longer kept"):
            reserve(ledger, phase="training", round=1, events=[TRAINING])
        assert reserve(ledger, phase="training", round=2, events=[TRAINING]).numbers[0].tolist() == [2, 2, 2]
        assert reserve(ledger, phase="count", round=0, events=[COUNT]).numbers is not None
        ledger.close_run("r1")
        with pytest.raises(PolicyRefused, match="closed"):
            reserve(ledger, phase="training", round=2, events=[TRAINING])
        assert reserve(ledger, "r2", phase="training", round=1, events=[TRAINING]).numbers is not None

    def test_only_numbers_can_be_committed(self, ledger):
        open_run(ledger)
        reservation = reserve(ledger, phase="count", round=0, events=[COUNT]).id
        with pytest.raises(InternalError, match="no numbers"):
            ledger.commit(reservation, numbers=(np.array([{"patient": 1}]),))
        assert ledger.run("r1").releases[0].state == "reserved"

    def test_facts_are_added_with_what_makes_them_known_and_never_change(self, ledger, reopened):
        open_run(ledger, facts={"server": "s"})
        release(ledger, phase="count", round=0, events=[COUNT], facts={"count": 812})
        ledger.fix_events("r1", [COUNT], facts={"bins": 30, "records": 812.5})
        assert reopened().run("r1").facts == {"server": "s", "count": 812, "bins": 30, "records": 812.5}
        other = reserve(ledger, phase="tables", round=0, events=[TABLES]).id
        with pytest.raises(InternalError, match="would change"):
            ledger.commit(other, numbers=(), facts={"count": 813})
        assert ledger.run("r1").facts["count"] == 812
        assert ledger.run("r1").releases[1].state == "reserved"

    def test_what_the_audit_chain_is_owed_is_kept_with_the_change_until_it_is_settled(self, ledger, reopened):
        open_run(ledger, owes=Owed("plan_agreed", {"epsilon": float("inf")}))
        with pytest.raises(Refusal):
            ledger.fix_events("r1", [COUNT], admit=refuse, owes=Owed("events_fixed", {}))
        first = reserve(ledger, phase="count", round=0, events=[COUNT]).id
        ledger.commit(first, numbers=(), owes=Owed("release", {"phase": "count"}))
        ledger.fail(reserve(ledger, phase="tables", round=0, events=[TABLES]).id, owes=Owed("release_failed", {}))
        for _ in range(2):
            ledger.close_run("r1", owes=Owed("run_closed", {}))
        owed = reopened().owed()
        assert [entry.action for entry in owed] == ["plan_agreed", "release", "release_failed", "run_closed"]
        assert owed[0].detail == {"epsilon": float("inf")}
        ledger.settle(owed[0].id)
        assert reopened().owed() == owed[1:]

    def test_an_unknown_run_releases_nothing(self, ledger):
        with pytest.raises(PolicyRefused) as caught:
            reserve(ledger, phase="count", round=0, events=[COUNT])
        assert caught.value.code == "RELEASE_OUTSIDE_PLAN"
        with pytest.raises(PolicyRefused):
            ledger.fix_events("r1", [COUNT])

    def test_a_closed_run_releases_nothing_more_and_stays_closed(self, ledger):
        open_run(ledger)
        reserve(ledger, phase="count", round=0, events=[COUNT])
        ledger.close_run("r1")
        closed_at = ledger.run("r1").closed_at
        assert closed_at is not None
        for attempt in (
            lambda: reserve(ledger, phase="tables", round=0, events=[TABLES]),
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
            ledger.commit(reservation, numbers=())

    def test_a_reservation_is_committed_once(self, ledger):
        open_run(ledger)
        reservation = reserve(ledger, phase="count", round=0, events=[COUNT]).id
        ledger.commit(reservation, numbers=())
        with pytest.raises(InternalError):
            ledger.commit(reservation, numbers=())

    def test_whoever_is_not_admitted_leaves_no_trace(self, ledger):
        with pytest.raises(Refusal):
            open_run(ledger, admit=refuse)
        assert ledger.run("r1") is None
        open_run(ledger)
        with pytest.raises(Refusal):
            reserve(ledger, phase="count", round=0, events=[COUNT], admit=refuse)
        with pytest.raises(Refusal):
            ledger.fix_events("r1", [COUNT], admit=refuse)
        run = ledger.run("r1")
        assert run.releases == ()
        assert run.fixed_events is None

    def test_admission_sees_the_period_before_the_change(self, ledger):
        open_run(ledger, "old", period="2025")
        open_run(ledger, "r1")
        reserve(ledger, phase="count", round=0, events=[COUNT])
        seen = []

        def look(runs):
            seen.append({name: run.events for name, run in runs.items()})

        open_run(ledger, "r2", admit=look)
        reserve(ledger, phase="tables", round=0, events=[TABLES], admit=look)
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
                reserve(own, phase="training", round=number, events=[TRAINING], admit=only_the_first)
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
ledger.reserve("r1", phase="count", round=0, events=[DiscreteLaplace(purpose="count", epsilon=0.1)], fingerprint="x")
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
        reserve(ledger, phase="count", round=0, events=[COUNT], asked="another")
    # The same request may have its numbers computed now, under the charge that was made.
    release(ledger, phase="count", round=0, events=[COUNT])
    assert ledger.run("r1").events == (COUNT,)


DIE_INSIDE_THE_TRANSACTION = """
import os, sys
from pathlib import Path
from aevorium.privacy.ledger import SqliteLedger

SqliteLedger(Path(sys.argv[1])).reserve(
    "r1", phase="count", round=0, events=[], fingerprint="x", admit=lambda runs: os._exit(9)
)
"""


def test_a_process_that_dies_before_the_reservation_leaves_the_ledger_usable(tmp_path):
    path = tmp_path / "ledger.db"
    open_run(SqliteLedger(path))
    process = run_python(DIE_INSIDE_THE_TRANSACTION, str(path))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 9, errors
    ledger = SqliteLedger(path)
    assert ledger.run("r1").releases == ()
    reserve(ledger, phase="count", round=0, events=[COUNT])


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
        event = DiscreteLaplace(purpose=name, epsilon=1.0)
        ledger.reserve(name, phase="x", round=round, events=[event], fingerprint="x", admit=room)
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
    release(ledger, phase="count", round=0, events=[COUNT])
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
        "UPDATE releases SET fingerprint = 'y'",
        "UPDATE releases SET failed_at = '2026'",
        "UPDATE releases SET failed_at = NULL WHERE round = 1",
        "UPDATE releases SET state = 'committed' WHERE round = 1",
        "DELETE FROM outbox",
        "UPDATE outbox SET payload = X'00'",
        "UPDATE outbox SET release_id = 2",
    ],
)
def test_the_file_itself_refuses_to_forget(tmp_path, statement):
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path)
    open_run(ledger)
    ledger.fix_events("r1", [COUNT])
    release(ledger, phase="count", round=0, events=[COUNT])
    ledger.fail(reserve(ledger, phase="count", round=1, events=[]).id)
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
    execute(path, "PRAGMA user_version = 3")
    with pytest.raises(ArtefactError) as caught:
        SqliteLedger(path)
    assert caught.value.code == "DATABASE_UNUSABLE"
    assert "version 3" in caught.value.message


def test_a_ledger_of_the_first_version_keeps_its_runs_and_releases(tmp_path):
    path = tmp_path / "ledger.db"
    Database(path, migrations=MIGRATIONS[:1])
    execute(
        path,
        "INSERT INTO runs (run_id, plan, plan_hash, epsilon, delta, period, agreed_at)"
        " VALUES ('r1', '{}', 'ab', 3.0, 1e-5, '2026', '')",
    )
    for round, state in enumerate(("committed", "reserved")):
        execute(
            path,
            "INSERT INTO releases (run_id, phase, round, events, state, reserved_at) VALUES ('r1', 'x', ?, ?, ?, '')",
            round, events_to_json([COUNT]), state,
        )  # fmt: skip
    ledger = SqliteLedger(path)
    run = ledger.run("r1")
    assert run.events == (COUNT, COUNT)
    assert [release.state for release in run.releases] == ["committed", "reserved"]
    assert (run.facts, ledger.owed()) == ({}, ())
    # Nobody knows what these two were asked for: neither can be repeated.
    for round in (0, 1):
        with pytest.raises(PolicyRefused):
            reserve(ledger, phase="x", round=round, events=[COUNT])
    release(ledger, phase="x", round=2, events=[COUNT], numbers=(np.zeros(1),))
    assert len(SqliteLedger(path).run("r1").events) == 3
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        execute(path, "UPDATE releases SET events = '[]'")


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
