"""Shapes drawn on a picture, and the mask that they make: 1 good, 0 bad."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import ConstantsError
from psana_dask.pages.pictures import Picture

Mask = npt.NDArray[np.uint8]

MOST_SHAPES = 200
MOST_CORNERS = 5000


@dataclass(frozen=True)
class Shapes:
    """Rectangles and polygons in the units of a picture.

    Parameters
    ----------
    boxes : tuple of (left, right, bottom, top)
    polygons : tuple of ((x, ...), (y, ...))
    """

    boxes: tuple[tuple[float, float, float, float], ...] = ()
    polygons: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.boxes or self.polygons)

    def __len__(self) -> int:
        return len(self.boxes) + len(self.polygons)


def shapes_of(boxes: Mapping[str, Any], polygons: Mapping[str, Any]) -> Shapes:
    """Return what a browser says was drawn, checked.

    Parameters
    ----------
    boxes : mapping
        ``left, right, bottom, top``: numbers of each.
    polygons : mapping
        ``xs, ys``: numbers of the corners of each.

    Raises
    ------
    ConstantsError
        Too much, or no numbers.
    """
    sides = [_numbers(boxes.get(key, ())) for key in ("left", "right", "bottom", "top")]
    if len({len(side) for side in sides}) != 1:
        raise ConstantsError("rectangles need as many left as right, bottom and top ends")
    corners = [_rows(polygons.get(key, ())) for key in ("xs", "ys")]
    if [len(line) for line in corners[0]] != [len(line) for line in corners[1]]:
        raise ConstantsError("polygons need as many x as y")
    if len(sides[0]) + len(corners[0]) > MOST_SHAPES or sum(map(len, corners[0])) > MOST_CORNERS:
        raise ConstantsError(f"at most {MOST_SHAPES} shapes with {MOST_CORNERS} corners")
    drawn = [(x, y) for x, y in zip(*corners, strict=True) if len(x) > 2]
    return Shapes(tuple(zip(*sides, strict=True)), tuple(drawn))


def _rows(lists: Any) -> list[tuple[float, ...]]:
    if len(lists) > MOST_SHAPES:
        raise ConstantsError(f"{len(lists)} polygons: at most {MOST_SHAPES}")
    return [_numbers(one) for one in lists]


def _numbers(values: Any) -> tuple[float, ...]:
    if isinstance(values, str) or len(values) > MOST_CORNERS:
        raise ConstantsError(f"at most {MOST_CORNERS} numbers")
    try:
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        raise ConstantsError("the ends of a shape must be numbers") from None
    if not all(map(math.isfinite, found)):
        raise ConstantsError("the ends of a shape must be finite numbers")
    return found


def drawn_mask(shapes: Shapes, picture: Picture) -> Mask:
    """Return 0 for the pixels whose middle lies in a shape, 1 for the others, (y, x)."""
    height, width = picture.shape
    x = _middles(picture.x, width)
    y = _middles(picture.y, height)
    bad = np.zeros((height, width), np.bool_)
    for left, right, bottom, top in shapes.boxes:
        bad |= _between(y, bottom, top)[:, None] & _between(x, left, right)[None, :]
    for corners in shapes.polygons:
        bad |= inside(corners, x, y)
    return (~bad).astype(np.uint8)


def _middles(ends: tuple[float, float], count: int) -> npt.NDArray[np.float64]:
    step = (ends[1] - ends[0]) / max(count, 1)
    return np.asarray(ends[0] + (np.arange(count) + 0.5) * step, np.float64)


def _between(values: npt.NDArray[np.float64], one: float, other: float) -> npt.NDArray[np.bool_]:
    low, high = min(one, other), max(one, other)
    return (values >= low) & (values <= high)


def inside(
    corners: tuple[Sequence[float], Sequence[float]], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Return which points of a grid lie in a polygon: an odd number of sides is to their right.

    Parameters
    ----------
    corners : (x, y)
    x : (column,) float64
    y : (row,) float64

    Returns
    -------
    (row, column) bool
    """
    along = np.sort(x)
    turns = np.zeros((len(y), len(x) + 1), np.int32)  # sides that cross a row after so many columns
    xs, ys = (np.asarray(c, np.float64) for c in corners)
    for x1, y1, x2, y2 in zip(xs, ys, np.roll(xs, -1), np.roll(ys, -1), strict=True):
        rows = np.flatnonzero((y >= min(y1, y2)) & (y < max(y1, y2)))
        if rows.size:
            crossing = x1 + (y[rows] - y1) * (x2 - x1) / (y2 - y1)
            turns[rows, np.searchsorted(along, crossing)] += 1
    to_the_right = turns[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    odd: npt.NDArray[np.bool_] = to_the_right % 2 == 1
    return odd if len(x) < 2 or x[0] < x[-1] else odd[:, ::-1]
