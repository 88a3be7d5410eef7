"""From a Synthea export to a table: one row per adult patient, under the bundled `synthea` schema.

The rules are in docs/SYNTHEA.md. Tables are read in batches and only sums, counts and latest values per patient are
kept, so memory grows with the number of patients and not with the size of the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from aevorium.data.diagnosis import DIAGNOSES, HEALTHY, SOCIAL_FINDINGS, diagnosis_rank
from aevorium.data.export import SyntheaExport, TableColumns, open_export
from aevorium.data.preparation import PreparationFindings, Tally
from aevorium.data.simulated import is_simulated
from aevorium.errors import DataError
from aevorium.schema.rules import derive
from aevorium.schema.table import Continuous, TableSchema, load_schema
from aevorium.workspace import write_atomically

__all__ = ["PreparedExport", "prepare_export", "write_patients"]

_COLUMNS: dict[str, TableColumns] = {
    "patients": {name: (name,) for name in ("Id", "BIRTHDATE", "DEATHDATE", "GENDER")},
    "encounters": {name: (name,) for name in ("START", "PATIENT", "ENCOUNTERCLASS", "TOTAL_CLAIM_COST")},
    "conditions": {name: (name,) for name in ("START", "PATIENT", "CODE", "DESCRIPTION")},
    "medications": {name: (name,) for name in ("START", "PATIENT")},
    "observations": {"START": ("DATE",), **{name: (name,) for name in ("PATIENT", "CODE", "VALUE", "UNITS")}},
    "procedures": {"START": ("START", "DATE"), "PATIENT": ("PATIENT",)},
    "allergies": {name: (name,) for name in ("START", "PATIENT")},
}

_ACUTENESS = ("inpatient", "emergency", "urgentcare", "outpatient", "ambulatory", "wellness")
_SAME_CLASS = {"home": "ambulatory", "virtual": "ambulatory", "snf": "inpatient", "hospice": "inpatient"}
_GENDERS = {"M": "Male", "F": "Female"}
_ADULT_AGE = 18


@dataclass(frozen=True)
class _Measurement:
    column: str
    codes: tuple[str, ...]
    units: tuple[str, ...]
    decimals: int


_MEASUREMENTS = (
    _Measurement("BMI", ("39156-5",), ("kg/m2",), 1),
    _Measurement("BloodPressure", ("8480-6",), ("mm[Hg]", "mmHg"), 0),
    _Measurement("Glucose", ("2339-0", "2345-7"), ("mg/dL",), 1),
)
"""LOINC codes of the observations that are read; a measurement without a unit is taken to be in the usual one."""

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class PreparedExport:
    """The table made from an export, and what was found on the way.

    Attributes:
        frame: PatientId, then the columns of the schema in order; whole numbers are int64, NaN is a missing cell.
        findings: Counts for the steward.
    """

    frame: pd.DataFrame
    findings: PreparationFindings


@dataclass(frozen=True)
class _Patients:
    ids: pd.Index[Any]
    birth: _Times
    death: _Times
    dead: npt.NDArray[np.bool_]
    gender: npt.NDArray[np.object_]


@dataclass(frozen=True)
class _Encounters:
    count: _Ints
    classes: _Ints
    cost: _Floats
    last_day: np.datetime64


@dataclass(frozen=True)
class _Reader:
    """What every pass over a table needs."""

    export: SyntheaExport
    patients: _Patients
    until: np.datetime64 | None
    tally: Tally

    def rows(self, table: str) -> Iterator[tuple[pa.RecordBatch, _Ints]]:
        """Yields each batch's rows that count, with the position of their patient."""
        self.tally.rows[table] = 0
        for batch in self.export.batches(table):
            self.tally.rows[table] += len(batch)
            encoded = batch.column("PATIENT").dictionary_encode()
            known = self.patients.ids.get_indexer(encoded.dictionary.to_pylist())
            position = known[encoded.indices.to_numpy()].astype(np.int64)
            keep = position >= 0
            self.tally.unknown_patients[table] += int((~keep).sum())
            if self.until is not None:
                # An undated row is kept: what cannot be compared is not known to be later.
                later = keep & (_times(batch.column("START")).astype("datetime64[D]") > self.until)
                self.tally.after_reference[table] += int(later.sum())
                keep &= ~later
            yield batch.filter(pa.array(keep)), position[keep]


