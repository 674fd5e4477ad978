"""Decoding the streams of high-speed digitisers (LCLS-II ``hsd``): raw waveforms and peaks (compiled).

The bytes of a channel are one or two streams, each a header of four little-endian words and
16-bit samples::

    word 0   bits 0-28 number of samples; 29 out of range, 30 unlocked, 31 overflow
    word 1   bits 24-31 stream: 0 raw, 1 peaks ("FEX")

The raw stream is the waveform.  The peaks stream comes in groups of four samples: with bit 15 of the
first one set, the low 15 bits of the four say how many samples were left out; else they are samples,
and groups of samples in a row are one peak.  Source: lcls2 ``psalg/digitizer`` (Stream.hh, HsdPython.hh).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.jit import njit

PERIOD = 14 / (6.4e9 * 13)
"""Seconds between samples."""

HEADER = 16
RAW, PEAKS = 0, 1
OUT_OF_RANGE, UNLOCKED, OVERFLOW, MALFORMED = 1, 2, 4, 8


@dataclass(frozen=True, eq=False)
class HsdStreams:
    """What the payloads of some events hold; ragged, events one after another.

    Examples
    --------
    >>> payload = np.array([2, 0, 0, 0] + 12 * [0] + [7, 0, 9, 0], np.uint8)  # a header, two samples
    >>> algorithms.decode_hsd(payload, [20]).waveforms(2)
    """

    raw: NDArray[np.uint16]
    # (sample,) raw waveforms
    raw_count: NDArray[np.int64]
    # (event,) samples of each
    start: NDArray[np.int64]
    # (peak,) sample at which each peak starts
    length: NDArray[np.int64]
    # (peak,) its number of samples
    samples: NDArray[np.uint16]
    # (sample of a peak,) samples of all peaks
    peak_count: NDArray[np.int64]
    # (event,) number of peaks
    span: NDArray[np.int64]
    # (event,) samples that its peaks stream stands for, with those that were left out
    flags: NDArray[np.uint8]
    # (event,) OUT_OF_RANGE, UNLOCKED, OVERFLOW, MALFORMED: payload that does not follow the format

    def waveforms(self, size: int, fill: float = np.nan) -> NDArray[np.float64]:
        """Return raw waveforms, (event, `size`), cut or filled."""
        out = np.full((len(self.raw_count), size), float(fill))
        first = np.cumsum(self.raw_count) - self.raw_count
        for event, (at, count) in enumerate(zip(first, self.raw_count, strict=True)):
            out[event, : min(count, size)] = self.raw[at : at + min(count, size)]
        return out

    def assembled(self, size: int, fill: float = np.nan) -> NDArray[np.float64]:
        """Return the peaks in their places, (event, `size`); `fill` where samples were left out."""
        out = np.full((len(self.peak_count), size), float(fill))
        event = np.repeat(np.arange(len(self.peak_count)), self.peak_count)
        first = np.cumsum(self.length) - self.length
        row = np.repeat(event, self.length)
        col = np.repeat(self.start - first, self.length) + np.arange(len(self.samples))
        inside = col < size
        out[row[inside], col[inside]] = self.samples[inside]
        return out


def decode_hsd(payload: NDArray[np.uint8], counts: NDArray[Any]) -> HsdStreams:
    """Decode the payloads of one channel.

    Parameters
    ----------
    payload : (byte,) uint8 array
        Of all events, one after another.
    counts : (event,) array of int
        Bytes of each event; 0 where the channel is missing.

    Raises
    ------
    ValueError
        The counts do not add up to the payload.

    Examples
    --------
    >>> found = algorithms.decode_hsd(payload, counts)
    >>> found.waveforms(1000)
    """
    data, sizes = np.ascontiguousarray(payload, np.uint8), np.asarray(counts, np.int64).reshape(-1)
    if sizes.sum() != len(data) or (sizes < 0).any():
        raise ValueError(f"{int(sizes.sum())} bytes of {len(sizes)} events, but {len(data)} are given")
    totals, events = np.zeros(3, np.int64), np.zeros((3, len(sizes)), np.int64)
    flags = np.zeros(len(sizes), np.uint8)
    nothing16, nothing64 = np.empty(0, np.uint16), np.empty(0, np.int64)
    _decode(data, sizes, totals, events, flags, nothing16, nothing16, nothing64, nothing64, False)
    raw, samples = np.empty(totals[0], np.uint16), np.empty(totals[2], np.uint16)
    start, length = np.empty(totals[1], np.int64), np.empty(totals[1], np.int64)
    totals[:], events[:] = 0, 0
    _decode(data, sizes, totals, events, flags, raw, samples, start, length, True)
    return HsdStreams(raw, events[0], start, length, samples, events[1], events[2], flags)


@njit()
def _decode(
    data: Any,
    sizes: Any,
    totals: Any,
    events: Any,
    flags: Any,
    raw: Any,
    samples: Any,
    start: Any,
    length: Any,
    write: bool,
) -> None:
    """Count, or write, what each event holds; `totals` are raw samples, peaks and samples of peaks."""
    first = 0
    for event in range(sizes.size):
        at, end = first, first + sizes[event]
        first = end
        while at < end:
            count = 0
            if end - at >= HEADER:
                word = _word(data, at)
                flags[event] |= np.uint8((word >> 29) & 7)
                count = word & 0x1FFFFFFF
            if count == 0 or at + HEADER + 2 * count > end or data[at + 7] > PEAKS:
                flags[event] |= np.uint8(MALFORMED)
                break
            body = at + HEADER
            if data[at + 7] == RAW:
                for i in range(count if write else 0):
                    raw[totals[0] + i] = _sample(data, body + 2 * i)
                totals[0] += count
                events[0, event] += count
            else:
                found, position = _peaks(data, body, count, totals, samples, start, length, write)
                events[1, event] += found
                events[2, event] += position
                if count % 4:
                    flags[event] |= np.uint8(MALFORMED)
            at = body + 2 * count


@njit()
def _peaks(
    data: Any, body: int, count: int, totals: Any, samples: Any, start: Any, length: Any, write: bool
) -> tuple[int, int]:
    """Take one stream of peaks apart; return how many there are, and how many samples it stands for."""
    found = 0
    position = 0
    inside = False
    for group in range(count // 4):
        at = body + 8 * group
        if _sample(data, at) & 0x8000:
            inside = False
            for i in range(4):
                position += int(_sample(data, at + 2 * i) & 0x7FFF)
            continue
        if not inside:
            if write:
                start[totals[1]], length[totals[1]] = position, 0
            totals[1] += 1
            found += 1
            inside = True
        for i in range(4):
            if write:
                samples[totals[2]] = _sample(data, at + 2 * i)
            totals[2] += 1
        if write:
            length[totals[1] - 1] += 4
        position += 4
    return found, position


@njit()
def _sample(data: Any, at: int) -> Any:
    return np.uint16(data[at]) | np.uint16(np.uint16(data[at + 1]) << np.uint16(8))


@njit()
def _word(data: Any, at: int) -> Any:
    value = np.int64(data[at]) | np.int64(data[at + 1]) << 8
    return value | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24
