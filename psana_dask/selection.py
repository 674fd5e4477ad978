"""From what the user names to event numbers: masks, conditions, times, slices.

Selections act on the index: they compose, and nothing is read but what a condition needs.
"""

from __future__ import annotations

import warnings
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from psana_dask.dataset import View
from psana_dask.errors import DroppedWarning, EventNotFound
from psana_dask.keys import EventKeys, parse_keys
from psana_dask.model import Array

Ints = npt.NDArray[np.int64]


@runtime_checkable
class Condition(Protocol):
    """A question that can be asked of every event (``run.evr.has(90, -162)``)."""

    def mask(self, view: View) -> npt.NDArray[np.bool_]:
        """Return the answer for each event of the view."""


def positions(view: View, wanted: Any) -> Ints:
    """Return the positions, within a view, of what `wanted` names.

    Parameters
    ----------
    view : View
    wanted : Condition, boolean array or DataArray, slice, event keys

    Raises
    ------
    EventNotFound
        A key fits no event.
    ValueError
        A mask of the wrong length.
    """
    if isinstance(wanted, Condition):
        return np.flatnonzero(wanted.mask(view))
    if isinstance(wanted, slice):
        return _slice_positions(view, wanted)
    if is_mask(wanted):
        return np.flatnonzero(_aligned_mask(view, wanted))
    if isinstance(wanted, list) and wanted and all(isinstance(w, bool | np.bool_) for w in wanted):
        return np.flatnonzero(_aligned_mask(view, np.array(wanted)))
    return key_positions(view, parse_keys(wanted))


def is_mask(wanted: Any) -> bool:
    """Tell whether `wanted` is a boolean array, labelled or not."""
    return getattr(getattr(wanted, "dtype", None), "kind", "") == "b"


def _aligned_mask(view: View, mask: Any) -> npt.NDArray[np.bool_]:
    """Return a mask over the events of the view; a labelled one is aligned on time, absent is False."""
    labelled = getattr(mask, "indexes", None)
    if labelled is not None and "time" in labelled:
        values = np.asarray(mask.compute().values if hasattr(mask, "compute") else mask.values)
        times = np.asarray(labelled["time"].values, "M8[ns]")
        found = np.isin(view.time, times)
        dropped = int(np.count_nonzero(values)) - int(np.count_nonzero(np.isin(times[values], view.time)))
        if dropped:
            what = f"{dropped} events of the mask are not in this run: ignored"
            warnings.warn(what, DroppedWarning, stacklevel=4)
        out = np.zeros(len(view.choice), bool)
        order = np.argsort(times, kind="stable")
        at = order[np.searchsorted(times[order], view.time[found])]
        out[found] = values[at]
        return out
    plain = np.asarray(mask)
    if plain.shape != (len(view.choice),):
        what = f"a mask of shape {plain.shape} for {len(view.choice)} events"
        raise ValueError(f"{what}: one value per event is needed")
    return plain


def _slice_positions(view: View, wanted: slice) -> Ints:
    """Return the positions in a slice of positions, or of times (both ends included)."""
    ends = (wanted.start, wanted.stop)
    if all(e is None or (isinstance(e, int | np.integer) and abs(int(e)) <= 1 << 31) for e in ends):
        return np.arange(len(view.choice))[wanted]
    if wanted.step not in (None, 1):
        raise ValueError("a slice of times takes no step; select, then isel(time=slice(None, None, step))")
    keep = np.ones(len(view.choice), bool)
    for end, below in ((wanted.start, False), (wanted.stop, True)):
        if end is not None:
            keys = parse_keys(end)
            axis = _axis(view, keys)
            keep &= axis <= keys.values[0] if below else axis >= keys.values[0]
    return np.flatnonzero(keep)


def _axis(view: View, keys: EventKeys) -> Array:
    if keys.are_words:
        return view.recording.events.timestamp[view.choice.numbers]
    return view.time


