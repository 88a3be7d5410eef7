"""From simulated patients, one row each, to the seven tables of a Synthea export that say the same.

Whatever the loader derives from an export is known beforehand here: as many encounters, conditions, medications and
procedures as the row says, the most frequent class of encounter, the latest measurements, costs that add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from aevorium.data.population import Calibration
from aevorium.data.simulated import SIMULATED_PREFIX

__all__ = ["LAST_DAY", "export_tables"]

LAST_DAY = np.datetime64("2024-12-31")
"""The day of the last encounter of every simulated export."""

_HISTORY_DAYS = 20 * 365
_ORGANISATIONS = 5
_CLASSES = ("inpatient", "emergency", "urgentcare", "outpatient", "ambulatory", "wellness")
_VISITS = {
    "wellness": ("162673000", "General examination of patient (procedure)"),
    "ambulatory": ("185345009", "Encounter for symptom (procedure)"),
    "outpatient": ("185349003", "Encounter for check up (procedure)"),
    "urgentcare": ("702927004", "Urgent care clinic (environment)"),
    "emergency": ("50849002", "Emergency room admission (procedure)"),
    "inpatient": ("185347001", "Encounter for problem (procedure)"),
}
_DECIDING_CONDITIONS = {
    "Cancer": (
        ("254637007", "Non-small cell lung cancer (disorder)"),
        ("363406005", "Malignant tumor of colon (disorder)"),
    ),
    "ChronicKidneyDisease": (
        ("431855005", "Chronic kidney disease stage 1 (disorder)"),
        ("431856006", "Chronic kidney disease stage 2 (disorder)"),
        ("433144002", "Chronic kidney disease stage 3 (disorder)"),
    ),
    "Diabetes": (("44054006", "Diabetes mellitus type 2 (disorder)"),),
    "HeartDisease": (
        ("414545008", "Ischemic heart disease (disorder)"),
        ("49436004", "Atrial fibrillation (disorder)"),
        ("88805009", "Chronic congestive heart failure (disorder)"),
    ),
    "Hypertension": (("59621000", "Essential hypertension (disorder)"),),
}
_OTHER_CONDITIONS = (
    ("444814009", "Viral sinusitis (disorder)"),
    ("10509002", "Acute bronchitis (disorder)"),
    ("195662009", "Acute viral pharyngitis (disorder)"),
    ("162864005", "Body mass index 30+ - obesity (finding)"),
    ("714628002", "Prediabetes (finding)"),
    ("271737000", "Anemia (disorder)"),
    ("55822004", "Hyperlipidemia (disorder)"),
    ("66383009", "Gingivitis (disorder)"),
    ("278860009", "Chronic low back pain (finding)"),
    ("44465007", "Sprain of ankle (disorder)"),
    ("239873007", "Osteoarthritis of knee (disorder)"),
    ("68496003", "Polyp of colon (disorder)"),
)
_SOCIAL_CONDITIONS = (
    ("160903007", "Full-time employment (finding)"),
    ("73595000", "Stress (finding)"),
    ("314529007", "Medication review due (situation)"),
    ("224299000", "Received higher education (finding)"),
)
_MEDICATIONS = (
    ("314076", "lisinopril 10 MG Oral Tablet"),
    ("316672", "Simvastatin 10 MG Oral Tablet"),
    ("860975", "24 HR Metformin hydrochloride 500 MG Extended Release Oral Tablet"),
    ("310798", "Hydrochlorothiazide 25 MG Oral Tablet"),
    ("313782", "Acetaminophen 325 MG Oral Tablet"),
    ("310965", "Ibuprofen 200 MG Oral Tablet"),
    ("308182", "Amoxicillin 250 MG Oral Capsule"),
)
_PROCEDURES = (
    ("430193006", "Medication reconciliation (procedure)"),
    ("710824005", "Assessment of health and social care needs (procedure)"),
    ("171207006", "Depression screening (procedure)"),
    ("73761001", "Colonoscopy (procedure)"),
    ("399208008", "Plain X-ray of chest (procedure)"),
    ("710841007", "Assessment of anxiety (procedure)"),
)
_ALLERGIES = (
    ("419474003", "Allergy to mould (finding)"),
    ("232347008", "Dander (animal) allergy (finding)"),
    ("91935009", "Allergy to peanuts (finding)"),
)
_SNOMED = "http://snomed.info/sct"

_Ints = npt.NDArray[np.int64]
_Words = npt.NDArray[Any]
_Times = npt.NDArray[np.datetime64]


def export_tables(
    population: pd.DataFrame, *, hospital: str, calibration: Calibration, rng: np.random.Generator
) -> Mapping[str, pa.Table]:
    """Writes out the histories of simulated patients.

    Args:
        population: As from `aevorium.data.population.draw_adults`; the first patient is brought to life, so that
            the export's last encounter is on `LAST_DAY`.
        hospital: Prefix of the organisations' ids.
        calibration: The statistics, for the classes of encounters.
        rng: Source of all randomness.

    Returns:
        The seven tables, with a subset of the columns of Synthea 3.3.
    """
    people = population.reset_index(drop=True)
    people.loc[0, "dead"] = False
    patients, begin, end = _patients(people, rng)
    ids = patients["Id"].to_numpy(zero_copy_only=False)
    encounters, owner, starts = _encounters(
        people, ids=ids, begin=begin, end=end, hospital=hospital, calibration=calibration, rng=rng
    )
    visit = encounters["Id"].to_numpy(zero_copy_only=False)
    first = np.searchsorted(owner, np.arange(len(people)))

    def during(patient: _Ints) -> _Ints:
        """One encounter of each patient, by chance."""
        counts = people["EncounterCount"].to_numpy()[patient]
        chosen: _Ints = first[patient] + (rng.random(len(patient)) * counts).astype(np.int64)
        return chosen

    tables = {"patients": patients, "encounters": encounters}
    for name, owners, codes in (
        ("conditions", *_conditions(people, rng)),
        ("medications", *_events(people["MedicationCount"].to_numpy(), _MEDICATIONS, rng)),
        ("procedures", *_events(people["ProcedureCount"].to_numpy(), _PROCEDURES, rng)),
        ("allergies", *_events((people["HasAllergies"] == "Yes").to_numpy().astype(np.int64), _ALLERGIES, rng)),
    ):
        at = during(owners)
        with_time = name in ("medications", "procedures")
        begun = starts[at] if with_time else starts[at].astype("datetime64[D]")
        columns = {"START": _text(begun), "PATIENT": ids[owners], "ENCOUNTER": visit[at]}
        if name != "medications":
            columns["SYSTEM"] = np.full(len(at), _SNOMED, dtype=object)
        tables[name] = pa.table({**columns, "CODE": codes[:, 0], "DESCRIPTION": codes[:, 1]})
    tables["observations"] = _observations(people, ids=ids, visit=visit, starts=starts, first=first, rng=rng)
    return tables


def _text(times: _Times) -> _Words:
    """ISO 8601, in UTC where there is a time of day."""
    words = np.datetime_as_string(times)
    text: _Words = np.char.add(words, "" if times.dtype == np.dtype("datetime64[D]") else "Z").astype(object)
    return text


def _identifiers(number: int, prefix: str, rng: np.random.Generator) -> _Words:
    digits = rng.bytes(16 * number).hex()
    chunks = (digits[32 * i : 32 * i + 32] for i in range(number))
    return np.array([f"{prefix}{c[:8]}-{c[8:12]}-{c[12:16]}-{c[16:20]}-{c[20:]}" for c in chunks], dtype=object)


def _patients(people: pd.DataFrame, rng: np.random.Generator) -> tuple[pa.Table, _Times, _Times]:
    """The table, and the first and last day of each patient's history."""
    number, dead, age = len(people), people["dead"].to_numpy(), people["Age"].to_numpy()
    end = np.full(number, LAST_DAY)
    # Days 1 to 28 exist in every month, so that the birthday that many years earlier exists as well.
    died = (LAST_DAY.astype("datetime64[M]") - rng.integers(1, 120, number)).astype("datetime64[D]")
    end[dead] = (died + rng.integers(0, 28, number))[dead]
    month = end.astype("datetime64[M]")
    day_of_month = (end - month.astype("datetime64[D]")).astype(np.int64)
    birthday = (month - 12 * age).astype("datetime64[D]") + day_of_month
    birth = birthday - rng.integers(0, 364, number)
    table = pa.table(
        {
            "Id": _identifiers(number, SIMULATED_PREFIX, rng),
            "BIRTHDATE": _text(birth),
            "DEATHDATE": np.where(dead, _text(end), ""),
            "GENDER": np.where(people["Gender"] == "Male", "M", "F").astype(object),
        }
    )
    return table, np.maximum(birth, end - _HISTORY_DAYS), end


