"""Try it out and measure: ``simulate``, ``demo``, ``bench``."""

from __future__ import annotations

import json

import click

from psana_dask.cli.common import json_option

format_option = click.option(
    "--format",
    "form",
    default="xtc2",
    show_default=True,
    type=click.Choice(["xtc2", "xtc"]),
    help="Files of LCLS-II (xtc2) or LCLS-1 (xtc).",
)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@format_option
@click.option("--events", default=64, show_default=True)
@click.option("--experiment", default="tstx00117", show_default=True)
@click.option("--run", "number", default=1, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--live", is_flag=True, help="As if it were taken now: the files grow, and are renamed at the end."
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="With --live: events a second (120)."
)
def simulate(
    folder: str, form: str, events: int, experiment: str, number: int, seed: int, live: bool,
    rate: float | None,
) -> None:  # fmt: skip
    """Write a simulated run to FOLDER: diffraction frames, steps, EPICS, mixed rates.

    With --live it is taken now: look with psana-dask monitor live:FOLDER, or psana_dask.open("live:FOLDER").
    """
    from psana_dask.simulate import demo_run, demo_spec, write_live

    if live:
        click.echo(f"{folder}: taking {experiment} run {number}, {events} events; open live:{folder}")
        named = {"experiment": experiment, "number": number, "seed": seed}
        write_live(demo_spec(events, format=form, **named), folder, rate)
        click.echo("the run has ended")
        return
    if rate is not None:
        raise click.UsageError("--rate belongs to --live")
    demo_run(folder, events, format=form, experiment=experiment, number=number, seed=seed)
    click.echo(f"{folder}: {experiment} run {number}, {events} events; look with: psana-dask info {folder}")


@click.command()
@format_option
@click.option("--events", default=128, show_default=True)
@click.option("-o", "--output", default="demo.png", show_default=True, type=click.Path(dir_okay=False))
def demo(form: str, events: int, output: str) -> None:
    """Simulate a run, open it, jump to an event, average its frames, draw the mean."""
    from psana_dask.demo import run_demo

    run_demo(events, output, form)


@click.command()
@click.option("--small", is_flag=True, help="A quick pass over small files: figures mean little.")
@click.option("--rounds", default=5, show_default=True, help="Rounds of each comparison; medians are shown.")
@json_option
def bench(small: bool, rounds: int, as_json: bool) -> None:
    """Measure reading on this machine, next to a bare read of the same bytes."""
    from psana_dask.benchmark import measure_all, table

    rows = measure_all(small=small, rounds=rounds)
    click.echo(json.dumps([r._asdict() for r in rows], indent=1) if as_json else table(rows))
