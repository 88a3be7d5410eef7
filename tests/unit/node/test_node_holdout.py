"""Who is held out: the same patients in all runs of a node, as many as the plan says, and nobody in both groups."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, chi2

from aevorium.errors import AevoriumError
from aevorium.node.holdout import HoldoutKey
from aevorium.node.records import NodeRecords
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.entropy import os_generator
from aevorium.privacy.plan import StudyPlan
from aevorium.schema.table import TableSchema

SCHEMA = TableSchema.from_toml(
    'name = "clinic"\nunit_id = "id"\n[columns.value]\nkind = "continuous"\nmin = 0\nmax = 100000\ninteger = true\n',
    source="test",
)
FALSE_ALARM = 1e-9
"""Probability with which each statistical test below fails although all is well."""


def plan_of(share: float) -> StudyPlan:
    return plan_study(SCHEMA, ["a"], RunOptions(evaluation_share=share))


def records_of(home: Path, ids: list[str]) -> NodeRecords:
    table = home.parent / f"{home.name}.csv"
    pd.DataFrame({"id": ids, "value": range(len(ids))}).to_csv(table, index=False)
    return NodeRecords(table, schema=SCHEMA, home=home, generator=os_generator, notice=lambda text: None)


def test_the_key_is_made_once_and_its_owner_alone_can_read_it(tmp_path: Path) -> None:
    first = HoldoutKey.load_or_create(tmp_path / "home")
    assert len(first.secret) == 32
    assert HoldoutKey.load_or_create(tmp_path / "home") == first
    assert HoldoutKey.load_or_create(tmp_path / "other") != first
    assert first.secret.hex() not in repr(first)
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "home" / "holdout.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "00", "z" * 64, "0" * 66, "ä" * 64])
def test_a_file_that_is_no_such_key_is_refused_and_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "holdout.key"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(AevoriumError) as caught:
        HoldoutKey.load_or_create(tmp_path)
    assert caught.value.code == "KEY_INVALID"
    assert path.read_text(encoding="utf-8") == content


def test_the_place_of_a_patient_is_the_hash_of_the_id_under_the_key() -> None:
    """From HMAC-SHA256 as RFC 4231 has it, test case 2: key "Jefe"; its first 8 bytes are 5bdcc146bf60754e."""
    place = 0x5BDCC146BF60754E / 2**64
    key, text = HoldoutKey(b"Jefe"), ["what do ya want for nothing?"]
    assert key.holds_out(text, share=place * (1 + 1e-9)).tolist() == [True]
    assert key.holds_out(text, share=place * (1 - 1e-9)).tolist() == [False]


def test_a_smaller_share_holds_out_some_of_the_same_patients_whoever_else_is_there() -> None:
    ids, key = [f"patient-{number}" for number in range(3000)], HoldoutKey(bytes(32))
    held = {share: key.holds_out(ids, share=share) for share in (0.0, 0.1, 0.3, 0.5)}
    assert not held[0.0].any()
    assert (held[0.1] <= held[0.3]).all()
    assert (held[0.3] <= held[0.5]).all()
    some = np.random.default_rng(0).permutation(3000)[:500]
    assert (key.holds_out([ids[place] for place in some], share=0.3) == held[0.3][some]).all()
    assert (HoldoutKey(b"\1" * 32).holds_out(ids, share=0.3) != held[0.3]).any()


@pytest.mark.parametrize("secret", [bytes(32), bytes(range(32))])
def test_places_are_uniform_for_ids_as_hospitals_number_them(secret: bytes) -> None:
    """χ² over ten shares of the places, and the share held out: each wrong once in 10⁹ if all is well."""
    key, number = HoldoutKey(secret), 20_000
    for ids in ([str(place) for place in range(number)], [f"{place:08d}-x" for place in range(number)]):
        below = [int(key.holds_out(ids, share=edge / 10).sum()) for edge in range(11)]
        expected = number / 10
        statistic = float((np.square(np.diff(below) - expected) / expected).sum())
        assert statistic < chi2.isf(FALSE_ALARM, df=9)
        low, high = binom.isf(1 - FALSE_ALARM / 2, number, 0.2), binom.isf(FALSE_ALARM / 2, number, 0.2)
        assert low <= below[2] <= high


def test_each_record_is_in_one_group_and_the_groups_are_those_of_the_key(tmp_path: Path) -> None:
    ids = [f"p{number}" for number in range(500)]
    records, plan = records_of(tmp_path / "home", ids), plan_of(0.25)
    training, evaluation = (set(part["value"]) for part in (records.training(plan), records.evaluation(plan)))
    assert not training & evaluation
    assert training | evaluation == set(range(500))
    held = HoldoutKey.load_or_create(tmp_path / "home").holds_out(ids, share=0.25)
    assert evaluation == set(np.flatnonzero(held))
    # After a restart, and whatever the order of the rows, they are the same.
    shuffled = np.random.default_rng(1).permutation(500)
    again = records_of(tmp_path / "home", [ids[place] for place in shuffled])
    assert {int(shuffled[int(row)]) for row in again.evaluation(plan)["value"]} == evaluation
    # Another run with another share divides anew.
    assert evaluation < set(records.evaluation(plan_of(0.5))["value"])
    assert set(records.evaluation(plan)["value"]) == evaluation


def test_without_a_holdout_both_groups_are_everybody_and_no_key_is_made(tmp_path: Path) -> None:
    records = records_of(tmp_path / "home", ["a", "b"])
    for plan in (
        plan_of(0.0),
        plan_study(SCHEMA, ["a", "b"], RunOptions(evaluation_share=0.2, max_nodes_per_patient=2)),
    ):
        assert len(records.training(plan)) == len(records.evaluation(plan)) == 2
    assert not (tmp_path / "home").exists()
