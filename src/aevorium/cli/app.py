"""`aevorium`: the one place where commands are gathered, and where their failures become exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Annotated

import click
import typer

from aevorium import __version__
from aevorium.cli.commands import (
    api,
    audit,
    budget,
    config,
    dashboard,
    data,
    demo,
    doctor,
    generate,
    keys,
    node,
    plan,
    privacy_audit,
    report,
    run,
    runs,
    schema,
    server,
)
from aevorium.cli.commands import validate as validation
from aevorium.cli.console import Console
from aevorium.errors import AevoriumError, ConfigError, ExitStatus, InternalError
from aevorium.observability import FailureLog, recording

__all__ = ["app", "launch", "main"]

_GLOBAL_FLAGS = ("--json", "--quiet", "--verbose")

app = typer.Typer(
    name="aevorium",
    help="Trains one diffusion model on tables that stay where they are, with differential privacy, and writes "
    "synthetic rows, a report and a privacy statement.",
    epilog="--json, --quiet and --verbose may stand before or after the command. "
    "Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by policy or budget, 4 not reachable, 5 a bug of ours.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(config.app, name="config")
app.add_typer(schema.app, name="schema")
app.add_typer(data.app, name="data")
app.command("plan")(plan.plan)
app.command("run")(run.run)
app.add_typer(runs.app, name="runs")
app.command("server")(server.server)
app.command("node")(node.node)
app.command("generate")(generate.generate)
app.command("validate")(validation.validate)
app.command("report")(report.report)
app.add_typer(budget.app, name="budget")
app.add_typer(audit.app, name="audit")
app.command("privacy-audit")(privacy_audit.privacy_audit)
app.add_typer(keys.app, name="keys")
app.add_typer(api.app, name="api")
app.command("dashboard")(dashboard.dashboard)


def _show_version(*, value: bool) -> None:
    if value:
        typer.echo(f"aevorium {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object on the standard output, text for people beside it.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Results and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Details, and tracebacks of failures.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Takes the flags that every command has."""


def launch(command: str) -> None:
    """Runs a command as a script of its own: `python dry_run.py` and the like.

    Scripts are for a first look: nodes that they start live beside their results, see `settings`.
    """
    os.environ["AEVORIUM_LAUNCHER"] = "1"
    sys.exit(main([*command.split(), *sys.argv[1:]]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: What was typed after `aevorium`; that of this process when None.

    Returns:
        The exit status.
    """
    flags, rest = _take_flags(sys.argv[1:] if arguments is None else arguments)
    console = Console(is_json="--json" in flags, is_quiet="--quiet" in flags, is_verbose="--verbose" in flags)
    with recording(show=console.is_verbose) as log:
        try:
            answer = _run([*flags, *rest], console=console)
        except click.exceptions.NoArgsIsHelpError as error:
            if not console.is_json:
                error.show()
                return ExitStatus.USAGE
            return _fail(error, console=console, log=log)
        except Exception as error:  # the process's edge: whatever happened becomes a sentence and a status
            return _fail(error, console=console, log=log)
        if answer == _INTERRUPTED:
            return _fail(KeyboardInterrupt(), console=console, log=log)
    if isinstance(answer, Mapping):
        console.envelope(answer)
    return answer if isinstance(answer, int) else ExitStatus.OK


_INTERRUPTED = 130
"""What Typer answers after Ctrl-C."""


def _run(arguments: Sequence[str], *, console: Console) -> object:
    """What the command answers: data for the envelope, an exit status, or nothing."""
    command = typer.main.get_command(app)
    # For a program, help and whatever a library prints must not get between it and the envelope.
    with redirect_stdout(sys.stderr) if console.is_json else nullcontext():
        return command(list(arguments), prog_name="aevorium", standalone_mode=False, obj=console)


def _take_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Moves the global flags to the front, wherever they were typed."""
    flags = [argument for argument in arguments if argument in _GLOBAL_FLAGS]
    return flags, [argument for argument in arguments if argument not in _GLOBAL_FLAGS]


def _fail(error: BaseException, *, console: Console, log: FailureLog) -> int:
    told = _told(error)
    if isinstance(told, InternalError):
        told = _with_log(told, error, log=log)
    console.error(told)
    if console.is_verbose:
        sys.stderr.write("".join(traceback.format_exception(error)))
    console.error_envelope(told)
    return told.exit_status


def _told(error: BaseException) -> AevoriumError:
    """The error of the catalogue that says what happened."""
    if isinstance(error, AevoriumError):
        return error
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return ConfigError("CONFIG_INVALID", "No command was given.", hint="Type: aevorium --help")
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else "aevorium"
        return ConfigError("CONFIG_INVALID", error.format_message(), hint=f"Type: {command} --help")
    if isinstance(error, KeyboardInterrupt | EOFError | click.Abort):
        return AevoriumError("RUN_INTERRUPTED", "Stopped by the keyboard.", hint="Type the command again.")
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("aevorium"):
        return ConfigError(
            "DEPENDENCY_MISSING",
            f"The library {error.name!r} is not installed. This command needs it.",
            hint="Type: python -m pip install 'aevorium[all]'",
        )
    return InternalError(f"Something failed inside Aevorium: {type(error).__name__}.")


def _with_log(told: InternalError, error: BaseException, *, log: FailureLog) -> InternalError:
    from aevorium.settings import log_folder

    path = log.write(log_folder(), error)
    if path is None:
        return InternalError(told.message, hint="Type the command again with --verbose, and report what it shows.")
    return InternalError(told.message, hint=f"Report it with {str(path)!r}. It may quote data: read it first.")
