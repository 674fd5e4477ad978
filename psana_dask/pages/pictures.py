"""Frames as a browser shows them: the part that is looked at, averaged to what a screen can show.

Numbers only: nothing here knows of panel or bokeh.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.drawing import colour_limits
from psana_dask.errors import GeometryError
from psana_dask.pages.thinning import block_means

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Range = tuple[float, float]

MOST = 900
"""Pixels along an axis that are sent to a browser."""

HC = 12.398419843320026
"""Planck's constant times the speed of light, keV Å (CODATA 2018, exact)."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame laid out for the eye.

    Parameters
    ----------
    values : (y, x) float32
        NaN where there is nothing. Row 0 is drawn at `y` [0].
    x, y : (float, float)
        Where the first bin begins and the last one ends, in `unit`; the ends may fall.
    unit : str
        Of the axes: ``"mm"``, or ``"pixels"`` for a sensor without geometry.
    value_unit : str
    good : (y, x) bool, optional
        False for pixels that are masked.
    calibrated : bool
    title : str
    """

    values: Floats
    x: Range
    y: Range
    unit: str = "pixels"
    value_unit: str = "ADU"
    good: Bools | None = None
    calibrated: bool = True
    title: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[1]

    def rows(self, low: float, high: float) -> slice:
        """Return the rows that a range of y touches."""
        return _touched(self.y, self.shape[0], low, high)

    def columns(self, low: float, high: float) -> slice:
        """Return the columns that a range of x touches."""
        return _touched(self.x, self.shape[1], low, high)

    @property
    def shown(self) -> Floats:
        """The values, NaN where a pixel is masked."""
        return self.values if self.good is None else np.where(self.good, self.values, np.float32(np.nan))


def _touched(ends: Range, count: int, low: float, high: float) -> slice:
    if not count or not all(map(math.isfinite, (low, high))):
        return slice(0, count)
    step = (ends[1] - ends[0]) / count
    at = sorted(((low - ends[0]) / step, (high - ends[0]) / step))
    first = min(max(math.floor(at[0] + 1e-9), 0), count)
    return slice(first, max(first, min(count, math.ceil(at[1] - 1e-9))))


def _ends(whole: Range, bins: int, first: int, count: int) -> Range:
    """Return the ends of some bins of a range."""
    step = (whole[1] - whole[0]) / max(bins, 1)
    return whole[0] + first * step, whole[0] + (first + count) * step


def averaged(values: npt.NDArray[Any], step: int) -> Floats:
    """Return the means of blocks of `step` by `step` pixels, without NaN; NaN where there are none.

    >>> averaged(np.array([[1.0, 3.0, 5.0], [5.0, np.nan, 7.0]], np.float32), 2)
    array([[3., 6.]], dtype=float32)
    """
    if step <= 1:
        return np.asarray(values, np.float32)
    return block_means(np.asarray(values, np.float32), step)


def looked_at(picture: Picture, x: Range | None = None, y: Range | None = None, most: int = MOST) -> Picture:
    """Return the part of a picture in a window, with at most `most` pixels along an axis.

    Parameters
    ----------
    picture : Picture
    x, y : (float, float), optional
        The window, in the unit of the picture; by default all of it.
    most : int

    Returns
    -------
    Picture
        Of means of square blocks; masked pixels are NaN. A window beside the picture is empty.
    """
    rows = slice(0, picture.shape[0]) if y is None else picture.rows(*y)
    columns = slice(0, picture.shape[1]) if x is None else picture.columns(*x)
    part = picture.values[rows, columns]
    if picture.good is not None:
        part = np.where(picture.good[rows, columns], part, np.float32(np.nan))
    step = max(1, math.ceil(max(*part.shape, 1) / most))
    # whole blocks: the last one may lie partly outside, its end is said by its size
    ends_x = _ends(picture.x, picture.shape[1], columns.start, -(-part.shape[1] // step) * step)
    ends_y = _ends(picture.y, picture.shape[0], rows.start, -(-part.shape[0] // step) * step)
    return Picture(averaged(part, step), ends_x, ends_y, picture.unit, picture.value_unit, None,
                   picture.calibrated, picture.title)  # fmt: skip


CONTRASTS = {
    "1 to 99 %": (1.0, 99.0),
    "0.1 to 99.9 %": (0.1, 99.9),
    "5 to 95 %": (5.0, 95.0),
    "all values": (0.0, 100.0),
}
"""Percentiles of the good pixels that the colours go over."""


def contrast(picture: Picture, rule: str) -> Range:
    """Return lowest and highest colour by a rule of `CONTRASTS`; never equal."""
    return colour_limits(picture.values, picture.good, CONTRASTS[rule])


@dataclass(frozen=True)
class Region:
    """What is inside a rectangle."""

    x: Range
    y: Range
    pixels: int  # with a value, and not masked
    total: float
    mean: float
    std: float
    largest: float


def region(picture: Picture, x: Range, y: Range) -> Region:
    """Return sum, mean and largest value of the good pixels in a rectangle."""
    part = picture.shown[picture.rows(*y), picture.columns(*x)]
    known = part[np.isfinite(part)].astype(np.float64)
    if not known.size:
        return Region(x, y, 0, 0.0, math.nan, math.nan, math.nan)
    numbers = (known.sum(), known.mean(), known.std(), known.max())
    return Region(x, y, known.size, *map(float, numbers))


# ---- rings ---------------------------------------------------------------------------------------
RINGS = {"radius (mm)": "mm", "2θ (degrees)": "degrees", "q (1/Å)": "q", "d (Å)": "d"}
"""What the numbers of rings may be."""

MOST_RINGS = 40


def numbers_of(text: str, most: int = MOST_RINGS) -> list[float]:
    """Return the numbers in a text, separated by commas or blanks.

    Raises
    ------
    ValueError
        Something is no number, or there are too many.

    >>> numbers_of("1, 2.5 4")
    [1.0, 2.5, 4.0]
    """
    words = text[:2000].replace(",", " ").split()
    if len(words) > most:
        raise ValueError(f"{len(words)} numbers: at most {most}")
    found = []
    for word in words:
        try:
            found.append(float(word))
        except ValueError:
            raise ValueError(f"{word[:20]!r} is no number") from None
        if not math.isfinite(found[-1]):
            raise ValueError(f"{word[:20]!r} is no number")
    return found


def ring_radii(values: Iterable[float], kind: str, distance: float, energy: float | None) -> list[float]:
    """Return radii on the detector, mm.

    Parameters
    ----------
    values : numbers
        In the unit of `kind`.
    kind : str
        ``"mm"``, ``"degrees"`` (2θ), ``"q"`` (1/Å, 4π sin θ/λ) or ``"d"`` (Å).
    distance : float
        From the sample to the detector, mm.
    energy : float, optional
        Of the photons, keV; for q and d.

    Raises
    ------
    GeometryError
        A ring is not reached by this energy, lies behind the sample, or energy or distance is missing.

    >>> [round(r, 6) for r in ring_radii([45.0], "degrees", 100.0, None)]
    [100.0]
    """
    return [_radius(value, kind, distance, energy) for value in values]


def _radius(value: float, kind: str, distance: float, energy: float | None) -> float:
    if value <= 0:
        raise GeometryError(f"a ring at {value:g} does not exist")
    if kind == "mm":
        return value
    if not distance > 0:
        raise GeometryError("say how far the detector is from the sample")
    angle = math.radians(value) if kind == "degrees" else _two_theta(value, kind, energy)
    if not 0 < angle < math.pi / 2:
        where = f"the ring at {value:g} is at {math.degrees(angle):.1f} degrees"
        raise GeometryError(f"{where}: no plane detector sees it")
    return distance * math.tan(angle)


def _two_theta(value: float, kind: str, energy: float | None) -> float:
    if energy is None or not energy > 0:
        raise GeometryError("say the energy of the photons")
    spacing = value if kind == "d" else 2 * math.pi / value
    sine = HC / energy / (2 * spacing)
    if sine > 1:
        raise GeometryError(f"photons of {energy:g} keV do not reach the ring at {value:g}")
    return 2 * math.asin(sine)


def circles(radii: Sequence[float], centre: Range = (0.0, 0.0)) -> tuple[list[Any], list[Any]]:
    """Return circles as lines: their x and their y."""
    angle = np.linspace(0, 2 * np.pi, 181)
    x = [np.round(centre[0] + r * np.cos(angle), 6) for r in radii]
    return x, [np.round(centre[1] + r * np.sin(angle), 6) for r in radii]
