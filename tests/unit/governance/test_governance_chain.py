from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest
import rfc8785

from aevorium.errors import ArtefactError, InternalError
from aevorium.governance import chain as chain_module
from aevorium.governance.chain import GENESIS, AuditChain, verify_entries
from aevorium.governance.signing import SigningKey

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def chain(tmp_path):
    return AuditChain(tmp_path / "audit.db", now=lambda: NOON)


def filled(chain: AuditChain, length: int = 5) -> list:
    for number in range(length):
        chain.append(actor="st-mary", action="release", detail={"round": number, "epsilon": 0.5})
    return chain.export()


def test_an_empty_chain_is_sound(chain):
    assert chain.head == GENESIS
    assert chain.export() == []
    assert chain.verify().is_sound
    assert chain.verify(expected_head=GENESIS).is_sound


def test_each_entry_is_sealed_by_the_one_before(chain):
    entries = filled(chain)
    assert [entry["seq"] for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry["previous"] for entry in entries] == [GENESIS, *(entry["hash"] for entry in entries[:-1])]
    assert entries[0]["time"] == "2026-03-01T12:00:00.000+00:00"
    assert chain.head == entries[-1]["hash"]
    report = chain.verify()
    assert report.is_sound
    assert (report.length, report.head) == (5, chain.head)


def test_the_hash_is_what_the_documentation_says(chain):
    (entry,) = filled(chain, 1)
    content = {name: value for name, value in entry.items() if name != "hash"}
    assert set(content) == {"seq", "time", "actor", "action", "detail", "previous"}
    assert entry["hash"] == hashlib.sha256(rfc8785.dumps(content)).hexdigest()


def test_a_chain_goes_on_after_it_was_closed(chain, tmp_path):
    filled(chain, 2)
    again = AuditChain(tmp_path / "audit.db", now=lambda: NOON)
    again.append(actor="a", action="b", detail={})
    assert [entry.seq for entry in again.entries()] == [1, 2, 3]
    assert again.verify().is_sound


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time", "2026-03-01T12:00:01.000+00:00"),
        ("actor", "st-marx"),
        ("action", "refused"),
        ("detail", {"round": 2, "epsilon": 0.4}),
        ("previous", "0" * 64),
        ("hash", "f" * 64),
        ("hash", "no hash"),
        ("seq", 4),
    ],
)
def test_an_altered_entry_is_named(chain, field, value):
    entries = filled(chain)
    entries[2] = {**entries[2], field: value}
    report = verify_entries(entries)
    assert report.problem is not None
    assert (report.problem.index, report.problem.reason) == (2, "altered")
    assert report.head == entries[1]["hash"]


def test_an_entry_altered_and_sealed_anew_is_given_away_by_the_next(chain):
    entries = filled(chain)
    content = {**entries[2], "actor": "someone else"}
    del content["hash"]
    entries[2] = {**content, "hash": hashlib.sha256(rfc8785.dumps(content)).hexdigest()}
    problem = verify_entries(entries).problem
    assert (problem.index, problem.reason) == (3, "altered")


@pytest.mark.parametrize("entry", [None, 7, "text", [], {}, {"seq": 1}, {"seq": math.nan, "detail": {"x": math.nan}}])
def test_something_that_is_no_entry_is_altered(chain, entry):
    entries = filled(chain)
    entries[1] = entry
    problem = verify_entries(entries).problem
    assert (problem.index, problem.reason) == (1, "altered")


def test_a_field_too_many_is_altered(chain):
    entries = filled(chain)
    entries[0] = {**entries[0], "note": "added later"}
    assert verify_entries(entries).problem.reason == "altered"


def test_removed_entries_are_missing_where_they_were(chain):
    entries = filled(chain)
    problem = verify_entries(entries[:1] + entries[3:]).problem
    assert (problem.index, problem.reason) == (1, "missing")
    assert "Entry 2" in problem.message
    assert verify_entries(entries[1:]).problem.index == 0


def test_exchanged_entries_are_reordered(chain):
    entries = filled(chain)
    entries[1], entries[3] = entries[3], entries[1]
    problem = verify_entries(entries).problem
    assert (problem.index, problem.reason) == (1, "reordered")


def test_a_repeated_entry_is_reordered(chain):
    entries = filled(chain)
    problem = verify_entries(entries[:2] + entries[1:]).problem
    assert (problem.index, problem.reason) == (2, "reordered")


def test_a_cut_end_shows_only_against_a_known_head(chain):
    entries = filled(chain)
    head = entries[-1]["hash"]
    assert verify_entries(entries[:3]).is_sound
    problem = verify_entries(entries[:3], expected_head=head).problem
    assert (problem.index, problem.reason) == (3, "missing")


def test_a_chain_that_went_on_after_the_head_was_noted_is_sound(chain):
    entries = filled(chain)
    assert verify_entries(entries, expected_head=entries[1]["hash"]).is_sound


def test_numbers_that_json_cannot_hold_are_written_as_text(chain):
    detail = {"a": math.inf, "b": -math.inf, "c": [math.nan, 1.5], "d": {"e": 2**60}, "f": None, "g": (True, 3)}
    entry = chain.append(actor="a\ud800", action="b", detail=detail)
    assert entry.detail == {
        "a": "Infinity",
        "b": "-Infinity",
        "c": ["NaN", 1.5],
        "d": {"e": str(2**60)},
        "f": None,
        "g": [True, 3],
    }
    assert chain.verify().is_sound
    json.dumps(chain.export(), allow_nan=False)


