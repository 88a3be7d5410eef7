"""The size and length of a fit, by the public rule of docs/RECIPE.md."""

import pytest

from aevorium.surrogate.mixture import FitSettings


@pytest.mark.parametrize(
    ("tables", "components", "steps"), [(0, 1, 0), (1, 60, 400), (30, 120, 480), (74, 296, 1184), (500, 300, 1200)]
)
def test_large_fits_take_more_steps(tables: int, components: int, steps: int) -> None:
    assert FitSettings.for_tables(tables) == FitSettings(components=components, steps=steps)
