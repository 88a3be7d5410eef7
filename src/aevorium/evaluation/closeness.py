"""What `risk` measured, as scores: alarms that copying was noticed, never a claim of privacy. Not for release."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aevorium.evaluation import risk
from aevorium.evaluation.score import Score, Verdict

__all__ = ["closeness_scores"]

_SHARE_LIMIT = 0.55
_TOO_FEW = f"It needs at least {risk.MIN_NEIGHBOUR_ROWS} rows of each table."


def closeness_scores(
    *, synthetic: pd.DataFrame, train: pd.DataFrame, holdout: pd.DataFrame | None, rng: np.random.Generator
) -> tuple[risk.ClosestRecords | None, list[Score]]:
    """Distance to closest record, nearest-neighbour ratio, exact matches. Reads patient records.

    Args:
        synthetic: Typed frame of generated rows.
        train: Typed frame of the rows trained on.
        holdout: Typed frame of rows not trained on; without it nothing says what is normal.
        rng: Draws rows.
    """
    closest = None
    if holdout is None:
        first = Score.skipped("dcr_share", "It needs a holdout.")
    else:
        closest = risk.closest_records(synthetic=synthetic, train=train, holdout=holdout, rng=rng)
        first = Score.skipped("dcr_share", _TOO_FEW) if closest is None else _share_score(closest)
    ratio = risk.neighbour_ratio(synthetic=synthetic, train=train, holdout=holdout, rng=rng)
    second = Score.skipped("nndr", _TOO_FEW) if ratio is None else _ratio_score(ratio)
    return closest, [first, second, _match_score(risk.exact_matches(synthetic=synthetic, train=train, holdout=holdout))]


def _share_score(found: risk.ClosestRecords) -> Score:
    low = found.interval[0]
    verdict: Verdict = "do not use" if low > _SHARE_LIMIT else "usable" if low > 0.5 else "info"
    noticed = "Synthetic rows lean towards training rows." if low > 0.5 else "No leaning to training rows was noticed."
    return Score(
        "dcr_share",
        found.share,
        f"{noticed} {found.rows:,} rows of each were compared; this is an alarm, not a proof of privacy.",
        found.interval,
        0.5,
        "as close to both",
        verdict,
    )


def _ratio_score(found: risk.NeighbourRatio) -> Score:
    return Score(
        "nndr",
        found.synthetic,
        "Near 0 the closest 5% of synthetic rows each point at one training row; near 1 at none in particular.",
        reference=found.holdout,
        reference_name="" if found.holdout is None else "holdout rows",
    )


def _match_score(found: risk.ExactMatches) -> Score:
    share, expected = found.holdout_share, found.holdout_interval
    is_alarm = expected is not None and found.interval[0] > expected[1]
    reading = f"{found.synthetic:,} of {found.synthetic_rows:,} synthetic rows equal a training row in every column"
    reading += "." if share is None else f"; {found.holdout:,} of {found.holdout_rows:,} holdout rows do."
    return Score(
        "exact_matches",
        found.share,
        reading,
        found.interval,
        share,
        "" if share is None else "holdout rows",
        "do not use" if is_alarm else "info",
    )
