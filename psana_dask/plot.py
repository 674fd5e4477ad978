"""Pictures of frames and waveforms, drawn without a screen; live plots in a browser."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.drawing import blank, colour_limits, side_by_side
from psana_dask.geometry.figure import draw_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

    from psana_dask.pages.live import Live


def live(
    source: Any,
    names: Any,
    *,
    plots: Sequence[Callable[[xr.Dataset], Any]] | Callable[[xr.Dataset], Any] = (),
    policy: str | None = None,
    rate: float | None = None,
    kept: int = 2000,
    means: bool = True,
    window: int | None = None,
    half_life: float | None = None,
    updates: float = 10.0,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
    **options: Any,
) -> Live:
    """Show events as they come, in a notebook or a browser.

    Parameters
    ----------
    source : Run, Stream or what `psana_dask.open` takes
        A stream, a run that is being written (``live=True``, ``live:...``), or a closed run, which is
        replayed. A stream is taken over: it is closed with the plots.
    names : str or list of str
        ``"epixquad"``: images of a detector with pixels, all numbers and waveforms of another one;
        ``"epixquad.raw"``, ``"gmd.energy"``: one field; a `PerFrame`.
    plots : function or sequence of functions
        Each takes the Dataset of what was accumulated, and returns an array or DataArray (a number, a
        line, lines (panel, ...), a picture) or anything that panel shows, such as a HoloViews object.
        The Dataset has frames and waveforms of the latest event (``epixquad_image``), their means
        (``epixquad_image_mean``), the numbers of the last `kept` events along ``time``
        (``gmd_energy``, NaN where there is none), and the counters as attributes.
    policy : {"latest", "complete"}, optional
        "latest" drops, and counts, what cannot be processed in time: the default for streams that are
        opened here, and runs that are being written. A closed run is replayed completely.
    rate : float, optional
        Events a second of a closed run; by default the pace at which it was taken.
    kept : int
        Events whose numbers are kept.
    means : bool
        Make means of frames and waveforms: every event is read for them. Without them only those events
        are read that are shown.
    window, half_life : int, float, optional
        Means of the last batches that have so many events; means in which an event counts half after so
        many more events. Of all events by default.
    updates : float
        Pictures a second, at most.
    log : bool
        Colours on a logarithmic scale, at first.
    limits : (float, float), optional
        Fixed colours, at first; by default they go from the 1st to the 99th percentile.
    title : str, optional
    **options
        Of `psana_dask.open`: ``calib=``, ``run=``, ``dir=``, ``live=``, ...

    Returns
    -------
    Live
        Shows itself in a notebook. ``.serve(host=, port=)`` gives the address for a browser,
        ``.dataset`` what was accumulated, ``.counters``, ``.error``; ``.close()`` ends it.

    Raises
    ------
    NameNotFound
        No such detector or field; of a stream the page says so.
    MissingLibrary
        Panel is not installed.

    Examples
    --------
    >>> def profile(ds):
    ...     return ds.epixquad_image_mean.mean("y")
    >>> live = psana_dask.plot.live("shmem://TAG", ["epixquad", "gmd"], plots=[profile])
    >>> live.serve().url
    """
    from psana_dask.pages.live import begin

    own = (plots,) if callable(plots) else tuple(plots)
    accumulate = {"kept": kept, "means": means, "window": window, "half_life": half_life}
    look = {"plots": own, "updates": updates, "log": log, "limits": limits, "title": title}
    return begin(source, names, policy=policy, rate=rate, accumulate=accumulate, look=look, options=options)


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
    figure = blank()
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


def _units(array: xr.DataArray) -> str:
    return str(array.attrs.get("units", "ADU"))


def _draw_frame(figure: Any, axes: Any, array: xr.DataArray, mask: npt.NDArray[np.bool_] | None) -> None:
    image = side_by_side(array.values)
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
