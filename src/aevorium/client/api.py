"""`Client`: every operation of the REST API as a method."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from aevorium.client import answers
from aevorium.client.events import Event, read_events
from aevorium.workspace import write_atomically

__all__ = ["ApiProblem", "Client"]

Answer = TypeVar("Answer", bound=BaseModel)

_TRIES = 4
_PAUSE = 0.5
_PAGE = 200
_SILENCE = 0.3
"""Seconds: less than the API lets pass before it looks for more."""
_UNREACHABLE = 503


class ApiProblem(Exception):
    """The API refused, failed, or cannot be reached.

    Attributes:
        code: Of the error catalogue; API_UNREACHABLE or API_UNKNOWN if the API did not say one.
        status: The HTTP status; 503 if there was no answer.
        detail: What happened, and why.
        hint: What to do.
        retry_after: Seconds after which to ask again, if the API said so.
        invalid: What is wrong with which field of the request, such as `body.rows`.
    """

    def __init__(
        self,
        *,
        code: str,
        status: int,
        detail: str,
        hint: str = "",
        retry_after: float | None = None,
        invalid: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{detail} {hint}".strip())
        self.code = code
        self.status = status
        self.detail = detail
        self.hint = hint
        self.retry_after = retry_after
        self.invalid = dict(invalid or {})


class Client:
    """The API of a server. Orders are sent with idempotency keys, so that one sent twice is done once.

    Args:
        url: Where it is, such as `http://localhost:8000`.
        token: An API key, or a token of the identity provider; None asks as nobody.
        timeout: Seconds for one answer.
        transport: Carries the requests; for tests.

    Every method raises `ApiProblem`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    # What there is

    def health(self) -> answers.Health:
        """Whether the API works."""
        return self._get("/health", answers.Health)

    def me(self) -> answers.MeView:
        """Who asks, and what they may do."""
        return self._get("/v1/me", answers.MeView)

    def nodes(self) -> list[answers.NodeView]:
        """Every node."""
        pages = self._pages("/v1/nodes", answers.NodePage, cursor="after")
        return [node for page in pages for node in page.nodes]

    def budget(self) -> answers.BudgetPage:
        """What nodes have spent, and the server's planning view."""
        return self._get("/v1/budgets", answers.BudgetPage)

    def spending(self) -> answers.SpendingPage:
        """What nodes have spent, by planning period and purpose."""
        return self._get("/v1/budgets/spending", answers.SpendingPage)

    def set_planning_limit(self, limit: float | None) -> answers.Planning:
        """Limits the ε that may be ordered in the open planning period; None sets no limit."""
        return self._post("/v1/budgets/limit", answers.Planning, {"limit": limit})

    def open_planning_period(self, label: str | None = None, *, limit: float | None = None) -> answers.Planning:
        """Opens a planning period.

        Args:
            label: What it is called; the next number if None.
            limit: Its limit; as before if None.
        """
        return self._post("/v1/budgets/periods", answers.Planning, _given(label=label, limit=limit))

    # Studies, plans, runs

    def studies(self) -> list[answers.StudyView]:
        """Every study, newest first."""
        return [study for page in self._pages("/v1/studies", answers.StudyPage) for study in page.studies]

    def register_study(
        self, name: str, *, schema_text: str | None = None, choices: Mapping[str, Any] | None = None
    ) -> answers.StudyView:
        """Registers a study.

        Args:
            name: What people call it.
            schema_text: Its schema as TOML; that of Synthea exports if None.
            choices: Privacy target and recipe, as the API names them.
        """
        body = _given(name=name, schema_text=schema_text, choices=choices)
        return self._post("/v1/studies", answers.StudyView, body)

    def plan(
        self,
        *,
        records: int,
        nodes: int,
        schema_text: str | None = None,
        choices: Mapping[str, Any] | None = None,
    ) -> answers.PlanView:
        """What a run would cost, before any record is read."""
        body = _given(records=records, nodes=nodes, schema_text=schema_text, choices=choices)
        return self._post("/v1/plans", answers.PlanView, body)

    def order_run(
        self,
        *,
        study: str | None = None,
        schema_text: str | None = None,
        choices: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> answers.RunView:
        """Orders a run.

        Args:
            study: Id of the study that it is a run of; then nothing else is given.
            schema_text: Instead, a schema as TOML; that of Synthea exports if None.
            choices: Privacy target and recipe.
            idempotency_key: Names the order; a new one if None.
        """
        body = _given(study=study, schema_text=schema_text, choices=choices)
        return self._order("/v1/runs", answers.RunView, body, key=idempotency_key)

    def runs(self) -> list[answers.RunView]:
        """Every run that was ordered, newest first."""
        return [run for page in self._pages("/v1/runs", answers.RunPage) for run in page.runs]

    def run_page(self, *, before: int | None = None, limit: int = 50) -> answers.RunPage:
        """A page of them.

        Args:
            before: `next` of the page before; the newest if None.
            limit: How many at most.
        """
        return self._get("/v1/runs", answers.RunPage, params=_given(before=before, limit=limit))

    def run(self, run_id: str) -> answers.RunView:
        """One run."""
        return self._get(f"/v1/runs/{run_id}", answers.RunView)

    def stop_run(self, run_id: str) -> answers.RunView:
        """Asks a run to stop."""
        return self._post(f"/v1/runs/{run_id}/stop", answers.RunView)

    def watch_run(self, run_id: str, *, after: int = 0) -> Iterator[Event]:
        """What a run tells until it ends, over broken connections too.

        Args:
            run_id: The run.
            after: Only what came after this event.
        """
        return self._watch(f"/v1/runs/{run_id}/events", after=after)

    def run_story(self, run_id: str, *, after: int = 0) -> list[Event]:
        """What a run has told so far, without waiting for more.

        Args:
            run_id: The run.
            after: Only what came after this event.
        """
        return self._story(f"/v1/runs/{run_id}/events", after=after)

    def wait_for_run(self, run_id: str) -> answers.RunView:
        """The run, when it has ended."""
        for _ in self.watch_run(run_id):
            pass
        return self.run(run_id)

    def models(self) -> list[answers.ModelView]:
        """Every model that rows can be drawn from, newest first."""
        return [model for page in self._pages("/v1/models", answers.ModelPage) for model in page.models]

    def model(self, run_id: str) -> answers.ModelView:
        """The model of a run."""
        return self._get(f"/v1/models/{run_id}", answers.ModelView)

    def statement(self, run_id: str | None = None) -> dict[str, Any]:
        """The privacy statement of a run, or of the newest."""
        return self._json(_of_run(run_id, "statement"))

    def report(self, run_id: str | None = None) -> dict[str, Any]:
        """The report of a run, or of the newest."""
        return self._json(_of_run(run_id, "report"))

    def report_page(self, run_id: str | None = None) -> str:
        """The same as a page for people."""
        return self._send("GET", _of_run(run_id, "report.html")).text

    def run_log(self, run_id: str) -> answers.AuditPage:
        """A run's own audit log, all of it on one page."""
        pages = list(self._pages(f"/v1/runs/{run_id}/audit", answers.AuditPage, cursor="after"))
        return pages[-1].model_copy(update={"entries": [entry for page in pages for entry in page.entries]})

    # Tables

    def order_table(
        self,
        *,
        run: str | None = None,
        rows: int | None = None,
        where: str | None = None,
        balance: str | None = None,
        seed: int = 0,
        format: Literal["csv", "parquet"] = "csv",
        idempotency_key: str | None = None,
    ) -> answers.DatasetView:
        """Orders a table of synthetic rows.

        Args:
            run: Id of the run whose model makes them; the newest if None.
            rows: How many; as many as the noisy total of patients if None.
            where: Only rows that meet this condition.
            balance: Equal numbers of rows for each category of this column.
            seed: Fixes the rows.
            format: Kind of the file.
            idempotency_key: Names the order; a new one if None.
        """
        body = _given(run=run, rows=rows, where=where, balance=balance, seed=seed, format=format)
        return self._order("/v1/datasets", answers.DatasetView, body, key=idempotency_key)

    def tables(self) -> list[answers.DatasetView]:
        """Every table that was ordered, newest first."""
        return [table for page in self._pages("/v1/datasets", answers.DatasetPage) for table in page.datasets]

    def table_page(self, *, before: int | None = None, limit: int = 50) -> answers.DatasetPage:
        """A page of them.

        Args:
            before: `next` of the page before; the newest if None.
            limit: How many at most.
        """
        return self._get("/v1/datasets", answers.DatasetPage, params=_given(before=before, limit=limit))

    def table(self, table_id: str) -> answers.DatasetView:
        """One table."""
        return self._get(f"/v1/datasets/{table_id}", answers.DatasetView)

    def stop_table(self, table_id: str) -> answers.DatasetView:
        """Asks for no more of a table."""
        return self._post(f"/v1/datasets/{table_id}/stop", answers.DatasetView)

    def watch_table(self, table_id: str, *, after: int = 0) -> Iterator[Event]:
        """What a table tells until it is made, over broken connections too."""
        return self._watch(f"/v1/datasets/{table_id}/events", after=after)

    def table_story(self, table_id: str, *, after: int = 0) -> list[Event]:
        """What a table has told so far, without waiting for more."""
        return self._story(f"/v1/datasets/{table_id}/events", after=after)

    def wait_for_table(self, table_id: str) -> answers.DatasetView:
        """The table, when it is made or has failed."""
        for _ in self.watch_table(table_id):
            pass
        return self.table(table_id)

    def preview(self, table_id: str, *, rows: int = 20) -> answers.Preview:
        """The first rows of a table, 100 at most."""
        return self._get(f"/v1/datasets/{table_id}/preview", answers.Preview, params={"rows": rows})

    def download(self, table_id: str) -> bytes:
        """The file of a table, whose checksum was compared with what the API says."""
        answer = self._send("GET", f"/v1/datasets/{table_id}/download")
        digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
        if answer.headers.get("repr-digest") != f"sha-256=:{digest}:":
            raise ApiProblem(
                code="API_UNKNOWN",
                status=answer.status_code,
                detail="The file differs from its checksum.",
                hint="Try again.",
            )
        return answer.content

    def download_to(self, table_id: str, path: Path) -> Path:
        """Writes the file of a table; it appears whole or not at all."""
        content = self.download(table_id)
        with write_atomically(path) as temporary:
            temporary.write_bytes(content)
        return path

    def card(self, table_id: str) -> answers.DataCard:
        """The data card of a table."""
        return self._get(f"/v1/datasets/{table_id}/card", answers.DataCard)

    def card_page(self, table_id: str) -> str:
        """The same as Markdown."""
        return self._send("GET", f"/v1/datasets/{table_id}/card.md").text

    # Audit log and keys

    def audit_log(self, *, after: int = 0, limit: int = 100, action: str | None = None) -> answers.AuditPage:
        """A page of the server's audit log, oldest entry first."""
        params = _given(after=after, limit=limit, action=action)
        return self._get("/v1/audit", answers.AuditPage, params=params)

    def verification(self) -> answers.Verification:
        """Whether chains, ledgers, budget and statement agree."""
        return self._get("/v1/audit/verification", answers.Verification)

    def keys(self) -> list[answers.KeyView]:
        """Every API key, without secrets."""
        pages = self._pages("/v1/keys", answers.KeyPage, cursor="after")
        return [key for page in pages for key in page.keys]

    def create_key(self, name: str, *, role: str, days: int | None = None) -> answers.MadeKey:
        """Makes an API key."""
        return self._post("/v1/keys", answers.MadeKey, _given(name=name, role=role, days=days))

    def revoke_key(self, key_id: str) -> answers.KeyView:
        """Refuses an API key from now on."""
        return _read(self._send("DELETE", f"/v1/keys/{key_id}"), answers.KeyView)

    # How it is asked

    def _get(self, path: str, kind: type[Answer], *, params: Mapping[str, Any] | None = None) -> Answer:
        return _read(self._send("GET", path, params=params), kind)

    def _json(self, path: str) -> dict[str, Any]:
        content: dict[str, Any] = self._send("GET", path).json()
        return content

    def _post(self, path: str, kind: type[Answer], body: Mapping[str, Any] | None = None) -> Answer:
        return _read(self._send("POST", path, json=body), kind)

    def _order(self, path: str, kind: type[Answer], body: Mapping[str, Any], *, key: str | None) -> Answer:
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        for attempt in range(1, _TRIES + 1):
            try:
                return _read(self._send("POST", path, json=body, headers=headers), kind)
            except ApiProblem as problem:
                # No answer does not say that nothing was done: the same key makes asking again safe.
                if problem.code != "API_UNREACHABLE" or attempt == _TRIES:
                    raise
                time.sleep(_PAUSE * attempt)
        raise AssertionError("unreachable")

    def _pages(self, path: str, kind: type[Answer], *, cursor: str = "before") -> Iterator[Answer]:
        place: int | None = None
        while True:
            page = self._get(path, kind, params=_given(limit=_PAGE, **{cursor: place}))
            yield page
            place = getattr(page, "next", None)
            if place is None:
                return

    def _watch(self, path: str, *, after: int) -> Iterator[Event]:
        silent = 0
        while True:
            try:
                headers = {"Last-Event-ID": str(after)}
                with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(30.0)) as answer:
                    if answer.is_error:
                        answer.read()
                        raise _problem(answer)
                    for event in read_events(answer.iter_lines()):
                        silent = 0
                        after = event.number or after
                        yield event
                        if event.name == "ended":
                            return
            except httpx.TransportError as error:
                silent += 1
                if silent >= _TRIES:
                    raise _unreachable(error) from error
                time.sleep(_PAUSE * silent)

    def _story(self, path: str, *, after: int) -> list[Event]:
        """What is there at once: the stream stays open for more, so a short silence counts as its end."""
        told: list[Event] = []
        try:
            headers = {"Last-Event-ID": str(after)}
            with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(30.0, read=_SILENCE)) as answer:
                if answer.is_error:
                    answer.read()
                    raise _problem(answer)
                for event in read_events(answer.iter_lines()):
                    told.append(event)
                    if event.name == "ended":
                        break
        except httpx.ReadTimeout:
            return told
        except httpx.TransportError as error:
            raise _unreachable(error) from error
        return told

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, params=params, json=json, headers=headers)
        except httpx.TransportError as error:
            raise _unreachable(error) from error
        if answer.is_error:
            raise _problem(answer)
        return answer


