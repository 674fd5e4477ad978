"""Files of gigabytes, or of millions of small datagrams, for benchmarks.

A short run (the pool) is encoded once.  What lies between its Enable and its Disable is then
written again and again, with new time stamps only: event e holds the values of event
``e % pool`` of the pool's `Truth`.  The disk, not the simulation, sets the speed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from psana_dask.readers.xtc2_layout import TransitionId
from psana_dask.simulate.content import Content
from psana_dask.simulate.describe import Algorithm, Daq, Detector, Field, RunSpec, packed, unpacked
from psana_dask.simulate.repeated import Records
from psana_dask.simulate.runs import Files, files_of, writer_of
from psana_dask.simulate.truth import Truth
from psana_dask.simulate.values import event_number
from psana_dask.simulate.xtc import XtcWriter
from psana_dask.simulate.xtc2 import StreamWriter
from psana_dask.simulate.xtc_large import XtcTrack, fiducials_later

OPENING = (TransitionId.CONFIGURE, TransitionId.BEGIN_RUN, TransitionId.BEGIN_STEP, TransitionId.ENABLE)
CLOSING = (TransitionId.DISABLE, TransitionId.END_STEP, TransitionId.END_RUN, TransitionId.UNCONFIGURE)
SMD_OFFSET = 60  # of intOffset in a smalldata event of 76 bytes


@dataclass(frozen=True)
class LargeRun:
    """The known answers of a run that repeats a pool of events.

    Examples
    --------
    >>> large = simulate.write_large("big", gigabytes=10)  # doctest: +SKIP
    """

    pool: Truth
    events: int
    streams: dict[int, Path]

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.pool.folder

    @property
    def files(self) -> tuple[Path, ...]:
        """All data files."""
        return tuple(self.streams.values())

    @cached_property
    def timestamps(self) -> npt.NDArray[np.uint64]:
        """Time stamp word of each event."""
        cycle, place = np.divmod(np.arange(self.events), self.pool.spec.events)
        return packed(unpacked(self.pool.timestamps)[place] + cycle * period(self.pool.spec))

    @cached_property
    def times(self) -> npt.NDArray[np.datetime64]:
        """UTC time of each event."""
        return self.pool.spec.epoch + unpacked(self.timestamps).astype("timedelta64[ns]")

    @cached_property
    def fiducials(self) -> npt.NDArray[np.int64]:
        """LCLS-1: fiducial of each event."""
        cycle, place = np.divmod(np.arange(self.events), self.pool.spec.events)
        return fiducials_later(self.pool.fiducials[place], cycle * period(self.pool.spec))

    def value(self, detector: str, field: str, event: int, segment: int | None = None) -> object:
        """Return what was written, as `Truth.value` does."""
        return self.pool.value(detector, field, event % self.pool.spec.events, segment)


def period(spec: RunSpec) -> int:
    """Return the nanoseconds from one cycle through the pool to the next."""
    return round(spec.events * 1e9 / spec.rate)


def write_large(
    folder: str | PathLike[str],
    *,
    gigabytes: float = 1.0,
    shape: tuple[int, int, int] = (8, 512, 1024),
    streams: int = 1,
    pool: int = 8,
    **changes: object,
) -> LargeRun:
    """Write a run of frames of about `gigabytes` (1e9 bytes) in all.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    gigabytes : float
        Size of all data files together.
    shape : tuple of int
        (segment, row, col) of the detector `jungfrau`; uint16.
    streams : int
        Over how many streams the segments go (LCLS-1: the events are dealt).
    pool : int
        How many different events there are.
    **changes
        Other arguments of `RunSpec`.

    Examples
    --------
    >>> simulate.write_large("large", gigabytes=10)
    """
    segments, rows, cols = shape
    if changes.get("format") == "xtc":
        detector = Detector(name="jungfrau", kind="jungfrau", shape=shape)
    else:
        homes = tuple(segment * streams // segments for segment in range(segments))
        detector = Detector(
            name="jungfrau", kind="jungfrau", segments=segments, stream=homes, shape=(1, rows, cols)
        )
    given = {"events": pool, "detectors": (detector,), "slow_every": pool, "daq": Daq(streams=streams)}
    events = max(1, round(gigabytes * 1e9 / (2 * segments * rows * cols)))
    return repeat(RunSpec(**{**given, **changes}), folder, events)  # type: ignore[arg-type]


def write_many(
    folder: str | PathLike[str],
    *,
    events: int = 1_000_000,
    size: int = 1024,
    pool: int = 1024,
    **changes: object,
) -> LargeRun:
    """Write a run of many small datagrams in one stream.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    events : int
        How many.
    size : int
        Bytes of each datagram, at least 128: the detector `small` has `number` (uint32, the
        event's number in the pool), `value` (float64) and `data` (uint8, as long as it takes).
        LCLS-1: of the largest ones, at least 400; the detectors are `timing`, `ebeam` and `small`,
        a camera of 8 bits whose one row fills the rest.
    pool : int
        How many different events there are.
    **changes
        Other arguments of `RunSpec`.

    Examples
    --------
    >>> simulate.write_many("many", events=1_000_000, size=1024)
    """
    if changes.get("format") == "xtc":
        given = {"events": min(pool, events), "detectors": _small_xtc(size), "daq": Daq(index=False)}
        return repeat(RunSpec(**{**given, **changes}), folder, events)  # type: ignore[arg-type]
    around = 24 + 12 + 12 + 20 + 12 + 4 + 8  # headers, one shape, and the two numbers
    data = Field("data", "u1", (size - around,))
    fields = (Field("number", "u4", value=event_number), Field("value"), data)
    detector = Detector(name="small", algorithms=(Algorithm("raw", (1, 0, 0), fields),), det_type="small")
    given = {"events": min(pool, events), "detectors": (detector,), "slow_every": pool, "rate": 10_000.0}
    return repeat(RunSpec(**{**given, **changes}), folder, events)  # type: ignore[arg-type]


def _small_xtc(size: int) -> tuple[Detector, ...]:
    """Return detectors whose events take `size` bytes if all three event codes are there."""
    around = 40 + 3 * 20 + (20 + 4 + 3 * 12) + (20 + 164) + (20 + 16)
    return (
        Detector(name="timing", kind="timing"),
        Detector(name="ebeam", kind="ebeam"),
        Detector(name="small", kind="camera", shape=(1, size - around), dtype="u1"),
    )


def repeat(spec: RunSpec, folder: str | PathLike[str], events: int) -> LargeRun:
    """Write `spec` as a run of `events` events that repeats what `spec` describes.

    Raises
    ------
    ValueError
        If `spec` has several steps, parts, or 32-byte headers.

    Examples
    --------
    >>> simulate.repeat(spec, "large", events=1_000_000)
    """
    if len(spec.step_sizes) > 1 or spec.cuts or spec.old_header or spec.swapped:
        raise ValueError("a repeated run has one step, one part, order and 24-byte headers")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    content = Content(spec)
    bare = replace(spec, daq=replace(spec.daq, index=False))  # the index follows from the pool's
    files = {stream: files_of(place, bare, stream) for stream in spec.streams}
    for stream in spec.streams:
        _write_stream(content, files[stream], events)
    pool = Truth(spec, place, {}, {s: f.smd_file for s, f in files.items() if f.smd_file})
    return LargeRun(pool, events, {stream: one.files[0] for stream, one in files.items()})


def _write_stream(content: Content, files: Files, events: int) -> None:
    spec = content.spec
    with files:
        writer = writer_of(content, files)
        for entry in content.schedule:
            if entry.service in OPENING:
                writer.append(entry)
        track = XtcTrack(writer, period(spec)) if isinstance(writer, XtcWriter) else _Track(writer)
        for first in range(0, events, spec.events):
            later = first // spec.events * period(spec)
            track.append(later, min(spec.events, events - first))
        for entry in content.schedule:
            if entry.service in CLOSING:
                writer.append(replace(entry, timestamp=delayed(entry.timestamp, later)))
    if isinstance(track, XtcTrack):
        track.write_index()


def delayed(timestamp: int, nanoseconds: int) -> int:
    """Return a time stamp word that is `nanoseconds` later."""
    return int(packed(unpacked(np.uint64(timestamp)) + nanoseconds))


class _Track:
    """The repeated datagrams of one stream: their bytes, and where in them the stamps stand."""

    def __init__(self, writer: StreamWriter) -> None:
        self.files = writer.files
        entries = [entry for entry in writer.entries() if entry.service not in (*OPENING, *CLOSING)]
        payloads = [writer.payload(entry) for entry in entries]
        pieces = [writer.datagram(*pair) for pair in zip(entries, payloads, strict=True)]
        self.event = np.array([entry.event for entry in entries])
        self.times = unpacked([entry.timestamp for entry in entries])
        self.data = Records(pieces)
        self.smd = Records(
            [
                writer.smalldata(entry, payload, 0, len(piece))
                for entry, payload, piece in zip(entries, payloads, pieces, strict=True)
            ]
        )

    def append(self, later: int, events: int) -> None:
        """Write one cycle, or the first `events` of it, `later` nanoseconds after the pool's."""
        beyond = np.flatnonzero(self.event >= events)
        count = int(beyond[0]) if len(beyond) else len(self.event)
        stamps = packed(self.times + later)
        start = self.files.offset
        self.data.put(self.data.starts[:-1], stamps, "<u8")
        self.smd.put(self.smd.starts[:-1], stamps, "<u8")
        accepted = np.flatnonzero(self.event >= 0)
        self.smd.put(self.smd.starts[accepted] + SMD_OFFSET, start + self.data.starts[accepted], "<u8")
        self.files.write(self.data.first(count))
        self.files.write_smd(self.smd.first(count))
