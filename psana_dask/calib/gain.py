"""Raw words to values: pedestal and gain of the range that each word is in (numba kernels).

Every kernel works on ``raw[event, pixel]`` and ``out[event, pixel]`` between two pixel
numbers.  The constants of `BLOCK` pixels lie together (`packed`): the pedestals of every plane,
then the factors, each `STRIDE` numbers after the one before.  All planes are loaded
unconditionally: a blend of loaded values vectorises, a load inside a condition does not (10.8
against 3.1 copies at 5 % switched pixels).  The stride is a constant of the program, so LLVM
knows that the planes are one array and vectorises loops that write two events at once, which
halves what is loaded.  The fused and the stepwise lines do the same float32 operations in the
same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.detectors import Decoding
from psana_dask.jit import njit

PLAIN, JUNGFRAU, SWITCHED = 0, 1, 2
KIND_NUMBER = {"plain": PLAIN, "jungfrau": JUNGFRAU, "switched": SWITCHED}

BLOCK = 16384  # pixels taken through all events before moving on: the constants stay in L2
STRIDE = BLOCK + 80  # between planes of a block: not a multiple of a page, or lines evict each other
STRIDE_2, STRIDE_3, STRIDE_4, STRIDE_5 = 2 * STRIDE, 3 * STRIDE, 4 * STRIDE, 5 * STRIDE
PROBE = 512  # pixels that a single frame tests for switched gains at once
FEW = 8  # at most one in so many of them with switched pixels: worth leaving planes out

Raw = NDArray[Any]
Planes = NDArray[np.float32]
Whole = int | np.integer[Any]
Real = float | np.floating[Any]


def packed(pedestal: Planes, factor: Planes) -> Planes:
    """Return the constants as the kernels want them.

    Parameters
    ----------
    pedestal, factor : ndarray of float32, shape (plane, pixel)

    Returns
    -------
    ndarray of float32, shape (block, 2 * plane * STRIDE)
    """
    both = np.concatenate([pedestal, factor])
    blocks = -(-both.shape[1] // BLOCK)
    table = np.zeros((blocks, len(both), STRIDE), np.float32)
    for block, place in enumerate(table):
        part = both[:, block * BLOCK : (block + 1) * BLOCK]
        place[:, : part.shape[1]] = part
    return table.reshape(blocks, -1)


def unpacked(table: Planes, start: int, stop: int) -> tuple[Planes, Planes]:
    """Return pedestal and factor, (plane, pixel), of the pixels [start, stop) of a packed table."""
    first, end = start // BLOCK, -(-stop // BLOCK)
    blocks = table[first:end].reshape(end - first, -1, STRIDE)[:, :, :BLOCK]
    both = np.ascontiguousarray(blocks.swapaxes(0, 1)).reshape(blocks.shape[1], -1)
    both = both[:, start - first * BLOCK : stop - first * BLOCK]
    half = len(both) // 2
    return both[:half], both[half:]


@njit(forceinline=True)
def _jungfrau_pick(w: Whole, a: Any, b: Any, c: Any, none: Any) -> Any:
    """Choose by gain code; the code is tested as two booleans, or LLVM makes branches."""
    one = (w & 0x4000) != 0
    two = (w & 0x8000) != 0
    chosen = c if two else (b if one else a)
    return none if two & (not one) else chosen


@njit()
def _plain_minus(word: Raw, p0: Planes, line: Planes) -> None:
    for p in range(line.size):
        line[p] = np.float32(word[p]) - p0[p]


@njit()
def _plain_times(f0: Planes, line: Planes) -> None:
    for p in range(line.size):
        line[p] *= f0[p]


@njit()
def _plain_line(word: Raw, p0: Planes, f0: Planes, line: Planes) -> None:
    for p in range(line.size):
        line[p] = (np.float32(word[p]) - p0[p]) * f0[p]


@njit()
def _jungfrau_minus(word: Raw, t: Planes, line: Planes) -> None:
    zero = np.float32(0)
    for p in range(line.size):
        w = np.int32(word[p])
        ped = _jungfrau_pick(w, t[p], t[p + STRIDE], t[p + STRIDE_2], zero)
        line[p] = np.float32(w & 0x3FFF) - ped


@njit()
def _jungfrau_times(word: Raw, t: Planes, bad: Real, line: Planes) -> None:
    for p in range(line.size):
        w = np.int32(word[p])
        line[p] *= _jungfrau_pick(w, t[p + STRIDE_3], t[p + STRIDE_4], t[p + STRIDE_5], bad)


@njit()
def _jungfrau_line(word: Raw, t: Planes, bad: Real, line: Planes) -> None:
    zero = np.float32(0)
    for p in range(line.size):
        w = np.int32(word[p])
        ped = _jungfrau_pick(w, t[p], t[p + STRIDE], t[p + STRIDE_2], zero)
        factor = _jungfrau_pick(w, t[p + STRIDE_3], t[p + STRIDE_4], t[p + STRIDE_5], bad)
        line[p] = (np.float32(w & 0x3FFF) - ped) * factor


@njit()
def _jungfrau_pair(word: Raw, next_: Raw, t: Planes, bad: Real, line: Planes, after: Planes) -> None:
    zero = np.float32(0)
    for p in range(line.size):
        a, b, c = t[p], t[p + STRIDE], t[p + STRIDE_2]
        x, y, z = t[p + STRIDE_3], t[p + STRIDE_4], t[p + STRIDE_5]
        v, w = np.int32(word[p]), np.int32(next_[p])
        ped, factor = _jungfrau_pick(v, a, b, c, zero), _jungfrau_pick(v, x, y, z, bad)
        line[p] = (np.float32(v & 0x3FFF) - ped) * factor
        ped, factor = _jungfrau_pick(w, a, b, c, zero), _jungfrau_pick(w, x, y, z, bad)
        after[p] = (np.float32(w & 0x3FFF) - ped) * factor


@njit()
def _switched_minus(word: Raw, t: Planes, keep: Whole, switch: Whole, line: Planes) -> None:
    for p in range(line.size):
        w = np.int32(word[p])
        a, b = t[p], t[p + STRIDE]
        second = (w & switch) != 0
        line[p] = np.float32(w & keep) - (b if second else a)


@njit()
def _switched_times(word: Raw, t: Planes, switch: Whole, line: Planes) -> None:
    for p in range(line.size):
        x, y = t[p + STRIDE_2], t[p + STRIDE_3]
        second = (np.int32(word[p]) & switch) != 0
        line[p] *= y if second else x


@njit()
def _switched_line(word: Raw, t: Planes, keep: Whole, switch: Whole, line: Planes) -> None:
    for p in range(line.size):
        w = np.int32(word[p])
        a, b, x, y = t[p], t[p + STRIDE], t[p + STRIDE_2], t[p + STRIDE_3]
        second = (w & switch) != 0
        line[p] = (np.float32(w & keep) - (b if second else a)) * (y if second else x)


@njit()
def _kind_of(kind: int, bits: int, gain_bit: int, word: Raw) -> int:
    """Return `kind`, or PLAIN if no word of a short line has a bit beyond the first range's value."""
    if kind == PLAIN:
        return PLAIN
    seen = np.int32(0)
    for p in range(word.size):
        seen |= np.int32(word[p])
    return PLAIN if seen & (np.int32(~bits) | np.int32(gain_bit)) == 0 else kind


