"""Pixel masks: 1 is a good pixel, 0 a bad one.

Every function returns a new array and keeps no state, so a second call with other arguments
gives another mask (both psana caches return the first one).  `combined_mask` multiplies the
parts that are asked for: status words, neighbours, edges, wide centre pixels, the
``pixel_mask`` constant, CSPAD's unbonded pixels, and a user's own array.
Rules: PSCalib ``GlobalUtils.py``, lcls2 ``UtilsMask.py`` and ``mask_algos.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psana_dask.calib.detectors import GENERIC, Detector
from psana_dask.errors import ConstantsError, refuse_unknown

Mask = NDArray[np.uint8]
Shape = Literal["rhombus", "circle", "square"]

ALL_BITS = (1 << 64) - 1


def status_mask(
    status: ArrayLike, *, bits: int = ALL_BITS, ranges: tuple[int, ...] | None = None
) -> Mask:
    """Return the pixels none of whose status bits is set.

    Parameters
    ----------
    status : array_like of unsigned, shape ([range,] panel, row, col)
        Status words; a bit says why a pixel is bad.
    bits : int
        The bits that count.
    ranges : tuple of int, optional
        Gain ranges on the first axis; a pixel must be good in all of them.
    """
    good = (np.asarray(status).astype(np.uint64) & np.uint64(bits)) == 0
    if ranges is not None:
        good = good[list(ranges)].all(axis=0)
    return good.astype(np.uint8)


def _reach(radius: int, shape: Shape) -> list[tuple[int, int]]:
    steps = range(-radius, radius + 1)
    if shape == "rhombus":
        return [(r, c) for r in steps for c in steps if abs(r) + abs(c) <= radius]
    if shape == "circle":
        return [(r, c) for r in steps for c in steps if r * r + c * c <= radius * radius]
    if shape == "square":
        return [(r, c) for r in steps for c in steps]
    raise ValueError(f"neighbours are a rhombus, a circle or a square, not {shape!r}")


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Return the target and source slices of an axis moved by `shift`."""
    return slice(max(shift, 0), min(size, size + shift)), slice(max(-shift, 0), min(size, size - shift))


def neighbour_mask(mask: ArrayLike, radius: int = 1, shape: Shape = "rhombus") -> Mask:
    """Return `mask` with every bad pixel grown to its neighbours, panel by panel.

    Parameters
    ----------
    mask : array_like, shape (..., row, col)
        0 is bad.
    radius : int
        Rhombus of 1: the 4 nearest; square of 1: all 8.
    shape : {"rhombus", "circle", "square"}
    """
    good = np.asarray(mask) != 0
    grown = good.copy()
    rows, cols = good.shape[-2:]
    for r, c in _reach(radius, shape):
        to_rows, from_rows = _overlap(r, rows)
        to_cols, from_cols = _overlap(c, cols)
        grown[..., to_rows, to_cols] &= good[..., from_rows, from_cols]
    return grown.astype(np.uint8)


def edge_mask(shape: tuple[int, ...], rows: int = 1, cols: int = 1) -> Mask:
    """Return a mask of `shape` with the outer `rows` and `cols` of each panel bad."""
    if 2 * rows > shape[-2] or 2 * cols > shape[-1]:
        raise ValueError(f"cannot mask {rows} rows and {cols} columns at the edges of {shape[-2:]}")
    mask = np.ones(shape, np.uint8)
    mask[..., :rows, :] = 0
    mask[..., shape[-2] - rows :, :] = 0
    mask[..., :cols] = 0
    mask[..., shape[-1] - cols :] = 0
    return mask


def center_mask(shape: tuple[int, ...], rows: int = 1, cols: int = 1) -> Mask:
    """Return a mask of `shape` with `rows` and `cols` on each side of a panel's middle bad.

    These are the wide pixels between the ASICs of a panel.
    """
    if 2 * rows > shape[-2] or 2 * cols > shape[-1]:
        raise ValueError(f"cannot mask {rows} rows and {cols} columns around the middle of {shape[-2:]}")
    mask = np.ones(shape, np.uint8)
    mid_row, mid_col = shape[-2] // 2, shape[-1] // 2
    mask[..., mid_row - rows : mid_row + rows, :] = 0
    mask[..., mid_col - cols : mid_col + cols] = 0
    return mask


