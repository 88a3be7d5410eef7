"""The table of the README: Aevorium beside the central methods, from the same results as `RESULTS.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aevorium.workspace import write_atomically
from benchmarks.fidelity.report import HEADS, JUDGED, cell, is_better
from benchmarks.fidelity.results import Row

__all__ = ["comparison", "write_comparison"]

_BEGIN, _END = "<!-- written by python -m benchmarks.fidelity --report -->", "<!-- end of what is written -->"

_TABLES = {
    "synthea": "six Synthea hospitals",
    "adult": "Adult over five nodes",
    "cardio": "cardio over five nodes",
    "heart_disease": "heart disease, 920 patients",
}
_EPSILONS = (1.0, 10.0)
_METHODS = {"aevorium": "**Aevorium**", "mst": "MST", "aim": "AIM"}


def comparison(rows: Sequence[Row]) -> str:
    """The table, best scores in bold.

    Args:
        rows: All rows of the results.
    """
    heads = ["table, ε", "method", "seeds", *(HEADS[name] for name in JUDGED)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for table, title in _TABLES.items():
        for epsilon in _EPSILONS:
            here = [row for row in rows if row.table == table and row.epsilon == epsilon and not row.step]
            sides = [row for method in _METHODS for row in here if row.method == method and row.trust != "local"]
            if any(row.method == "aevorium" for row in sides):
                lines += _lines(f"{title}, {epsilon:g}", [row for row in sides if row.seeds])
    return "\n".join(lines)


def write_comparison(path: Path, rows: Sequence[Row]) -> None:
    """Writes the table between its two marks in a page.

    Args:
        path: The page.
        rows: All rows of the results.

    Raises:
        ValueError: The page has no such marks.
    """
    before, mark, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (mark and end):
        raise ValueError(f"{path.name} has no place for the table: {_BEGIN} and {_END}")
    with write_atomically(path) as temporary:
        temporary.write_text(f"{before}{_BEGIN}\n\n{comparison(rows)}\n\n{_END}{after}", encoding="utf-8")


def _lines(title: str, rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        cells = []
        for name in JUDGED:
            is_best = not any(is_better(other, row, name) for other in rows)
            cells.append(f"**{cell(row.scores[name])}**" if is_best else cell(row.scores[name]))
        lines.append(f"| {title} | {_METHODS[row.method]} | {row.seeds} | {' | '.join(cells)} |")
        title = ""
    return lines
