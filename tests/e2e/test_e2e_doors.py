"""What an outsider can do who reaches the server's ports: nothing."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from aevorium.federation.flower_internals.clients import Executor, SuperlinkControl
from aevorium.federation.identity import load_or_create_node_key, public_pem
from aevorium.federation.link import ServerLink
from aevorium.federation.relay import NodeRelay, ServerDoor

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerLink]:
    with ServerLink(tmp_path_factory.mktemp("federation"), host="127.0.0.1", port=0) as started:
        yield started


def _client(link: ServerLink) -> httpx.Client:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(link.authority.certificate_file)
    return httpx.Client(verify=context, trust_env=False)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/list-runs",
        "/v1/control/start-run",
        "/v1/control/stop-run",
        "/v1/control/list-nodes",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/pull-task-input",
        "/v1/runtime/push-messages",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/docs",
        "/openapi.json",
    ],
)
def test_the_public_door_serves_nothing_but_nodes(link: ServerLink, path: str) -> None:
    headers = {"content-type": "application/x-protobuf"}
    with _client(link) as client:
        assert client.get(f"https://{link.address}/health").status_code == 200
        for method in ("GET", "POST", "PUT"):
            answer = client.request(method, f"https://{link.address}{path}", content=b"", headers=headers)
            assert answer.status_code == 404, method


def test_too_large_a_request_is_refused_before_it_is_read(link: ServerLink) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(link.authority.certificate_file)
    host, port = link.address.rsplit(":", 1)
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
    connection.putrequest("POST", "/v1/fleet/push-object")
    connection.putheader("content-length", str(10**9))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_without_the_secrets_the_private_door_is_shut(link: ServerLink) -> None:
    private = link.private_address
    root = link.authority.certificate_file.read_bytes()
    control = SuperlinkControl(private, root_certificates=root, token="guessed")
    with pytest.raises(httpx.HTTPStatusError) as caught:
        control.nodes()
    assert caught.value.response.status_code == 401
    executor = Executor(private, secret=b"guessed" * 8, root_certificates=root)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        executor.acquire("flwr-serverapp")
    assert caught.value.response.status_code == 401
    control.close()
    executor.close()


def test_a_node_whose_key_was_not_given_is_not_let_in_and_one_whose_was_answers(
    link: ServerLink, tmp_path: Path
) -> None:
    door = ServerDoor(link.address, link.authority.certificate_file.read_bytes())
    stranger = load_or_create_node_key(tmp_path / "stranger" / "node.key")
    with NodeRelay(door, name="stranger", private_key=stranger, folder=tmp_path / "stranger") as relay:
        assert not relay.await_connection(timeout=30)
        assert not relay.is_alive
    assert link.online() == {}

    key = load_or_create_node_key(tmp_path / "friend" / "node.key")
    (link.nodes_folder / "friend.pub").write_bytes(public_pem(key))
    assert list(link.enrol()) == ["friend"]
    client, server, seen = ClientApp(), ServerApp(), []

    @client.query("plan")
    def plan(message: Message, context: object) -> Message:
        return Message(RecordDict({"c": ConfigRecord({"x": 2})}), reply_to=message)

    @server.main()
    def main(grid: Grid, context: object) -> None:
        # Once: node and server share a process here, and with it the identity under which Flower sends.
        messages = [Message(RecordDict(), node, "query.plan", ttl=60) for node in grid.get_node_ids()]
        replies = list(grid.send_and_receive(messages, timeout=60))
        seen.extend(reply.content["c"]["x"] for reply in replies)

    ended = threading.Event()
    with NodeRelay(door, name="friend", private_key=key, folder=tmp_path / "friend") as relay:
        assert relay.await_connection(timeout=30)
        answering = threading.Thread(target=relay.answer, args=(client,), kwargs={"until": ended.is_set})
        answering.start()
        link.conduct(server, node_ids=link.online(), after=lambda grid: None)
        ended.set()
        answering.join()
    assert seen == [2]


def test_a_server_with_another_authority_is_not_trusted(link: ServerLink, tmp_path: Path) -> None:
    from aevorium.federation.identity import Authority

    foreign = Authority(tmp_path)
    assert ServerDoor(link.address, link.authority.certificate_file.read_bytes()).is_open()
    assert not ServerDoor(link.address, foreign.certificate_file.read_bytes()).is_open()
