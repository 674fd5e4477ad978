"""Pictures of frames and waveforms, drawn without a screen."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import MissingLibrary
from psana_dask.geometry.figure import colour_limits, draw_image

if TYPE_CHECKING:
    import xarray as xr

GAP = 4
"""Pixels between panels of a mosaic."""


def mosaic(panels: npt.NDArray[Any], gap: int = GAP) -> npt.NDArray[np.float64]:
    """Lay panels side by side: as many in a row as make the whole about square.

    Parameters
    ----------
    panels : (panel, row, col) or (row, col) array
    gap : int
        Pixels between panels; they are NaN.

    Returns
    -------
    (y, x) float64
    """
    if panels.ndim == 2:
        return panels.astype(float)
    count, rows, cols = panels.shape
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    out = np.full((down * (rows + gap) - gap, across * (cols + gap) - gap), np.nan)
    for k, panel in enumerate(panels):
        y, x = k // across * (rows + gap), k % across * (cols + gap)
        out[y : y + rows, x : x + cols] = panel
    return out


def save_picture(
    array: xr.DataArray, path: str | os.PathLike[str], title: str, mask: npt.NDArray[np.bool_] | None = None
) -> None:
    """Draw one event of a detector: a frame as a picture, a waveform as a line, a number as text.

    Parameters
    ----------
    array : DataArray
        (y, x), ([panel,] row, col), ([panel,] sample) or a scalar; loaded.
    path : path
        The suffix says the format (.png, .pdf, .svg).
    title : str
    mask : bool array of the shape of a frame, optional
        True for the pixels that decide the colours: these go from the 1st to the 99th percentile.

    Raises
    ------
    MissingLibrary
        Matplotlib is not installed.
    """
    figure = _figure()
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    if array.dims[-2:] == ("y", "x") and "x" in array.coords:
        image = array.values
        draw_image(image, array.y.values, array.x.values, axes, mask=mask, label=_units(array))
    elif array.dims[-2:] in (("row", "col"), ("y", "x")):
        _draw_frame(figure, axes, array, mask)
    else:
        _draw_lines(axes, array)
    figure.savefig(path, dpi=150)


def _figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingLibrary.of("matplotlib", "plot", "drawing a picture") from None
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _units(array: xr.DataArray) -> str:
    return str(array.attrs.get("units", "ADU"))


def _draw_frame(
    figure: Any, axes: Any, array: xr.DataArray, mask: npt.NDArray[np.bool_] | None
) -> None:
    image = mosaic(array.values)
    low, high = colour_limits(array.values, mask)
    shown = axes.imshow(image, vmin=low, vmax=high, interpolation="nearest", cmap="viridis")
    panels = " (panels side by side)" if array.ndim == 3 else ""
    axes.set_xlabel(f"{array.dims[-1]}{panels}")
    axes.set_ylabel(array.dims[-2])
    figure.colorbar(shown, label=_units(array), shrink=0.8)


def _draw_lines(axes: Any, array: xr.DataArray) -> None:
    values = np.atleast_2d(array.values)
    for k, line in enumerate(values.reshape(-1, values.shape[-1])):
        axes.plot(line, drawstyle="steps-mid", linewidth=0.8, label=f"{k}")
    axes.set_xlabel(str(array.dims[-1]) if array.dims else "")
    axes.set_ylabel(str(array.name))
