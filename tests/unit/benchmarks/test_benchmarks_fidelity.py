import json
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.fidelity import __main__ as command
from benchmarks.fidelity import methods
from benchmarks.fidelity.cells import EPSILONS, METHODS, STEPS, Cell, ablation, grid, select
from benchmarks.fidelity.comparison import comparison, write_comparison
from benchmarks.fidelity.methods import CellFailed, Made, OutOfTime, Runner
from benchmarks.fidelity.report import against_the_bar, csv_text, markdown
from benchmarks.fidelity.results import SCORES, Estimate, Result, Store, summarise
from benchmarks.fidelity.tables import load_table_schema, prepare, write_scored


def cell(**changes):
    return Cell(**{"table": "adult", "method": "mst", "epsilon": 1.0, "seed": 0, **changes})


def result(scores=None, *, status="done", reason="", **changes):
    known = {"delta": 1e-5, "rows": 10, "seconds": 3.0, "seconds_cpu": 2.0, "cores": 2, "threads": 1}
    filled = {} if status != "done" else {**dict.fromkeys(SCORES, 0.5), **(scores or {})}
    return Result(cell=cell(**changes), status=status, reason=reason, scores=filled, **known)


def test_no_two_cells_share_a_file(tmp_path):
    cells = [*grid(2), *ablation(2)]
    assert len({Store(tmp_path).path(one) for one in cells}) == len(cells)
    assert cell(epsilon=math.inf, trust="local").name == "mst_local_epsinf_seed0"


def test_the_grid_has_every_method_and_epsilon_and_finishes_a_seed_before_the_next():
    cells = grid(3)
    assert [one.seed for one in cells] == sorted(one.seed for one in cells)
    ours = {(one.epsilon, one.trust) for one in cells if one.method == "aevorium" and one.table == "adult"}
    assert ours == {(epsilon, trust) for epsilon in EPSILONS for trust in ("secure-aggregation", "local")}
    assert {one.method for one in cells} == set(METHODS) - {"aevorium-pretrained"}
    assert len([one for one in cells if one.method == "real"]) == 4, "the rows themselves have no seed"


def test_the_ablation_names_what_differs_in_each_cell():
    cells = {one.step: one for one in ablation(1, tables=["adult"])}
    assert set(cells) == {step.name for step in STEPS}
    assert {one.epsilon for one in ablation(1) if one.step == "3-full"} == {1.0, 10.0}
    assert {one.epsilon for one in ablation(1) if one.step.startswith("passes-")} == {math.inf}
    assert cells["no-pretraining"].settings == {"AEVORIUM_PRETRAINING_STEPS": "0"}
    assert cells["one-node"].is_pooled
    assert not cells["3-full"].is_pooled


def test_only_selects_by_all_parts_of_one_condition_and_any_of_several():
    chosen = select(grid(2), ["table=adult,method=mst|aim,epsilon=1,seed=0", "table=cardio,method=real"])
    assert [str(one) for one in chosen] == ["adult/mst_eps1_seed0", "adult/aim_eps1_seed0", "cardio/real_epsinf_seed0"]
    assert select(grid(1), ["epsilon=inf,method=ctgan,table=adult"])[0].epsilon == math.inf


@pytest.mark.parametrize("text", ["adult", "colour=red", "table=adult,seed"])
def test_a_condition_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="not possible"):
        select(grid(1), [text])


def test_a_result_is_read_as_it_was_written(tmp_path):
    written = result({"1way": 0.25}, epsilon=math.inf, settings={"AEVORIUM_SEED": "1"})
    store = Store(tmp_path)
    store.write(written)
    assert store.find(written.cell) == written
    assert store.everything() == [written]
    assert json.loads(store.path(written.cell).read_text())["cell"]["epsilon"] == "Infinity"


