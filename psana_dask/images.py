"""Any array of pixels to an image and back, with labels: `geometry.assembly` on DataArrays.

Dimensions other than (panel, row, col), or (y, x), are kept as they are; Dask arrays stay lazy,
one task per chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from psana_dask.errors import GeometryError
from psana_dask.geometry import assembly
from psana_dask.geometry.assembly import AssemblyTables, prepare
from psana_dask.geometry.model import Geometry

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

PIXELS = ("panel", "row", "col")
IMAGE = ("y", "x")


def assemble(
    panels: Any,
    geometry: Geometry,
    *,
    slots: Ints | None = None,
    fill: float | None = None,
    **choices: Any,
) -> xr.DataArray:
    """Return the images of an array of pixels.

    Parameters
    ----------
    panels : DataArray or array
        (..., panel, row, col); a sensor of one panel may be without ``panel``. Coordinates
        ``panel`` (which panels these are) and ``<detector>_panel_present`` are honoured, and a
        panel that is NaN throughout is missing.
    geometry : Geometry
    slots : (panel,) int64, optional
        Which panels of the geometry these are, where there is no coordinate ``panel``; by default
        all of them.
    fill : number, optional
        For bins without a pixel and missing panels: NaN for floats, 0 for integers. With NaN
        integers become floats.
    **choices
        See `psana_dask.geometry.prepare`.

    Returns
    -------
    DataArray
        (..., y, x) of the same type, with y and x in metres.

    Raises
    ------
    GeometryError
        The panels are not those of the geometry.
    """
    tables = prepare(geometry, **choices)
    one = geometry.shape[0] == 1 and np.shape(panels)[-3:] != geometry.shape
    array = _with_panels(labelled(panels, PIXELS[1:] if one else PIXELS), tables, slots)
    where = _slots(array, tables, slots)
    inputs, core = [array], [list(PIXELS)]
    present = _presence(array)
    if present is not None:
        inputs, core = [array, present], [list(PIXELS), ["panel"]]
    dtype = assembly.image_dtype(array.dtype, fill)
    work = partial(_image, tables=tables, slots=where, fill=fill, dtype=dtype)
    return _applied(work, inputs, core, dict(zip(IMAGE, tables.shape, strict=True)), dtype, tables)


def disassemble(image: Any, geometry: Geometry, *, fill: float | None = None, **choices: Any) -> xr.DataArray:
    """Return the pixels of an image, each with the value of its bin: the inverse of `assemble`.

    Parameters
    ----------
    image : DataArray or array
        (..., y, x), as `assemble` makes it with the same choices; with coordinates y and x it may
        be a part of one.
    geometry : Geometry
    fill : number, optional
        For pixels outside of the image: NaN for floats, 0 for integers.
    **choices
        See `psana_dask.geometry.prepare`.

    Returns
    -------
    DataArray
        (..., panel, row, col) of the same type.

    Raises
    ------
    GeometryError
        The image was not made with this geometry and these choices.
    """
    tables = prepare(geometry, **choices)
    array = _whole(labelled(image, IMAGE), tables, fill)
    work = partial(_pixels, tables=tables, fill=fill)
    sizes = dict(zip(PIXELS, tables.panels, strict=True))
    found = _applied(work, [array], [list(IMAGE)], sizes, array.dtype, None)
    return found.assign_coords(panel=np.arange(tables.panels[0]))


def _applied(
    work: Any,
    inputs: Sequence[xr.DataArray],
    core: Sequence[Sequence[str]],
    sizes: dict[str, int],
    dtype: np.dtype[Any],
    tables: AssemblyTables | None,
) -> xr.DataArray:
    """Apply `work` over the outer dimensions, lazily where the input is lazy."""
    found: xr.DataArray = xr.apply_ufunc(
        partial(_blocks, work=work, core=core, sizes=sizes, dtype=dtype),
        *map(_chunked, inputs),
        input_core_dims=core,
        output_core_dims=[list(sizes)],
        dask="allowed",
        keep_attrs="override",
    )
    if tables is None:
        return found
    units = {"units": "m"}
    return found.assign_coords(y=("y", tables.y, units), x=("x", tables.x, units))


def _blocks(
    *arrays: Any, work: Any, core: Sequence[Sequence[str]], sizes: dict[str, int], dtype: np.dtype[Any]
) -> Any:
    """Call `work` on arrays, or once for each chunk of the outer dimensions of Dask arrays."""
    if not any(hasattr(array, "dask") for array in arrays):
        return work(*map(np.asarray, arrays))
    from dask.array import asarray
    from dask.array.core import blockwise

    # the outer dimensions end together; an array may lack the first ones
    most = max(array.ndim - len(names) for array, names in zip(arrays, core, strict=True))
    outer = [f"outer{k}" for k in range(most)]
    pairs: list[Any] = []
    for array, names in zip(arrays, core, strict=True):
        count = array.ndim - len(names)
        # a frame is one piece: its panels are assembled together
        whole = asarray(array).rechunk(dict.fromkeys(range(count, array.ndim), -1))
        pairs += [whole, (*outer[most - count :], *names)]
    out = (*outer, *sizes)
    meta = np.empty((0,) * len(out), dtype)
    return blockwise(work, out, *pairs, new_axes=sizes, dtype=dtype, meta=meta, concatenate=True)


def _chunked(array: xr.DataArray) -> xr.DataArray:
    """Return an array that was not read yet as a Dask array, so that it is not read at once."""
    if array.chunks is not None or array.variable._in_memory:
        return array
    return array.copy(data=array.variable.chunk(array.encoding.get("preferred_chunks", {})).data)


# ---- blocks -------------------------------------------------------------------------------------
def _image(
    panels: Array,
    present: npt.NDArray[np.bool_] | None = None,
    *,
    tables: AssemblyTables,
    slots: Ints,
    fill: float | None,
    dtype: np.dtype[Any],
) -> Array:
    """Assemble a block (..., panel, row, col)."""
    stack = panels.reshape(-1, *panels.shape[-3:])
    there = np.ones(stack.shape[:2], np.bool_)
    if present is not None:
        there = np.broadcast_to(present, panels.shape[:-2]).reshape(there.shape) & there
    if np.issubdtype(stack.dtype, np.inexact):
        there = there & ~_is_nan(stack)
    if not np.array_equal(slots, np.arange(tables.panels[0])):
        stack, there = _spread(stack, slots, tables.panels[0]), _spread(there, slots, tables.panels[0])
    out = np.empty((len(stack), *tables.shape), dtype)
    # the kernels count in numbers, not in truth values
    numbers = stack.view(np.uint8) if stack.dtype == np.bool_ else stack
    assembly.apply(
        numbers, tables, out.view(np.uint8) if dtype == np.bool_ else out, present=there, fill=fill
    )
    return out.reshape(*panels.shape[:-3], *tables.shape)


def _is_nan(stack: Array) -> npt.NDArray[np.bool_]:
    """Return which panels (time, panel) are NaN throughout."""
    flat = stack.reshape(*stack.shape[:2], -1)
    suspect = np.isnan(flat[..., 0])
    found = np.zeros(suspect.shape, np.bool_)
    for at in np.argwhere(suspect):
        found[tuple(at)] = np.isnan(flat[tuple(at)]).all()
    return found


def _spread(array: Array, slots: Ints, count: int) -> Array:
    """Return (time, panel, ...) with each panel at its place among `count`; zeros elsewhere."""
    out = np.zeros((len(array), count, *array.shape[2:]), array.dtype)
    out[:, slots] = array
    return out


def _pixels(image: Array, *, tables: AssemblyTables, fill: float | None) -> Array:
    """Take a block (..., y, x) apart."""
    stack = np.ascontiguousarray(image).reshape(-1, *image.shape[-2:])
    out = np.empty((len(stack), *tables.panels), image.dtype)
    if image.dtype == np.bool_:
        assembly.panels_of(stack.view(np.uint8), tables, out.view(np.uint8), fill=fill)
    else:
        assembly.panels_of(stack, tables, out, fill=fill)
    return out.reshape(*image.shape[:-2], *tables.panels)


# ---- labels -------------------------------------------------------------------------------------
def labelled(array: Any, core: Sequence[str]) -> xr.DataArray:
    """Return a DataArray; the last dimensions of a bare array are called `core`."""
    if isinstance(array, xr.DataArray):
        return array
    values = array if hasattr(array, "__array_function__") else np.asarray(array)
    if values.ndim < len(core):
        raise GeometryError(f"an array of shape {values.shape} is not (..., {', '.join(core)})")
    outer = [f"dim_{k}" for k in range(values.ndim - len(core))]
    return xr.DataArray(values, dims=[*outer, *core])


def _with_panels(array: xr.DataArray, tables: AssemblyTables, slots: Ints | None) -> xr.DataArray:
    """Give an array without the dimension ``panel`` one of length 1."""
    if "panel" in array.dims:
        return array
    several = tables.panels[0] > 1 and "panel" not in array.coords and (slots is None or len(slots) > 1)
    if several or not {"row", "col"} <= set(array.dims):
        raise GeometryError(
            f"an array of {array.dims} is no array of pixels: dimensions panel, row, col are wanted, "
            f"with {tables.panels[0]} panels"
        )
    return array.expand_dims("panel")


def _slots(array: xr.DataArray, tables: AssemblyTables, slots: Ints | None) -> Ints:
    """Return which panel of the geometry each panel of an array is."""
    count, rows, cols = (array.sizes[name] for name in PIXELS)
    if "panel" in array.coords:
        found = np.atleast_1d(array.coords["panel"].values).astype(np.int64)
    elif slots is not None and len(slots) == count:
        found = np.asarray(slots, np.int64)
    else:
        found = np.arange(count) if count == tables.panels[0] else np.array([-1])
    if (rows, cols) != tables.panels[1:] or found.min() < 0 or found.max() >= tables.panels[0]:
        raise GeometryError(
            f"the geometry has {tables.panels[0]} panels of {tables.panels[1:]} pixels; "
            f"the array has {count} of {(rows, cols)}"
            + (f", which are panels {found.tolist()}" if found.min() >= 0 else "")
        )
    return found


def _presence(array: xr.DataArray) -> xr.DataArray | None:
    """Return the coordinate that says which panels are there, (..., panel)."""
    for name, coordinate in array.coords.items():
        if str(name).endswith("panel_present") and "panel" in coordinate.dims:
            return coordinate.reset_coords(drop=True)
    return None


def _whole(array: xr.DataArray, tables: AssemblyTables, fill: float | None) -> xr.DataArray:
    """Return an image with all its rows and columns; one that was cut is filled up."""
    if not set(IMAGE) <= set(array.dims):
        raise GeometryError(f"an array of {array.dims} is no image: dimensions y and x are wanted")
    places = {"y": tables.y, "x": tables.x}
    placed = all(name in array.coords for name in IMAGE)
    if placed and all(np.isin(array.coords[name], places[name]).all() for name in IMAGE):
        empty = fill if fill is not None else np.nan if array.dtype.kind == "f" else 0
        return array.reindex(places, fill_value=array.dtype.type(empty))
    sizes = tuple(array.sizes[name] for name in IMAGE)
    if not placed and sizes == tables.shape:
        return array
    raise GeometryError(
        f"the image of {sizes} was not made with this geometry and these choices, which give {tables.shape}; "
        "pass geometry=, pixel_size=, frame= ... as they were when it was assembled"
    )
