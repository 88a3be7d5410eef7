"""The table of load, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["markdown"]

_OPENING = """\
# Load: results

Written by `python -m benchmarks.load`; [README.md](README.md) says what each line is.
"""


def markdown(result: Mapping[str, Any]) -> str:
    """The tables of the measurement.

    Args:
        result: What it found.
    """
    lines = [
        _OPENING,
        f"{result['requests']:,} requests from {result['clients']} clients at once to each of the two, in turn.\n",
        "| | p50, ms | p95, ms | p99, ms | p50 : empty | p95 : empty | p99 : empty |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, told in result["reads"].items():
        times = " | ".join(f"{value:,.0f}" for value in told["ms"].values())
        ratios = " | ".join(f"{value:.1f}" for value in told["ratio"].values()) if "ratio" in told else " | | "
        lines.append(f"| {kind} | {times} | {ratios} |")
    cpu = result["cpu_ms_per_request"]
    ends = ", ".join(f"{count} {state}" for state, count in result["ends"].items())
    lines += [
        "",
        f"CPU of the serving process for a request: {cpu['api']:.2f} ms, of the empty application"
        f" {cpu['empty']:.2f} ms: {cpu['api'] / cpu['empty']:.1f} times.\n",
        f"Errors: {_counted(result['errors'])}; of the empty application {_counted(result['errors_of_the_empty'])}.\n",
        f"Tables ordered: {result['orders']} and the one that is looked at; they ended: {ends};"
        f" lost: {result['lost']}.\n",
        f"Audit log afterwards: {'sound' if result['is_log_sound'] else 'BROKEN'}.\n",
        f"Aevorium {result['versions']['aevorium commit']}, Python {result['versions']['python']},"
        f" {result['cores']} cores, load before {result['load_before']:.1f}.",
    ]
    return "\n".join(lines) + "\n"


def _counted(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {kind}" for kind, count in errors.items()) or "none"
