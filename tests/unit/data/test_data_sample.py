"""The sample generator: marked, repeatable, and faithful to what it imitates. Seeds are fixed: no false alarms."""

import filecmp

import numpy as np
import pandas as pd
import pytest

from aevorium.data.population import HospitalProfile, draw_adults, draw_children, load_calibration
from aevorium.data.sample import HOLDOUT_NAME, is_simulated, looks_simulated, write_sample
from aevorium.data.sample_export import LAST_DAY, export_tables
from aevorium.data.simulated import SIMULATED_FILE
from aevorium.data.synthea import prepare_export
from aevorium.errors import ConfigError
from aevorium.schema.frame import typed_frame, violations
from aevorium.schema.table import Continuous, load_schema


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("csv"), seed=7, holdout=400)


@pytest.fixture(scope="module")
def prepared(sample):
    return {entry.name: prepare_export(entry.directory) for entry in sample}


@pytest.fixture(scope="module")
def pooled(prepared):
    return pd.concat([prepared[f"Hospital_{letter}"].frame for letter in "ABC"], ignore_index=True)


def test_three_hospitals_and_the_holdout(sample, prepared):
    assert [(entry.name, entry.adults) for entry in sample] == [
        ("Hospital_A", 900),
        ("Hospital_B", 700),
        ("Hospital_C", 500),
        (HOLDOUT_NAME, 400),
    ]
    assert [entry.is_holdout for entry in sample] == [False, False, False, True]
    for entry in sample:
        findings = prepared[entry.name].findings
        assert findings.kept == entry.adults
        assert findings.refused == {"under 18 at the reference date or at death": entry.children}
        assert findings.reference_date == LAST_DAY.astype(object)
        assert findings.unreadable == findings.unknown_classes == findings.unknown_patients == {}


def test_everything_is_marked_as_simulated(sample, prepared):
    for entry in sample:
        assert is_simulated(entry.directory)
        assert "simulated" in (entry.directory / SIMULATED_FILE).read_text(encoding="utf-8").lower()
        assert looks_simulated(prepared[entry.name].frame["PatientId"])
        assert prepared[entry.name].findings.lines()[0].startswith("Simulated export")
    everyone = pd.concat([result.frame["PatientId"] for result in prepared.values()])
    assert everyone.is_unique


def test_the_mark_is_of_simulated_tables_only(tmp_path):
    assert not is_simulated(tmp_path)
    assert not looks_simulated([])
    assert not looks_simulated(["simulated-1", "a2"])
    assert not looks_simulated(["simulated-1", None])
    assert not looks_simulated(["not-simulated-1"])


def test_prepared_tables_satisfy_the_schema(prepared):
    schema = load_schema("synthea")
    for result in prepared.values():
        text = result.frame.drop(columns="PatientId").astype(object)
        frame, _ = typed_frame(text.astype(str).where(text.notna(), ""), schema, columns="all")
        assert violations(frame, schema).total == 0


def test_the_export_says_what_was_drawn(tmp_path):
    """Round trip: the loader derives from the seven tables exactly the rows that they were made from."""
    calibration, rng = load_calibration(), np.random.default_rng(11)
    adults = draw_adults(600, profile=HospitalProfile(), calibration=calibration, rng=rng)
    drawn = pd.concat([adults, draw_children(50, rng=rng)], ignore_index=True)
    for name, table in export_tables(drawn, hospital="H", calibration=calibration, rng=rng).items():
        table.to_pandas().to_csv(tmp_path / f"{name}.csv", index=False)
    frame = prepare_export(tmp_path).frame
    for name, column in load_schema("synthea").measured.items():
        expected = adults[name]
        if isinstance(column, Continuous):
            np.testing.assert_array_equal(frame[name], expected.clip(column.min, column.max))
        else:
            assert frame[name].tolist() == expected.tolist()


def test_the_seed_decides_and_hospitals_do_not_depend_on_each_other(tmp_path):
    first = write_sample(tmp_path / "a", seed=3, hospitals=2, patients=(40, 30))
    again = write_sample(tmp_path / "b", seed=3, hospitals=3, patients=(50, 30, 20))
    other = write_sample(tmp_path / "c", seed=4, hospitals=2, patients=(40, 30))
    tables = ("patients", "encounters", "conditions", "medications", "observations", "procedures", "allergies")

    def same(one, two):
        return [filecmp.cmp(one / f"{t}.csv", two / f"{t}.csv", shallow=False) for t in tables]

    assert all(same(first[1].directory, again[1].directory))
    assert not any(same(first[1].directory, other[1].directory))
    rewritten = (first[0].directory / "patients.csv").read_bytes()
    write_sample(tmp_path / "a", seed=3, hospitals=2, patients=(40, 30))
    assert (first[0].directory / "patients.csv").read_bytes() == rewritten


