"""An exported audit log, of a node with its steward's statements, shows any change of any byte of it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aevorium.errors import ArtefactError
from aevorium.governance.chain import AuditChain
from aevorium.governance.steward import Steward, steward_key
from aevorium.verification import verify_export

often = settings(max_examples=400, deadline=None)


def exported(folder: Path) -> tuple[bytes, str]:
    key = steward_key(folder)
    chain = AuditChain(folder / "audit.db", key=key)
    steward = Steward(folder, node="a", chain=chain)
    steward.state("period_opened", {"period": "2026", "max_epsilon": 3.0, "max_delta": 1e-5})
    for number in range(3):
        chain.append(actor="a", action="release", detail={"round": number, "δ": 1e-05, "why": "Zählung\n\x1f"})
    steward.state("limit_set", {"period": "2026", "max_epsilon": float("inf"), "max_delta": 1e-5})
    chain.write_view(folder / "log.json")
    return (folder / "log.json").read_bytes(), key.public_key


with tempfile.TemporaryDirectory() as _folder:
    FILE, KEY = exported(Path(_folder))
CONTENT = json.loads(FILE)
SPACE = b" \n\r\t"


def is_sound(data: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.json"
        path.write_bytes(data)
        try:
            return verify_export(path, public_key=KEY).is_sound
        except ArtefactError as error:
            return error.code != "AUDIT_BROKEN"


def means_the_same(data: bytes) -> bool:
    """Whether JSON reads as before: by its white space, or another spelling of the same number or letter."""
    try:
        return bool(json.loads(data) == CONTENT)
    except (ValueError, RecursionError):
        return False


def test_the_file_itself_is_sound():
    assert is_sound(FILE)


@often
@given(st.integers(0, len(FILE) - 1), st.integers(0, 255))
def test_a_byte_that_is_another_shows_or_means_nothing(place, value):
    changed = FILE[:place] + bytes([value]) + FILE[place + 1 :]
    assert not is_sound(changed) or means_the_same(changed)


@often
@given(st.integers(0, len(FILE)), st.integers(0, 255))
def test_a_byte_too_many_shows_or_means_nothing(place, value):
    changed = FILE[:place] + bytes([value]) + FILE[place:]
    assert not is_sound(changed) or means_the_same(changed)


@often
@given(st.integers(0, len(FILE) - 1))
def test_a_byte_that_is_missing_shows_or_means_nothing(place):
    changed = FILE[:place] + FILE[place + 1 :]
    assert not is_sound(changed) or means_the_same(changed)


@given(st.integers(1, len(FILE) - 2))
def test_a_file_that_is_cut_short_shows(length):
    assert not is_sound(FILE[:length])


@pytest.mark.parametrize("indent", [None, 1, "\t"])
def test_white_space_means_nothing(indent):
    assert is_sound(json.dumps(CONTENT, indent=indent).encode())


def test_every_bit_of_a_signature_and_of_a_hash_counts():
    """Systematically, where chance might not look: each digit of what proves the rest."""
    last = CONTENT["checkpoints"][-1]
    for proof in (last["signature"], last["head"], last["public_key"], CONTENT["entries"][0]["detail"]["signature"]):
        start = FILE.rindex(proof.encode())
        for place in range(start, start + len(proof), 5):
            for digit in (b"0", b"f", proof[place - start].upper().encode()):
                changed = FILE[:place] + digit + FILE[place + 1 :]
                assert changed == FILE or not is_sound(changed)
