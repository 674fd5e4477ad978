"""Look at runs: ``info``, ``ls``, ``index``."""

from __future__ import annotations

import json

import click

from psana_dask.cli.common import dir_option, json_option, open_source, run_option, source_argument


@click.command()
@source_argument
@run_option
@dir_option
@json_option
def info(source: tuple[str, ...], run: int | None, folder: str | None, as_json: bool) -> None:
    """Say what is in a run: detectors, shapes, rates, steps, problems."""
    opened = open_source(source, run, folder)
    if not as_json:
        click.echo(repr(opened))
        return
    from psana_dask.describe import run_facts

    click.echo(json.dumps(run_facts(opened), indent=1))


@click.command()
@click.argument("experiment")
@dir_option
@json_option
def ls(experiment: str, folder: str | None, as_json: bool) -> None:
    """List the runs of EXPERIMENT on disk."""
    from psana_dask.opening import list_runs

    table = list_runs(experiment, dir=folder)
    if as_json:
        click.echo(table.to_json(orient="records", date_format="iso"))
        return
    table["size"] = [f"{n / 1e9:.3f} GB" for n in table.pop("bytes")]
    click.echo(table.to_string(index=False))


@click.command()
@source_argument
@run_option
@dir_option
def index(source: tuple[str, ...], run: int | None, folder: str | None) -> None:
    """Build the indexes of a run (or bring them up to date) and keep them."""
    from psana_dask.files import find_run
    from psana_dask.progress import ScanProgress
    from psana_dask.recording import open_recording

    files = find_run(source[0] if len(source) == 1 else list(source), run, folder)
    with ScanProgress() as progress:
        recording = open_recording(files, progress=progress)
    rows = sum(len(s) for s in recording.streams)
    click.echo(f"{len(recording.events):,} events, {rows:,} datagrams, {len(recording.problems)} problems")
