"""Raw words to calibrated values: ``apply(raw, tables, out)``, and each of its steps alone.

`apply` writes

    (value - pedestal[range]) [- common mode] * factor[range]

into a buffer that the caller owns, for one event or a stack, on one thread, without the GIL
and without allocating per event.  The steps are also separate calls (`subtract_pedestals`,
`correct_common_mode`, `multiply_gain`) on the same kernels, so both ways give the same bits;
`tests/calib/test_apply.py` checks that.

Without a common mode, blocks of pixels go through all events of a stack before the next block,
so the constants stay in the cache; with one, the smallest units that can be corrected alone
go through all three steps while they are in the cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib import gain
from psana_dask.calib.commonmode import Plan
from psana_dask.calib.corrections import Work
from psana_dask.calib.tables import Choices, Floats, Scratch, Tables, prepare
from psana_dask.errors import ConstantsError

__all__ = [
    "Choices", "Scratch", "Tables", "apply", "common_mode", "correct_common_mode", "gain_ranges",
    "multiply_gain", "prepare", "subtract_pedestals", "used_pixels",
]


def _as_events(raw: NDArray[Any], tables: Tables) -> NDArray[Any]:
    """View raw as (event, pixel)."""
    if raw.shape[-len(tables.shape) :] != tables.shape or raw.ndim > len(tables.shape) + 1:
        raise ConstantsError(
            f"raw data of shape {raw.shape} do not fit constants for events of shape {tables.shape}"
        )
    native = raw if raw.dtype.isnative else raw.astype(raw.dtype.newbyteorder("="))
    return np.ascontiguousarray(native).reshape(-1, math.prod(tables.shape))


def _out_events(out: Floats, raw: NDArray[Any], tables: Tables) -> Floats:
    if out.shape != raw.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be a C-contiguous float32 array of shape {raw.shape}, "
            f"not {out.dtype} {out.shape}"
        )
    return out.reshape(-1, math.prod(tables.shape))


def _decode(tables: Tables) -> tuple[int, int, int]:
    row = tables.decoding
    return gain.KIND_NUMBER[row.kind], row.data_bits, row.gain_bit


def apply(
    raw: NDArray[Any], tables: Tables, out: Floats | None = None, scratch: Scratch | None = None
) -> Floats:
    """Calibrate one event or a stack.

    Parameters
    ----------
    raw : ndarray, shape ([time,] panel, row, col)
        Raw words; any integer or float type for detectors with one gain range.
    tables : Tables
        From `prepare`.
    out : ndarray of float32, shape of `raw`, optional
        Written to; made here if not given.
    scratch : Scratch, optional
        From `Tables.scratch`, for a loop over single events of tables with a common mode; made
        here, once for the stack, if not given.

    Returns
    -------
    ndarray of float32
        `out`.
    """
    if out is None:
        out = np.empty(raw.shape, np.float32)
    events, target = _as_events(raw, tables), _out_events(out, raw, tables)
    if tables.by_function:
        for event, values in zip(raw.reshape(-1, *tables.shape), out.reshape(-1, *tables.shape), strict=True):
            _apply_step_by_step(event, tables, values)
    elif tables.common_mode is None:
        gain.calibrate(*_decode(tables), np.float32(tables.bad), events, tables.table, target)
    else:
        _apply_by_units(events, tables, target, scratch or tables.scratch())
    return out


def _apply_by_units(events: NDArray[Any], tables: Tables, out: Floats, scratch: Scratch) -> None:
    kind, bits, gain_bit = _decode(tables)
    bad = np.float32(tables.bad)
    used = scratch.used
    for lo in range(0, events.shape[1], scratch.chunk):
        hi = lo + scratch.chunk
        for e in range(len(events)):
            one, target = events[e : e + 1], out[e : e + 1]
            gain.subtract(kind, bits, gain_bit, one, tables.table, target, lo, hi)
            gain.mark_used(kind, gain_bit, one[0], tables.use, used, lo)
            _correct(tables, target[0, lo:hi], used, scratch.work)
            gain.scale(kind, bits, gain_bit, bad, one, tables.table, target, lo, hi)


def _apply_step_by_step(event: NDArray[Any], tables: Tables, values: Floats) -> None:
    """Calibrate one event with steps that are functions of a user's."""
    subtract_pedestals(event, tables, values)
    correct_common_mode(values, event, tables)
    if tables.scale is not None:
        tables.scale(values, gain_ranges(event, tables))
    multiply_gain(values, event, tables)


def _correct(
    tables: Tables, values: Floats, used: NDArray[np.uint8], work: tuple[Work, ...]
) -> None:
    common = tables.common_mode
    if isinstance(common, Plan):
        common.correct(values, used, work)
    elif common is not None:
        common(values.reshape(tables.shape), used.reshape(tables.shape))


def subtract_pedestals(raw: NDArray[Any], tables: Tables, out: Floats | None = None) -> Floats:
    """Do the first step alone: value minus pedestal and offset of its gain range, ADU."""
    if out is None:
        out = np.empty(raw.shape, np.float32)
    events, target = _as_events(raw, tables), _out_events(out, raw, tables)
    if tables.subtract is not None:
        for event, values in zip(raw.reshape(-1, *tables.shape), out.reshape(-1, *tables.shape), strict=True):
            values[...] = tables.subtract(event, gain_ranges(event, tables))
        return out
    gain.subtract(*_decode(tables), events, tables.table, target, 0, events.shape[1])
    return out


def used_pixels(raw: NDArray[Any], tables: Tables) -> NDArray[np.uint8]:
    """Return 1 where a pixel may enter the estimate of the common mode."""
    events = _as_events(raw, tables)
    used = np.empty(events.shape, np.uint8)
    kind, _, gain_bit = _decode(tables)
    for e in range(len(events)):
        gain.mark_used(kind, gain_bit, events[e], tables.use, used[e], 0)
    return used.reshape(raw.shape)


def correct_common_mode(values: Floats, raw: NDArray[Any], tables: Tables) -> Floats:
    """Do the second step alone, in place: subtract the common mode, if the tables have one."""
    used, size = used_pixels(raw, tables), math.prod(tables.shape)
    work = tables.scratch().work
    for event, mark in zip(_out_events(values, raw, tables), used.reshape(-1, size), strict=True):
        _correct(tables, event, mark, work)
    return values


def common_mode(raw: NDArray[Any], tables: Tables) -> Floats:
    """Return what the second step subtracts, ADU; 0 where it corrects nothing."""
    values = subtract_pedestals(raw, tables)
    return values - correct_common_mode(values.copy(), raw, tables)


def multiply_gain(values: Floats, raw: NDArray[Any], tables: Tables) -> Floats:
    """Do the third step alone, in place: gain factor of each word's range, and mask."""
    events = _as_events(raw, tables)
    target, bad = _out_events(values, raw, tables), np.float32(tables.bad)
    gain.scale(*_decode(tables), bad, events, tables.table, target, 0, events.shape[1])
    return values


def gain_ranges(raw: NDArray[Any], tables: Tables) -> NDArray[np.int8]:
    """Return the gain range of each word; -1 where it is in none."""
    ranges = None if tables.ranges is None else tables.ranges.reshape(2, *tables.shape)
    return gain.gain_range(raw, tables.decoding, ranges)
