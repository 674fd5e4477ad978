"""The demo: from nothing to the mean image of a run, in a few calls."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from psana_dask.opening import open_run
from psana_dask.plot import save_picture
from psana_dask.run import Run
from psana_dask.simulate.runs import DEMO_FRAMES, demo_spec, write


def run_demo(events: int, output: str, form: str = "xtc2") -> None:
    """Simulate a run in a temporary folder, look at it, and write a picture to `output`.

    Parameters
    ----------
    events : int
    output : str
        Path of the picture.
    form : str
        Of `RunSpec.format`: ``"xtc2"`` (LCLS-II) or ``"xtc"`` (LCLS-1).
    """
    name = DEMO_FRAMES[form]
    with tempfile.TemporaryDirectory(prefix="psana_dask_demo_") as folder:
        click.echo(f"simulating {events} events ...")
        truth = write(demo_spec(events, format=form), folder)
        _say("run = psana_dask.open(folder)")
        run = open_run(folder, calib=truth.calib)
        click.echo(repr(run))
        _jump(run, name)
        _mean(run, name, output)


def _jump(run: Run, name: str) -> None:
    """Read one event by its time."""
    key = str(run.events.time.values[len(run) // 2])
    _say(f'event = run.event("{key}")')
    began = time.perf_counter()
    event = run.event(key)
    took = 1e3 * (time.perf_counter() - began)
    frame = event[f"{name}_raw"]
    click.echo(f"{frame.name} {dict(frame.sizes)}, mean {float(frame.mean()):.2f} ADU, read in {took:.1f} ms")


def _mean(run: Run, name: str, output: str) -> None:
    """Average the images of all events in parallel, missing panels left out, and draw the result."""
    _say(f'mean = run.mean("{name}.image")')
    mean = run.mean(f"{name}.image").assign_attrs(units="photons")
    save_picture(mean, output, f"mean of {len(run)} events of {name}")
    click.echo(f"wrote {Path(output).resolve()}")


def _say(code: str) -> None:
    """Show the code that does what comes next."""
    click.secho(f"\n>>> {code}", bold=True)
