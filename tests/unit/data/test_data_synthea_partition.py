"""Splitting an export by organisation."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthea_exports import Export

from aevorium.data.partition import main_organisations, split_by_organisation
from aevorium.data.synthea import prepare_export
from aevorium.errors import ConfigError, DataError


def test_the_main_organisation_is_the_most_frequent_and_ties_go_by_id(tmp_path):
    export = Export(empty=True)
    for name, organisations in (("p1", "baa"), ("p2", "ba"), ("p3", "c"), ("p4", "abcc")):
        export.patient(name)
        for organisation in organisations:
            export.encounter(name, organisation=organisation)
    assert main_organisations(export.write(tmp_path)).to_dict() == {"p1": "a", "p2": "a", "p3": "c", "p4": "c"}


def test_an_export_is_split_whole(tmp_path):
    export = Export(empty=True)
    for number in range(12):
        export.patient(f"p{number}").encounter(f"p{number}", organisation=f"o{number % 5}")
    directory = export.write(tmp_path)
    frame = prepare_export(directory).frame
    parts = split_by_organisation(frame, organisations=main_organisations(directory), parts=3)
    assert [len(part) for part in parts] == [5, 3, 4]
    joined = pd.concat(parts).sort_values("PatientId", ignore_index=True)
    pd.testing.assert_frame_equal(joined, frame.sort_values("PatientId", ignore_index=True))


def test_a_missing_organisation_column_is_named(tmp_path):
    export = Export()
    export.columns = {**export.columns, "encounters": "Id,START,PATIENT,ENCOUNTERCLASS,TOTAL_CLAIM_COST"}
    with pytest.raises(DataError, match=r"encounters\.csv lacks the column ORGANIZATION"):
        main_organisations(export.write(tmp_path))


@given(
    membership=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60),
    parts=st.integers(1, 5),
    seed=st.randoms(use_true_random=False),
)
def test_each_patient_is_in_exactly_one_part_and_organisations_stay_whole(membership, parts, seed):
    ids = [f"p{number}" for number in range(len(membership))]
    frame = pd.DataFrame({"PatientId": ids, "Age": range(len(ids))})
    organisations = pd.Series(membership, index=ids)
    if len(set(membership)) < parts:
        with pytest.raises(ConfigError) as caught:
            split_by_organisation(frame, organisations=organisations, parts=parts)
        assert caught.value.code == "CONFIG_INVALID"
        return

    result = split_by_organisation(frame, organisations=organisations, parts=parts)

    assert len(result) == parts
    assert sorted(patient for part in result for patient in part["PatientId"]) == sorted(ids)
    seen = [set(organisations[part["PatientId"]]) for part in result]
    assert sum(len(group) for group in seen) == len(set(membership))
    sizes = [len(part) for part in result]
    assert max(sizes) - min(sizes) <= organisations.value_counts().max()

    shuffled = ids.copy()
    seed.shuffle(shuffled)
    again = split_by_organisation(
        frame.set_index("PatientId").loc[shuffled].reset_index(), organisations=organisations[shuffled], parts=parts
    )
    assert [set(part["PatientId"]) for part in again] == [set(part["PatientId"]) for part in result]


@pytest.mark.parametrize("parts", [0, -1])
def test_no_parts(parts):
    with pytest.raises(ConfigError):
        split_by_organisation(pd.DataFrame({"PatientId": ["p"]}), organisations=pd.Series({"p": "o"}), parts=parts)


def test_a_table_of_another_export():
    with pytest.raises(DataError) as caught:
        split_by_organisation(pd.DataFrame({"PatientId": ["secret"]}), organisations=pd.Series({"p": "o"}), parts=1)
    assert "secret" not in caught.value.message
