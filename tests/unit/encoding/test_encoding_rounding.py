"""Rounding: counted in one cell a record, found where counts tell it, and kept by what is generated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import column_grid
from aevorium.encoding.rounding import count_roundings, find_rounding, roundings_in_total, split_roundings
from aevorium.encoding.statistics import TableStatistics, count_cells
from aevorium.encoding.steps import Step, is_step_of, rounding_steps
from aevorium.errors import ArtefactError
from aevorium.schema.table import Continuous, TableSchema

TENTH = Step(digits=1, exponent=-1)


def _schema(low: float, high: float, *, integer: bool = False, missing: bool = False) -> TableSchema:
    column = {"kind": "continuous", "min": low, "max": high, "integer": integer, "missing": missing}
    return TableSchema.model_validate({"name": "t", "columns": {"x": column}})


def _column(schema: TableSchema) -> Continuous:
    return schema.numbers["x"]


def _fitted(
    values: np.ndarray, schema: TableSchema, *, bins: int, noise: float, rounding_noise: float, seed: int = 0
) -> TableEncoder:
    draws, frame = np.random.default_rng(seed), pd.DataFrame({"x": values})
    cells, roundings = count_cells(frame, schema, bins=bins), count_roundings(frame, schema)
    cells = cells + np.rint(draws.normal(0, noise, len(cells))).astype(np.int64)
    roundings = roundings + np.rint(draws.normal(0, rounding_noise, len(roundings))).astype(np.int64)
    statistics = TableStatistics.from_sum(cells, schema, bins=bins, noise=noise)
    statistics = statistics.with_roundings(roundings, schema, noise=rounding_noise)
    assert TableStatistics.from_json(statistics.to_json()).to_json() == statistics.to_json()
    encoder = TableEncoder.fit(statistics, schema, total=len(values))
    assert encoder.problem(schema, bins=bins) is None
    return encoder


def _made(encoder: TableEncoder, schema: TableSchema, *, rows: int = 20_000) -> np.ndarray:
    z = np.random.default_rng(1).standard_normal((rows, 1)).astype(np.float32)
    return encoder.decode(z, np.zeros((rows, int(_column(schema).missing)), np.int64), schema)["x"].to_numpy()


def _creatinine(rows: int, *, seed: int = 0) -> np.ndarray:
    return np.clip(np.round(np.random.default_rng(seed).gamma(8, 0.15, rows), 1), 0.4, 19.9)


ANY_NUMBERS = st.lists(st.one_of(st.floats(-50, 1e6), st.just(float("nan"))), min_size=1, max_size=20)


@given(ANY_NUMBERS, st.integers(0, 19))
def test_a_record_is_in_exactly_one_cell_of_a_column_of_numbers(values: list[float], place: int) -> None:
    """The sensitivity that is charged: with one record fewer, one cell is smaller by one and no other changes."""
    schema = TableSchema.model_validate(
        {
            "name": "t",
            "columns": {
                "x": {"kind": "continuous", "min": -50, "max": 1e6, "missing": True},
                "k": {"kind": "categorical", "categories": ["a", "b"]},
                "y": {"kind": "continuous", "min": 0, "max": 90, "integer": True},
            },
        }
    )
    frame = pd.DataFrame({"x": values, "k": "a", "y": np.arange(len(values), dtype=np.float64)})
    counts = count_roundings(frame, schema)
    assert len(counts) == roundings_in_total(schema)
    change = counts - count_roundings(frame.drop(index=place % len(values)), schema)
    for part in split_roundings(change, schema).values():
        assert sorted(part.tolist())[-1] == 1
        assert np.abs(part).sum() == 1


def test_a_table_without_numbers_has_no_cells() -> None:
    schema = TableSchema.model_validate(
        {"name": "t", "columns": {"k": {"kind": "categorical", "categories": ["a", "b"]}}}
    )
    assert count_roundings(pd.DataFrame({"k": ["a"]}), schema).tolist() == []
    assert split_roundings(np.empty(0, np.int64), schema) == {}


def test_numbers_are_counted_by_the_roundest_step_and_what_tells_nothing_apart() -> None:
    schema = _schema(0, 20, missing=True)
    frame = pd.DataFrame({"x": [1.3, 1.25, 7.5, 4.0, 3.0, 10.0, 0.0, 20.0, np.nan, np.float32(0.92), 1 / 3]})
    counts = split_roundings(count_roundings(frame, schema), schema)["x"]
    sizes = [step.size for step in rounding_steps(_column(schema))]
    found = {size: int(count) for size, count in zip(["untold", *sizes, "off"], counts, strict=True) if count}
    assert found == {"untold": 3, 10.0: 1, 2.5: 1, 2.0: 1, 1.0: 1, 0.25: 1, 0.1: 1, 0.02: 1, "off": 1}


@given(st.sampled_from([1, 2, 5, 25]), st.integers(-6, 4), st.integers(-9_999, 99_999))
def test_multiples_are_the_very_numbers_that_a_file_holds(digits: int, exponent: int, number: int) -> None:
    made = Step(digits=digits, exponent=exponent).multiples(np.array([number]))[0]  # type: ignore[arg-type]
    assert made == float(f"{number * digits}e{exponent}")


@pytest.mark.parametrize(("bins", "noise"), [(96, 12.0), (117, 12.0), (40, 30.0)])
def test_a_lab_of_one_decimal_keeps_it_where_bins_hide_it(bins: int, noise: float) -> None:
    values, schema = _creatinine(1_500), _schema(0, 25)
    made = _made(_fitted(values, schema, bins=bins, noise=noise, rounding_noise=15.0), schema)
    assert (made == np.round(made, 1)).all()
    # Beside the bounds, every number that many have is made: 0.8 to 1.6 have more than 50 each.
    often = np.unique(values)[np.unique(values, return_counts=True)[1] > 50]
    assert np.isin(often, made).all()


def test_a_lab_of_one_decimal_has_other_numbers_without_the_counts() -> None:
    """What the test above would miss if a histogram showed as much."""
    values, schema = _creatinine(1_500), _schema(0, 25)
    counts = count_cells(pd.DataFrame({"x": values}), schema, bins=96)
    encoder = TableEncoder.fit(TableStatistics.from_sum(counts, schema, bins=96, noise=12.0), schema, total=1_500)
    made = _made(encoder, schema)
    assert (made == np.round(made, 1)).mean() < 0.5


def test_heaps_have_their_share_of_the_numbers_and_the_others_theirs() -> None:
    """Of 4,000 pressures half are rounded to tens; bins are seven wide. By chance a share is off by .008."""
    draws = np.random.default_rng(3)
    exact = np.round(draws.normal(130, 18, 4_000))
    values = np.where(draws.random(4_000) < 0.5, np.round(exact / 10) * 10, exact)
    schema = _schema(60, 260, integer=True)
    encoder = _fitted(values, schema, bins=30, noise=8.0, rounding_noise=20.0)
    made = _made(encoder, schema)
    assert encoder.columns["x"].step == Step(digits=1, exponent=0)
    for step in (10, 5, 2):
        assert (made % step == 0).mean() == pytest.approx((values % step == 0).mean(), abs=0.05)
    assert len(np.unique(made)) > 60


def test_prices_that_end_in_nines_and_measurements_are_left_where_they_are() -> None:
    schema = _schema(0, 10)
    for values in (np.random.default_rng(1).uniform(0.1, 9.9, 5_000), np.random.default_rng(2).gamma(2, 1, 5_000)):
        encoder = _fitted(np.clip(values, 0, 10), schema, bins=60, noise=5.0, rounding_noise=20.0)
        assert encoder.columns["x"].step is None
        assert encoder.columns["x"].spikes == ()


def test_a_part_that_is_not_rounded_stays_so() -> None:
    draws = np.random.default_rng(4)
    exact = draws.uniform(0.2, 9.8, 5_000)
    values = np.where(draws.random(5_000) < 0.6, np.round(exact * 2) / 2, exact)
    schema = _schema(0, 10)
    encoder = _fitted(values, schema, bins=29, noise=8.0, rounding_noise=20.0)
    made = _made(encoder, schema)
    assert encoder.columns["x"].step is None
    assert (made * 2 % 1 == 0).mean() == pytest.approx(0.6, abs=0.05)


def test_a_frequent_number_is_no_sign_of_others_that_are_round() -> None:
    """A third of the doses is 120: the step of 20 has no share beside it, however the noise falls."""
    draws, schema = np.random.default_rng(0), _schema(0, 500)
    doses = np.where(np.arange(4_500) % 3 == 0, 120.0, np.clip(draws.gamma(3, 40, 4_500), 0, 500).round(2))
    for seed in range(300):
        encoder = _fitted(doses, schema, bins=100, noise=4.6, rounding_noise=10.8, seed=seed)
        assert [spike.value for spike in encoder.columns["x"].spikes] == [120], f"seed {seed}"


def _years(rows: int) -> np.ndarray:
    """Years in five bins of 15 or 16: two fifths in the fourth, from 1992 to 2006, and few in each beside it."""
    draws = np.random.default_rng(5)
    starts, lengths = np.array([1946, 1961, 1976, 1992, 2007]), np.array([15, 15, 16, 15, 4])
    place = draws.choice(5, rows, p=[0.24, 0.23, 0.06, 0.42, 0.05])
    return (starts[place] + draws.integers(0, lengths[place])).astype(float)


def test_a_heap_of_years_in_one_bin_is_not_taken_for_its_roundest_year() -> None:
    years, schema = _years(2_400), _schema(1500, 2500, integer=True)
    for seed in range(50):
        encoder = _fitted(years, schema, bins=65, noise=10.0, rounding_noise=20.0, seed=seed)
        made = _made(encoder, schema)
        assert (made == 2_000).mean() < 0.1, f"seed {seed}"
        assert ((made >= 1_992) & (made <= 2_006)).mean() == pytest.approx(0.42, abs=0.04), f"seed {seed}"


def test_a_year_that_two_fifths_share_is() -> None:
    years, schema = _years(2_400), _schema(1500, 2500, integer=True)
    years[(years >= 1_992) & (years <= 2_006)] = 2_000
    for seed in range(50):
        encoder = _fitted(years, schema, bins=65, noise=10.0, rounding_noise=20.0, seed=seed)
        # As many as its neighbours have are taken for other years.
        assert 0.3 < (_made(encoder, schema) == 2_000).mean() < 0.45, f"seed {seed}"


@pytest.mark.parametrize("seed", range(40))
def test_noise_alone_says_nothing(seed: int) -> None:
    """A column whose records are all missing: what is left of them is the noise of one cell, far below ten of it."""
    column = _column(_schema(0, 20))
    counts = np.rint(np.random.default_rng(seed).normal(0, 50, len(rounding_steps(column)) + 2)).astype(np.int64)
    counts[0] += 1_000
    assert find_rounding(counts, column, noise=50.0, total=1_000.0) is None


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("bins", [24, 60, 300])
def test_records_on_a_step_are_encoded_and_found_again(integer: bool, bins: int) -> None:
    size = 5 if integer else 0.1
    draws = np.random.default_rng(5)
    values = np.round(np.round(draws.gamma(4, 7 * size, 3_000) / size) * size, 1)
    schema = _schema(0, 200 * size, integer=integer)
    values = np.clip(values, 0, 200 * size)
    encoder = _fitted(values, schema, bins=bins, noise=3.0, rounding_noise=10.0)
    step = encoder.columns["x"].step
    assert step is not None
    assert step.size == size
    arrays = encoder.encode(pd.DataFrame({"x": values}), schema, generator=np.random.default_rng(0))
    back = encoder.decode(arrays.values, arrays.codes, schema)["x"].to_numpy()
    # Records beyond the support are encoded as if at its end.
    assert (back == values).mean() > 0.99
    assert (np.abs(back - values) < 20 * size).all()


def test_a_record_off_the_step_is_encoded_like_its_neighbours() -> None:
    """Noise may hide a few: a node must encode them all the same, whatever they are."""
    schema = _schema(0, 25)
    encoder = _fitted(_creatinine(3_000), schema, bins=96, noise=5.0, rounding_noise=10.0)
    odd = np.array([0.0, 1.234567, 1.25, 1.2, 24.99, 25.0])
    arrays = encoder.encode(pd.DataFrame({"x": odd}), schema, generator=np.random.default_rng(0))
    assert np.isfinite(arrays.values).all()
    back = encoder.decode(arrays.values, arrays.codes, schema)["x"].to_numpy()
    assert np.abs(back[1:4] - odd[1:4]).max() < 0.3


@pytest.mark.parametrize(
    "wrong", [Step(digits=1, exponent=-20), Step(digits=5, exponent=9), Step(digits=5, exponent=-1)]
)
def test_a_node_refuses_a_step_that_its_column_cannot_have(wrong: Step) -> None:
    """A step of a half is no step of whole numbers; one of 1e-20 has more multiples than a computer counts."""
    schema = _schema(0, 20, integer=True)
    assert not is_step_of(wrong, _column(schema))
    encoder = _fitted(np.arange(1.0, 20.0), schema, bins=20, noise=0.0, rounding_noise=0.0)
    code = encoder.columns["x"].model_copy(update={"step": wrong})
    changed = encoder.model_copy(update={"columns": {"x": code}})
    assert changed.problem(schema, bins=20) is not None
    with pytest.raises(ArtefactError) as refused:
        TableEncoder.from_json(changed.to_json(), schema)
    assert refused.value.code == "CHECKPOINT_OUTDATED"


@given(
    st.lists(st.integers(-50, 400), min_size=38, max_size=38),
    st.sampled_from([(0.0, 20.0, False), (-5.0, 7.0, False), (0.0, 90.0, True), (3.0, 3.0, False)]),
)
def test_whatever_the_counts_are_an_encoder_fits_its_schema(
    counts: list[int], bounds: tuple[float, float, bool]
) -> None:
    schema = _schema(bounds[0], bounds[1], integer=bounds[2])
    cells = np.full(column_grid(_column(schema), bins=24).cells, 20)
    roundings = np.resize(np.array(counts), roundings_in_total(schema))
    statistics = TableStatistics.from_sum(cells, schema, bins=24, noise=2.0).with_roundings(
        roundings, schema, noise=2.0
    )
    encoder = TableEncoder.fit(statistics, schema, total=float(cells.sum()))
    assert encoder.problem(schema, bins=24) is None
    made = _made(encoder, schema, rows=50)
    assert (made >= bounds[0]).all()
    assert (made <= bounds[1]).all()


@pytest.mark.parametrize(("high", "bins"), [(10, 52), (20, 102), (7, 40)])
def test_edges_of_bins_move_no_multiple_and_all_of_a_bin_are_as_frequent(high: int, bins: int) -> None:
    """An edge of 0.6000000000000001 has 0.6 below it. 80,000 numbers: a tenth's own chance is 4 % of it at most."""
    values = np.round(np.random.default_rng(6).integers(1, 10 * high, 80_000) / 10, 1)
    schema = _schema(0, high)
    encoder = _fitted(values, schema, bins=bins, noise=0.0, rounding_noise=0.0)
    arrays = encoder.encode(pd.DataFrame({"x": values}), schema, generator=np.random.default_rng(0))
    assert (encoder.decode(arrays.values, arrays.codes, schema)["x"].to_numpy() == values).mean() > 0.9999
    numbers, often = np.unique(_made(encoder, schema, rows=80_000), return_counts=True)
    # The bound has a bin of its own, which is empty.
    assert numbers.tolist() == np.unique(values).tolist()
    assert np.abs(often / often.mean() - 1).max() < 0.2