def test_a_killed_write_leaves_no_half_file(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr("pathlib.Path.write_text", lambda self, text, **_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.write(result())
    assert store.find(cell()) is None
    assert list(tmp_path.rglob("*.json")) == list(tmp_path.rglob("*.part")) == []


@pytest.fixture
def conducted(tmp_path, monkeypatch):
    """The command on a table of ten rows, with methods that take no time."""
    table = SimpleNamespace(rows=10, scored_train=tmp_path / "train.csv")
    ran, outcomes = [], {}

    class Workshop:
        def __init__(self, **_):
            pass

        def make(self, one, prepared, *, run):
            ran.append(str(one))
            outcome = outcomes.get(one.method)
            if outcome is not None:
                raise outcome
            return Made(rows=prepared.scored_train, epsilon=one.epsilon, versions={"made by": "a test"})

    monkeypatch.setattr(command, "Workshop", Workshop)
    monkeypatch.setattr(command, "prepare", lambda *_, **__: table)
    monkeypatch.setattr(command, "interpreter", lambda *_, **__: "python")
    monkeypatch.setattr(command, "versions", lambda _: {"sdmetrics": "1", "xgboost-cpu": "2", "scikit-learn": "3"})
    monkeypatch.setattr(command, "_score", lambda *_, **__: {"1way": 0.1, "missing_by_column": {"a": 2.0}})
    monkeypatch.setattr(command, "write_report", lambda *_, **__: None)

    def conduct(*flags):
        before = len(ran)
        folders = ["--data", str(tmp_path), "--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache")]
        assert command.main([*folders, *flags]) == 0
        return ran[before:]

    return SimpleNamespace(conduct=conduct, outcomes=outcomes, store=Store(tmp_path / "results"), cache=tmp_path)


_TWO = ("--seeds", "1", "--only", "table=adult,method=mst|aim,epsilon=1")


def test_finished_cells_are_not_run_again(conducted):
    assert conducted.conduct(*_TWO) == ["adult/mst_eps1_seed0", "adult/aim_eps1_seed0"]
    assert conducted.conduct(*_TWO) == []
    conducted.store.path(cell(method="aim")).unlink()
    assert conducted.conduct(*_TWO) == ["adult/aim_eps1_seed0"]
    assert len(conducted.conduct(*_TWO, "--again", "all")) == 2


def test_a_crash_is_written_down_and_the_rest_goes_on(conducted):
    conducted.outcomes["mst"] = CellFailed("exit status 1: MemoryError")
    assert len(conducted.conduct(*_TWO)) == 2
    found = conducted.store.find(cell())
    assert (found.status, found.reason, found.scores) == ("failed", "exit status 1: MemoryError", {})
    assert conducted.store.find(cell(method="aim")).scores == {"1way": 0.1}
    assert conducted.store.find(cell(method="aim")).missing_by_column == {"a": 2.0}
    assert conducted.conduct(*_TWO, "--again", "failed") == ["adult/mst_eps1_seed0"]
    assert list((conducted.cache / "cache" / "work").iterdir()) == []


def test_out_of_time_is_a_result(conducted):
    conducted.outcomes["aim"] = OutOfTime("did not finish in 5 s")
    conducted.conduct(*_TWO)
    assert conducted.store.find(cell(method="aim")).status == "timeout"
    assert "did not finish in 5 s" in markdown(summarise(conducted.store.everything()), results=[])


def test_a_command_is_ended_with_its_children_when_its_time_is_up(tmp_path):
    run = Runner(limit=2.0, threads=1, log=tmp_path / "log.txt")
    child = "while True: print('alive', flush=True); import time; time.sleep(0.02)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(OutOfTime, match="did not finish in 2 s"):
        run([sys.executable, "-c", parent])
    assert "alive\nalive" in run.log.read_text()
    written = run.log.stat().st_size
    time.sleep(0.3)
    assert run.log.stat().st_size == written
    assert run.seconds >= 2.0


def test_a_failed_command_tells_its_last_line_without_the_machines_folders(tmp_path):
    run = Runner(limit=60.0, threads=1, log=tmp_path / "log.txt")
    with pytest.raises(CellFailed, match=r"^exit status 3: \./x is not there$"):
        run([sys.executable, "-c", f"import sys; print({str(methods._ROOT)!r} + '/x is not there'); sys.exit(3)"])


def test_commands_see_no_setting_but_those_of_their_cell(monkeypatch):
    monkeypatch.setenv("AEVORIUM_PRETRAINING_STEPS", "3")
    monkeypatch.setenv("NUM_ROUNDS", "1")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    seen = methods.environment(threads=2, settings={"AEVORIUM_SEED": "4"})
    assert {name for name in seen if name.startswith("AEVORIUM_")} == {"AEVORIUM_SEED"}
    assert "NUM_ROUNDS" not in seen
    assert seen["PYTHONPATH"].startswith(str(methods._ROOT / "src"))
    assert seen["OMP_NUM_THREADS"] == "2"


def test_means_and_standard_errors_are_over_seeds_that_came_to_scores():
    results = [
        *(result({"2way": value}, seed=seed) for seed, value in enumerate([0.1, 0.2, 0.3])),
        result(seed=3, status="timeout", reason="did not finish in 5 s"),
        result({"2way": 0.7}, epsilon=10.0),
    ]
    three, one = summarise(results)
    assert three.seeds == 3
    assert three.scores["2way"].mean == pytest.approx(0.2)
    assert three.scores["2way"].error == pytest.approx(0.1 / math.sqrt(3))
    assert three.failures == ("did not finish in 5 s",)
    assert (one.epsilon, one.scores["2way"].mean) == (10.0, 0.7)
    assert math.isnan(one.scores["2way"].error)


def test_seeds_of_other_trust_step_or_epsilon_are_other_rows():
    results = [
        result(method="aevorium", trust="local"),
        result(method="aevorium", trust="secure-aggregation"),
        result(method="aevorium", trust="local", step="one-node"),
        result(method="aevorium", trust="local", epsilon=3.0),
    ]
    assert [row.seeds for row in summarise(results)] == [1, 1, 1, 1]


def _ours_and_peers(mine, peer):
    spread = (-0.01, 0.0, 0.01)
    ours = [
        result({"tstr": mine + d, "2way": mine + d}, method="aevorium", trust="secure-aggregation", seed=seed)
        for seed, d in enumerate(spread)
    ]
    peers = [result({"tstr": peer + d, "2way": peer + d}, method="aim", seed=seed) for seed, d in enumerate(spread)]
    return summarise([*ours, *peers])


@pytest.mark.parametrize(
    ("mine", "tstr", "two_way"),
    [(0.60, "better", "behind"), (0.505, "as good", "as good"), (0.40, "behind", "better")],
)
def test_the_bar_asks_for_more_than_a_standard_error_and_knows_which_way_is_better(mine, tstr, two_way):
    verdicts = {name: verdict for name, _, _, verdict in against_the_bar(_ours_and_peers(mine, 0.5))}
    assert (verdicts["tstr"], verdicts["2way"]) == (tstr, two_way)


def test_the_bar_takes_the_better_peer_for_each_score():
    rows = summarise(
        [
            result({"tstr": 0.8, "2way": 0.2}, method="aevorium", trust="secure-aggregation"),
            result({"tstr": 0.9, "2way": 0.4}, method="aim"),
            result({"tstr": 0.7, "2way": 0.1}, method="mst"),
        ]
    )
    told = {name: peer for name, _, peer, _ in against_the_bar(rows)}
    assert told["tstr"] == "0.900 (aim)"
    assert told["2way"] == "0.100 (mst)"


def test_the_table_shows_the_floor_at_every_epsilon_and_leaves_out_scores_that_no_row_has():
    without = {name: 0.5 for name in SCORES if not name.startswith("missing")}
    results = [
        result(method="real", epsilon=math.inf).model_copy(update={"scores": without}),
        *(result(epsilon=epsilon).model_copy(update={"scores": without}) for epsilon in (1.0, 10.0)),
    ]
    text = markdown(summarise(results), results=results)
    assert text.count("| real | 1 |") == 2
    assert "missing, mean" not in text
    assert "### adult, ε = 1\n" in text


def test_the_csv_has_a_value_and_an_error_for_each_score():
    lines = csv_text(summarise([result({"c2st": 0.8}, seed=0), result({"c2st": 0.6}, seed=1)])).splitlines()
    row = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert (row["c2st"], row["c2st_se"], row["seeds"], row["epsilon"]) == ("0.7", "0.1", "2", "1")
    assert Estimate.of([0.8, 0.6]).error == pytest.approx(0.1)


def _write_synthea(folder):
    generator = np.random.default_rng(0)
    rows = 40
    frame = pd.DataFrame({name: generator.integers(0, 100, rows) for name in load_table_schema("synthea").measured})
    frame["Glucose"] = ["" if number % 2 else "90" for number in range(rows)]
    frame["Gender"], frame["Diagnosis"], frame["HasAllergies"] = "Male", "Healthy", "No"
    frame["EncounterType"], frame["RiskLevel"] = "wellness", "Low"
    frame["Hospital"] = [f"H{number % 7 + 1 if number % 7 < 6 else 9}_Town" for number in range(rows)]
    (folder / "tables").mkdir(parents=True)
    frame.to_csv(folder / "tables" / "synthea.csv", index=False)


def test_nodes_share_the_training_rows_and_no_row_is_also_held_out(tmp_path):
    _write_synthea(tmp_path / "data")
    table = prepare("synthea", data=tmp_path / "data", folder=tmp_path / "files")
    parts = [pd.read_csv(path) for path in table.nodes.values()]
    held = pd.read_csv(table.scored_holdout)
    assert sorted(table.nodes) == [f"h{number}_town" for number in range(1, 7)]
    assert sum(map(len, parts)) == table.rows == len(pd.read_csv(table.pooled)) == len(pd.read_csv(table.scored_train))
    assert len(held) == round(0.2 * (table.rows + len(held)))
    again = prepare("synthea", data=tmp_path / "data", folder=tmp_path / "other")
    assert again.scored_holdout.read_text() == table.scored_holdout.read_text()


def test_scored_rows_are_within_the_schema_and_hold_no_derived_column_but_the_target(tmp_path):
    schema = load_table_schema("heart_disease")
    row = {
        name: column.categories[0] if column.kind == "categorical" else "60" for name, column in schema.measured.items()
    }
    rows = pd.DataFrame([row, {**row, "age": "400", "num": "3", "chol": ""}])
    write_scored(rows, schema, path=tmp_path / "scored.csv")
    scored = pd.read_csv(tmp_path / "scored.csv")
    assert list(scored.columns) == [*schema.measured, "target"]
    assert scored["target"].tolist() == [0, 1]
    assert scored["age"].tolist() == [60, 100]
    assert scored["chol"].isna().tolist() == [False, True]


def test_the_readme_says_what_the_results_say():
    root = Path(command.__file__).parents[2]
    rows = summarise(Store(root / "benchmarks" / "fidelity" / "results").everything())
    assert comparison(rows) in (root / "README.md").read_text(encoding="utf-8")


def test_the_best_score_of_a_table_is_bold(tmp_path):
    ours = result({"c2st": 0.6, "tstr": 0.8}, method="aevorium", trust="secure-aggregation")
    rows = summarise([ours, result({"c2st": 0.7, "tstr": 0.9})])
    ours, theirs = comparison(rows).splitlines()[2:]
    assert "**0.600**" in ours
    assert "| 0.800 |" in ours
    assert "| 0.700 |" in theirs
    assert "**0.900**" in theirs
    page = tmp_path / "page.md"
    page.write_text("no place for it", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for the table"):
        write_comparison(page, rows)
    assert page.read_text(encoding="utf-8") == "no place for it"
