"""Writes the reference pages from the code: `python -m aevorium.cli.reference docs`. A test fails when they drift."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import typer

from aevorium.cli.api_reference import api_page, openapi_document
from aevorium.cli.app import app
from aevorium.errors import CATALOGUE
from aevorium.settings import Settings, environment_names

__all__ = ["pages"]


def pages() -> dict[str, str]:
    """The generated pages by file name."""
    return {
        "CLI.md": _commands(),
        "SETTINGS.md": _settings(),
        "ERRORS.md": _errors(),
        "API_REFERENCE.md": api_page(openapi_document()),
    }


def _commands() -> str:
    parts = [
        "# Commands",
        "Generated from the code. `--json`, `--quiet` and `--verbose` may stand before or after the command. Exit"
        " status: 0 done, 1 failed, 2 wrong usage, 3 refused by policy or budget, 4 not reachable, 5 a bug of ours.",
    ]
    root = typer.main.get_command(app)
    for path, command in _leaves(root, ("aevorium",)):
        rows = [_row(parameter) for parameter in command.params if not isinstance(parameter, click.Argument)]
        arguments = [
            parameter.make_metavar(click.Context(command))
            for parameter in command.params
            if isinstance(parameter, click.Argument)
        ]
        parts.append(f"## {' '.join((*path, *arguments))}")
        parts.append((command.help or "").strip())
        listed = [row for row in rows if row and "--help" not in row]
        if listed:
            parts.append("\n".join(["| option | meaning |", "|---|---|", *listed]))
    return "\n\n".join(parts) + "\n"


def _leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _leaves(child, (*path, name))
    else:
        yield path, command


def _row(parameter: click.Parameter) -> str:
    text = getattr(parameter, "help", None) or ""
    return f"| `{', '.join(parameter.opts)}` | {text} |"


def _settings() -> str:
    lines = [
        "# Settings",
        "",
        "Generated from the code. A flag wins over the environment, that over `aevorium.toml` in the current folder,",
        "that over the default. `aevorium config show` prints each value and where it came from.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "per-user data folder" if field.default_factory is not None else field.default
        shown = "unset" if default in (None, (), {}) else str(default)
        names = ", ".join(f"`{variable}`" for variable in dict.fromkeys(environment_names(name)))
        lines.append(f"| {names} | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


def _errors() -> str:
    parts = ["# Errors", "Generated from the catalogue. Every message names its code."]
    for code, entry in CATALOGUE.items():
        parts.append(f"## {code}")
        parts.append(f"{entry.summary} {entry.remedy}")
        parts.append(f"Exit status {int(entry.exit_status)}, HTTP status {entry.http_status}.")
    return "\n\n".join(parts) + "\n"


def _main(folder: Path) -> None:
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
