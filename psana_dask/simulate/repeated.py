"""Datagrams that are written again and again: their bytes in one buffer, and the words in it that change."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]


class Records:
    """Datagrams one after the other in one buffer.

    Parameters
    ----------
    pieces : list of bytes
    """

    def __init__(self, pieces: list[bytes]) -> None:
        self.buffer: Bytes = np.frombuffer(bytearray().join(pieces), np.uint8)
        self.starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)

    def get(self, places: Places, dtype: str) -> npt.NDArray[Any]:
        """Return the words that start at `places` in the buffer."""
        return self.buffer[self._at(places, dtype)].view(dtype)[:, 0]

    def put(self, places: Places, words: npt.NDArray[Any], dtype: str) -> None:
        """Set the words that start at `places` in the buffer."""
        self.buffer[self._at(places, dtype)] = words.astype(dtype)[:, None].view(np.uint8)

    def _at(self, places: Places, dtype: str) -> Places:
        return places[:, None] + np.arange(np.dtype(dtype).itemsize)

    def first(self, count: int) -> memoryview:
        """Return the bytes of the first `count` records."""
        return self.buffer[: self.starts[count]].data
