"""Splitting one export into nodes by organisation, so that each patient is in exactly one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from aevorium.data.export import open_export
from aevorium.errors import ConfigError, DataError

__all__ = ["main_organisations", "split_by_organisation"]


def main_organisations(directory: Path) -> pd.Series:
    """The organisation that saw each patient most often; of equals, the one whose id sorts first.

    Reads patient records.

    Args:
        directory: An export, as for `aevorium.data.synthea.prepare_export`.

    Returns:
        Organisation ids by patient id, for every patient with an encounter.

    Raises:
        DataError: As `aevorium.data.export.open_export`.
    """
    columns = {"encounters": {name: (name,) for name in ("PATIENT", "ORGANIZATION")}}
    counts = pd.Series(dtype=np.int64)
    for batch in open_export(directory, columns=columns).batches("encounters"):
        seen = batch.to_pandas().groupby(["PATIENT", "ORGANIZATION"]).size()
        counts = seen if counts.empty else counts.add(seen, fill_value=0)
    if counts.empty:
        raise DataError("DATA_EMPTY", "The table 'encounters.csv' holds no rows. Its header is all there is.")
    ranked = counts.rename("count").reset_index()
    ranked = ranked.sort_values(["PATIENT", "count", "ORGANIZATION"], ascending=[True, False, True], kind="stable")
    return ranked.drop_duplicates("PATIENT").set_index("PATIENT")["ORGANIZATION"]


def split_by_organisation(frame: pd.DataFrame, *, organisations: pd.Series, parts: int) -> list[pd.DataFrame]:
    """Groups whole organisations into parts of similar size. Reads patient records.

    The largest organisation is placed first, always into the smallest part so far; the result depends on nothing
    but the input.

    Args:
        frame: A prepared table with a column PatientId.
        organisations: Organisation ids by patient id, as from `main_organisations`.
        parts: How many parts to make.

    Returns:
        The parts: every row of `frame` in exactly one, in its order.

    Raises:
        ConfigError: CONFIG_INVALID, if there are fewer organisations than parts, or fewer parts than one.
        DataError: DATA_UNREADABLE, if a patient has no organisation.
    """
    if parts < 1:
        raise ConfigError("CONFIG_INVALID", f"Cannot split into {parts} parts. At least one is needed.")
    of_row = frame["PatientId"].map(organisations)
    if of_row.isna().any():
        raise DataError(
            "DATA_UNREADABLE",
            f"Cannot split by organisation. {int(of_row.isna().sum()):,} patients have no encounter in the export.",
            hint="Prepare and split the same export.",
        )
    sizes = of_row.value_counts()
    if len(sizes) < parts:
        raise ConfigError(
            "CONFIG_INVALID",
            f"Cannot split into {parts} parts. Patients of the export belong to {len(sizes)} organisations only.",
            hint="Give a smaller --split.",
        )
    fill = [0] * parts
    part_of: dict[str, int] = {}
    for organisation in sorted(sizes.index, key=lambda name: (-sizes[name], name)):
        smallest = fill.index(min(fill))
        part_of[organisation] = smallest
        fill[smallest] += int(sizes[organisation])
    part = of_row.map(part_of)
    return [frame[part == number].reset_index(drop=True) for number in range(parts)]
