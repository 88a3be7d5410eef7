"""The Synthea loader's rules, each on an export small enough to know the answer."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from synthea_exports import NEWEST, OLDER, Export

from aevorium.data.synthea import prepare_export, write_patients
from aevorium.schema.table import load_schema


def prepared(export, tmp_path, **options):
    return prepare_export(export.write(tmp_path / "export"), **options)


def only_row(export, tmp_path, **options):
    frame = prepared(export, tmp_path, **options).frame
    assert len(frame) == 1
    return frame.iloc[0]


def full_export(columns):
    export = Export(columns=columns, empty=True)
    export.patient("p1", birth="1950-03-02", gender="M").patient("p2", birth="1990-01-01")
    for cost, kind in (("1000.25", "inpatient"), ("2000.50", "ambulatory"), ("8000.00", "ambulatory")):
        export.encounter("p1", start="2019-01-01T08:00:00Z", kind=kind, cost=cost)
    export.encounter("p2", start="2020-03-01T23:59:59Z", cost="0.0")
    export.condition("p1", "Essential hypertension (disorder)").condition("p1", "Viral sinusitis (disorder)")
    export.condition("p1", "Viral sinusitis (disorder)", start="2012-01-01")
    for _ in range(11):
        export.event("medications", "p1")
    export.event("procedures", "p1").event("procedures", "p1").event("allergies", "p2")
    export.observation("p1", "39156-5", "27.449", units="kg/m2").observation("p1", "8480-6", "141.6", units="mm[Hg]")
    export.observation("p1", "2345-7", "99.96", units="mg/dL").observation("p1", "8462-4", "85", units="mm[Hg]")
    return export


@pytest.mark.parametrize("columns", [OLDER, NEWEST], ids=["older", "newest"])
@pytest.mark.parametrize("gzipped", [False, True], ids=["csv", "csv.gz"])
def test_whole_rows_are_derived_from_every_column_set(columns, gzipped, tmp_path):
    result = prepare_export(full_export(columns).write(tmp_path, gzipped=gzipped))

    assert list(result.frame.columns) == ["PatientId", *load_schema("synthea").columns]
    first, second = result.frame.to_dict("records")
    assert first == {
        "PatientId": "p1",
        "Age": 69,
        "BMI": 27.4,
        "BloodPressure": 142.0,
        "Glucose": 100.0,
        "EncounterCount": 3,
        "MedicationCount": 11,
        "ConditionCount": 3,
        "TotalCost": 11000.75,
        "ProcedureCount": 2,
        "Gender": "Male",
        "Diagnosis": "Hypertension",
        "EncounterType": "ambulatory",
        "HasAllergies": "No",
        "RiskLevel": "Medium",
    }
    assert (second["Age"], second["Gender"], second["Diagnosis"]) == (30, "Female", "Healthy")
    assert (second["HasAllergies"], second["RiskLevel"]) == ("Yes", "Low")
    assert np.isnan([second[name] for name in ("BMI", "BloodPressure", "Glucose")]).all()
    assert result.findings.missing == {"BMI": 1, "BloodPressure": 1, "Glucose": 1}
    assert result.findings.reference_date == date(2020, 3, 1)
    assert (result.findings.kept, result.findings.rows["encounters"]) == (2, 4)


def test_whole_numbers_are_integers(tmp_path):
    frame = prepared(Export(), tmp_path).frame
    for name in ("Age", "EncounterCount", "MedicationCount", "ConditionCount", "ProcedureCount"):
        assert frame[name].dtype == np.int64


def test_columns_are_found_by_name_in_any_order_and_case(tmp_path):
    shuffled = {name: ",".join(reversed(header.split(","))) for name, header in NEWEST.items()}
    reference = prepare_export(full_export(NEWEST).write(tmp_path / "a")).frame
    other = full_export(shuffled).write(tmp_path / "b")
    path = other / "patients.csv"
    header, rest = path.read_text().split("\n", 1)
    path.write_text(header.lower() + "\n" + rest)
    pd.testing.assert_frame_equal(prepare_export(other).frame, reference)


class TestObservations:
    def test_the_latest_counts_wherever_it_is_in_the_file(self, tmp_path):
        export = Export()
        for value, day in (
            ("30", "2016-01-01T00:00:00Z"),
            ("40", "2018-05-05T00:00:00Z"),
            ("20", "2001-01-01T00:00:00Z"),
        ):
            export.observation("p1", "39156-5", value, date=day, units="kg/m2")
        assert only_row(export, tmp_path)["BMI"] == 40.0

    def test_of_several_at_once_the_last_in_the_file_counts(self, tmp_path):
        export = Export().observation("p1", "8480-6", "120").observation("p1", "8480-6", "130")
        assert only_row(export, tmp_path)["BloodPressure"] == 130.0

    def test_both_glucose_codes_are_one_series(self, tmp_path):
        export = Export().observation("p1", "2345-7", "90", date="2012-01-01").observation("p1", "2339-0", "80")
        assert only_row(export, tmp_path)["Glucose"] == 80.0

    def test_dates_with_time_and_without_and_with_offset_are_compared(self, tmp_path):
        export = Export()
        export.observation("p1", "39156-5", "21", date="2019-01-01T01:00:00+03:00")
        export.observation("p1", "39156-5", "22", date="2018-12-31T23:00:00Z")
        export.observation("p1", "39156-5", "23", date="2018-12-31")
        assert only_row(export, tmp_path)["BMI"] == 22.0

    def test_unreadable_values_dates_and_units_are_left_out_and_counted(self, tmp_path):
        export = Export().observation("p1", "2339-0", "80", units="mg/dL")
        export.observation("p1", "2339-0", "5.5", date="2019-01-01", units="mmol/L")
        export.observation("p1", "2339-0", "high", date="2019-01-01", units="mg/dL")
        export.observation("p1", "2339-0", "inf", date="2019-01-01", units="mg/dL")
        export.observation("p1", "2339-0", "90", date="yesterday", units="mg/dL")
        result = prepared(export, tmp_path)
        assert result.frame.loc[0, "Glucose"] == 80.0
        assert result.findings.other_units == {"Glucose": 1}
        assert result.findings.unreadable == {"observations.VALUE, left out": 2, "observations.DATE, left out": 1}


class TestDiagnosis:
    @pytest.mark.parametrize(
        ("descriptions", "expected"),
        [
            ([], "Healthy"),
            (["Viral sinusitis (disorder)", "Polyp of colon", "Stroke"], "Healthy"),
            (["Hypertension"], "Hypertension"),
            (["Essential hypertension (disorder)", "Atrial Fibrillation"], "HeartDisease"),
            (["History of myocardial infarction (situation)"], "HeartDisease"),
            (["Coronary Heart Disease", "Diabetes mellitus type 2 (disorder)"], "Diabetes"),
            (["Diabetes", "Chronic kidney disease stage 1 (disorder)"], "ChronicKidneyDisease"),
            (["End-stage renal disease (disorder)"], "ChronicKidneyDisease"),
            (["Chronic kidney disease stage 3 (disorder)", "Neoplasm of prostate"], "Cancer"),
            (["Carcinoma in situ of prostate (disorder)"], "Cancer"),
            (["Prediabetes", "Prediabetes (finding)", "Gestational diabetes"], "Healthy"),
            (["Suspected lung cancer (situation)", "Benign neoplasm of skin"], "Healthy"),
            (["Suspected lung cancer (situation)", "Hypertension"], "Hypertension"),
        ],
    )
    def test_priority_and_exclusions(self, descriptions, expected, tmp_path):
        export = Export()
        for description in descriptions:
            export.condition("p1", description)
        row = only_row(export, tmp_path)
        assert row["Diagnosis"] == expected
        assert row["ConditionCount"] == len(descriptions)

    def test_social_findings_are_not_counted_but_reported(self, tmp_path):
        export = Export().condition("p1", "Full-time employment (finding)", code="160903007")
        export.condition("p1", "Stress (finding)", code="73595000").condition("p1", "Posttraumatic stress disorder")
        result = prepared(export, tmp_path)
        assert result.frame.loc[0, "ConditionCount"] == 1
        assert result.findings.social_findings == 2


class TestEncounters:
    @pytest.mark.parametrize(
        ("classes", "expected"),
        [
            (["wellness", "wellness", "inpatient"], "wellness"),
            (["home", "virtual", "wellness"], "ambulatory"),
            (["snf", "hospice", "emergency"], "inpatient"),
            (["wellness", "ambulatory"], "ambulatory"),
            (["ambulatory", "outpatient"], "outpatient"),
            (["outpatient", "urgentcare"], "urgentcare"),
            (["urgentcare", "emergency"], "emergency"),
            (["emergency", "inpatient"], "inpatient"),
            (["Wellness", " AMBULATORY "], "ambulatory"),
        ],
    )
    def test_the_most_frequent_class_and_its_ties(self, classes, expected, tmp_path):
        export = Export(empty=True).patient("p1")
        for kind in classes:
            export.encounter("p1", kind=kind)
        assert only_row(export, tmp_path)["EncounterType"] == expected

    def test_an_unknown_class_counts_but_does_not_decide(self, tmp_path):
        export = Export().encounter("p1", kind="spa").encounter("p1", kind="spa")
        result = prepared(export, tmp_path)
        assert result.frame.loc[0, ["EncounterCount", "EncounterType"]].tolist() == [3, "wellness"]
        assert result.findings.unknown_classes == {"spa": 2}

    def test_an_unreadable_cost_is_zero_and_counted(self, tmp_path):
        export = Export().encounter("p1", cost="n/a").encounter("p1", cost="0.10").encounter("p1", cost="")
        result = prepared(export, tmp_path)
        assert result.frame.loc[0, "TotalCost"] == 100.10
        assert result.findings.unreadable == {"encounters.TOTAL_CLAIM_COST, taken as zero": 2}

    def test_patients_without_an_encounter_are_refused(self, tmp_path):
        export = Export().patient("p2").patient("p3").encounter("p3", kind="spa")
        result = prepared(export, tmp_path)
        assert result.frame["PatientId"].tolist() == ["p1"]
        assert result.findings.refused == {"without an encounter of a known class": 2}


class TestAges:
    @pytest.mark.parametrize(
        ("birth", "expected"),
        [
            ("1980-06-13", 40),
            ("1980-06-14", 40),
            ("1980-06-15", 39),
            ("1980-07-01", 39),
            ("2002-06-14", 18),
            ("1930-06-14", 90),
            ("1910-06-14", 90),
        ],
    )
    def test_completed_years_at_the_last_encounter(self, birth, expected, tmp_path):
        export = Export(empty=True).patient("p1", birth=birth).encounter("p1", start="2020-06-14T23:00:00Z")
        assert only_row(export, tmp_path)["Age"] == expected

    @pytest.mark.parametrize(("last", "expected"), [("2021-02-28", 20), ("2021-03-01", 21), ("2020-02-29", 20)])
    def test_a_birthday_on_the_29th_of_february(self, last, expected, tmp_path):
        export = Export(empty=True).patient("p1", birth="2000-02-29").encounter("p1", start=last)
        assert only_row(export, tmp_path)["Age"] == expected

    def test_children_are_refused_and_counted(self, tmp_path):
        export = (
            Export().patient("p2", birth="2002-06-15").encounter("p2").patient("p3", birth="2021-01-01").encounter("p3")
        )
        result = prepared(export, tmp_path)
        assert result.frame["PatientId"].tolist() == ["p1"]
        assert result.findings.refused == {"under 18 at the reference date or at death": 2}

    def test_the_dead_have_the_age_of_their_death(self, tmp_path):
        export = (
            Export().patient("p2", death="2001-06-14").encounter("p2").patient("p3", death="1998-06-14").encounter("p3")
        )
        result = prepared(export, tmp_path)
        assert result.frame[["PatientId", "Age"]].to_numpy().tolist() == [["p1", 39], ["p2", 20]]

    def test_unreadable_dates_of_patients_are_refused(self, tmp_path):
        export = Export().patient("p2", birth="").encounter("p2").patient("p3", death="?").encounter("p3")
        result = prepared(export, tmp_path)
        assert result.findings.refused == {"birth or death date cannot be read": 2}

    def test_the_last_encounter_is_that_of_any_known_patient(self, tmp_path):
        export = Export().encounter("stranger", start="2050-01-01")
        result = prepared(export, tmp_path)
        assert result.findings.reference_date == date(2020, 6, 14)
        assert result.findings.unknown_patients == {"encounters": 1}

    def test_undated_encounters_count_without_moving_the_reference_date(self, tmp_path):
        result = prepared(Export().encounter("p1", start="soon"), tmp_path)
        assert result.frame.loc[0, "EncounterCount"] == 2
        assert result.findings.unreadable == {"encounters.START, counted without a date": 1}
        assert result.findings.reference_date == date(2020, 6, 14)


class TestReferenceDate:
    def test_ages_and_history_end_there(self, tmp_path):
        export = Export().patient("p2", death="2019-01-01").encounter("p2", start="2005-01-01")
        export.encounter("p1", start="2010-06-15T23:00:00Z").encounter("p1", start="2010-06-16T00:00:00Z")
        for table in ("medications", "procedures", "allergies"):
            export.event(table, "p1", start="2015-01-01")
        export.condition("p1", "Diabetes", start="2015-01-01").condition("p1", "Hypertension", start="2009-01-01")
        export.observation("p1", "2339-0", "80", date="2009-01-01").observation(
            "p1", "2339-0", "200", date="2015-01-01"
        )

        result = prepared(export, tmp_path, reference_date=date(2010, 6, 15))

        assert result.frame["Age"].tolist() == [30, 30]
        row = result.frame.iloc[0]
        assert row[["EncounterCount", "MedicationCount", "ProcedureCount", "ConditionCount"]].tolist() == [1, 0, 0, 1]
        assert row[["Diagnosis", "HasAllergies", "Glucose"]].tolist() == ["Hypertension", "No", 80.0]
        assert result.findings.after_reference == {
            "encounters": 2,
            "conditions": 1,
            "observations": 1,
            "medications": 1,
            "procedures": 1,
            "allergies": 1,
        }
        assert result.findings.reference_given

    def test_without_one_the_whole_history_counts(self, tmp_path):
        export = Export().patient("p2").encounter("p2").event("procedures", "p2", start="2030-01-01")
        result = prepared(export, tmp_path)
        assert result.frame["ProcedureCount"].tolist() == [0, 1]
        assert result.findings.after_reference == {}


def test_values_are_clipped_to_the_schema_and_counted(tmp_path):
    export = Export(empty=True).patient("p1", birth="1920-01-01", gender="X")
    export.encounter("p1", cost="300000.01").observation("p1", "39156-5", "50.01").observation("p1", "8480-6", "79.4")
    for _ in range(31):
        export.condition("p1", "Anemia (disorder)")
    result = prepared(export, tmp_path)
    row = result.frame.iloc[0]
    assert row[["Age", "BMI", "BloodPressure", "TotalCost", "ConditionCount"]].tolist() == [
        90,
        50.0,
        80.0,
        300_000.0,
        30,
    ]
    # 50.01 is 50.0 to the precision that is kept: within bounds.
    assert result.findings.clipped == {"Age": 1, "BloodPressure": 1, "ConditionCount": 1, "TotalCost": 1}
    assert row["Gender"] == "Other"
    assert result.findings.other_gender == 1


def test_rows_of_unknown_patients_are_left_out_of_every_table(tmp_path):
    export = Export()
    export.encounter("x", cost="1").condition("x", "Diabetes").observation("x", "2339-0", "70")
    for table in ("medications", "procedures", "allergies"):
        export.event(table, "x")
    result = prepared(export, tmp_path)
    assert result.findings.unknown_patients == {
        "encounters": 1,
        "conditions": 1,
        "observations": 1,
        "medications": 1,
        "procedures": 1,
        "allergies": 1,
    }
    assert result.frame.loc[0, ["EncounterCount", "Diagnosis", "HasAllergies"]].tolist() == [1, "Healthy", "No"]


def test_the_findings_tell_everything_in_sentences(tmp_path):
    export = Export().patient("p2", birth="2015-01-01", gender="X").encounter("x").encounter("p1", kind="spa", cost="?")
    export.patient("p3", gender="", birth="1900-01-01").encounter("p3", start="2011-01-01")
    export.condition("p1", "Stress (finding)", code="73595000").observation("p1", "2339-0", "5", units="mmol/L")
    text = "\n".join(prepared(export, tmp_path, reference_date=date(2020, 6, 1)).findings.lines())
    for part in (
        "reference date 2020-06-01 (as given)",
        "Patients kept: 1 of 3.",
        "Patients refused: 1, under 18 at the reference date or at death.",
        "Patients refused: 1, without an encounter of a known class.",
        "Age 1",
        "Glucose 1",
        "encounters 2",
        "Measurements of Glucose in an unexpected unit: 1, left out.",
        "employment, education and the like): 1",
        "gender is neither M nor F: 1, kept as 'Other'",
        "Rows of patients that patients.csv does not list, left out: encounters 1",
    ):
        assert part in text
    assert "Simulated" not in text


def test_the_written_table_reads_back(tmp_path):
    frame = prepare_export(full_export(NEWEST).write(tmp_path / "export")).frame
    path = tmp_path / "out" / "patients.csv"
    write_patients(frame, path)
    back = pd.read_csv(path, keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(
        back.astype(object), frame.astype({"RiskLevel": str}).astype(object), check_dtype=False
    )
