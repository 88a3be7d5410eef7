"""Simulated patients, one row each: drawn from the aggregate statistics that come with the package.

Age, then sex, then diagnosis given both; the other columns by a Gaussian copula within each diagnosis, whose margins
are five quantiles, interpolated. How many cells are missing depends on the diagnosis and, for Glucose, on age through
the share of prediabetes: laboratories measure whom they suspect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtr, ndtri

__all__ = ["Calibration", "HospitalProfile", "draw_adults", "draw_children", "load_calibration"]

_LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
_COUNTS = ("EncounterCount", "MedicationCount", "ConditionCount", "TotalCost", "ProcedureCount")
_BUSIER_LAST = ("wellness", "ambulatory", "outpatient", "inpatient", "emergency", "urgentcare")
_OLDEST_BAND_MEAN = 9.0
_OLDEST = 108.0

_Floats = npt.NDArray[np.float64]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AgeBand(_Entry):
    """Patients from one age to the next band's."""

    start: int = Field(alias="from", description="Youngest age of the band.")
    share: float = Field(description="Share of all adults.")
    diagnosis: dict[str, float] = Field(description="Share of each diagnosis.")
    male_to_female: dict[str, float] = Field(description="How many times likelier each diagnosis is for men.")
    prediabetes: float = Field(description="Share with prediabetes.")


class DiagnosisStatistics(_Entry):
    """Patients with one diagnosis."""

    quantiles: dict[str, tuple[float, float, float, float, float]] = Field(description="5, 25, 50, 75 and 95%.")
    missing: dict[str, float] = Field(description="Share of empty cells.")
    allergy_share: float = Field(description="Share with an allergy.")
    encounter_type: dict[str, float] = Field(description="Shares of the most frequent class of encounter.")
    encounter_classes: dict[str, float] = Field(description="Shares of encounters by class.")


class Calibration(_Entry):
    """The statistics that the generator imitates. Safe to release: of simulated patients."""

    provenance: str
    ages: tuple[AgeBand, ...]
    male_share: float
    dead_share: float
    columns: tuple[str, ...] = Field(description="Order of the correlation's rows; the first is Age.")
    latent_correlation: tuple[tuple[float, ...], ...] = Field(description="Of normal scores, within a diagnosis.")
    diagnoses: dict[str, DiagnosisStatistics]


@dataclass(frozen=True)
class HospitalProfile:
    """How one hospital's patients differ from the average.

    Attributes:
        age_tilt: Log-odds a decade of age: positive is older.
        diagnosis_tilt: Log-odds by diagnosis.
        activity: Shift of encounters, medications, procedures and costs, in standard deviations.
        bmi: Shift in kg/m2.
    """

    age_tilt: float = 0.0
    diagnosis_tilt: Mapping[str, float] = field(default_factory=dict)
    activity: float = 0.0
    bmi: float = 0.0


def load_calibration() -> Calibration:
    """Reads the statistics that come with the package."""
    text = resources.files("aevorium.data").joinpath("sample_calibration.json").read_text(encoding="utf-8")
    return Calibration.model_validate_json(text)


