"""Keys of events, in every form that users have: times, ISO strings, raw words.

Times match the `time` of events; raw words (packed, or (seconds, nanoseconds[, fiducial]))
match their `timestamp`, as written in the file, never the corrected time.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.readers.xtc2_layout import EPOCH_1990
from psana_dask.saved_times import is_file_of_times, read_times

_ISO = re.compile(r"(?P<local>.+?)(?P<zone>[Zz]|[+-]\d\d:?\d\d)?")
_NANOSECOND_LIMIT = 1_000_000_000


@dataclass(frozen=True)
class EventKeys:
    """Keys taken apart.

    Parameters
    ----------
    values : (key,) datetime64[ns] or uint64
        Times, or raw words (seconds << 32 | nanoseconds).
    single : bool
        One key, not a list of them.
    fiducials : (key,) int64, optional
        -1 where none was given.
    """

    values: npt.NDArray[Any]
    single: bool
    fiducials: npt.NDArray[np.int64] | None = None

    @property
    def are_words(self) -> bool:
        """Whether the keys are raw words."""
        return self.values.dtype.kind == "u"


def parse_keys(key: Any) -> EventKeys:
    """Take event keys apart.

    Parameters
    ----------
    key : datetime64, datetime, str, (sec, nsec), (sec, nsec, fiducial), int, or a list or array of them
        Or a file of times, as `Run.save_times` writes it: a path, or a text that ends with ``.times``.

    Raises
    ------
    TypeError, ValueError
        The key is of no known form; says which forms there are.
    """
    key = getattr(key, "values", key)  # a DataArray, a Series or an Index
    if is_file_of_times(key):
        return EventKeys(read_times(key), False)
    if _is_single(key):
        value, fiducial = _one(key)
        return EventKeys(np.array([value]), True, np.array([fiducial]))
    if isinstance(key, np.ndarray):
        if key.dtype.kind == "M":
            return EventKeys(key.astype("M8[ns]").reshape(-1), key.ndim == 0)
        if key.dtype.kind in "iu" and key.ndim < 2:
            return EventKeys(key.astype(np.uint64).reshape(-1), key.ndim == 0)
    parsed = [_one(k) for k in key] if hasattr(key, "__iter__") else [_one(key)]  # which says what is no key
    if len({type(value) for value, _ in parsed}) > 1:
        raise TypeError("event keys of several forms in one list: use either times or raw words")
    values = np.array([value for value, _ in parsed], dtype=None if parsed else "M8[ns]")
    return EventKeys(values, False, np.array([fiducial for _, fiducial in parsed], np.int64))


def _is_single(key: Any) -> bool:
    if isinstance(key, str | int | np.integer | np.datetime64 | dt.datetime):
        return True
    numbers = isinstance(key, tuple) and all(isinstance(k, int | np.integer) for k in key)
    return numbers and len(key) in (2, 3) and int(key[1]) < _NANOSECOND_LIMIT


def _one(key: Any) -> tuple[np.datetime64 | np.uint64, int]:
    """Return the value of one key, and its fiducial or -1."""
    key = getattr(key, "values", key)
    if isinstance(key, np.ndarray) and not key.ndim:
        key = key[()]
    if isinstance(key, np.datetime64):
        return key.astype("M8[ns]"), -1
    if isinstance(key, str):
        return parse_time(key), -1
    if hasattr(key, "to_datetime64") or isinstance(key, dt.datetime):
        return _of_datetime(key), -1
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return np.uint64(key), -1
    if isinstance(key, Sequence | np.ndarray) and len(key) in (2, 3):
        word = np.uint64(int(key[0]) << 32 | int(key[1]))
        return word, int(key[2]) if len(key) == 3 else -1
    raise TypeError(
        f"{key!r} is no event key: use a datetime64, an ISO string, (seconds, nanoseconds[, fiducial]) "
        "or a packed word seconds << 32 | nanoseconds"
    )


def _of_datetime(key: Any) -> np.datetime64:
    if key.tzinfo is not None:
        key = key.astimezone(dt.UTC).replace(tzinfo=None)
    exact = getattr(key, "to_datetime64", None)  # pandas keeps nanoseconds
    return np.datetime64(exact() if exact else key, "ns")


def parse_time(text: str) -> np.datetime64:
    """Return the time that an ISO string says; UTC unless it has ``Z`` or an offset.

    Raises
    ------
    ValueError
        It is no ISO time.
    """
    match = _ISO.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError(text)
        time = np.datetime64(match["local"], "ns")
    except ValueError:
        what = f"{text!r} is no time: use 2014-06-14T06:12:03.5, also with Z or +01:00"
        if any(sign in text for sign in "<>=("):
            what += "; a condition as text is for psana_dask.conditions.events_where(run, text)"
        raise ValueError(what) from None
    zone = match["zone"]
    if zone and zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        offset = np.timedelta64(hours * 60 + minutes, "m")
        time = time - offset if zone[0] == "+" else time + offset
    return time


def times(key: Any, format: str = "xtc2") -> npt.NDArray[np.datetime64]:
    """Return the times that event keys say.

    Parameters
    ----------
    key : any event key, or a list of them, or a file of `Run.save_times`
    format : {"xtc2", "xtc"}
        How raw words count seconds: since 1990 (LCLS-II) or since 1970 (LCLS-1).

    Returns
    -------
    (key,) datetime64[ns]
        UTC; a single key gives a scalar array.

    Examples
    --------
    >>> times("2014-06-14T06:12:03Z")
    array('2014-06-14T06:12:03.000000000', dtype='datetime64[ns]')
    """
    keys = parse_keys(key)
    values = keys.values
    if keys.are_words:
        epoch = {"xtc2": EPOCH_1990, "xtc": 0}[format]
        seconds = (values >> np.uint64(32)).astype(np.int64) + epoch
        nanoseconds = (values & np.uint64(0xFFFFFFFF)).astype(np.int64)
        values = (seconds * _NANOSECOND_LIMIT + nanoseconds).view("M8[ns]")
    return values[0:1].reshape(()) if keys.single else values