@njit()
def _piece(at: int, hi: int, step: int) -> int:
    """Return where the piece of a line from `at` ends: after `step` pixels, or with its block."""
    return min(hi, at + step, (at // BLOCK + 1) * BLOCK)


@njit()
def choose(planes: Planes, ranges: NDArray[np.int8], out: Planes) -> None:
    """Pick, per pixel and switch state, the plane of its range; 0 where there is none.

    Parameters
    ----------
    planes : ndarray of float32, shape (range, pixel)
    ranges : ndarray of int8, shape (2, pixel)
        From `allowed_ranges`.
    out : ndarray of float32, shape (2, pixel)
    """
    for state in range(ranges.shape[0]):
        for p in range(ranges.shape[1]):
            k = ranges[state, p]
            out[state, p] = planes[k, p] if k >= 0 else np.float32(0)


@njit()
def subtract(
    kind: int, bits: int, gain_bit: int, raw: Raw, table: Planes, out: Planes, lo: int, hi: int
) -> None:
    """Write ``value - pedestal`` of pixels [lo, hi) of every event."""
    at = lo
    while at < hi:
        end = _piece(at, hi, BLOCK if kind == PLAIN else PROBE)
        t = table[at // BLOCK, at % BLOCK :]
        for e in range(raw.shape[0]):
            word, line = raw[e, at:end], out[e, at:end]
            which = _kind_of(kind, bits, gain_bit, word)
            if which == PLAIN:
                _plain_minus(word, t, line)
            elif which == JUNGFRAU:
                _jungfrau_minus(word, t, line)
            else:
                _switched_minus(word, t, np.int32(bits), np.int32(gain_bit), line)
        at = end


@njit()
def scale(
    kind: int, bits: int, gain_bit: int, bad: Real, raw: Raw, table: Planes, out: Planes, lo: int, hi: int
) -> None:
    """Multiply pixels [lo, hi) of every event by the factor of their range, in place."""
    half = table.shape[1] // 2
    at = lo
    while at < hi:
        end = _piece(at, hi, BLOCK if kind == PLAIN else PROBE)
        t = table[at // BLOCK, at % BLOCK :]
        for e in range(raw.shape[0]):
            word, line = raw[e, at:end], out[e, at:end]
            which = _kind_of(kind, bits, gain_bit, word)
            if which == PLAIN:
                _plain_times(t[half:], line)
            elif which == JUNGFRAU:
                _jungfrau_times(word, t, np.float32(bad), line)
            else:
                _switched_times(word, t, np.int32(gain_bit), line)
        at = end


@njit()
def _both(
    kind: int, bits: int, gain_bit: int, bad: Real, word: Raw, table: Planes, at: int, line: Planes
) -> None:
    """Subtract and multiply in one pass over the pixels from `at` on, all of one block."""
    t = table[at // BLOCK, at % BLOCK :]
    if kind == PLAIN:
        _plain_line(word, t, t[table.shape[1] // 2 :], line)
    elif kind == JUNGFRAU:
        _jungfrau_line(word, t, np.float32(bad), line)
    else:
        _switched_line(word, t, np.int32(bits), np.int32(gain_bit), line)


@njit()
def mark_used(
    kind: int, gain_bit: int, raw: Raw, use: NDArray[np.uint8], used: NDArray[np.uint8], lo: int
) -> None:
    """Write 1 where a pixel may enter the common mode: not masked, in a steady range.

    `raw` is one event, `use` holds one bit per plane; `used` starts at pixel `lo`.
    """
    switch = np.int32(gain_bit)
    part = raw[lo : lo + used.size]
    bits = use[lo : lo + used.size]
    if kind == PLAIN:
        for p in range(used.size):
            used[p] = bits[p] & 1
    elif kind == JUNGFRAU:
        for p in range(used.size):
            u = np.int32(bits[p])
            used[p] = _jungfrau_pick(np.int32(part[p]), u, u >> 1, u >> 2, 0) & 1
    else:
        for p in range(used.size):
            u = np.int32(bits[p])
            second = (np.int32(part[p]) & switch) != 0
            used[p] = (u >> 1 if second else u) & 1


@njit()
def _calibrate_frame(
    kind: int, bits: int, gain_bit: int, bad: Real, word: Raw, table: Planes, line: Planes
) -> None:
    """One frame: read only the first plane of constants where few pixels have switched."""
    for first in range(0, word.size, BLOCK):
        last = min(word.size, first + BLOCK)
        switched = 0
        for lo in range(first, last, PROBE):
            switched += _kind_of(kind, bits, gain_bit, word[lo : min(last, lo + PROBE)]) != PLAIN
        # planes read here and there are slower than planes read through
        step = BLOCK if switched * FEW * PROBE > last - first else PROBE
        for lo in range(first, last, step):
            hi = min(last, lo + step)
            which = kind if step == BLOCK else _kind_of(kind, bits, gain_bit, word[lo:hi])
            _both(which, bits, gain_bit, bad, word[lo:hi], table, lo, line[lo:hi])


@njit()
def calibrate(
    kind: int, bits: int, gain_bit: int, bad: Real, raw: Raw, table: Planes, out: Planes
) -> None:
    """Write ``(value - pedestal) * factor`` of all pixels of all events.

    Parameters
    ----------
    kind : int
        `KIND_NUMBER` of the decoding.
    bits, gain_bit : int
        Value bits and switch bit of the raw word.
    bad : float
        Factor of a word in no range (Jungfrau code 2): 0, or NaN.
    raw : ndarray, shape (event, pixel)
    table : ndarray of float32
        From `packed`.
    out : ndarray of float32, shape (event, pixel)
    """
    events, pixels = raw.shape
    if events == 1 and kind != PLAIN:
        _calibrate_frame(kind, bits, gain_bit, bad, raw[0], table, out[0])
        return
    for lo in range(0, pixels, BLOCK):
        hi = min(pixels, lo + BLOCK)
        paired = events - events % 2 if kind == JUNGFRAU else 0
        for e in range(0, paired, 2):
            _jungfrau_pair(raw[e, lo:hi], raw[e + 1, lo:hi], table[lo // BLOCK], np.float32(bad),
                           out[e, lo:hi], out[e + 1, lo:hi])
        for e in range(paired, events):
            _both(kind, bits, gain_bit, bad, raw[e, lo:hi], table, lo, out[e, lo:hi])


def assemble_asics(asics: NDArray[Any]) -> NDArray[Any]:
    """Return the panels of an ePix10ka from its ASICs, as the detector is mounted.

    Parameters
    ----------
    asics : ndarray, shape (..., 4, 176, 192)
        One array per ASIC.

    Returns
    -------
    ndarray, shape (..., 352, 384)
        Top: ASIC 2 and 1, both turned by 180 degrees; bottom: ASIC 3 and 0.
    """
    top = np.concatenate([asics[..., 2, ::-1, ::-1], asics[..., 1, ::-1, ::-1]], axis=-1)
    bottom = np.concatenate([asics[..., 3, :, :], asics[..., 0, :, :]], axis=-1)
    return np.concatenate([top, bottom], axis=-2)


def control_bits(pixel_config: NDArray[np.uint8], trbit: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the gain control bits of each ePix10ka pixel from its configuration.

    Parameters
    ----------
    pixel_config : ndarray of uint8, shape (panel, 4, 176, 192) or (panel, 352, 384)
        The ASICs' pixel configuration, or the panel as the LCLS-1 record has it.
    trbit : ndarray, shape (panel, 4)
        Trigger-level bit of each ASIC.

    Returns
    -------
    ndarray of uint8, shape (panel, 352, 384)
        Bits 2 and 3 of the configuration, and 16 where `trbit` is set.
    """
    config = np.asarray(pixel_config)
    panel = assemble_asics(config) if config.ndim == 4 else config
    rows, cols = panel.shape[-2:]
    levels = np.asarray(trbit)[..., :, None, None] * np.ones((rows // 2, cols // 2), np.uint8)
    return ((panel & 12) | np.where(assemble_asics(levels) != 0, 16, 0)).astype(np.uint8)


_FIXED = {3: (1, 0), 2: (2, 2)}
"""Of a configuration that fixes the range: which one with the trigger level low and high."""

_AUTO = ((4, 3), (6, 5))
"""Of one that switches: with the word's switch bit clear and set, with the trigger level low and high."""


def _range_of(switched: int, control: int) -> int:
    mode, high = control & 3, control >> 2
    return _AUTO[switched][high] if mode == 0 else _FIXED.get(mode, (-1, -1))[high]


_ALLOWED = np.array([[_range_of(s, control) for control in range(8)] for s in (0, 1)], np.int8)


def allowed_ranges(cbits: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return the gain ranges that each ePix10ka pixel can be in.

    Parameters
    ----------
    cbits : ndarray of uint8, shape (panel, row, col)
        From `control_bits`.

    Returns
    -------
    ndarray of int8, shape (2, panel, row, col)
        Range number (FH FM FL AHL-H AML-M AHL-L AML-L) with the word's switch bit clear and
        set; -1: the configuration is of no range.
    """
    return np.take(_ALLOWED, (cbits & 28) >> 2, axis=1)


def low_gain_factors(gain_maps: NDArray[Any], sections: int = 8, factor: float = 6.85) -> Planes:
    """Return the factor of each CSPAD pixel: 1 in high gain, `factor` in low gain.

    Parameters
    ----------
    gain_maps : ndarray of uint16, shape (quad, 185, 194)
        From the settings: bit ``2 * section + half`` is set where a pixel of that half of a 2x1
        section is in high gain.
    sections : int
        Sections of a quad: 8 of a CSPAD, 2 of a CSPAD2x2.
    factor : float
        psana's default.

    Returns
    -------
    ndarray of float32, shape (quad * sections, 185, 388)
    """
    maps = np.asarray(gain_maps)[:, None]
    bits = 2 * np.arange(sections)[:, None, None]
    halves = [maps >> (bits + half) & 1 for half in (0, 1)]
    high = np.concatenate(halves, axis=-1).reshape(-1, maps.shape[-2], 2 * maps.shape[-1])
    return np.where(high != 0, np.float32(1), np.float32(factor))


def gain_range(
    raw: NDArray[Any], decoding: Decoding, ranges: NDArray[np.int8] | None = None
) -> NDArray[np.int8]:
    """Return the gain range of each raw word.

    Parameters
    ----------
    raw : ndarray, shape (..., panel, row, col)
        Raw words.
    decoding : Decoding
        From the detector's row.
    ranges : ndarray of int8, shape (2, panel, row, col), optional
        From `allowed_ranges`; without it the switch bit is the range.

    Returns
    -------
    ndarray of int8, shape of `raw`
        Index of the first axis of the constants; -1: in no range (psana says 0).
    """
    if decoding.kind == "plain":
        return np.zeros(raw.shape, np.int8)
    if decoding.kind == "jungfrau":
        return np.array([0, 1, -1, 2], np.int8)[raw >> 14]
    switched = (raw & decoding.gain_bit) != 0
    if ranges is None:
        return switched.astype(np.int8)
    return np.where(switched, ranges[1], ranges[0])
