"""The dashboard's pages against an API that really listens, as Streamlit draws them."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from orders_server import START, Server
from streamlit.testing.v1 import AppTest

from aevorium.cli.app import main
from aevorium.client import ApiProblem, Client
from aevorium.client.answers import BudgetPage, Planning
from aevorium.dashboard import launch, overview, privacy, provider, session
from aevorium.dashboard.audit import export
from aevorium.dashboard.quality import framed
from aevorium.dashboard.wording import epsilon, epsilon_left, plain
from aevorium.errors import ConfigError
from aevorium.governance.chain import AuditChain, verify_entries
from aevorium.settings import load_settings

PAGES = {
    "overview": "Overview",
    "generate": "Generate data",
    "quality": "Data quality",
    "training": "Training history",
    "nodes": "Nodes",
    "privacy": "Privacy budget",
    "statement": "Privacy statement",
    "audit": "Audit log",
}


class Site:
    """An API on a port of its own, and what a test needs to sit before the dashboard."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url

    def key(self, role: str) -> str:
        return str(self.server.post("/v1/keys", {"name": role, "role": role}, status=201)["secret"])


@contextmanager
def listening(server: Server) -> Iterator[Site]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    web = uvicorn.Server(uvicorn.Config(server.client.app, host="127.0.0.1", port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=web.run)
    thread.start()
    while not web.started:
        time.sleep(0.02)
    try:
        yield Site(server, f"http://127.0.0.1:{port}")
    finally:
        web.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with listening(Server(tmp_path_factory.mktemp("empty"))) as site:
        yield site


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two runs that finished, one with rounds, and one that the nodes refused."""
    server = Server(tmp_path_factory.mktemp("finished"))
    with listening(server) as site, server.working():
        rounds = server.order_run(epsilon=1.5, records=1200, recipe="dp-sgd", rounds=2, epochs=1)
        plain_run = server.order_run(epsilon=1.0, records=1200, evaluation_share=0.1)
        refused = server.order_run(epsilon=9.0, records=1200)
        for run in (rounds, plain_run, refused):
            server.ended(f"/v1/runs/{run}")
        yield site


Open = Callable[..., AppTest]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a page, signed in if there is a key."""
    apps = []
    # Streamlit's own test stand has no browser that could be anywhere.
    monkeypatch.setattr("aevorium.dashboard.session.is_local", lambda: True)

    def open_page(page: str, url: str, *, key: str | None = None) -> AppTest:
        monkeypatch.setenv("AEVORIUM_API_URL", url)
        script = f"from aevorium.dashboard import {page}\nfrom aevorium.dashboard.app import frame\n"
        app = AppTest.from_string(f"{script}frame({PAGES[page]!r}, {page}.page)\n", default_timeout=30).run()
        apps.append(app)
        if key is not None:
            sign_in(app, key)
        assert not app.exception
        return app

    yield open_page
    for app in apps:
        if "_client" in app.session_state:
            app.session_state["_client"].close()


def sign_in(app: AppTest, key: str) -> None:
    app.sidebar.text_input[0].set_value(key)
    app.sidebar.button[0].click().run()


def said(app: AppTest) -> str:
    """All that the page says, without the backslashes that keep mark-up out."""
    kinds = (
        app.title, app.header, app.markdown, app.caption, app.info, app.warning, app.error, app.success, app.metric,
        app.button, app.selectbox, app.get("download_button"), app.get("progress"),
    )  # fmt: skip
    parts = []
    for kind in kinds:
        for element in kind:
            parts += [str(getattr(element, name, "") or "") for name in ("label", "value")]
            parts += getattr(element, "options", [])
            parts.append(str(element.proto) if element.type in ("download_button", "progress") else "")
    return "\n".join(parts).replace("\\", "")


def button(app: AppTest, label: str) -> Any:
    return next(each for each in app.button if each.label == label)


def choice(app: AppTest, label: str) -> Any:
    return next(each for each in app.selectbox if each.label == label)


@pytest.mark.parametrize(
    ("page", "first"),
    [
        ("overview", "No run has been ordered yet"),
        ("generate", "There is no model yet"),
        ("quality", "There is no model yet"),
        ("training", "No run has been ordered here yet"),
        ("nodes", "north"),
        ("privacy", "Nothing is spent yet"),
        ("statement", "There is no model yet"),
        ("audit", "The log is empty"),
    ],
)
def test_a_page_with_nothing_on_it_says_what_to_do_first(empty: Site, opened: Open, page: str, first: str):
    app = opened(page, empty.url, key=START)
    text = said(app)
    assert first in text
    assert not app.error
    if page not in ("training", "nodes"):
        assert "Order a run" in [each.label for each in app.button]


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        ("overview", ["Needs attention", "failed. Phase 'plan' failed", "1.000", "finished"]),
        ("generate", ["clinic, ε 1.000", "Make the table"]),
        # No verdict is asked for: with 1,200 patients it is a matter of the noise that was drawn.
        ("quality", ["Distance to the released one-way tables, mean |", "Good: at most 0.02", "would have to move"]),
        ("training", ["as set", "dp-sgd", "failed", "Lower --epsilon", "Model card", "Checkpoints"]),
        ("nodes", ["north", "south", "on this server", "2 of 2 nodes"]),
        ("privacy", ["of 5.000 spent in its period", "no limit", "At least 2 runs", "Set the limit"]),
        ("statement", ["ε 1.000", "1e-05", "Neighbouring tables", "What it rests on", "Simulated federation"]),
        ("audit", ["Head of the whole log", "Verify"]),
    ],
)
def test_a_page_shows_what_came_of_the_runs(finished: Site, opened: Open, page: str, texts: list[str]):
    app = opened(page, finished.url, key=START)
    text = said(app)
    missing = [each for each in texts if each not in text]
    assert not missing, text


