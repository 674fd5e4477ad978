"""A run described by values: detectors, streams, steps, slow data, and what is wrong with it.

Everything is a frozen dataclass with defaults, so a description names only what matters:
``RunSpec(detectors=(Detector(name="cam", kind="camera"),))`` is a whole run, and with
``format="xtc"`` the same one as LCLS-1 would have written it.  Nothing here knows a file format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from psana_dask.simulate.images import Scene
from psana_dask.simulate.values import noise

EPOCH_1990 = np.datetime64("1990-01-01T00:00:00", "ns")
EPOCH_1970 = np.datetime64("1970-01-01T00:00:00", "ns")

FIRST_RECORDER = 80
"""LCLS-1 streams from this number on are recorders of cameras."""

Value = object
"""A constant (number, text, array) or a function of `values.Moment`."""


@dataclass(frozen=True)
class Enum:
    """A named dictionary of integer codes.

    Examples
    --------
    >>> simulate.Enum("stateEnum", {"Off": 0, "On": 1})
    """

    name: str
    members: Mapping[str, int]


@dataclass(frozen=True)
class Choice:
    """A value of an `Enum`, for configurations.

    Examples
    --------
    >>> simulate.Choice(simulate.Enum("modeEnum", {"Off": 0, "On": 1}), 1)
    """

    enum: Enum
    value: int


@dataclass(frozen=True)
class Field:
    """One field of an algorithm.

    An axis of `shape` that is None varies from event to event, from 0 to `longest`.

    Examples
    --------
    >>> simulate.Field("energy", "f8", value=lambda moment: 9000.0 + moment.event)
    """

    name: str
    dtype: str = "f8"  # a numpy code, or "str", or "enum"
    shape: tuple[int | None, ...] = ()
    value: Value = noise
    enum: Enum | None = None  # for dtype "enum"
    longest: int = 40
    absent: tuple[int, ...] = ()  # entries of the first axis that are not read out: zeros


@dataclass(frozen=True)
class Algorithm:
    """The fields that one algorithm (`raw`, `fex`, ...) writes for each event.

    Examples
    --------
    >>> peaks = simulate.Field("peaks", "f4", (None,), longest=8)
    >>> simulate.Algorithm("fex", (1, 0, 0), (simulate.Field("ampl"), peaks))
    """

    name: str = "raw"
    version: tuple[int, int, int] = (2, 0, 0)
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Config:
    """A configuration object of each segment, and its updates.

    Names with dots nest (``expert.trbit``).  Values are numbers, text, arrays or `Choice`;
    a function of the segment gives each segment its own values.

    Examples
    --------
    >>> simulate.Config(values={"user.exposure": 5e-5, "expert.trbit": np.arange(4)})
    """

    values: Mapping[str, object] | Callable[[int], Mapping[str, object]]
    begin_run: Mapping[str, object] = field(default_factory=dict)
    begin_step: Callable[[int], Mapping[str, object]] | None = None  # by step, always the same names
    algorithm: str = "config"
    version: tuple[int, int, int] = (2, 0, 0)
    record: tuple[int, int] | None = None  # LCLS-1: type and version; default: the kind's

    def of_segment(self, segment: int) -> Mapping[str, object]:
        """Return the values in Configure."""
        return self.values(segment) if callable(self.values) else self.values

    def of_step(self, step: int) -> Mapping[str, object]:
        """Return the values that BeginStep updates."""
        return self.begin_step(step) if self.begin_step else {}


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector: its segments, where they are written, how often, and what they hold.

    Examples
    --------
    >>> simulate.Detector(name="epix", kind="epix10ka", segments=4, stream=(1, 1, 2, 2))
    """

    name: str
    kind: str = "camera"  # a row of kinds.KINDS; what is given below replaces what it says
    segments: int | tuple[int, ...] = 1  # how many, or their numbers
    stream: int | tuple[int, ...] = 0  # one for all, or one for each segment
    every: int = 1  # written in events offset, offset + every, ...
    offset: int = 0
    shape: tuple[int, ...] | None = None  # of a segment's frame
    dtype: str | None = None  # of the frame
    frame_field: str | None = None  # name of the frame
    algorithms: tuple[Algorithm, ...] | None = None
    config: Config | None = None
    det_type: str | None = None
    det_id: str | None = None
    scene: Scene = field(default_factory=Scene)
    source: str | None = None  # LCLS-1: address, as XppGon.0:Cspad.0 or EBeam
    record: tuple[int, int] | None = None  # LCLS-1: type and version of the data
    compression: Literal["hist16", "histn"] | None = None  # LCLS-1

    @property
    def segment_numbers(self) -> tuple[int, ...]:
        """The number of each segment."""
        return tuple(range(self.segments)) if isinstance(self.segments, int) else self.segments

    @property
    def segment_streams(self) -> dict[int, int]:
        """The stream of each segment, by its number."""
        numbers = self.segment_numbers
        streams = (self.stream,) * len(numbers) if isinstance(self.stream, int) else self.stream
        return dict(zip(numbers, streams, strict=True))


