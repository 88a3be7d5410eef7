"""The steward's statements: signed, pinned to a key, bound to their place."""

from __future__ import annotations

import json
import stat

import pytest

from aevorium.errors import AevoriumError, ArtefactError, ConfigError
from aevorium.governance.chain import AuditChain, AuditEntry
from aevorium.governance.signing import read_public_key
from aevorium.governance.steward import STATEMENTS, Steward, check_signatures, statements_of


@pytest.fixture
def chain(tmp_path) -> AuditChain:
    return AuditChain(tmp_path / "home" / "audit.db")


@pytest.fixture
def steward(tmp_path, chain) -> Steward:
    return Steward(tmp_path / "home", node="st-mary", chain=chain)


def test_a_statement_is_an_entry_that_says_what_was_said(steward, chain):
    chain.append(actor="st-mary", action="release", detail={})
    said = steward.state("limit_set", {"max_epsilon": float("inf"), "max_delta": 1e-5})
    entry = chain.entries()[-1]
    assert (entry.actor, entry.action) == ("st-mary", "limit_set")
    assert entry.detail["statement"]["previous"] == entry.previous
    assert statements_of(chain) == (said,)
    assert said.content == {"max_epsilon": "Infinity", "max_delta": 1e-5}
    assert statements_of(chain, "period_opened") == ()
    assert chain.verify().is_sound
    assert check_signatures(chain.entries()).count == 1


def test_the_key_is_the_owner_s_alone_and_its_public_half_lies_beside_it(steward, tmp_path):
    steward.state("limit_set", {})
    key, public = tmp_path / "home" / "steward.key", tmp_path / "home" / "steward.pub"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert read_public_key(str(public)) == check_signatures(steward.chain.entries()).public_key
    before = key.read_bytes()
    steward.state("limit_set", {})
    assert key.read_bytes() == before
    key.chmod(0o644)
    with pytest.raises(ArtefactError) as caught:
        steward.state("limit_set", {})
    assert caught.value.code == "KEY_INVALID"


def test_another_key_cannot_speak_for_a_home(steward, tmp_path):
    first = steward.state("period_opened", {"period": "2026"})
    (tmp_path / "home" / "steward.key").unlink()
    with pytest.raises(AevoriumError) as caught:
        steward.state("period_opened", {"period": "2027"})
    assert caught.value.code == "STEWARD_KEY_WRONG"
    assert statements_of(steward.chain) == (first,)


def test_a_statement_put_in_without_the_key_counts_nothing_and_is_seen(steward, chain, tmp_path):
    first = steward.state("period_opened", {"period": "2026"})
    genuine = chain.entries()[-1]
    other = Steward(tmp_path / "elsewhere", node="st-mary", chain=AuditChain(tmp_path / "elsewhere" / "audit.db"))
    other.state("period_opened", {"period": "2027"})
    foreign = other.chain.entries()[-1]
    for forged in (
        {"period": "2027"},
        {"statement": {"content": {"period": "2027"}}, "signature": "00", "public_key": genuine.detail["public_key"]},
        genuine.detail,
        foreign.detail,
        {**foreign.detail, "public_key": genuine.detail["public_key"]},
    ):
        chain.append(actor="st-mary", action="period_opened", detail=forged)
        assert chain.verify().is_sound
        assert statements_of(chain) == (first,)
        assert "Entry 2 (period_opened)" in check_signatures(chain.entries()).problem


def test_changed_content_does_not_fit_its_signature(steward, chain):
    steward.state("limit_set", {"max_epsilon": 3.0})
    (entry,) = chain.entries()
    detail = json.loads(json.dumps(entry.detail))
    detail["statement"]["content"]["max_epsilon"] = 30.0
    changed = AuditEntry.model_validate({**entry.model_dump(), "detail": detail})
    assert "does not fit" in check_signatures([changed], public_key=detail["public_key"]).problem


def test_a_log_can_be_checked_against_a_key_known_from_elsewhere(steward, chain):
    steward.state("limit_set", {})
    own = check_signatures(chain.entries()).public_key
    assert check_signatures(chain.entries(), public_key=own).problem is None
    assert "another key" in check_signatures(chain.entries(), public_key="ab" * 32).problem


@pytest.mark.parametrize("text", ["", "zz", "ab" * 31, "/nowhere/steward.pub"])
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(ConfigError):
        read_public_key(text)


def test_the_key_of_something_else_is_no_steward_s(tmp_path, steward):
    (tmp_path / "home").mkdir(exist_ok=True)
    key = tmp_path / "home" / "steward.key"
    key.write_text("nothing")
    key.chmod(0o600)
    with pytest.raises(ArtefactError):
        steward.state("limit_set", {})


def test_every_action_of_a_steward_must_be_signed(chain):
    for action in STATEMENTS:
        chain.append(actor="st-mary", action=action, detail={})
    assert statements_of(chain) == ()
    assert "not signed" in check_signatures(chain.entries()).problem
