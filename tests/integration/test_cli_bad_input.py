"""Every bad input: one clear line, the exit status of the contract, no value of a patient, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest

from aevorium.cli.app import main
from aevorium.progress import ProgressEvent, RoundFinished

SCHEMA = """
name = "clinic"
unit_id = "id"
target = "ill"
[columns.age]
kind = "continuous"
min = 18
max = 90
integer = true
[columns.glucose]
kind = "continuous"
min = 50
max = 400
missing = true
[columns.ill]
kind = "categorical"
categories = ["yes", "no"]
"""

GOOD = [f"p{number},{20 + number % 60},{90 + number % 40},{'yes' if number % 3 else 'no'}" for number in range(300)]


def _lines(*rows: str, header: str = "id,age,glucose,ill") -> bytes:
    return ("\n".join([header, *rows]) + "\n").encode()


def _run(tmp_path: Path, content: bytes | None, *options: str) -> int:
    (tmp_path / "schema.toml").write_text(SCHEMA, encoding="utf-8")
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    arguments = ["run", "--schema", str(tmp_path / "schema.toml"), "--node", f"a={tmp_path / 'a.csv'}"]
    arguments += ["--workspace", str(tmp_path / "workspace"), "--rounds", "1", "--epochs", "1", "--batch-size", "128"]
    return main([*arguments, *options])


class _Links(HTMLParser):
    """What the elements of a page load or lead to; text within scripts is no element."""

    def __init__(self) -> None:
        super().__init__()
        self.tags = 0
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags += 1
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def _left_over(tmp_path: Path) -> list[str]:
    return [
        path.name
        for path in tmp_path.rglob("*")
        if path.suffix in (".part", ".npz") or path.name in ("study.json", "synthetic_data.csv")
    ]


@pytest.mark.parametrize(
    ("content", "expected", "status"),
    [
        (None, "DATA_NOT_FOUND", 2),
        (b"", "DATA_EMPTY", 1),
        (_lines(), "DATA_EMPTY", 1),
        (_lines(*GOOD).decode().replace("p1,", "Müller,").encode("latin-1"), "DATA_UNREADABLE", 1),
        (_lines(*GOOD).replace(b",", b";"), "DATA_UNREADABLE", 1),
        (_lines(*[row.rsplit(",", 1)[0] for row in GOOD], header="id,age,glucose"), "DATA_COLUMN_MISSING", 1),
        (_lines(*GOOD, "secret1,40,99,maybe"), "DATA_CATEGORY_UNKNOWN", 1),
        (_lines(*GOOD, "secret1,forty,99,yes"), "DATA_NOT_NUMERIC", 1),
        (_lines(*GOOD, "secret1,,99,yes"), "DATA_MISSING_UNDECLARED", 1),
        (_lines(*[f"p{number},,," for number in range(30)]), "DATA_EMPTY", 1),
        (_lines(*GOOD, GOOD[0]), "DATA_DUPLICATE_UNIT", 1),
    ],
    ids=[
        "no data", "empty", "header only", "latin-1", "delimiter", "missing column", "unknown category",
        "text in a number", "undeclared missing", "all cells missing", "duplicate patients",
    ],
)  # fmt: skip
def test_bad_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, expected: str, status: int
) -> None:
    assert _run(tmp_path, content) == status
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert f"({expected})" in error[0]
    for value in ("secret1", "maybe", "forty", "Traceback"):
        assert value not in error[0]
    assert _left_over(tmp_path) == []


def test_one_row_is_refused_by_the_noisy_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The count is noisy, so the refusal is too: by the default minimum of 20, one row passes in 3 of 100 runs at ε = 3.
    # At a minimum of 200 the noise (ε₀ = 0.15) reaches it with probability exp(-0.15 · 199) / 2, below 1e-12.
    policy = tmp_path / "policy.toml"
    policy.write_text("[allow]\nmin_patients = 200\n", encoding="utf-8")
    assert _run(tmp_path, _lines(GOOD[0]), "--policy", str(policy)) == 3
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert "(POLICY_MIN_PATIENTS)" in error[0]
    assert _left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--epsilon", "0"), "CONFIG_INVALID"),
        (("--epsilon", "-1"), "CONFIG_INVALID"),
        (("--epsilon", "nan"), "CONFIG_INVALID"),
        (("--delta", "1"), "CONFIG_INVALID"),
        (("--delta", "0"), "CONFIG_INVALID"),
        (("--recipe", "magic"), "CONFIG_INVALID"),
        (("--trust", "nobody"), "CONFIG_INVALID"),
        (("--dropouts", "1"), "CONFIG_INVALID"),
        (("--device", "cuda"), "DEVICE_NOT_FOUND"),
        (("--device", "gpu"), "CONFIG_INVALID"),
        (("--node", "a=x.csv"), "CONFIG_INVALID"),
        (("--node", "../b=x.csv"), "CONFIG_INVALID"),
        (("--node", "nothing"), "CONFIG_INVALID"),
        (("--noise-multiplier", "1.0", "--epsilon", "3"), "CONFIG_CONFLICT"),
        (("--noise-multiplier", "1.0"), "CONFIG_CONFLICT"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], code: str) -> None:
    assert _run(tmp_path, _lines(*GOOD), *options) == 2
    captured = capsys.readouterr()
    assert f"({code})" in captured.err
    assert _left_over(tmp_path) == []


def test_errors_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path, _lines(), "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "error"
    assert set(answer["error"]) == {"code", "message", "hint", "docs"}
    assert answer["error"]["code"] == "DATA_EMPTY"
    assert main(["--json", "run", "--no-such-flag"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "CONFIG_INVALID"


@pytest.mark.long
def test_a_byte_order_mark_and_values_out_of_bounds_are_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, b"\xef\xbb\xbf" + _lines(*GOOD, "p-old,987654,99,yes"), "--json") == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)["data"]
    assert answer["nodes"][0]["spent"] <= 3.0
    assert "1 value outside the bounds" in captured.err
    assert "987654" not in captured.err

    folder = tmp_path / "workspace"
    output = tmp_path / "rows.csv"
    assert main(["generate", "--workspace", str(folder), "--rows", "77", "--output", str(output)]) == 0
    assert len(output.read_text().splitlines()) == 78
    assert _run(tmp_path, _lines(*GOOD)) == 3
    again = capsys.readouterr().err
    assert "(BUDGET_EXCEEDED)" in again
    assert "new --workspace" in again
    assert main(["audit", "verify", "--workspace", str(folder)]) == 0
    assert main(["audit", "verify", str(folder / "audit_log.json")]) == 0
    assert main(["budget", "show", "--workspace", str(folder)]) == 0
    assert main(["report", "--workspace", str(folder)]) == 0
    assert main(["generate", "--workspace", str(folder), "--output", str(tmp_path / "rows.xlsx")]) == 2
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in html
    links = _Links()
    links.feed(html)
    assert links.tags > 50
    assert [target for target in links.targets if "//" in target] == []
    assert "Content-Security-Policy" in html
    capsys.readouterr()
    held = tmp_path / "a.csv"
    arguments = ["validate", "--workspace", str(folder), "--synthetic", str(output), "--real", str(held), "--json"]
    assert main(arguments) == 0
    scores = json.loads(capsys.readouterr().out)["data"]["scores"]
    assert {"shapes", "trends", "tstr", "c2st"} <= set(scores)
    assert "do not share" in (folder / "report.local.html").read_text(encoding="utf-8")
    statement = folder / "privacy_statement.md"
    statement.write_text(statement.read_text(encoding="utf-8").replace("ε = 3", "ε = 1"), encoding="utf-8")
    assert main(["audit", "verify", "--workspace", str(folder)]) == 1


def test_an_unwritable_workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "workspace").write_text("a file is in the way", encoding="utf-8")
    assert _run(tmp_path, _lines(*GOOD)) == 2
    assert "(WORKSPACE_UNWRITABLE)" in capsys.readouterr().err


def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if str(target).endswith(".npz"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    assert _run(tmp_path, _lines(*GOOD)) == 2
    assert "(WORKSPACE_UNWRITABLE)" in capsys.readouterr().err
    assert [name for name in _left_over(tmp_path) if name != "study.json"] == []


def test_control_c_in_the_middle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from aevorium.cli.progress_view import ProgressView

    def interrupted(self: ProgressView, event: ProgressEvent) -> None:
        if isinstance(event, RoundFinished):
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressView, "__call__", interrupted)
    assert _run(tmp_path, _lines(*GOOD)) == 1
    assert "(RUN_INTERRUPTED)" in capsys.readouterr().err
    assert list(tmp_path.rglob("*.part")) == []
    budget = json.loads((tmp_path / "workspace" / "nodes" / "a" / "privacy_budget.json").read_text(encoding="utf-8"))
    assert budget["spent"] > 0
    # A crash may leave the view behind the ledger: what is shown is the ledger's.
    stale = json.loads((tmp_path / "workspace" / "nodes" / "a" / "privacy_budget.json").read_text(encoding="utf-8"))
    stale["runs"], stale["spent"], stale["committed"], stale["left"] = [], 0.0, 0.0, 3.0
    (tmp_path / "workspace" / "nodes" / "a" / "privacy_budget.json").write_text(json.dumps(stale), encoding="utf-8")
    capsys.readouterr()
    assert main(["budget", "show", "--workspace", str(tmp_path / "workspace"), "--json"]) == 0
    captured = capsys.readouterr()
    shown = json.loads(captured.out)["data"]
    assert shown["status"] == "failed"
    assert shown["nodes"][0]["spent"] == budget["runs"][0]["spent"] > 0
    assert "did not finish" in captured.err