@pytest.mark.parametrize("noise", [15.0, 40.0])
def test_whole_numbers_in_bins_of_their_own_are_multiples_too(noise: float) -> None:
    values = np.clip(np.round(np.random.default_rng(7).normal(100, 30, 3_000) / 10) * 10, 10, 190)
    schema = _schema(0, 200, integer=True)
    made = _made(_fitted(values, schema, bins=256, noise=noise, rounding_noise=20.0), schema)
    assert (made % 10 == 0).mean() > 0.999


@pytest.mark.parametrize(
    ("low", "high", "integer"),
    [
        (0.0, 0.0, False), (0.0, 0.0, True), (0.0, 1e301, False), (-5e-324, 0.0, False), (0.0, 1e19, True),
        (-1e300, 1e299, False), (0.0, 1e-30, False), (-3.0, -2.0, False), (-(2.0**53), 2.0**53, True),
    ],
)  # fmt: skip
def test_bounds_of_any_size_are_counted_and_kept(low: float, high: float, integer: bool) -> None:
    schema = _schema(low, high, integer=integer)
    values = np.random.default_rng(8).uniform(0, 1, 200) * (high - low) + low
    values = np.clip(np.round(values) if integer else values, low, high)
    encoder = _fitted(values, schema, bins=24, noise=2.0, rounding_noise=2.0)
    arrays = encoder.encode(pd.DataFrame({"x": values}), schema, generator=np.random.default_rng(0))
    assert np.isfinite(arrays.values).all()
    made = _made(encoder, schema, rows=200)
    assert ((made >= low) & (made <= high)).all()


