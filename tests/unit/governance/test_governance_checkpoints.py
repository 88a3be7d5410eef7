"""Signed checkpoints of an audit log: what an attacker without the key does to it shows to whoever has the public one.

Attacks are carried out on exported files, and on the database behind them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from aevorium.errors import ArtefactError
from aevorium.governance.chain import GENESIS, AuditChain
from aevorium.governance.checkpoints import LogCheckpoint, check_checkpoints
from aevorium.governance.log_file import judge_log, read_log
from aevorium.governance.signing import SigningKey
from aevorium.verification import verify_export

Log = dict[str, Any]


def key_at(path: Path) -> SigningKey:
    return SigningKey(path, hint="")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A folder with a log of 50 entries, signed at the first and at an act of consequence, the 20th."""
    folder = tmp_path_factory.mktemp("kept")
    made = AuditChain(folder / "audit.db", key=key_at(folder / "secret" / "audit.key"))
    for number in range(1, 51):
        made.append(actor="s", action="run_finished" if number == 20 else "release", detail={"n": number, "ε": 0.25})
    made.write_view(folder / "log.json")
    return folder


@pytest.fixture
def key(kept, tmp_path) -> SigningKey:
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    return key_at(tmp_path / "secret" / "audit.key")


@pytest.fixture
def chain(key, tmp_path) -> AuditChain:
    return AuditChain(tmp_path / "audit.db", key=key)


@pytest.fixture
def log(key, tmp_path) -> Log:
    return json.loads((tmp_path / "log.json").read_text(encoding="utf-8"))


@pytest.fixture
def judge(tmp_path, key) -> Callable[[Log], str | None]:
    """What is wrong with a log, for whoever holds the public key."""

    def found(log: Log, public_key: str | None = None) -> str | None:
        path = tmp_path / "judged.json"
        path.write_text(json.dumps(log), encoding="utf-8")
        judgement = judge_log(read_log(path), public_key=public_key or key.public_key)
        return judgement.problem or judgement.signing_problem

    return found


def sealed(entries: list[Log]) -> list[Log]:
    """The entries with all hashes computed anew, as an attacker does."""
    previous, made = GENESIS, []
    for number, entry in enumerate(entries, start=1):
        content = {**entry, "seq": number, "previous": previous}
        del content["hash"]
        previous = hashlib.sha256(rfc8785.dumps(content)).hexdigest()
        made.append({**content, "hash": previous})
    return made


def rewritten(log: Log, entries: list[Log]) -> Log:
    anew = sealed(entries)
    return {**log, "entries": anew, "head": anew[-1]["hash"]}


def test_the_head_is_signed_at_first_after_acts_of_consequence_every_32_entries_and_at_the_end(chain, log):
    assert [each["length"] for each in chain.checkpoints()] == [1, 20]
    assert [each["length"] for each in log["checkpoints"]] == [1, 20, 50]
    for _ in range(2):
        chain.append(actor="s", action="release", detail={})
    assert [each["length"] for each in chain.checkpoints()] == [1, 20, 52]


def test_a_checkpoint_is_a_signature_over_what_the_documentation_says(chain, key):
    made = LogCheckpoint.model_validate(chain.checkpoints()[1])
    said = {"purpose": "aevorium audit checkpoint", "length": 20, "head": chain.entries()[19].hash, "time": made.time}
    assert key.sign(said) == made.signature
    assert made.public_key == key.public_key


def test_an_untouched_log_is_sound_and_an_export_can_be_kept_signed(log, judge, chain, tmp_path, key):
    assert judge(log) is None
    chain.sign()
    chain.sign()
    assert [each["length"] for each in chain.checkpoints()] == [1, 20, 50]
    assert verify_export(tmp_path / "log.json", public_key=key.public_key).is_sound


@pytest.mark.parametrize("place", [0, 7, 19, 30, 49])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seq", 99),
        ("time", "2020-01-01T00:00:00.000+00:00"),
        ("actor", "t"),
        ("action", "nothing"),
        ("detail", {"n": 1}),
        ("previous", "0" * 63 + "1"),
        ("hash", "f" * 64),
    ],
)
def test_a_changed_field_is_named_by_its_entry(log, judge, place, field, value):
    log["entries"][place][field] = value
    assert f"Entry {place + 1} " in (judge(log) or "")


@pytest.mark.parametrize("place", [0, 7, 19, 30, 49])
def test_a_changed_entry_is_found_though_every_hash_was_computed_anew(log, judge, place):
    entries = copy.deepcopy(log["entries"])
    entries[place]["detail"] = {"n": "another"}
    first, last = next((a, b) for a, b in [(1, 1), (2, 20), (21, 50)] if a <= place + 1 <= b)
    where = f"Entry {first} is another" if first == last else f"one of the entries {first} to {last}"
    assert where in (judge(rewritten(log, entries)) or "")


