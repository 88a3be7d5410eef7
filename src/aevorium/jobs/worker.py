"""`Worker`: does what was ordered. One holds the lock of a workspace; the next takes over what a dead one left.

A run and a table may be made at the same time, two runs may not: the nodes of a server are the same ones.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, get_args

from filelock import FileLock, Timeout

from aevorium.conducting import RunResult
from aevorium.errors import AevoriumError, InternalError
from aevorium.generation import generate_table
from aevorium.governance.chain import AuditChain, plain
from aevorium.governance.log_views import LogViews
from aevorium.governance.secrets import Secrets
from aevorium.jobs.folders import RunFolders
from aevorium.jobs.orders import RunOrder, TableOrder
from aevorium.jobs.sites import OrderedRun, Site
from aevorium.progress import (
    NodesOnline,
    PhaseStarted,
    ProgressEvent,
    Report,
    RoundFinished,
    ServerListening,
    StepProgress,
    event_name,
    ignore,
)
from aevorium.schema.table import TableSchema
from aevorium.settings import Settings
from aevorium.state.jobs import INTERRUPTED, Job, JobKind, JobState, JobStore
from aevorium.state.worker_lock import WorkerLock
from aevorium.workspace import remove_unfinished

__all__ = ["Worker"]

_LOOK = 0.3
"""Seconds between two looks into the queue."""

_STOP_LOOK = 0.5
"""Seconds for which the answer to "is this job to stop?" is taken as still true."""

_STEP_EVERY = 1.0
"""Seconds between two told steps of the same work."""

_GRACE = 20.0
"""Seconds in which lanes end once the worker is told to."""

_AGAIN = 5.0
"""Seconds after which the end of a job is written again that could not be written."""

_UNFINISHED = 3600.0
"""Seconds after which a file that was not finished counts as left by a process that died, where others write too."""

_ENDED: Mapping[JobKind, str] = {"train": "run_ended", "generate": "dataset_ended"}
"""How the server's log calls the end of a job."""

_TOLD = (PhaseStarted, RoundFinished, ServerListening, NodesOnline, StepProgress)
"""What is told of a job. The other events are for the consoles of single stewards."""

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    state: JobState
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


