"""The API of a workspace with a real run: who may read what, and how it refuses."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from aevorium.api.app import ApiOptions, create_app
from aevorium.api.configuration import configure
from aevorium.cli.app import main
from aevorium.errors import CATALOGUE, ArtefactError, ConfigError
from aevorium.governance.chain import AuditChain, verify_entries
from aevorium.governance.secrets import Secrets
from aevorium.governance.signing import SigningKey
from aevorium.jobs.folders import RunFolders
from aevorium.jobs.local_site import LocalSite
from aevorium.jobs.worker import Worker
from aevorium.settings import load_settings
from aevorium.state.api_keys import ROLES, Role
from aevorium.state.jobs import JobStore
from aevorium.state.store import Store, sqlite_url
from aevorium.verification import verify_export
from aevorium.workspace import Workspace

START = "start-token-of-this-test"
SCHEMA = 'name = "clinic"\n[columns.value]\nkind = "continuous"\nmin = 0\nmax = 10\n'


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("api")
    (folder / "schema.toml").write_text(SCHEMA)
    values = np.random.default_rng(0).uniform(0, 10, 120).round(2)
    pd.DataFrame({"value": values}).to_csv(folder / "a.csv", index=False)
    arguments = ["run", "--schema", str(folder / "schema.toml"), "--node", f"a={folder / 'a.csv'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEVORIUM_PRETRAINING_STEPS", "5")
        patch.setenv("AEVORIUM_KEY_FILE", str(folder / "key"))
        assert main([*arguments, "--epsilon", "2", "--workspace", str(folder / "w"), "--quiet"]) == 0
    (folder / "w" / "report.local.json").write_text('{"exact": 1}')
    return Workspace(folder / "w")


def _options(workspace: Workspace, url: str) -> ApiOptions:
    """As the settings of this test make it: the log's key is the one that the run was signed with."""
    log_key = SigningKey(workspace.root.parent / "audit.key", hint="")
    return ApiOptions(workspace=workspace, database=url, log_key=log_key, start_token=START)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "api.db")


@pytest.fixture
def far(workspace: Workspace, url: str) -> Iterator[TestClient]:
    """Asked from another machine, by name, over the network."""
    options = _options(workspace, url)
    with TestClient(create_app(options), base_url="http://aevorium.example", client=("192.0.2.7", 4000)) as client:
        yield client


@pytest.fixture
def near(workspace: Workspace, url: str) -> Iterator[TestClient]:
    """Asked from the same machine."""
    options = _options(workspace, url)
    with TestClient(create_app(options), base_url="http://localhost:8000", client=("127.0.0.1", 4000)) as client:
        yield client


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _key(api: TestClient, role: Role, **more: object) -> str:
    answer = api.post("/v1/keys", json={"name": "Ann", "role": role, **more}, headers=_bearer(START))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


OPEN = ("/health", "/privacy-budget", "/audit-log")
CLOSED = ("/v1/statement", "/v1/report", "/v1/report.html", "/v1/audit/verification", "/v1/keys")


def test_this_machine_reads_three_addresses_without_a_token_and_no_others(near: TestClient):
    assert [near.get(path).status_code for path in OPEN] == [200] * 3
    assert {near.get(path).status_code for path in CLOSED} == {401}
    assert near.post("/v1/keys", json={"name": "x", "role": "steward"}).status_code == 401
    assert near.get("/privacy-budget").json()["nodes"]["a"]["spent"] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Host": "attacker.example"},
        {"Host": "localhost.attacker.example:8000"},
        {"Authorization": "Bearer wrong"},
    ],
)
def test_what_was_forwarded_or_names_another_host_is_not_of_this_machine(near: TestClient, headers: dict[str, str]):
    assert {near.get(path, headers=headers).status_code for path in OPEN} == {401}


