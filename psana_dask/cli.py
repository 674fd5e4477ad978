"""The command line: parse, call, print."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import click

from psana_dask import __version__
from psana_dask.errors import GeometryError, NameNotFound, PsanaError

source_argument = click.argument("source", nargs=-1, required=True)
run_option = click.option("--run", type=int, help="Run number.")
dir_option = click.option("--dir", "folder", type=click.Path(), help="Folder of the files.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


class Commands(click.Group):
    """Turns the errors of this package into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C leaves quietly with status 130."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except (PsanaError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            sys.exit(130)


def _show_warning(message: Warning | str, *rest: Any, **named: Any) -> None:
    del rest, named
    click.echo(f"warning: {message}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Look at LCLS runs: psana-dask COMMAND --help says more.

    SOURCE is a file, several files, a glob, a folder, an experiment name with --run, or a
    data set string such as exp=xpptut15:run=54.
    """


def _open(source: tuple[str, ...], run: int | None, folder: str | None) -> Any:
    from psana_dask.run import open_run

    return open_run(source[0] if len(source) == 1 else list(source), run, dir=folder)


@main.command()
@source_argument
@run_option
@dir_option
@json_option
def info(source: tuple[str, ...], run: int | None, folder: str | None, as_json: bool) -> None:
    """Say what is in a run: detectors, shapes, rates, steps, problems."""
    opened = _open(source, run, folder)
    if not as_json:
        click.echo(repr(opened))
        return
    from psana_dask.describe import run_facts

    click.echo(json.dumps(run_facts(opened), indent=1))


@main.command()
@click.argument("experiment")
@dir_option
@json_option
def ls(experiment: str, folder: str | None, as_json: bool) -> None:
    """List the runs of EXPERIMENT on disk."""
    from psana_dask.run import list_runs

    table = list_runs(experiment, dir=folder)
    if as_json:
        click.echo(table.to_json(orient="records", date_format="iso"))
        return
    table["size"] = [f"{n / 1e9:.3f} GB" for n in table.pop("bytes")]
    click.echo(table.to_string(index=False))


@main.command()
@click.argument("source")
@click.argument("detector")
@run_option
@dir_option
@click.option("--event", default="0", show_default=True, help="Position, or time: the nearest event.")
@click.option("-o", "--output", default="picture.png", show_default=True, type=click.Path(dir_okay=False))
def show(source: str, detector: str, run: int | None, folder: str | None, event: str, output: str) -> None:
    """Draw one event of DETECTOR, calibrated and assembled as far as possible, or of DETECTOR.FIELD."""
    from psana_dask.plot import save_picture

    opened = _open((source,), run, folder)
    array = _one_event(opened, detector, event)
    state = "" if array.attrs.get("calibrated", True) else ", raw counts"
    title = f"{opened.experiment} run {opened.number}: {array.name}{state}, {str(array.time.values)[:29]}"
    save_picture(array, output, title)
    click.echo(f"{output}: {array.name} {dict(array.sizes)}, {array.time.values!s}")


def _one_event(run: Any, detector: str, event: str) -> Any:
    """Return the array of one detector at one event, loaded."""
    name, _, field = detector.partition(".")
    chosen = run.isel(int(event)) if event.lstrip("-").isdigit() else run.sel(event, method="nearest")
    found = chosen[name]
    data = _image(found) if not field else None
    if data is None:
        field = field or ("raw" if "raw" in found.fields else found.fields[0])
        data = found.field(field, chunks=None)
    array = data[field] if hasattr(data, "data_vars") else data
    if "time" in array.dims:
        array = array.isel(time=0)
    else:  # ragged: all items are of this event
        array = array.assign_coords(time=chosen.start)
    return array.load()


def _image(detector: Any) -> Any:
    """Return the assembled frames of a detector, calibrated where it has constants; None without frames."""
    try:
        return detector.assembled(calibrated=True, policy="raw", holes="nearest", chunks=None)
    except (NameNotFound, GeometryError):
        return None


@main.command()
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


@main.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--events", default=64, show_default=True)
@click.option("--experiment", default="tstx00117", show_default=True)
@click.option("--run", "number", default=1, show_default=True)
@click.option("--seed", default=0, show_default=True)
def simulate(folder: str, events: int, experiment: str, number: int, seed: int) -> None:
    """Write a simulated run to FOLDER: diffraction frames, steps, EPICS, mixed rates."""
    from psana_dask.simulate import demo_run

    demo_run(folder, events, experiment=experiment, number=number, seed=seed)
    click.echo(f"{folder}: {experiment} run {number}, {events} events; look with: psana-dask info {folder}")


@main.command()
@click.option("--events", default=128, show_default=True)
@click.option("-o", "--output", default="demo.png", show_default=True, type=click.Path(dir_okay=False))
def demo(events: int, output: str) -> None:
    """Simulate a run, open it, jump to an event, average its frames, draw the mean."""
    from psana_dask.demo import run_demo

    run_demo(events, output)


@main.command()
@click.option("--small", is_flag=True, help="A quick pass over small files: figures mean little.")
@click.option("--rounds", default=5, show_default=True, help="Rounds of each comparison; medians are shown.")
@json_option
def bench(small: bool, rounds: int, as_json: bool) -> None:
    """Measure reading on this machine, next to a bare read of the same bytes."""
    from psana_dask.benchmark import measure_all, table

    rows = measure_all(small=small, rounds=rounds)
    click.echo(json.dumps([r._asdict() for r in rows], indent=1) if as_json else table(rows))
