"""What those who run the API rely on: limits, refusals in the audit log, measurements, the log, probes, headers."""

from __future__ import annotations

import io
import json
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from limits.storage import MemoryStorage
from starlette.requests import Request

from aevorium.api.addresses import address_of, network_of
from aevorium.api.app import ApiOptions, create_app
from aevorium.api.metrics import Metrics
from aevorium.api.middleware import Guard
from aevorium.api.problems import RetryLater
from aevorium.api.rates import Rates
from aevorium.api.refusals import Refusals
from aevorium.api.request_log import RequestLine, RequestLog
from aevorium.api.routes.operations import Readiness
from aevorium.errors import CATALOGUE, ArtefactError, ConfigError
from aevorium.governance.chain import AuditChain
from aevorium.governance.signing import SigningKey
from aevorium.settings import load_settings
from aevorium.state.api_keys import ApiKeyStore, Role
from aevorium.state.jobs import JobStore
from aevorium.state.store import Store, sqlite_url
from aevorium.workspace import Workspace

FAR, NEAR = ("192.0.2.7", 4000), ("127.0.0.1", 4000)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "w").create()
    made.privacy_budget.write_text("{}")
    AuditChain(made.database).append(actor="a", action="b", detail={})
    return made


@pytest.fixture
def options(workspace: Workspace, tmp_path: Path) -> ApiOptions:
    url, log_key = sqlite_url(tmp_path / "api.db"), SigningKey(tmp_path / "audit.key", hint="")
    return ApiOptions(
        workspace=workspace, database=url, log_key=log_key, rate="5/minute",
        origins=("https://portal.example",),
    )  # fmt: skip


@pytest.fixture
def api(options: ApiOptions) -> Iterator[TestClient]:
    with TestClient(create_app(options), base_url="http://aevorium.example", client=FAR) as client:
        yield client


@pytest.fixture
def near(options: ApiOptions) -> Iterator[TestClient]:
    with TestClient(create_app(options), base_url="http://localhost:8000", client=NEAR) as client:
        yield client


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _key(options: ApiOptions, role: Role) -> str:
    with closing(Store(options.database)) as store:
        return ApiKeyStore(store).create(name="Ann\r\n\x1b[2J", role=role)[1]


def _noted(workspace: Workspace, action: str) -> list[dict[str, object]]:
    return [entry.detail for entry in AuditChain(workspace.database).entries_of([action])]


def test_a_key_is_answered_so_often_and_others_are_not_kept_out_by_it(api: TestClient, options: ApiOptions):
    busy, calm = _bearer(_key(options, "researcher")), _bearer(_key(options, "researcher"))
    assert [api.get("/v1/budgets", headers=busy).status_code for _ in range(7)] == [200] * 5 + [429] * 2
    answer = api.get("/v1/budgets", headers=busy)
    assert answer.json()["code"] == "RATE_LIMITED"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert api.get("/v1/budgets", headers=calm).status_code == 200


def test_another_address_in_a_header_is_not_another_address(api: TestClient):
    statuses = [
        api.get("/v1/budgets", headers={"X-Forwarded-For": f"203.0.113.{number}", "X-Real-IP": f"203.0.113.{number}"})
        for number in range(7)
    ]
    assert [answer.status_code for answer in statuses] == [401] * 5 + [429] * 2


def test_wrong_tokens_are_limited_more_strictly_and_do_not_keep_the_right_one_out(api: TestClient, options: ApiOptions):
    statuses = [api.get("/v1/budgets", headers=_bearer(f"wrong{number}")).status_code for number in range(15)]
    assert statuses == [401] * 10 + [429] * 5
    assert api.get("/v1/budgets", headers=_bearer(_key(options, "researcher"))).status_code == 200


def test_probes_of_this_machine_are_never_limited(near: TestClient):
    for path in ("/health", "/metrics", "/health/live", "/health/ready"):
        assert {near.get(path).status_code for _ in range(12)} == {200}
    assert 429 in {near.get("/privacy-budget").status_code for _ in range(12)}


