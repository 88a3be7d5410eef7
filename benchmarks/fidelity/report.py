"""The table of all results: Markdown for people, CSV for programs and plots."""

from __future__ import annotations

import csv
import io
import math
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from aevorium.workspace import write_atomically
from benchmarks.fidelity.cells import METHODS, PRIVATE_PEERS, TABLES
from benchmarks.fidelity.environments import interpreter
from benchmarks.fidelity.results import SCORES, Estimate, Result, Row, summarise

__all__ = ["HEADS", "JUDGED", "against_the_bar", "cell", "csv_text", "is_better", "markdown", "write_report"]

_HERE = Path(__file__).parent

HEADS = {
    "1way": "1way ↓", "2way": "2way ↓", "3way": "3way ↓", "tstr": "tstr ↑", "c2st": "c2st ↓", "shapes": "shapes ↑",
    "trends": "trends ↑", "trends_all": "trends_all ↑", "missing_mean": "missing, mean ↓",
    "missing_most": "missing, most ↓", "missing_by_target": "missing by target ↓",
}  # fmt: skip

JUDGED = ("2way", "3way", "tstr", "c2st", "shapes", "trends")
_LOWER_IS_BETTER = frozenset(("1way", "2way", "3way", "c2st", "missing_mean", "missing_most", "missing_by_target"))

_OPENING = """\
# Fidelity: results

Written by `python -m benchmarks.fidelity --report`; [README.md](README.md) says how to repeat it and what each score
means. Means over seeds ± standard errors, of single seeds none; all methods learn from the same rows, make as many, and
are compared with the same held-out rows. `real` is the training rows themselves: as close as chance allows. ε is end to
end; `mst` and `aim` see all rows in one place, `ctgan` and `tvae` know no privacy. Missing rates are off by so many
percentage points. Seconds are CPU seconds.
"""


