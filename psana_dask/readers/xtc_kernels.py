"""Compiled passes over the index of an LCLS-1 stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, njit, void

Column = npt.NDArray[Any]


@njit(
    void(
        array("i8"), array("u4"), array("u4"), array("u4"), array("i2"), array("u1"), array("u1"),
        array("i8", 2, writable=True), array("i8", 2, writable=True),
    ),
    counted=False,
)  # fmt: skip
def find_samples(
    first_block: Column, key: Column, payload: Column, damage: Column, config: Column, service: Column,
    l1_only: Column, row_of: Column, block_of: Column,
) -> None:  # fmt: skip
    """Find for each configuration and kind its longest intact payload.

    Parameters
    ----------
    first_block : (datagram + 1,) int64
    key, payload, damage : (block,) uint32
    config : (datagram,) int16
    service : (datagram,) uint8
    l1_only : (kind,) uint8
        1: blocks of events (service 12) alone count.
    row_of, block_of : (config, kind) int64
        Filled with the datagram and the block; stay -1 where there is none.
    """
    for row in range(config.size):
        state = np.int64(config[row])
        event = service[row] == 12
        for block in range(first_block[row], first_block[row + 1]):
            kind = np.int64(key[block])
            if damage[block] != 0 or payload[block] == 0 or (l1_only[kind] and not event):
                continue
            best = block_of[state, kind]
            if best < 0 or payload[block] > payload[best]:
                row_of[state, kind] = row
                block_of[state, kind] = block
