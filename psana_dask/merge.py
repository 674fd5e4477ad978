"""Compiled merge of sorted time stamps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, int64, njit, void

Column = npt.NDArray[Any]


@njit(void(array("i8"), array("i8", writable=True)))
def count_equal(times: Column, turn: Column) -> None:
    """Count the equal values of sorted `times`: 0 for the first, 1 for the second, ..."""
    for i in range(1, times.size):
        turn[i] = turn[i - 1] + 1 if times[i] == times[i - 1] else 0


@njit(
    int64(
        array("i8"), array("i8"), array("i8"), array("i4", 2, writable=True), array("i8", writable=True)
    )
)  # fmt: skip
def merge_times(times: Column, turn: Column, starts: Column, member: Column, merged: Column) -> int:
    """Merge k sorted streams; return how many distinct (time, turn) there are.

    Parameters
    ----------
    times, turn : (total,) int64
        All streams one after the other.
    starts : (stream + 1,) int64
        Where each stream starts in them.
    member : (stream, total) int32
        Filled with the position within the stream of each merged event; stays -1 where absent.
    merged : (total,) int64
        Filled with the time of each merged event.
    """
    streams = starts.size - 1
    heads = starts[:-1].copy()
    count = 0
    while True:
        first = -1
        for k in range(streams):
            if heads[k] < starts[k + 1]:
                if first < 0:
                    first = k
                else:
                    a, b = times[heads[k]], times[heads[first]]
                    if a < b or (a == b and turn[heads[k]] < turn[heads[first]]):
                        first = k
        if first < 0:
            return count
        time, number = times[heads[first]], turn[heads[first]]
        for k in range(streams):
            head = heads[k]
            if head < starts[k + 1] and times[head] == time and turn[head] == number:
                member[k, count] = np.int32(head - starts[k])
                heads[k] = head + 1
        merged[count] = time
        count += 1
