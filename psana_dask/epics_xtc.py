"""EPICS of LCLS-1: names in Configure, updates in events, each in force from its event on.

A variable is known by its archiver (a source) and a number.  CTRL records say its name, its unit and a first
value; they stand in Configure, in some files in events.  TIME records bring updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError
from psana_dask.model import Array, Kind, Problem, Service, StreamIndex
from psana_dask.payload_blocks import PayloadBlocks, Payloads
from psana_dask.readers.record_blocks import batches, gather
from psana_dask.readers.records import Record
from psana_dask.readers.tables import EPICS, record_for
from psana_dask.readers.tables.signals import EPICS_EPOCH
from psana_dask.readers.xtc_config import Configuration, ProcessVariable, made_up_name, process_variables
from psana_dask.readers.xtc_layout import FIDUCIALS, NO_FIDUCIAL, source_key
from psana_dask.readers.xtc_merge import FIRST_RECORDER
from psana_dask.recording import Recording
from psana_dask.stepwise import Series, stacked

Ints = npt.NDArray[np.int64]
Variable = tuple[tuple[int, int], int]
"""Archiver and pvId."""

HEAD = np.dtype([("pv_id", "<i2"), ("dbr_type", "<i2"), ("num_elements", "<i2")])
TIME_TYPES, CTRL_TYPES = range(14, 21), range(28, 35)
"""dbr types of values with status and stamp, and of those with names, units and limits."""

NEVER = np.iinfo(np.int64).min
"""Stamp of values that have none, time of what is in no event; as datetime64 it is NaT."""


@dataclass
class Updates:
    """Updates of one variable, piece by piece: times (ns), values, status, severity, stamps (ns)."""

    file: str
    variable: ProcessVariable | None = None
    pieces: list[tuple[Array, ...]] = field(default_factory=list)


def epics_series(recording: Recording) -> tuple[dict[str, Series], list[Problem]]:
    """Return the updates of every EPICS variable by name, and what is wrong with them.

    Of a variable that two archivers record, the value of the newest stamp counts.
    """
    collection = _Collection(recording)
    for position in range(len(recording.streams)):
        collection.add_configured(position)
        collection.add_events(position)
    by_name: dict[str, list[Updates]] = {}
    for (source, pv_id), updates in sorted(collection.found.items()):
        known = updates.variable
        by_name.setdefault(known.name if known else made_up_name(source, pv_id), []).append(updates)
    series, problems = {}, collection.problems
    for pv, several in sorted(by_name.items()):
        if len(several) > 1:
            what = f"EPICS {pv} comes from {len(several)} archivers: the newest value counts"
            problems.append(Problem(several[0].file, -1, -1, what))
        name = pv.replace("/", "_")
        series[name] = _series(name, pv, several)
    return series, problems


class _Collection:
    """The updates of all variables of a recording, stream by stream."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.found: dict[Variable, Updates] = {}
        self.problems: list[Problem] = []

    def add_configured(self, position: int) -> None:
        """Add names and first values, from the CTRL records of the Configures."""
        index, blocks = self.recording.streams[position], self.recording.blocks[position]
        for row in self.recording.transitions(position, Service.CONFIGURE).tolist():
            configuration = blocks.configuration(int(index["config"][row]))
            self._add_named(configuration, int(index["time"][row]), index.parts[0])

    def _add_named(self, configuration: Configuration, time: int, file: str) -> None:
        """Add what CTRL records say, in force from `time` on; copies in other streams say no more."""
        variables = process_variables(configuration)
        for source, view in configuration.epics:
            key = (source, int(view.pv_id))
            updates = self.found.setdefault(key, Updates(file))
            if key in variables and updates.variable is None and view.num_elements > 0:
                updates.variable = variables[key]
                values = np.array(view.data)
                columns = ([time], values if len(values) == 1 else values[None])
                facts = [view.dbr.status], [view.dbr.severity], [NEVER]
                updates.pieces.append(tuple(np.asarray(column) for column in (*columns, *facts)))

    def add_events(self, position: int) -> None:
        """Add the updates in the events of one stream."""
        index, blocks = self.recording.streams[position], self.recording.blocks[position]
        rows, chosen = _epics_blocks(index)
        times = _event_times(self.recording, position, rows)
        rows, chosen, times = (column[times != NEVER] for column in (rows, chosen, times))
        if not len(rows):
            return
        read = blocks.payloads(rows, chosen)
        heads = gather(read.data, read.starts, HEAD)
        for dbr_type in np.unique(heads["dbr_type"]).tolist():
            mine = np.flatnonzero((heads["dbr_type"] == dbr_type) & (heads["num_elements"] > 0))
            if dbr_type in TIME_TYPES and len(mine):
                record = record_for(EPICS, 1, heads[mine[:1]].view(np.uint8))
                fits = _fits(record, heads["num_elements"][mine], read.stops[mine] - read.starts[mine])
                self._add_batches(blocks, record, read, chosen, times, heads["pv_id"], mine[fits])
                mine = mine[~fits]
            for k in mine.tolist():
                self._add_late(blocks, int(rows[k]), int(chosen[k]), int(times[k]), dbr_type)

    def _add_batches(
        self, blocks: PayloadBlocks, record: Record, read: Payloads, chosen: Ints, times: Ints,
        pv_ids: Array, mine: Ints,
    ) -> None:  # fmt: skip
        """Add TIME records of one type."""
        keys = blocks.index["key"][chosen].astype(np.int64)
        for batch in batches(record, read.data, read.starts[mine], read.stops[mine]):
            at = mine[batch.picked]
            stamp = (batch.stamp.sec + EPICS_EPOCH) * 1_000_000_000 + batch.stamp.nsec
            columns = times[at], _plain(batch["data"]), batch["status"], batch["severity"], stamp
            number = keys[at] << 16 | pv_ids[at].astype(np.int64) & 0xFFFF
            order = np.argsort(number, kind="stable")
            numbers, first = np.unique(number[order], return_index=True)
            for one, rows in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
                log, phy, _ = blocks.kind(one >> 16)
                key = source_key(log, phy), int(np.int16(np.uint16(one & 0xFFFF)))
                updates = self.found.setdefault(key, Updates(blocks.index.parts[0]))
                updates.pieces.append(tuple(column[rows] for column in columns))

    def _add_late(self, blocks: PayloadBlocks, row: int, block: int, time: int, dbr_type: int) -> None:
        """Add a CTRL record that stands in an event; anything else here is a problem."""
        index = blocks.index
        log, phy, _ = blocks.kind(int(index["key"][block]))
        what = f"an EPICS value of dbr type {dbr_type} is cut or unknown: left out"
        try:
            view = blocks.decode(row, block) if dbr_type in CTRL_TYPES else None
            if view is not None and view.nbytes:
                one = Configuration(epics=((source_key(log, phy), view),))
                self._add_named(one, time, index.parts[0])
                return
        except FormatError as error:
            what = f"{what} ({error})"
        file = index.parts[int(index["part"][row])]
        offset = int(index["offset"][row]) + int(index["data"][block])
        self.problems.append(Problem(file, offset, int(index["timestamp"][row]), what))


