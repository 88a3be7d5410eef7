"""Time and traffic of an exchange: real processes over TLS on loopback, against the same apps in one process.

python benchmarks/federation/exchange.py [--nodes 2 5 10] [--megabytes 1] [--exchanges 10]

Each exchange sends one flat array to every node and brings one back from each; nodes do nothing else, so that what is
timed is the way. Prints one JSON line for each number of nodes. All processes share one machine: with more nodes than
cores, times are those of a crowded machine, and the ratio is what counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from aevorium.federation.identity import load_or_create_node_key, public_pem
from aevorium.federation.link import ServerLink
from aevorium.federation.local import run_in_process
from aevorium.federation.relay import NodeRelay, ServerDoor

_TIMEOUT = 120.0


def make_client() -> ClientApp:
    """A node that changes the array that it gets and sends it back."""
    app = ClientApp()

    @app.query("exchange")
    def exchange(message: Message, context: object) -> Message:
        array = message.content["arrays"].to_numpy_ndarrays()[0]
        changed = array + np.random.default_rng().standard_normal(len(array), dtype=np.float32)
        return Message(RecordDict({"arrays": ArrayRecord([changed])}), reply_to=message)

    return app


def make_server(*, size: int, exchanges: int, seconds: list[float]) -> ServerApp:
    """A server that times exchanges; the first, which also opens connections, is not counted."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: object) -> None:
        generator = np.random.default_rng(0)
        nodes = list(grid.get_node_ids())
        for number in range(exchanges + 1):
            array = generator.standard_normal(size, dtype=np.float32)
            began = time.perf_counter()
            messages = [
                Message(RecordDict({"arrays": ArrayRecord([array])}), node, "query.exchange", ttl=_TIMEOUT)
                for node in nodes
            ]
            replies = list(grid.send_and_receive(messages, timeout=_TIMEOUT))
            if len(replies) < len(nodes) or any(reply.has_error() for reply in replies):
                raise RuntimeError("an exchange failed")
            if number:
                seconds.append(time.perf_counter() - began)

    return app


def serve_node(folder: Path, *, name: str, address: str) -> None:
    """A node's process; ends when its input does."""
    key = load_or_create_node_key(folder / name / "node.key")
    door = ServerDoor(address, (folder / "ca.crt").read_bytes())
    with NodeRelay(door, name=name, private_key=key, folder=folder / name) as relay:
        if not relay.await_connection(timeout=_TIMEOUT):
            raise RuntimeError("not let in")
        relay.answer(make_client(), until=lambda: relay.seconds_away > 1)


def measure_processes(folder: Path, *, nodes: int, server: Callable[[], ServerApp]) -> tuple[int, int]:
    """Runs the exchanges between real processes; returns the bytes sent and received by the server."""
    with ServerLink(folder, host="127.0.0.1", port=0) as link:
        names = [f"node{number}" for number in range(nodes)]
        for name in names:
            key = load_or_create_node_key(folder / name / "node.key")
            (link.nodes_folder / f"{name}.pub").write_bytes(public_pem(key))
        link.enrol()
        started = [
            subprocess.Popen(  # noqa: S603 - this script
                [sys.executable, __file__, "--serve", name, "--at", link.address, "--in", str(folder)]
            )
            for name in names
        ]
        try:
            end = time.monotonic() + _TIMEOUT
            while len(link.online()) < nodes:
                if time.monotonic() > end:
                    raise RuntimeError("nodes do not come")
                time.sleep(0.2)
            link.conduct(server(), node_ids=link.online(), after=lambda grid: None)
            return link.traffic()
        finally:
            for process in started:
                process.terminate()
                process.wait()


def main() -> None:
    """Measures, and prints one JSON line for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--exchanges", type=int, default=10)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--at", help=argparse.SUPPRESS)
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_node(given.folder, name=given.serve, address=given.at)
        return
    size = int(given.megabytes * 2**20 / 4)
    for nodes in given.nodes:
        alone: list[float] = []
        server = make_server(size=size, exchanges=given.exchanges, seconds=alone)
        run_in_process(server, make_client(), nodes=[str(n) for n in range(nodes)], workers=2, run_config={})
        real: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            sent, received = measure_processes(
                Path(folder),
                nodes=nodes,
                server=lambda seconds=real: make_server(size=size, exchanges=given.exchanges, seconds=seconds),
            )
        answer = {
            "nodes": nodes,
            "megabytes": given.megabytes,
            "seconds_processes": round(statistics.median(real), 3),
            "seconds_one_process": round(statistics.median(alone), 4),
            "ratio": round(statistics.median(real) / statistics.median(alone), 1),
            "bytes_to_a_node": round(sent / nodes / (given.exchanges + 1)),
            "bytes_from_a_node": round(received / nodes / (given.exchanges + 1)),
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
