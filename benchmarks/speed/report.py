"""The table of speed, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["markdown"]

_OPENING = """\
# Speed: results

Written by `python -m benchmarks.speed`; [README.md](README.md) says what each line is. Ratios are of CPU seconds of one
thread, measured in turn on one machine, medians.
"""


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The tables of all measurements.

    Args:
        results: What the measurements found.
    """
    parts = {"steps": _steps, "memory": _memory, "runs": _runs, "generation": _generation}
    sections = [parts[result["measure"]](result) for name in parts for result in results if result["measure"] == name]
    return "\n".join([_OPENING, *sections])


def _steps(result: dict[str, Any]) -> str:
    lines = [
        "## A training step\n",
        "| records | K | private, ms | without privacy, ms | Opacus hooks, ms | private : without | hooks : private |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for batch in sorted((key for key in result if key.isdigit()), key=int):
        told = result[batch]
        times = " | ".join(f"{1000 * told['seconds'][kind]:.0f}" for kind in ("private", "plain", "hooks"))
        lines.append(
            f"| {batch} | {told['draws']} | {times} | {told['private_to_plain']:.2f} | {told['hooks_to_private']:.2f} |"
        )
    return "\n".join([*lines, "", _software(result)])


def _memory(result: dict[str, Any]) -> str:
    found = result["megabytes_above_a_batch_of_one"]
    batches = sorted({batch for kind in found.values() for batch in kind}, key=int)
    lines = ["## Peak memory of a step, MB above that of one record\n", f"| records | {' | '.join(batches)} |"]
    lines.append(f"|{'---|' * (len(batches) + 1)}")
    names = {"private": "private", "plain": "without privacy, whole batch at once", "hooks": "Opacus hooks"}
    for kind, values in found.items():
        cells = [f"{values[batch]:,.0f}" if batch in values else "" for batch in batches]
        lines.append(f"| {names[kind]} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _software(result)])


def _runs(result: dict[str, Any]) -> str:
    lines = [
        f"## {result['table']}, ε = {result['epsilon']:g}, {result['rows']:,} rows\n",
        "| | seconds |",
        "|---|---|",
        f"| AIM, fit and rows | {result['aim_seconds']:,.0f} |",
        f"| surrogate, fit ({result['surrogate']['pairs']} tables) | {result['surrogate_fit_seconds']:,.1f} |",
        f"| whole run, all nodes on one core | {result['run_seconds']:,.0f} |",
        f"| its rows | {result['generate_seconds']:,.1f} |",
        f"| **AIM : surrogate fit** | **{result['aim_to_surrogate_fit']:,.0f}** |",
        f"| **AIM : whole run and its rows** | **{result['aim_to_whole_run']:.1f}** |",
    ]
    return "\n".join([*lines, "", _software(result)])


def _generation(result: dict[str, Any]) -> str:
    lines = [
        f"## Rows a second, model of {result['table']}, {result['rows']:,} rows\n",
        "| cores | wall clock | the fastest of three | CPU second, start included | CPU second, without start |",
        "|---|---|---|---|---|",
    ]
    for cores, told in result["by_cores"].items():
        times = ("rows_per_second", "fastest_rows_per_second")
        names = (*times, "rows_per_cpu_second", "rows_per_cpu_second_without_start")
        lines.append(f"| {cores} | {' | '.join(f'{told[name]:,.0f}' for name in names)} |")
    return "\n".join([*lines, "", _software(result)])


def _software(result: dict[str, Any]) -> str:
    told = result["versions"]
    return (
        f"Aevorium {told['aevorium commit']}, torch {told['torch']}, Opacus {told['opacus']}, Python {told['python']}, "
        f"{result['cores']} cores, load before {result['load_before']:.1f}.\n"
    )
