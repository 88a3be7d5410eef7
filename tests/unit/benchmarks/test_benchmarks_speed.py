import json

import pytest

from benchmarks.speed.measures import MEASURES
from benchmarks.speed.report import markdown
from benchmarks.speed.steps import make_records, train_product, train_with_hooks

VERSIONS = {"aevorium commit": "abc", "torch": "2", "opacus": "1.6", "python": "3.11"}
FACTS = {"versions": VERSIONS, "cores": 2, "load_before": 0.5}


def steps(**seconds):
    ratios = {
        "private_to_plain": seconds["private"] / seconds["plain"],
        "hooks_to_private": seconds["hooks"] / seconds["private"],
    }
    return {"measure": "steps", **FACTS, "256": {"draws": 8, "seconds": seconds, **ratios}}


def test_ratios_stand_beside_the_times_they_are_of():
    text = markdown([steps(private=0.090, plain=0.060, hooks=0.180)])
    assert "| 256 | 8 | 90 | 60 | 180 | 1.50 | 2.00 |" in text
    assert "Aevorium abc" in text


def test_memory_leaves_empty_what_was_not_measured():
    found = {"private": {"256": 10.0, "4096": 12.0}, "plain": {"256": 5.0, "4096": 80.0}, "hooks": {"256": 300.0}}
    text = markdown([{"measure": "memory", **FACTS, "megabytes_above_a_batch_of_one": found}])
    assert "| private | 10 | 12 |" in text
    assert "| Opacus hooks | 300 |  |" in text


def test_every_measurement_has_a_section_in_a_fixed_order():
    run = {
        "measure": "runs", **FACTS, "table": "adult", "epsilon": 1.0, "rows": 100, "run_seconds": 50.0,
        "generate_seconds": 10.0, "surrogate_fit_seconds": 4.0, "surrogate": {"pairs": 7, "components": 60},
        "aim_seconds": 600.0, "aim_to_surrogate_fit": 150.0, "aim_to_whole_run": 10.0,
    }  # fmt: skip
    rates = {
        "rows_per_second": 1234.4, "fastest_rows_per_second": 1300.0, "rows_per_cpu_second": 900.0,
        "rows_per_cpu_second_without_start": 1500.0,
    }  # fmt: skip
    made = {
        "measure": "generation", **FACTS, "table": "adult", "epsilon": 1.0, "rows": 20000, "by_cores": {"2": rates}
    }  # fmt: skip
    text = markdown([made, run, steps(private=1.0, plain=1.0, hooks=1.0)])
    assert text.index("## A training step") < text.index("## adult, ε = 1, 100 rows")
    assert "| **AIM : surrogate fit** | **150** |" in text
    assert text.index("100 rows") < text.index("## Rows a second, model of adult, 20,000 rows")
    assert "| 2 | 1,234 | 1,300 | 900 | 1,500 |" in text
    assert set(MEASURES) == {"steps", "memory", "runs", "generation"}
    json.dumps(run)


@pytest.mark.parametrize("train", [lambda r: train_product(r, steps=1, draws=2, noise=1.0),
                                   lambda r: train_product(r, steps=1, draws=2, noise=0.0),
                                   lambda r: train_with_hooks(r, steps=1, draws=2, chunk=3)])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_every_kind_of_step_runs(train):
    train(make_records(5))
