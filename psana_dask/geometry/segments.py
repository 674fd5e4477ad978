"""Segment types: where the pixels of one sensor lie in the sensor's own frame.

Every type is the outer product of two axes, one along the rows and one along the columns
of the data, so a type is two lists of runs of equidistant pixels.  The numbers are facts of
the detectors, as psana1 (PSCalib b9f60ba) and psana2 (lcls2 4e09af7) use them; where the two
libraries disagree the row of `PSANA1` wins for ``convention="psana1"``.

Units are micrometres.  The frame of a segment has its origin in the centre of the sensor
(matrix types: in the centre of pixel 0, 0), x to the right, y up and z towards the source,
when the sensor is looked at from the front.

`tests/conformance/test_geometry.py` checks every type against both libraries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import GeometryError, suggestion

Convention = Literal["psana1", "psana2"]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Axis:
    """Pixels along one direction of a segment."""

    positions: Array
    # um, as indexed: a wide pixel lies where its outer, regular part lies; NaN: no such pixel
    sizes: Array
    # um, extent of each pixel
    shifts: Array
    # um, from `positions` to the geometric centre of a wide pixel, else 0
    asics: tuple[tuple[int, int], ...]
    # first and past-the-end index of each run of equidistant pixels


@dataclass(frozen=True, eq=False)
class SegmentType:
    """One sensor: shape, pixel positions, sizes and the pixels that are not bonded."""

    name: str
    rows: Axis
    cols: Axis
    pixel_size: float
    # um, the size of an image bin
    rows_along_x: bool = False
    # matrix types: x runs along the rows' index and y along the columns'
    wide_centres: bool = False
    # wide pixels are placed in their geometric centre unless asked otherwise
    unbonded: tuple[tuple[int, int], ...] = ()
    # (row, col) of pixels that are not connected to the sensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the data."""
        return len(self.rows.positions), len(self.cols.positions)


def _runs(pitch: float, count: int, *firsts: float) -> Axis:
    """ASICs of `count` pixels that start at `firsts` (um); a negative pitch runs backwards."""
    positions: Array = np.concatenate([np.arange(count, dtype=np.float64) * pitch + x for x in firsts])
    asics = tuple((k * count, (k + 1) * count) for k in range(len(firsts)))
    size = np.full(len(positions), float(abs(pitch)))
    return Axis(positions, size, np.zeros(len(positions)), asics)


def _mirrored(half: int, pitch: float, wide: float, sign: int = 1) -> Axis:
    """Two ASICs of `half` pixels about the origin; the pixels beside it are `wide` um wide."""
    # the order of the operations is psana's: index arrays depend on the last bit
    outer = np.arange(half) * pitch + wide - pitch / 2
    axis = Axis(
        np.concatenate([-outer[::-1], outer]) * float(sign),
        np.full(2 * half, float(pitch)),
        np.zeros(2 * half),
        ((0, half), (half, 2 * half)),
    )
    return _widened(axis, wide)


def _widened(axis: Axis, wide: float) -> Axis:
    """`axis` with both pixels at each border between ASICs `wide` um wide, towards the gap."""
    sizes, shifts = axis.sizes.copy(), axis.shifts.copy()
    for _, border in axis.asics[:-1]:
        inward = np.sign(axis.positions[border] - axis.positions[border - 1])
        excess = (wide - axis.sizes[border - 1 : border + 1]) / 2
        sizes[border - 1 : border + 1] = wide
        shifts[border - 1 : border + 1] = inward * excess * (1, -1)
    return replace(axis, sizes=sizes, shifts=shifts)


def _centred(count: int, pitch: float) -> Axis:
    """One run of `count` pixels with its middle in the origin."""
    positions = (np.arange(count, dtype=np.float64) - (count - 1) / 2) * pitch
    return Axis(positions, np.full(count, abs(pitch)), np.zeros(count), ((0, count),))


def _centred_from_edge(count: int, pitch: float) -> Axis:
    """Return the same axis as `_centred`, summed in the order that psana uses for SENS2X1."""
    positions = np.arange(count, dtype=np.float64) * pitch
    positions = positions - positions[-1] / 2
    return Axis(positions, np.full(count, abs(pitch)), np.zeros(count), ((0, count),))


def _banks(fake_first: bool, banks: int = 16, real: int = 264, fake: int = 36) -> Axis:
    """Columns of an Archon CCD: 16 banks, each with 36 columns that are no pixels (NaN)."""
    pixel = np.full((banks, real + fake), np.nan)
    start = fake if fake_first else 0
    pixel[:, start : start + real] = (np.arange(banks * real) - (banks * real - 1) / 2).reshape(banks, -1)
    sizes = np.where(np.isnan(pixel), np.nan, 10.0).ravel()
    firsts = [k * (real + fake) + start for k in range(banks)]
    asics = tuple((first, first + real) for first in firsts)
    return Axis(pixel.ravel() * 10.0, sizes, np.zeros(pixel.size), asics)