def prepare_export(directory: Path, *, reference_date: date | None = None) -> PreparedExport:
    """Makes one row per adult patient. Reads patient records.

    Args:
        directory: The folder with the seven CSV files (or the parent of its `csv` folder), plain or gzipped.
        reference_date: The day at which ages are taken; rows after it are left out. Without it, the day of the
            export's last encounter, and every row counts. Who has died has the age of that day instead.

    Raises:
        DataError: DATA_NOT_FOUND, DATA_UNREADABLE, SYNTHEA_INCOMPLETE, DATA_DUPLICATE_UNIT, or DATA_EMPTY if no
            patient remains.
    """
    schema = load_schema("synthea")
    export = open_export(directory, columns=_COLUMNS)
    tally = Tally()
    patients = _read_patients(export, tally)
    until = None if reference_date is None else np.datetime64(reference_date, "D")
    reader = _Reader(export, patients, until, tally)
    encounters = _read_encounters(reader)
    reference = encounters.last_day if until is None else until
    if np.isnat(reference):
        raise DataError(
            "DATA_EMPTY",
            f"No encounter in {str(export.directory)!r} has a date. Ages cannot be computed.",
            hint="Export the encounters again, or give --reference-date.",
        )
    age = _ages(patients, reference=reference, given=until is not None)
    columns = _measured_columns(reader, encounters, age)
    kept = _select(patients, encounters, age, tally)
    if not kept.any():
        raise DataError(
            "DATA_EMPTY",
            f"No row can be made from {str(export.directory)!r}. "
            f"None of its {len(kept):,} patients is an adult with an encounter.",
            hint="Check the reference date, and that encounters.csv belongs to patients.csv.",
        )
    frame = _finish(pd.DataFrame(columns)[kept].reset_index(drop=True), schema, tally)
    frame.insert(0, "PatientId", patients.ids[kept].to_numpy())
    tally.other_gender = int((frame["Gender"] == "Other").sum())
    findings = PreparationFindings.from_tally(
        tally,
        directory=str(export.directory),
        reference_date=reference.astype("datetime64[D]").astype(date),
        reference_given=until is not None,
        kept=len(frame),
        missing={entry.column: int(frame[entry.column].isna().sum()) for entry in _MEASUREMENTS},
        simulated=is_simulated(export.directory),
    )
    return PreparedExport(frame, findings)


