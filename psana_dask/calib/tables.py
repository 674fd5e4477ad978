"""Constants laid out for the kernels: ``prepare(constants, detector, ...) -> Tables``.

`prepare` combines offset into pedestals, gain and mask into one factor, and packs both per
pixel and gain range; `Choices` says which steps are on and what takes their place.  The tables
are a value: made once, used by `apply` for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psana_dask.calib import gain, kept
from psana_dask.calib.commonmode import CommonMode, Correction, Plan, plan
from psana_dask.calib.constants import Constants
from psana_dask.calib.corrections import Work
from psana_dask.calib.detectors import GENERIC, Decoding, Detector
from psana_dask.calib.masks import combined_mask
from psana_dask.errors import ConstantsError, ConstantsNotFound

Floats = NDArray[np.float32]
Ranges = NDArray[np.int8]
Arrays = dict[str, NDArray[Any]]

Subtract = Callable[[NDArray[Any], Ranges], Floats]
"""A user's first step: ``(words, ranges) -> values`` of one event."""

Scale = Callable[[Floats, Ranges], None]
"""A user's third step: ``(values, ranges)`` of one event, in place."""


@dataclass(frozen=True, eq=False)
class Choices:
    """Which steps are done, and what takes their place.

    Parameters
    ----------
    pedestals : bool, array or function
        Subtract the constant; another array; or ``(words, ranges) -> values`` of one event.
    common_mode : "default", None, numbers or function
        ``"default"``: the ``common_mode`` constant, else the detector's default (LCLS-II: the
        constant counts for the ePix10ka family only, as in psana2); None: off; numbers as in the
        constant; or ``(values, used)``, which corrects one event in place.
    gain : bool, array or function
        Apply the constant; another array; or ``(values, ranges)``, which scales one event in place.
    mask : None, False, array, mapping or function
        None: from the status words; False: no mask; 1 good, 0 bad; what `masks.combined_mask`
        takes; or ``mask -> mask``, which gets the one from the status words.
    gain_mask : array, optional
        One more factor per pixel (CSPAD: 1, or 6.85 in low gain).
    fill : float
        What bad pixels get: 0 as in psana, or NaN.

    Examples
    --------
    >>> calib.Choices(common_mode=(7, 1, 100), gain=False)
    """

    pedestals: bool | ArrayLike | Subtract = True
    common_mode: str | Sequence[float] | CommonMode | Plan | Correction | None = "default"
    gain: bool | ArrayLike | Scale = True
    mask: bool | ArrayLike | Mapping[str, Any] | Callable[[NDArray[np.uint8]], ArrayLike] | None = None
    gain_mask: ArrayLike | None = None
    fill: float = 0.0

    @property
    def needs_pedestals(self) -> bool:
        """Return whether the first step is done with constants."""
        return self.pedestals is not False and not callable(self.pedestals)

    def constants(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the constants with the arrays that were given in their places."""
        given = {"pedestals": self.pedestals, "pixel_gain": self.gain}
        arrays = {kind: v for kind, v in given.items() if not isinstance(v, bool) and not callable(v)}
        return {**known, **arrays}


@dataclass(frozen=True, eq=False)
class Scratch:
    """Work space of `apply` for tables with a common mode; one per thread, reused for ever."""

    chunk: int  # pixels that go through the three steps together
    used: NDArray[np.uint8]  # (chunk,)
    work: tuple[Work, ...]  # of the steps of the common mode


@dataclass(frozen=True, eq=False)
class Tables:
    """Constants laid out for `apply`; a value that travels by reference, see `kept`.

    `use` and `ranges` are C-contiguous with the pixels of an event on the last axis.

    Examples
    --------
    >>> tables = calib.prepare({"pedestals": np.zeros((8, 8))}, calib.detector("Opal1000"), shape=(8, 8))
    >>> tables.nbytes
    """

    shape: tuple[int, ...]  # of an event: ([panel,] row, col)
    decoding: Decoding
    table: Floats  # pedestals and factors, see `gain.packed`
    use: NDArray[np.uint8]  # (pixel,): bit n, plane n may enter the common mode
    bad: float  # factor of a word in no gain range: 0 or NaN
    common_mode: Plan | Correction | None
    ranges: Ranges | None = None  # (2, pixel): gain range of each plane, if it varies
    subtract: Subtract | None = None  # instead of the first step
    scale: Scale | None = None  # before the third step, which then only masks
    again: Callable[[], Tables] | None = None  # makes them in a process that cannot see the cache

    @cached_property
    def key(self) -> str:
        """Return the hash of the arrays."""
        return kept.digest(self.arrays)

    @property
    def arrays(self) -> Arrays:
        """Return the arrays by name: what is large."""
        found: Arrays = {"table": self.table, "use": self.use}
        return found if self.ranges is None else {**found, "ranges": self.ranges}

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = self.arrays
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in arrays}
        path = kept.keep(self.key, arrays) if self.nbytes > kept.SMALL else None
        if path is None:
            return _with_arrays, (rest, arrays)
        return _reopened, (rest, self.key, path)

    @property
    def by_function(self) -> bool:
        """Return whether a step is a function of a user's."""
        return self.subtract is not None or self.scale is not None

    @property
    def unit(self) -> str:
        """Return what must be read together: ``pixel``, ``panel`` or ``event``."""
        if self.by_function:
            return "event"
        if self.common_mode is None:
            return "pixel"
        panel = math.prod(self.shape[-2:])
        by_panel = isinstance(self.common_mode, Plan) and panel % self.common_mode.unit == 0
        return "panel" if by_panel else "event"

    @property
    def pedestal(self) -> Floats:
        """Return the pedestals with the offset, (plane, pixel), ADU."""
        return gain.unpacked(self.table, 0, self.use.size)[0]

    @property
    def factor(self) -> Floats:
        """Return what values are multiplied by, (plane, pixel): gain and mask."""
        return gain.unpacked(self.table, 0, self.use.size)[1]

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
                f"the common mode (or a step of your own) needs a whole {self.unit}; calibrate that and "
                "cut the region out of the result, or prepare tables without it"
            )
        if len(self.shape) == 2 and panels is not None:
            raise ValueError(f"an event of shape {self.shape} has no panels to choose from")
        kept_panels = self if panels is None else self._of_panels(np.arange(self.shape[0])[panels])
        return kept_panels if not cuts_panel else kept_panels._cut(rows or slice(None), cols or slice(None))

    def _of_panels(self, panels: NDArray[np.intp]) -> Tables:
        """Return the tables of some panels; only their part of the table is touched."""
        size = math.prod(self.shape[1:])
        parts = [gain.unpacked(self.table, p * size, (p + 1) * size) for p in panels.tolist()]
        pedestal, factor = (np.concatenate(of_panels, axis=1) for of_panels in zip(*parts, strict=True))
        pixels = (panels[:, None] * size + np.arange(size)).reshape(-1)
        ranges = None if self.ranges is None else self.ranges[:, pixels]
        return self._with((len(panels), *self.shape[1:]), pedestal, factor, self.use[pixels], ranges)

    def _cut(self, rows: slice, cols: slice) -> Tables:
        def part(planes: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(planes.reshape(-1, *self.shape)[..., rows, cols])

        pedestal, factor = (part(planes) for planes in gain.unpacked(self.table, 0, self.use.size))
        shape, planes = pedestal.shape[1:], len(pedestal)
        ranges = None if self.ranges is None else part(self.ranges).reshape(2, -1)
        pedestal, factor = pedestal.reshape(planes, -1), factor.reshape(planes, -1)
        return self._with(shape, pedestal, factor, part(self.use).reshape(-1), ranges)

    def _with(
        self, shape: tuple[int, ...], pedestal: Floats, factor: Floats, use: NDArray[np.uint8],
        ranges: Ranges | None,
    ) -> Tables:  # fmt: skip
        common = self.common_mode
        return replace(
            self, shape=shape, table=gain.packed(pedestal, factor), use=use, ranges=ranges, again=None,
            common_mode=replace(common, shape=shape) if isinstance(common, Plan) else common,
        )  # fmt: skip


def _with_arrays(rest: dict[str, Any], arrays: Mapping[str, Any]) -> Tables:
    return Tables(**{**rest, **arrays})


def _reopened(rest: dict[str, Any], key: str, path: Path) -> Tables:
    again = rest["again"]
    return _with_arrays(rest, kept.shared(key, path, None if again is None else lambda: again().arrays))


def recorded(constants: Mapping[str, Any], detector: Detector, panels: Sequence[int] | None) -> Arrays:
    """Return the constants that are there as arrays, with the panels of the data."""
    values = {k: v.value if isinstance(v, Constants) else v for k, v in constants.items()}
    arrays = {k: np.asarray(v) for k, v in values.items() if v is not None and not isinstance(v, str)}
    return {kind: _as_recorded(kind, array, detector, panels) for kind, array in arrays.items()}


def _check_pedestals(arrays: Arrays, detector: Detector, choices: Choices) -> None:
    if choices.needs_pedestals and "pedestals" not in arrays:
        raise ConstantsNotFound(
            f"no pedestals for {detector.name}: values would be raw counts; deploy pedestals, "
            "or ask for policy='raw'"
        )


def _event_shape(arrays: Arrays, detector: Detector, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is not None:
        return tuple(shape)
    if "pedestals" not in arrays:
        raise ConstantsError("without pedestals prepare needs shape=, that of an event")
    pedestals = arrays["pedestals"].shape
    return pedestals[1:] if detector.multigain else pedestals


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
    return value.reshape(planes, -1).astype(np.float32, copy=False)


def _pedestals(
    constants: Arrays, detector: Detector, shape: tuple[int, ...], choices: Choices
) -> Floats:
    """Return pedestals with the offset, (range, pixel); zeros if they are off or a function's."""
    planes = max(1, len(detector.decoding.ranges))
    if not choices.needs_pedestals:
        return np.zeros((planes, math.prod(shape)), np.float32)
    pedestal = _planes("pedestals", constants["pedestals"], planes, shape)
    offset = constants.get("pixel_offset")
    return pedestal if offset is None else pedestal + _planes("pixel_offset", offset, planes, shape)


def _factors(
    constants: Arrays, detector: Detector, shape: tuple[int, ...], choices: Choices, xtc2: bool,
    allowed: Ranges | None,
) -> Floats:  # fmt: skip
    """Return what values are multiplied by, (plane, pixel): 0 where a dividing gain is 0."""
    planes = max(1, len(detector.decoding.ranges))
    value = constants.get("pixel_gain")
    off = choices.gain is False or callable(choices.gain)
    if off or value is None:
        scale = detector.keV_per_adu if xtc2 and detector.keV_per_adu and not off else 1.0
        return _chosen(np.full((planes, math.prod(shape)), scale, np.float32), allowed)
    factors = _chosen(_planes("pixel_gain", value, planes, shape), allowed)
    if detector.gain_meaning(xtc2) == "multiply":
        return factors
    return np.divide(np.float32(1), factors, out=np.zeros_like(factors), where=factors != 0)


def _allowed(
    ranges: Ranges | None, detector: Detector, shape: tuple[int, ...]
) -> Ranges | None:
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
    factor: Floats, good: NDArray[np.uint8], ranges: Ranges | None, fill: float
) -> Floats:
    """Return the factors with 0 or NaN where a pixel is bad or in no range."""
    if fill == 0:
        return factor * good
    if not math.isnan(fill):
        raise ValueError(f"bad pixels get 0 or NaN, not {fill}")
    kept = good != 0 if ranges is None else (good != 0) & (ranges >= 0)
    return np.where(kept, factor, np.float32(fill))


def _chosen(planes: Floats, ranges: Ranges | None) -> Floats:
    """Return the planes of the ranges that each pixel can be in, if its configuration chooses them."""
    if ranges is None:
        return planes
    chosen = np.empty(ranges.shape, np.float32)
    gain.choose(np.ascontiguousarray(planes), ranges, chosen)
    return chosen


def _use(
    decoding: Decoding, planes: int, ranges: Ranges | None, common: Plan | Correction | None
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


def common_mode_numbers(
    wanted: Any, stored: Any, detector: Detector, xtc2: bool
) -> CommonMode | Plan | Correction | None:
    """Return the common mode that a choice means.

    Parameters
    ----------
    wanted : "default", None, numbers or function
    stored : Constants or array, optional
        The ``common_mode`` constant.
    detector : Detector
    xtc2 : bool

    Returns
    -------
    CommonMode, function or None
        None if it is off.
    """
    if callable(wanted) or isinstance(wanted, Plan):
        return wanted
    if isinstance(wanted, str):
        if wanted != "default":
            raise ValueError(f"common_mode is 'default', None, numbers or a function, not {wanted!r}")
        ignored = xtc2 and not detector.stored_common_mode  # as in psana2
        value = stored.value if isinstance(stored, Constants) else stored
        wanted = detector.default_common_mode(xtc2) if value is None or ignored else value
    found = CommonMode.of(wanted)
    return None if found is None or (found.algorithm == 0 and not found.parameters) else found


def _common_mode(
    wanted: Any, constants: Arrays, detector: Detector, shape: tuple[int, ...], xtc2: bool
) -> Plan | Correction | None:
    found = common_mode_numbers(wanted, constants.get("common_mode"), detector, xtc2)
    if not isinstance(found, CommonMode):
        return found
    return plan(found, shape, detector, xtc2=xtc2, rms=constants.get("pixel_rms"))


def _good(
    choices: Choices, constants: Arrays, shape: tuple[int, ...], detector: Detector
) -> NDArray[np.uint8]:
    """Return the mask, (pixel,), 1 good."""
    mask = choices.mask
    if mask is False:
        return np.ones(math.prod(shape), np.uint8)
    if mask is None or mask is True or isinstance(mask, Mapping) or callable(mask):
        parts = mask if isinstance(mask, Mapping) else {}
        found = combined_mask(constants, shape, detector, **parts)
        mask = mask(found) if callable(mask) else found
    given = np.asarray(mask)
    if given.size != math.prod(shape):
        raise ConstantsError(f"mask has shape {given.shape}, an event has {shape}")
    return (given.reshape(-1) != 0).astype(np.uint8)


def prepare(
    constants: Mapping[str, Any],
    detector: Detector = GENERIC,
    *,
    xtc2: bool = False,
    shape: tuple[int, ...] | None = None,
    ranges: Ranges | None = None,
    panels: Sequence[int] | None = None,
    **choices: Any,
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
    ranges : ndarray of int8, shape (2, ...), optional
        ePix10ka family: from `gain.allowed_ranges` of the run's configuration.
    panels : sequence of int, optional
        Panel numbers of the data, if the constants have more panels than the data.
    **choices
        Fields of `Choices`: ``pedestals, common_mode, gain, mask, gain_mask, fill``.

    Raises
    ------
    ConstantsNotFound
        No pedestals.
    ConstantsError
        A constant does not fit the event's shape.

    Examples
    --------
    >>> tables = calib.prepare({"pedestals": pedestals}, calib.detector("epix100"), xtc2=True)
    """
    how = Choices(**choices)
    arrays = recorded(how.constants(constants), detector, panels)
    _check_pedestals(arrays, detector, how)
    event = _event_shape(arrays, detector, shape)
    allowed = _allowed(ranges, detector, event)
    pedestal = _chosen(_pedestals(arrays, detector, event, how), allowed)
    factor = _factors(arrays, detector, event, how, xtc2, allowed)
    if how.gain_mask is not None:
        factor = factor * _planes("gain_mask", np.asarray(how.gain_mask), 1, event)
    good = _good(how, arrays, event, detector)
    common = _common_mode(how.common_mode, arrays, detector, event, xtc2)
    use = np.ascontiguousarray(_use(detector.decoding, len(pedestal), allowed, common) * good, np.uint8)
    table = gain.packed(pedestal, _masked(factor, good, allowed, how.fill))
    subtract = how.pedestals if callable(how.pedestals) else None
    scale = how.gain if callable(how.gain) else None
    return Tables(event, detector.decoding, table, use, float(how.fill), common, allowed, subtract, scale)
