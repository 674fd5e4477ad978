"""What all pictures share: a figure without a screen, panels side by side, the ends of colours.

matplotlib is imported on first use (``pip install "psana_dask[plot]"``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import MissingLibrary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (7.0, 6.0)
"""Of a figure, inches."""

GAP = 4
"""Pixels between panels."""


def blank(size: tuple[float, float] = SIZE) -> Figure:
    """Return an empty figure that needs no screen.

    Raises
    ------
    MissingLibrary
        matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingLibrary.of("matplotlib", "plot", "drawing a picture") from None
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def side_by_side(panels: NDArray[Any], gap: int = GAP) -> NDArray[np.float64]:
    """Return panels (..., row, col) as one picture, as many in a row as make it about square.

    NaN lies between them, on `gap` pixels.
    """
    stack = np.asarray(panels, np.float64)
    if stack.ndim == 2:
        return stack
    stack = stack.reshape(-1, *stack.shape[-2:])
    count, rows, cols = stack.shape
    across = math.ceil(math.sqrt(count * rows / cols)) or 1
    down = math.ceil(count / across)
    out = np.full((down * (rows + gap) - gap, across * (cols + gap) - gap), np.nan)
    for k, panel in enumerate(stack):
        y, x = k // across * (rows + gap), k % across * (cols + gap)
        out[y : y + rows, x : x + cols] = panel
    return out


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

    Examples
    --------
    >>> low, high = geometry.colour_limits(image)
    """
    good = np.isfinite(image) if mask is None else np.isfinite(image) & mask
    if not good.any():
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(image[good], percentiles))
    return (low, high) if high > low else (low, low + 1.0)