def draw_adults(
    size: int, *, profile: HospitalProfile, calibration: Calibration, rng: np.random.Generator
) -> pd.DataFrame:
    """Draws adults of one hospital.

    Args:
        size: How many.
        profile: The hospital.
        calibration: The statistics.
        rng: Source of all randomness.

    Returns:
        The measured columns of the `synthea` schema, unclipped (Age may exceed 90), and `dead` (bool).
    """
    band, age = _draw_ages(size, profile, calibration, rng)
    male = rng.random(size) < calibration.male_share
    diagnosis = _draw_diagnoses(band, male, profile, calibration, rng)
    scores = _draw_scores(age, diagnosis, calibration, rng)
    scores[list(_COUNTS)] += profile.activity
    frame = pd.DataFrame({"Age": np.floor(age).astype(np.int64)})
    for name in calibration.columns[1:]:
        frame[name] = _from_scores(scores[name].to_numpy(), name, diagnosis, calibration)
    frame["BMI"] += profile.bmi
    _empty_cells(frame, band, diagnosis, calibration, rng)
    frame[["BMI", "Glucose"]] = frame[["BMI", "Glucose"]].round(1)
    frame["BloodPressure"] = frame["BloodPressure"].round(0)
    frame["TotalCost"] = frame["TotalCost"].clip(lower=0).round(2)
    frame["EncounterCount"] = frame["EncounterCount"].round().clip(1, 500).astype(np.int64)
    for name, most in (("MedicationCount", 400), ("ConditionCount", 60), ("ProcedureCount", 900)):
        # Whoever has a diagnosis has at least the condition that it comes from.
        least = (diagnosis != "Healthy").astype(np.int64) if name == "ConditionCount" else 0
        frame[name] = np.maximum(frame[name].round().clip(0, most).astype(np.int64), least)
    frame["Gender"] = np.where(male, "Male", "Female")
    frame["Diagnosis"] = diagnosis
    frame["EncounterType"] = _draw_types(diagnosis, scores["EncounterCount"].to_numpy(), calibration, rng)
    allergy = np.array([calibration.diagnoses[name].allergy_share for name in diagnosis])
    frame["HasAllergies"] = np.where(rng.random(size) < allergy, "Yes", "No")
    frame["dead"] = rng.random(size) < calibration.dead_share * age / age.mean()
    return frame


def draw_children(size: int, *, rng: np.random.Generator) -> pd.DataFrame:
    """Draws patients under 18, in the form of `draw_adults`: an export holds them, a table of adults does not."""
    frame = pd.DataFrame({"Age": rng.integers(0, 18, size)})
    frame["BMI"] = np.round(14 + frame["Age"] * 0.4 + rng.normal(0, 1.5, size), 1)
    frame["BloodPressure"] = np.round(rng.normal(105, 8, size))
    frame["Glucose"] = np.nan
    frame["EncounterCount"] = 3 + rng.poisson(10, size)
    frame["MedicationCount"] = rng.poisson(2, size)
    frame["ConditionCount"] = rng.poisson(3, size)
    frame["TotalCost"] = np.round(rng.lognormal(8, 1, size), 2)
    frame["ProcedureCount"] = rng.poisson(4, size)
    frame["Gender"] = rng.choice(["Male", "Female"], size)
    frame["Diagnosis"] = "Healthy"
    frame["EncounterType"] = "wellness"
    frame["HasAllergies"] = rng.choice(["Yes", "No"], size, p=[0.15, 0.85])
    frame["dead"] = False
    return frame


def _choose(weights: _Floats, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """One index a row, with probabilities proportional to the row's weights."""
    cumulative = np.cumsum(weights, axis=1)
    chosen: npt.NDArray[np.int64] = (rng.random((len(weights), 1)) * cumulative[:, -1:] > cumulative).sum(axis=1)
    return chosen


def _draw_ages(
    size: int, profile: HospitalProfile, calibration: Calibration, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], _Floats]:
    """The age band of each patient, and the age in years with its fraction."""
    starts = np.array([band.start for band in calibration.ages], dtype=np.float64)
    weights = np.array([band.share for band in calibration.ages]) * np.exp(profile.age_tilt * (starts - 50) / 10)
    band = _choose(np.tile(weights, (size, 1)), rng)
    width = np.append(np.diff(starts), np.nan)[band]
    within = np.where(np.isnan(width), rng.exponential(_OLDEST_BAND_MEAN, size), rng.random(size) * width)
    return band, np.minimum(starts[band] + within, _OLDEST)


def _draw_diagnoses(
    band: npt.NDArray[np.int64],
    male: npt.NDArray[np.bool_],
    profile: HospitalProfile,
    calibration: Calibration,
    rng: np.random.Generator,
) -> npt.NDArray[Any]:
    names = list(calibration.diagnoses)
    shares = np.array([[entry.diagnosis[name] for name in names] for entry in calibration.ages])
    ratio = np.array([[entry.male_to_female.get(name, 1.0) for name in names] for entry in calibration.ages])
    by_sex = np.stack([2 / (1 + ratio), 2 * ratio / (1 + ratio)])
    tilt = np.exp([profile.diagnosis_tilt.get(name, 0.0) for name in names])
    weights = shares[band] * by_sex[male.astype(np.int64), band] * tilt
    return np.array(names, dtype=object)[_choose(weights, rng)]