def test_refused_tokens_are_noted_once_a_minute_without_the_token(api: TestClient, workspace: Workspace):
    for number in range(5):
        api.get("/v1/budgets", headers=_bearer(f"aev_secret{number}"))
    api.get("/v1/budgets")
    (noted,) = _noted(workspace, "login_failed")
    assert noted == {"address": "192.0.2.7", "reason": "unknown", "left_out": 0, "left_out_of_others": 0}
    assert b"secret" not in workspace.database.read_bytes()
    assert AuditChain(workspace.database).verify().is_sound


def test_a_revoked_key_is_noted_by_its_id_and_a_missing_permission_by_its_name(
    api: TestClient, options: ApiOptions, workspace: Workspace
):
    secret = _key(options, "researcher")
    key_id = secret.split("_")[1]
    assert api.get("/v1/keys", headers=_bearer(secret)).status_code == 403
    (denied,) = AuditChain(workspace.database).entries_of(["access_denied"])
    assert (denied.actor, denied.detail["permission"]) == (f"key {key_id}", "keys")
    with closing(Store(options.database)) as store:
        ApiKeyStore(store).revoke(key_id)
    api.get("/v1/budgets", headers=_bearer(secret))
    (failed,) = _noted(workspace, "login_failed")
    assert (failed["reason"], failed["key"]) == ("revoked", key_id)


def test_refusals_cannot_flood_the_log_nor_the_memory(workspace: Workspace, tmp_path: Path):
    clock = [0.0]
    log_key = SigningKey(tmp_path / "audit.key", hint="")
    refusals = Refusals(workspace, log_key=log_key, now=lambda: clock[0])
    for _ in range(4):
        refusals.note("login_failed", about="198.51.100.1", detail={})
    tracemalloc.start()
    for number in range(100_000):
        refusals.note("login_failed", about=f"a{number}", detail={})
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2_000_000
    assert len(_noted(workspace, "login_failed")) == 20
    clock[0] = 61
    refusals.note("login_failed", about="198.51.100.1", detail={})
    assert _noted(workspace, "login_failed")[-1] == {"left_out": 3, "left_out_of_others": 100_000 - 19}


def test_a_log_that_cannot_be_written_changes_no_refusal(api: TestClient, workspace: Workspace):
    with sqlite3.connect(workspace.database) as database:
        database.execute("DROP TABLE entries")
    database.close()
    assert api.get("/v1/budgets", headers=_bearer("wrong")).status_code == 401


