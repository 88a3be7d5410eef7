"""What several commands tell at their end: privacy, spend, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aevorium.cli.console import Console
from aevorium.cli.progress_view import duration, number
from aevorium.cli.stewarded import StewardedNode
from aevorium.errors import ArtefactError
from aevorium.evaluation.comparison import Comparison, comparison_scores
from aevorium.governance.budget import BudgetView
from aevorium.privacy.plan import StudyPlan
from aevorium.server.record import NodeRecord, StudyRecord
from aevorium.server.statement import describe_event
from aevorium.workspace import Workspace

if TYPE_CHECKING:
    from aevorium.conducting import RunResult

__all__ = [
    "node_budget",
    "run_data",
    "spend_data",
    "tell_budget",
    "tell_comparison",
    "tell_files",
    "tell_privacy",
    "tell_result",
    "tell_simulated",
    "tell_spend",
    "tell_unfinished",
    "with_ledgers",
]


_TOGETHER = (
    "A run's ε holds for it alone. The sum of a period, by which its limit is kept, holds for all runs together, "
    "whichever come later, and is therefore somewhat higher; so is the lifetime total."
)


def tell_result(result: RunResult, *, folder: Workspace, console: Console) -> None:
    """What a finished run spent, what it left, and what to type next."""
    tell_simulated(is_simulated=result.record.is_simulated_data, console=console)
    tell_spend(result.record, console=console)
    if result.comparison is not None:
        tell_comparison(result.comparison, console=console)
    tell_files(result.outputs, folder=folder.root, console=console)
    console.say(f"Done in {duration(result.seconds)}. What to type next:")
    for command in ("generate", "validate", "audit verify"):
        console.say(f"  aevorium {command} --workspace {folder.root}")
    tell_privacy(result.record.plan, console=console)


def run_data(result: RunResult, *, folder: Workspace) -> dict[str, object]:
    """The same for a program."""
    plan = result.record.plan
    return {
        "run_id": result.record.run_id,
        "workspace": str(folder.root),
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "is_private": plan.is_private,
        "is_simulated": result.record.is_simulated_data,
        "total": result.record.total,
        "nodes": spend_data(result.record),
        "rounds": [asdict(finished) for finished in result.rounds],
        "evaluation": None if result.comparison is None else asdict(result.comparison),
        "seconds": result.seconds,
        "outputs": [str(path) for path in result.outputs],
    }


def tell_comparison(comparison: Comparison, *, console: Console) -> None:
    """How the generated rows compare with the evaluation tables: a line for columns, one for pairs."""
    console.say(f"{comparison.subject.capitalize()}: about {max(0.0, comparison.records):,.0f}, by noisy tables.")
    for score in comparison_scores(comparison):
        told = "–" if score.value is None else f"{score.value:.3f} ({score.verdict})"
        console.say(f"  {score.title}: {told}. {score.reading}")


def tell_privacy(plan: StudyPlan, *, console: Console) -> None:
    """Says loudly when a plan has no privacy, and what a fixed noise costs."""
    if not plan.is_private:
        console.warn("NO PRIVACY: ε = ∞. What this run makes may reveal any record. Use it for comparison only.")
    elif plan.noise_multiplier is not None:
        console.warn(
            f"The noise multiplier {plan.noise_multiplier:g} is used as given. It costs ε = {number(plan.epsilon)} at "
            f"δ = {plan.delta:g}."
        )


def tell_simulated(*, is_simulated: bool, console: Console) -> None:
    """Says when all patients are made up."""
    if is_simulated:
        console.say("Simulated: every patient of this run was made by a generator.", style="bold")


def tell_unfinished(record: StudyRecord, *, console: Console) -> None:
    """Says when a run did not reach its end."""
    if record.status != "finished":
        console.warn("This run did not finish. What its nodes had released stays spent.")


def with_ledgers(record: StudyRecord, folder: Workspace) -> StudyRecord:
    """The record of a run that did not finish, with what its nodes' own ledgers say was spent.

    Nodes tell their spend at the end of a run; before that the server's record holds none of it, and would show zero.
    Of real nodes the record says, at the end, what they told or else all that they had agreed to.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, if a node's budget cannot be read: nothing is shown then, rather than zero.
    """
    if record.status == "finished" or not record.is_simulated_federation:
        return record
    known = {node.name: node for node in record.nodes}
    nodes = [_of_ledger(known.get(name, NodeRecord(name=name)), record, folder) for name in record.plan.nodes]
    return record.model_copy(update={"nodes": tuple(nodes)})


def _of_ledger(node: NodeRecord, record: StudyRecord, folder: Workspace) -> NodeRecord:
    view = node_budget(folder.node_home(node.name), node.name)
    spent = sum(run.spent for run in view.runs if run.run_id == record.run_id)
    return node.model_copy(update={"spent": spent, "limit": view.max_epsilon, "left": view.left})


def node_budget(home: Path, name: str) -> BudgetView:
    """A node's budget, computed again from its ledger: its file may be older, after a crash.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, if there is no such node.
        ConfigError: POLICY_INVALID, if neither a statement nor a policy says what its limit is.
    """
    if not (home / "ledger.db").is_file():
        raise ArtefactError("ARTEFACT_NOT_FOUND", f"No ledger in {str(home)!r}. What was spent is not known.")
    return StewardedNode(home, name=name).budget()


def tell_budget(view: BudgetView, *, console: Console) -> None:
    """What one node spent: release by release, run by run, period by period."""
    releases = [
        (run.run_id[:8], release.phase, str(release.round), release.time[:19], release.state, *describe_event(event))
        for run in view.runs
        for release in run.releases
        for event in release.events
    ]
    runs = [(run.run_id[:8], run.agreed_at[:19], number(run.spent), f"{run.delta:g}") for run in view.runs]
    if releases:
        headings = ("run", "phase", "round", "time (UTC)", "state", "mechanism", "parameters")
        console.table(headings, releases, numbers=("round",))
    if runs:
        console.table(("run", "agreed (UTC)", "ε alone", "at δ"), runs, numbers=("ε alone", "at δ"))
    if view.earlier:
        rows = [
            (each.period, str(each.runs), each.first[:19], number(each.spent), f"{each.max_delta:g}")
            for each in view.earlier
        ]
        numbers = ("runs", "ε spent", "at δ")
        console.table(("earlier period", "runs", "first (UTC)", "ε spent", "at δ"), rows, numbers=numbers)
    console.say(
        f"Period {view.period!r}: ε = {number(view.spent)} spent at δ = {view.max_delta:g}, "
        f"limit {number(view.max_epsilon)}, left {number(view.left)}."
    )
    console.say(f"Lifetime total, over all periods: ε = {number(view.lifetime)} at δ = {view.max_delta:g}.")
    if view.composition == "renyi":
        console.note(_TOGETHER)


def tell_spend(record: StudyRecord, *, console: Console) -> None:
    """A row for each node."""
    rows = [
        (
            node.name,
            "–" if node.count is None else f"{node.count:,}",
            number(node.spent),
            "–" if node.limit is None else number(node.limit),
            "–" if node.left is None else number(node.left),
        )
        for node in record.nodes
    ]
    headings = ("node", "patients (noisy)", "ε spent", "limit", "left")
    console.table(headings, rows, numbers=headings[1:])
    if any(
        node.left is not None and node.limit is not None and node.left + node.spent < node.limit
        for node in record.nodes
    ):
        console.note(_TOGETHER)
    claim = f"The claim: ε = {number(record.plan.epsilon)} at δ = {record.plan.delta:g} for every node, end to end."
    console.say(claim if record.plan.is_private else "The claim: none. ε = ∞.")


def spend_data(record: StudyRecord) -> list[dict[str, object]]:
    """The same for a program."""
    return [node.model_dump() for node in record.nodes]


def tell_files(paths: Sequence[Path], *, folder: Path, console: Console) -> None:
    """Names of files that a command left."""
    console.say(f"In {folder}:")
    for path in paths:
        console.say(f"  {path.relative_to(folder) if path.is_relative_to(folder) else path}")
