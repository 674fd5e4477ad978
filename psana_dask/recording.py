"""A run as the bytes tower has it: indexes of its streams, and the table of its events.

`open_recording` is the door; the same recording is opened once per process, also by
workers that got no more than its files and its token.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from psana_dask import align, align_xtc, exported
from psana_dask.align import select_events
from psana_dask.blocks import StreamBlocks, decode_dgram
from psana_dask.columns import load_columns, save_columns
from psana_dask.errors import AmbiguousRun, FormatError, ReadError, RunNotFound, TruncatedError, UnknownFormat
from psana_dask.files import RunFiles, StreamFiles, is_export
from psana_dask.index import INDEX_VERSION, file_mark, format_of, stream_index
from psana_dask.model import Array, EventTable, Problem, Progress, Service, StreamIndex
from psana_dask.options import current
from psana_dask.payload_blocks import PayloadBlocks
from psana_dask.sources import POOL, FileSource


@dataclass(frozen=True)
class Recording:
    """Indexes and events of one run.

    Parameters
    ----------
    files : RunFiles
    streams : tuple of StreamIndex
    runs : tuple of (tuple of int or None)
        For each stream, which of the runs in it belong here; None for all.
    events : EventTable
    experiment : str, optional
    number : int, optional
    problems : tuple of Problem
    token : str
        Changes whenever the files do.
    inodes : tuple of int
        Of the files: others mean that files were replaced.
    live : bool
        The files still grow: this is what was complete at one moment, and it travels by value.
    kept : optional
        What must live as long as this recording, such as memory that its files stand for.
    origin : str
        Format of the run that an export was made from.
    """

    files: RunFiles
    streams: tuple[StreamIndex, ...]
    runs: tuple[tuple[int, ...] | None, ...]
    events: EventTable = field(repr=False)
    experiment: str | None
    number: int | None
    problems: tuple[Problem, ...] = field(repr=False)
    token: str
    inodes: tuple[int, ...] = ()
    live: bool = False
    kept: Any = field(default=None, repr=False, compare=False)
    origin: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        if self.live:
            values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "kept"}
            return _revived, (values,)
        # by reference: the index is on disk, or is made again where it cannot be seen
        return open_recording, (self.files, self.token)

    @property
    def format(self) -> str:
        """``"xtc2"`` (LCLS-II), ``"xtc"`` (LCLS-1) or ``"export"``."""
        return self.streams[0].format

    @property
    def data_format(self) -> str:
        """The format in which the data were taken: ``"xtc2"`` or ``"xtc"``, also of an export."""
        return self.origin or self.format

    @cached_property
    def blocks(self) -> tuple[Any, ...]:
        """Look-up of blocks, one per stream: `StreamBlocks` (xtc2) or `PayloadBlocks` (xtc)."""
        return tuple(FORMATS[self.format].blocks(index) for index in self.streams)

    @cached_property
    def facts(self) -> Mapping[str, Array]:
        """What the datagrams say of each event, by name; see `align_xtc.event_facts`."""
        return FORMATS[self.format].facts(self.streams, self.events)

    @property
    def splits_events(self) -> bool:
        """Whether streams hold different events of the same detectors, not different detectors."""
        return FORMATS[self.format].splits_events

    @cached_property
    def aliases(self) -> Mapping[str, str]:
        """The DAQ's own names of detectors, from all streams."""
        return {source: name for s in reversed(self.streams) for source, name in s.aliases.items()}

    @cached_property
    def wanted(self) -> tuple[int, ...]:
        """Positions of the streams that are to be read."""
        only = self.files.only
        return tuple(k for k, s in enumerate(self.streams) if only is None or s.stream in only)

    def transitions(self, position: int, service: Service) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the rows of one kind of transition of this run in a stream."""
        index, runs = self.streams[position], self.runs[position]
        mine = index["service"] == service
        if runs is not None and service != Service.CONFIGURE:
            mine &= np.isin(index["run"], runs)
        return np.flatnonzero(mine)


# ---- what differs between the formats -----------------------------------------------------------
@dataclass(frozen=True)
class Format:
    """What a recording needs to know of a file format.

    Parameters
    ----------
    blocks : type
        Looks up the blocks of a stream.
    events : callable
        Builds the table of events from streams, their runs, and their files.
    begin_runs : callable
        Gives (experiment, run number) of each run of a stream whose BeginRun says them.
    facts : callable
        Gives what the datagrams say of each event.
    splits_events : bool
        Whether streams hold different events of the same detectors, not different detectors.
    """

    blocks: type
    events: Callable[..., EventTable]
    begin_runs: Callable[[StreamIndex], dict[int, tuple[str, int]]]
    facts: Callable[[Sequence[StreamIndex], EventTable], Mapping[str, Array]]
    splits_events: bool


def _begin_runs(index: StreamIndex) -> dict[int, tuple[str, int]]:
    """Return (experiment, run number) of each run of an XTC2 stream whose BeginRun says them."""
    said = {}
    for row in np.flatnonzero(index["service"] == Service.BEGIN_RUN):
        for names, values in decode_dgram(index, int(row)):
            if names.detector == "runinfo" and values.get("runnum"):
                said[int(index["run"][row])] = (str(values.get("expt", "")), int(values["runnum"]))
    return said


def _no_facts(streams: Sequence[StreamIndex], events: EventTable) -> Mapping[str, Array]:
    return {}


def _export_facts(streams: Sequence[StreamIndex], events: EventTable) -> Mapping[str, Array]:
    del events
    path = streams[0].parts[0]
    return exported.facts_of(exported.open_store(path, tuple(file_mark(path))))


def _no_events(*streams: Any) -> Any:
    raise TypeError("an export has its events ready")


FORMATS: Mapping[str, Format] = {
    "xtc2": Format(StreamBlocks, align.build_run, _begin_runs, _no_facts, False),
    "xtc": Format(PayloadBlocks, align_xtc.build_events, align_xtc.begin_runs, align_xtc.event_facts, True),
    "export": Format(StreamBlocks, _no_events, _no_events, _export_facts, False),
}


# ---- opening, once per process ------------------------------------------------------------------
_opened: OrderedDict[tuple[RunFiles, str], Recording] = OrderedDict()
_lock = threading.RLock()
_MOST_OPEN = 16
_live: WeakValueDictionary[tuple[RunFiles, str], Recording] = WeakValueDictionary()
INDEX_THREADS = 8
"""Streams indexed at once: a scan of large events waits for the disk most of the time."""


def adopt(recording: Recording) -> Recording:
    """Make a live recording known in this process, as long as anybody holds it."""
    _live[recording.files, recording.token] = recording
    return recording


def _revived(values: Mapping[str, Any]) -> Recording:
    known = _live.get((values["files"], values["token"]))
    return known or adopt(Recording(**values))


def open_recording(
    files: RunFiles, token: str | None = None, *, live: bool = False, progress: Progress | None = None
) -> Recording:
    """Return the recording of `files`, opened anew if they changed.

    Parameters
    ----------
    files : RunFiles
    token : str, optional
        Of the recording that a result belongs to: another one is refused.

    Raises
    ------
    ReadError
        The files changed since `token`.
    RunNotFound, AmbiguousRun, UnknownFormat
        See `psana_dask.open`.
    """
    if token is not None and (files, token) in _live:
        return _live[files, token]
    with _lock:
        wanted = (files, token or _token(files))
        if wanted in _opened and not live:
            _opened.move_to_end(wanted)
            if token is None:
                _expect(files, _inodes(files))  # a copy of equal size and time may be there now
            return _opened[wanted]
        recording = _open(files, live, progress)
        if token is not None and recording.token != token:
            raise ReadError(f"{files.paths[0]} changed since the run was opened: open it again")
        _opened[files, recording.token] = recording
        _forget_older(files, recording)
        while len(_opened) > _MOST_OPEN:
            _opened.popitem(last=False)
        return recording


def _forget_older(files: RunFiles, newest: Recording) -> None:
    """Forget what else is open of these files, but the one before `newest` where they only grew."""
    older = [key for key in _opened if key[0] == files and key[1] != newest.token]
    for key in older:
        if key is not older[-1] or not _only_grew(_opened[key], newest):
            del _opened[key]


def _only_grew(before: Recording, now: Recording) -> bool:
    """Tell whether an earlier recording still fits the files: the same ones, with more at their ends."""
    same = before.inodes == now.inodes and len(before.streams) == len(now.streams)
    return same and all(
        np.array_equal(old[name], new[name][: len(old)])
        for old, new in zip(before.streams, now.streams, strict=True)
        for name in ("part", "offset", "size", "timestamp")
    )


def forget_all() -> None:
    """Forget what this process has open: the next opening looks at the files again."""
    with _lock:
        _opened.clear()


def _token(files: RunFiles) -> str:
    """Return a hash of the files as they are now."""
    marks = [[path, *file_mark(path)[:2]] for path in files.paths]
    text = json.dumps([INDEX_VERSION, files.wanted, files.only, marks])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _open(files: RunFiles, live: bool, progress: Progress | None) -> Recording:
    token = _token(files)
    if is_export(files.paths[0]):
        return _open_export(files, token)
    inodes = _inodes(files)
    for path in files.paths:
        POOL.forget(path)  # another file may have taken its place
    streams, problems = _indexes(files, live, progress)
    _expect(files, inodes)
    runs, experiment, number = choose_runs(files, streams)
    problems += _contradictions(streams, number)
    events = _events(files, streams, runs, token if files.cache and not live else None)
    found = [p for s in streams for p in s.problems] + list(events.problems) + problems
    return Recording(
        files, tuple(streams), tuple(runs), events, experiment, number, tuple(found), token, inodes
    )


def _open_export(files: RunFiles, token: str) -> Recording:
    store = exported.open_store(files.paths[0], tuple(file_mark(files.paths[0])))
    streams, events = exported.streams_of(store), exported.events_of(store)
    number = int(store.attrs["run"])
    if files.wanted not in (None, number):
        raise RunNotFound(f"no run {files.wanted} in {store.path}; it is of run {number}")
    return Recording(
        files, streams, (None,) * len(streams), events, str(store.attrs["experiment"]) or None,
        None if number < 0 else number, exported.problems_of(store), token, _inodes(files),
        origin=str(store.attrs["format"]),
    )  # fmt: skip


def _inodes(files: RunFiles) -> tuple[int, ...]:
    return tuple(file_mark(path)[2] for path in files.paths)


def _expect(files: RunFiles, inodes: tuple[int, ...]) -> None:
    """From now on read only these files, not others that take their places."""
    for path, inode in zip(files.paths, inodes, strict=True):
        POOL.expect(path, inode)


def _indexes(
    files: RunFiles, live: bool, progress: Progress | None
) -> tuple[list[StreamIndex], list[Problem]]:
    """Index every stream; a stream that cannot be indexed is a problem, unless all are so."""
    _compile(files)

    def one(stream: StreamFiles) -> StreamIndex | FormatError | UnknownFormat:
        try:
            return stream_index(stream, cache=files.cache, live=live, progress=progress)
        except (FormatError, UnknownFormat) as error:
            return error

    if len(files.streams) == 1:  # a thread for it alone costs a millisecond
        found = [one(files.streams[0])]
    else:
        with ThreadPoolExecutor(min(INDEX_THREADS, len(files.streams))) as pool:
            found = list(pool.map(one, files.streams))
    streams = [f for f in found if isinstance(f, StreamIndex)]
    errors = [(s, f) for s, f in zip(files.streams, found, strict=True) if not isinstance(f, StreamIndex)]
    if not streams:
        raise errors[0][1]
    if live:  # a stream that has not begun is no problem
        errors = [(s, error) for s, error in errors if not isinstance(error, TruncatedError)]
    problems = [Problem(s.parts[0], 0, -1, str(error)) for s, error in errors]
    form = streams[0].format
    what = f"a stream of format {{}} in a run of format {form}: it is left out"
    problems += [Problem(s.parts[0], 0, -1, what.format(s.format)) for s in streams if s.format != form]
    return [s for s in streams if s.format == form], problems


def _compile(files: RunFiles) -> None:
    """Load the compiled scan that the files need, once, before several threads want it."""
    try:
        form = format_of(FileSource(files.paths[0]))
    except (FormatError, UnknownFormat, ReadError):
        return
    import_module(f"psana_dask.readers.{form}_scan")


# ---- which run ----------------------------------------------------------------------------------
def choose_runs(
    files: RunFiles, streams: Sequence[StreamIndex]
) -> tuple[list[tuple[int, ...] | None], str | None, int | None]:
    """Return for each stream which of its runs are meant, the experiment and the run number.

    The BeginRun says the number; where it does not, the name of the file does.
    """
    said = _trusted([FORMATS[s.format].begin_runs(s) for s in streams], files.number)
    numbers = sorted({number for stream in said for _, number in stream.values()})
    experiment = next((name for stream in said for name, _ in stream.values() if name), files.experiment)
    if files.wanted is None and len(numbers) > 1:
        listed = ", ".join(map(str, numbers))
        raise AmbiguousRun(f"{files.paths[0]} holds runs {listed}: say run=NUMBER, or use open_runs()")
    number = files.wanted if files.wanted is not None else (numbers[0] if numbers else files.number)
    if numbers and number not in numbers:
        there = ", ".join(map(str, numbers))
        raise RunNotFound(f"no run {number} in {files.paths[0]}; its runs are {there}")
    if len(numbers) < 2:
        return [None] * len(streams), experiment, number
    chosen = [tuple(k for k, (_, n) in stream.items() if n == number) for stream in said]
    return [runs if stream else None for runs, stream in zip(chosen, said, strict=True)], experiment, number


BeginRuns = dict[int, tuple[str, int]]


def _trusted(said: list[BeginRuns], number: int | None) -> list[BeginRuns]:
    """Leave out the only BeginRun of a stream if it contradicts the file names and another stream."""
    numbers = [[n for _, n in stream.values()] for stream in said]
    if [number] not in numbers or any(len(own) > 1 for own in numbers):
        return said
    return [stream if own == [number] else {} for stream, own in zip(said, numbers, strict=True)]


def _contradictions(streams: Sequence[StreamIndex], number: int | None) -> list[Problem]:
    """Return a problem for each stream whose only BeginRun says another run number."""
    problems = []
    for stream in streams:
        said = list(FORMATS[stream.format].begin_runs(stream).values())
        if len(said) == 1 and said[0][1] != number:
            row = int(np.flatnonzero(stream["service"] == Service.BEGIN_RUN)[0])
            path, offset = stream.parts[int(stream["part"][row])], int(stream["offset"][row])
            what = f"BeginRun says run {said[0][1]}; the other streams and the file names say {number}"
            problems.append(Problem(path, offset, int(stream["timestamp"][row]), what))
    return problems


def run_numbers(files: RunFiles) -> list[int]:
    """Return the numbers of all runs in the files, sorted; what the file names say if none is written."""
    streams, _ = _indexes(files, live=False, progress=None)
    numbers = {n for s in streams for _, n in FORMATS[s.format].begin_runs(s).values()}
    return sorted(numbers) or ([] if files.number is None else [files.number])


# ---- events, kept on disk -----------------------------------------------------------------------
def _events(
    files: RunFiles, streams: Sequence[StreamIndex], runs: Sequence[tuple[int, ...] | None], token: str | None
) -> EventTable:
    path = current().cache_folder() / "events" / str(token)
    kept = _load_events(path, len(streams)) if token is not None else None
    if kept is not None:
        return kept
    table = FORMATS[streams[0].format].events(streams, runs, [s.parts[0] for s in streams])
    if files.only is not None:
        wanted = [k for k, s in enumerate(streams) if s.stream in files.only]
        table = select_events(table, np.logical_or.reduce(table.rows[wanted] >= 0, axis=0))
    if token is not None and len(table) > 1000:  # smaller ones are built faster than opened
        columns = table.arrays() | {"rows": table.rows.reshape(-1)}
        save_columns(path, columns, {"problems": [list(p) for p in table.problems]})
    return table


def _load_events(path: Path, streams: int) -> EventTable | None:
    kept = load_columns(path)
    if kept is None:
        return None
    columns, about = kept
    rows = columns.pop("rows").reshape(streams, -1)
    return EventTable(rows=rows, problems=tuple(Problem(*p) for p in about["problems"]), **columns)
