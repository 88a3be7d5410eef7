"""A steward's commands on nodes' homes, and what auditors and running nodes make of them."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from aevorium.cli.app import main
from aevorium.governance.chain import AuditChain
from aevorium.governance.policy import load_policy
from aevorium.governance.steward import steward_key
from aevorium.privacy.ledger import SqliteLedger

SCHEMA = """
name = "clinic"
unit_id = "id"
[columns.age]
kind = "continuous"
min = 18
max = 90
[columns.ill]
kind = "categorical"
categories = ["yes", "no"]
"""
POLICY = """
[budget]
max_epsilon = 6.0  # ours
period = "2026"
[allow]
min_patients = 0
consent = "automatic"
"""


class Office:
    """A workspace with one simulated node whose policy is on file; what is typed is answered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace, self.policy = folder / "workspace", folder / "policy.toml"
        self.home = self.workspace / "nodes" / "clinic"

    def furnish(self) -> None:
        self.policy.write_text(POLICY, encoding="utf-8")
        (self.folder / "schema.toml").write_text(SCHEMA, encoding="utf-8")
        rows = [f"p{number},{20 + number % 60},{'yes' if number % 3 else 'no'}" for number in range(200)]
        (self.folder / "clinic.csv").write_text("\n".join(["id,age,ill", *rows]) + "\n", encoding="utf-8")

    def run(self, *options: str, status: int = 0, with_policy: bool = True) -> Any:
        arguments = ["run", "--schema", self.folder / "schema.toml", "--node", f"clinic={self.folder / 'clinic.csv'}"]
        arguments += ["--recipe", "dp-sgd", "--rounds", "1", "--epochs", "1", "--batch-size", "50", "--records", "200"]
        arguments += ["--policy", self.policy] if with_policy else []
        return self.type(*arguments, "--epsilon", "1", *options, status=status)

    def budget(self, verb: str, *arguments: str | Path, status: int = 0) -> Any:
        return self.type("budget", verb, *arguments, "--node", "clinic", status=status)

    def type(self, *arguments: str | Path, status: int = 0) -> Any:
        typed = [*map(str, arguments), "--json", "--quiet"]
        if "FILE" not in typed:
            typed += ["--workspace", str(self.workspace)]
        else:
            typed.remove("FILE")
        told = io.StringIO()
        with redirect_stdout(told):
            found = main(typed)
        answer = json.loads(told.getvalue().splitlines()[-1])
        assert found == status, answer
        return answer["data"] if status == 0 else answer["error"]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """Before the first run."""
    made = Office(tmp_path / "office")
    made.folder.mkdir()
    made.furnish()
    return made


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Office(tmp_path_factory.mktemp("steward"))
    made.furnish()
    made.run()
    return made.folder


@pytest.fixture
def used(first_run: Path, tmp_path: Path) -> Office:
    """After one run of ε = 1 under the policy."""
    return Office(Path(shutil.copytree(first_run, tmp_path / "used")))


def test_a_new_period_from_first_run_to_audit(used: Office, capsys: pytest.CaptureFixture[str]) -> None:
    before = used.budget("show")
    told = used.type("budget", "show")["nodes"][0]
    assert told["spent"] == before["runs"][0]["spent"] < before["spent"] == before["lifetime"] < 1.5
    assert told["left"] == before["left"] == round(6 - before["committed"], 4)

    error = used.budget("new-period", "2027", "--policy", used.policy, status=2)
    assert "--yes" in error["message"]
    opened = used.budget("new-period", "2027", "--policy", used.policy, "--yes")
    assert opened["budget"]["earlier"][0]["spent"] == before["spent"]
    assert (opened["budget"]["spent"], opened["budget"]["lifetime"]) == (0.0, before["lifetime"])
    policy = load_policy(used.policy)
    assert (policy.budget.period, policy.budget.max_epsilon, policy.allow.min_patients) == ("2027", 6.0, 0)
    assert json.loads((used.home / "privacy_budget.json").read_text())["lifetime"] == before["lifetime"]

    second = used.run("--epsilon", "0.9")
    after = used.budget("show")
    assert [each["period"] for each in after["earlier"]] == ["2026"]
    assert [each["run_id"] for each in after["runs"]] == [second["run_id"]]
    assert after["lifetime"] > max(before["lifetime"], after["spent"])
    assert len(SqliteLedger(used.home / "ledger.db").runs("2026")) == 1, "nothing is erased"

    checks = {check["subject"]: check["text"] for check in used.type("audit", "verify")["checks"]}
    assert "2 signed with the key" in checks["Statements of the steward of node 'clinic'"]
    log = used.home / "audit_log.json"
    assert used.type("audit", "verify", log, "--public-key", used.home / "steward.pub", "FILE")["is_sound"]
    error = used.type("audit", "verify", log, "--public-key", "ab" * 32, "FILE", status=1)
    assert "another key" in error["message"]
    assert main(["budget", "show", "--node", "clinic", "--workspace", str(used.workspace)]) == 0
    shown = capsys.readouterr()
    assert "Lifetime total, over all periods: ε = " in shown.out
    assert "A run's ε holds for it alone" in shown.err