@pytest.mark.long
def test_rates_forget_the_oldest_of_too_many_addresses():
    rates = Rates("3/minute")
    tracemalloc.start()
    for number in range(100_000):
        rates.count(f"a{number}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 8_000_000
    for _ in range(3):
        rates.count("b")
    with pytest.raises(RetryLater):
        rates.count("b")


@pytest.mark.parametrize(
    ("host", "address", "network"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:2", "2001:db8::ffff:2", "2001:db8::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("evil\nname", "unknown", "unknown"),
        (None, "unknown", "unknown"),
    ],
)
def test_an_address_is_one_or_unknown(host: str | None, address: str, network: str):
    request = Request({"type": "http", "headers": [], "client": None if host is None else (host, 1)})
    assert (address_of(request), network_of(request)) == (address, network)


def test_measurements_have_few_labels_whatever_is_sent(api: TestClient, options: ApiOptions):
    for number in range(5):
        api.get(f"/nothing/{number}?token=secret")
        api.request(f"EVIL{number}", "/nothing")
    api.delete("/v1/keys/0123456789ab", headers=_bearer(_key(options, "steward")))
    text = api.get("/metrics", headers=_bearer(_key(options, "auditor"))).text
    assert 'aevorium_api_requests_total{method="GET",route="none",status="4xx"} 5.0' in text
    assert 'aevorium_api_requests_total{method="OTHER",route="none",status="4xx"} 5.0' in text
    assert 'route="/v1/keys/{key_id}"' in text
    assert "aevorium_audit_entries 1.0" in text
    assert "secret" not in text
    assert "nothing" not in text
    assert api.get("/metrics").status_code == 401
    assert api.get("/metrics", headers=_bearer(_key(options, "researcher"))).status_code == 403


def test_orders_are_counted_by_their_state_while_the_database_answers(
    api: TestClient, options: ApiOptions, monkeypatch: pytest.MonkeyPatch
):
    key = _bearer(_key(options, "auditor"))
    with closing(Store(options.database)) as store:
        jobs = JobStore(store)
        for _ in range(3):
            jobs.submit("generate", {}, actor="a")
        jobs.claim("w")
    text = api.get("/metrics", headers=key).text
    for state, count in (("queued", 2), ("running", 1), ("failed", 0)):
        assert f'aevorium_jobs{{state="{state}"}} {count}.0' in text

    def away(_: JobStore) -> dict[str, int]:
        raise ArtefactError("DATABASE_UNUSABLE", "The database cannot be used. It is away.")

    monkeypatch.setattr(JobStore, "counts", away)
    text = api.get("/metrics", headers=key).text
    assert 'aevorium_jobs{state="queued"} NaN' in text
    assert "aevorium_audit_entries 1.0" in text


def test_two_apis_count_for_themselves(options: ApiOptions):
    for _ in range(2):
        with TestClient(create_app(options), base_url="http://localhost", client=NEAR) as client:
            client.get("/health")
            assert 'requests_total{method="GET",route="/health",status="2xx"} 1.0' in client.get("/metrics").text


def test_nothing_that_is_sent_breaks_or_forges_a_line_of_the_log(
    api: TestClient, options: ApiOptions, capsys: pytest.CaptureFixture[str]
):
    secret = _key(options, "auditor")
    evil = "a%1b[2Jb%0d%0a{forged}"
    headers = {**_bearer(secret), "X-Request-ID": "x\x1b[31m", "User-Agent": "\x1b]0;evil\x07"}
    api.get("/v1/audit?token=hidden", headers=headers)
    api.get(f"/{evil}", headers=headers)
    api.delete(f"/v1/keys/{evil}", headers=_bearer(_key(options, "steward")))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [line["route"] for line in lines] == ["/v1/audit", None, "/v1/keys/{key_id}"]
    assert lines[0] | {"time": "", "ms": 0, "request": ""} == {
        "time": "", "level": "info", "request": "", "principal": f"key {secret.split('_')[1]}", "method": "GET",
        "route": "/v1/audit", "status": 200, "ms": 0, "code": None,
    }  # fmt: skip
    assert lines[1]["code"] == "ROUTE_NOT_FOUND"
    text = json.dumps(lines)
    assert not [word for word in ("forged", "hidden", "evil", "u001b", secret) if word in text]


@pytest.mark.parametrize("is_json", [True, False])
def test_a_line_stays_a_line(is_json: bool):
    stream = io.StringIO()
    line = RequestLine("r", "oidc a\nb\x1b[2J\u2028", "GET", "/x", 200, 1.0, None)
    RequestLog(is_json=is_json, stream=stream).write(line)
    written = stream.getvalue()
    assert written.endswith("\n")
    assert len(written.splitlines()) == 1
    assert written[:-1].isprintable()
    stream.close()
    RequestLog(is_json=is_json, stream=stream).write(line)


@pytest.mark.anyio
async def test_an_answer_that_fails_is_logged_and_its_text_is_not(workspace: Workspace, options: ApiOptions):
    stream, jobs = io.StringIO(), JobStore(Store(options.database))

    async def broken(*_: object) -> None:
        raise RuntimeError("patient 7")

    guard = Guard(broken, metrics=Metrics(workspace, jobs=jobs), log=RequestLog(is_json=True, stream=stream))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await guard(scope, None, None)  # type: ignore[arg-type]
    told = json.loads(stream.getvalue())
    assert (told["status"], told["code"], told["level"]) == (500, "INTERNAL", "error")
    assert "patient" not in stream.getvalue()


def test_probes_need_no_token_and_say_nothing_else(api: TestClient):
    assert api.get("/health/live").json() == api.get("/health/ready").json() == {"status": "ok"}


def test_an_api_without_its_database_lives_and_is_not_ready(api: TestClient, tmp_path: Path):
    with sqlite3.connect(tmp_path / "api.db") as database:
        database.execute("DROP TABLE alembic_version")
    database.close()
    answer = api.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "NOT_READY")
    assert str(tmp_path) not in answer.text
    assert api.get("/health/live").status_code == 200


