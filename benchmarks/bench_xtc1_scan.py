"""The scan of LCLS-1 files beside bare reads of the same bytes.

    python benchmarks/bench_xtc1_scan.py [--rounds N] [--events N]

Two files: datagrams of 1 kB back to back, and large ones of which only the headers are read
("hops"; the file is sparse).  The bare read of the first is the whole file into one reused
buffer of 256 KiB; of the second, one ``pread`` of 128 bytes for each datagram, in compiled code.
Required: 5 M/s and 0.5 M/s on a quiet machine; the ratios hold on any.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from psana_dask.jit import array, int32, int64, njit, pread
from psana_dask.readers import xtc
from psana_dask.readers.state import WINDOW
from psana_dask.readers.xtc_layout import TransitionId, bld_source, detector_source
from psana_dask.readers.xtc_write import container, dgram, node
from psana_dask.sources import FileSource

CAMERA = detector_source("XppGon", 0, "Opal1000", 1)
EBEAM = bld_source("EBeam")


def event(frame, declared=0):
    """One event of a camera and an EBeam, the camera last; `declared` bytes of it are not written."""
    small = container(bytes(16), type_id=15, source=EBEAM)
    camera = bytearray(container(bytes(frame), type_id=2, source=CAMERA))
    camera[16:20] = (len(camera) + declared).to_bytes(4, "little")
    parts = bytearray(dgram(TransitionId.L1_ACCEPT, [node([small, bytes(camera)])], timestamp=1000 << 32))
    for at in (36, 56):
        extent = int.from_bytes(parts[at : at + 4], "little") + declared
        parts[at : at + 4] = extent.to_bytes(4, "little")
    return bytes(parts)


def events(one, count):
    """`count` events as rows of bytes, a millisecond apart."""
    rows = np.tile(np.frombuffer(one, np.uint8), (count, 1))
    number = np.arange(count)
    rows[:, 0:4] = (number % 1000 * 10**6).astype("<u4").view(np.uint8).reshape(count, 4)
    rows[:, 4:8] = (1000 + number // 1000).astype("<u4").view(np.uint8).reshape(count, 4)
    return rows


def write_small(path, count):
    events(event(876), count).tofile(path)


def write_large(path, count, frame):
    rows = events(event(0, frame), count)
    stride = rows.shape[1] + frame
    with open(path, "wb") as file:
        for number, row in enumerate(rows):
            file.seek(number * stride)
            file.write(row)
        file.truncate(count * stride)


@njit(int64(int32, array("i8"), array("u1", writable=True), int64))
def read_each(descriptor, offsets, buffer, size):
    total = 0
    for offset in offsets:
        total += pread(descriptor, buffer.ctypes, size, offset)
    return total


def compare(title, path, bare, rounds):
    source = FileSource(str(path))
    count = len(xtc.scan(source).dgrams)
    times = np.empty((rounds, 2))
    for row in times:
        for k, call in enumerate((bare, lambda: xtc.scan(source))):
            start = time.perf_counter()
            call()
            row[k] = time.perf_counter() - start
    rates = count / np.median(times, axis=0) / 1e6
    ratio = np.median(times[:, 0] / times[:, 1])
    print(f"{title:34} bare {rates[0]:6.2f} M/s   scan {rates[1]:6.2f} M/s   scan / bare {ratio:5.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.xtc"
        write_small(small, given.events)
        sequential = np.arange(0, small.stat().st_size, WINDOW)
        buffer = np.empty(WINDOW, np.uint8)
        with FileSource(str(small)).descriptor() as fd:
            compare(
                "datagrams of 1 kB", small, lambda: read_each(fd, sequential, buffer, WINDOW), given.rounds
            )
        for frame, count in ((400_000, given.events // 5), (16_777_216, given.events // 10)):
            large = Path(folder) / f"large{frame}.xtc"
            write_large(large, count, frame)
            places = xtc.scan(FileSource(str(large))).dgrams["offset"].copy()
            with FileSource(str(large)).descriptor() as fd:
                title = f"hops over {frame / 1e6:.1f} MB"
                compare(title, large, lambda: read_each(fd, places, buffer, 128), given.rounds)  # noqa: B023
            os.unlink(large)


if __name__ == "__main__":
    main()
