"""Compiled passes over the index of an LCLS-1 stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, njit, void

Column = npt.NDArray[Any]


ANY, EVENTS, USUAL = 0, 1, 2
"""Which payload stands for a kind: the longest one, the longest of an event, one of the usual length."""


@njit(
    void(
        array("i8"), array("u4"), array("u4"), array("u4"), array("i2"), array("u1"), array("u1"),
        array("i8", 2, writable=True), array("i8", 2, writable=True), array("i8", 2, writable=True),
    ),
    counted=False,
)  # fmt: skip
def find_samples(
    first_block: Column, key: Column, payload: Column, damage: Column, config: Column, service: Column,
    rule: Column, row_of: Column, block_of: Column, votes: Column,
) -> None:  # fmt: skip
    """Find for each configuration and kind an intact payload that stands for all of them.

    Parameters
    ----------
    first_block : (datagram + 1,) int64
    key, payload, damage : (block,) uint32
    config : (datagram,) int16
    service : (datagram,) uint8
    rule : (kind,) uint8
        ANY, EVENTS or USUAL.
    row_of, block_of : (config, kind) int64
        Filled with the datagram and the block; stay -1 where there is none.
    votes : (config, kind) int64
        Room: how far ahead the length in hand is of others.
    """
    for row in range(config.size):
        state = np.int64(config[row])
        event = service[row] == 12
        for block in range(first_block[row], first_block[row + 1]):
            kind = np.int64(key[block])
            if damage[block] != 0 or payload[block] == 0 or (rule[kind] != ANY and not event):
                continue
            best = block_of[state, kind]
            if best < 0:
                taken = True
            elif rule[kind] == USUAL:  # a majority vote: the length that most have wins
                votes[state, kind] += 1 if payload[block] == payload[best] else -1
                taken = votes[state, kind] < 0
            else:
                taken = payload[block] > payload[best]
            if taken:
                row_of[state, kind] = row
                block_of[state, kind] = block
                votes[state, kind] = 1