def test_the_token_of_the_start_counts_from_this_machine_alone(near: TestClient, far: TestClient, workspace: Workspace):
    assert near.get("/v1/me", headers=_bearer(START)).json()["name"] == "start token"
    for client, more in ((far, {}), (near, {"X-Forwarded-For": "192.0.2.7"}), (near, {"Host": "attacker.example"})):
        for path in ("/v1/me", "/v1/statement"):
            answer = client.get(path, headers={**_bearer(START), **more})
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
    refused = AuditChain(workspace.database).entries_of(["login_failed"])[-2:]
    assert [(entry.detail["address"], entry.detail["reason"]) for entry in refused] == [
        ("192.0.2.7", "elsewhere"), ("127.0.0.1", "elsewhere"),
    ]  # fmt: skip


def test_other_machines_read_nothing_without_a_token(far: TestClient):
    for path in (*OPEN, *CLOSED):
        answer = far.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_what_is_its_own(near: TestClient, far: TestClient, role: Role):
    headers = _bearer(_key(near, role))
    allowed = {path for path in (*OPEN, *CLOSED) if far.get(path, headers=headers).status_code == 200}
    common = {"/health", "/privacy-budget", "/v1/statement", "/v1/report", "/v1/report.html"}
    audit = {"/audit-log", "/v1/audit/verification"}
    assert allowed == common | (audit if role != "researcher" else set()) | (
        {"/v1/keys"} if role == "steward" else set()
    )
    made = far.post("/v1/keys", json={"name": "x", "role": "steward"}, headers=headers)
    assert made.status_code == (201 if role == "steward" else 403)


def test_a_revoked_key_and_a_forged_one_are_refused(near: TestClient, far: TestClient):
    secret = _key(near, "auditor")
    key_id = secret.split("_")[1]
    assert far.get("/v1/audit/verification", headers=_bearer(secret)).json()["is_sound"] is True
    forged = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for header in (f"Bearer {forged}", f"Basic {secret}", secret, "Bearer ", "Bearer é"):
        assert far.get("/health", headers={"Authorization": header.encode()}).status_code == 401
    assert near.delete(f"/v1/keys/{key_id}", headers=_bearer(START)).json()["revoked_at"] is not None
    assert far.get("/health", headers=_bearer(secret)).status_code == 401
    listed = near.get("/v1/keys", headers=_bearer(START))
    assert secret not in listed.text
    assert [key["id"] for key in listed.json()["keys"]] == [key_id]


def _view(workspace: Workspace) -> Any:
    """The audit log's file, when it has what the chain has."""
    head, deadline = AuditChain(workspace.database).head, time.monotonic() + 20
    while time.monotonic() < deadline:
        view = json.loads(workspace.audit_log.read_text(encoding="utf-8"))
        if view["head"] == head:
            return view
        time.sleep(0.05)
    raise AssertionError("the file stays behind its chain")


def test_making_and_revoking_keys_is_in_the_audit_log_without_the_secret(near: TestClient, workspace: Workspace):
    secret = _key(near, "engineer", days=3)
    key_id = secret.split("_")[1]
    near.delete(f"/v1/keys/{key_id}", headers=_bearer(START))
    view = _view(workspace)
    told = [entry for entry in view["entries"] if entry["detail"].get("key") == key_id]
    assert [entry["action"] for entry in told] == ["api_key_created", "api_key_revoked"]
    assert {entry["actor"] for entry in told} == {"start token"}
    assert secret not in json.dumps(view)
    assert verify_entries(view["entries"], expected_head=view["head"]).is_sound
    assert verify_export(workspace.audit_log).is_sound


def test_the_audit_log_comes_in_pages_that_are_the_whole_of_it(near: TestClient, workspace: Workspace):
    view = _view(workspace)
    found, after = [], 0
    while after is not None:
        page = near.get("/v1/audit", params={"after": after, "limit": 3}, headers=_bearer(START)).json()
        assert len(page["entries"]) <= 3
        found += page["entries"]
        after = page["next"]
    assert found == view["entries"]
    assert page["head"] == view["head"]
    action = found[0]["action"]
    chosen = near.get("/v1/audit", params={"action": action}, headers=_bearer(START)).json()["entries"]
    assert chosen == [entry for entry in found if entry["action"] == action]


