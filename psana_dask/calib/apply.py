"""Raw words to calibrated values: ``prepare(constants) -> tables``, ``apply(raw, tables, out)``.

`prepare` lays the constants out once, per pixel and gain range, as ``pedestal`` and ``factor``
planes in which offset, gain and mask are already combined.  `apply` then writes

    (value - pedestal[range]) [- common mode] * factor[range]

into a buffer that the caller owns, for one event or a stack, on one thread, without the GIL
and without allocating per event.  The steps are also separate calls (`subtract_pedestals`,
`correct_common_mode`, `multiply_gain`) on the same kernels, so both ways give the same bits;
`tests/calib/test_apply.py` checks that.

Without a common mode, tiles of pixels go through all events of a stack before the next tile,
so the constants stay in the cache; with one, the smallest units that can be corrected alone
go through all three steps while they are in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psana_dask.calib import gain
from psana_dask.calib.commonmode import CommonMode, Correction, Plan, plan
from psana_dask.calib.constants import Constants
from psana_dask.calib.corrections import Work
from psana_dask.calib.detectors import GENERIC, Decoding, Detector
from psana_dask.calib.gain import packed
from psana_dask.calib.masks import combined_mask
from psana_dask.errors import ConstantsError, ConstantsNotFound

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Scratch:
    """Work space of `apply` for tables with a common mode; one per thread, reused for ever."""

    chunk: int  # pixels that go through the three steps together
    used: NDArray[np.uint8]  # (chunk,)
    work: tuple[Work, ...]  # of the steps of the common mode


@dataclass(frozen=True, eq=False)
class Tables:
    """Constants laid out for `apply`; a value that a worker needs once.

    `use` and `ranges` are C-contiguous with the pixels of an event on the last axis.
    """

    shape: tuple[int, ...]  # of an event: ([panel,] row, col)
    decoding: Decoding
    table: Floats  # pedestals and factors, see `gain.packed`
    use: NDArray[np.uint8]  # (pixel,): bit n, plane n may enter the common mode
    bad: float  # factor of a word in no gain range: 0 or NaN
    common_mode: Plan | Correction | None
    ranges: NDArray[np.int8] | None = None  # (2, pixel): gain range of each plane, if it varies

    @property
    def unit(self) -> str:
        """Return what must be read together: ``pixel``, ``panel`` or ``event``."""
        if self.common_mode is None:
            return "pixel"
        panel = math.prod(self.shape[-2:])
        by_panel = isinstance(self.common_mode, Plan) and panel % self.common_mode.unit == 0
        return "panel" if by_panel else "event"

    @property
    def pedestal(self) -> Floats:
        """Return the pedestals with the offset, (plane, pixel), ADU."""
        return gain.unpacked(self.table, self.use.size)[0]

    @property
    def factor(self) -> Floats:
        """Return what values are multiplied by, (plane, pixel): gain and mask."""
        return gain.unpacked(self.table, self.use.size)[1]

    @property
    def nbytes(self) -> int:
        """Return the size of the tables in bytes."""
        return self.table.nbytes + self.use.nbytes

    def scratch(self) -> Scratch:
        """Return work space for `apply`."""
        common = self.common_mode
        chunk = math.prod(self.shape)
        work: tuple[Work, ...] = ()
        if isinstance(common, Plan):
            chunk, work = common.chunk(), common.work(np.dtype(np.float32))
        return Scratch(chunk, np.empty(chunk, np.uint8), work)

    def region(
        self,
        panels: slice | Sequence[int] | None = None,
        rows: slice | None = None,
        cols: slice | None = None,
    ) -> Tables:
        """Return the tables of some panels, rows and columns.

        Raises
        ------
        ValueError
            The common mode needs more than the region holds (see `unit`).
        """
        cuts_panel = rows is not None or cols is not None
        if (self.unit == "event" and (cuts_panel or panels is not None)) or (
            self.unit == "panel" and cuts_panel
        ):
            raise ValueError(
                f"the common mode of these tables needs a whole {self.unit}; calibrate that and cut "
                "the region out of the result, or prepare tables without common mode"
            )
        if len(self.shape) == 2 and panels is not None:
            raise ValueError(f"an event of shape {self.shape} has no panels to choose from")
        everything = slice(None)
        chosen = [everything if c is None else c for c in (panels, rows, cols)]
        return self._cut(tuple(chosen[-len(self.shape) :]))

    def _cut(self, chosen: tuple[Any, ...]) -> Tables:
        def part(planes: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(planes.reshape(-1, *self.shape)[(slice(None), *chosen)])

        pedestal, factor = (part(planes) for planes in gain.unpacked(self.table, self.use.size))
        shape, planes = pedestal.shape[1:], len(pedestal)
        common = self.common_mode
        return replace(
            self, shape=shape, table=gain.packed(pedestal.reshape(planes, -1), factor.reshape(planes, -1)),
            use=part(self.use[None]).reshape(-1),
            ranges=None if self.ranges is None else part(self.ranges).reshape(2, -1),
            common_mode=replace(common, shape=shape) if isinstance(common, Plan) else common,
        )


def _arrays(constants: Mapping[str, Any], detector: Detector, panels: Sequence[int] | None) -> Arrays:
    """Return the constants that are there as arrays, with the panels of the data."""
    values = {k: v.value if isinstance(v, Constants) else v for k, v in constants.items()}
    arrays = {k: np.asarray(v) for k, v in values.items() if v is not None and not isinstance(v, str)}
    if "pedestals" not in arrays:
        raise ConstantsNotFound(
            f"no pedestals for {detector.name}: values would be raw counts; deploy pedestals, "
            "or ask for policy='raw'"
        )
    return {kind: _as_recorded(kind, array, detector, panels) for kind, array in arrays.items()}


def _as_recorded(
    kind: str, value: NDArray[Any], detector: Detector, panels: Sequence[int] | None
) -> NDArray[Any]:
    """Return a constant with the panels, and in the order of axes, that the data have."""
    if value.ndim < 3:
        return value
    if detector.name == "Cspad2x2" and value.shape[-3:] == (185, 388, 2):  # as the DAQ writes it
        value = np.moveaxis(value, -1, -3)
    if panels is None or value.shape[-3] == len(panels):
        return value
    if max(panels, default=0) >= value.shape[-3]:
        raise ConstantsError(f"{kind} has {value.shape[-3]} panels, the data have panels {list(panels)}")
    return value[..., list(panels), :, :]


def _planes(kind: str, value: NDArray[Any], planes: int, shape: tuple[int, ...]) -> Floats:
    """Return a constant as (plane, pixel); its last axis must be that of the data, if it has axes."""
    rows_differ = value.ndim > 1 and value.shape[-1] != shape[-1]
    if value.size != planes * math.prod(shape) or rows_differ:
        ranges = f" with {planes} gain ranges" if planes > 1 else ""
        raise ConstantsError(f"{kind} has shape {value.shape}, an event has {shape}{ranges}")
    return value.reshape(planes, -1).astype(np.float32)


def _event_shape(
    pedestals: NDArray[Any], detector: Detector, shape: tuple[int, ...] | None
) -> tuple[int, ...]:
    if shape is not None:
        return tuple(shape)
    return pedestals.shape[1:] if detector.multigain else pedestals.shape


def _pedestals(constants: Arrays, planes: int, shape: tuple[int, ...]) -> Floats:
    """Return pedestals with the offset, per plane."""
    pedestal = _planes("pedestals", constants["pedestals"], planes, shape)
    offset = constants.get("pixel_offset")
    return pedestal if offset is None else pedestal + _planes("pixel_offset", offset, planes, shape)


def _factors(
    value: NDArray[Any] | None, detector: Detector, planes: int, shape: tuple[int, ...], xtc2: bool
) -> Floats:
    """Return what values are multiplied by, per plane: 0 where a dividing gain is 0."""
    if value is None:
        scale = detector.keV_per_adu if xtc2 and detector.keV_per_adu else 1.0
        return np.full((planes, math.prod(shape)), scale, np.float32)
    factors = _planes("pixel_gain", value, planes, shape)
    if detector.gain_meaning(xtc2) == "multiply":
        return factors
    ones = np.ones_like(factors)
    return np.divide(ones, factors, out=np.zeros_like(factors), where=factors != 0)


def _allowed(
    ranges: NDArray[np.int8] | None, detector: Detector, shape: tuple[int, ...]
) -> NDArray[np.int8] | None:
    """Return the ranges as (2, pixel); they must be given where a configuration chooses them."""
    if ranges is None:
        if detector.decoding.kind == "switched" and len(detector.decoding.ranges) > 2:
            raise ConstantsError(
                f"{detector.name} has {len(detector.decoding.ranges)} gain ranges that its configuration "
                "chooses from; give ranges=gain.allowed_ranges(gain.control_bits(config, trbit))"
            )
        return None
    flat = np.ascontiguousarray(ranges, np.int8).reshape(2, -1)
    if flat.shape[1] != math.prod(shape):
        raise ConstantsError(f"gain ranges of {flat.shape[1]} pixels, an event has {shape}")
    return flat


def _masked(
    factor: Floats, good: NDArray[np.uint8], ranges: NDArray[np.int8] | None, fill: float
) -> Floats:
    """Return the factors with 0 or NaN where a pixel is bad or in no range."""
    if fill == 0:
        return factor * good
    if not math.isnan(fill):
        raise ValueError(f"bad pixels get 0 or NaN, not {fill}")
    kept = good != 0 if ranges is None else (good != 0) & (ranges >= 0)
    return np.where(kept, factor, np.float32(fill))


def _chosen(planes: Floats, ranges: NDArray[np.int8]) -> Floats:
    """Pick, per pixel and switch state, the plane of its range; 0 where there is none."""
    picked = np.take_along_axis(planes, np.maximum(ranges, 0).astype(np.intp), axis=0)
    return np.ascontiguousarray(np.where(ranges < 0, np.float32(0), picked))


def _use(
    decoding: Decoding, planes: int, ranges: NDArray[np.int8] | None, common: Plan | Correction | None
) -> NDArray[np.uint8]:
    """Return one bit per plane, (1 or pixel): words of which plane may enter the common mode."""
    steady = isinstance(common, Plan) and common.steady_only
    if ranges is None:
        wanted = decoding.steady if steady and decoding.ranges else range(planes)
        allowed = np.isin(np.arange(planes), list(wanted))[:, None]
    else:
        allowed = np.isin(ranges, decoding.steady) if steady else ranges >= 0
    bits = allowed.astype(np.uint8) << np.arange(planes, dtype=np.uint8)[:, None]
    return np.bitwise_or.reduce(bits, axis=0)


def _common_mode(
    wanted: Any, constants: Arrays, detector: Detector, shape: tuple[int, ...], xtc2: bool
) -> Plan | Correction | None:
    if callable(wanted) or isinstance(wanted, Plan):
        return wanted
    if isinstance(wanted, str):
        if wanted != "default":
            raise ValueError(f"common_mode is 'default', None, numbers or a function, not {wanted!r}")
        stored = constants.get("common_mode")
        ignored = xtc2 and not detector.stored_common_mode  # as in psana2
        wanted = detector.default_common_mode(xtc2) if stored is None or ignored else stored
    return plan(wanted, shape, detector, xtc2=xtc2, rms=constants.get("pixel_rms"))


def prepare(
    constants: Mapping[str, Any],
    detector: Detector = GENERIC,
    *,
    xtc2: bool = False,
    shape: tuple[int, ...] | None = None,
    common_mode: str | Sequence[float] | CommonMode | Plan | Correction | None = "default",
    gain: bool = True,
    gain_mask: ArrayLike | None = None,
    mask: ArrayLike | bool | None = None,
    ranges: NDArray[np.int8] | None = None,
    panels: Sequence[int] | None = None,
    fill: float = 0.0,
) -> Tables:
    """Lay constants out for `apply`.

    Parameters
    ----------
    constants : mapping of kind to Constants or array
        ``pedestals`` is needed; ``pixel_gain``, ``pixel_offset``, ``pixel_status``,
        ``status_extra``, ``status_data``, ``common_mode``, ``pixel_rms`` are used if present.
        Multi-gain detectors have a leading axis of gain ranges.
    detector : Detector
        Row of the detector table.
    xtc2 : bool
        Conventions of LCLS-II: gain divides, its default common mode.
    shape : tuple of int, optional
        Shape of an event; else that of the pedestals.
    common_mode : optional
        ``"default"``: the ``common_mode`` constant, else the detector's default (LCLS-II: the
        constant counts for the ePix10ka family only, as in psana2); None: off; numbers as in the
        constant; or a function ``(values, used)`` that corrects one event in place.
    gain : bool
        Apply ``pixel_gain``.
    gain_mask : array_like, optional
        One more factor per pixel (CSPAD: 1, or 6.85 in low gain).
    mask : array_like or bool, optional
        1 good, 0 bad, from `masks.combined_mask` for instance; None: from the status words;
        False: no mask.
    ranges : ndarray of int8, shape (2, ...), optional
        ePix10ka family: from `gain.allowed_ranges` of the run's configuration.
    panels : sequence of int, optional
        Panel numbers of the data, if the constants have more panels than the data.
    fill : float
        What bad pixels get: 0 as in psana, or NaN.

    Returns
    -------
    Tables

    Raises
    ------
    ConstantsNotFound
        No pedestals.
    ConstantsError
        A constant does not fit the event's shape.
    """
    arrays = _arrays(constants, detector, panels)
    event = _event_shape(arrays["pedestals"], detector, shape)
    planes = max(1, len(detector.decoding.ranges))
    allowed = _allowed(ranges, detector, event)
    pedestal = _pedestals(arrays, planes, event)
    factor = np.ones_like(pedestal)
    if gain:
        factor = _factors(arrays.get("pixel_gain"), detector, planes, event, xtc2)
    if allowed is not None:
        pedestal, factor = _chosen(pedestal, allowed), _chosen(factor, allowed)
    if gain_mask is not None:
        factor = factor * _planes("gain_mask", np.asarray(gain_mask), 1, event)
    good = _good(mask, arrays, event, detector)
    common = _common_mode(common_mode, arrays, detector, event, xtc2)
    use = _use(detector.decoding, len(pedestal), allowed, common) * good
    return Tables(
        event, detector.decoding, packed(pedestal, _masked(factor, good, allowed, fill)),
        np.ascontiguousarray(use, np.uint8), float(fill), common, allowed,
    )


def _good(
    mask: ArrayLike | bool | None, constants: Arrays, shape: tuple[int, ...], detector: Detector
) -> NDArray[np.uint8]:
    if mask is False:
        return np.ones(math.prod(shape), np.uint8)
    if mask is None:
        return combined_mask(constants, shape, detector).reshape(-1)
    given = np.asarray(mask)
    if given.size != math.prod(shape):
        raise ConstantsError(f"mask has shape {given.shape}, an event has {shape}")
    return (given.reshape(-1) != 0).astype(np.uint8)


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
    if tables.common_mode is None:
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
