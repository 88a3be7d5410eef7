"""The typed client against the API itself: every model is what the API's document says, every method does its work."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest
from orders_server import Server
from pydantic import BaseModel

from aevorium.client import ApiProblem, Client, answers
from aevorium.client.events import Event, read_events


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    """Its requests go to the API's app without a network between them."""
    with Client("http://localhost", transport=server.transport(), token=server.token) as opened:
        yield opened


ANSWERS = [kind for _, kind in inspect.getmembers(answers, inspect.isclass) if kind.__module__ == answers.__name__]


@pytest.mark.parametrize("kind", [kind for kind in ANSWERS if not kind.__name__.startswith("_")])
def test_a_model_has_the_fields_that_the_api_s_document_says(server: Server, kind: type[BaseModel]):
    schemas = server.get("/openapi.json")["components"]["schemas"]
    assert set(schemas[kind.__name__]["properties"]) == set(kind.model_fields)


def test_a_run_is_ordered_watched_and_its_results_read(server: Server, client: Client):
    study = client.register_study("Clinic", schema_text=server.schema, choices={"epsilon": 2.0, "records": 1200})
    assert client.studies() == [study]
    assert client.me().permissions == ["audit", "budget", "generate", "keys", "read", "run"]
    assert client.plan(records=1200, nodes=2, schema_text=server.schema, choices={"epsilon": 2.0}).epsilon == 2.0
    run = client.order_run(study=study.id)
    with server.working():
        events = list(client.watch_run(run.id))
        assert events[-1].name == "ended"
        table = client.wait_for_table(client.order_table(run=run.id, rows=30, where="value > 5").id)
    assert [event.number for event in events[:-1]] == sorted({event.number for event in events[:-1]})
    assert client.run(run.id).state == "succeeded"
    assert client.wait_for_run(run.id).has_ended
    assert [each.id for each in client.runs()] == [run.id]
    assert client.model(run.id) == client.models()[0]
    assert client.statement() == client.statement(run.id)
    assert client.report() == client.report(run.id)
    assert client.report_page(run.id).startswith("<!")
    assert client.run_log(run.id).head
    assert {node.name for node in client.nodes()} == {"north", "south"}
    assert client.health().has_run
    assert client.verification().is_sound
    assert client.budget().nodes.keys() == {"north", "south"}
    assert [node.name for node in client.spending().periods[0].nodes] == ["north", "south"]
    assert (table.state, table.rows) == ("succeeded", 30)
    assert client.tables() == [table]
    frame = pd.read_csv(io.BytesIO(client.download(table.id)))
    assert client.preview(table.id, rows=2).rows == frame.head(2).to_numpy().tolist()
    assert client.card(table.id).sha256 == table.sha256
    assert str(table.sha256) in client.card_page(table.id)


def test_a_download_is_written_whole_and_checked(server: Server, client: Client, tmp_path: Path):
    table = client.tables()[0]
    path = client.download_to(table.id, tmp_path / "table.csv")
    assert path.read_bytes() == client.download(table.id)

    def tampered(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"changed", headers={"Repr-Digest": "sha-256=:AAAA:"})

    with Client("http://x", transport=httpx.MockTransport(tampered)) as other, pytest.raises(ApiProblem):
        other.download_to(table.id, tmp_path / "other.csv")
    assert not (tmp_path / "other.csv").exists()


def test_keys_and_planning_are_managed(client: Client):
    made = client.create_key("Ann", role="auditor", days=2)
    assert made.secret.startswith("aev_")
    assert client.revoke_key(made.id).revoked_at is not None
    listed = client.keys()
    assert [key.id for key in listed] == [made.id]
    assert client.set_planning_limit(9.0).limit == 9.0
    assert client.open_planning_period("next").period == "next"
    page = client.audit_log(action="api_key_created")
    assert [entry.detail["key"] for entry in page.entries] == [made.id]


def test_a_refusal_is_the_api_s_own_problem(server: Server, client: Client):
    with pytest.raises(ApiProblem) as caught:
        client.run("0" * 16)
    assert (caught.value.code, caught.value.status) == ("JOB_NOT_FOUND", 404)
    assert caught.value.hint
    with (
        Client("http://localhost", transport=server.transport()) as nobody,
        pytest.raises(ApiProblem) as refused,
    ):
        nobody.runs()
    assert refused.value.code == "UNAUTHENTICATED"


def test_an_order_without_an_answer_is_sent_again_with_the_same_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aevorium.client.api._PAUSE", 0)
    keys = []

    def broken(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        raise httpx.ReadError("gone")

    with Client("http://x", transport=httpx.MockTransport(broken)) as client, pytest.raises(ApiProblem) as caught:
        client.order_table(rows=1)
    assert caught.value.code == "API_UNREACHABLE"
    assert len(keys) == 4
    assert len(set(keys)) == 1


def test_a_broken_story_goes_on_after_the_last_event(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aevorium.client.api._PAUSE", 0)
    asked = []

    def tell(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["last-event-id"])
        if len(asked) == 2:
            raise httpx.ReadError("gone")
        text = "id: 7\nevent: a\ndata: {}\n\n" if len(asked) == 1 else 'event: ended\ndata: {"state": "stopped"}\n\n'
        return httpx.Response(200, text=text)

    with Client("http://x", transport=httpx.MockTransport(tell)) as client:
        events = list(client.watch_run("0" * 16))
    assert asked == ["0", "7", "7"]
    assert [event.name for event in events] == ["a", "ended"]


def test_what_is_no_answer_of_the_api_is_said_to_be_none():
    for answer in (httpx.Response(200, text="<html>"), httpx.Response(502, text="bad gateway")):
        transport = httpx.MockTransport(lambda _, answer=answer: answer)
        with Client("http://x", transport=transport) as client, pytest.raises(ApiProblem) as caught:
            client.health()
        assert caught.value.code == "API_UNKNOWN"


def test_events_are_read_as_the_standard_says():
    lines = [": note", "", "id: 1", "event: x", f"data: {json.dumps({'a': 1})}", "", "data: 1", ""]
    assert list(read_events(lines)) == [Event(1, "x", {"a": 1})]
