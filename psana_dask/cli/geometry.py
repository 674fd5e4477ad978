"""Look at, convert and draw geometries: ``geometry show | convert | plot``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from psana_dask.cli.common import dir_option, json_option, open_source, run_option
from psana_dask.errors import GeometryError

FORMATS = ("psana", "crystfel", "nexus", "dxtbx", "pyfai", "cheetah")
TEXTS = ("psana", "crystfel", "dxtbx")


def _source(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments and options that say which geometry is meant."""
    for option in reversed(
        (
            click.argument("source"),
            click.argument("detector", required=False),
            run_option,
            dir_option,
            click.option("--calib", type=click.Path(), help="Folder of constants, for a run."),
            click.option("--from", "form", type=click.Choice(FORMATS), help="Format of a file."),
            click.option("--segment", help="psana segment type, where a file does not say it."),
            click.option(
                "--convention",
                type=click.Choice(("psana2", "psana1")),
                default="psana2",
                show_default=True,
                help="Whose segment types a file or default means: LCLS-II or LCLS-1.",
            ),
            click.option(
                "--corner",
                type=click.Choice(("corner", "centre")),
                default="corner",
                show_default=True,
                help="CrystFEL: what corner_x is; files that psana wrote hold the pixel's centre.",
            ),
        )
    ):
        command = option(command)
    return command


@click.group()
def geometry() -> None:
    """Show, convert and draw where a detector's pixels are.

    SOURCE is a geometry file (psana text, CrystFEL, NeXus, dxtbx, pyFAI poni, Cheetah pixel map),
    a run together with a DETECTOR, or default:NAME[:PANELS], for instance default:jungfrau:8.
    """


@geometry.command()
@_source
@json_option
def show(as_json: bool, **source: Any) -> None:
    """Say what a geometry is: panels, pixels, distance, and where each panel is (laboratory frame)."""
    from psana_dask.geometry.figure import describe, facts

    found = _found(**source)
    known = facts(found)
    if as_json:
        click.echo(json.dumps(known, indent=1))
        return
    click.echo(describe(found))
    click.echo("\npanel      x/mm      y/mm       z/mm  rows point/deg  leans/deg")
    for panel in known["panels"]:
        click.echo(
            "{panel:5d} {x_mm:9.3f} {y_mm:9.3f} {z_mm:10.3f} {rows_point_deg:15.3f} {leans_deg:10.3f}".format(
                **panel
            )
        )


@geometry.command()
@_source
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="File; a text goes to the screen.")
@click.option("--to", "into", type=click.Choice(FORMATS), help="Format; by default by the file's ending.")
@click.option("--clen", help="CrystFEL: camera length (m), or its place in the data file.")
@click.option("--data", help="CrystFEL: place of the frames in the data file.")
@click.option("--mask", help="CrystFEL: place of the mask in the data file; any value but 0 is bad.")
@click.option("--panel-axis", is_flag=True, help="CrystFEL: frames are (panel, ss, fs), not stacked.")
@click.option("--wavelength", type=float, help="NeXus, pyFAI: wavelength, angstrom.")
def convert(output: str | None, into: str | None, **given: Any) -> None:
    """Write a geometry in another format: psana, crystfel, nexus, dxtbx, pyfai or cheetah.

    EXtra-geom reads and writes the CrystFEL format.
    """
    from psana_dask.geometry.files import form_of_suffix, save, text_of

    names = ("clen", "data", "mask", "panel_axis", "wavelength")
    options = {name: given.pop(name) for name in names}
    chosen = {name: value for name, value in options.items() if value not in (None, False)}
    if "clen" in chosen and _is_number(chosen["clen"]):
        chosen["clen"] = float(chosen["clen"])
    if output is None:
        if into not in TEXTS:
            raise click.UsageError(f"give -o FILE, or --to one of {', '.join(TEXTS)} to print a text")
        click.echo(text_of(_found(**given), into, **chosen), nl=False)
        return
    if (into or form_of_suffix(Path(output))) == "nexus" and given["detector"] is not None:
        chosen |= _times(**given)
    found = _found(**given)
    click.echo(f"{save(found, output, into, **chosen)}: {found.shape[0]} x {found.segment.name}")


def _times(source: str, detector: str, run: int | None, folder: str | None, **rest: Any) -> dict[str, str]:
    """Return what a NeXus file says of the run that a geometry belongs to."""
    del rest
    opened = open_source((source,), run, folder)
    title = f"{detector} of {opened.experiment} run {opened.number}"
    return {"title": title, "start_time": f"{opened.start}Z", "end_time": f"{opened.stop}Z"}


@geometry.command()
@_source
@click.option("-o", "--output", default="geometry.png", show_default=True, type=click.Path(dir_okay=False))
@click.option("--labels/--no-labels", default=True, show_default=True, help="Numbers of the panels.")
def plot(output: str, labels: bool, **source: Any) -> None:
    """Draw the outlines of all ASICs, seen along the beam, with the panels' numbers."""
    from psana_dask.geometry.figure import draw_panels

    found = _found(**source)
    axes: Any = draw_panels(found, labels=labels)
    what = f"{found.shape[0]} x {found.segment.name}"
    axes.set_title(f"{Path(source['source']).name} {source['detector'] or ''}: {what}", fontsize=10)
    axes.figure.savefig(output, dpi=150)
    click.echo(f"{output}: {what}")


def _found(
    source: str,
    detector: str | None,
    run: int | None,
    folder: str | None,
    calib: str | None,
    form: str | None,
    segment: str | None,
    convention: str,
    corner: str,
) -> Any:
    """Return the geometry that the arguments name."""
    from psana_dask.geometry.defaults import default_geometry
    from psana_dask.geometry.files import load

    if detector is not None:
        return open_source((source,), run, folder, calib=calib)[detector].geometry
    if source.startswith("default:"):
        name, _, panels = source.removeprefix("default:").partition(":")
        count = int(panels) if panels else None
        return default_geometry(name, panels=count, convention=convention)  # type: ignore[arg-type]
    if not Path(source).is_file():
        raise GeometryError(f"no file {source}; for the geometry of a run name a detector as well")
    options = {"corner": corner} if corner != "corner" else {}
    return load(source, form, segment=segment, convention=convention, **options)  # type: ignore[arg-type]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