def test_a_report_of_real_rows_is_never_served(near: TestClient):
    for path in (
        "/v1/report.local.json",
        "/report.local.json",
        "/v1/../report.local.json",
        "/v1/%2e%2e/report.local.json",
    ):
        assert near.get(path, headers=_bearer(START)).status_code == 404
    assert '"exact"' not in near.get("/v1/report", headers=_bearer(START)).text


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", None, 404, "ROUTE_NOT_FOUND"),
        ("PUT", "/health", None, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/audit?limit=0", None, 422, "REQUEST_INVALID"),
        ("GET", "/v1/audit?after=' OR 1=1 --", None, 422, "REQUEST_INVALID"),
        ("DELETE", "/v1/keys/..%2f..%2fkey", None, 404, "ROUTE_NOT_FOUND"),
        ("DELETE", "/v1/keys/' OR '1'='1", None, 422, "REQUEST_INVALID"),
        ("DELETE", "/v1/keys/0123456789ab", None, 404, "API_KEY_NOT_FOUND"),
        ("POST", "/v1/keys", {"name": "a\r\nX-Evil: 1", "role": "auditor"}, 422, "REQUEST_INVALID"),
        ("POST", "/v1/keys", {"name": "Ann", "role": "root"}, 422, "REQUEST_INVALID"),
        ("POST", "/v1/keys", {"name": "Ann", "role": "auditor", "scope": "all"}, 422, "REQUEST_INVALID"),
        ("POST", "/v1/keys", {"name": "x" * 2_000_000, "role": "auditor"}, 413, "REQUEST_TOO_LARGE"),
    ],
)
def test_a_failure_is_a_problem_document_of_the_catalogue(
    near: TestClient, method: str, path: str, body: object, status: int, code: str
):
    answer = near.request(method, path, json=body, headers=_bearer(START))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"] == CATALOGUE[code].summary
    assert problem["type"] == f"docs/ERRORS.md#{code.lower()}"
    assert problem["hint"]
    # What was sent is not repeated.
    assert "OR 1=1" not in answer.text
    assert "Evil" not in answer.text


def test_a_body_that_is_no_json_is_refused_with_one_status(near: TestClient):
    for body in (b"[" * 100_000, b"{", b"\xff"):
        answer = near.post("/v1/keys", content=body, headers={**_bearer(START), "Content-Type": "application/json"})
        assert answer.json()["code"] == "REQUEST_INVALID"
        assert answer.json()["status"] == answer.status_code


