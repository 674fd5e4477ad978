"""Plots of a geometry and of an assembled image, and a description in words.

matplotlib is imported on first use (``pip install "psana_dask[plot]"``).
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from math import acos, atan2, degrees
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.drawing import SIZE, blank, colour_limits
from psana_dask.errors import MissingLibrary
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.tables import prepare
from psana_dask.geometry.tiles import Tile, by_panels, tiles_of
from psana_dask.geometry.tree import coordinates

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def facts(geometry: Geometry) -> dict[str, Any]:
    """Return what a geometry is, as plain values for tables and JSON.

    Returns
    -------
    dict
        Of the whole, and under ``panels`` for each panel: name, the place of its middle (mm), the
        direction of its rows (degrees from the laboratory's x towards y) and how far it leans (the
        angle between its normal and the beam, degrees); laboratory frame.

    Examples
    --------
    >>> geometry.facts(run.cspad.geometry)
    """
    x, y, z = coordinates(geometry, frame="lab")
    tables = prepare(geometry)
    return {
        "segment": geometry.segment.name,
        "shape": list(geometry.shape),
        "pixel_size_um": geometry.segment.pixel_size,
        "distance_mm": round(float(np.nanmean(z)) * 1e-3, 6),
        "extent_mm": [round(float(np.nanmax(axis) - np.nanmin(axis)) * 1e-3, 6) for axis in (y, x)],
        "image": list(tables.shape),
        "overlapping_bins": tables.overlapping,
        "parts": len(geometry.parts),
        "convention": geometry.convention,
        "hash": geometry.key[:16],
        "panels": [_panel_facts(number, panel) for number, panel in enumerate(by_panels(tiles_of(geometry)))],
    }


def _panel_facts(number: int, tiles: Sequence[Tile]) -> dict[str, Any]:
    middle = np.mean([_outline(tile)[:4].mean(axis=0) for tile in tiles], axis=0) * 1e3
    fast, slow = (step / np.linalg.norm(step) for step in (tiles[0].fast, tiles[0].slow))
    across = abs(float(np.cross(fast, slow)[2]))
    return {
        "panel": number,
        **{f"{axis}_mm": round(float(value), 6) for axis, value in zip("xyz", middle, strict=True)},
        "rows_point_deg": round(degrees(atan2(fast[1], fast[0])), 5),
        "leans_deg": round(degrees(acos(min(across, 1.0))), 5),
    }


def describe(geometry: Geometry) -> str:
    """Return what a geometry is, a few lines of text: panels, pixels, distance, extent, image.

    Examples
    --------
    >>> print(geometry.describe(detector))
    """
    known = facts(geometry)
    panels, rows, cols = known["shape"]
    down, across = known["extent_mm"]
    return "\n".join(
        [
            f"{panels} x {known['segment']}, {rows} x {cols} pixels of {known['pixel_size_um']:g} um",
            f"mean distance {known['distance_mm']:.3f} mm, extent {down:.1f} mm high, {across:.1f} mm wide",
            f"image {known['image'][0]} x {known['image'][1]}, "
            f"{known['overlapping_bins']} bins with several pixels",
            f"parts {known['parts']}, convention {known['convention']}, hash {known['hash']}",
        ]
    )


def draw_panels(geometry: Geometry, axes: Axes | None = None, *, labels: bool = True) -> Axes:
    """Draw the outline of each ASIC as seen along the beam, with each panel's number.

    The first pixel of each ASIC has a dot and its first row is drawn thick.  x runs to the left,
    y up, in millimetres.

    Raises
    ------
    MissingLibrary
        matplotlib is not installed.

    Examples
    --------
    >>> geometry.draw_panels(detector)
    """
    axes = _axes(axes)
    seen: set[int] = set()
    for tile in tiles_of(geometry):
        corners = _outline(tile) * 1e3
        axes.plot(corners[:, 0], corners[:, 1], color="0.4", linewidth=0.8)
        axes.plot(corners[:2, 0], corners[:2, 1], color="C0", linewidth=2)
        axes.plot(*corners[0, :2], "o", color="C0", markersize=3)
        if labels and tile.panel not in seen:
            middle = corners[:4, :2].mean(axis=0)
            axes.annotate(str(tile.panel), middle, ha="center", va="center")
        seen.add(tile.panel)
    axes.plot(0, 0, "+", color="C3", markersize=12)
    _lab_axes(axes)
    axes.invert_xaxis()
    return axes


def draw_image(
    image: NDArray[Any],
    y: NDArray[np.float64] | None = None,
    x: NDArray[np.float64] | None = None,
    axes: Axes | None = None,
    *,
    mask: NDArray[np.bool_] | None = None,
    label: str = "",
    **options: Any,
) -> Axes:
    """Draw an assembled image with its place in millimetres and colours from the 1st to 99th percentile.

    Parameters
    ----------
    image : array (y, x)
        From `assembly.apply`.
    y, x : array, optional
        m, of the rows and columns: ``tables.y, tables.x``, or the coordinates of an image of a run.
        Without them the axes count rows and columns.
    axes : matplotlib Axes, optional
        Where to draw; a new figure by default.
    mask : bool array (y, x), optional
        True for the pixels that decide the colours.
    label : str
        Of the colours.
    **options
        For ``Axes.imshow``, for instance ``vmax=`` or ``cmap=``.

    Raises
    ------
    MissingLibrary
        matplotlib is not installed.

    Examples
    --------
    >>> geometry.draw_image(image, tables.y, tables.x)
    """
    axes = _axes(axes)
    low, high = colour_limits(image, mask)
    chosen: dict[str, Any] = {"vmin": low, "vmax": high, "interpolation": "nearest"}
    if y is not None and x is not None:
        (left, right), (top, bottom) = ((1e3 * end for end in _ends(places)) for places in (x, y))
        chosen["extent"] = (left, right, bottom, top)
        _lab_axes(axes)
    else:
        axes.set_xlabel("column")
        axes.set_ylabel("row")
    shown = axes.imshow(image, **chosen | options)
    axes.figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    return axes


def _ends(places: NDArray[np.float64]) -> tuple[float, float]:
    """Return where the first bin begins and the last one ends, in the order of the image."""
    half = float(places[-1] - places[0]) / max(len(places) - 1, 1) / 2
    return float(places[0]) - half, float(places[-1]) + half


def _axes(axes: Axes | None) -> Any:
    if axes is not None:
        return axes
    if not _someone_looks():
        return blank().add_subplot()
    try:
        from matplotlib import pyplot
    except ImportError:
        raise MissingLibrary.of("matplotlib", "plot", "drawing a picture") from None
    return pyplot.figure(figsize=SIZE, layout="constrained").add_subplot()


def _someone_looks() -> bool:
    """Tell whether pyplot shows figures: it is loaded, or this is IPython or a notebook."""
    return "matplotlib.pyplot" in sys.modules or hasattr(builtins, "get_ipython")


def _lab_axes(axes: Any) -> None:
    axes.set_aspect("equal")
    axes.set_xlabel("x (mm), to the left seen along the beam")
    axes.set_ylabel("y (mm), up")


def _outline(tile: Tile) -> NDArray[np.float64]:
    """Return the corners of an ASIC, closed: first row first, m (5, 3)."""
    rows, cols = tile.shape
    along, down = tile.fast * cols, tile.slow * rows
    return tile.corner + np.stack([0 * along, along, along + down, down, 0 * along])