def _given(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _of_run(run_id: str | None, name: str) -> str:
    return f"/v1/{name}" if run_id is None else f"/v1/runs/{run_id}/{name}"


def _read(answer: httpx.Response, kind: type[Answer]) -> Answer:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        raise ApiProblem(
            code="API_UNKNOWN",
            status=answer.status_code,
            detail="The answer is not one of Aevorium's API.",
            hint="Check the address, and that client and server are of the same version.",
        ) from error


def _problem(answer: httpx.Response) -> ApiProblem:
    invalid: dict[str, str] = {}
    try:
        content = answer.json()
        code, detail, hint = str(content["code"]), str(content["detail"]), str(content["hint"])
        invalid = {str(each["field"]): str(each["reason"]) for each in content.get("invalid", [])}
    except (ValueError, KeyError, TypeError, AttributeError):
        code, detail, hint = (
            "API_UNKNOWN",
            f"The server answered with status {answer.status_code}.",
            "Check the address.",
        )
    after = answer.headers.get("retry-after", "")
    return ApiProblem(
        code=code,
        status=answer.status_code,
        detail=detail,
        hint=hint,
        retry_after=float(after) if after.isdigit() else None,
        invalid=invalid,
    )


def _unreachable(error: httpx.TransportError) -> ApiProblem:
    return ApiProblem(
        code="API_UNREACHABLE",
        status=_UNREACHABLE,
        detail=f"The API does not answer. {type(error).__name__}.",
        hint="Start it with 'aevorium api', and check the address.",
    )