def _epics_blocks(index: StreamIndex) -> tuple[Ints, Ints]:
    """Return the datagram rows and blocks of all undamaged EPICS payloads in events."""
    kinds = index["kind_contains"] & 0xFFFF == EPICS
    there = kinds[index["key"]] & (index["payload"] >= HEAD.itemsize) & (index["block_damage"] == 0)
    chosen = np.flatnonzero(there)
    rows = np.searchsorted(index["first_block"], chosen, side="right") - 1
    events = index["service"][rows] == Service.L1_ACCEPT
    return rows[events], chosen[events]


def _event_times(recording: Recording, position: int, rows: Ints) -> Ints:
    """Return from when on what each datagram brings is in force: the time of its event; NEVER if it has none.

    Events that ``streams=`` leaves out count too.
    """
    index, events = recording.streams[position], recording.events
    of_row = np.full(len(index), NEVER)
    if recording.files.only is not None and index.stream < FIRST_RECORDER:
        valid = index["fiducial"] & NO_FIDUCIAL < FIDUCIALS
        of_row[valid] = index["time"][valid]
    table = events.rows[position]
    there = table >= 0
    of_row[table[there]] = events.time[there]
    return of_row[rows]


def _fits(record: Record, counts: Array, sizes: Ints) -> npt.NDArray[np.bool_]:
    """Tell which payloads are as long as their number of elements wants."""
    data = next(one for one in record.fields if one.accessor == "data")
    room = data.shape[1] if len(data.shape) > 1 else 1
    assert isinstance(room, int)  # noqa: S101  (of text)
    fits: npt.NDArray[np.bool_] = (data.offset or 0) + counts.astype(
        np.int64
    ) * room * data.dtype.itemsize <= sizes
    return fits


def _plain(column: Array) -> Array:
    """Return values as text or numbers, without the axis of single elements."""
    values = np.char.decode(column, "latin-1") if column.dtype.kind == "S" else column
    return values[:, 0] if values.shape[1] == 1 else values


def _joined(pieces: Sequence[Array]) -> Array:
    """Return arrays one after the other; what changed its length is padded, its type widened."""
    if len({piece.shape[1:] for piece in pieces}) == 1:
        if any(piece.dtype.kind == "U" for piece in pieces):
            pieces = [piece.astype(str) for piece in pieces]
        return np.concatenate(pieces)
    rows = [np.atleast_1d(row) for piece in pieces for row in piece]
    return stacked(rows, np.result_type(*pieces))


def _series(name: str, pv: str, several: Sequence[Updates]) -> Series:
    pieces = [piece for updates in several for piece in updates.pieces]
    time, status, severity, stamp = (np.concatenate([p[i] for p in pieces]) for i in (0, 2, 3, 4))
    values = _joined([piece[1] for piece in pieces])
    order = np.lexsort((stamp, time))
    order = order[np.append(time[order][1:] != time[order][:-1], True)]  # of two at once the newer counts
    if len(several) > 1:
        order = order[stamp[order] >= np.maximum.accumulate(stamp[order])]
    known = next((updates.variable for updates in several if updates.variable), None)
    states = dict(enumerate(known.states)) if known else {}
    facts = {"status": status[order].astype(np.int16), "severity": severity[order].astype(np.int16)}
    return Series(
        name=name,
        pv=pv,
        time=time[order].view("M8[ns]"),
        values=values[order].astype(np.int32) if states else values[order],
        kind=Kind.ENUM if states else Kind.STRING if values.dtype.kind == "U" else Kind.NUMBER,
        enum=states,
        unit=known.unit if known else "",
        description=known.description if known else "",
        facts=facts | {"stamp": stamp[order].view("M8[ns]")},
    )
