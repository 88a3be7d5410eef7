"""An audit chain shows every change that can be made to an exported copy of it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from aevorium.governance.chain import AuditChain, verify_entries

quick = settings(max_examples=150, deadline=None)
slow = settings(max_examples=20, deadline=None)


def exported(length: int = 6) -> list:
    with tempfile.TemporaryDirectory() as folder:
        chain = AuditChain(Path(folder) / "audit.db")
        for number in range(length):
            chain.append(actor="node a", action="release", detail={"round": number, "ε": 0.25, "purpose": "Zählung"})
        return chain.export()


ENTRIES = exported()
TEXT = json.dumps(ENTRIES, ensure_ascii=False)


@quick
@given(st.integers(0, len(TEXT) - 1), st.characters(exclude_categories=["Cs"]))
def test_changing_any_character_breaks_the_chain(position, character):
    changed = TEXT[:position] + character + TEXT[position + 1 :]
    try:
        entries = json.loads(changed)
    except ValueError:
        return
    unchanged = entries == ENTRIES and json.dumps(entries) == json.dumps(ENTRIES)
    assert verify_entries(entries).is_sound == unchanged


@quick
@given(st.permutations(range(len(ENTRIES))))
def test_any_other_order_breaks_the_chain(order):
    report = verify_entries([ENTRIES[index] for index in order])
    first_out_of_place = next((place for place, index in enumerate(order) if place != index), None)
    assert (report.problem.index if report.problem else None) == first_out_of_place


@quick
@given(st.sets(st.integers(0, len(ENTRIES) - 1), min_size=1))
def test_removing_any_entries_breaks_the_chain(removed):
    kept = [entry for index, entry in enumerate(ENTRIES) if index not in removed]
    report = verify_entries(kept, expected_head=ENTRIES[-1]["hash"])
    assert report.problem.reason == "missing"
    assert report.problem.index == min(removed)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@slow
@given(st.lists(st.dictionaries(st.text(), JSON_VALUES, max_size=3), max_size=4))
def test_every_detail_can_be_sealed_and_verified(details):
    with tempfile.TemporaryDirectory() as folder:
        chain = AuditChain(Path(folder) / "audit.db")
        for detail in details:
            chain.append(actor="a", action="b", detail=detail)
        text = json.dumps(chain.export(), allow_nan=False)
        assert verify_entries(json.loads(text), expected_head=chain.head).is_sound
        assert len(chain.entries()) == len(details)