@pytest.mark.parametrize("page", PAGES)
def test_a_page_without_the_api_says_so_and_offers_to_try_again(opened: Open, page: str):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        app = opened(page, f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert len(app.error) == 1
        assert "does not answer" in app.error[0].value
        assert "aevorium api" in app.error[0].value
        button(app, "Try again").click().run()
        assert "does not answer" in app.error[0].value
        assert not app.exception


@pytest.mark.parametrize(
    ("page", "role", "refusal"),
    [
        ("generate", "auditor", "A steward, an engineer or a researcher can."),
        ("training", "researcher", "A steward or an engineer can."),
        ("privacy", "engineer", "A steward can."),
        ("audit", "researcher", "A steward, an engineer or an auditor can."),
    ],
)
def test_a_role_that_may_not_is_told_which_may(finished: Site, opened: Open, page: str, role: str, refusal: str):
    log = finished.server.get("/v1/audit", action="access_denied")["entries"]
    app = opened(page, finished.url, key=finished.key(role))
    assert refusal in said(app)
    # Nothing was asked for that would be refused: looking at a page leaves no mark in the audit log.
    assert finished.server.get("/v1/audit", action="access_denied")["entries"] == log


@pytest.mark.parametrize("page", PAGES)
def test_without_a_key_this_machine_sees_what_is_open_to_it(finished: Site, opened: Open, page: str):
    text = said(opened(page, finished.url))
    assert "Sign in" in text
    if page in ("overview", "privacy", "audit"):
        assert {"overview": "ε of the newest run", "privacy": "of 5.000 spent", "audit": "Head of the"}[page] in text


def test_without_a_key_another_machine_sees_nothing(finished: Site, opened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aevorium.dashboard.session.is_local", lambda: False)
    app = opened("privacy", finished.url)
    assert "spent in its period" not in said(app)
    assert "Sign in to see this page." in said(app)
    app.text_input[0].set_value(START)
    button(app, "Sign in").click().run()
    assert "spent in its period" in said(app)


def test_many_nodes_near_their_limit_need_attention_in_one_line():
    planning = Planning(period="1", limit=None, ordered=0, opened_at=None, note="")
    nodes = {f"clinic {number}": {"limit": 1.0, "left": 0.01} for number in range(40)}
    nodes["rested"] = {"limit": 1.0, "left": 0.5}
    (line,) = overview._near_limit(BudgetPage(nodes=nodes, planning=planning))
    assert "clinic 4 (ε 0.010 of 1.000) and 35 more" in line


def test_where_no_run_fits_none_is_promised():
    assert privacy._runs(0.0, 1.0) == "**No run**"
    assert privacy._runs(1.0, 1.0) == "**At least 1 run**"


def test_a_wrong_key_is_refused_and_a_revoked_one_signed_out(finished: Site, opened: Open):
    app = opened("nodes", finished.url, key="no-such-key")
    assert "not accepted" in app.error[0].value
    made = finished.server.post("/v1/keys", {"name": "Ann", "role": "auditor"}, status=201)
    sign_in(app, made["secret"])
    assert f"Signed in as key {made['id']}" in said(app)
    finished.server.client.delete(f"/v1/keys/{made['id']}")
    app.run()
    assert "no longer accepted" in said(app)
    assert "_client" not in app.session_state


def test_signing_out_forgets_the_key(finished: Site, opened: Open):
    app = opened("nodes", finished.url, key=START)
    signed_in = app.session_state["_client"]
    button(app, "Sign out").click().run()
    assert app.session_state["_client"] is not signed_in
    with pytest.raises(ApiProblem, match="names nobody"):
        app.session_state["_client"].nodes()
    assert "Sign in to see this page." in said(app)


def test_a_table_is_ordered_made_seen_and_downloaded(finished: Site, opened: Open):
    app = opened("generate", finished.url, key=START)
    app.number_input[0].set_value(40)
    app.text_input[0].set_value("valu > 5")
    button(app, "Make the table").click().run()
    assert "valu" in app.error[0].value
    app.text_input[0].set_value("value > 5")
    button(app, "Make the table").click().run()
    assert not app.error
    deadline = time.monotonic() + 60
    while not app.dataframe and time.monotonic() < deadline:
        time.sleep(0.2)
        app.run()
    shown = app.dataframe[0].value
    assert list(shown.columns) == ["value", "sick"]
    assert len(shown) == 40
    assert (shown["value"] > 5).all()
    labels = [each.proto.label for each in app.get("download_button")]
    assert labels[0].startswith("Download (csv")
    assert labels[1] == "Data card"
    assert "value > 5" in said(app)


def test_a_limit_is_set_and_a_period_opened_with_confirmation(empty: Site, opened: Open):
    app = opened("privacy", empty.url, key=START)
    limit = next(each for each in app.number_input if each.label == "ε of all its runs")
    limit.set_value(7.5)
    button(app, "Set the limit").click().run()
    assert {each.label: each.value for each in app.metric}["Limit"] == "7.500"
    app.text_input[0].set_value("autumn")
    button(app, "Open the period").click().run()
    assert "Tick the box" in app.error[0].value
    app.checkbox[1].set_value(True)
    button(app, "Open the period").click().run()
    assert {each.label: each.value for each in app.metric}["Period"] == "autumn"
    actions = [entry["action"] for entry in empty.server.get("/v1/audit")["entries"]]
    assert actions[-2:] == ["planning_limit_set", "planning_period_opened"]
    app.checkbox[0].set_value(True)
    button(app, "Set the limit").click().run()
    assert {each.label: each.value for each in app.metric}["Limit"] == "none"


def test_earlier_periods_are_shown_with_what_was_spent_in_them(tmp_path: Path, opened: Open):
    server = Server(tmp_path)
    with listening(server) as site, server.working():
        run = server.order_run(epsilon=1.0, records=1200, evaluation_share=0.1)
        server.ended(f"/v1/runs/{run}")
        first = said(opened("privacy", site.url, key=START))
        assert "one-way histograms" in first
        assert "| evaluation" in first
        assert "Periods" not in first
        server.post("/v1/budgets/periods", {"label": "winter"}, status=201)
        app = opened("privacy", site.url, key=START)
        assert "Nothing was spent in this period yet." in said(app)
        chosen = choice(app, "Planning period")
        assert [label.split(" ")[0] for label in chosen.options] == ["winter", "1"]
        chosen.select_index(1).run()
        text = said(app)
        assert "| one-way histograms |" in text
        table = text[text.index("| period | opened") :]
        assert table.index("| winter |") < table.index("| 1 |")
        assert not app.exception


def test_a_plan_says_what_a_run_would_cost(finished: Site, opened: Open):
    app = opened("privacy", finished.url, key=finished.key("auditor"))
    button(app, "Plan it").click().run()
    assert "ε 3.000" in said(app)
    assert "two-sided geometric noise" in said(app)


def test_a_run_is_ordered_watched_and_stopped(empty: Site, opened: Open):
    app = opened("training", empty.url, key=START)
    button(app, "Order the run").click().run()
    assert "waits its turn" in said(app)
    app.checkbox(key="stop-sure").set_value(True).run()
    button(app, "Stop the run").click().run()
    app.run()
    assert "It was stopped" in said(app)
    assert [run["state"] for run in empty.server.get("/v1/runs")["runs"]] == ["stopped"]


def test_two_runs_are_compared_what_differs_first(finished: Site, opened: Open):
    text = said(opened("training", finished.url, key=START))
    table = text[text.index("first (") :]
    assert table.index("| ε |") < table.index("| Study |")
    assert "| dp-sgd | warm-start |" in table


def test_the_log_is_verified_filtered_and_exported_whole(finished: Site, opened: Open):
    app = opened("audit", finished.url, key=START)
    button(app, "Verify").click().run()
    assert "Everything that could be checked holds." in app.success[0].value
    app.selectbox(key="audit-action").set_value("run_ended").run()
    assert set(app.dataframe[0].value["action"]) == {"run_ended"}
    with Client(finished.url, token=START) as client:
        assert client.audit_log(limit=1).head in export(client)
        assert '"run_ordered"' in export(client)


def _seed(server: Server, *, entries: int) -> str:
    """Makes the server's log this long, in one transaction; every hundredth entry is a period. Returns the head."""
    chain = AuditChain(server.workspace.create().database, key=server.secrets.log)
    with chain._database.write() as connection, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain._database, "write", lambda: nullcontext(connection))
        for number in range(1, entries + 1):
            action = "planning_period_opened" if number % 100 == 0 else "run_ordered"
            detail = {"job": f"{number:016x}", "period": str(number), "limit": None}
            last = chain.append(actor="key 1", action=action, detail=detail)
    return last.hash


class _Asked:
    """What the pages ask of the audit log: each request, and how many entries came of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[tuple[int, int, str | None, int]] = []
        ask = Client.audit_log

        def asked(client: Client, *, after: int = 0, limit: int = 100, action: str | None = None) -> Any:
            found = ask(client, after=after, limit=limit, action=action)
            self.requests.append((after, limit, action, len(found.entries)))
            return found

        monkeypatch.setattr(Client, "audit_log", asked)

    def taken(self) -> list[tuple[int, int, str | None, int]]:
        taken, self.requests = self.requests, []
        return taken


@pytest.mark.long
def test_a_log_of_ten_thousand_entries_is_asked_for_by_the_page(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    server = Server(tmp_path)
    head = _seed(server, entries=10_000)
    with listening(server) as site:
        app = opened("audit", site.url, key=START)
        asked = _Asked(monkeypatch)
        app.run()
        assert asked.taken() == [(0, 50, None, 50)]
        assert list(app.dataframe[0].value["number"]) == list(range(1, 51))
        assert head in said(app)
        button(app, "Later").click().run()
        button(app, "Later").click().run()
        assert asked.taken() == [(50, 50, None, 50), (100, 50, None, 50)]
        assert list(app.dataframe[0].value["number"]) == list(range(101, 151))
        # Another action begins at its own first page.
        app.selectbox(key="audit-action").set_value("planning_period_opened").run()
        assert asked.taken() == [(0, 50, "planning_period_opened", 50)]
        assert list(app.dataframe[0].value["number"]) == list(range(100, 5_001, 100))
        button(app, "Later").click().run()
        assert asked.taken() == [(5_000, 50, "planning_period_opened", 50)]
        assert list(app.dataframe[0].value["number"])[-1] == 10_000
        with Client(site.url, token=START) as client:
            whole = json.loads(export(client))
    assert [(after, limit) for after, limit, _, _ in asked.taken()] == [(after, 500) for after in range(0, 10_000, 500)]
    assert (len(whole["entries"]), whole["head"]) == (10_000, head)
    assert verify_entries(whole["entries"], expected_head=head).is_sound


def test_long_lists_are_read_in_pages(empty: Site, opened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aevorium.dashboard.paging.LINES", 2)
    for _ in range(3):
        empty.server.order_run(records=1200)
    app = opened("training", empty.url, key=START)
    first = choice(app, "Look at").options
    button(app, "Older").click().run()
    second = choice(app, "Look at").options
    assert len(first) == 2
    assert not set(first) & set(second)


def test_the_client_reads_a_story_without_waiting_for_its_end(empty: Site, finished: Site):
    run = empty.server.order_run(records=1200)
    with Client(empty.url, token=START) as client:
        started = time.monotonic()
        assert [event.name for event in client.run_story(run)] == []
        assert time.monotonic() - started < 5
        with pytest.raises(ApiProblem) as refused:
            client.order_table(rows=0)
    assert list(refused.value.invalid) == ["body.rows"]
    with Client(finished.url, token=START) as client:
        story = client.run_story(client.runs()[1].id)
        assert story[-1].name == "ended"
        assert client.run_story(client.runs()[1].id, after=story[-2].number or 0) == story[-1:]
        assert client.me().name == "start token"


@pytest.mark.parametrize(
    ("address", "headers", "expected"),
    [
        (None, {"host": "localhost:8501"}, True),
        (None, {"host": "127.0.0.1:8501"}, True),
        (None, {"host": "[::1]:8501"}, True),
        ("192.0.2.7", {"host": "localhost:8501"}, False),
        (None, {"host": "rebound.example:8501"}, False),
        (None, {"host": "localhost:8501", "x-forwarded-for": "192.0.2.7"}, False),
    ],
)
def test_only_a_browser_of_this_machine_is_local(
    monkeypatch: pytest.MonkeyPatch, address: str | None, headers: dict[str, str], expected: bool
):
    monkeypatch.setattr("streamlit.context", SimpleNamespace(ip_address=address, headers=headers))
    assert session.is_local() is expected


def test_what_others_wrote_cannot_become_mark_up():
    text = "![x](http://elsewhere.example/p.png) <b> :red[a] $x$ |\nb"
    assert "](" not in plain(text).replace("\\](", "]\\(").replace("]\\(", "")
    for mark in "![]()<>:$|":
        assert all(before == "\\" for before, each in zip(" " + plain(text), plain(text), strict=False) if each == mark)


def test_epsilon_is_rounded_to_the_safe_side():
    assert [epsilon(value) for value in (1.0, 0.55580001, "Infinity", None)] == ["1.000", "0.556", "∞", "–"]
    assert [epsilon_left(value) for value in (2.0989, 0.3, 1234.5)] == ["2.098", "0.300", "1,234.500"]


def test_the_report_is_framed_without_an_origin():
    page = framed('<script>"x" </iframe></script>')
    assert 'sandbox="allow-scripts"' in page
    assert "allow-same-origin" not in page
    assert page.count("</iframe>") == 1


def test_the_command_starts_streamlit_on_this_machine_alone(monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []
    monkeypatch.setenv("AEVORIUM_API_URL", "http://other.example")
    monkeypatch.setattr("streamlit.web.cli.main", lambda arguments, **_: asked.append(arguments))
    assert main(["dashboard", "--api", "https://aevorium.example", "--port", "9001"]) == 0
    assert asked == [["run", str(launch.SCRIPT), "--server.address=localhost", "--server.port=9001"]]
    assert session.api_url() == "https://aevorium.example"
    assert main(["dashboard", "--api", "aevorium.example"]) == 2


def test_both_ways_to_start_it_have_the_same_settings():
    root = Path(__file__).parents[2]
    beside = launch.SCRIPT.parent / ".streamlit" / "config.toml"
    assert (root / "dashboard" / ".streamlit" / "config.toml").read_text() == beside.read_text()
    settings = tomllib.loads(beside.read_text())
    assert settings["server"]["address"] == "localhost"
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["client"]["showErrorDetails"] == "none"


_SIGN_IN = {
    "oidc_issuer": "https://id.example/staff",
    "oidc_audience": "aevorium",
    "oidc_client": "dashboard",
    "dashboard_url": "https://study.example",
}


def _introduced(monkeypatch: pytest.MonkeyPatch, **flags: object) -> dict[str, Any]:
    """What Streamlit is told of the provider."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "streamlit.runtime.secrets.Secrets.merge_programmatic_secrets", lambda _, secrets: told.append(secrets)
    )
    provider.introduce(load_settings({**_SIGN_IN, **flags}).values, port=8501)
    found: dict[str, Any] = told[0]["auth"]
    return found