def test_whoever_forges_the_end_of_a_log_cannot_sign_it(log, judge):
    """The newest checkpoint is left out, and all behind the one before is written anew."""
    entries = copy.deepcopy(log["entries"])
    entries[30]["detail"] = {"n": "another"}
    forged = rewritten({**log, "checkpoints": log["checkpoints"][:-1]}, entries)
    assert "From entry 21 on, nothing is signed" in judge(forged)


@pytest.mark.parametrize("drop", [[0], [10], [19], [49], [3, 4, 5]])
def test_removed_entries_are_found_with_and_without_new_hashes(log, judge, drop):
    kept = [entry for number, entry in enumerate(log["entries"]) if number not in drop]
    plainly = {**log, "entries": kept, "head": kept[-1]["hash"]}
    assert judge(plainly) is not None
    assert judge(rewritten(log, kept)) is not None


def test_exchanged_entries_are_found_with_and_without_new_hashes(log, judge):
    entries = copy.deepcopy(log["entries"])
    entries[5], entries[6] = entries[6], entries[5]
    assert "Entry 7 stands where entry 6 belongs" in judge({**log, "entries": entries})
    assert "one of the entries 2 to 20" in judge(rewritten(log, entries))


def cut(log: Log, length: int, *, checkpoints: int) -> Log:
    entries = log["entries"][:length]
    return {**log, "entries": entries, "head": entries[-1]["hash"], "checkpoints": log["checkpoints"][:checkpoints]}


def test_a_log_that_was_cut_behind_a_checkpoint_that_it_holds(log, judge):
    found = judge(cut(log, 30, checkpoints=3))
    assert "From entry 31 on, they were cut off" in found
    assert "50 entries were signed" in found
    assert "From entry 21 on, nothing is signed" in judge(cut(log, 30, checkpoints=2))


def test_a_log_that_was_cut_with_its_checkpoints_shows_against_an_earlier_export(log, judge, tmp_path, key):
    """By itself it is a true beginning of the log: no signature can say what came after."""
    shorter = cut(log, 20, checkpoints=2)
    assert judge(shorter) is None
    held, given = tmp_path / "held.json", tmp_path / "given.json"
    held.write_text(json.dumps(log), encoding="utf-8")
    given.write_text(json.dumps(shorter), encoding="utf-8")
    result = verify_export(given, public_key=key.public_key, earlier=held)
    assert not result.is_sound
    assert "from entry 21 on, they were cut off" in result.findings[-1]
    assert verify_export(held, public_key=key.public_key, earlier=given).is_sound


def test_an_earlier_export_names_the_entry_that_changed_since(log, chain, tmp_path, key):
    """Even where whoever changed it has the key."""
    held, given = tmp_path / "held.json", tmp_path / "given.json"
    held.write_text(json.dumps(log), encoding="utf-8")
    other = AuditChain(tmp_path / "other.db", key=key)
    for entry in log["entries"]:
        other.append(actor="s", action=entry["action"], detail=entry["detail"])
    other.write_view(given)
    assert verify_export(given, public_key=key.public_key).is_sound
    result = verify_export(given, public_key=key.public_key, earlier=held)
    assert "Entry 1 is another than it was then" in result.findings[-1]


def test_an_earlier_log_that_was_tampered_with_proves_nothing(log, tmp_path, key):
    held = tmp_path / "held.json"
    log["entries"][0]["actor"] = "t"
    held.write_text(json.dumps(log), encoding="utf-8")
    result = verify_export(tmp_path / "log.json", public_key=key.public_key, earlier=held)
    assert not result.is_sound
    assert "The earlier log itself does not verify" in result.findings[-1]


def test_a_log_that_another_key_signed(log, judge, tmp_path):
    """All written anew and signed, by somebody with a key of their own: sound by itself, and not for an auditor."""
    thief = key_at(tmp_path / "thief.key")
    forged = rewritten(log, log["entries"][:40])
    made = LogCheckpoint.make(length=40, head=forged["head"], time="2026", key=thief).model_dump()
    alone = {**forged, "checkpoints": [made]}
    assert judge(alone, thief.public_key) is None
    assert "with another key" in judge(alone)
    last = LogCheckpoint.make(length=50, head=log["head"], time="2026", key=thief).model_dump()
    assert "with another key" in judge({**log, "checkpoints": [*log["checkpoints"][:2], last]})
    borrowed = {**last, "public_key": log["checkpoints"][0]["public_key"]}
    assert "its signature does not fit" in judge({**log, "checkpoints": [*log["checkpoints"][:2], borrowed]})


def test_a_checkpoint_of_another_log_of_the_same_key(log, judge, tmp_path, key):
    other = AuditChain(tmp_path / "other.db", key=key)
    for number in range(50):
        other.append(actor="s", action="release", detail={"n": number})
    other.sign()
    stolen = other.checkpoints()[-1]
    assert stolen["length"] == 50
    assert "one of the entries 21 to 50" in judge({**log, "checkpoints": [*log["checkpoints"][:2], stolen]})


