"""Compiled look-up: which block of each datagram carries a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, njit, void
from psana_dask.model import StreamIndex

Column = npt.NDArray[Any]


def blocks_of(index: StreamIndex, rows: Column, wanted: Sequence[int]) -> Column:
    """Return for each datagram row the row of its block whose key is ``wanted[config]``, or -1.

    Parameters
    ----------
    index : StreamIndex
    rows : (n,) int
    wanted : (config,) sequence of int
    """
    out = np.empty(len(rows), np.int64)
    locate_blocks(
        np.ascontiguousarray(rows, np.int64), index["first_block"], index["key"], index["config"],
        np.asarray(wanted, np.int64), out,
    )  # fmt: skip
    return out


@njit(void(array("i8"), array("i8"), array("u4"), array("i2"), array("i8"), array("i8", writable=True)))
def locate_blocks(
    rows: Column, first_block: Column, keys: Column, config: Column, wanted: Column, out: Column
) -> None:
    """Find for each datagram its block with the wanted key.

    Parameters
    ----------
    rows : (n,) int64
        Rows of datagrams; -1 has no block.
    first_block : (datagram + 1,) int64
    keys : (block,) uint32
    config : (datagram,) int16
    wanted : (config,) int64
        The key in each configuration; -1 where it has none.
    out : (n,) int64
        Row of the block, or -1.
    """
    for i in range(rows.size):
        out[i] = -1
        row = rows[i]
        if row < 0 or config[row] < 0:
            continue
        key = wanted[config[row]]
        if key < 0:
            continue
        for block in range(first_block[row], first_block[row + 1]):
            if np.int64(keys[block]) == key:
                out[i] = block
                break