def test_the_provider_is_introduced_from_the_settings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "secret").write_text("of a file\n")
    found = _introduced(monkeypatch, oidc_client_secret_file=tmp_path / "secret")
    assert found["redirect_uri"] == "https://study.example/oauth2callback"
    assert found["expose_tokens"] == ["access"]
    assert found["issuer"] == {
        "client_id": "dashboard",
        "client_secret": "of a file",
        "server_metadata_url": "https://id.example/staff/.well-known/openid-configuration",
        "client_kwargs": {"scope": "openid profile email", "code_challenge_method": "S256"},
    }
    again = _introduced(monkeypatch, oidc_client_secret_file=tmp_path / "secret", dashboard_url=None)
    assert again["redirect_uri"] == "http://localhost:8501/oauth2callback"
    assert len(again["cookie_secret"]) == 64
    assert again["cookie_secret"] != found["cookie_secret"]
    monkeypatch.setenv("AEVORIUM_OIDC_CLIENT_SECRET", "of the environment")
    wins = _introduced(monkeypatch, oidc_client_secret_file=tmp_path / "secret")
    assert wins["issuer"]["client_secret"] == "of the environment"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"oidc_issuer": None}, "AEVORIUM_OIDC_ISSUER"),
        ({"oidc_issuer": "http://id.example"}, "AEVORIUM_OIDC_ISSUER"),
        ({}, "AEVORIUM_OIDC_CLIENT_SECRET_FILE"),
        ({"oidc_client_secret_file": "no-such-file"}, "AEVORIUM_OIDC_CLIENT_SECRET_FILE"),
        ({"oidc_client_secret_file": os.devnull}, "AEVORIUM_OIDC_CLIENT_SECRET_FILE"),
    ],
)
def test_a_provider_that_is_half_configured_stops_the_start(
    flags: dict[str, object], named: str, monkeypatch: pytest.MonkeyPatch
):
    if flags.get("oidc_issuer", ...) is None:
        monkeypatch.setitem(_SIGN_IN, "oidc_issuer", None)
    with pytest.raises(ConfigError) as refused:
        _introduced(monkeypatch, **flags)
    assert named in f"{refused.value.message} {refused.value.hint}"
    assert refused.value.code == "CONFIG_INVALID"


def test_a_clients_secret_is_no_part_of_a_file_of_settings_nor_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aevorium.toml").write_text('oidc_client_secret = "never-here"\n')
    assert main(["config", "show"]) == 2
    (tmp_path / "aevorium.toml").unlink()
    monkeypatch.setenv("AEVORIUM_OIDC_CLIENT_SECRET", "never-shown")
    assert main(["config", "show", "--json"]) == 0
    told = "".join(capsys.readouterr())
    assert "never-here" not in told
    assert "never-shown" not in told


def test_only_a_token_that_says_so_has_expired():
    def token(claims: object) -> str:
        return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.x"

    now = time.time()
    for claims, expected in ({"exp": now - 60}, True), ({"exp": now - 10}, False), ({"exp": now + 60}, False):
        assert provider.has_expired(token(claims)) is expected
    for text in ("opaque", "a.b.c", "..", token([1]), token({"exp": "soon"}), token({})):
        assert not provider.has_expired(text)
