"""What is particular to the index of an LCLS-1 stream: its states of configuration, ``.idx`` and small data.

Files beside the data are never needed and never believed: where the scan meets a corrupt datagram it tries
the offsets that they name (the header there decides), and an event that they list and the scan did
not find is a problem.  The ``.idx`` file is asked first, the small-data file where that is absent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError, PsanaError, TruncatedError
from psana_dask.files import FILE_NAME, StreamFiles
from psana_dask.model import Array, Names, Problem, Progress, Service, StreamIndex
from psana_dask.payload_blocks import PayloadBlocks
from psana_dask.readers import xtc
from psana_dask.readers.xtc_index_files import (
    ID_ORIGINAL,
    ORIGINAL,
    idx_file_of,
    read_idx,
    read_small_data,
    small_data_rows,
)
from psana_dask.readers.xtc_layout import NO_FIDUCIAL, Level
from psana_dask.readers.xtc_rows import Rows
from psana_dask.sources import POOL, FileSource, Source

recognise = xtc.recognise

MOST_PROBLEMS = 1000


class StreamScan:
    """A scan of one LCLS-1 stream.

    Parameters
    ----------
    files : StreamFiles
    before : StreamIndex, optional
        What was indexed already; files only grew since then.
    live : bool
        Files may still grow.
    progress : callable, optional
    """

    def __init__(
        self, files: StreamFiles, before: StreamIndex | None, *, live: bool, progress: Progress | None
    ) -> None:
        self._stream, self._live = files.stream, live
        self._rows = Rows(None if before is None else before.columns, live=live, progress=progress)
        self._problems = [] if before is None else list(before.problems)
        self._listings: dict[int, Listing] = {}

    def scan(self, source: Source, part: int, start: int) -> int:
        """Scan a part from byte `start`; return the first byte that belongs to no whole datagram."""
        if self._live:  # files beside the data are behind, or ahead of it
            return self._rows.scan(source, part, start, np.zeros(0, np.int64))
        listing = self._listings[part] = read_listing(source.name)
        return self._rows.scan(source, part, start, np.sort(listing.offset))

    def next_parts(self, parts: list[str]) -> list[str]:
        """Return nothing: LCLS-1 parts do not announce each other."""
        return []

    def index(self, parts: tuple[str, ...]) -> StreamIndex:
        """Return the index of all that was scanned, with its problems.

        Raises
        ------
        TruncatedError
            Nothing was found.
        """
        problems = self._problems + self._rows.problems
        if not len(self._rows):
            first = problems[0] if problems else Problem(parts[0], 0, -1, "no datagram")
            raise TruncatedError(first.what, first.file, first.offset)
        columns = self._rows.columns()
        index = StreamIndex(self._stream, parts, (), columns, (), "xtc")
        columns["config"], doubtful = states(index)
        problems += doubtful
        described = described_index(index)
        for part, listing in self._listings.items():
            problems += [*listing.problems, *listing.missing_from(index, part)]
        problems += [] if self._live else absent_parts(parts)
        return replace(described, problems=(*problems, *described.problems))


# ---- configurations -----------------------------------------------------------------------------
def states(index: StreamIndex) -> tuple[npt.NDArray[np.int16], list[Problem]]:
    """Return the state of configuration of each datagram, how often settings changed before it; and problems.

    Every Configure is a change, a BeginCalibCycle only where it carries other settings than
    those in force (what the run control says of the step does not count).
    """
    blocks = PayloadBlocks(index)
    changes = np.zeros(len(index), np.int64)
    in_force: dict[int, bytes] = {}
    problems = []
    for row in np.flatnonzero(np.isin(index["service"], (Service.CONFIGURE, Service.BEGIN_STEP))).tolist():
        found = dict(_settings(blocks, row))
        configure = index["service"][row] == Service.CONFIGURE
        if configure and in_force and not found:  # a damaged header, as a rule
            what = "a Configure without settings: those before it stay"
            path = index.parts[index["part"][row]]
            problems.append(Problem(path, int(index["offset"][row]), int(index["timestamp"][row]), what))
        elif configure:
            changes[row], in_force = 1, found
        elif any(in_force.get(key) != payload for key, payload in found.items()):
            changes[row] = 1
            in_force |= found
    return np.cumsum(changes).astype(np.int16), problems


def _settings(blocks: PayloadBlocks, row: int) -> Iterator[tuple[int, bytes]]:
    """Yield (key, payload) of the settings that a transition carries."""
    from psana_dask.readers.tables import is_config

    for block in blocks.blocks_of(row).tolist():
        key = int(blocks.index["key"][block])
        type_id = int(blocks.index["kind_contains"][key]) & 0xFFFF
        if is_config(type_id) and type_id != RUN_CONTROL:
            yield key, blocks.payload(row, block).tobytes()


RUN_CONTROL = 10
"""Type of what the run control says of a step: scan variables and labels."""


def described_index(index: StreamIndex) -> StreamIndex:
    """Return an index with the names of its kinds in each state, its aliases, and what is wrong with them."""
    from psana_dask.readers.xtc_config import aliases

    blocks = PayloadBlocks(index)
    row_of, block_of = _samples(index)
    sampled = {"sample_row": row_of.reshape(-1), "sample_block": block_of.reshape(-1)}
    configs: list[tuple[Names, ...]] = []
    problems: list[Problem] = []
    named: dict[str, str] = {}
    for state in range(len(row_of)):
        samples = zip(row_of[state].tolist(), block_of[state].tolist(), strict=True)
        described = [_kind_names(blocks, key, *sample) for key, sample in enumerate(samples)]
        configs.append(tuple(names for names, _ in described))
        problems += [problem for _, problem in described if problem is not None]
        configuration = blocks.configuration(state)
        named |= _named(aliases(configuration))
        problems += _configuration_problems(index, state, configuration.problems)
    columns = {**index.columns, **sampled}
    return replace(index, configs=tuple(configs), problems=tuple(problems), aliases=named, columns=columns)


def _named(found: Mapping[tuple[int, int], str]) -> dict[str, str]:
    """Return aliases by the name of the source; a Jungfrau in segments has that of its first one too."""
    from psana_dask.readers.xtc_layout import jungfrau_segment, source_name

    named: dict[str, str] = {}
    for (level, phy), alias in found.items():
        segment = jungfrau_segment(phy) if level == Level.SOURCE else None
        if segment is not None:
            named.setdefault(source_name(level << 24, segment[0]), alias)
    return named | {source_name(level << 24, phy): alias for (level, phy), alias in found.items()}


def _samples(index: StreamIndex) -> tuple[Array, Array]:
    """Return the datagram and the block of a payload that stands for each kind in each state."""
    from psana_dask.readers.tables import is_config, record_for
    from psana_dask.readers.tables.panels import is_imager
    from psana_dask.readers.xtc_kernels import ANY, EVENTS, USUAL, find_samples

    rules = []
    for contains in index["kind_contains"].tolist():
        type_id, version = contains & 0xFFFF, contains >> 16 & 0x7FFF
        frames = is_imager(record_for(type_id, version).title)
        rules.append(ANY if is_config(type_id) else USUAL if frames else EVENTS)
    shape = (int(index["config"].max(initial=0)) + 1, len(rules))
    row_of, block_of, votes = (np.full(shape, fill, np.int64) for fill in (-1, -1, 0))
    find_samples(
        index["first_block"], index["key"], index["payload"], _spoiling(index), index["config"],
        index["service"], np.array(rules, np.uint8), row_of, block_of, votes,
    )  # fmt: skip
    return row_of, block_of


def _spoiling(index: StreamIndex) -> Array:
    """Return the damage of blocks, without what EBeam's user says of it: such payloads count."""
    from psana_dask.readers.xtc_layout import EBEAM, USER_BITS, Damage

    damage = index["block_damage"]
    ebeam = np.flatnonzero((index["kind_contains"] & 0xFFFF) == EBEAM)
    fine = np.isin(index["key"], ebeam) & ((damage & ~USER_BITS) == Damage.USER_DEFINED)
    return np.where(fine, 0, damage).astype(damage.dtype) if fine.any() else damage