@pytest.mark.parametrize("size", [1, 2, 5])
def test_tiny_hospitals(size, tmp_path):
    (entry,) = write_sample(tmp_path, seed=size, hospitals=1, patients=[size])
    assert prepare_export(entry.directory).findings.kept == size


def test_a_real_export_is_never_overwritten(tmp_path):
    real = tmp_path / "Hospital_B" / "patients.csv"
    real.parent.mkdir()
    real.write_text("Id\n")
    with pytest.raises(ConfigError) as caught:
        write_sample(tmp_path, seed=1)
    assert caught.value.code == "WORKSPACE_UNWRITABLE"
    assert real.read_text() == "Id\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Hospital_B"]


@pytest.mark.parametrize(
    "options",
    [{"hospitals": 0}, {"hospitals": 27}, {"patients": [5, 5]}, {"patients": [5, 0, 5]}, {"holdout": -1}],
)
def test_impossible_sizes(options, tmp_path):
    with pytest.raises(ConfigError) as caught:
        write_sample(tmp_path, seed=1, **options)
    assert caught.value.code == "CONFIG_INVALID"
    assert list(tmp_path.iterdir()) == []


class TestDistributions:
    """Tolerances are about four standard errors of 2,100 patients, plus the tilt of the hospitals' profiles."""

    def test_missing_cells_depend_on_diagnosis_and_age(self, pooled):
        missing = pooled.isna()
        assert 0.02 < missing["BMI"].mean() < 0.06
        assert missing["BMI"].equals(missing["BloodPressure"])
        assert 0.48 < missing["Glucose"].mean() < 0.6
        by_diagnosis = missing["Glucose"].groupby(pooled["Diagnosis"]).mean()
        assert by_diagnosis["Healthy"] > 0.55
        assert by_diagnosis["Diabetes"] < 0.3
        healthy = pooled[pooled["Diagnosis"] == "Healthy"]
        assert healthy.loc[healthy["Age"] < 30, "Glucose"].isna().mean() > 0.8
        assert healthy.loc[healthy["Age"] >= 60, "Glucose"].isna().mean() < 0.6

    def test_margins(self, pooled):
        calibration = load_calibration()
        assert abs((pooled["Gender"] == "Male").mean() - calibration.male_share) < 0.05
        for label, statistics in calibration.diagnoses.items():
            rows = pooled[pooled["Diagnosis"] == label]
            assert abs((rows["HasAllergies"] == "Yes").mean() - statistics.allergy_share) < 0.12
            if len(rows) > 300:
                for name in ("BloodPressure", "Glucose", "ConditionCount"):
                    low, high = statistics.quantiles[name][1], statistics.quantiles[name][3]
                    inside = rows[name].dropna().between(np.floor(low), np.ceil(high)).mean()
                    assert 0.4 < inside < 0.7, (label, name)
        assert 0.08 < (pooled["TotalCost"] == 300_000).mean() < 0.18
        assert 0.03 < (pooled["MedicationCount"] == 0).mean() < 0.1
        assert 0.01 < (pooled["Age"] == 90).mean() < 0.06

    def test_rank_correlations(self, pooled):
        rank = pooled.corr("spearman", numeric_only=True)
        expected = {
            ("EncounterCount", "ProcedureCount"): 0.7,
            ("EncounterCount", "MedicationCount"): 0.69,
            ("TotalCost", "ProcedureCount"): 0.76,
            ("Age", "ConditionCount"): 0.37,
            ("Age", "BMI"): 0.26,
            ("BMI", "BloodPressure"): 0.04,
        }
        for (one, two), value in expected.items():
            assert rank.loc[one, two] == pytest.approx(value, abs=0.12), (one, two)

    def test_hospitals_differ(self, prepared):
        age = {name: result.frame["Age"].mean() for name, result in prepared.items()}
        assert age["Hospital_B"] - 2 > age["Hospital_A"] > age["Hospital_C"] + 4
        assert age["Hospital_C"] < age[HOLDOUT_NAME] < age["Hospital_B"]
        heart = {name: (result.frame["Diagnosis"] == "HeartDisease").mean() for name, result in prepared.items()}
        assert heart["Hospital_B"] > heart["Hospital_C"] + 0.05
