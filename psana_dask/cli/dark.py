"""Make constants from dark runs: ``dark``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from psana_dask.cli.calib import comment_option, deployment_facts, deployment_text
from psana_dask.cli.common import dir_option, json_option, open_source


@click.command()
@click.argument("source")
@click.argument("detector")
@click.option("--run", "runs", type=int, multiple=True, help="Run number; several for several gain ranges.")
@dir_option
@click.option("--stage", help="Gain range that all events measure; by default what the words say.")
@click.option("--events", type=int, help="Only the first so many events of each run.")
@click.option("--memory", type=float, default=2.0, show_default=True, help="GiB that may be used.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Report picture: .png, .pdf.")
@click.option("--deploy", "to_deploy", is_flag=True, help="Put the constants in force.")
@click.option("--store", type=click.Path(), help="Where to: PSANA_DASK_CALIB, or calib beside the data.")
@click.option("--for-runs", help="10-20, 10-end, or 10; by default from the (first) dark run on.")
@click.option("--missing", type=click.Choice(["error", "in force", "neutral"]), default="error",
              show_default=True, help="What gain ranges get that were not measured.")
@comment_option
@click.option("--dry-run", is_flag=True, help="With --deploy: say what would happen, write nothing.")
@json_option
def dark(
    source: str, detector: str, runs: tuple[int, ...], folder: str | None, stage: str | None,
    events: int | None, memory: float, output: str | None, to_deploy: bool, store: str | None,
    for_runs: str | None, missing: str, comment: str, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Work out pedestals, noise and bad pixels of DETECTOR from runs without beam."""
    from psana_dask.dark_runs import dark as process
    from psana_dask.progress import StepProgress

    opened = [open_source((source,), run, folder) for run in runs or (None,)]
    chosen = [run.isel(slice(events)) for run in opened]
    with StepProgress("dark") as progress:
        found = process(
            chosen, detector, stage=stage, memory=int(memory * 2**30), progress=None if as_json else progress,
        )  # fmt: skip
    facts = found.facts()
    if not as_json:
        click.echo(repr(found))
    if output:
        found.report(output)
        click.echo(output, err=True)
    if to_deploy:
        done = _deploy(found, opened[0], store, for_runs, missing, comment, dry_run)
        facts["deployed"] = [deployment_facts(d) for d in done]
        if not as_json:
            click.echo("\n".join(map(deployment_text, done)))
    if as_json:
        click.echo(json.dumps(facts, indent=1))


def _deploy(
    found: Any, run: Any, store: str | None, runs: str | None, missing: str, comment: str, dry_run: bool
) -> Any:
    from psana_dask.calib.deploying import deploy
    from psana_dask.stores import default_folder

    folder = Path(store) if store else default_folder(run._view.recording)
    text = comment or f"dark of run {', '.join(map(str, found.runs))}"
    return deploy(replace(found, missing=missing), folder, runs=runs, comment=text, dry_run=dry_run)