def _jungfrau(name: str, up: bool) -> SegmentType:
    cols = _runs(75, 256, -514.5 * 75, -256.5 * 75, 1.5 * 75, 259.5 * 75)
    rows = _runs(75, 256, -256.5 * 75, 1.5 * 75) if up else _runs(-75, 256, 256.5 * 75, -1.5 * 75)
    return SegmentType(name, rows, cols, 75)


def _jungfrau_wide(name: str) -> SegmentType:
    plain = _jungfrau(name, up=True)
    return replace(
        plain, rows=_widened(plain.rows, 150), cols=_widened(plain.cols, 150), wide_centres=True
    )


def _epix(name: str, rows: int, cols: int, wide: float) -> SegmentType:
    """Two by two ASICs of 100 um pixels; row 0 is at the top."""
    return SegmentType(name, _mirrored(rows // 2, 100, wide, -1), _mirrored(cols // 2, 100, wide), 100)


def _epixuhr() -> SegmentType:
    cols = _widened(_runs(100, 192, -29075, -9550, 9975), 262.5)
    return SegmentType("EPIXUHR3X2:V1", _mirrored(168, 100, 262.5, -1), cols, 100)


def _epixhr1x4() -> SegmentType:
    """One row of four ASICs; as in psana, rows 70 to 73 lie on two lines (upper, lower half)."""
    rows = _runs(-100, 72, 71 * 100 - 50, 50)
    firsts = (-(19725 + 19100), -(175 + 19100), 175, 19725)
    return SegmentType("EPIXHR1X4:V1", rows, _runs(100, 192, *firsts), 100)


def _sens2x1() -> SegmentType:
    unbonded = tuple((k, col + k) for k in range(0, 185, 10) for col in (0, 194))
    rows, cols = _centred_from_edge(185, -109.92), _mirrored(194, 109.92, 274.8)
    return SegmentType("SENS2X1:V1", rows, cols, 109.92, unbonded=unbonded)


def _matrix(name: str, rows: int, cols: int, row_size: float, col_size: float) -> SegmentType:
    """One sensor without gaps; x along the rows' index, origin in pixel (0, 0)."""
    return SegmentType(
        name, _runs(row_size, rows, 0), _runs(col_size, cols, 0), min(row_size, col_size), rows_along_x=True
    )


def _centred_matrix(name: str, rows: int, cols: int, row_size: float, col_size: float) -> SegmentType:
    """One sensor without gaps, centred, row 0 at the top."""
    size = min(row_size, col_size)
    return SegmentType(name, _centred(rows, -row_size), _centred(cols, col_size), size)


def _archon(name: str, rows: int) -> SegmentType:
    return SegmentType(name, _centred(rows, -20.0), _banks(name.endswith("V2")), 10)


PSANA2: Mapping[str, Callable[[], SegmentType]] = MappingProxyType(
    {
        "SENS2X1:V1": _sens2x1,
        "EPIX100:V1": lambda: SegmentType("EPIX100:V1", _mirrored(352, 50, 175), _mirrored(384, 50, 175), 50),
        "EPIX10KA:V1": lambda: _epix("EPIX10KA:V1", 352, 384, 225),
        "EPIX10KA:V2": lambda: _epix("EPIX10KA:V2", 352, 384, 225),
        "EPIXHR2X2:V1": lambda: _epix("EPIXHR2X2:V1", 288, 384, 225),
        "EPIXHR1X4:V1": _epixhr1x4,
        "EPIXUHR3X2:V1": _epixuhr,
        "EPIXUHRASIC:V1": lambda: _centred_matrix("EPIXUHRASIC:V1", 168, 192, 100, 100),
        "EPIXMASIC:V1": lambda: _centred_matrix("EPIXMASIC:V1", 192, 384, 50, 50),
        "JUNGFRAU:V1": lambda: _jungfrau("JUNGFRAU:V1", up=False),
        "JUNGFRAU:V2": lambda: _jungfrau_wide("JUNGFRAU:V2"),
        # since September 2025; V2 under another name
        "JUNGFRAU:V3": lambda: _jungfrau_wide("JUNGFRAU:V3"),
        "PNCCD:V1": lambda: _matrix("PNCCD:V1", 512, 512, 75, 75),
    }
)
PSANA1: Mapping[str, Callable[[], SegmentType]] = MappingProxyType(
    {
        **PSANA2,
        "EPIX10KA:V1": lambda: _epix("EPIX10KA:V1", 352, 384, 250),
        "JUNGFRAU:V2": lambda: _jungfrau("JUNGFRAU:V2", up=True),
    }
)
_BY_SHAPE = ("ARCHON:V1", "ARCHON:V2", "MTRXANY:V1")
_MATRIX = re.compile(r"MTRX(:V2)?:(\d+):(\d+):([0-9.eE+-]+):([0-9.eE+-]+)$")
DEFAULT_SHAPES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"ARCHON:V1": (300, 4800), "ARCHON:V2": (300, 4800), "MTRXANY:V1": (512, 512)}
)


def is_segment(name: str) -> bool:
    """Say whether `name` is a segment type rather than a frame that holds other parts."""
    return name in PSANA2 or name in _BY_SHAPE or _MATRIX.match(name) is not None