def write_report(results: Iterable[Result], *, folder: Path, cache: Path) -> None:
    """Writes `RESULTS.md`, `results.csv` and `plots/`.

    Args:
        results: All results.
        folder: Where they go.
        cache: Environments.
    """
    found = list(results)
    rows = summarise(found)
    for name, text in (("RESULTS.md", markdown(rows, results=found)), ("results.csv", csv_text(rows))):
        with write_atomically(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if any(row.seeds and not row.step for row in rows):
        command = [str(interpreter("plots", cache=cache)), str(_HERE / "plots.py")]
        subprocess.run(  # noqa: S603 - a script of this folder
            [*command, "--results", str(folder / "results.csv"), "--folder", str(folder / "plots")], check=True
        )


def csv_text(rows: Sequence[Row]) -> str:
    """The table for programs: one line for each method, ε and step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["table", "step", "epsilon", "method", "trust", "seeds", "epsilon_spent", "seconds_cpu"]
    writer.writerow([*head, *(part for name in SCORES for part in (name, f"{name}_se")), "failures"])
    for row in rows:
        scores = [part for name in SCORES for part in _numbers(row.scores.get(name))]
        spent = "" if row.spent is None else f"{row.spent:.4g}"
        facts = [row.table, row.step, f"{row.epsilon:g}", row.method, row.trust, row.seeds, spent]
        writer.writerow([*facts, *_numbers(row.seconds)[:1], *scores, "; ".join(row.failures)])
    return text.getvalue()


def markdown(rows: Sequence[Row], *, results: Sequence[Result]) -> str:
    """The table for people."""
    parts = [_OPENING, _machines(results)]
    for table in [name for name in TABLES if any(row.table == name for row in rows)]:
        ours = [row for row in rows if row.table == table and not row.step]
        steps = [row for row in rows if row.table == table and row.step]
        parts.append(_section(table, ours))
        if steps:
            parts.append(_steps(steps))
    return "\n".join(part for part in parts if part)


def against_the_bar(rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """How `aevorium` under secure aggregation compares with the better of MST and AIM, score by score.

    It is behind where the difference is larger than its standard error; one seed has none, and then any is.

    Args:
        rows: All methods at one ε of one table.

    Returns:
        Score, ours, the better peer's, and the verdict; empty without both sides.
    """
    ours = [row for row in rows if row.method == "aevorium" and row.trust == "secure-aggregation" and row.seeds]
    peers = [row for row in rows if row.method in PRIVATE_PEERS and row.seeds]
    if not ours or not peers:
        return []
    found = []
    for name in JUDGED:
        sign = -1 if name in _LOWER_IS_BETTER else 1
        best = max(peers, key=lambda row: sign * row.scores[name].mean)
        mine, theirs = ours[0].scores[name], best.scores[name]
        ahead = sign * (mine.mean - theirs.mean)
        error = math.hypot(*(0.0 if math.isnan(part.error) else part.error for part in (mine, theirs)))
        verdict = "better" if ahead > error else "as good" if ahead >= -error else "behind"
        found.append((name, cell(mine), f"{cell(theirs)} ({best.method})", verdict))
    return found


def _machines(results: Sequence[Result]) -> str:
    ours = [result for result in results if result.cell.trust is not None]
    commits = sorted({result.versions["aevorium commit"] for result in ours if result.versions})
    cores = sorted({f"{result.cores} cores, {result.threads} of them used" for result in results})
    told = [f"Machines: {'; '.join(cores)}."] if cores else []
    if commits:
        told.append(f"Aevorium at {', '.join(commits)}.")
    return " ".join(told) + "\n"


def _section(table: str, rows: Sequence[Row]) -> str:
    shown = [name for name in SCORES if any(name in row.scores for row in rows)]
    lines = [f"## {table}\n", f"![{table}](plots/{table}.png)\n"]
    floor = [row for row in rows if row.method == "real"]
    for epsilon in sorted({row.epsilon for row in rows if row.method != "real"} or {math.inf}):
        here = sorted((row for row in rows if row.epsilon == epsilon and row.method != "real"), key=_place)
        lines += [
            f"### {table}, ε = {_epsilon(epsilon)}\n",
            *_table([*floor, *here], shown),
        ]
        lines += _bar(against_the_bar(here))
    return "\n".join(lines)


def _place(row: Row) -> tuple[int, bool]:
    return METHODS.index(row.method), row.trust == "local"


def _table(rows: Sequence[Row], shown: Sequence[str]) -> list[str]:
    heads = ["method", "seeds", *(HEADS[name] for name in shown), "ε spent", "seconds"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        if not row.seeds:
            lines.append(f"| {row.name} | 0 | {' | '.join([row.failures[0], *([''] * (len(heads) - 3))])} |")
            continue
        scores = [cell(row.scores.get(name), name=name) for name in shown]
        spent = "–" if row.spent is None else f"{row.spent:.3g}"
        lines.append(f"| {row.name} | {row.seeds} | {' | '.join([*scores, spent, _seconds(row)])} |")
    return [*lines, ""]


def _epsilon(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:g}"


def _seconds(row: Row) -> str:
    return "" if row.seconds is None else f"{row.seconds.mean:,.0f}"


def _bar(compared: Sequence[tuple[str, str, str, str]]) -> list[str]:
    if not compared:
        return []
    lines = ["Against the better of MST and AIM, by more than one standard error of the difference:\n"]
    lines += ["| score | aevorium | peer | |", "|---|---|---|---|"]
    return [*lines, *(f"| {' | '.join(line)} |" for line in compared), ""]


def _steps(rows: Sequence[Row]) -> str:
    shown = [name for name in SCORES if any(name in row.scores for row in rows)]
    lines = [f"### {rows[0].table}: what each step buys\n"]
    heads = ["ε", "step", "method", "seeds", *(HEADS[name] for name in shown), "seconds"]
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in sorted(rows, key=lambda row: (row.epsilon, row.step)):
        scores = [cell(row.scores.get(name), name=name) for name in shown] if row.seeds else [row.failures[0]]
        told = [_epsilon(row.epsilon), row.step, row.name, str(row.seeds), *scores, _seconds(row)]
        lines.append(f"| {' | '.join(told)} |")
    return "\n".join([*lines, ""])


def is_better(one: Row, other: Row, score: str) -> bool:
    """Whether one row's mean is better than another's, as it is printed."""
    mine, theirs = (round(row.scores[score].mean, 3) for row in (one, other))
    return mine < theirs if score in _LOWER_IS_BETTER else mine > theirs


def cell(value: Estimate | None, *, name: str = "") -> str:
    """A mean with its standard error, as tables have it; empty where there is none.

    Args:
        value: The mean.
        name: Its score.
    """
    if value is None:
        return ""
    places = 1 if name.startswith("missing") else 3
    error = "" if math.isnan(value.error) else f" ± {value.error:.{places}f}"
    return f"{value.mean:.{places}f}{error}"


def _numbers(value: Estimate | None) -> tuple[str, str]:
    if value is None:
        return "", ""
    return f"{value.mean:.6g}", "" if math.isnan(value.error) else f"{value.error:.4g}"