class Worker:
    """Works through the queue of a server.

    Args:
        jobs: The queue.
        folders: Where results go.
        site: Where runs are conducted.
        settings: Say what an order leaves open.
        secrets: Encrypt checkpoints, and sign audit logs.
        report: Takes everything that happens, for this machine's own console.
    """

    def __init__(
        self,
        jobs: JobStore,
        *,
        folders: RunFolders,
        site: Site,
        settings: Settings,
        secrets: Secrets,
        report: Report = ignore,
    ) -> None:
        self._jobs = jobs
        self._folders = folders
        self._site = site
        self._settings = settings
        self._secrets = secrets
        self._report = report
        self._name = token_hex(4)
        self._ending = threading.Event()
        self._draining = threading.Event()
        self._is_training = threading.Event()
        self._views = LogViews()

    def work(self, *, should_stop: Callable[[], bool], should_drain: Callable[[], bool] = lambda: False) -> None:
        """Works until told to end. Waits first for another worker of the workspace, if there is one.

        Args:
            should_stop: Whether it is to end now. A run that goes on then fails; a table is made again by the next.
            should_drain: Whether it is to end as soon as it has done what it is doing.

        Raises:
            AevoriumError: The database or the workspace cannot be used at the start.
        """
        root = self._folders.root.create()
        self._secrets.open(root.root)
        if root.database.is_file():
            self._log().require_key()
        lock, place = self._jobs.worker_lock(), FileLock(root.worker_lock)
        while not should_stop() and not should_drain():
            if not lock.acquire():
                time.sleep(_LOOK)
                continue
            try:
                with place.acquire(timeout=_LOOK):
                    self._take_over()
                    try:
                        self._run_lanes(should_stop, should_drain, lock=lock)
                    finally:
                        self._views.close()
                return
            except Timeout:
                continue
            finally:
                lock.release()

    def _run_lanes(
        self, should_stop: Callable[[], bool], should_drain: Callable[[], bool], *, lock: WorkerLock
    ) -> None:
        kinds: tuple[JobKind, ...] = get_args(JobKind)
        lanes = [threading.Thread(target=self._lane, args=(kind,), daemon=True, name=kind) for kind in kinds]
        for lane in lanes:
            lane.start()
        while not should_stop() and any(lane.is_alive() for lane in lanes):
            if should_drain():
                self._draining.set()
            if not lock.is_held():
                _LOGGER.error("another worker has taken over the queue")
                break
            time.sleep(_LOOK)
        self._ending.set()
        deadline = time.monotonic() + _GRACE
        for lane in lanes:
            lane.join(max(0.0, deadline - time.monotonic()))

    def _take_over(self) -> None:
        """Repeats or fails what a worker left that died, says in the log what it could not say, and tidies up."""
        self._jobs.recover()
        root = self._folders.root
        has_log = root.database.is_file()  # a log that nobody wrote in yet is not begun by looking into it
        ends = self._log().entries_of(list(_ENDED.values())) if has_log else ()
        told = {entry.detail.get("job") for entry in ends}
        for job in self._jobs.begun_and_ended():
            if job.id not in told:
                self._note(job, job.state, error=job.error, result=job.result)
        if has_log:
            self._views.renew(root.audit_log, self._log())  # one that died may have left it behind the chain
        remove_unfinished(root.datasets)
        for folder in (root.root, *(root.runs.iterdir() if root.runs.is_dir() else ())):
            remove_unfinished(folder, age=_UNFINISHED)

    def _lane(self, kind: JobKind) -> None:
        while not self._ending.is_set() and not (self._draining.is_set() and self._is_over(kind)):
            try:
                job = self._jobs.claim(self._name, kind=kind)
                if job is not None:
                    self._do(job)
                    continue
            except AevoriumError as error:
                _LOGGER.error("the queue cannot be read: %s", error.code)
            self._ending.wait(_LOOK)

    def _is_over(self, kind: JobKind) -> bool:
        """Whether a lane ends that is to end after its work: tables are made for as long as a run goes on beside."""
        return kind == "train" or not self._is_training.is_set()

    def _do(self, job: Job) -> None:
        if job.kind == "train":
            self._is_training.set()
        try:
            result = self._train(job) if job.kind == "train" else self._generate(job)
            outcome = _Outcome("succeeded", result=result)
        except AevoriumError as error:
            outcome = self._failure(job, error)
        except Exception as error:  # the edge of a job: whatever happened is told by its kind alone
            _LOGGER.exception("job %s failed inside", job.id)
            told = InternalError(f"Something failed inside Aevorium: {type(error).__name__}.")
            outcome = _Outcome("failed", error=_told(told))
        self._finish(job, outcome)
        if job.kind == "train":
            self._is_training.clear()

    def _failure(self, job: Job, error: AevoriumError) -> _Outcome:
        if error.code != "RUN_INTERRUPTED":
            return _Outcome("failed", error=_told(error))
        if self._is_stop_requested(job):
            return _Outcome("stopped")
        return _Outcome("failed", error=INTERRUPTED)

    def _finish(self, job: Job, outcome: _Outcome) -> None:
        """Writes down how a job ended, if need be when the database is back."""
        is_written = False
        while True:
            try:
                is_written = is_written or self._jobs.finish(
                    job, outcome.state, result=outcome.result, error=outcome.error
                )
                if is_written:
                    self._note(job, outcome.state, error=outcome.error, result=outcome.result)
                return
            except AevoriumError as error:
                _LOGGER.error("the end of job %s cannot be written: %s", job.id, error.code)
                # Time mends no log that is damaged; the next worker says in it what this one could not.
                if error.code == "AUDIT_BROKEN" or self._ending.wait(_AGAIN):
                    return
            except Exception:  # a lane must outlive it; the next worker says in the log what this one could not
                _LOGGER.exception("the end of job %s cannot be written", job.id)
                return

    def _train(self, job: Job) -> Mapping[str, Any]:
        order = RunOrder.model_validate(job.request)
        workspace = self._folders.workspace_of(job.id)
        run = self._site.conduct(
            OrderedRun(
                id=job.id,
                schema=TableSchema.from_toml(order.schema_text, source="schema"),
                schema_text=order.schema_text,
                options=order.choices.options(self._settings),
                workspace=workspace,
                secrets=self._secrets,
                report=self._teller(job),
                should_stop=self._stopper(job),
            )
        )
        return _run_result(run)

    def _generate(self, job: Job) -> Mapping[str, Any]:
        order = TableOrder.model_validate(job.request)
        run = self._folders.find(order.run)
        teller, is_stopped = self._teller(job), self._stopper(job)

        def report(event: ProgressEvent) -> None:
            if is_stopped():
                raise AevoriumError("RUN_INTERRUPTED", "The table is not made. It was stopped.")
            teller(event)

        made = generate_table(
            workspace=run.workspace,
            secrets=self._secrets,
            output=self._folders.dataset(job.id, kind=order.format),
            rows=order.rows,
            where=order.where,
            balance=order.balance,
            seed=order.seed,
            sampler=order.sampler,
            steps=order.steps,
            device=self._settings.device,
            report=report,
            publish=self._views.renew,
        )
        return {
            "run": run.record.run_id,
            "rows": made.rows,
            "drawn": made.drawn,
            "rejected": made.rejected,
            "bytes": made.path.stat().st_size,
            "sha256": made.sha256,
            "seconds": round(made.seconds, 3),
            "is_simulated": made.is_simulated,
            "is_private": made.is_private,
            "is_finished": made.is_finished,
        }

    def _teller(self, job: Job) -> Report:
        """Tells a job's story: to the world what is charged, and to this console everything."""
        last: dict[str, float] = {}

        def tell(event: ProgressEvent) -> None:
            self._report(event)
            if not isinstance(event, _TOLD):
                return
            if isinstance(event, StepProgress):
                now = time.monotonic()
                if event.done < event.total and now - last.get(event.label, -_STEP_EVERY) < _STEP_EVERY:
                    return
                last[event.label] = now
            told = dataclasses.asdict(event)
            told.pop("authority", None)  # a path of this machine
            try:
                self._jobs.tell(job, {"event": event_name(event), **plain(told)})
            except AevoriumError as error:
                # What nodes have released is charged: a story with a gap is better than a run that failed of it.
                _LOGGER.error("an event of job %s cannot be written: %s", job.id, error.code)

        return tell

    def _stopper(self, job: Job) -> Callable[[], bool]:
        """Whether a job is to end: because somebody asked, because the worker ends, or because it is another's now."""
        asked, answer = -_STOP_LOOK, False

        def is_stopped() -> bool:
            nonlocal asked, answer
            if self._ending.is_set():
                return True
            if not answer and time.monotonic() - asked >= _STOP_LOOK:
                answer, asked = self._is_stop_requested(job), time.monotonic()
            return answer

        return is_stopped

    def _is_stop_requested(self, job: Job) -> bool:
        try:
            now = self._jobs.find(job.id)
        except AevoriumError as error:
            _LOGGER.error("job %s cannot be looked at: %s", job.id, error.code)
            return False
        return now.is_stop_requested or now.state != "running" or now.attempts != job.attempts

    def _log(self) -> AuditChain:
        return AuditChain(self._folders.root.database, key=self._secrets.log)

    def _note(
        self,
        job: Job,
        state: JobState,
        *,
        error: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes into the server's log how a job ended."""
        chain = self._log()
        detail: dict[str, object] = {"job": job.id, "state": state, "code": error["code"] if error else None}
        if job.kind == "train":
            log = self._folders.workspace_of(job.id).database
            # The run has a log of its own; its head here keeps that from being cut or written anew.
            detail["head"] = AuditChain(log).head if log.is_file() else None
        elif result is not None:
            detail.update({name: result[name] for name in ("run", "rows", "sha256")})
        chain.append(actor="worker", action=_ENDED[job.kind], detail=detail)
        self._views.renew(self._folders.root.audit_log, chain)


def _told(error: AevoriumError) -> Mapping[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint}


def _run_result(run: RunResult) -> Mapping[str, Any]:
    nodes = [node.model_dump(mode="json") for node in run.record.nodes]
    result: Mapping[str, Any] = plain(
        {
            "epsilon": run.record.plan.epsilon,
            "delta": run.record.plan.delta,
            "rounds": len(run.rounds),
            "seconds": round(run.seconds, 3),
            "is_simulated": run.record.is_simulated_data,
            "nodes": nodes,
        }
    )
    return result