@lru_cache(maxsize=64)
def segment_type(
    name: str, convention: Convention = "psana2", shape: tuple[int, int] | None = None
) -> SegmentType:
    """Return the segment type called `name`.

    Parameters
    ----------
    name : str
        For instance ``"JUNGFRAU:V2"`` or ``"MTRX:V2:<rows>:<cols>:<row um>:<col um>"``.
    convention : {"psana2", "psana1"}
        Which library's numbers to use where the two differ (EPIX10KA:V1, JUNGFRAU:V2).
    shape : (int, int), optional
        Rows and columns of the data, for the types whose size is set by the configuration
        (ARCHON, MTRXANY; the pixels of the latter are 75 um).

    Raises
    ------
    GeometryError
        No such type.
    """
    table = PSANA1 if convention == "psana1" else PSANA2
    if name in table:
        return table[name]()
    if name in _BY_SHAPE:
        rows, cols = shape or DEFAULT_SHAPES[name]
        return _centred_matrix(name, rows, cols, 75, 75) if name == "MTRXANY:V1" else _archon(name, rows)
    match = _MATRIX.match(name)
    if match is None:
        known = [*table, *_BY_SHAPE, "MTRX:<rows>:<cols>:<um>:<um>", "MTRX:V2:<rows>:<cols>:<um>:<um>"]
        raise GeometryError(f"no segment type {name!r}{suggestion(name, known)}")
    build = _centred_matrix if match[1] else _matrix
    return build(name, int(match[2]), int(match[3]), float(match[4]), float(match[5]))


def segment_coordinates(segment: SegmentType, wide_centres: bool | None = None) -> tuple[Array, Array]:
    """Return x and y of every pixel in the segment's frame.

    Parameters
    ----------
    segment : SegmentType
        What `segment_type` gives.
    wide_centres : bool, optional
        Place wide pixels in their geometric centre (default: as the type says).

    Returns
    -------
    x, y : float64 arrays (row, col)
        Micrometres; NaN for columns that are no pixels (ARCHON).
    """
    centres = segment.wide_centres if wide_centres is None else wide_centres
    rows = segment.rows.positions + segment.rows.shifts if centres else segment.rows.positions
    cols = segment.cols.positions + segment.cols.shifts if centres else segment.cols.positions
    row, col = np.broadcast_arrays(rows[:, None].astype(np.float64), cols[None, :].astype(np.float64))
    return (row, col) if segment.rows_along_x else (col, row)


def segment_areas(segment: SegmentType) -> Array:
    """Return the area of every pixel (row, col) in units of the regular pixel."""
    regular = np.nanmin(segment.rows.sizes) * np.nanmin(segment.cols.sizes)
    areas: Array = np.multiply.outer(segment.rows.sizes, segment.cols.sizes) * (1.0 / regular)
    return areas


def segment_mask(
    segment: SegmentType, *, edges: int = 1, centre: int = 1, unbonded: bool = True, neighbours: int = 0
) -> NDArray[np.bool_]:
    """Return which pixels of a segment are good.

    Parameters
    ----------
    segment : SegmentType
        What `segment_type` gives.
    edges : int
        Width in pixels that is masked along the outer edges.
    centre : int
        Width in pixels that is masked on both sides of each border between ASICs.
    unbonded : bool
        Mask pixels that are not connected to the sensor (SENS2X1).
    neighbours : {0, 4, 8}
        Mask the nearest 4 or 8 neighbours of those as well.

    Returns
    -------
    bool array (row, col)
        True for good pixels.  Columns that are no pixels (ARCHON) are always False.
    """
    rows = _axis_mask(segment.rows, edges, centre)
    cols = _axis_mask(segment.cols, edges, centre)
    mask: NDArray[np.bool_] = np.logical_and.outer(rows, cols)
    if unbonded:
        mask &= ~_unbonded(segment, neighbours)
    return mask


def _axis_mask(axis: Axis, edges: int, centre: int) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = ~np.isnan(axis.positions)
    good[: max(edges, 0)] = False
    good[len(good) - max(edges, 0) :] = False
    for (_, end), (start, _) in zip(axis.asics[:-1], axis.asics[1:], strict=True):
        good[end - centre : end] = False
        good[start : start + centre] = False
    return good


_NEIGHBOURS = {
    0: ((0, 0),),
    4: ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)),
    8: tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)),
}


def _unbonded(segment: SegmentType, neighbours: int) -> NDArray[np.bool_]:
    """Return the unbonded pixels and their neighbours, which stay inside the pixel's ASIC."""
    if neighbours not in _NEIGHBOURS:
        raise ValueError(f"neighbours must be 0, 4 or 8, not {neighbours}")
    bad = np.zeros(segment.shape, np.bool_)
    for row, col in segment.unbonded:
        top, bottom = _asic_of(segment.rows, row)
        left, right = _asic_of(segment.cols, col)
        for i, j in _NEIGHBOURS[neighbours]:
            if top <= row + i < bottom and left <= col + j < right:
                bad[row + i, col + j] = True
    return bad


def _asic_of(axis: Axis, index: int) -> tuple[int, int]:
    return next(asic for asic in axis.asics if asic[0] <= index < asic[1])