@pytest.mark.parametrize(
    ("field", "value"), [("length", 49), ("head", "0" * 64), ("time", "2020"), ("signature", "0" * 128)]
)
def test_a_changed_field_of_a_checkpoint(log, judge, field, value):
    log["checkpoints"][2][field] = value
    assert "Checkpoint 3: its signature does not fit" in judge(log)


def test_a_signature_in_other_letters_is_no_signature(log, judge):
    """Hex reads alike in both cases; a file that differs should not count as the same."""
    log["checkpoints"][2]["signature"] = log["checkpoints"][2]["signature"].upper()
    assert "Checkpoint 3 is not well-formed" in judge(log)


def test_checkpoints_stand_in_order_each_once(log, judge):
    log["checkpoints"] = [log["checkpoints"][place] for place in (0, 2, 1)]
    assert "stands after one that covers 50" in judge(log)
    log["checkpoints"] = [log["checkpoints"][1]] * 2
    assert "stands after" in judge(log)


def test_a_log_cannot_pass_as_one_of_the_version_without_checkpoints(log, judge, tmp_path):
    older = {**log, "schema_version": 1}
    del older["checkpoints"]
    assert "without checkpoints" in judge(older)
    for broken in ({**log, "schema_version": 1}, {**older, "schema_version": 2}, {**log, "note": ""}):
        with pytest.raises(ArtefactError) as caught:
            judge(broken)
        assert caught.value.code == "AUDIT_BROKEN"
    path = tmp_path / "older.json"
    path.write_text(json.dumps(older), encoding="utf-8")
    result = verify_export(path)
    assert [check.is_sound for check in result.checks] == [True, None], result.findings


def test_a_log_without_any_checkpoint_is_not_believed(log, judge):
    assert "From entry 1 on, nothing is signed" in judge({**log, "checkpoints": []})


def test_a_name_that_is_there_twice_is_refused(log, tmp_path):
    """One reader would take the first, another the last, and both call it the same signed log."""
    path = tmp_path / "twice.json"
    path.write_text('{"head": "' + "0" * 64 + '", ' + json.dumps(log)[1:], encoding="utf-8")
    with pytest.raises(ArtefactError) as caught:
        read_log(path)
    assert caught.value.code == "AUDIT_BROKEN"


@pytest.mark.parametrize("content", ["", "[]", "null", "[" * 100_000, '{"entries": []}', '{"head": NaN}', "\x00"])
def test_something_else_than_a_log(tmp_path, content):
    path = tmp_path / "log.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ArtefactError) as caught:
        read_log(path)
    assert caught.value.code == "AUDIT_BROKEN"


def test_rows_that_were_deleted_behind_a_checkpoint_of_the_database(chain, tmp_path):
    chain.sign()
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        connection.execute("DELETE FROM entries WHERE seq > 45")
    connection.close()
    assert chain.verify().is_sound, "the hashes alone do not show it"
    found = check_checkpoints(chain.checkpoints(), heads=[entry.hash for entry in chain.entries()])
    assert "From entry 46 on, they were cut off" in (found.problem or "")
    chain.append(actor="s", action="release", detail={})
    found = check_checkpoints(chain.checkpoints(), heads=[entry.hash for entry in chain.entries()])
    assert "cut off" in (found.problem or ""), "and going on does not hide it"


def test_another_key_is_refused_before_it_signs_and_a_lost_one_is_not_made_anew(chain, tmp_path):
    lost = key_at(tmp_path / "elsewhere" / "audit.key")
    for refused in (lost, key_at(tmp_path / "secret" / "other.key")):
        if refused is not lost:
            assert refused.public_key
        strange = AuditChain(tmp_path / "audit.db", key=refused)
        for use in (strange.require_key, strange.sign, lambda: strange.write_view(tmp_path / "v")):  # noqa: B023
            with pytest.raises(ArtefactError) as caught:
                use()
            assert caught.value.code == "AUDIT_KEY_WRONG"
        with pytest.raises(ArtefactError):
            strange.append(actor="s", action="run_finished", detail={})
    assert not lost.path.exists()
    assert len(chain.entries()) == 50, "an entry that cannot be signed when due is not there at all"


def test_an_entry_and_its_checkpoint_are_one_transaction(tmp_path, key, monkeypatch):
    chain = AuditChain(tmp_path / "new.db", key=key)
    chain.append(actor="s", action="release", detail={})

    def fail(_: object) -> str:
        raise OSError("killed")

    monkeypatch.setattr(key, "sign", fail)
    with pytest.raises(OSError, match="killed"):
        chain.append(actor="s", action="run_finished", detail={})
    assert [len(chain.entries()), len(chain.checkpoints())] == [1, 1]
