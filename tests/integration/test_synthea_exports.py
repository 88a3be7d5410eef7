"""The loader and the sample generator against real Synthea exports and a table derived from them independently.

Skipped where the development data is absent.
"""

import tarfile
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aevorium.data.partition import main_organisations, split_by_organisation
from aevorium.data.sample import write_sample
from aevorium.data.synthea import prepare_export

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
HOSPITALS = (
    "H1_Boston",
    "H2_NorthShore",
    "H3_MetroSouthWest",
    "H4_SouthCoast",
    "H5_Western",
    "H6_Worcester",
    "H9_California",
)
pytestmark = pytest.mark.skipif(not (DATA / "synthea_csv").is_dir(), reason="the real Synthea exports are not here")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    for name in HOSPITALS:
        with tarfile.open(DATA / "synthea_csv" / f"{name}.tgz") as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def reference():
    return pd.read_csv(DATA / "tables" / "synthea.csv", keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def prepared(exports):
    return {name: prepare_export(exports / name) for name in HOSPITALS}


def matched(frame, expected):
    """Pairs the rows of both by columns that identify a patient."""
    keys = ["Gender", "EncounterCount", "MedicationCount", "ProcedureCount", "TotalCost"]
    pairs = expected.merge(frame, on=keys, suffixes=("_expected", ""))
    assert len(pairs) == len(expected)
    return pairs


@pytest.mark.parametrize("name", HOSPITALS)
def test_the_table_is_reproduced(name, prepared, reference):
    frame, expected = prepared[name].frame, reference[reference["Hospital"] == name]
    if name != "H9_California":
        assert len(frame) == len(expected)
    pairs = matched(frame, expected)
    for column in ("BMI", "BloodPressure", "Glucose"):
        np.testing.assert_array_equal(pairs[column], pairs[f"{column}_expected"])
    for column in ("Diagnosis", "EncounterType", "HasAllergies"):
        assert pairs[column].tolist() == pairs[f"{column}_expected"].tolist()
    # The reference leaves out opioid abuse, post-traumatic stress and the like; see docs/SYNTHEA.md.
    assert (pairs["ConditionCount"] == pairs["ConditionCount_expected"]).mean() > (0.9 if name[:2] == "H9" else 0.98)
    assert (pairs["ConditionCount"] - pairs["ConditionCount_expected"]).abs().max() <= 3
    # It was derived from exports of several dates before they were joined to one per hospital.
    if name != "H9_California":
        assert (pairs["Age"] == pairs["Age_expected"]).mean() > 0.9
        assert (pairs["Age"] - pairs["Age_expected"]).between(-1, 1).all()


def test_findings_of_real_exports(prepared):
    for name, result in prepared.items():
        findings = result.findings
        assert findings.kept + sum(findings.refused.values()) == findings.rows["patients"], name
        assert findings.unreadable == findings.unknown_patients == findings.unknown_classes == {}
        assert findings.other_units == {}
        assert not findings.simulated


def test_a_given_date_gives_the_ages_of_that_day(exports, reference):
    """Those of H9's patients who come from an export that ended in February 2022 have its ages."""
    frame = prepare_export(exports / "H9_California", reference_date=date(2022, 2, 27)).frame
    expected = reference[reference["Source"] == "andrew_nguyen_ca"]
    pairs = matched(frame, expected)
    assert pairs["Age"].tolist() == pairs["Age_expected"].tolist()


def test_real_exports_split_by_organisation(exports, prepared):
    frame = prepared["H1_Boston"].frame
    parts = split_by_organisation(frame, organisations=main_organisations(exports / "H1_Boston"), parts=4)
    assert sorted(pd.concat(parts)["PatientId"]) == sorted(frame["PatientId"])
    assert min(len(part) for part in parts) > len(frame) / 5


def test_the_sample_resembles_the_real_table(prepared, tmp_path):
    """Total-variation distance per column over ten quantile bins. Real halves of the table are at about .06.

    The sample imitates ten hospitals, three of them of a newer Synthea, and the table holds seven.
    """
    real = pd.concat([result.frame for result in prepared.values()], ignore_index=True)
    sample = pd.concat([prepare_export(entry.directory).frame for entry in write_sample(tmp_path, seed=1)])
    for column in real.columns.drop("PatientId"):
        one, two = real[column], sample[column]
        if one.dtype.kind in "if":
            edges = np.unique(one.quantile(np.linspace(0.1, 0.9, 9)))
            one, two = (np.where(c.isna(), -1, np.searchsorted(edges, c, side="right")) for c in (one, two))
        one, two = (pd.Series(np.asarray(c, dtype=object)).value_counts(normalize=True) for c in (one, two))
        distance = one.sub(two, fill_value=0).abs().sum() / 2
        assert distance < 0.15, column
