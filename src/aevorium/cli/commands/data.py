"""`aevorium data`: from exports to tables, and simulated exports to try things with."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from aevorium.cli.console import console_of
from aevorium.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(help="Tables: from Synthea exports, or simulated.", no_args_is_help=True)


@app.command("prepare")
def prepare(
    context: typer.Context,
    synthea: Annotated[Path, typer.Option("--synthea", help="Folder with the seven CSV tables of an export.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="The table to write, one row per adult patient.")
    ] = None,
    reference_date: Annotated[
        datetime | None,
        typer.Option(
            "--reference-date",
            formats=["%Y-%m-%d"],
            help="Day at which ages are taken; later rows are left out. Default: the last encounter.",
        ),
    ] = None,
    split: Annotated[
        int | None, typer.Option("--split", help="Split by organisation into so many tables; needs --output-dir.")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Folder for the tables of --split: part_1.csv and so on.")
    ] = None,
) -> dict[str, object]:
    """Makes one row per adult patient from a Synthea export.

    What was kept, clipped, missing and refused is told on the standard error stream: exact counts, for the owner of
    the data.
    """
    is_single = output is not None and output_dir is None and split is None
    is_split = output is None and output_dir is not None and split is not None
    if not (is_single or is_split):
        raise ConfigError(
            "CONFIG_INVALID",
            "Where to write is not clear. Either --output FILE is needed, or --split K with --output-dir DIR.",
            hint="Type: aevorium data prepare --help",
        )
    from aevorium.data.partition import main_organisations, split_by_organisation
    from aevorium.data.synthea import prepare_export, write_patients

    console = console_of(context)
    with console.busy(f"Reading {synthea} …"):
        prepared = prepare_export(synthea, reference_date=None if reference_date is None else reference_date.date())
    findings = prepared.findings.lines()
    for line in findings:
        console.note(line)
    if output is not None:
        tables = {output: prepared.frame}
    elif output_dir is not None and split is not None:
        organisations = main_organisations(synthea)
        parts = split_by_organisation(prepared.frame, organisations=organisations, parts=split)
        tables = {output_dir / f"part_{number}.csv": part for number, part in enumerate(parts, start=1)}
    for path, frame in tables.items():
        write_patients(frame, path)
        console.say(f"{path}: {len(frame):,} rows")
    return {
        "tables": [{"path": str(path), "rows": len(frame)} for path, frame in tables.items()],
        "is_simulated": prepared.findings.simulated,
        "findings": findings,
    }


@app.command("sample")
def sample(
    context: typer.Context,
    output_dir: Annotated[Path, typer.Option("--output-dir", help="Folder for the exports, one folder each.")] = Path(
        "data/csv"
    ),
    hospitals: Annotated[int, typer.Option("--hospitals", help="How many hospitals to simulate.")] = 3,
    patients: Annotated[
        list[int] | None,
        typer.Option("--patients", help="Adults of a hospital; once for all, or once for each.", show_default=False),
    ] = None,
    holdout: Annotated[int, typer.Option("--holdout", help="Adults that belong to no hospital, to compare with.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Determines every simulated patient.")] = 0,
) -> dict[str, object]:
    """Simulates Synthea exports of hospitals that differ, so that a first run needs no download."""
    from aevorium.data.sample import write_sample

    console = console_of(context)
    sizes = [*patients] * hospitals if patients is not None and len(patients) == 1 else patients
    samples = write_sample(output_dir, seed=seed, hospitals=hospitals, patients=sizes, holdout=holdout)
    console.say("Simulated patients; no person is concerned.")
    for found in samples:
        console.say(f"{found.directory}: {found.adults:,} adults, {found.children:,} children")
    console.note("Next: aevorium data prepare --synthea FOLDER --output FILE.csv, for each folder")
    return {
        "exports": [
            {
                "name": found.name,
                "path": str(found.directory),
                "adults": found.adults,
                "children": found.children,
                "is_holdout": found.is_holdout,
            }
            for found in samples
        ],
        "is_simulated": True,
    }
