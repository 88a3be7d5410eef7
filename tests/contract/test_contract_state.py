"""What every database of the server does alike: jobs are neither lost nor doubled, keys are known by their hash."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from state_stores import PROGRAMS, postgresql

from aevorium.errors import AevoriumError, ArtefactError, ConfigError
from aevorium.state import jobs as jobs_module
from aevorium.state.api_keys import ApiKeyStore
from aevorium.state.jobs import Job, JobStore
from aevorium.state.store import Store, sqlite_url
from aevorium.state.studies import StudyStore

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """The URL of a PostgreSQL, which is started when the first test asks."""
    if not PROGRAMS:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with postgresql(tmp_path_factory.mktemp("pg")) as url:
        yield lambda: url


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "state" / "server.db")
        return
    address = request.getfixturevalue("server")()
    yield address
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


def test_a_job_goes_from_the_queue_to_its_end_and_no_further(store: Store):
    jobs = JobStore(store)
    job, is_new = jobs.submit("generate", {"rows": 10}, actor="r")
    assert (is_new, job.state, job.attempts, job.request) == (True, "queued", 0, {"rows": 10})
    taken = jobs.claim("w1")
    assert taken is not None
    assert (taken.id, taken.state, taken.attempts) == (job.id, "running", 1)
    assert jobs.claim("w2") is None
    jobs.tell(taken, {"done": 1})
    jobs.tell(taken, {"done": 2})
    first, second = jobs.story(taken)
    assert [first.event, second.event] == [{"done": 1}, {"done": 2}]
    assert jobs.story(taken, after=first.number) == (second,)
    jobs.finish(taken, "succeeded", result={"rows": 10})
    jobs.finish(taken, "failed", error={"code": "X"})
    ended = jobs.find(job.id)
    assert (ended.state, ended.result, ended.error) == ("succeeded", {"rows": 10}, None)
    assert ended.has_ended
    assert jobs.request_stop(job.id).state == "succeeded"
    assert jobs.counts() == {"succeeded": 1}


def test_an_idempotency_key_names_one_request_of_one_actor(store: Store):
    jobs = JobStore(store)
    job, _ = jobs.submit("train", {"epsilon": 1.0}, actor="a", idempotency_key="k")
    assert jobs.submit("train", {"epsilon": 1.0}, actor="a", idempotency_key="k") == (job, False)
    other, is_new = jobs.submit("train", {"epsilon": 1.0}, actor="b", idempotency_key="k")
    assert is_new
    assert other.id != job.id
    for kind, request in (("train", {"epsilon": 2.0}), ("generate", {"epsilon": 1.0})):
        with pytest.raises(ConfigError) as caught:
            jobs.submit(kind, request, actor="a", idempotency_key="k")
        assert caught.value.code == "IDEMPOTENCY_KEY_REUSED"
    # Without a key every request is one of its own.
    assert len({jobs.submit("train", {"epsilon": 1.0}, actor="a")[0].id for _ in range(3)}) == 3


def test_an_actor_may_have_the_longest_name_that_an_issuer_gives(store: Store):
    actor = f"oidc {'a' * 255}"
    job, _ = JobStore(store).submit("train", {}, actor=actor)
    assert job.actor == actor
    study = StudyStore(store).add(name="n", actor=actor, schema_text="", schema_hash="0" * 64, choices={})
    assert study.actor == actor


def test_the_same_key_sent_at_the_same_time_makes_one_job(store: Store):
    jobs = JobStore(store)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: jobs.submit("train", {"n": 1}, actor="a", idempotency_key="k"), range(24)))
    assert len({job.id for job, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1


def test_workers_never_take_the_same_job(store: Store):
    jobs = JobStore(store)
    wanted = [jobs.submit("generate", {"n": n}, actor="a")[0].id for n in range(40)]

    def work(worker: int) -> list[str]:
        taken = []
        while (job := jobs.claim(f"w{worker}")) is not None:
            taken.append(job.id)
        return taken

    with ThreadPoolExecutor(6) as pool:
        taken = [job_id for found in pool.map(work, range(6)) for job_id in found]
    assert Counter(taken) == Counter(wanted)


def test_a_dead_worker_s_jobs_are_repeated_or_failed_with_a_reason(store: Store):
    jobs = JobStore(store)
    training, _ = jobs.submit("train", {}, actor="a")
    table, _ = jobs.submit("generate", {}, actor="a")
    unwanted, _ = jobs.submit("generate", {}, actor="a")
    waiting, _ = jobs.submit("train", {}, actor="a")
    for _ in range(3):
        jobs.claim("dead")
    jobs.request_stop(unwanted.id)
    assert {job.id for job in jobs.recover()} == {training.id, table.id, unwanted.id}
    assert [jobs.find(job.id).state for job in (training, table, unwanted, waiting)] == [
        "failed", "queued", "failed", "queued",
    ]  # fmt: skip
    assert jobs.find(training.id).error is not None
    assert jobs.find(training.id).error["code"] == "JOB_INTERRUPTED"
    again = jobs.claim("next")
    assert again is not None
    assert (again.id, again.attempts) == (table.id, 2)
    # A training is never begun a second time.
    assert [jobs.claim("next"), jobs.claim("next")][1] is None
    assert jobs.recover() != ()


def test_a_worker_does_not_end_what_another_took_over(store: Store):
    jobs = JobStore(store)
    jobs.submit("generate", {}, actor="a")
    held = jobs.claim("slow")
    assert held is not None
    jobs.recover()
    assert jobs.finish(held, "failed", error={"code": "X"}) is False
    again = jobs.claim("next")
    assert again is not None
    assert jobs.finish(held, "failed", error={"code": "X"}) is False
    assert jobs.finish(again, "succeeded", result={"rows": 1}) is True
    assert (jobs.find(held.id).state, jobs.find(held.id).result) == ("succeeded", {"rows": 1})
    assert [job.id for job in jobs.begun_and_ended()] == [held.id]


def test_no_job_is_there_without_its_note(store: Store):
    jobs = JobStore(store)

    def fail(_: Job) -> None:
        raise ConfigError("WORKSPACE_UNWRITABLE", "The note cannot be written.")

    with pytest.raises(ConfigError):
        jobs.submit("train", {}, actor="a", idempotency_key="k", note=fail)
    assert jobs.page(limit=10) == ()
    noted: list[str] = []
    job, _ = jobs.submit("train", {}, actor="a", idempotency_key="k", note=lambda job: noted.append(job.id))
    jobs.submit("train", {}, actor="a", idempotency_key="k", note=lambda job: noted.append(job.id))
    assert noted == [job.id]


def test_a_queue_has_one_worker_wherever_it_runs(store: Store, url: str):
    other = Store(url)
    first, second = JobStore(store).worker_lock(), JobStore(other).worker_lock()
    assert first.acquire()
    assert not second.acquire()
    assert first.is_held()
    first.release()
    assert second.acquire()
    assert not first.acquire()
    second.release()
    other.close()


def test_a_worker_whose_session_broke_learns_that_another_has_the_queue(store: Store, url: str):
    if store.is_sqlite:
        pytest.skip("a file's lock has no session")
    other = Store(url)
    first, second = JobStore(store).worker_lock(), JobStore(other).worker_lock()
    assert first.acquire()
    _break_sessions(url)
    assert first.is_held()  # it is free, so it is taken again
    assert not second.acquire()
    _break_sessions(url)
    assert second.acquire()
    assert not first.is_held()
    first.release()
    assert second.is_held()
    second.release()
    other.close()


def _break_sessions(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        )
    engine.dispose()
    time.sleep(0.3)


def test_a_job_that_waits_stops_at_once_and_one_that_runs_is_asked(store: Store):
    jobs = JobStore(store)
    first, _ = jobs.submit("train", {}, actor="a")
    second, _ = jobs.submit("train", {}, actor="a")
    jobs.claim("w")
    running, waiting = jobs.request_stop(first.id), jobs.request_stop(second.id)
    assert (running.state, running.is_stop_requested) == ("running", True)
    assert (waiting.state, waiting.has_ended) == ("stopped", True)
    assert jobs.claim("w") is None
    with pytest.raises(ArtefactError) as caught:
        jobs.request_stop("0" * 16)
    assert caught.value.code == "JOB_NOT_FOUND"


def test_pages_are_newest_first_and_complete(store: Store):
    jobs = JobStore(store)
    made = [jobs.submit("train" if n % 2 else "generate", {"n": n}, actor="a")[0] for n in range(7)]
    first = jobs.page(limit=3)
    rest = jobs.page(before=first[-1].number, limit=10)
    assert [job.id for job in (*first, *rest)] == [job.id for job in reversed(made)]
    assert [job.id for job in jobs.page(kind="train", limit=10)] == [made[n].id for n in (5, 3, 1)]


def test_the_queue_has_an_end(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs_module, "_WAITING_AT_MOST", 2)
    jobs = JobStore(store)
    job, _ = jobs.submit("train", {}, actor="a", idempotency_key="k")
    jobs.submit("train", {}, actor="a")
    with pytest.raises(AevoriumError) as caught:
        jobs.submit("train", {}, actor="a")
    assert caught.value.code == "QUEUE_FULL"
    # What was accepted before is still known by its key.
    assert jobs.submit("train", {}, actor="a", idempotency_key="k") == (job, False)


def test_a_key_is_accepted_until_it_expires_or_is_revoked(store: Store):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    clock = [moment]
    keys = ApiKeyStore(store, now=lambda: clock[0])
    key, secret = keys.create(name="Ann", role="researcher", lifetime=timedelta(days=1))
    lasting, other = keys.create(name="Bea", role="auditor")
    assert keys.accept(secret) == key
    assert keys.accept(secret + "x") is keys.accept("") is keys.accept("aev_' OR 1=1 --") is None
    clock[0] = moment + timedelta(days=1)
    assert keys.accept(secret) is None
    assert keys.accept(other) == lasting
    revoked = keys.revoke(lasting.id)
    assert revoked.revoked_at is not None
    assert keys.accept(other) is None
    clock[0] += timedelta(days=1)
    assert keys.revoke(lasting.id) == revoked
    with pytest.raises(ArtefactError):
        keys.revoke("none")
    assert [found.name for found in keys.all()] == ["Ann", "Bea"]


def test_a_database_holds_no_secret(tmp_path: Path):
    store = Store(sqlite_url(tmp_path / "server.db"))
    _, secret = ApiKeyStore(store).create(name="Ann", role="steward")
    store.close()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"Ann" in held
    assert secret.split("_", 2)[2].encode() not in held


def _open(url: str, count: int) -> None:
    for _ in range(count):
        store = Store(url)
        ApiKeyStore(store).create(name="Ann", role="auditor")
        store.close()


def test_processes_that_open_it_at_the_same_time_make_one_database(url: str):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_open, args=(url, 3)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    store = Store(url)
    assert len({key.id for key in ApiKeyStore(store).all()}) == 9
    store.close()


def test_a_database_of_a_newer_version_is_left_alone(store: Store, url: str):
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ArtefactError) as caught:
        Store(url)
    assert caught.value.code == "DATABASE_UNUSABLE"
    assert "version" in caught.value.message


@pytest.mark.parametrize(
    "url", ["mysql://a:secret@h/d", "nonsense", "sqlite://", "postgresql://u:secret@127.0.0.1:1/d"]
)
def test_what_cannot_be_opened_is_said_without_the_password(url: str):
    with pytest.raises(AevoriumError) as caught:
        Store(url)
    assert "secret" not in caught.value.message + str(caught.value.hint)
