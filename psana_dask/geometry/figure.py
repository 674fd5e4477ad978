"""Plots of a geometry and of an assembled image, and a description in words.

matplotlib is imported on first use (``pip install "psana_dask[plot]"``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import MissingLibrary
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.tables import AssemblyTables, prepare
from psana_dask.geometry.tiles import Tile, tiles_of
from psana_dask.geometry.tree import coordinates

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def colour_limits(
    image: NDArray[Any], mask: NDArray[np.bool_] | None = None, percentiles: tuple[float, float] = (1.0, 99.0)
) -> tuple[float, float]:
    """Return the range of colours for an image: percentiles of the finite pixels that are not masked.

    Parameters
    ----------
    image : array
        Any shape; NaN is left out.
    mask : bool array of the same shape, optional
        True for good pixels.
    percentiles : (float, float)
        Lower and upper.

    Returns
    -------
    (float, float)
        Never equal; ``(0, 1)`` if there is no pixel to look at.
    """
    good = np.isfinite(image) if mask is None else np.isfinite(image) & mask
    if not good.any():
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(image[good], percentiles))
    return (low, high) if high > low else (low, low + 1.0)


def describe(geometry: Geometry) -> str:
    """Return what a geometry is, a few lines of text: panels, pixels, distance, extent, image."""
    x, y, z = coordinates(geometry, frame="lab")
    tables = prepare(geometry)
    (panels, rows, cols), pixel_size = geometry.shape, geometry.segment.pixel_size
    spans = (float(np.nanmax(axis) - np.nanmin(axis)) * 1e-3 for axis in (x, y))
    return "\n".join(
        [
            f"{panels} x {geometry.segment.name}, {rows} x {cols} pixels of {pixel_size:g} um",
            f"mean distance {np.nanmean(z) * 1e-3:.3f} mm, extent {' x '.join(f'{s:.1f}' for s in spans)} mm",
            f"image {tables.shape[0]} x {tables.shape[1]}, {tables.overlapping} bins with several pixels",
            f"parts {len(geometry.parts)}, convention {geometry.convention}, hash {geometry.key[:16]}",
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
    tables: AssemblyTables,
    axes: Axes | None = None,
    *,
    mask: NDArray[np.bool_] | None = None,
    **options: Any,
) -> Axes:
    """Draw an assembled image with its place in millimetres and colours from the 1st to 99th percentile.

    Parameters
    ----------
    image : array (y, x)
        From `assembly.apply` with `tables`.
    tables : AssemblyTables
        Its axes give the place.
    mask : bool array (y, x), optional
        True for the pixels that decide the colours.
    **options
        For ``Axes.imshow``, for instance ``vmax=`` or ``cmap=``.
    """
    axes = _axes(axes)
    low, high = colour_limits(image, mask)
    half_y, half_x = (abs(float(a[-1] - a[0])) / max(len(a) - 1, 1) / 2 for a in (tables.y, tables.x))
    sign = 1.0 if len(tables.x) < 2 or tables.x[1] > tables.x[0] else -1.0
    extent = (
        (tables.x[0] - sign * half_x) * 1e3,
        (tables.x[-1] + sign * half_x) * 1e3,
        (tables.y[-1] - half_y) * 1e3,
        (tables.y[0] + half_y) * 1e3,
    )
    shown = axes.imshow(image, **{"vmin": low, "vmax": high, "extent": extent, **options})
    axes.figure.colorbar(shown, ax=axes)
    _lab_axes(axes)
    return axes


def _axes(axes: Axes | None) -> Any:
    if axes is not None:
        return axes
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingLibrary.of("matplotlib", "plot", "a plot of a geometry") from None
    return Figure(figsize=(7, 6), layout="constrained").add_subplot()


def _lab_axes(axes: Any) -> None:
    axes.set_aspect("equal")
    axes.set_xlabel("x (mm), to the left seen along the beam")
    axes.set_ylabel("y (mm), up")


def _outline(tile: Tile) -> NDArray[np.float64]:
    """Return the corners of an ASIC, closed: first row first, m (5, 3)."""
    rows, cols = tile.shape
    along, down = tile.fast * cols, tile.slow * rows
    return tile.corner + np.stack([0 * along, along, along + down, down, 0 * along])