def write_patients(frame: pd.DataFrame, path: Path) -> None:
    """Writes a prepared table as CSV, readable by its owner only. Reads patient records.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    with write_atomically(path, mode=0o600) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def _times(column: pa.Array) -> _Times:
    """Points in time in microseconds, NaT where the text is not an ISO 8601 date or time."""
    parsed = pd.to_datetime(column.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    times: _Times = parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    return times


def _numbers(column: pa.Array) -> _Floats:
    """Finite numbers, NaN where the text is none."""
    values: _Floats = pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _read_patients(export: SyntheaExport, tally: Tally) -> _Patients:
    batches = list(export.batches("patients"))
    table = pa.Table.from_batches(batches) if batches else None
    if table is None or len(table) == 0:
        raise DataError("DATA_EMPTY", "The table 'patients.csv' holds no rows. Its header is all there is.")
    table = table.combine_chunks()
    tally.rows["patients"] = len(table)
    ids = pd.Index(table["Id"].to_numpy(), dtype=object)
    if ids.has_duplicates:
        raise DataError(
            "DATA_DUPLICATE_UNIT",
            f"A patient appears more than once in 'patients.csv'. {int(ids.duplicated().sum()):,} rows repeat an id.",
            hint="Several exports may have been appended to one file: keep one row per patient.",
        )
    birth, death = (_times(table[name].chunk(0)).astype("datetime64[D]") for name in ("BIRTHDATE", "DEATHDATE"))
    dead = table["DEATHDATE"].to_numpy() != ""
    gender = np.array([_GENDERS.get(code, "Other") for code in table["GENDER"].to_pylist()], dtype=object)
    return _Patients(ids, birth, death, dead, gender)


def _read_encounters(reader: _Reader) -> _Encounters:
    number, tally = len(reader.patients.ids), reader.tally
    count = np.zeros(number, dtype=np.int64)
    classes = np.zeros((number, len(_ACUTENESS)), dtype=np.int64)
    cost = np.zeros(number)
    last = np.datetime64("NaT", "us")
    for batch, position in reader.rows("encounters"):
        count += np.bincount(position, minlength=number)
        rank = _class_ranks(batch.column("ENCOUNTERCLASS"), tally)
        np.add.at(classes, (position[rank >= 0], rank[rank >= 0]), 1)
        amounts = _numbers(batch.column("TOTAL_CLAIM_COST"))
        tally.unreadable["encounters.TOTAL_CLAIM_COST, taken as zero"] += int(np.isnan(amounts).sum())
        cost += np.bincount(position, weights=np.nan_to_num(amounts), minlength=number)
        times = _times(batch.column("START"))
        tally.unreadable["encounters.START, counted without a date"] += int(np.isnat(times).sum())
        last = np.fmax.reduce(times, initial=last)
    return _Encounters(count, classes, cost, last.astype("datetime64[D]"))


def _class_ranks(column: pa.Array, tally: Tally) -> _Ints:
    """Index into `_ACUTENESS` for each encounter, -1 for a class that has no place there."""
    encoded = column.dictionary_encode()
    names = [name.strip().lower() for name in encoded.dictionary.to_pylist()]
    ranks = [_ACUTENESS.index(c) if (c := _SAME_CLASS.get(name, name)) in _ACUTENESS else -1 for name in names]
    indices = encoded.indices.to_numpy()
    for name, rank, occurrences in zip(names, ranks, np.bincount(indices, minlength=len(names)), strict=True):
        if rank < 0:
            tally.unknown_classes[name] += int(occurrences)
    return np.array(ranks, dtype=np.int64)[indices] if len(indices) else np.empty(0, dtype=np.int64)


def _ages(patients: _Patients, *, reference: np.datetime64, given: bool) -> _Ints:
    """Completed years at the reference date or at death; -1 where a needed date cannot be read."""
    died = ~np.isnat(patients.death)
    if given:
        died &= patients.death <= reference
    end = np.where(died, patients.death, reference)
    readable = ~np.isnat(patients.birth) & ~(patients.dead & np.isnat(patients.death))
    birth = np.where(readable, patients.birth, reference).astype("datetime64[D]")
    months = birth.astype("datetime64[M]"), end.astype("datetime64[M]")
    day_of_month = [
        (day - month.astype("datetime64[D]")).astype(np.int64) for day, month in zip((birth, end), months, strict=True)
    ]
    completed = (months[1] - months[0]).astype(np.int64) - (day_of_month[1] < day_of_month[0])
    return np.where(readable, np.maximum(completed // 12, 0), -1)


def _select(patients: _Patients, encounters: _Encounters, age: _Ints, tally: Tally) -> npt.NDArray[np.bool_]:
    """Which patients make a row; counts the others under the first reason that applies."""
    kept = np.ones(len(patients.ids), dtype=bool)
    reasons = {
        "without an id": patients.ids == "",
        "birth or death date cannot be read": age < 0,
        f"under {_ADULT_AGE} at the reference date or at death": age < _ADULT_AGE,
        "without an encounter of a known class": encounters.classes.sum(axis=1) == 0,
    }
    for reason, applies in reasons.items():
        tally.refused[reason] = int((kept & applies).sum())
        kept &= ~applies
    return kept


def _measured_columns(reader: _Reader, encounters: _Encounters, age: _Ints) -> dict[str, npt.NDArray[Any]]:
    conditions, rank = _read_conditions(reader)
    measured = _read_observations(reader)
    diagnoses = np.array([*(entry.name for entry in DIAGNOSES), "Healthy"], dtype=object)
    return {
        "Age": age,
        **measured,
        "EncounterCount": encounters.count,
        "MedicationCount": _count_rows(reader, "medications"),
        "ConditionCount": conditions,
        "TotalCost": np.round(encounters.cost, 2),
        "ProcedureCount": _count_rows(reader, "procedures"),
        "Gender": reader.patients.gender,
        "Diagnosis": diagnoses[rank],
        # argmax takes the first of equals, which is the more acute class.
        "EncounterType": np.array(_ACUTENESS, dtype=object)[encounters.classes.argmax(axis=1)],
        "HasAllergies": np.where(_count_rows(reader, "allergies") > 0, "Yes", "No").astype(object),
    }


def _count_rows(reader: _Reader, table: str) -> _Ints:
    count = np.zeros(len(reader.patients.ids), dtype=np.int64)
    for _, position in reader.rows(table):
        count += np.bincount(position, minlength=len(count))
    return count


def _read_conditions(reader: _Reader) -> tuple[_Ints, _Ints]:
    """Conditions per patient, and the rank of the diagnosis that has priority."""
    count = np.zeros(len(reader.patients.ids), dtype=np.int64)
    best = np.full(len(count), HEALTHY, dtype=np.int64)
    social = pa.array(sorted(SOCIAL_FINDINGS))
    for batch, position in reader.rows("conditions"):
        is_social = pc.is_in(batch.column("CODE"), value_set=social).to_numpy(zero_copy_only=False)
        reader.tally.social_findings += int(is_social.sum())
        count += np.bincount(position[~is_social], minlength=len(count))
        encoded = batch.column("DESCRIPTION").dictionary_encode()
        ranks = np.array([diagnosis_rank(text) for text in encoded.dictionary.to_pylist()], dtype=np.int64)
        if len(ranks):
            np.minimum.at(best, position, ranks[encoded.indices.to_numpy()])
    return count, best


def _read_observations(reader: _Reader) -> dict[str, _Floats]:
    """The latest value of each measurement per patient; of several at the same time, the last in the file."""
    number, tally = len(reader.patients.ids), reader.tally
    latest = {entry.column: np.full(number, np.nan) for entry in _MEASUREMENTS}
    taken_at = {entry.column: np.full(number, np.iinfo(np.int64).min, dtype=np.int64) for entry in _MEASUREMENTS}
    for batch, position in reader.rows("observations"):
        for entry in _MEASUREMENTS:
            wanted = pc.is_in(batch.column("CODE"), value_set=pa.array(entry.codes))
            rows, where = batch.filter(wanted), position[wanted.to_numpy(zero_copy_only=False)]
            usual = pc.is_in(rows.column("UNITS"), value_set=pa.array([*entry.units, ""])).to_numpy(
                zero_copy_only=False
            )
            times, values = _times(rows.column("START")), _numbers(rows.column("VALUE"))
            tally.other_units[entry.column] += int((~usual).sum())
            tally.unreadable["observations.DATE, left out"] += int((usual & np.isnat(times)).sum())
            tally.unreadable["observations.VALUE, left out"] += int((usual & np.isnan(values)).sum())
            good = usual & ~np.isnat(times) & ~np.isnan(values)
            at = times.astype(np.int64)
            good &= at >= taken_at[entry.column][where]
            order = np.flatnonzero(good)[np.argsort(at[good], kind="stable")]
            # Where an index repeats, numpy keeps the last assignment: the latest value.
            latest[entry.column][where[order]] = values[order]
            taken_at[entry.column][where[order]] = at[order]
    return {entry.column: np.round(latest[entry.column], entry.decimals) for entry in _MEASUREMENTS}


def _finish(frame: pd.DataFrame, schema: TableSchema, tally: Tally) -> pd.DataFrame:
    """Clips to the schema's bounds, derives, and orders the columns."""
    for name, column in schema.measured.items():
        if isinstance(column, Continuous):
            outside = (frame[name] < column.min) | (frame[name] > column.max)
            tally.clipped[name] = int(outside.sum())
            frame[name] = frame[name].clip(column.min, column.max)
            if column.integer:
                frame[name] = frame[name].astype(np.int64)
    return derive(frame, schema)