def test_objects_do_not_get_into_the_chain(chain):
    with pytest.raises(InternalError):
        chain.append(actor="a", action="b", detail={"x": object()})
    assert chain.export() == []


def test_the_view_is_a_file_that_verifies_by_itself(chain, tmp_path):
    filled(chain)
    path = tmp_path / "view" / "audit_log.json"
    chain.write_view(path)
    chain.append(actor="a", action="later", detail={})
    view = json.loads(path.read_text(encoding="utf-8"))
    assert view["schema_version"] == 2
    assert len(view["entries"]) == 5
    assert verify_entries(view["entries"], expected_head=view["head"]).is_sound
    assert list(path.parent.iterdir()) == [path]


def test_the_view_of_an_empty_chain(chain, tmp_path):
    chain.write_view(tmp_path / "audit_log.json")
    view = json.loads((tmp_path / "audit_log.json").read_text(encoding="utf-8"))
    assert view == {"schema_version": 2, "head": GENESIS, "entries": [], "checkpoints": []}


@pytest.mark.parametrize(
    ("statement", "index", "reason"),
    [
        ("UPDATE entries SET entry = replace(entry, '0.5', '0.4') WHERE seq = 3", 2, "altered"),
        ("UPDATE entries SET entry = 'no JSON' WHERE seq = 2", 1, "altered"),
        ("DELETE FROM entries WHERE seq = 2", 1, "missing"),
    ],
)
def test_changes_in_the_file_are_found(chain, tmp_path, statement, index, reason):
    filled(chain)
    connection = sqlite3.connect(tmp_path / "audit.db")
    with connection:
        connection.execute(statement)
    connection.close()
    problem = chain.verify().problem
    assert (problem.index, problem.reason) == (index, reason)


def test_threads_append_to_one_chain(tmp_path):
    path = tmp_path / "audit.db"

    def work(name: str):
        own = AuditChain(path)
        for number in range(10):
            own.append(actor=name, action="x", detail={"number": number})

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = AuditChain(path).verify()
    assert report.is_sound
    assert report.length == 40


def test_a_file_that_is_no_chain_is_refused(tmp_path):
    (tmp_path / "audit.db").write_text("nothing of the kind" * 100, encoding="utf-8")
    with pytest.raises(ArtefactError) as caught:
        AuditChain(tmp_path / "audit.db")
    assert caught.value.code == "DATABASE_UNUSABLE"


def test_a_page_is_read_without_the_rest(chain, tmp_path):
    for number in range(6):
        chain.append(actor="a", action="even" if number % 2 == 0 else "odd", detail={"number": number})
    assert [entry.seq for entry in chain.page(after=2, limit=3)] == [3, 4, 5]
    assert [entry.seq for entry in chain.page(after=1, limit=2, action="odd")] == [2, 4]
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        connection.execute("UPDATE entries SET entry = 'no json' WHERE seq = 1")
    connection.close()
    # What is damaged elsewhere does not keep this page from being read, and what is damaged in it does.
    assert [entry.seq for entry in chain.page(after=1, limit=9)] == [2, 3, 4, 5, 6]
    assert [entry.seq for entry in chain.page(after=0, limit=9, action="even")] == [3, 5]
    for read in (lambda: chain.page(after=0, limit=9), chain.entries):
        with pytest.raises(ArtefactError) as caught:
            read()
        assert caught.value.code == "AUDIT_BROKEN"


@pytest.mark.parametrize("table", ["entries", "checkpoints"])
def test_nothing_is_added_to_a_log_whose_end_is_damaged(tmp_path, table):
    chain = AuditChain(tmp_path / "audit.db", key=SigningKey(tmp_path / "key.pem", hint=""))
    filled(chain, 2)
    column = {"entries": "entry", "checkpoints": "checkpoint"}[table]
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        connection.execute(f"UPDATE {table} SET {column} = '{{}}'")
    connection.close()
    with pytest.raises(ArtefactError) as caught:
        chain.append(actor="a", action="b", detail={})
    assert caught.value.code == "AUDIT_BROKEN"
    assert len(chain.export()) == 2


def test_entries_of_an_action_are_found_by_an_index(chain, tmp_path):
    filled(chain, 2)
    assert [entry.seq for entry in chain.entries_of(["release", "other"])] == [1, 2]
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        steps = connection.execute(
            f"EXPLAIN QUERY PLAN SELECT entry FROM entries WHERE {chain_module._ACTION} = 'release' ORDER BY seq"
        ).fetchall()
    connection.close()
    assert any("entries_action" in str(step) for step in steps), steps


def test_a_chain_of_an_earlier_version_gets_the_index(tmp_path):
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        for statements in chain_module._MIGRATIONS[:2]:
            for statement in statements:
                connection.execute(statement)
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    chain = AuditChain(tmp_path / "audit.db", now=lambda: NOON)
    filled(chain, 3)
    assert len(chain.entries_of(["release"])) == 3


def test_a_chain_is_read_while_another_writes(chain, tmp_path):
    filled(chain, 2)
    with closing(sqlite3.connect(tmp_path / "audit.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        assert AuditChain(tmp_path / "audit.db").last.seq == 2
        assert time.monotonic() - started < 5