def test_a_label_changed_by_hand_is_refused_and_an_old_one_cannot_come_back(used: Office) -> None:
    used.policy.write_text(POLICY.replace("2026", "2027"), encoding="utf-8")
    error = used.run("--epsilon", "0.9", status=3)
    assert error["code"] == "POLICY_PERIOD_UNSIGNED"
    assert "new-period" in error["hint"]
    assert len(SqliteLedger(used.home / "ledger.db").periods()) == 1
    used.budget("new-period", "2027", "--policy", used.policy, "--yes")
    assert used.budget("new-period", "2026", "--policy", used.policy, "--yes", status=2)["code"] == "PERIOD_USED"
    used.policy.write_text(POLICY, encoding="utf-8")
    assert used.run("--epsilon", "0.9", status=3)["code"] == "POLICY_PERIOD_UNSIGNED"


def test_a_limit_below_what_is_committed_says_so_and_stops_further_runs(
    used: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    before = used.budget("show")
    arguments = ["budget", "set-limit", "--epsilon", "0.5", "--node", "clinic", "--policy", str(used.policy)]
    assert main([*arguments, "--workspace", str(used.workspace)]) == 0
    shown = capsys.readouterr()
    assert "nothing more fits" in shown.err
    after = used.budget("show")
    assert (after["max_epsilon"], after["left"], after["spent"]) == (0.5, 0.0, before["spent"])
    assert used.run("--epsilon", "0.1", status=3)["code"] == "BUDGET_EXCEEDED"
    raised = used.budget("set-limit", "--epsilon", "8", "--delta", "2e-5", "--policy", used.policy)
    assert (raised["budget"]["max_epsilon"], raised["budget"]["max_delta"]) == (8.0, 2e-5)
    assert raised["budget"]["composition"] == before["composition"]
    used.run("--epsilon", "0.1")
    assert used.budget("set-limit", "--epsilon", "0", "--policy", used.policy, status=2)["code"] == "CONFIG_INVALID"
    actions = [entry.action for entry in AuditChain(used.home / "audit.db").entries()]
    assert actions.count("limit_set") == 2


def test_a_simulated_node_without_a_policy_says_what_to_do(office: Office) -> None:
    office.run(with_policy=False)
    for command in (("new-period", "2027", "--yes"), ("set-limit", "--epsilon", "9")):
        error = office.budget(*command, status=2)
        assert (error["code"], "--policy" in error["hint"]) == ("POLICY_INVALID", True)
    assert office.budget("show")["period"] == "simulated"


def test_a_steward_who_says_no_changes_nothing(used: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    before = used.policy.read_text()
    arguments = ["budget", "new-period", "2027", "--node", "clinic", "--policy", str(used.policy)]
    for typed in ("n\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert main([*arguments, "--workspace", str(used.workspace)]) == 1
    assert used.policy.read_text() == before
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main([*arguments, "--workspace", str(used.workspace)]) == 0
    assert load_policy(used.policy).budget.period == "2027"


def test_the_steward_is_told_what_a_new_period_means_before_they_are_asked(
    used: Office, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    main(["budget", "new-period", "2027", "--node", "clinic", "--policy", str(used.policy),
          "--workspace", str(used.workspace)])  # fmt: skip
    told = capsys.readouterr().out
    for words in ("limit starts anew", "lifetime total goes on", "earlier releases add up", "cannot be used again"):
        assert words in told


def test_a_node_that_is_not_here_is_no_node(office: Office, tmp_path: Path) -> None:
    for command in (
        ("show",),
        ("requests",),
        ("agree", "abcdef"),
        ("decline", "abcdef"),
        ("new-period", "2027", "--yes"),
        ("set-limit", "--epsilon", "3"),
    ):
        assert office.budget(*command, status=1)["code"] == "ARTEFACT_NOT_FOUND"
        assert office.budget(*command, "--home", tmp_path, status=1)["code"] == "ARTEFACT_NOT_FOUND"
    assert not office.home.exists()


def test_a_plan_waits_is_listed_and_passes_once_agreed(office: Office) -> None:
    office.policy.write_text(POLICY.replace("automatic", "ask"), encoding="utf-8")
    assert office.run("--timeout", "4", status=3)["code"] == "POLICY_CONSENT_AWAITED"
    (asked,) = office.budget("requests")["requests"]
    assert (asked["state"], asked["plan"]["study"], asked["plan"]["epsilon"]) == ("lapsed", "clinic", 1.0)
    assert {cost["purpose"] for cost in asked["plan"]["costs"]} >= {"count", "training"}
    digits = asked["plan"]["plan_hash"][:8]
    assert SqliteLedger(office.home / "ledger.db").periods() == ()
    assert office.budget("agree", "abcdef123", status=2)["code"] == "CONSENT_UNKNOWN"
    office.budget("decline", digits)
    assert office.run("--timeout", "4", status=3)["code"] == "POLICY_CONSENT_REFUSED"
    office.budget("agree", digits)
    assert office.budget("requests")["requests"][0]["state"] == "agreed"
    office.run()
    assert office.budget("requests")["requests"] == []
    checks = {check["subject"]: check["text"] for check in office.type("audit", "verify")["checks"]}
    assert "3 signed with the key" in checks["Statements of the steward of node 'clinic'"]


def test_statements_that_were_taken_away_are_missed(used: Office) -> None:
    """A chain made anew is sound in itself; the ledger knows that somebody opened the period."""
    for name in ("audit.db", "audit.db-wal", "audit.db-shm", "audit_log.json"):
        (used.home / name).unlink(missing_ok=True)
    chain = AuditChain(used.home / "audit.db", key=steward_key(used.home))
    chain.append(actor="clinic", action="plan_agreed", detail={})
    error = used.type("audit", "verify", status=1)
    assert "None opens the period '2026'" in error["message"]


def test_a_chain_that_was_made_anew_without_the_key_is_missed(used: Office) -> None:
    """Every hash is sound, and every statement that the chain had is in it; nobody signed it."""
    chain = AuditChain(used.home / "audit.db").entries()
    for name in ("audit.db", "audit.db-wal", "audit.db-shm", "audit_log.json"):
        (used.home / name).unlink(missing_ok=True)
    for entry in chain:
        AuditChain(used.home / "audit.db").append(actor=entry.actor, action=entry.action, detail=entry.detail)
    error = used.type("audit", "verify", status=1)
    assert "Checkpoints of node 'clinic'" in error["message"]


def test_entries_that_were_cut_off_the_chain_show_in_the_file_and_the_other_way_round(used: Office) -> None:
    view = (used.home / "audit_log.json").read_text(encoding="utf-8")
    with sqlite3.connect(used.home / "audit.db") as connection:
        (length,) = connection.execute("SELECT max(length) FROM checkpoints").fetchone()
        connection.execute("DELETE FROM checkpoints WHERE length = ?", (length,))
        connection.execute("DELETE FROM entries WHERE seq >= ?", (length,))
    connection.close()
    assert "differs from the chain" in used.type("audit", "verify", status=1)["message"]
    content = json.loads(view)
    content["entries"].pop()
    (used.home / "audit_log.json").write_text(json.dumps(content), encoding="utf-8")
    assert "Its head is not that of its last entry" in used.type("audit", "verify", status=1)["message"]


def test_a_changed_policy_is_an_entry_and_the_same_policy_is_none(used: Office) -> None:
    def noted() -> list[dict[str, Any]]:
        return [entry.detail["allow"] for entry in AuditChain(used.home / "audit.db").entries_of(["policy_in_force"])]

    assert [each["purposes"] for each in noted()] == [[]]
    used.run("--epsilon", "0.5")
    assert len(noted()) == 1
    text = used.policy.read_text(encoding="utf-8")
    used.policy.write_text(text.replace("[allow]", '[allow]\npurposes = ["diabetes"]'), encoding="utf-8")
    assert used.run("--epsilon", "0.5", status=3)["code"] == "POLICY_PURPOSE_REFUSED"
    assert [each["purposes"] for each in noted()] == [[], ["diabetes"]]


def test_a_log_is_exported_and_verified_anywhere_by_its_public_key(used: Office, tmp_path: Path) -> None:
    for node, public in (("clinic", used.home / "steward.pub"), (None, None)):
        options = [] if node is None else ["--node", node]
        out = tmp_path / f"{node}.json"
        made = used.type("audit", "export", "--output", out, *options)
        key = public or made["public_key"]
        checked = used.type("audit", "verify", out, "--public-key", key, "FILE")
        assert checked["is_sound"]
        assert all(check["is_sound"] for check in checked["checks"])
        earlier = tmp_path / f"{node}-earlier.json"
        earlier.write_bytes(out.read_bytes())
        used.type("audit", "export", "--output", out, *options)
        assert used.type("audit", "verify", out, "--public-key", key, "--earlier", earlier, "FILE")["is_sound"]
        wrong = used.type("audit", "verify", out, "--public-key", "ab" * 32, "FILE", status=1)
        assert wrong["code"] == "AUDIT_BROKEN"
    assert used.type("audit", "verify", "--public-key", made["public_key"])["is_sound"]
    assert used.type("audit", "verify", "--public-key", "ab" * 32, status=1)["code"] == "AUDIT_BROKEN"
    assert used.type("audit", "verify", "--earlier", earlier, status=2)["code"] == "CONFIG_INVALID"