def _encounters(
    people: pd.DataFrame,
    *,
    ids: _Words,
    begin: _Times,
    end: _Times,
    hospital: str,
    calibration: Calibration,
    rng: np.random.Generator,
) -> tuple[pa.Table, _Ints, _Times]:
    """The table ordered by patient and time, the patient of each encounter, and its start."""
    owner = np.repeat(np.arange(len(people)), people["EncounterCount"].to_numpy())
    seconds = (end - begin).astype("timedelta64[s]").astype(np.int64)[owner]
    starts = begin.astype("datetime64[s]")[owner] + (rng.random(len(owner)) * seconds).astype("timedelta64[s]")
    starts = starts[np.lexsort([starts, owner])]
    # The first patient lives: the last encounter of the export is theirs.
    starts[np.searchsorted(owner, 0, side="right") - 1] = LAST_DAY.astype("datetime64[s]") + np.timedelta64(12, "h")
    names = np.array(_CLASSES, dtype=object)[_classes(people, owner, calibration, rng)]
    visits = np.array([_VISITS[name] for name in names], dtype=object)
    home = rng.integers(0, _ORGANISATIONS, len(people))
    away = rng.random(len(owner)) < 0.1
    organisation = np.where(away, rng.integers(0, _ORGANISATIONS, len(owner)), home[owner])
    table = pa.table(
        {
            "Id": _identifiers(len(owner), "", rng),
            "START": _text(starts),
            "STOP": _text(starts + np.timedelta64(30, "m")),
            "PATIENT": ids[owner],
            "ORGANIZATION": np.array([f"{hospital}-clinic-{n + 1}" for n in range(_ORGANISATIONS)], dtype=object)[
                organisation
            ],
            "ENCOUNTERCLASS": names,
            "CODE": visits[:, 0],
            "DESCRIPTION": visits[:, 1],
            "TOTAL_CLAIM_COST": _costs(people["TotalCost"].to_numpy(), owner, rng),
        }
    )
    return table, owner, starts