def _draw_scores(
    age: _Floats, diagnosis: npt.NDArray[Any], calibration: Calibration, rng: np.random.Generator
) -> pd.DataFrame:
    """Normal scores of every column but Age, given the rank of each patient's age among those of the diagnosis."""
    correlation = np.array(calibration.latent_correlation)
    group = pd.Series(age).groupby(diagnosis)
    of_age = ndtri((group.rank(method="first") - 0.5) / group.transform("size")).to_numpy()
    on_age = correlation[1:, 0]
    rest = np.linalg.cholesky(correlation[1:, 1:] - np.outer(on_age, on_age))
    scores = of_age[:, None] * on_age + rng.standard_normal((len(age), len(on_age))) @ rest.T
    return pd.DataFrame(scores, columns=list(calibration.columns[1:]))


def _from_scores(scores: _Floats, name: str, diagnosis: npt.NDArray[Any], calibration: Calibration) -> _Floats:
    """Values whose quantiles within each diagnosis are the calibrated ones; straight lines between and beyond them.

    Counts and costs are drawn on a logarithmic axis, for their tails. BloodPressure and Glucose follow the level
    itself, not the normal score: Synthea draws them evenly from an interval.
    """
    even = name in ("BloodPressure", "Glucose")
    position, knots = (ndtr(scores), _LEVELS) if even else (scores, ndtri(_LEVELS))
    values = np.empty(len(scores))
    for label, statistics in calibration.diagnoses.items():
        heights = np.array(statistics.quantiles[name])
        heights = np.log1p(heights) if name in _COUNTS else heights
        rows = diagnosis == label
        segment = np.clip(np.searchsorted(knots, position[rows]) - 1, 0, len(knots) - 2)
        slope = np.diff(heights)[segment] / np.diff(knots)[segment]
        values[rows] = heights[segment] + slope * (position[rows] - knots[segment])
    return np.expm1(values) if name in _COUNTS else values


def _empty_cells(
    frame: pd.DataFrame,
    band: npt.NDArray[np.int64],
    diagnosis: npt.NDArray[Any],
    calibration: Calibration,
    rng: np.random.Generator,
) -> None:
    """Empties BMI and BloodPressure together, and Glucose by diagnosis and age, in place."""
    unseen = rng.random(len(frame)) < [calibration.diagnoses[name].missing["BMI"] for name in diagnosis]
    frame.loc[unseen, ["BMI", "BloodPressure"]] = np.nan
    suspected = np.array([entry.prediabetes for entry in calibration.ages])
    measured = np.empty(len(frame))
    for label, statistics in calibration.diagnoses.items():
        weights = np.array([entry.share * entry.diagnosis[label] for entry in calibration.ages])
        factor = (1 - statistics.missing["Glucose"]) / np.average(suspected, weights=weights)
        measured[diagnosis == label] = factor * suspected[band[diagnosis == label]]
    frame.loc[rng.random(len(frame)) >= measured, "Glucose"] = np.nan


def _draw_types(
    diagnosis: npt.NDArray[Any], activity: _Floats, calibration: Calibration, rng: np.random.Generator
) -> npt.NDArray[Any]:
    """The most frequent class of each patient's encounters: the busier a patient, the more acute, with exceptions."""
    score = activity + rng.standard_normal(len(activity))
    types = np.empty(len(score), dtype=object)
    for label, statistics in calibration.diagnoses.items():
        rows = np.flatnonzero(diagnosis == label)
        shares = np.array([statistics.encounter_type.get(name, 0.0) for name in _BUSIER_LAST])
        level = (np.argsort(np.argsort(score[rows])) + rng.random(len(rows))) / max(len(rows), 1)
        index = np.searchsorted(np.cumsum(shares) / shares.sum(), level, side="right")
        types[rows] = np.array(_BUSIER_LAST, dtype=object)[np.minimum(index, len(_BUSIER_LAST) - 1)]
    return types
