"""What every database of the server does alike: keys are known by their hash, and many may open it at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from state_stores import PROGRAMS, postgresql

from aevorium.errors import AevoriumError, ArtefactError
from aevorium.state.api_keys import ApiKeyStore
from aevorium.state.store import Store, sqlite_url

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
    assert secret.rsplit("_", 1)[1].encode() not in held


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