def test_readiness_is_not_asked_of_the_database_for_every_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked, clock = [], [0.0]
    with closing(Store(sqlite_url(tmp_path / "api.db"))) as store:
        monkeypatch.setattr(store, "check", lambda: asked.append(1))
        is_ready = Readiness(store, now=lambda: clock[0])
        assert all(is_ready() for _ in range(50))
        clock[0] = 2
        assert is_ready()
    assert len(asked) == 2


@pytest.mark.parametrize(("old", "new"), [("/privacy-budget", "/v1/budgets"), ("/audit-log", "/v1/audit")])
def test_an_address_without_a_version_names_its_successor(near: TestClient, old: str, new: str):
    answer = near.get(old)
    assert answer.headers["deprecation"].startswith("@")
    assert answer.headers["link"] == f'<{new}>; rel="successor-version"'
    successor = near.get(new)
    assert successor.content == answer.content
    assert "deprecation" not in successor.headers
    paths = near.get("/openapi.json").json()["paths"]
    assert paths[old]["get"]["deprecated"] is True
    assert "deprecated" not in paths[new]["get"]


def test_a_page_of_a_chosen_origin_reads_a_story_on_and_finds_what_it_ordered(api: TestClient, options: ApiOptions):
    origin = {"Origin": "https://portal.example"}
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization,last-event-id"}
    assert api.options("/v1/runs/0123456789abcdef/events", headers={**origin, **asked}).status_code == 200
    exposed = api.get("/v1/me", headers={**origin, **_bearer(_key(options, "auditor"))}).headers[
        "access-control-expose-headers"
    ]
    assert {"Location", "Repr-Digest", "Content-Disposition"} <= set(exposed.split(", "))


def test_only_chosen_origins_are_let_in_by_browsers(api: TestClient):
    def allowed(origin: str) -> str | None:
        headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        return api.options("/v1/audit", headers=headers).headers.get("access-control-allow-origin")

    assert allowed("https://portal.example") == "https://portal.example"
    assert allowed("https://portal.example.evil.example") is allowed("null") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("API_ORIGINS", "*"), ("API_ORIGINS", "https://a.example/x"), ("API_RATE", "5"), ("OIDC_ROLES", "it=root")],
)
def test_settings_that_open_too_much_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"AEVORIUM_{name}", value)
    with pytest.raises(ConfigError, match=name):
        load_settings()


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AEVORIUM_API_ORIGINS", "https://a.example, http://localhost:3000")
    monkeypatch.setenv("AEVORIUM_OIDC_ROLES", "it=engineer, cn=office=steward")
    settings = load_settings().values
    assert settings.api_origins == ("https://a.example", "http://localhost:3000")
    assert settings.oidc_roles == {"it": "engineer", "cn=office": "steward"}


def test_every_operation_documents_its_problems(api: TestClient):
    document = api.get("/openapi.json").json()
    for operations in document["paths"].values():
        for operation in operations.values():
            assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]
    assert CATALOGUE["RATE_LIMITED"].http_status == 429


def test_the_library_tidies_up_under_our_lock():
    # `_Memory` takes the place of a private method: another name for it would bring back a race.
    assert "_MemoryStorage__expire_events" in vars(MemoryStorage)
