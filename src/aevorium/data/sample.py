"""`aevorium data sample`: simulated hospitals as Synthea exports, so that a first run needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from aevorium.data.population import Calibration, HospitalProfile, draw_adults, draw_children, load_calibration
from aevorium.data.sample_export import export_tables
from aevorium.data.simulated import SIMULATED_FILE, is_simulated, looks_simulated
from aevorium.errors import ConfigError
from aevorium.workspace import write_atomically

__all__ = ["HOLDOUT_NAME", "HospitalSample", "is_simulated", "looks_simulated", "write_sample"]

HOLDOUT_NAME = "Holdout"
"""The folder of further patients, drawn from all the hospitals' profiles in proportion to their sizes."""

_ADULTS = (900, 700, 500)
_CHILDREN_PER_ADULT = 0.15
_MOST_HOSPITALS = 26
_HOLDOUT_STREAM = 1_000
_PROFILES = (
    HospitalProfile(),
    HospitalProfile(
        age_tilt=0.15, diagnosis_tilt={"HeartDisease": 0.3, "ChronicKidneyDisease": 0.5}, activity=0.1, bmi=-1.0
    ),
    HospitalProfile(age_tilt=-0.2, diagnosis_tilt={"Hypertension": 0.3, "Diabetes": 0.5}, activity=-0.1, bmi=1.0),
)
_NOTE = """# Simulated data

The tables in this folder were made by the sample generator of Aevorium (`aevorium data sample`, seed {seed}). They
describe no real person. Every patient id begins with `simulated-`, and everything made from them says so.
"""


@dataclass(frozen=True)
class HospitalSample:
    """A simulated export. Safe to release.

    Attributes:
        name: The hospital.
        directory: The export's folder.
        adults: Patients that make a row of the prepared table.
        children: Patients under 18, whom the loader refuses.
        is_holdout: Whether these patients belong to no hospital and serve to compare with.
    """

    name: str
    directory: Path
    adults: int
    children: int
    is_holdout: bool = False


def write_sample(
    directory: Path, *, seed: int, hospitals: int = 3, patients: Sequence[int] | None = None, holdout: int = 0
) -> list[HospitalSample]:
    """Writes one simulated export per hospital, each in a folder of its own.

    A hospital's patients depend on the seed, its place in the list and its size only. Hospitals differ: the second
    is older with more heart and kidney disease, the third younger with more diabetes and hypertension; further ones
    repeat these profiles.

    Args:
        directory: The folder to hold the exports, such as `data/csv`.
        seed: Determines everything.
        hospitals: How many, 1 to 26: Hospital_A, Hospital_B, and so on.
        patients: Adults per hospital; 900, 700, 500 and again when None.
        holdout: Adults of a further export `Holdout`; 0 for none.

    Returns:
        What was written, the holdout last.

    Raises:
        ConfigError: CONFIG_INVALID for a size below one or a list of another length; WORKSPACE_UNWRITABLE, also if
            a folder holds an export that is not simulated: it is left as it is.
    """
    sizes = _sizes(hospitals, patients)
    if holdout < 0:
        raise ConfigError("CONFIG_INVALID", f"Cannot simulate a holdout of {holdout} patients.")
    names = [f"Hospital_{chr(ord('A') + place)}" for place in range(hospitals)]
    for name in [*names, *([HOLDOUT_NAME] if holdout else [])]:
        _refuse_real_export(directory / name)
    calibration = load_calibration()
    profiles = [_PROFILES[place % len(_PROFILES)] for place in range(hospitals)]
    samples: list[HospitalSample] = []
    for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
        rng = np.random.default_rng([seed, place])
        adults = draw_adults(size, profile=profiles[place], calibration=calibration, rng=rng)
        samples.append(_write_export(adults, directory=directory / name, seed=seed, calibration=calibration, rng=rng))
    if holdout:
        rng = np.random.default_rng([seed, _HOLDOUT_STREAM])
        shares = rng.multinomial(holdout, np.array(sizes) / sum(sizes))
        drawn = [
            draw_adults(int(share), profile=profile, calibration=calibration, rng=rng)
            for profile, share in zip(profiles, shares, strict=True)
            if share
        ]
        mixed = pd.concat(drawn).sample(frac=1, random_state=rng)
        samples.append(
            _write_export(mixed, directory=directory / HOLDOUT_NAME, seed=seed, calibration=calibration, rng=rng)
        )
    return samples


def _sizes(hospitals: int, patients: Sequence[int] | None) -> list[int]:
    if not 1 <= hospitals <= _MOST_HOSPITALS:
        raise ConfigError(
            "CONFIG_INVALID", f"Cannot simulate {hospitals} hospitals. Between 1 and {_MOST_HOSPITALS} are possible."
        )
    if patients is None:
        return [_ADULTS[place % len(_ADULTS)] for place in range(hospitals)]
    if len(patients) != hospitals:
        raise ConfigError(
            "CONFIG_INVALID", f"Cannot simulate {hospitals} hospitals. Sizes are given for {len(patients)} of them."
        )
    if min(patients) < 1:
        raise ConfigError("CONFIG_INVALID", f"Cannot simulate a hospital of {min(patients)} patients.")
    return list(patients)


def _refuse_real_export(directory: Path) -> None:
    if any(directory.glob("*.csv*")) and not is_simulated(directory):
        raise ConfigError(
            "WORKSPACE_UNWRITABLE",
            f"Cannot write a sample to {str(directory)!r}. It holds tables that are not marked as simulated.",
            hint="Choose another folder.",
        )


def _write_export(
    adults: pd.DataFrame, *, directory: Path, seed: int, calibration: Calibration, rng: np.random.Generator
) -> HospitalSample:
    """Writes the folder, the mark first: no simulated table ever lies there without it."""
    children = draw_children(round(len(adults) * _CHILDREN_PER_ADULT), rng=rng)
    population = pd.concat([adults, children], ignore_index=True)
    tables = export_tables(population, hospital=directory.name, calibration=calibration, rng=rng)
    with write_atomically(directory / SIMULATED_FILE) as temporary:
        temporary.write_text(_NOTE.format(seed=seed), encoding="utf-8", newline="\n")
    for name, table in tables.items():
        with write_atomically(directory / f"{name}.csv") as temporary:
            _write_csv(table, temporary)
    return HospitalSample(
        directory.name, directory, len(adults), len(children), is_holdout=directory.name == HOLDOUT_NAME
    )


def _write_csv(table: pa.Table, path: Path) -> None:
    """Unquoted, as Synthea writes: no cell holds a comma."""
    options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
    with path.open("wb") as file:
        file.write((",".join(table.column_names) + "\n").encode())
        pa_csv.write_csv(table, file, write_options=options)
