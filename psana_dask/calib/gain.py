"""Raw words to values: pedestal and gain of the range that each word is in (numba kernels).

Every kernel works on ``raw[event, pixel]`` and ``out[event, pixel]`` between two pixel
numbers and takes all planes of constants unconditionally: a blend of loaded values
vectorises, a load inside a condition does not (10.8 against 3.1 copies at 5 % switched
pixels).  For the same reason gain codes are tested as two booleans and every line function
takes its planes as separate arrays: LLVM vectorises these forms and not their short ones.
The fused and the stepwise line functions do the same float32 operations in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.detectors import Decoding
from psana_dask.jit import njit

PLAIN, JUNGFRAU, SWITCHED = 0, 1, 2
KIND_NUMBER = {"plain": PLAIN, "jungfrau": JUNGFRAU, "switched": SWITCHED}

TILE = 16384  # pixels taken through all events before moving on: the constants stay in L2
PROBE = 512  # pixels that a single frame tests for switched gains at once

Raw = NDArray[Any]
Planes = NDArray[np.float32]
Whole = int | np.integer[Any]
Real = float | np.floating[Any]


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
def _jungfrau_minus(word: Raw, p0: Planes, p1: Planes, p2: Planes, line: Planes) -> None:
    zero = np.float32(0)
    for p in range(line.size):
        w = np.int32(word[p])
        a, b, c = p0[p], p1[p], p2[p]
        one = (w & 0x4000) != 0
        two = (w & 0x8000) != 0
        ped = c if two else (b if one else a)
        none = two & (not one)
        line[p] = np.float32(w & 0x3FFF) - (zero if none else ped)


@njit()
def _jungfrau_times(
    word: Raw, f0: Planes, f1: Planes, f2: Planes, bad: Real, line: Planes
) -> None:
    for p in range(line.size):
        w = np.int32(word[p])
        x, y, z = f0[p], f1[p], f2[p]
        one = (w & 0x4000) != 0
        two = (w & 0x8000) != 0
        factor = z if two else (y if one else x)
        none = two & (not one)
        line[p] *= bad if none else factor


@njit()
def _jungfrau_line(
    word: Raw, p0: Planes, p1: Planes, p2: Planes, f0: Planes, f1: Planes, f2: Planes,
    bad: Real, line: Planes,
) -> None:
    zero = np.float32(0)
    for p in range(line.size):
        w = np.int32(word[p])
        a, b, c = p0[p], p1[p], p2[p]
        x, y, z = f0[p], f1[p], f2[p]
        one = (w & 0x4000) != 0
        two = (w & 0x8000) != 0
        ped = c if two else (b if one else a)
        factor = z if two else (y if one else x)
        none = two & (not one)
        factor = bad if none else factor
        ped = zero if none else ped
        line[p] = (np.float32(w & 0x3FFF) - ped) * factor


@njit()
def _switched_minus(
    word: Raw, p0: Planes, p1: Planes, keep: Whole, switch: Whole, line: Planes
) -> None:
    for p in range(line.size):
        w = np.int32(word[p])
        a, b = p0[p], p1[p]
        second = (w & switch) != 0
        line[p] = np.float32(w & keep) - (b if second else a)


@njit()
def _switched_times(word: Raw, f0: Planes, f1: Planes, switch: Whole, line: Planes) -> None:
    for p in range(line.size):
        x, y = f0[p], f1[p]
        second = (np.int32(word[p]) & switch) != 0
        line[p] *= y if second else x


@njit()
def _switched_line(
    word: Raw, p0: Planes, p1: Planes, f0: Planes, f1: Planes, keep: Whole, switch: Whole, line: Planes
) -> None:
    for p in range(line.size):
        w = np.int32(word[p])
        a, b, x, y = p0[p], p1[p], f0[p], f1[p]
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
def _minus(kind: int, bits: int, gain_bit: int, word: Raw, ped: Planes, lo: int, line: Planes) -> None:
    hi = lo + line.size
    if kind == PLAIN:
        _plain_minus(word, ped[0, lo:hi], line)
    elif kind == JUNGFRAU:
        _jungfrau_minus(word, ped[0, lo:hi], ped[1, lo:hi], ped[2, lo:hi], line)
    else:
        keep, switch = np.int32(bits), np.int32(gain_bit)
        _switched_minus(word, ped[0, lo:hi], ped[1, lo:hi], keep, switch, line)


@njit()
def _times(kind: int, gain_bit: int, bad: Real, word: Raw, factor: Planes, lo: int, line: Planes) -> None:
    hi = lo + line.size
    if kind == PLAIN:
        _plain_times(factor[0, lo:hi], line)
    elif kind == JUNGFRAU:
        none = np.float32(bad)
        _jungfrau_times(word, factor[0, lo:hi], factor[1, lo:hi], factor[2, lo:hi], none, line)
    else:
        _switched_times(word, factor[0, lo:hi], factor[1, lo:hi], np.int32(gain_bit), line)


@njit()
def subtract(
    kind: int, bits: int, gain_bit: int, raw: Raw, ped: Planes, out: Planes, lo: int, hi: int
) -> None:
    """Write ``value - pedestal`` of pixels [lo, hi) of every event."""
    step = max(1, hi - lo) if kind == PLAIN else PROBE
    for at in range(lo, hi, step):
        end = min(hi, at + step)
        for e in range(raw.shape[0]):
            word = raw[e, at:end]
            which = _kind_of(kind, bits, gain_bit, word)
            _minus(which, bits, gain_bit, word, ped, at, out[e, at:end])


@njit()
def scale(
    kind: int, bits: int, gain_bit: int, bad: Real, raw: Raw, factor: Planes, out: Planes, lo: int, hi: int
) -> None:
    """Multiply pixels [lo, hi) of every event by the factor of their range, in place."""
    step = max(1, hi - lo) if kind == PLAIN else PROBE
    for at in range(lo, hi, step):
        end = min(hi, at + step)
        for e in range(raw.shape[0]):
            word = raw[e, at:end]
            which = _kind_of(kind, bits, gain_bit, word)
            _times(which, gain_bit, bad, word, factor, at, out[e, at:end])


@njit()
def _both(
    kind: int, bits: int, gain_bit: int, bad: Real,
    raw: Raw, ped: Planes, factor: Planes, out: Planes, lo: int, hi: int,
) -> None:
    """Subtract and multiply in one pass over pixels [lo, hi) of every event."""
    for e in range(raw.shape[0]):
        word, line = raw[e, lo:hi], out[e, lo:hi]
        if kind == PLAIN:
            _plain_line(word, ped[0, lo:hi], factor[0, lo:hi], line)
        elif kind == JUNGFRAU:
            _jungfrau_line(word, ped[0, lo:hi], ped[1, lo:hi], ped[2, lo:hi], factor[0, lo:hi],
                           factor[1, lo:hi], factor[2, lo:hi], np.float32(bad), line)
        else:
            _switched_line(word, ped[0, lo:hi], ped[1, lo:hi], factor[0, lo:hi], factor[1, lo:hi],
                           np.int32(bits), np.int32(gain_bit), line)


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
            w = np.int32(part[p])
            u = np.int32(bits[p])
            one = (w & 0x4000) != 0
            two = (w & 0x8000) != 0
            kept = u >> 2 if two else (u >> 1 if one else u)
            none = two & (not one)
            used[p] = 0 if none else kept & 1
    else:
        for p in range(used.size):
            u = np.int32(bits[p])
            second = (np.int32(part[p]) & switch) != 0
            used[p] = (u >> 1 if second else u) & 1


@njit()
def _calibrate_frame(
    kind: int, bits: int, gain_bit: int, bad: Real,
    raw: Raw, ped: Planes, factor: Planes, out: Planes,
) -> None:
    """One frame: read only the first plane of constants where no pixel has switched."""
    pixels = raw.shape[1]
    for lo in range(0, pixels, PROBE):
        hi = min(pixels, lo + PROBE)
        which = _kind_of(kind, bits, gain_bit, raw[0, lo:hi])
        _both(which, bits, gain_bit, bad, raw, ped, factor, out, lo, hi)


@njit()
def calibrate(
    kind: int, bits: int, gain_bit: int, bad: Real,
    raw: Raw, ped: Planes, factor: Planes, out: Planes,
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
    ped, factor : ndarray of float32, shape (plane, pixel)
    out : ndarray of float32, shape (event, pixel)
    """
    pixels = raw.shape[1]
    if raw.shape[0] == 1 and kind != PLAIN:
        _calibrate_frame(kind, bits, gain_bit, bad, raw, ped, factor, out)
        return
    for lo in range(0, pixels, TILE):
        _both(kind, bits, gain_bit, bad, raw, ped, factor, out, lo, min(pixels, lo + TILE))


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
    panel = assemble_asics(config) if config.shape[-3:] == (4, 176, 192) else config
    levels = np.asarray(trbit)[..., :, None, None] * np.ones((176, 192), np.uint8)
    return ((panel & 12) | np.where(assemble_asics(levels) != 0, 16, 0)).astype(np.uint8)


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
    mode, high = cbits & 12, (cbits & 16) != 0
    fixed = np.select([mode == 12, mode == 8], [np.where(high, 0, 1), np.full(mode.shape, 2)], -1)
    auto = mode == 0
    return np.stack([
        np.where(auto, np.where(high, 3, 4), fixed),
        np.where(auto, np.where(high, 5, 6), fixed),
    ]).astype(np.int8)


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