def key_positions(
    view: View, keys: EventKeys, method: str | None = None, tolerance: np.timedelta64 | None = None
) -> Ints:
    """Return the position of each key.

    Parameters
    ----------
    view : View
    keys : EventKeys
    method : {None, "nearest", "ffill", "bfill"}
        None: the key must be there exactly.
    tolerance : timedelta64, optional
        Largest distance of a nearest event.

    Raises
    ------
    EventNotFound
        No such event; names the nearest one and its distance.
    """
    if method not in (None, "nearest", "ffill", "pad", "bfill", "backfill"):
        raise ValueError(f'method={method!r}: use "nearest", "ffill" or "bfill"')
    axis = _axis(view, keys)
    if not len(axis):
        raise EventNotFound("no event: the run, or what was selected of it, is empty")
    order = np.argsort(axis, kind="stable")
    ordered = axis[order]
    right = np.searchsorted(ordered, keys.values, side="left")
    right, fits = _same_fiducial(view, keys, order, ordered, right)
    exact = fits & (ordered[np.minimum(right, len(axis) - 1)] == keys.values)
    near = _neighbour(ordered, keys.values, right, exact, method)
    lacking = (near < 0) | (near >= len(axis)) | (~exact if method is None else np.zeros(len(near), bool))
    if tolerance is not None:
        distance = _distance(ordered[np.clip(near, 0, len(axis) - 1)], keys.values)
        lacking |= distance > float(np.timedelta64(tolerance, "ns").astype(np.int64))
    if lacking.any():
        raise _not_found(view, keys, int(np.flatnonzero(lacking)[0]), ordered)
    return order[near]


def _same_fiducial(
    view: View, keys: EventKeys, order: Ints, ordered: Array, at: Ints
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Go on from the first event with the word of each key to the one with its fiducial.

    Distinct LCLS-1 events may have equal clocks. Where a key says no fiducial, or the format has
    none, the first event counts.
    """
    known = view.recording.facts.get("fiducial")
    fits = np.ones(len(at), bool)
    if known is None or keys.fiducials is None or not keys.are_words:
        return at, fits
    fiducial = known[view.choice.numbers][order]
    asked = np.flatnonzero(keys.fiducials >= 0)
    at = at.copy()
    last = len(ordered) - 1
    while asked.size:
        here = np.minimum(at[asked], last)
        wrong = (ordered[here] == keys.values[asked]) & (fiducial[here] != keys.fiducials[asked])
        after = np.minimum(here + 1, last)
        more = wrong & (after > here) & (ordered[after] == keys.values[asked])
        fits[asked[wrong & ~more]] = False
        asked = asked[more]
        at[asked] += 1
    return at, fits


def _neighbour(
    ordered: Array, values: Array, right: Ints, exact: npt.NDArray[np.bool_], method: str | None
) -> Ints:
    """Return the position of the event that a method picks; outside the range where there is none."""
    if method in ("ffill", "pad"):
        return np.where(exact, right, right - 1)
    if method == "nearest":
        before = np.clip(right - 1, 0, len(ordered) - 1)
        after = np.clip(right, 0, len(ordered) - 1)
        closer = _distance(values, ordered[before]) < _distance(ordered[after], values)
        return np.where(closer, before, after)
    return right


def _distance(a: Array, b: Array) -> npt.NDArray[np.float64]:
    """Return |a - b| of times (ns) or of words, without wrapping round."""
    if a.dtype.kind == "M":
        return np.abs((a - b).astype(np.int64)).astype(float)
    return np.abs(_word_ns(a) - _word_ns(b)).astype(float)


def _word_ns(words: Array) -> npt.NDArray[np.int64]:
    """Return nanoseconds of raw words, since their epoch."""
    seconds = (words >> np.uint64(32)).astype(np.int64)
    return seconds * 1_000_000_000 + (words & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _not_found(view: View, keys: EventKeys, which: int, ordered: Array) -> EventNotFound:
    key = keys.values[which : which + 1]
    distance = _distance(ordered, np.repeat(key, len(ordered)))
    nearest = int(np.argmin(distance))
    shown = f"timestamp {int(key[0])}" if keys.are_words else f"time {key[0]}"
    if keys.fiducials is not None and keys.fiducials[which] >= 0:
        shown += f" and fiducial {keys.fiducials[which]}"
        known = view.recording.facts.get("fiducial", np.zeros(0, np.int32))
        words = view.recording.events.timestamp[view.choice.numbers]
        others = known[view.choice.numbers][words == key[0]] if len(known) else known
        if len(others):
            listed = ", ".join(map(str, others.tolist()))
            return EventNotFound(f"no event with {shown}; those of that timestamp have the fiducial {listed}")
    found = int(ordered[nearest]) if keys.are_words else ordered[nearest]
    return EventNotFound(
        f"no event with {shown}; the nearest is {found}, {distance[nearest] / 1e9:.9f} s away "
        f'(method="nearest" takes it; run.isel(time=...) goes by position)'
    )