def _classes(people: pd.DataFrame, owner: _Ints, calibration: Calibration, rng: np.random.Generator) -> _Ints:
    """A class for each encounter, such that each patient's most frequent one is their EncounterType."""
    mixes = {
        label: np.array([entry.encounter_classes.get(name, 0.0) for name in _CLASSES])
        for label, entry in calibration.diagnoses.items()
    }
    weights = np.cumsum([mixes[label] / mixes[label].sum() for label in people["Diagnosis"]], axis=1)
    drawn: _Ints = (rng.random((len(owner), 1)) > weights[owner]).sum(axis=1).clip(0, len(_CLASSES) - 1)
    target = np.array([_CLASSES.index(name) for name in people["EncounterType"]])
    counts = np.zeros((len(people), len(_CLASSES)), dtype=np.int64)
    np.add.at(counts, (owner, drawn), 1)
    # Exchange the names of the most frequent class and the wanted one; then no class has more encounters.
    top = counts.argmax(axis=1)[owner]
    drawn = np.where(drawn == top, target[owner], np.where(drawn == target[owner], top, drawn))
    # Where a more acute class has as many, it would win: its first encounter of each patient changes class.
    counts[:] = 0
    np.add.at(counts, (owner, drawn), 1)
    tied = (counts == counts[np.arange(len(people)), target][:, None]) & (np.arange(len(_CLASSES)) < target[:, None])
    pair = owner * len(_CLASSES) + drawn
    _, first = np.unique(pair, return_index=True)
    change = first[tied[owner[first], drawn[first]]]
    drawn[change] = target[owner[change]]
    return drawn


