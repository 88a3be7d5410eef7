from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load.clients import Request, ask_all
from benchmarks.load.measure import _errors, _latencies
from benchmarks.load.report import markdown


class _Odd(BaseHTTPRequestHandler):
    """Answers what it is sent; every path that ends in 7 fails."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(self.path.encode())

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, content: bytes):
        self.send_response(500 if self.path.endswith("7") else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object):
        pass


@pytest.fixture
def port():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Odd)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_request_is_sent_once_and_each_answer_is_that_of_its_request(port):
    requests = [Request("read", "GET", f"/{number}") for number in range(60)]
    answers = asyncio.run(ask_all(requests, port=port, clients=5))
    assert sorted(answer.request.path for answer in answers) == sorted(request.path for request in requests)
    assert all(answer.body.decode() == answer.request.path for answer in answers)
    assert all(answer.seconds > 0 for answer in answers)
    assert _errors(answers) == {"read 500": 6}


def test_a_body_is_sent_as_json(port):
    (answer,) = asyncio.run(ask_all([Request("order", "POST", "/x", {"rows": 3})], port=port, clients=1))
    assert (answer.status, answer.body) == (200, b'{"rows": 3}')


def test_the_table_says_what_is_broken():
    result = {
        "requests": 100, "clients": 5, "cpu_ms_per_request": {"api": 3.0, "empty": 0.5}, "errors": {"health 500": 2},
        "errors_of_the_empty": {}, "orders": 3, "ends": {"succeeded": 3}, "lost": 1, "is_log_sound": False,
        "versions": {"aevorium commit": "abc", "python": "3.11"}, "cores": 2, "load_before": 0.5,
        "reads": {
            "empty application": {"ms": {"p50": 10.0, "p95": 20.0, "p99": 30.0}},
            "health": {"ms": {"p50": 30.0, "p95": 40.0, "p99": 30.0}, "ratio": {"p50": 3.0, "p95": 2.0, "p99": 1.0}},
        },
    }  # fmt: skip
    text = markdown(result)
    assert "| health | 30 | 40 | 30 | 3.0 | 2.0 | 1.0 |" in text
    for told in ("2 × health 500", "lost: 1", "BROKEN", "6.0 times"):
        assert told in text


def test_ratios_are_of_the_same_quantile(port):
    requests = [Request("health", "GET", f"/{number}") for number in range(40)]
    answers = asyncio.run(ask_all(requests, port=port, clients=2))
    found = _latencies(answers, answers)
    assert found["all reads"]["ratio"] == {"p50": 1.0, "p95": 1.0, "p99": 1.0}