def _kind_names(blocks: PayloadBlocks, key: int, row: int, block: int) -> tuple[Names, Problem | None]:
    """Return the names of a kind, from one payload; what cannot be decoded keeps its bytes."""
    from psana_dask.readers.xtc_names import kind_names, undecoded

    kind = blocks.kind(key)
    if row < 0:
        return kind_names(key, kind, None), None
    try:
        return kind_names(key, kind, blocks.decode(row, block)), None
    except FormatError as error:
        index = blocks.index
        offset = int(index["offset"][row]) + int(index["data"][block])
        problem = Problem(index.parts[index["part"][row]], offset, int(index["timestamp"][row]), error.what)
        return undecoded(key, kind), problem


def _configuration_problems(
    index: StreamIndex, state: int, found: tuple[tuple[int, str], ...]
) -> list[Problem]:
    row = int(np.searchsorted(index["config"], state))
    offset, path = int(index["offset"][row]), index.parts[index["part"][row]]
    return [Problem(path, offset + at, int(index["timestamp"][row]), what) for at, what in found]


# ---- files beside the data ----------------------------------------------------------------------
@dataclass(frozen=True)
class Listing:
    """The events that an ``.idx`` or small-data file lists.

    Parameters
    ----------
    timestamp : (n,) uint64
    fiducial : (n,) int64
    offset : (n,) int64
        Of the datagram, as it is said.
    name : str
        The file.
    problems : tuple of Problem
    """

    timestamp: Array
    fiducial: Array
    offset: Array
    name: str = ""
    problems: tuple[Problem, ...] = ()

    @classmethod
    def empty(cls, name: str = "", *problems: Problem) -> Listing:
        """Return a listing of nothing."""
        none = np.zeros(0, np.int64)
        return cls(none.astype(np.uint64), none, none, name, problems)

    def missing_from(self, index: StreamIndex, part: int) -> list[Problem]:
        """Return a problem for each listed event that the scan did not find."""
        mine = (index["part"] == part) & (index["service"] == Service.L1_ACCEPT)
        timestamp, fiducial = index["timestamp"][mine], index["fiducial"][mine] & NO_FIDUCIAL
        if np.array_equal(self.timestamp, timestamp) and np.array_equal(self.fiducial, fiducial):
            return []
        found = _event_keys(timestamp, fiducial)
        missing = np.flatnonzero(~np.isin(_event_keys(self.timestamp, self.fiducial), found))
        what = f"{os.path.basename(self.name)} lists an event of which no datagram was found"
        return [
            Problem(index.parts[part], int(self.offset[k]), int(self.timestamp[k]), what)
            for k in missing[:MOST_PROBLEMS].tolist()
        ]