def test_a_narrow_column_far_from_zero_keeps_its_decimals() -> None:
    values = np.round(1e9 + np.random.default_rng(9).uniform(0.01, 0.99, 2_000), 2)
    schema = _schema(1e9, 1e9 + 1)
    encoder = _fitted(values, schema, bins=24, noise=3.0, rounding_noise=10.0)
    made = _made(encoder, schema)
    assert len(np.unique(np.round(made, 2))) > 90


@pytest.mark.parametrize(
    ("high", "integer", "size"), [(1e8, True, 1.0), (1e7, True, 1.0), (1e6, False, 0.1), (1e7, False, 0.1)]
)
def test_small_numbers_of_a_wide_column_are_multiples_of_no_large_step(high: float, integer: bool, size: float) -> None:
    """A tenth is a ten-millionth of a step of a million: not none of them."""
    rng = np.random.default_rng(2)
    small = rng.integers(1, 40, 20_000) * size
    values = np.where(rng.random(20_000) < 0.5, 0.0, np.round(small, 1))
    schema = _schema(0, high, integer=integer)
    encoder = _fitted(values, schema, bins=200, noise=3.0, rounding_noise=3.0)
    step = encoder.columns["x"].step
    assert step is not None
    assert step.size == size
    made = _made(encoder, schema)
    assert abs((made == 0).mean() - 0.5) < 0.03


def test_a_vector_of_another_length_is_refused() -> None:
    schema = _schema(0, 10)
    statistics = TableStatistics.from_sum(
        count_cells(pd.DataFrame({"x": [1.0]}), schema, bins=24), schema, bins=24, noise=0.0
    )
    right = count_roundings(pd.DataFrame({"x": [1.0]}), schema)
    for wrong in (right[:-1], np.append(right, 0)):
        with pytest.raises(ValueError, match="counts by rounding"):
            statistics.with_roundings(wrong, schema, noise=0.0)
