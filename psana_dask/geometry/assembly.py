"""Images from panels and panels from images: `prepare` once, `apply` to every frame.

Rules, all explicit:

overlap
    Several pixels in one bin: ``"last"`` in data order (the default, what psana gives),
    ``"mean"`` or ``"max"`` of those that are not NaN.
holes
    An empty bin amid pixels stays empty with ``"none"`` (the default). With ``"nearest"`` one
    between occupied bins (above and below, or left and right) takes the value of the pixel
    nearest to its middle, if that is within half a pixel's diagonal, so if the bin lies on a
    sensor. With ``"minimum"`` one all of whose neighbours (those inside the image) hold pixels
    takes the least of them (psana2's default).  Gaps between sensors are never filled.
missing panels
    Their bins get the fill value, like bins that belong to no pixel: NaN for floats, 0 for
    integers unless told otherwise.  Where a missing panel overlaps another, that one shows.

Tables are values cached by content; they hold flat indices, so one set serves all data types.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.tables import AssemblyTables, prepare

__all__ = ["AssemblyTables", "apply", "assembled", "panels_of", "prepare"]


def apply(
    panels: NDArray[Any],
    tables: AssemblyTables,
    out: NDArray[Any],
    *,
    present: NDArray[np.bool_] | None = None,
    fill: float | None = None,
) -> NDArray[Any]:
    """Assemble a frame, or a stack of them, into `out`.

    Parameters
    ----------
    panels : array (panel, row, col) or (time, panel, row, col)
        Any number type.
    tables : AssemblyTables
        From `prepare`.
    out : array (y, x) or (time, y, x)
        C-contiguous; every element is written.  Its type may differ from that of `panels`.
    present : bool array (panel) or (time, panel), optional
        Which panels have data; all by default.
    fill : number, optional
        For missing panels and bins without a pixel: NaN for floats, 0 for integers.

    Returns
    -------
    array
        `out`.  One thread; the GIL is released.

    Examples
    --------
    >>> tables = geometry.prepare(detector)
    >>> image = geometry.apply(panels, tables, np.empty(tables.shape, np.float32))
    """
    from psana_dask.geometry.kernels import assemble

    frames = _flat(panels, tables.panels, "panels", copy=True)
    images = _flat(out, tables.shape, "out", copy=False)
    if len(frames) != len(images):
        raise ValueError(f"{len(frames)} frames do not fit into out for {len(images)}")
    there = _present(present, len(frames), tables.panels[0])
    whole = not np.issubdtype(out.dtype, np.inexact)
    assemble(frames, images, there, _fill_value(fill, out.dtype), whole, tables.kernel)
    return out


def assembled(
    panels: NDArray[Any],
    geometry: Geometry,
    *,
    present: NDArray[np.bool_] | None = None,
    fill: float | None = None,
    **choices: Any,
) -> NDArray[Any]:
    """Return a new image (y, x), or stack (time, y, x), of `panels`; see `prepare` and `apply`.

    Examples
    --------
    >>> image = geometry.assembled(panels, geometry.default_geometry("jungfrau", panels=8))
    """
    tables = prepare(geometry, **choices)
    out = np.empty((*panels.shape[:-3], *tables.shape), panels.dtype)
    return apply(panels, tables, out, present=present, fill=fill)


def image_dtype(dtype: np.dtype[Any], fill: float | None = None) -> np.dtype[Any]:
    """Return the type of images of pixels of `dtype`: the same, or floats where `fill` needs them.

    Raises
    ------
    GeometryError
        The pixels are neither real numbers nor truth values.
    """
    if dtype.kind not in "biuf":
        raise GeometryError(f"an image holds numbers or truth values, not {dtype}")
    if fill is None or dtype.kind == "f" or float(fill).is_integer():
        return dtype
    return np.result_type(dtype, np.float32)


def panels_of(
    image: NDArray[Any], tables: AssemblyTables, out: NDArray[Any], *, fill: float | None = None
) -> NDArray[Any]:
    """Give each pixel the value of its image bin: the inverse of `apply`.

    Parameters
    ----------
    image : array (y, x) or (time, y, x)
        For instance a mask drawn on an image.
    tables : AssemblyTables
        From `prepare`.
    out : array (panel, row, col) or (time, panel, row, col)
        C-contiguous; every element is written.
    fill : number, optional
        For pixels that do not exist: NaN for floats, 0 for integers.

    Returns
    -------
    array
        `out`.  Pixels that share a bin get the same value.

    Examples
    --------
    >>> panels = geometry.panels_of(image, tables, np.empty(tables.panels, np.float32))
    """
    from psana_dask.geometry.kernels import disassemble

    images = _flat(image, tables.shape, "image", copy=True)
    frames = _flat(out, tables.panels, "out", copy=False)
    if len(frames) != len(images):
        raise ValueError(f"{len(images)} images do not fit into out for {len(frames)}")
    disassemble(images, frames, _fill_value(fill, out.dtype), tables.kernel)
    return out


def _flat(array: NDArray[Any], shape: tuple[int, ...], name: str, *, copy: bool) -> NDArray[Any]:
    """Return `array` as (time, everything), copying one that is not contiguous if allowed."""
    if array.shape[-len(shape) :] != shape or array.ndim not in (len(shape), len(shape) + 1):
        raise ValueError(f"{name} has shape {array.shape}, the geometry wants {shape} or (time, *{shape})")
    if not array.flags.c_contiguous:
        if not copy:
            raise ValueError(f"{name} must be C-contiguous, it is written in place")
        array = np.ascontiguousarray(array)
    return array.reshape(-1, int(np.prod(shape)))


def _present(present: NDArray[np.bool_] | None, times: int, panels: int) -> NDArray[np.bool_]:
    given = np.ones(panels, np.bool_) if present is None else np.asarray(present, np.bool_)
    if given.shape[-1:] != (panels,):
        raise ValueError(f"present has shape {given.shape}, wanted ({panels},) or (time, {panels})")
    return np.ascontiguousarray(np.broadcast_to(given, (times, panels)))


def _fill_value(fill: float | None, dtype: np.dtype[Any]) -> Any:
    if fill is None:
        fill = np.nan if np.issubdtype(dtype, np.inexact) else 0
    return dtype.type(fill)
