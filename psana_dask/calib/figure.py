"""Pictures of constants: maps and histograms, drawn without a screen (needs matplotlib)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.constants import KINDS, Constants
from psana_dask.drawing import blank, colour_limits, side_by_side
from psana_dask.errors import ConstantsError

if TYPE_CHECKING:
    from psana_dask.calib.darks import DarkResult

MOST_PIXELS = 2000  # along an axis of a map; larger ones are thinned out
Path = str | os.PathLike[str]


def _figure(columns: int, rows: int, title: str) -> tuple[Any, Any]:
    figure = blank((4 * columns, 3.4 * rows))
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _map(figure: Any, axes: Any, values: NDArray[Any], title: str, unit: str, **options: Any) -> None:
    picture = side_by_side(values)
    step = max(1, math.ceil(max(picture.shape) / MOST_PIXELS))
    low, high = colour_limits(values)
    shown = {"vmin": low, "vmax": high, "cmap": "viridis", **options}
    drawn = axes.imshow(picture[::step, ::step], interpolation="nearest", **shown)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
    figure.colorbar(drawn, ax=axes, label=unit, shrink=0.8)


def _histogram(axes: Any, values: NDArray[Any], title: str, unit: str) -> None:
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    low, high = colour_limits(flat)
    margin = 0.2 * (high - low)
    axes.hist(flat, bins=120, range=(low - margin, high + margin), histtype="stepfilled", color="tab:blue")
    axes.set_yscale("log")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(unit)
    axes.set_ylabel("pixels")
    if flat.size:
        axes.axvline(float(np.median(flat)), color="black", linewidth=0.8)


def draw_darks(stages: Mapping[str, DarkResult], path: Path, title: str) -> None:
    """Draw pedestals, noise and bad pixels of each gain stage: a row of maps and histograms each.

    Parameters
    ----------
    stages : mapping of name to DarkResult
    path : path
        The suffix says the format (.png, .pdf, .svg).
    title : str
    """
    figure, rows = _figure(5, len(stages), title)
    for axes, (name, result) in zip(rows, stages.items(), strict=True):
        stage = f"{name}: " if name else ""
        bad = (result.status != 0).astype(np.float64)
        _map(figure, axes[0], result.pedestals, f"{stage}pedestals, {result.frames} frames", "ADU")
        _map(figure, axes[1], result.rms, f"{stage}rms", "ADU")
        share = f"{stage}bad pixels: {int(bad.sum())} ({bad.mean():.3%})"
        _map(figure, axes[2], bad, share, "", vmin=0, vmax=1, cmap="Reds")
        _histogram(axes[3], result.pedestals, f"{stage}median {np.median(result.pedestals):.1f} ADU", "ADU")
        _histogram(axes[4], result.rms, f"{stage}median {np.median(result.rms):.2f} ADU", "ADU")
        for limit in result.limits.get("rms", ()):
            axes[4].axvline(limit, color="tab:red", linewidth=0.8, linestyle=":")
    figure.savefig(path, dpi=100)


def draw_constant(constant: Constants, path: Path, title: str, names: tuple[str, ...] = ()) -> None:
    """Draw a constant: a map and a histogram, a row for each gain range.

    Parameters
    ----------
    constant : Constants
        Of an array of two axes or more.
    path : path
        The suffix says the format.
    title : str
    names : tuple of str
        Of the gain ranges, where there is a leading axis of them.

    Raises
    ------
    ConstantsError
        Text and a few numbers have no picture.
    """
    value = constant.value
    if isinstance(value, str) or value.ndim < 2:
        raise ConstantsError(f"{constant.kind} is no array of pixels: it has no picture")
    unit = KINDS[constant.kind].unit if constant.kind in KINDS else ""
    stages = value if names and value.shape[0] == len(names) and value.ndim > 2 else value[None]
    figure, rows = _figure(2, len(stages), title)
    for k, (axes, stage) in enumerate(zip(rows, stages, strict=True)):
        label = names[k] if len(stages) > 1 else constant.kind
        _map(figure, axes[0], stage, label, unit)
        _histogram(axes[1], stage, f"median {np.median(np.asarray(stage, np.float64)):g}", unit)
    figure.savefig(path, dpi=100)