def unbonded_mask(shape: tuple[int, ...]) -> Mask:
    """Return a mask of CSPAD panels (..., 185, 388) with the unbonded pixels bad.

    They are every tenth pixel of the diagonal of each half.
    """
    if shape[-2:] != (185, 388):
        raise ValueError(f"unbonded pixels are known for CSPAD panels of 185 x 388, not {shape[-2:]}")
    mask = np.ones(shape, np.uint8)
    at = np.arange(0, 185, 10)
    mask[..., at, at] = 0
    mask[..., at, at + 194] = 0
    return mask


def _shaped(kind: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(value)
    if array.size != int(np.prod(shape)) or (array.ndim > 1 and array.shape[-1] != shape[-1]):
        raise ConstantsError(f"{kind} has shape {array.shape}, an event has {shape}")
    return array.reshape(shape)


def _status_part(
    kind: str, value: ArrayLike, shape: tuple[int, ...], detector: Detector, bits: int
) -> Mask:
    words = np.asarray(value)
    size = int(np.prod(shape))
    ranges = len(detector.decoding.ranges)
    if ranges and words.size == ranges * size:
        return status_mask(words.reshape(ranges, *shape), bits=bits, ranges=detector.decoding.dark)
    return status_mask(_shaped(kind, words, shape), bits=bits)


@dataclass(frozen=True, eq=False)
class MaskParts:
    """What a mask is made of.

    Parameters
    ----------
    status : bool
        Use the status words.
    status_bits : int
        Bits of ``pixel_status`` that count; of the other status words all count.
    neighbours : int
        Radius by which pixels with bad status grow.
    neighbour_shape : {"rhombus", "circle", "square"}
    edges, center : int or (int, int)
        Rows and columns masked at the edges, and on each side of the middle, of each panel.
    calib : bool
        Use the ``pixel_mask`` constant; off by default, as in psana and psana2.
    unbonded : bool
        Mask CSPAD's unbonded pixels.
    user : array_like, optional
        Any array of the event's size; 0 is bad.
    """

    status: bool = True
    status_bits: int = ALL_BITS
    neighbours: int = 0
    neighbour_shape: Shape = "rhombus"
    edges: int | tuple[int, int] = 0
    center: int | tuple[int, int] = 0
    calib: bool = False
    unbonded: bool = False
    user: ArrayLike | None = None


def combined_mask(
    constants: Mapping[str, Any], shape: tuple[int, ...], detector: Detector = GENERIC, **parts: Any
) -> Mask:
    """Return the product of the masks asked for.

    Parameters
    ----------
    constants : mapping
        ``pixel_status``, ``status_extra``, ``status_data``, ``pixel_mask``: arrays, where present.
    shape : tuple of int
        Shape of an event, ending in (row, col).
    detector : Detector
        Tells which gain ranges' status words count.
    **parts
        Fields of `MaskParts`: ``status, status_bits, neighbours, neighbour_shape, edges, center,
        calib, unbonded, user``.

    Returns
    -------
    ndarray of uint8, `shape`
        1 good, 0 bad.
    """
    refuse_unknown("a mask", parts, (f.name for f in fields(MaskParts)))
    wanted = MaskParts(**parts)
    mask = _status(constants, shape, detector, wanted)
    for part in _layout(shape, wanted):
        mask &= part
    if wanted.calib and constants.get("pixel_mask") is not None:
        bad = np.asarray(constants["pixel_mask"]) == 0
        mask &= _status_part("pixel_mask", bad, shape, detector, 1)
    if wanted.user is not None:
        mask &= (_shaped("user mask", wanted.user, shape) != 0).astype(np.uint8)
    return mask


def _status(
    constants: Mapping[str, Any], shape: tuple[int, ...], detector: Detector, parts: MaskParts
) -> Mask:
    """Return the mask of the status words, with the neighbours of bad pixels."""
    mask = np.ones(shape, np.uint8)
    kinds = {"pixel_status": parts.status_bits, "status_extra": ALL_BITS, "status_data": ALL_BITS}
    for kind, bits in kinds.items():
        if parts.status and constants.get(kind) is not None:
            mask &= _status_part(kind, constants[kind], shape, detector, bits)
    return neighbour_mask(mask, parts.neighbours, parts.neighbour_shape) if parts.neighbours else mask


def _layout(shape: tuple[int, ...], parts: MaskParts) -> Iterator[Mask]:
    """Yield the masks that follow from the layout of a panel alone."""
    if parts.edges:
        yield edge_mask(shape, *_pair(parts.edges))
    if parts.center:
        yield center_mask(shape, *_pair(parts.center))
    if parts.unbonded:
        yield unbonded_mask(shape)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