@dataclass(frozen=True)
class PV:
    """An EPICS variable; its value is a constant, or a function of the update's `Moment`.

    In that `Moment`, `event` is the number of the SlowUpdate.

    Examples
    --------
    >>> simulate.PV("temperature", lambda moment: 295 + moment.event, address="TST:TEMP", unit="K")
    """

    name: str
    value: Value = noise
    dtype: str = "f8"  # a numpy code, "str" or "enum"
    enum: Enum | None = None
    address: str = ""  # the full PV name, in `epicsinfo` (LCLS-1: then `name` is its description)
    shape: tuple[int, ...] = ()
    unit: str = ""  # LCLS-1
    alarm: Callable[[int], tuple[int, int]] | None = None  # LCLS-1: (status, severity) by update

    def as_field(self) -> Field:
        """Return the field that holds the value."""
        return Field(self.name, self.dtype, self.shape, self.value, self.enum)


@dataclass(frozen=True, kw_only=True)
class Epics:
    """EPICS variables that one stream writes into SlowUpdates.

    Examples
    --------
    >>> simulate.Epics(pvs=(simulate.PV("temperature", 295.0, address="TST:TEMP"),))
    """

    pvs: tuple[PV, ...]
    stream: int = 0
    every: int = 1  # in SlowUpdates
    offset: int = 0
    segment: int = 0
    info: bool = True  # write `epicsinfo` into Configure


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What BeginStep says: motors (one value for each step), `step_value`, `step_docstring`.

    The dtype of a motor's array is the one on disk.

    Examples
    --------
    >>> simulate.Scan(motors={"delay": np.linspace(-1, 1, 3)})
    """

    motors: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    step_value: npt.ArrayLike | None = None  # float64; default 0, 1, 2, ...
    docstring: bool = True
    detname: str = "scan"  # in the docstring
    scantype: str = "scan"  # "pedestal": a dark run
    stream: int = 0
    monitors: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # LCLS-1: between low and high
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)  # LCLS-1: text of each step


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Pieces that were not written in `events`.

    A stream: it has no datagram.  A detector, or one segment of it: its block is not in
    the datagram.

    Examples
    --------
    >>> simulate.Missing(events=(7, 8), detector="epix", segment=2)
    """

    events: tuple[int, ...]
    detector: str | None = None
    segment: int | None = None
    stream: int | None = None


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A damage word in `events`: of a stream's datagram, or of a detector's blocks.

    Without `payload` the datagram (or block) has no content.

    Examples
    --------
    >>> simulate.Damage(events=(5,), detector="epixquad", segment=1)
    """

    events: tuple[int, ...]
    word: int = 1 << 5
    detector: str | None = None
    segment: int | None = None
    stream: int | None = None
    payload: bool = True


@dataclass(frozen=True, kw_only=True)
class Daq:
    """What only LCLS-1 runs have: how the DAQ deals events over streams, counts and sorts them out.

    Examples
    --------
    >>> simulate.Daq(streams=2, first_fiducial=131_000, trimmed=(9,))
    """

    streams: int = 1  # DAQ streams 0, 1, ...; each event goes to one of them
    dealt: tuple[int, ...] | None = None  # the stream of each event; default: in turn
    first_fiducial: int = 10_000  # of event 0; the others follow from their times
    fiducials: npt.ArrayLike | None = None  # or the fiducial of each event
    recorder_clock: float = 0.004  # seconds by which the clocks of recorders (streams >= 80) are late
    trimmed: tuple[int, ...] = ()  # events that level 3 threw away
    aliases: bool = True  # names of detectors go into AliasConfig
    index: bool = True  # write .idx files
    prefix: str = ""  # of file names, as e665; default: the experiment
    mapped: bool = False  # a Map transition comes first


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A whole run.  Events are numbered from 0 in the order of writing.

    Examples
    --------
    >>> simulate.RunSpec(events=100, detectors=(simulate.Detector(name="cam", shape=(8, 12)),))
    """

    format: Literal["xtc2", "xtc"] = "xtc2"  # LCLS-II or LCLS-1
    experiment: str = "tstx00117"
    number: int = 1
    events: int = 120
    rate: float = 120.0  # Hz
    start: str = "2024-06-14T06:12:03"  # UTC time of event 0
    timestamps: npt.ArrayLike | None = None  # seconds since `epoch` << 32 | ns, instead of rate and start
    detectors: tuple[Detector, ...] = (Detector(name="camera"),)
    epics: tuple[Epics, ...] = ()
    slow_every: int = 60  # events between SlowUpdates
    slow_offset: int = 0  # event before which the first SlowUpdate comes
    steps: int | tuple[int, ...] = 1  # how many equal ones, or the events of each
    scan: Scan | None = None
    event_codes: Mapping[int, int] = field(default_factory=lambda: {40: 1, 90: 2, 162: 10})  # code: every
    seed: int = 0

    missing: tuple[Missing, ...] = ()
    damage: tuple[Damage, ...] = ()
    swapped: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    # by stream: pairs of events of one step whose datagrams change places in that stream's file

    configure: bool = True  # False: goes on under the Configure of the run before it in the file
    begin_run: bool = True
    end_run: bool = True
    end_run_values: Mapping[str, object] = field(default_factory=dict)  # the DAQ can put sums there
    finished: bool = True  # False: nothing after the last event, as in a run still being written

    cuts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # by stream: events that start a part
    part_names: Mapping[tuple[int, int], str] = field(default_factory=dict)  # by (stream, part): file name
    naming: Literal["s000-c000", "s00-c00", "s00"] = "s000-c000"  # "s00": the first part has no -c
    in_progress: bool = False  # file names end with .inprogress
    renames: bool = False  # they do while the files are written, and lose it when they are closed
    smalldata: Literal["offline", "daq"] | None = "offline"  # NamesId of the offsets; None: no such files
    old_header: bool = False  # 32-byte datagram headers, 2019 and before
    data_first: bool = False  # Data before Shapes
    shapes_tail: int = 0  # bytes after the shapes; 4 in files by BlockDgram
    nested: bool = False  # blocks lie in one more Parent
    partial_tail: Mapping[int, int] = field(default_factory=dict)  # by stream: bytes of one more datagram
    daq: Daq = field(default_factory=Daq)  # LCLS-1

    @property
    def epoch(self) -> np.datetime64:
        """Where the seconds of time stamp words start: 1990 (LCLS-II) or 1970 (LCLS-1)."""
        return EPOCH_1990 if self.format == "xtc2" else EPOCH_1970

    @property
    def step_sizes(self) -> tuple[int, ...]:
        """How many events each step has."""
        if isinstance(self.steps, tuple):
            return self.steps
        edges = np.linspace(0, self.events, self.steps + 1).astype(int)
        return tuple(np.diff(edges).tolist())

    @property
    def streams(self) -> tuple[int, ...]:
        """The numbers of all streams."""
        found = {s for d in self.detectors for s in d.segment_streams.values()}
        found |= {e.stream for e in self.epics}
        if self.format == "xtc":
            return (*range(self.daq.streams), *sorted(s for s in found if s >= FIRST_RECORDER))
        return tuple(sorted(found | ({self.scan.stream} if self.scan else set()))) or (0,)

    def stamps(self) -> npt.NDArray[np.uint64]:
        """Return the time stamp of each event: seconds since `epoch` << 32 | nanoseconds."""
        if self.timestamps is not None:
            return np.asarray(self.timestamps, np.uint64)
        first = int((np.datetime64(self.start, "ns") - self.epoch).astype(np.int64))
        ticks = np.rint(np.arange(self.events) * (1e9 / self.rate)).astype(np.int64)
        return packed(first + ticks)

    def __post_init__(self) -> None:
        if sum(self.step_sizes) != self.events:
            raise ValueError(f"steps {self.step_sizes} hold {sum(self.step_sizes)} events of {self.events}")
        if self.timestamps is not None and len(self.stamps()) != self.events:
            raise ValueError(f"{len(self.stamps())} timestamps for {self.events} events")
        if self.format == "xtc":
            self._refuse_what_only_xtc2_has()

    def _refuse_what_only_xtc2_has(self) -> None:
        given = [f.name for f in fields(self) if f.name in _ONLY_XTC2 and getattr(self, f.name) != f.default]
        if given or self.end_run_values or self.part_names or self.smalldata == "daq":
            what = ", ".join(given) or "end_run_values, part_names or daq smalldata"
            raise ValueError(f"LCLS-1 runs have no {what}")


_ONLY_XTC2 = {"configure", "naming", "old_header", "data_first", "shapes_tail", "nested"}


def packed(nanoseconds: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Turn nanoseconds since the epoch into time stamp words."""
    seconds, rest = np.divmod(nanoseconds, 1_000_000_000)
    return seconds.astype(np.uint64) << np.uint64(32) | rest.astype(np.uint64)


def unpacked(words: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Turn time stamp words into nanoseconds since the epoch."""
    array = np.asarray(words, np.uint64)
    seconds = (array >> np.uint64(32)).astype(np.int64)
    return seconds * 1_000_000_000 + (array & np.uint64(0xFFFFFFFF)).astype(np.int64)
