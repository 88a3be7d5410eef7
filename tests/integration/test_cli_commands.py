"""Commands that need no federation: schemas, sample, preparation, plan, key, doctor."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from aevorium.cli.app import main
from aevorium.cli.commands import doctor
from aevorium.governance.keys import load_or_create_keys
from aevorium.privacy.mechanisms import OsNoise
from aevorium.schema.table import TableSchema


def _answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0) -> Any:
    assert main([*map(str, arguments), "--json", "--quiet"]) == status
    answer = json.loads(capsys.readouterr().out)
    return answer["data"] if status == 0 else answer["error"]


def test_schemas_are_listed_shown_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (listed,) = _answer(capsys, "schema", "list")["schemas"]
    assert (listed["name"], listed["columns"], listed["measured"]) == ("synthea", 14, 13)
    assert main(["schema", "show", "synthea", "--toml"]) == 0
    own = tmp_path / "own.toml"
    own.write_text(capsys.readouterr().out, encoding="utf-8")
    assert TableSchema.from_toml(own.read_text(encoding="utf-8"), source="own").name == "synthea"
    assert _answer(capsys, "schema", "check", own)["content_hash"] == listed["content_hash"]
    shown = _answer(capsys, "schema", "show", own)["schema"]
    assert shown["columns"]["Age"]["max"] == 90
    assert main(["schema", "show"]) == 0
    assert "18 to 90" in capsys.readouterr().out
    own.write_text(own.read_text(encoding="utf-8").replace("max = 90", "max = 9", 1), encoding="utf-8")
    assert _answer(capsys, "schema", "check", own, status=2)["code"] == "SCHEMA_INVALID"
    assert _answer(capsys, "schema", "check", tmp_path / "none.toml", status=2)["code"] == "SCHEMA_NOT_FOUND"


def test_from_sample_to_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = _answer(
        capsys, "data", "sample", "--output-dir", tmp_path, "--hospitals", 2, "--patients", 60, "--holdout", 20
    )
    assert [(entry["adults"], entry["is_holdout"]) for entry in made["exports"]] == [
        (60, False),
        (60, False),
        (20, True),
    ]
    export = Path(made["exports"][0]["path"])
    output = tmp_path / "a.csv"
    answer = _answer(capsys, "data", "prepare", "--synthea", export, "--output", output)
    assert answer["is_simulated"] is True
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == answer["tables"][0]["rows"] == 60
    checked = _answer(capsys, "schema", "check", "synthea", "--data", output)
    assert any("60 rows read" in line for line in checked["findings"])
    assert not any("duplicates" in line for line in checked["findings"])
    generated = tmp_path / "generated.csv"
    with generated.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "PatientId"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    checked = _answer(capsys, "schema", "check", "synthea", "--data", generated)
    assert "has no PatientId column: duplicates were not looked for" in checked["findings"][0]
    parts = _answer(capsys, "data", "prepare", "--synthea", export, "--split", 2, "--output-dir", tmp_path / "parts")
    assert [Path(part["path"]).name for part in parts["tables"]] == ["part_1.csv", "part_2.csv"]
    assert sum(part["rows"] for part in parts["tables"]) == 60
    early = _answer(
        capsys, "data", "prepare", "--synthea", export, "--output", output, "--reference-date", "1800-01-01", status=1
    )
    assert early["code"] == "DATA_EMPTY"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--output", "a.csv", "--split", "2"],
        ["--split", "2"],
        ["--output-dir", "parts"],
        ["--output", "a.csv", "--output-dir", "parts"],
        ["--output", "a.csv", "--reference-date", "yesterday"],
    ],
)
def test_preparation_asks_where_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    error = _answer(capsys, "data", "prepare", "--synthea", tmp_path, *arguments, status=2)
    assert error["code"] == "CONFIG_INVALID"


def test_findings_are_text_for_the_owner_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _answer(capsys, "data", "sample", "--output-dir", tmp_path, "--hospitals", 1, "--patients", 30)
    export = tmp_path / "Hospital_A"
    assert main(["data", "prepare", "--synthea", str(export), "--output", str(tmp_path / "a.csv")]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'a.csv'}: 30 rows\n"
    assert "Patients kept: 30 of" in captured.err
    (export / "allergies.csv").unlink()
    error = _answer(capsys, "data", "prepare", "--synthea", export, "--output", tmp_path / "b.csv", status=1)
    assert (error["code"], "allergies.csv" in error["message"]) == ("SYNTHEA_INCOMPLETE", True)
    assert not (tmp_path / "b.csv").exists()


def test_a_plan_costs_what_is_asked_and_reads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ["plan", "--schema", "synthea", "--epsilon", "3", "--delta", "1e-5", "--records", "2000", "--nodes", "2"]
    answer = _answer(capsys, *fixed)
    assert (answer["epsilon"], answer["delta"], answer["is_private"]) == (3.0, 1e-5, True)
    assert max(phase["epsilon"] for phase in answer["phases"]) < 3.0 < sum(p["epsilon"] for p in answer["phases"])
    assert main(["plan", "--records", "2000", "--nodes", "1", "--noise-multiplier", "0.3", "--recipe", "dp-sgd"]) == 0
    captured = capsys.readouterr()
    # The first specification's noise, batch, epochs and rounds: the contract names what they cost.
    assert "ε = 33" in captured.err
    assert "Together: ε = 33" in captured.out


def test_a_plan_is_varied_in_one_thing_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ["plan", "--records", "2000", "--nodes", "2", "--epochs", "1", "--epsilon", "3"]
    changes = [
        "--what-if",
        "epsilon=1,inf",
        "--what-if",
        "nodes=8",
        "--what-if",
        "records=500",
        "--what-if",
        "trust=local",
    ]
    answer = _answer(capsys, *fixed, *changes)
    asked, *others = answer["what_if"]
    assert asked["change"] is None
    names = ["epsilon=1", "epsilon=inf", "nodes=8", "records=500", "trust=local"]
    assert [row["change"] for row in others] == names
    less, without, many, few, same = others
    assert {**same, "change": None} == asked
    assert [(row["epsilon"], row["nodes"], row["records"]) for row in (less, many, few)] == [
        (1.0, 2, 2000), (3.0, 8, 2000), (3.0, 2, 500),
    ]  # fmt: skip
    for row in (less, many, few):
        assert row["cell_noise"] > 1.1 * asked["cell_noise"]
        assert row["tables"] < asked["tables"]
        # 1.4 times the square root of records times ε; `local` also divides by the root of the number of nodes.
        signal = row["records"] * row["epsilon"] / row["nodes"] ** 0.5
        assert row["bins"] == round(1.4 * signal**0.5) < asked["bins"]
    assert less["noise_multiplier"] > 2 * asked["noise_multiplier"]
    assert (without["cell_noise"], without["noise_multiplier"]) == (0, 0)
    # The plan itself: the same figures as a plan of its own.
    alone = _answer(capsys, "plan", "--records", "2000", "--nodes", "2", "--epochs", "1", "--epsilon", "1")
    (training,) = [phase for phase in alone["phases"] if phase["mechanism"].startswith("Poisson")]
    assert f"noise multiplier {less['noise_multiplier']:.5g}" in training["parameters"]
    assert alone["what_if"] == []
    assert main([*fixed, "--what-if", "nodes=8"]) == 0
    assert "nodes=8" in capsys.readouterr().out


def test_a_plan_says_where_there_is_no_training_and_how_to_ask_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--records", "2000", "--nodes", "2", "--epsilon", "3", "--what-if", "records=500"]
    for asked, is_told in (([], True), (["--epochs", "1"], False)):
        assert main([*arguments, *asked]) == 0
        told = capsys.readouterr().out
        assert ("There is no private training" in told) is is_told
        assert ("–" in told) is is_told


@pytest.mark.long
def test_a_plan_whose_noise_drowns_the_patients_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for epsilon, is_told in (("0.001", True), ("3", False)):
        assert main(["plan", "--records", "2000", "--nodes", "2", "--epsilon", epsilon]) == 0
        assert ("times the records in it" in capsys.readouterr().out) is is_told


@pytest.mark.parametrize(
    "change", ["epsilon", "epsilon=much", "epsilon=-1", "nodes=0", "nodes=1,", "records=1e3", "trust=blind", "delta=1"]
)
def test_a_variation_that_is_not_possible_is_named(capsys: pytest.CaptureFixture[str], change: str) -> None:
    error = _answer(capsys, "plan", "--records", "2000", "--nodes", "2", "--what-if", change, status=2)
    assert error["code"] == "CONFIG_INVALID"
    assert change.partition("=")[0] in error["message"]


def test_a_fixed_noise_has_an_epsilon_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["plan", "--records", "2000", "--nodes", "2", "--noise-multiplier", "1", "--what-if", "epsilon=1"]
    assert _answer(capsys, *plan, status=2)["code"] == "CONFIG_CONFLICT"


def test_a_plan_without_privacy_is_loud(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--records", "2000", "--nodes", "2", "--epsilon", "inf", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert "NO PRIVACY" in captured.err
    assert "ε = ∞" in captured.out


def test_the_key_is_named_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    monkeypatch.setenv("AEVORIUM_KEY_FILE", str(path))
    assert _answer(capsys, "keys", "show") == {
        "source": "file",
        "place": str(path),
        "exists": False,
        "key_id": None,
        "older": [],
        "audit_public_key": None,
    }
    key = load_or_create_keys(path)
    assert main(["keys", "show", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["data"]["key_id"] == key.key_id
    assert path.read_text().strip() not in captured.out + captured.err


def test_a_workspace_without_a_run_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["generate"], ["validate"], ["report"], ["budget", "show"], ["audit", "show"], ["audit", "verify"]):
        error = _answer(capsys, *command, "--workspace", tmp_path, status=1)
        assert error["code"] == "ARTEFACT_NOT_FOUND", command
        assert "aevorium run" in error["hint"], command
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_doctor_runs_one_round(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = _answer(capsys, "doctor", "--with-round")
    assert answer["with_round"] is True
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_for_which_roles_an_installation_is(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    absent = {"opacus"}
    version = doctor.metadata.version

    def look(name: str) -> str:
        if name in absent:
            raise doctor.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor.metadata, "version", look)
    assert _answer(capsys, "doctor")["roles"] == ["api"]
    absent.add("torch")
    assert main(["doctor"]) == 2
    assert "'torch' is not installed" in capsys.readouterr().err


_SMALL = """
name = "small"
[columns.Age]
kind = "continuous"
min = 18
max = 90
[columns.Ill]
kind = "categorical"
categories = ["yes", "no"]
"""


@pytest.mark.long
def test_nodes_are_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    schema, output = tmp_path / "small.toml", tmp_path / "audit.json"
    schema.write_text(_SMALL, encoding="utf-8")
    asked = ("privacy-audit", "--schema", schema, "--records", 60, "--repeats", 20, "--epsilon", 1, "--output", output)
    found = _answer(capsys, *asked)
    assert found["problems"] == []
    assert json.loads(output.read_text(encoding="utf-8")) == found
    assert {release["release"] for release in found["releases"]} > {"count", "one-way histograms"}
    assert main([*map(str, asked)]) == 0
    assert "not even a perfect attack could have contradicted the plan" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(OsNoise, "gaussian", lambda self, values, sigma: values)
    assert _answer(capsys, *asked, status=1)["code"] == "PRIVACY_AUDIT_FAILED"
    assert json.loads(output.read_text(encoding="utf-8"))["problems"]


def test_a_run_without_privacy_is_not_audited(capsys: pytest.CaptureFixture[str]) -> None:
    assert _answer(capsys, "privacy-audit", "--epsilon", "inf", status=2)["code"] == "CONFIG_CONFLICT"


def test_an_audit_that_cannot_be_is_refused_before_minutes_are_spent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _answer(capsys, "privacy-audit", "--output", tmp_path, status=2)
    assert error["message"].startswith("--output ")
    error = _answer(capsys, "privacy-audit", "--records", 2, "--trust", "secure-aggregation", status=2)
    assert error["message"] == "--records 2 is too few. Each of 3 nodes needs one."
