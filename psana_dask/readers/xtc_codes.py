"""Event codes of many LCLS-1 events as bits, in one compiled pass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, int64, njit, void

Ints = npt.NDArray[np.int64]


@njit(void(array("u4", 2), array("i8"), array("i8"), array("i8"), int64, array("u2", 2, writable=True)))
def mark_codes(
    items: npt.NDArray[np.uint32],
    counts: Ints,
    events: Ints,
    fiducials: Ints,
    own: int,
    words: npt.NDArray[np.uint16],
) -> None:
    """Set bit ``code % 16`` of ``words[event, code // 16]`` for each event code.

    Parameters
    ----------
    items : (code, 3) uint32
        Fiducial, ticks and code, one event's after the other's.
    counts : (n,) int64
        How many of them each event has.
    events : (n,) int64
        Rows of `words`.
    fiducials : (n,) int64
        Of the events.
    own : int
        Not 0: only codes of the event's own fiducial.
    words : (event, 16) uint16
    """
    at = 0
    for i in range(counts.size):
        for _ in range(counts[i]):
            code = items[at, 2]
            if code < 16 * words.shape[1] and (own == 0 or np.int64(items[at, 0]) == fiducials[i]):
                words[events[i], code // 16] |= np.uint16(1 << (code % 16))
            at += 1
