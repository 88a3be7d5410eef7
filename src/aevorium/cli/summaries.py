"""What several commands tell at their end: privacy, spend, files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aevorium.cli.console import Console
from aevorium.cli.progress_view import number
from aevorium.privacy.plan import StudyPlan
from aevorium.server.record import StudyRecord

__all__ = ["spend_data", "tell_files", "tell_privacy", "tell_simulated", "tell_spend"]


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
