"""Calibration in copies of the detector's float32 frame (``np.copyto``), one thread.

    python benchmarks/bench_calib.py [--rounds 9] [--json]

Each case is timed side by side with the copy in every round, after one untimed call; the figure
is the median of the rounds' ratios.  Common-mode cases calibrate another event of the stack in
every call, so the data are never already corrected.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from copies import Case, arguments, measure, show

from psana_dask.calib import gain
from psana_dask.calib.apply import Tables, apply, prepare
from psana_dask.calib.detectors import detector

SHARES = (0.0, 0.001, 0.05, 0.3)  # of pixels in a switched gain range
FRAMES = 16


def jungfrau(share: float, panels: int = 8) -> tuple[np.ndarray, dict]:
    r = np.random.default_rng(1)
    shape = (panels, 512, 1024)
    peds = np.stack([r.normal(m, 100, shape) for m in (2900, 13500, 13800)]).astype(np.float32)
    gains = np.stack([r.normal(m, abs(m) * 0.03, shape) for m in (41.5, -1.44, -0.11)]).astype(np.float32)
    status = (r.random((3, *shape)) < 0.003).astype(np.uint64)
    raw = np.empty((FRAMES, *shape), np.uint16)
    for event in raw:
        noise = r.normal(0, 12, shape) + np.repeat(r.normal(0, 6, (panels, 512, 16)), 64, axis=2)
        code = np.where(r.random(shape) < share, r.choice(np.array([1, 3], np.uint16), shape), 0)
        level = np.choose(code >> (code == 3), [peds[0] + noise, peds[1] - 500, peds[2] - 500])
        event[:] = np.clip(level, 0, 16383).astype(np.uint16) | (code << 14).astype(np.uint16)
    return raw, {"pedestals": peds, "pixel_gain": gains, "pixel_status": status}


def cspad() -> tuple[np.ndarray, dict]:
    r = np.random.default_rng(2)
    shape = (32, 185, 388)
    peds = r.normal(1100, 40, shape).astype(np.float32)
    offsets = r.uniform(-18, 18, (FRAMES, 32, 1, 1))
    raw = np.clip(np.round(peds + offsets + r.normal(0, 5, (FRAMES, *shape))), 0, 16383).astype(np.int16)
    status = (r.random(shape) < 0.003).astype(np.uint16)
    return raw, {"pedestals": peds, "pixel_status": status, "pixel_gain": np.ones(shape, np.float32)}


def epix10ka(share: float) -> tuple[np.ndarray, dict, np.ndarray]:
    r = np.random.default_rng(3)
    shape = (16, 352, 384)
    levels = (3000, 3100, 3000, 3050, 3080, 5200, 5300)
    gains = (16.4, 5.466, 0.164, 16.4, 5.466, 0.164, 0.164)
    peds = np.stack([r.normal(v, 60, shape) for v in levels]).astype(np.float32)
    factor = np.stack([r.normal(v, v * 0.03, shape) for v in gains]).astype(np.float32)
    raw = np.clip(peds[3] + r.normal(0, 20, (FRAMES, *shape)), 0, 16383).astype(np.uint16)
    raw[r.random(raw.shape) < share] |= 1 << 14
    status = (r.random((7, *shape)) < 0.001).astype(np.uint64)
    cbits = np.full(shape, 16, np.uint8)  # auto ranging, high to low
    constants = {"pedestals": peds, "pixel_gain": factor, "pixel_status": status}
    return raw, constants, gain.allowed_ranges(cbits)


def one_by_one(raw: np.ndarray, tables: Tables, out: np.ndarray) -> Callable[[int], object]:
    scratch = tables.scratch()
    return lambda call: apply(raw[call % len(raw)], tables, out[call % len(raw)], scratch)


def jungfrau_cases() -> list[Case]:
    cases = []
    for share in SHARES:
        raw, constants = jungfrau(share)
        out = np.ones(raw.shape, np.float32)
        plain = prepare(constants, detector("Jungfrau"), common_mode=None)
        rows = prepare(constants, detector("Jungfrau"))
        label = f"Jungfrau 4M, {share:.1%} switched"
        cases += [
            Case(f"{label}, one frame", 1, 5, 1.4, one_by_one(raw, plain, out)),
            Case(f"{label}, stack of {FRAMES}", FRAMES, 2, 1.4,
                 lambda _, raw=raw, plain=plain, out=out: apply(raw, plain, out)),
            Case(f"{label}, common mode rows of 64", 1, 20, 8, one_by_one(raw, rows, out)),
        ]
        yield from cases
        cases = []


def all_cases():
    yield from jungfrau_cases()
    raw, constants = cspad()
    tables = prepare(constants, detector("Cspad"))
    yield Case("CSPAD, common mode 1", 1, 10, 5, one_by_one(raw, tables, np.ones(raw.shape, np.float32)))
    raw, constants, ranges = epix10ka(0.01)
    tables = prepare(constants, detector("Epix10ka2M"), ranges=ranges)
    out = np.ones(raw.shape, np.float32)
    yield Case("ePix10ka 2M, common mode columns", 1, 15, 8, one_by_one(raw, tables, out))


def frame_shape(name: str) -> tuple[int, ...]:
    return {"J": (8, 512, 1024), "C": (32, 185, 388), "e": (16, 352, 384)}[name[0]]


def main() -> None:
    given = arguments(__doc__)
    show((measure(case, frame_shape(case.name), given.rounds) for case in all_cases()), given.json)


if __name__ == "__main__":
    main()
