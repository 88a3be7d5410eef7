"""Shows the progress of a run: a line for each phase, a row for each round, a bar for what has a known end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Self

import rich.progress

from aevorium.cli.console import Console
from aevorium.progress import (
    ConsentAwaited,
    NodeAnswered,
    NodeAsked,
    NodeNotice,
    NodesOnline,
    NodeState,
    PhaseStarted,
    ProgressEvent,
    RoundFinished,
    ServerListening,
    StepProgress,
)

__all__ = ["ProgressView", "duration", "number"]

_PHASES = {
    "sample": "Simulating hospitals",
    "prepare": "Preparing tables",
    "plan": "Plan: asking {nodes} to agree, before any record is read",
    "count": "Count: noisy numbers of records from {nodes}",
    "statistics": "Statistics: noisy histograms from {nodes}, then the encoder",
    "associations": "Associations: noisy tables of several columns from {nodes}",
    "surrogate": "Surrogate: a density fitted to all noisy tables",
    "pre-training": "Pre-training: the model learns from the surrogate",
    "training": "Training: {nodes}",
    "no training": "No private training: at this size and ε its budget buys more as tables (--epochs asks for it)",
    "rehearsal": "Rehearsal: one whole run on made-up records, from {nodes}",
    "audit": "Audit: the same requests again and again, with a known record and without it",
    "report": "Writing statement, budget and report",
    "validate": "Comparing synthetic with real rows",
}
_ROUND = "{:>7}  {:>8}  {:>15}  {:>8}  {:>8}  {:>8}  {:>8}"


_SILENCE = 20.0
"""Seconds of a long step without a line in a log."""


_PERIOD = 600.0
"""Seconds over which a bar averages its pace: rare rows come far apart."""


@dataclass(frozen=True)
class _Pace:
    """Of a step in a log: when it began, when a line was last written, and what was done at its beginning."""

    began: float
    told: float
    done: int


class ProgressView:
    """A `progress.Report` for a terminal, or for a log.

    Args:
        console: Where to show it.
        is_of_node: Whether the terminal is that of a node's steward, who sees every request.
        clock: Seconds from any moment on.
    """

    def __init__(
        self, console: Console, *, is_of_node: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._clock = clock
        self._is_of_node = is_of_node
        self._has_heading = False
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._pace: _Pace | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_bar()

    def __call__(self, event: ProgressEvent) -> None:
        """Shows one event."""
        if self._console.is_quiet:
            return
        if isinstance(event, StepProgress):
            self._show_step(event)
            return
        self._stop_bar()
        if isinstance(event, PhaseStarted):
            self._show_phase(event)
        elif isinstance(event, RoundFinished):
            self._show_round(event)
        elif isinstance(event, NodeNotice):
            self._console.note(f"  [{event.node}, for its steward only] {event.text}")
        elif isinstance(event, NodeState):
            self._console.note(event.text)
        elif isinstance(event, ConsentAwaited):
            self._show_question(event)
        elif isinstance(event, ServerListening):
            self._console.note(f"Listening on {event.address}, waiting for {event.needed} nodes.")
            self._console.note(f"Nodes trust {event.authority} (server identity {event.fingerprint[:16]}).")
        elif isinstance(event, NodesOnline):
            self._console.note(f"Nodes: {len(event.names)}/{event.needed} ({', '.join(event.names) or 'none'})")
        elif isinstance(event, NodeAnswered) and self._is_of_node:
            self._show_answer(event)
        elif isinstance(event, NodeAsked) and self._is_of_node:
            self._console.note(f"Asked for: {event.phase}" + (f" ({event.detail})" if event.detail else ""))

    def _show_answer(self, event: NodeAnswered) -> None:
        came = "answered" if event.code is None else f"REFUSED with {event.code}: nothing but this code leaves the node"
        self._console.note(
            f"  {event.phase}: {came}. Period: ε spent {number(event.spent)} of {number(event.limit)}, "
            f"left {number(event.left)}"
        )

    def _show_question(self, event: ConsentAwaited) -> None:
        self._console.warn(event.text)
        end = datetime.fromtimestamp(event.until).strftime("%Y-%m-%d %H:%M:%S")
        self._console.note(f"The server waits until {end}. To answer, type in another terminal one of:")
        self._console.note(f"  {event.agree}")
        self._console.note(f"  {event.decline}")

    def _show_phase(self, event: PhaseStarted) -> None:
        nodes = f"{event.nodes} node{'' if event.nodes == 1 else 's'}"
        self._console.note(_PHASES.get(event.phase, event.phase.capitalize()).format(nodes=nodes))

    def _show_round(self, event: RoundFinished) -> None:
        nodes = f"{event.nodes_ok}/{event.nodes_asked}"
        loss = f"{event.loss:.3f} ± {event.loss_noise:.3f}"
        eta = duration(event.remaining)
        if not self._console.is_terminal:
            self._console.note(
                f"round {event.round}/{event.rounds}: nodes {nodes}, loss (noisy) {loss}, "
                f"ε spent {number(event.spent)}, ε left (lowest node) {number(event.left)}, "
                f"{duration(event.seconds)}, ETA {eta}"
            )
            return
        if not self._has_heading:
            heading = _ROUND.format("round", "nodes ok", "loss (noisy)", "ε spent", "ε left*", "time", "ETA")
            self._console.note(heading, style="bold")
            self._has_heading = True
        row = (f"{event.round}/{event.rounds}", nodes, loss, number(event.spent), number(event.left))
        self._console.note(_ROUND.format(*row, duration(event.seconds), eta))
        if event.round == event.rounds:
            self._console.note("* of this run's plan, at the node with the least")

    def _show_step(self, event: StepProgress) -> None:
        if not self._console.is_terminal:
            self._log_step(event)
            return
        if self._bar is None:
            self._bar = rich.progress.Progress(
                "{task.description}",
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeRemainingColumn(),
                console=self._console.notes,
                transient=True,
                speed_estimate_period=_PERIOD,
            )
            self._task = self._bar.add_task(event.label.capitalize(), total=event.total or None)
            self._bar.start()
        if self._task is not None:
            self._bar.update(self._task, description=event.label.capitalize(), completed=event.done)

    def _log_step(self, event: StepProgress) -> None:
        """A line at the end, and one now and then if that takes long."""
        now = self._clock()
        if self._pace is None or event.done < self._pace.done:
            self._pace = _Pace(began=now, told=now, done=event.done)
        is_done = event.total > 0 and event.done >= event.total
        if is_done or now - self._pace.told >= _SILENCE:
            told = f"{event.label.capitalize()}: {event.done:,} of {event.total:,}"
            done = event.done - self._pace.done
            if not is_done and done > 0:
                told += f", ETA {duration((event.total - event.done) * (now - self._pace.began) / done)}"
            self._console.note(told)
            self._pace = None if is_done else replace(self._pace, told=now)

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def number(value: float) -> str:
    """A number of ε for people."""
    return "∞" if math.isinf(value) else f"{value:.3f}"


def duration(seconds: float) -> str:
    """A length of time for people."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
