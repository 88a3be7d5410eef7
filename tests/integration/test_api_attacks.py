"""Names and texts with which people try to get elsewhere: sent to every operation, and none comes of it."""

from __future__ import annotations

import pytest
from orders_server import Server

NAMES = (
    "..%2f..%2fkeys%2fkey",
    "..%5c..%5ckeys",
    "%2fetc%2fpasswd",
    "%00",
    "0123456789abcdef%00",
    "0123456789abcdef%0d%0aX-Evil:%201",
    "0123456789ABCDEF",
    "' OR '1'='1",
    "1;DROP TABLE jobs",
    "x" * 4000,
)
TEXTS = (
    "' OR '1'='1' --",
    "'; DROP TABLE jobs; --",
    "%' UNION SELECT digest FROM api_keys --",
    "a\r\nX-Evil: 1",
    "\x00",
)
NUMBERS = ("-1", "1e9", "9" * 30, "NaN", "1 OR 1=1", "0x10")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    made = Server(tmp_path_factory.mktemp("attacked"))
    made.order_run(epsilon=1.0)
    return made


def _operations(server: Server) -> list[tuple[str, str, dict]]:
    paths = server.get("/openapi.json")["paths"]
    return [(method, path, one) for path, operations in paths.items() for method, one in operations.items()]


def _tried(server: Server, method: str, path: str, **more: object) -> None:
    answer = server.client.request(method, path, **more)
    assert answer.status_code in {404, 405, 422}, f"{method} {path}: {answer.status_code}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x-evil" not in answer.headers
    assert str(server.folder) not in answer.text


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_the_workspace(server: Server, name: str):
    named = [(method, path) for method, path, _ in _operations(server) if "{" in path]
    assert len(named) > 15
    for method, path in named:
        before, _, after = path.partition("{")
        _tried(server, method, f"{before}{name}{after.partition('}')[2]}")


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_becomes_a_statement_or_a_header(server: Server, text: str):
    entries = server.get("/v1/audit")["entries"]
    assert server.get("/v1/audit", action=text)["entries"] == []
    for body in ({"run": text}, {"balance": text}, {"where": text}):
        _tried(server, "POST", "/v1/datasets", json=body)
    for path, body in (
        ("studies", {"name": text}),
        ("runs", {"study": text}),
        ("keys", {"name": text, "role": "auditor"}),
    ):
        _tried(server, "POST", f"/v1/{path}", json=body)
    assert server.client.get("/health", headers={"X-Request-ID": text.encode()}).headers["x-request-id"] != text
    assert [run["state"] for run in server.get("/v1/runs")["runs"]] == ["queued"]
    assert server.get("/v1/audit")["entries"] == entries


@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_is_more_than_a_number(server: Server, number: str):
    counted = [
        (method, path, parameter["name"])
        for method, path, operation in _operations(server)
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query" and parameter["name"] in {"before", "after", "limit", "rows"}
    ]
    assert len(counted) > 7
    for method, path, name in counted:
        _tried(server, method, path.replace("{job_id}", "0" * 16), params={name: number})


def test_no_key_gives_more_than_its_role(server: Server):
    keys = {role: server.post("/v1/keys", {"name": role, "role": role}, status=201) for role in ("engineer", "auditor")}
    for key in keys.values():
        headers = {"Authorization": f"Bearer {key['secret']}"}
        for wanted in ({"name": "Eve", "role": "steward"}, {"name": "Eve", "role": key["role"]}):
            assert server.client.post("/v1/keys", json=wanted, headers=headers).status_code == 403
        assert server.client.delete(f"/v1/keys/{key['id']}", headers=headers).status_code == 403
        assert server.client.post("/v1/budgets/limit", json={"limit": None}, headers=headers).status_code == 403
    assert {key["role"] for key in server.get("/v1/keys")["keys"]} == {"engineer", "auditor"}
