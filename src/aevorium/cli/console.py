"""Where text goes: results to the standard output, everything else to the standard error stream.

With `--json` the standard output carries one JSON envelope and nothing else; results for people go to the standard
error stream then.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import rich.console
import rich.table
import typer

from aevorium.errors import AevoriumError

__all__ = ["Console", "console_of", "plain"]

_PIPE_WIDTH = 140
"""Width of tables where no terminal says how wide it is."""


@dataclass
class Console:
    """Speaks to the person at the keyboard.

    Attributes:
        is_json: Whether the standard output is for a program.
        is_quiet: Whether notes and progress are left out.
        is_verbose: Whether details, and tracebacks, are shown.
    """

    is_json: bool = False
    is_quiet: bool = False
    is_verbose: bool = False
    _answers: TextIO = field(init=False, repr=False)
    _results: rich.console.Console = field(init=False, repr=False)
    _notes: rich.console.Console = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Commands run with the standard output turned away from it, see `cli.app`.
        self._answers = sys.stdout
        for stream in (sys.stdout, sys.stderr):
            # A console that cannot show ε shows a question mark: better than no answer.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        self._results = _rich(is_error_stream=self.is_json)
        self._notes = _rich(is_error_stream=True)

    @property
    def is_terminal(self) -> bool:
        """Whether notes go to a person's terminal, where a line can be drawn anew."""
        return self._notes.is_terminal

    @property
    def notes(self) -> rich.console.Console:
        """The console of notes, for progress."""
        return self._notes

    def say(self, text: str = "", *, style: str | None = None) -> None:
        """Prints a line of a result."""
        if not (self.is_json and self.is_quiet):
            _line(self._results, text, style=style)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
        """Prints a table of a result.

        Args:
            headings: One a column.
            rows: Text, cell by cell.
            numbers: Headings of the columns that are set flush right.
        """
        if self.is_json and self.is_quiet:
            return
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for heading in headings:
            table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*(rich.text.Text(cell) for cell in row))
        self._results.print(table)

    def note(self, text: str = "", *, style: str | None = None) -> None:
        """Prints a line that is not a result, unless `--quiet`."""
        if not self.is_quiet:
            _line(self._notes, text, style=style)

    def warn(self, text: str) -> None:
        """Prints a line that must not be missed."""
        _line(self._notes, text, style="bold yellow")

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Shows that work without a known end goes on."""
        if self.is_quiet:
            yield
        elif self.is_terminal:
            with self._notes.status(text):
                yield
        else:
            _line(self._notes, text)
            yield

    def error(self, error: AevoriumError) -> None:
        """Prints what went wrong in one line, and what to do in another."""
        _line(self._notes, f"error: {error.message} ({error.code})", style="bold red")
        _line(self._notes, f"what to do: {error.hint}")
        if self.is_verbose:
            _line(self._notes, f"more: {error.docs}")

    def envelope(self, data: Mapping[str, object]) -> None:
        """Prints the answer for a program, if one is listening."""
        self._write({"schema_version": 1, "status": "ok", "data": plain(data)})

    def event(self, kind: str, content: Mapping[str, object]) -> None:
        """Prints one event for a program, if one is listening."""
        self._write({"schema_version": 1, "event": kind, **content})

    def error_envelope(self, error: AevoriumError) -> None:
        """Prints the failure for a program, if one is listening."""
        content = {"code": error.code, "message": error.message, "hint": error.hint, "docs": error.docs}
        self._write({"schema_version": 1, "status": "error", "error": content})

    def _write(self, content: Mapping[str, object]) -> None:
        if self.is_json:
            # One line each, so that a reader of events need not look for their ends.
            self._answers.write(json.dumps(plain(content), ensure_ascii=False, allow_nan=False) + "\n")
            self._answers.flush()


def console_of(context: typer.Context) -> Console:
    """The console of the command that is running."""
    found = context.find_object(Console)
    return Console() if found is None else found


def plain(value: object) -> object:
    """A value as JSON can hold it: paths as text, infinities and NaN by name."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return str(value) if isinstance(value, Path) else value


def _rich(*, is_error_stream: bool) -> rich.console.Console:
    console = rich.console.Console(stderr=is_error_stream, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def _line(console: rich.console.Console, text: str, *, style: str | None = None) -> None:
    # soft_wrap: a line stays one line, so that a path can be copied and a message be searched for.
    console.print(text, style=style, soft_wrap=True)