def test_every_answer_has_a_name_and_the_headers_that_browsers_heed(near: TestClient):
    answer = near.get("/health", headers={**_bearer(START), "X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    for name in (
        "x-content-type-options", "x-frame-options", "referrer-policy", "cache-control", "content-security-policy",
    ):  # fmt: skip
        assert name in answer.headers
    assert "access-control-allow-origin" not in near.get("/health", headers={"Origin": "https://evil.example"}).headers
    broken = near.get("/health", headers={"X-Request-ID": "a b;c"})
    assert broken.headers["x-request-id"] != "a b;c"


def test_its_document_says_where_a_token_is_needed_and_that_is_where_it_is(near: TestClient):
    document = near.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needs_token = operation.get("security", [{}]) == [{"bearer": []}]
            place = path.replace("{key_id}", "0" * 12).replace("{job_id}", "0" * 16).replace("{study_id}", "0" * 16)
            assert (near.request(method, place).status_code == 401) == needs_token, f"{method} {path}"
            if "security" in operation:
                wrong = near.request(method, place, headers=_bearer("aev_wrong"))
                assert wrong.status_code in {401, 429}, f"{method} {path}"


def test_the_page_of_operations_asks_no_other_host(near: TestClient):
    page = near.get("/docs")
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 3
    for asset in assets:
        assert near.get(asset).status_code == 200, asset
    assert "http" not in page.text.replace("http-equiv", "")
    assert near.get("/redoc").status_code == 404
    assert near.get("/docs/assets/../../pyproject.toml").status_code == 404
    assert near.get("/docs/assets/..%2f..%2f__init__.py").status_code == 404


def test_an_empty_workspace_says_what_to_do(tmp_path: Path, url: str):
    options = _options(Workspace(tmp_path / "none"), url)
    with TestClient(create_app(options), base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        assert client.get("/health").json()["has_run"] is False
        budget = client.get("/privacy-budget").json()
        assert budget["nodes"] == {}
        assert (budget["planning"]["limit"], budget["planning"]["ordered"]) == (None, 0)
        answer = client.get("/audit-log")
        assert (answer.status_code, answer.json()["code"]) == (404, "ARTEFACT_NOT_FOUND")
        assert "aevorium run" in answer.json()["hint"]


@pytest.mark.parametrize(
    "damage", ["UPDATE entries SET entry = '{\"seq\": 1}' WHERE seq = 2", "UPDATE checkpoints SET checkpoint = 'x'"]
)
def test_a_damaged_audit_log_is_said_to_be_one_and_takes_nothing_more(tmp_path: Path, url: str, damage: str):
    workspace, broken = Workspace(tmp_path / "w").create(), CATALOGUE["AUDIT_BROKEN"].http_status
    options = _options(workspace, url)
    chain = AuditChain(workspace.database, key=options.log_key)
    for _ in range(2):
        chain.append(actor="a", action="b", detail={})
    with TestClient(create_app(options), base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        key = _key(client, "auditor")
        with sqlite3.connect(workspace.database) as database:
            database.execute(damage)
            if "entries" in damage:
                database.execute("DELETE FROM entries WHERE seq > 2")
        database.close()
        for path in ("/audit-log?limit=1", "/audit-log") if "entries" in damage else ():
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (broken, "AUDIT_BROKEN"), path
        checks = client.get("/v1/audit/verification", headers=_bearer(START)).json()
        assert checks["is_sound"] is False
        # What would have to be noted is not done; who is turned away is turned away all the same.
        for path, body in (
            ("/v1/keys", {"name": "Eve", "role": "steward"}),
            ("/v1/studies", {"name": "another"}),
            ("/v1/runs", {}),
            ("/v1/budgets/limit", {"limit": 3}),
        ):
            answer = client.post(path, json=body, headers=_bearer(START))
            assert (answer.status_code, answer.json()["code"]) == (broken, "AUDIT_BROKEN"), path
        assert [one["name"] for one in client.get("/v1/keys", headers=_bearer(START)).json()["keys"]] == ["Ann"]
        assert client.get("/v1/studies", headers=_bearer(START)).json()["studies"] == []
        assert client.get("/v1/runs", headers=_bearer(START)).json()["runs"] == []
        assert client.get("/v1/me", headers=_bearer("aev_wrong")).status_code == 401
        assert client.get("/v1/keys", headers=_bearer(key)).status_code == 403
        # A key that leaked is refused from now on, whatever the log.
        (known,) = client.get("/v1/keys", headers=_bearer(START)).json()["keys"]
        client.delete(f"/v1/keys/{known['id']}", headers=_bearer(START))
        assert client.get("/v1/keys", headers=_bearer(key)).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "hospital.example"])
def test_no_api_starts_for_other_machines_without_a_key(tmp_path: Path, host: str):
    settings = load_settings({"workspace": tmp_path, "api_host": host}).values
    with pytest.raises(ConfigError) as caught:
        configure(settings)
    assert caught.value.code == "API_UNPROTECTED"
    assert main(["api", "key", "create", "Ann", "--role", "steward", "--workspace", str(tmp_path), "--quiet"]) == 0
    assert configure(settings).start_token is None
    here = load_settings({"workspace": tmp_path / "other", "api_host": "127.0.0.1"}).values
    tokens = {configure(here).start_token for _ in range(2)}
    assert None not in tokens
    assert len(tokens) == 2


def test_no_api_and_no_worker_start_without_the_key_that_signs_the_log(tmp_path: Path):
    mine, other = (
        load_settings({"workspace": tmp_path / "w", "key_file": tmp_path / name / "key"}).values for name in "ab"
    )
    key = Secrets.of(mine).log
    assert configure(mine).log_key.path == key.path
    assert not key.exists()
    AuditChain(Workspace(tmp_path / "w").create().database, key=key).append(actor="a", action="b", detail={})
    assert configure(mine).log_key.path == key.path
    with pytest.raises(ArtefactError) as caught:
        configure(other)
    assert caught.value.code == "AUDIT_KEY_WRONG"
    folders, looks = RunFolders(Workspace(tmp_path / "w")), iter([False])
    site = LocalSite(folders.root, tables={})
    with closing(Store(sqlite_url(tmp_path / "api.db"))) as store:
        worker = Worker(JobStore(store), folders=folders, site=site, settings=other, secrets=Secrets.of(other))
        with pytest.raises(ArtefactError) as caught:
            worker.work(should_stop=lambda: next(looks, True))
    assert caught.value.code == "AUDIT_KEY_WRONG"
    beside = load_settings({"workspace": tmp_path / "w", "key_file": tmp_path / "w" / "key"}).values
    with pytest.raises(ConfigError) as misplaced:
        configure(beside)
    assert misplaced.value.code == "KEY_MISPLACED"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("has_log", [True, False])
def test_no_api_starts_with_a_key_that_others_can_read(tmp_path: Path, has_log: bool):
    settings = load_settings({"workspace": tmp_path / "w", "key_file": tmp_path / "keys" / "key"}).values
    key = Secrets.of(settings).log
    assert key.public_key
    if has_log:
        AuditChain(Workspace(tmp_path / "w").create().database, key=key).append(actor="a", action="b", detail={})
    key.path.chmod(0o644)
    with pytest.raises(ArtefactError) as caught:
        configure(settings)
    assert caught.value.code == "KEY_INVALID"


@pytest.mark.parametrize("damage", ["UPDATE entries SET entry = '{'", "UPDATE checkpoints SET checkpoint = '{'"])
def test_an_api_starts_on_a_damaged_log_and_says_so(tmp_path: Path, damage: str):
    settings = load_settings({"workspace": tmp_path / "w", "key_file": tmp_path / "keys" / "key"}).values
    database = Workspace(tmp_path / "w").create().database
    AuditChain(database, key=Secrets.of(settings).log).append(actor="a", action="b", detail={})
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(damage)
        connection.commit()
    options = configure(settings, has_worker=False)
    near = {"base_url": "http://localhost", "client": ("127.0.0.1", 1)}
    with TestClient(create_app(options), headers=_bearer(str(options.start_token)), **near) as client:
        assert client.get("/v1/audit/verification").json()["is_sound"] is False


def test_keys_are_made_listed_and_revoked_on_the_command_line(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    place = ["--workspace", str(tmp_path), "--json"]
    assert main(["api", "key", "create", "Ann", "--role", "auditor", "--days", "2", *place]) == 0
    made = json.loads(capsys.readouterr().out)["data"]
    assert made["secret"].startswith(f"aev_{made['id']}_")
    assert main(["api", "key", "revoke", made["id"], *place]) == 0
    capsys.readouterr()
    assert main(["api", "key", "list", *place]) == 0
    shown = capsys.readouterr().out
    assert made["secret"] not in shown
    assert json.loads(shown)["data"]["keys"][0]["revoked_at"] is not None
    assert main(["api", "key", "create", "Ann", "--role", "root", *place]) == 2


@pytest.mark.parametrize("name", ["", "Ann\n", "Ann\x1b[2J", "a" * 101])
def test_a_key_is_for_nobody_whose_name_could_write_to_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
):
    place = ["--workspace", str(tmp_path), "--json"]
    assert main(["api", "key", "create", name, "--role", "auditor", *place]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "CONFIG_INVALID"
    assert main(["api", "key", "list", *place]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["keys"] == []
