"""Runs and tables that are ordered over the API and made by a worker: the whole way, and every way it can go wrong."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from orders_server import SCHEMA, Server

from aevorium.cli.app import main
from aevorium.client import Client
from aevorium.errors import CATALOGUE
from aevorium.governance.chain import AuditChain
from aevorium.jobs.folders import RunFolders
from aevorium.state.api_keys import ROLES, Role
from aevorium.verification import verify_export, verify_workspace


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, str]:
    """A server on which one run has ended."""
    server = Server(tmp_path_factory.mktemp("served"))
    run = server.order_run(epsilon=2.0, records=1200)
    with server.working():
        assert server.ended(f"/v1/runs/{run}")["state"] == "succeeded", server.get(f"/v1/runs/{run}")
    return server, run


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_a_run_that_was_ordered_is_conducted_and_can_be_checked(done: tuple[Server, str]):
    server, run = done
    found = server.get(f"/v1/runs/{run}")
    assert found["has_results"] is True
    assert found["result"]["epsilon"] == 2.0
    assert {node["name"]: node["spent"] for node in found["result"]["nodes"]} == {
        "north": pytest.approx(2, rel=0.01), "south": pytest.approx(2, rel=0.01),
    }  # fmt: skip
    statement = server.get(f"/v1/runs/{run}/statement")
    assert statement == server.get("/v1/statement")
    assert server.get(f"/v1/runs/{run}/report")["study"]
    model = server.get(f"/v1/models/{run}")
    assert (model["id"], model["target"], model["checkpoints"]) == (run, "sick", [0])
    assert [each["id"] for each in server.get("/v1/models")["models"]] == [run]
    assert server.get("/v1/audit/verification")["is_sound"] is True
    assert server.get("/privacy-budget")["nodes"]["north"]["spent"] == pytest.approx(2, rel=0.01)
    nodes = {node["name"]: node for node in server.get("/v1/nodes")["nodes"]}
    assert nodes["north"]["limit"] == 5
    assert nodes["north"]["last_run"] == run


def test_what_nodes_keep_outlives_the_run_and_is_checked_with_it(done: tuple[Server, str]):
    server, run = done
    workspace = RunFolders(server.workspace).workspace_of(run)
    assert not workspace.nodes.exists()
    assert (server.workspace.nodes / "north" / "ledger.db").is_file()
    result = verify_workspace(workspace, homes=(server.workspace.nodes,))
    assert result.is_sound
    ledgers = [check for check in result.checks if check.subject.startswith("Ledger of node")]
    assert [check.is_sound for check in ledgers] == [True, True]


def test_the_server_s_log_holds_the_order_its_end_and_the_head_of_the_run_s_own_log(done: tuple[Server, str]):
    server, run = done
    entries = [entry for entry in server.get("/v1/audit")["entries"] if entry["detail"].get("job") == run]
    assert [(entry["actor"], entry["action"]) for entry in entries] == [
        ("start token", "run_ordered"), ("worker", "run_ended"),
    ]  # fmt: skip
    own = server.get(f"/v1/runs/{run}/audit")
    assert entries[1]["detail"]["head"] == own["head"]
    assert entries[1]["detail"]["state"] == "succeeded"
    assert verify_export(server.workspace.audit_log).is_sound


def test_the_file_of_the_log_has_everything_when_worker_and_api_have_ended(done: tuple[Server, str]):
    server, run = done
    tables = [server.post("/v1/datasets", {"rows": 5, "steps": 2, "seed": seed})["id"] for seed in range(4)]
    chain = AuditChain(server.workspace.database)
    with server.working():
        for table in tables:
            server.ended(f"/v1/datasets/{table}")
    own = RunFolders(server.workspace).workspace_of(run)
    for workspace in (server.workspace, own):
        view = json.loads(workspace.audit_log.read_text(encoding="utf-8"))
        assert view["head"] == AuditChain(workspace.database).head
        assert verify_export(workspace.audit_log).is_sound
    with server.client:  # its end is the API's
        for table in tables:
            assert server.client.get(f"/v1/datasets/{table}/download").status_code == 200
    told = json.loads(server.workspace.audit_log.read_text(encoding="utf-8"))["entries"]
    assert [entry["detail"]["job"] for entry in told if entry["action"] == "dataset_ended"][-4:] == tables
    assert [entry["detail"]["job"] for entry in told[-4:]] == tables
    assert chain.head == told[-1]["hash"]


def _events(server: Server, path: str, after: int | None = None) -> list[tuple[str | None, str, dict[str, Any]]]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    answer = server.client.get(f"{path}/events", headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    found = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


def test_a_story_is_told_to_its_end_and_goes_on_where_a_reader_left(done: tuple[Server, str]):
    server, run = done
    events = _events(server, f"/v1/runs/{run}")
    phases = [data["phase"] for _, kind, data in events if kind == "phase_started"]
    assert phases[:2] == ["plan", "count"]
    assert events[-1] == (None, "ended", {"state": "succeeded", "error": None})
    numbers = [int(number) for number, *_ in events if number is not None]
    assert numbers == sorted(set(numbers))
    assert _events(server, f"/v1/runs/{run}", after=numbers[3]) == events[4:]


def test_a_long_story_is_told_to_its_end_however_late_it_is_asked_for(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    run = server.order_run()
    job = server.jobs.claim("w")
    assert job is not None
    for done in range(1001):
        server.jobs.tell(job, {"event": "step_progress", "label": "rounds", "done": done, "total": 1000})
    server.jobs.finish(job, "succeeded", result={})
    *told, end = _events(server, f"/v1/runs/{run}")
    assert [data["done"] for _, _, data in told] == list(range(1001))
    assert end[1] == "ended"
    monkeypatch.setenv("AEVORIUM_DATABASE", server.url)
    assert main(["runs", "watch", run, "--workspace", str(server.workspace.root)]) == 0
    assert "1000 of 1000" in capsys.readouterr().err


def test_no_story_holds_what_is_for_a_steward_alone(done: tuple[Server, str]):
    server, run = done
    kinds = {kind for _, kind, _ in _events(server, f"/v1/runs/{run}")}
    assert kinds <= {"server_listening", "phase_started", "round_finished", "nodes_online", "step_progress", "ended"}
    # The exact number of a node's rows is on its steward's console, and nowhere else.
    told = json.dumps(_events(server, f"/v1/runs/{run}")) + json.dumps(server.get(f"/v1/runs/{run}"))
    assert "600 rows" not in told


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_is_ordered_previewed_and_downloaded_with_checksum_and_card(done: tuple[Server, str], kind: str):
    server, run = done
    table = server.post("/v1/datasets", {"rows": 40, "where": "value > 5", "format": kind, "seed": 4})["id"]
    with server.working():
        found = server.ended(f"/v1/datasets/{table}")
    assert (found["state"], found["rows"], found["result"]["run"]) == ("succeeded", 40, run)
    answer = server.client.get(f"/v1/datasets/{table}/download")
    digest = hashlib.sha256(answer.content).digest()
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
    assert found["sha256"] == digest.hex()
    assert f'filename="synthetic-{table}.{kind}"' in answer.headers["content-disposition"]
    read: Callable[..., pd.DataFrame] = pd.read_csv if kind == "csv" else pd.read_parquet
    frame = read(io.BytesIO(answer.content))
    assert len(frame) == 40
    assert (frame["value"] > 5).all()
    preview = server.get(f"/v1/datasets/{table}/preview", rows=3)
    assert preview["columns"] == ["value", "sick"]
    assert preview["rows"] == frame.head(3).to_numpy().tolist()
    assert len(server.get(f"/v1/datasets/{table}/preview", rows=100)["rows"]) == 40
    assert server.get(f"/v1/datasets/{table}/preview", rows=101, status=422)["code"] == "REQUEST_INVALID"
    card = server.get(f"/v1/datasets/{table}/card")
    assert (card["sha256"], card["where"], card["run"], card["epsilon"]) == (found["sha256"], "value > 5", run, 2.0)
    assert any("chosen" in caution for caution in card["cautions"])
    page = server.client.get(f"/v1/datasets/{table}/card.md")
    assert page.headers["content-type"].startswith("text/markdown")
    assert found["sha256"] in page.text
    assert "no\\|maybe" in page.text
    entries = [entry for entry in server.get("/v1/audit")["entries"] if entry["detail"].get("job") == table]
    assert [(entry["actor"], entry["action"]) for entry in entries] == [
        ("start token", "dataset_ordered"), ("worker", "dataset_ended"), ("start token", "dataset_downloaded"),
    ]  # fmt: skip
    assert (entries[0]["detail"]["run"], entries[0]["detail"]["rows"]) == (run, 40)


def test_a_table_that_waits_is_stopped_and_the_log_says_by_whom(done: tuple[Server, str]):
    server, _ = done
    table = server.post("/v1/datasets", {"rows": 5}, **{"Idempotency-Key": "once"})["id"]
    assert server.post("/v1/datasets", {"rows": 5}, **{"Idempotency-Key": "once"})["id"] == table
    assert server.post(f"/v1/datasets/{table}/stop")["state"] == "stopped"
    entries = [entry for entry in server.get("/v1/audit")["entries"] if entry["detail"].get("job") == table]
    assert [(entry["actor"], entry["action"]) for entry in entries] == [
        ("start token", "dataset_ordered"), ("start token", "dataset_stop_asked"),
    ]  # fmt: skip


@pytest.mark.long
def test_a_table_is_of_the_run_that_was_the_newest_when_it_was_ordered(server: Server):
    def trained() -> str:
        run = server.order_run(epsilon=1.0, records=1200)
        with server.working():
            assert server.ended(f"/v1/runs/{run}")["state"] == "succeeded"
        return run

    first = trained()
    key = {"Idempotency-Key": "k"}
    table = server.post("/v1/datasets", {"rows": 5}, **key)
    assert table["order"]["run"] == first
    time.sleep(1.1)  # runs are in the order of the second in which they began
    second = trained()
    assert server.get(f"/v1/datasets/{table['id']}")["result"]["run"] == first
    assert server.post("/v1/datasets", {"rows": 5}, **key)["id"] == table["id"]
    assert server.post("/v1/datasets", {"rows": 5})["order"]["run"] == second


@pytest.mark.parametrize("wanted", ["bytes=5-2", "bytes=999999999-", "rows=1-2"])
def test_a_part_that_a_file_does_not_have_is_refused_as_all_else_is(done: tuple[Server, str], wanted: str):
    server, run = done
    for path in ("/v1/report.html", f"/v1/runs/{run}/report.html"):
        answer = server.client.get(path, headers={"Range": wanted})
        assert (answer.status_code, answer.headers["content-type"]) == (416, "application/problem+json")
        assert answer.json()["code"] == "RANGE_NOT_SATISFIABLE"
        size = len(server.client.get(path).content)
        assert answer.headers["content-range"] == f"bytes */{size}"
        part = server.client.get(path, headers={"Range": "bytes=0-9"})
        assert (part.status_code, len(part.content)) == (206, 10)


def test_a_file_that_was_changed_is_not_served(done: tuple[Server, str]):
    server, _ = done
    table = server.post("/generate", {"rows": 5})["id"]
    early = server.client.get(f"/v1/datasets/{table}/download")
    assert (early.status_code, early.json()["code"]) == (409, "DATASET_NOT_READY")
    with server.working():
        server.ended(f"/v1/datasets/{table}")
    path = server.workspace.datasets / f"{table}.csv"
    assert len(server.get(f"/v1/datasets/{table}/preview")["rows"]) == 5
    path.write_bytes(path.read_bytes() + b"1,yes\n")
    for part in ("download", "preview"):
        assert server.get(f"/v1/datasets/{table}/{part}", status=500)["code"] == "DATASET_DAMAGED"
    path.unlink()
    assert server.get(f"/v1/datasets/{table}/download", status=404)["code"] == "ARTEFACT_NOT_FOUND"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"where": "Ages > 3"}, 422, "EXPRESSION_INVALID"),
        ({"where": "__import__('os').system('x')"}, 422, "EXPRESSION_INVALID"),
        ({"balance": "value"}, 422, "CONFIG_INVALID"),
        ({"run": "0" * 16}, 404, "RUN_NOT_FOUND"),
        ({"run": "../../../etc"}, 422, "REQUEST_INVALID"),
        ({"rows": 0}, 422, "REQUEST_INVALID"),
        ({"rows": 10_000_001}, 422, "REQUEST_INVALID"),
        ({"format": "exe"}, 422, "REQUEST_INVALID"),
        ({"output": "/etc/passwd"}, 422, "REQUEST_INVALID"),
    ],
)
def test_a_table_that_cannot_be_made_is_refused_at_once(
    done: tuple[Server, str], body: dict[str, object], status: int, code: str
):
    assert done[0].post("/v1/datasets", body, status=status)["code"] == code


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"choices": {"epsilon": 0}}, 422, "REQUEST_INVALID"),
        ({"choices": {"epsilon": 1, "noise_multiplier": 1}}, 422, "CONFIG_CONFLICT"),
        ({"choices": {"epsilon": 1, "recipe": "dp-sgd", "epochs": 10_000, "rounds": 10}}, 422, "CONFIG_INVALID"),
        ({"choices": {"trust": "secure-aggregation"}}, 409, "AGGREGATION_TOO_FEW_NODES"),
        ({"choices": {"purpose": "a\nb"}}, 422, "REQUEST_INVALID"),
        ({"schema_text": "name = 'x'"}, 422, "SCHEMA_INVALID"),
        ({"schema_text": "= ="}, 422, "SCHEMA_INVALID"),
        ({"study": "0" * 16}, 404, "STUDY_NOT_FOUND"),
        ({"node": "/etc/passwd"}, 422, "REQUEST_INVALID"),
    ],
)
def test_a_run_that_cannot_be_planned_is_refused_before_it_waits(
    server: Server, body: dict[str, object], status: int, code: str
):
    assert server.post("/v1/runs", body, status=status)["code"] == code
    assert server.get("/v1/runs")["runs"] == []


def test_json_that_names_no_number_is_refused(server: Server):
    for text in (
        '{"choices": {"epsilon": NaN}}',
        '{"choices": {"epsilon": Infinity}}',
        '{"choices": {"epsilon": 1e999}}',
    ):
        answer = server.client.post("/v1/runs", content=text, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, text


def test_an_order_sent_twice_with_its_key_is_one_order(server: Server):
    body = {"choices": {"epsilon": 1.0}}
    first = server.post("/v1/runs", body, **{"Idempotency-Key": "k1"})
    assert server.post("/v1/runs", body, **{"Idempotency-Key": "k1"})["id"] == first["id"]
    other = server.post("/v1/runs", {"choices": {"epsilon": 2.0}}, status=409, **{"Idempotency-Key": "k1"})
    assert other["code"] == "IDEMPOTENCY_KEY_REUSED"
    assert len(server.get("/v1/runs")["runs"]) == 1
    ordered = [entry for entry in server.get("/v1/audit")["entries"] if entry["action"] == "run_ordered"]
    assert len(ordered) == 1
    # Somebody else's key of the same name is another.
    secret = server.post("/v1/keys", {"name": "Ann", "role": "engineer"}, status=201)["secret"]
    theirs = server.post("/v1/runs", body, **{"Idempotency-Key": "k1", "Authorization": f"Bearer {secret}"})
    assert theirs["id"] != first["id"]


def test_the_planning_limit_stops_orders_and_touches_no_node(server: Server):
    assert server.post("/privacy-budget/set-limit", {"limit": 3.0}, status=200)["limit"] == 3.0
    waiting = server.order_run(epsilon=2.0)
    refused = server.post("/v1/runs", {"choices": {"epsilon": 1.5}}, status=409)
    assert refused["code"] == "PLANNING_LIMIT_EXCEEDED"
    (entry,) = server.get("/v1/audit", action="order_refused")["entries"]
    assert entry["actor"] == "start token"
    assert entry["detail"] == {"study": None, "epsilon": 1.5, "code": "PLANNING_LIMIT_EXCEEDED"}
    # What was stopped while it waited was never ordered of a node.
    server.post(f"/v1/runs/{waiting}/stop")
    server.order_run(epsilon=3.0)
    assert server.get("/v1/budgets")["planning"] | {"note": ""} == {
        "period": "1", "limit": 3.0, "ordered": 3.0, "opened_at": None, "note": "",
    }  # fmt: skip
    opened = server.post("/privacy-budget/reset", {"label": "2027"}, status=201)
    assert (opened["period"], opened["ordered"], opened["limit"]) == ("2027", 0.0, 3.0)
    assert "Nodes are not affected" in opened["note"]
    assert server.post("/privacy-budget/reset", {"label": "2027"}, status=409)["code"] == "PERIOD_USED"
    server.order_run(epsilon=3.0)
    actions = [entry["action"] for entry in server.get("/v1/audit")["entries"]]
    assert actions.count("planning_limit_set") == 1
    assert actions.count("planning_period_opened") == 1
    assert verify_export(server.workspace.audit_log).is_sound


def test_a_log_that_begins_with_a_refusal_holds(tmp_path: Path):
    server = Server(tmp_path)
    assert server.client.get("/health", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert server.get("/v1/audit/verification")["is_sound"]
    assert [entry["action"] for entry in server.get("/v1/audit")["entries"]] == ["login_failed"]


def test_nodes_refuse_what_is_over_their_own_limit_whatever_the_server_plans(done: tuple[Server, str]):
    server, _ = done
    run = server.order_run(epsilon=5.0, records=1200)
    with server.working():
        found = server.ended(f"/v1/runs/{run}")
    assert found["state"] == "failed"
    assert found["error"]["code"] in {"BUDGET_EXCEEDED", "PLAN_REFUSED"}, found["error"]
    assert found["has_results"] is False
    budget = server.get("/privacy-budget")["nodes"]["north"]
    assert budget["spent"] == pytest.approx(2, rel=0.01)


def test_a_failure_tells_no_table_s_content(server: Server):
    frame = pd.read_csv(server.folder / "north.csv")
    frame.loc[7, "sick"] = "SECRET-VALUE"
    frame.to_csv(server.folder / "north.csv", index=False)
    run = server.order_run(epsilon=1.0, records=1200)
    with server.working():
        found = server.ended(f"/v1/runs/{run}")
    assert found["state"] == "failed"
    told = json.dumps([found, _events(server, f"/v1/runs/{run}"), server.get("/v1/audit")])
    assert "SECRET" not in told
    # Not even how many there are: that is for the node's own console.
    assert "1 row" not in told
    assert "'sick'" not in found["error"]["message"]


def test_a_run_that_waits_stops_at_once_and_one_that_runs_stops_between_exchanges(server: Server):
    first = server.order_run(epsilon=1.0, records=1200, recipe="dp-sgd", epochs=600, rounds=50)
    second = server.order_run(epsilon=1.0)
    assert server.post(f"/v1/runs/{second}/stop")["state"] == "stopped"
    with server.working():
        deadline = time.monotonic() + 60
        while server.get(f"/v1/runs/{first}")["state"] != "running" and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        server.post(f"/v1/runs/{first}/stop")
        assert server.ended(f"/v1/runs/{first}")["state"] == "stopped"
    assert server.get(f"/v1/runs/{second}")["started_at"] is None


def test_what_a_dead_worker_left_is_repeated_or_failed(server: Server):
    training = server.order_run(epsilon=1.0)
    claimed = server.jobs.claim("dead", kind="train")
    assert claimed is not None
    with server.working():
        found = server.ended(f"/v1/runs/{training}")
    assert (found["state"], found["error"]["code"]) == ("failed", "JOB_INTERRUPTED")
    ended = [entry for entry in server.get("/v1/audit")["entries"] if entry["action"] == "run_ended"]
    assert [entry["detail"]["state"] for entry in ended] == ["failed"]


def test_two_workers_of_a_workspace_never_work_at_once(server: Server):
    with server.working(), server.working():
        run = server.order_run(epsilon=1.0, records=1200)
        assert server.ended(f"/v1/runs/{run}")["state"] == "succeeded"
    story = _events(server, f"/v1/runs/{run}")
    assert [data.get("phase") for _, _, data in story].count("plan") == 1
    assert AuditChain(server.workspace.database).verify().is_sound


def test_studies_are_registered_planned_and_run(server: Server):
    study = server.post(
        "/v1/studies", {"name": "Clinic", "schema_text": SCHEMA, "choices": {"epsilon": 1.5}}, status=201
    )
    assert server.get(f"/v1/studies/{study['id']}") == study
    assert server.get("/v1/studies")["studies"] == [study]
    run = server.post("/v1/runs", {"study": study["id"]})
    assert (run["study"], run["epsilon"]) == (study["id"], 1.5)
    plan = server.post("/v1/plans", {"schema_text": SCHEMA, "records": 1200, "nodes": 2}, status=200)
    assert plan["epsilon"] == server.settings.epsilon
    assert {phase["phase"] for phase in plan["phases"]} >= {"statistics"}
    assert all(phase["epsilon"] < plan["epsilon"] for phase in plan["phases"])


def _turned(server: Server, path: str, of: str, *, cursor: str, limit: int) -> list[dict[str, Any]]:
    """What a list holds, page after page."""
    found, place = [], None
    while True:
        page = server.get(path, limit=limit, **({} if place is None else {cursor: place}))
        assert 1 <= len(page[of]) <= limit
        found += page[of]
        place = page["next"]
        if place is None:
            return found


def test_pages_of_runs_are_newest_first_and_complete(server: Server):
    made = [server.order_run(epsilon=1.0 + number) for number in range(5)]
    assert [run["id"] for run in _turned(server, "/v1/runs", "runs", cursor="before", limit=2)] == made[::-1]


def test_the_command_line_lists_every_run(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    made = [
        server.jobs.submit("train", {"epsilon": 1.0, "study": None}, actor=f"a{number}")[0].id for number in range(101)
    ]
    monkeypatch.setenv("AEVORIUM_DATABASE", server.url)
    assert main(["runs", "list", "--workspace", str(server.workspace.root), "--json"]) == 0
    assert [run["id"] for run in json.loads(capsys.readouterr().out)["data"]["runs"]] == made[::-1]


def test_pages_of_models_nodes_keys_and_a_run_s_log_are_complete(
    done: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
):
    server, run = done
    own = RunFolders(server.workspace).workspace_of(run)
    ids = [f"{number:016x}" for number in range(4)]
    for number, made in enumerate(ids):
        other = shutil.copytree(own.root, own.root.parent / made)
        record = json.loads((other / "study.json").read_text(encoding="utf-8"))
        record |= {"run_id": made, "started_at": f"2020-01-01T00:00:0{number}.000+00:00"}
        (other / "study.json").write_text(json.dumps(record), encoding="utf-8")
    for checkpoint in RunFolders(server.workspace).workspace_of(ids[2]).checkpoints().values():
        checkpoint.unlink()
    names = [server.post("/v1/keys", {"name": name, "role": "auditor"}, status=201)["name"] for name in "cab"]
    models = _turned(server, "/v1/models", "models", cursor="before", limit=2)
    nodes = _turned(server, "/v1/nodes", "nodes", cursor="after", limit=1)
    keys = _turned(server, "/v1/keys", "keys", cursor="after", limit=2)
    entries = _turned(server, f"/v1/runs/{run}/audit", "entries", cursor="after", limit=3)
    assert [model["id"] for model in models] == [run, ids[3], ids[1], ids[0]]
    assert [node["name"] for node in nodes] == ["north", "south"]
    assert [key["name"] for key in keys] == names
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[-1]["hash"] == AuditChain(own.database).head
    monkeypatch.setattr("aevorium.client.api._PAGE", 2)
    with Client("http://localhost", transport=server.transport(), token=server.token) as client:
        assert [model.id for model in client.models()] == [model["id"] for model in models]
        assert [node.name for node in client.nodes()] == ["north", "south"]
        listed, log = client.keys(), client.run_log(run)
        assert [key.name for key in listed] == names
        assert ([entry.seq for entry in log.entries], log.head) == ([e["seq"] for e in entries], entries[-1]["hash"])
    for made in ids:
        shutil.rmtree(own.root.parent / made)


ORDERS = {
    "/v1/runs": {"engineer", "steward"},
    "/train": {"engineer", "steward"},
    "/v1/studies": {"engineer", "steward"},
    "/v1/datasets": {"engineer", "steward", "researcher"},
    "/privacy-budget/set-limit": {"steward"},
    "/privacy-budget/reset": {"steward"},
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_orders_what_is_its_own(server: Server, role: Role):
    secret = server.post("/v1/keys", {"name": "x", "role": role}, status=201)["secret"]
    bearer = {"Authorization": f"Bearer {secret}"}
    allowed = {path for path in ORDERS if server.client.post(path, json={}, headers=bearer).status_code != 403}
    assert allowed == {path for path, roles in ORDERS.items() if role in roles}


def test_orders_need_a_token_on_this_machine_too(server: Server):
    near = TestClient(server.client.app, base_url="http://localhost:8000", client=("127.0.0.1", 1))
    for path in ORDERS:
        assert near.post(path, json={}).status_code == 401
    assert near.get("/v1/datasets").status_code == 401


def test_the_server_s_log_guards_the_logs_of_its_runs(server: Server):
    run = server.order_run(epsilon=1.0, records=1200)
    with server.working():
        server.ended(f"/v1/runs/{run}")
    assert server.get("/v1/audit/verification")["is_sound"] is True
    arguments = ["audit", "verify", "--workspace", str(server.workspace.root), "--quiet"]
    assert main(arguments) == 0
    workspace = RunFolders(server.workspace).workspace_of(run)
    assert main([*arguments[:3], str(workspace.root), "--quiet"]) == 0
    # A run's log that cannot be read is a finding like others.
    with sqlite3.connect(workspace.database) as database:
        entry = database.execute("SELECT entry FROM entries WHERE seq = 1").fetchone()[0]
        database.execute("UPDATE entries SET entry = '{}' WHERE seq = 1")
    broken = [check for check in server.get("/v1/audit/verification")["checks"] if check["is_sound"] is False]
    assert [check["subject"] for check in broken] == [f"Run {run}: Audit chain of the server"]
    assert server.get(f"/v1/runs/{run}/audit", status=CATALOGUE["AUDIT_BROKEN"].http_status)["code"] == "AUDIT_BROKEN"
    with database:
        database.execute("UPDATE entries SET entry = ? WHERE seq = 1", (entry,))
    database.close()
    # A run's log that was written anew, with the right key, is sound by itself.
    workspace.database.unlink()
    AuditChain(workspace.database, key=server.secrets.log).append(actor="local", action="run_finished", detail={})
    broken = [check for check in server.get("/v1/audit/verification")["checks"] if check["is_sound"] is False]
    assert f"Run {run}: its log and the server's" in {check["subject"] for check in broken}
    assert main(arguments) == 1


def test_keys_are_rotated_under_every_run(done: tuple[Server, str], monkeypatch: pytest.MonkeyPatch):
    server, run = done
    monkeypatch.setenv("AEVORIUM_KEY_FILE", str(server.settings.key_file))
    root = str(server.workspace.root)
    assert main(["keys", "rotate", "--drop-old", "--yes", "--workspace", root, "--quiet"]) == 0
    table = server.post("/v1/datasets", {"rows": 3, "run": run})["id"]
    with server.working():
        assert server.ended(f"/v1/datasets/{table}")["state"] == "succeeded"


@pytest.mark.long
def test_runs_are_ordered_watched_and_stopped_on_the_command_line(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for name, value in (("DATABASE", server.url), ("KEY_FILE", server.settings.key_file), ("PRETRAINING_STEPS", 5)):
        monkeypatch.setenv(f"AEVORIUM_{name}", str(value))
    schema = server.folder / "schema.toml"
    schema.write_text(server.schema)
    place = ["--workspace", str(server.workspace.root), "--json"]

    def typed(*arguments: str) -> dict[str, Any]:
        assert main(["runs", *arguments, *place]) == 0
        data: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
        return data

    first = typed("submit", "--schema", str(schema), "--epsilon", "1", "--records", "1200")
    second = typed("submit", "--schema", str(schema), "--epsilon", "1")
    assert typed("stop", second["id"])["state"] == "stopped"
    with server.working():
        assert typed("watch", first["id"])["state"] == "succeeded"
    assert [run["id"] for run in typed("list")["runs"]] == [second["id"], first["id"]]
    assert typed("show", first["id"])["epsilon"] == 1.0
    assert [run["id"] for run in server.get("/v1/runs")["runs"]] == [second["id"], first["id"]]
    assert main(["runs", "show", "0" * 16, *place]) == 1
    assert main(["runs", "submit", "--schema", str(schema), "--epsilon", "-1", *place]) == 2