def _costs(total: npt.NDArray[np.float64], owner: _Ints, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Costs in whole cents that add up to each patient's total."""
    weight = rng.lognormal(0.0, 1.2, len(owner))
    cents = np.round(total * 100).astype(np.int64)
    part = np.floor(weight / np.bincount(owner, weights=weight)[owner] * cents[owner]).astype(np.int64)
    last = np.searchsorted(owner, np.arange(len(total)), side="right") - 1
    part[last] += cents - np.bincount(owner, weights=part).astype(np.int64)
    return part / 100


def _events(counts: _Ints, choices: tuple[tuple[str, str], ...], rng: np.random.Generator) -> tuple[_Ints, _Words]:
    """The patient of each event, and its code and description."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.array(choices, dtype=object)[rng.integers(0, len(choices), len(owner))]


def _conditions(people: pd.DataFrame, rng: np.random.Generator) -> tuple[_Ints, _Words]:
    """Conditions that decide the diagnosis, others that decide nothing, and social findings, which do not count."""
    owner, codes = _events(people["ConditionCount"].to_numpy(), _OTHER_CONDITIONS, rng)
    first = np.searchsorted(owner, np.arange(len(people)))
    pick = rng.random(len(people))
    for label, choices in _DECIDING_CONDITIONS.items():
        rows = np.flatnonzero(people["Diagnosis"] == label)
        codes[first[rows]] = np.array(choices, dtype=object)[(pick[rows] * len(choices)).astype(np.int64)]
    social_owner, social = _events(rng.poisson(1.5, len(people)), _SOCIAL_CONDITIONS, rng)
    return np.concatenate([owner, social_owner]), np.concatenate([codes, social])


def _observations(
    people: pd.DataFrame, *, ids: _Words, visit: _Words, starts: _Times, first: _Ints, rng: np.random.Generator
) -> pa.Table:
    """Up to three measurements of each kind, at the patient's latest encounters; the latest is the row's value."""
    kinds = (
        ("39156-5", "Body mass index (BMI) [Ratio]", "kg/m2", "vital-signs", people["BMI"], 1.0, 1),
        ("8480-6", "Systolic Blood Pressure", "mm[Hg]", "vital-signs", people["BloodPressure"], 6.0, 0),
        ("8462-4", "Diastolic Blood Pressure", "mm[Hg]", "vital-signs", people["BloodPressure"] * 0.65, 4.0, 0),
        ("2339-0", "Glucose [Mass/volume] in Blood", "mg/dL", "laboratory", people["Glucose"], 5.0, 1),
    )
    last = first + people["EncounterCount"].to_numpy() - 1
    parts: list[pd.DataFrame] = []
    for back in (2, 1, 0):
        at = last - back
        for code, description, unit, category, values, spread, decimals in kinds:
            rows = np.flatnonzero((at >= first) & values.notna())
            measured = values.to_numpy()[rows] + (rng.normal(0, spread, len(rows)) if back else 0.0)
            parts.append(
                pd.DataFrame(
                    {
                        "DATE": _text(starts[at[rows]]),
                        "PATIENT": ids[rows],
                        "ENCOUNTER": visit[at[rows]],
                        "CATEGORY": category,
                        "CODE": code,
                        "DESCRIPTION": description,
                        "VALUE": np.round(measured, decimals),
                        "UNITS": unit,
                        "TYPE": "numeric",
                    }
                )
            )
    return pa.Table.from_pandas(pd.concat(parts, ignore_index=True), preserve_index=False)
