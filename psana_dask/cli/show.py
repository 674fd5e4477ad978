"""Draw one event: ``show``."""

from __future__ import annotations

from typing import Any

import click

from psana_dask.cli.common import dir_option, open_source, run_option
from psana_dask.errors import GeometryError, NameNotFound


@click.command()
@click.argument("source")
@click.argument("detector")
@run_option
@dir_option
@click.option("--event", default="0", show_default=True, help="Position, or time: the nearest event.")
@click.option("-o", "--output", default="picture.png", show_default=True, type=click.Path(dir_okay=False))
def show(source: str, detector: str, run: int | None, folder: str | None, event: str, output: str) -> None:
    """Draw one event of DETECTOR, calibrated and assembled as far as possible, or of DETECTOR.FIELD."""
    from psana_dask.plot import save_picture

    opened = open_source((source,), run, folder)
    array, mask = _one_event(opened, detector, event)
    state = "" if array.attrs.get("calibrated", True) else ", raw counts"
    title = f"{opened.experiment} run {opened.number}: {array.name}{state}, {str(array.time.values)[:29]}"
    save_picture(array, output, title, mask)
    click.echo(f"{output}: {array.name} {dict(array.sizes)}, {array.time.values!s}")


def _one_event(run: Any, detector: str, event: str) -> tuple[Any, Any]:
    """Return the array of one detector at one event, loaded, and its good pixels if it is an image."""
    name, _, field = detector.partition(".")
    chosen = run.isel(int(event)) if event.lstrip("-").isdigit() else run.sel(event, method="nearest")
    found = chosen[name]
    image = _image(found) if not field else None
    if image is not None:
        frame = image.isel(time=0).load()
        return frame, _good(found, frame)
    field = field or ("raw" if "raw" in found.fields else found.fields[0])
    data = found.field(field, chunks=None)
    array = data[field] if hasattr(data, "data_vars") else data
    if "time" in array.dims:
        array = array.isel(time=0)
    else:  # ragged: all items are of this event
        array = array.assign_coords(time=chosen.start)
    return array.load(), None


RULES = {"holes": "nearest"}
"""How a picture treats the lines between ASICs that no pixel falls on."""


def _image(detector: Any) -> Any:
    """Return frames, calibrated where there are constants, assembled where there is a geometry; or None."""
    try:
        return detector.assembled(calibrated=True, policy="raw", chunks=None, **RULES)
    except GeometryError:  # a type that nobody has described: panels side by side
        return detector.calibrated(policy="raw", chunks=None)
    except NameNotFound:
        return None


def _good(detector: Any, image: Any) -> Any:
    """Return the pixels of an image that decide its colours: those that are not masked."""
    import numpy as np

    if "x" not in image.dims:
        return None
    return np.isfinite(image.values) & (detector.assembled(detector.mask, **RULES).values > 0)