def _event_keys(timestamp: Array, fiducial: Array) -> Array:
    kind = np.dtype([("time", "<u8"), ("fiducial", "<u8")])
    out = np.zeros(len(timestamp), kind)
    out["time"], out["fiducial"] = timestamp, fiducial
    return out.view("V16")


def read_listing(path: str) -> Listing:
    """Return the events that the files beside a data file list."""
    final = path.removesuffix(".inprogress")
    idx, smd = idx_file_of(final), _small_data_file(final)
    try:
        if os.path.exists(idx):
            return _idx_listing(idx)
        if os.path.exists(smd):
            return _small_data_listing(smd)
    except (PsanaError, OSError) as error:
        name = idx if os.path.exists(idx) else smd
        return Listing.empty(name, Problem(name, -1, -1, f"{error}: it is not used"))
    return Listing.empty()


def _idx_listing(path: str) -> Listing:
    with open(path, "rb") as file:
        events = read_idx(file.read(), path).events
    timestamp = events["seconds"].astype(np.uint64) << np.uint64(32) | events["nanoseconds"]
    fiducial = (events["fiducial"] & NO_FIDUCIAL).astype(np.int64)
    return Listing(timestamp, fiducial, events["offset"].astype(np.int64), path)


def _small_data_listing(path: str) -> Listing:
    POOL.forget(path)
    source = FileSource(path)
    block = xtc.scan(source, live=True)  # an unfinished tail only makes the listing shorter
    dgram = np.repeat(np.arange(len(block.dgrams)), np.diff([*block.dgrams["first_leaf"], len(block.leaves)]))
    rows = small_data_rows(block.leaves, ID_ORIGINAL)
    starts = block.dgrams["offset"][dgram[rows]] + block.leaves["at"][rows]
    original = read_small_data(source, starts, ORIGINAL)
    events = block.dgrams[dgram[rows]]
    fiducial = (events["fiducial"] & NO_FIDUCIAL).astype(np.int64)
    return Listing(events["timestamp"], fiducial, original["offset"].astype(np.int64), path, block.problems)


def _small_data_file(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, "smalldata", re.sub(r"\.xtc$", ".smd.xtc", name))


def absent_parts(parts: tuple[str, ...]) -> list[Problem]:
    """Return a problem for each gap in the numbers of the parts."""
    matches = [FILE_NAME.fullmatch(os.path.basename(path)) for path in parts]
    numbers = [int(m["part"]) for m in matches if m is not None and m["part"]]
    gaps = sorted(set(range(max(numbers, default=-1) + 1)) - set(numbers))
    what = "part {} of this stream is not there: its events are missing"
    return [Problem(parts[0], -1, -1, what.format(k)) for k in gaps]
