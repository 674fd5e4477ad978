"""Slow data of LCLS-1: EPICS in events, scan values in BeginCalibCycles, settings, event codes in lists.

An EPICS variable is known by its archiver (a source) and a number: Configure says names, units and first
values (CTRL records), events bring updates (TIME records), each in force from its event on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import NameNotFound
from psana_dask.model import Array, Kind, Problem, Service, StreamIndex
from psana_dask.payload_blocks import PayloadBlocks
from psana_dask.pipeline import catalog_of
from psana_dask.readers.record_blocks import batches, gather, ragged
from psana_dask.readers.records import Record, View
from psana_dask.readers.tables import EPICS, config_keys, record_for, type_name
from psana_dask.readers.tables.signals import EPICS_EPOCH
from psana_dask.readers.xtc_config import (
    Configuration,
    ProcessVariable,
    ScanStep,
    made_up_name,
    process_variables,
    scan_step,
)
from psana_dask.readers.xtc_layout import FIDUCIALS, ID_EVR_DATA, NO_FIDUCIAL, source_key
from psana_dask.readers.xtc_merge import FIRST_RECORDER
from psana_dask.recording import Recording
from psana_dask.settings import Config, DetectorConfig, EnumValue
from psana_dask.stepwise import Series, Steps, stacked, steps_from

if TYPE_CHECKING:
    from psana_dask.dataset import View as RunView

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Source = tuple[int, int]
Variable = tuple[Source, int]
"""Archiver and pvId."""

EPICS_HEAD = np.dtype([("pv_id", "<i2"), ("dbr_type", "<i2"), ("num_elements", "<i2")])
NEVER = np.iinfo(np.int64).min
"""Stamp of values that have none; as datetime64 it is NaT."""

CODES = 256


# ---- EPICS --------------------------------------------------------------------------------------
@dataclass
class _Updates:
    """Updates of one variable, piece by piece: times (ns), values, status, severity, stamps (ns)."""

    variable: ProcessVariable | None = None
    pieces: list[tuple[Ints, Array, Array, Array, Ints]] = field(default_factory=list)
    file: str = ""

    def add(self, time: Ints, values: Array, status: Array, severity: Array, stamp: Ints) -> None:
        self.pieces.append((time, values, status, severity, stamp))

    def columns(self) -> tuple[Ints, Array, Array, Array, Ints]:
        """Return the pieces one after the other."""
        time, status, severity, stamp = (np.concatenate([p[i] for p in self.pieces]) for i in (0, 2, 3, 4))
        return time, _joined([p[1] for p in self.pieces]), status, severity, stamp


def epics_series(recording: Recording) -> tuple[dict[str, Series], list[Problem]]:
    """Return the updates of every EPICS variable by name, and what is wrong with them.

    Of a variable that two archivers record, the value of the newest stamp counts.
    """
    found: dict[Variable, _Updates] = {}
    for position, index in enumerate(recording.streams):
        _add_configured(recording, position, found)
        _add_events(recording, position, index, found)
    by_name: dict[str, list[_Updates]] = {}
    for (source, pv_id), updates in sorted(found.items()):
        known = updates.variable
        by_name.setdefault(known.name if known else made_up_name(source, pv_id), []).append(updates)
    series, problems = {}, []
    for pv, several in sorted(by_name.items()):
        if len(several) > 1:
            what = f"EPICS {pv} comes from {len(several)} archivers: the newest value counts"
            problems.append(Problem(several[0].file, -1, -1, what))
        name = pv.replace("/", "_")
        series[name] = _series(name, pv, several)
    return series, problems


def _add_configured(recording: Recording, position: int, found: dict[Variable, _Updates]) -> None:
    """Add names and first values, from the CTRL records of the Configures."""
    index, blocks = recording.streams[position], recording.blocks[position]
    for row in recording.transitions(position, Service.CONFIGURE).tolist():
        configuration = blocks.configuration(int(index["config"][row]))
        variables = process_variables(configuration)
        for source, view in configuration.epics:
            key = (source, int(view.pv_id))
            if key in variables and key not in found:
                updates = found[key] = _Updates(variables[key], file=index.parts[0])
                facts = np.array([view.dbr.status]), np.array([view.dbr.severity])
                time = np.array([int(index["time"][row])])
                updates.add(time, _first_value(view), *facts, np.array([NEVER]))


def _first_value(view: View) -> Array:
    """Return the value of a CTRL record, (1,) or (1, element)."""
    values = np.array(view.data)
    return values if len(values) == 1 else values[None]


def _add_events(
    recording: Recording, position: int, index: StreamIndex, found: dict[Variable, _Updates]
) -> None:
    """Add the updates in the events of one stream, from their TIME records."""
    blocks = recording.blocks[position]
    rows, chosen = _epics_blocks(index)
    times = _event_times(recording, position, rows)
    rows, chosen, times = (column[times != NEVER] for column in (rows, chosen, times))
    if not len(rows):
        return
    read = blocks.payloads(rows, chosen)
    heads = gather(read.data, read.starts, EPICS_HEAD)
    number = index["key"][chosen].astype(np.int64) << 16 | heads["pv_id"].astype(np.int64) & 0xFFFF
    for dbr_type in np.unique(heads["dbr_type"]).tolist():
        mine = np.flatnonzero((heads["dbr_type"] == dbr_type) & (heads["num_elements"] > 0))
        if not 14 <= dbr_type <= 20 or not len(mine):
            continue
        record = record_for(EPICS, 1, heads[mine[:1]].view(np.uint8))
        for batch in batches(record, read.data, read.starts[mine], read.stops[mine]):
            at = mine[batch.picked]
            stamp = (batch.stamp.sec + EPICS_EPOCH) * 1_000_000_000 + batch.stamp.nsec
            columns = times[at], _plain(batch["data"]), batch["status"], batch["severity"], stamp
            _distribute(blocks, index, number[at], columns, found)


def _epics_blocks(index: StreamIndex) -> tuple[Ints, Ints]:
    """Return the datagram rows and blocks of all undamaged EPICS payloads in events."""
    kinds = index["kind_contains"] & 0xFFFF == EPICS
    there = kinds[index["key"]] & (index["payload"] >= EPICS_HEAD.itemsize) & (index["block_damage"] == 0)
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
    valid = index["fiducial"] & NO_FIDUCIAL < FIDUCIALS
    if recording.files.only is not None and index.stream < FIRST_RECORDER:
        of_row[valid] = index["time"][valid]
    table = events.rows[position]
    there = table >= 0
    of_row[table[there]] = events.time[there]
    return of_row[rows]


def _plain(column: Array) -> Array:
    """Return values as text or numbers, without the axis of single elements."""
    values = np.char.decode(column, "latin-1") if column.dtype.kind == "S" else column
    return values[:, 0] if values.shape[1] == 1 else values


def _distribute(
    blocks: PayloadBlocks,
    index: StreamIndex,
    number: Ints,
    columns: Sequence[Array],
    found: dict[Variable, _Updates],
) -> None:
    """Add the rows of a batch to the variables that they belong to."""
    order = np.argsort(number, kind="stable")
    numbers, first = np.unique(number[order], return_index=True)
    for one, rows in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
        log, phy, _ = blocks.kind(one >> 16)
        key = source_key(log, phy), int(np.int16(np.uint16(one & 0xFFFF)))
        updates = found.setdefault(key, _Updates(file=index.parts[0]))
        updates.add(*(column[rows] for column in columns))


def _joined(pieces: Sequence[Array]) -> Array:
    """Return arrays one after the other; what changed its length is padded, its type widened."""
    if len({piece.shape[1:] for piece in pieces}) == 1:
        if any(piece.dtype.kind == "U" for piece in pieces):
            pieces = [piece.astype(str) for piece in pieces]
        return np.concatenate(pieces)
    rows = [np.atleast_1d(row) for piece in pieces for row in piece]
    return stacked(rows, np.result_type(*pieces))


def _series(name: str, pv: str, several: Sequence[_Updates]) -> Series:
    pieces = _Updates(None, [piece for updates in several for piece in updates.pieces])
    time, values, status, severity, stamp = pieces.columns()
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


# ---- scan steps ---------------------------------------------------------------------------------
def steps(recording: Recording) -> Steps:
    """Return the steps of a run: times and what the run control said, from all its streams."""
    starts: dict[int, int] = {}
    stops: dict[int, int] = {}
    values: dict[str, dict[int, Any]] = {}
    for position, index in enumerate(recording.streams):
        for row in recording.transitions(position, Service.BEGIN_STEP).tolist():
            starts.setdefault(int(index["step"][row]), int(index["time"][row]))
        for row in recording.transitions(position, Service.END_STEP).tolist():
            stops.setdefault(int(index["step"][row]), int(index["time"][row]))
    for step, said in _scan_steps(recording).items():
        for name, value in _columns(said).items():
            values.setdefault(name, {})[step] = value
    return steps_from(starts, stops, values)


def _scan_steps(recording: Recording) -> dict[int, ScanStep]:
    """Return what the run control asked for in each step; what a step does not say stays."""
    found: dict[int, ScanStep] = {}
    for position, index in enumerate(recording.streams):
        blocks: PayloadBlocks = recording.blocks[position]
        before = None
        for row in _configuring(recording, position).tolist():
            step = int(index["step"][row]) if index["service"][row] == Service.BEGIN_STEP else -1
            if step in found:
                continue
            said = scan_step(Configuration().with_dgram(blocks.dgram(row), blocks.leaves(row)))
            before = said or before
            if step >= 0 and before is not None:
                found[step] = before
    return found


def _configuring(recording: Recording, position: int) -> Ints:
    services = (Service.CONFIGURE, Service.BEGIN_STEP)
    return np.sort(np.concatenate([recording.transitions(position, s) for s in services]))


def _columns(said: ScanStep) -> dict[str, Any]:
    """Return the columns of one step: controls by name, limits of monitors, labels, what was asked for."""
    columns: dict[str, Any] = dict(said.controls)
    for name, (low, high) in said.monitors.items():
        columns |= {f"{name}_low": low, f"{name}_high": high}
    for name, text in said.labels.items():
        columns[f"{name}_label" if name in columns else name] = text
    asked = {"events_asked": said.events, "seconds_asked": said.duration}
    return columns | {name: value for name, value in asked.items() if value is not None}


# ---- settings -----------------------------------------------------------------------------------
def settings(recording: Recording, alias: str, limit: int) -> DetectorConfig:
    """Return the settings of a detector (by its alias) in force at `limit` (ns).

    Values of its configuration record; if there are several, the others by their type
    (``config.frame_fex_config``).
    """
    detectors = catalog_of(recording).detectors.values()
    source = next((entry.source for entry in detectors if entry.alias == alias), alias)
    segments: dict[int, Config] = {}
    for position in recording.wanted:
        index = recording.streams[position]
        state = _state_at(index, limit)
        if state < 0:
            continue
        blocks: PayloadBlocks = recording.blocks[position]
        configuration = blocks.configuration(state)
        for segment, keys in _kinds_of(index, state, source).items():
            config = _config(configuration, [blocks.kind(key) for key in keys])
            if len(config):
                segments.setdefault(segment, config)
    return DetectorConfig(segments)


def _state_at(index: StreamIndex, limit: int) -> int:
    """Return the state of configuration at a time, -1 before the first Configure."""
    changing = np.isin(index["service"], (Service.CONFIGURE, Service.BEGIN_STEP)) & (index["time"] <= limit)
    rows = np.flatnonzero(changing)
    return int(index["config"][rows[-1]]) if len(rows) else -1


def _kinds_of(index: StreamIndex, state: int, source: str) -> Mapping[int, list[int]]:
    """Return the kinds of payload of a detector by segment."""
    kinds: dict[int, list[int]] = {}
    for names in index.configs[state]:
        if names.detector == source:
            kinds.setdefault(names.segment, []).append(names.key)
    return kinds


def _config(configuration: Configuration, kinds: Sequence[tuple[int, int, int]]) -> Config:
    """Return the settings of one source; that record first which the data of the source need."""
    sources = {source_key(log, phy) for log, phy, _ in kinds}
    records = {key: view for (key, source), view in configuration.records.items() if source in sources}
    data = [record_for(contains & 0xFFFF, contains >> 16 & 0x7FFF) for *_, contains in kinds]
    needed = [key for record in data for key in config_keys(record) if key in records]
    config = Config()
    for number, key in enumerate(dict.fromkeys([*needed, *records])):
        values = nested_values(records[key])
        if number == 0:
            config.update(values)
        else:
            config.put(_snake(type_name(key[0])), values)
    return config


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def nested_values(view: View) -> Config:
    """Return the values of a record, nested records as `Config`, choices as `EnumValue`."""
    config, record = Config(), view.record
    for accessor, name in record.accessors.items():
        config.put(name, _setting(record, name, view[accessor]))
    return config


def _setting(record: Record, name: str, value: Any) -> Any:
    if isinstance(value, View):
        return nested_values(value)
    if isinstance(value, list):
        return [nested_values(one) if isinstance(one, View) else one for one in value]
    if name in record.choices and isinstance(value, int):
        return EnumValue(value, record.choices[name])
    return value


# ---- event codes --------------------------------------------------------------------------------
def code_words(view: RunView, *, own_fiducial: bool = False) -> tuple[Array, Bools]:
    """Return the codes of each event as bits, (event, 16) uint16, and whether an EVR told them.

    Code c is bit c % 16 of word c // 16.  Codes of several receivers are taken together.

    Parameters
    ----------
    view : View
    own_fiducial : bool
        Only codes of the event's own fiducial: a receiver may list those of earlier ones too.

    Raises
    ------
    NameNotFound
        The run has no EVR data.
    """
    memory = view.recording.__dict__.setdefault("_memory", {})
    key = ("event_codes", own_fiducial, view.keep_damaged)
    if key not in memory:
        memory[key] = _all_codes(view.recording, own_fiducial, view.keep_damaged)
    words, present = memory[key]
    return words[view.choice.numbers], present[view.choice.numbers]


def _all_codes(recording: Recording, own_fiducial: bool, keep_damaged: bool) -> tuple[Array, Bools]:
    events = recording.events
    words, present = np.zeros((len(events), CODES // 16), np.uint16), np.zeros(len(events), bool)
    found = False
    for position in recording.wanted:
        index, rows = recording.streams[position], events.rows[position]
        for key in np.flatnonzero(index["kind_contains"] & 0xFFFF == ID_EVR_DATA).tolist():
            found = True
            there = np.flatnonzero(rows >= 0)
            _add_codes(recording, position, key, there, own_fiducial, keep_damaged, words, present)
    if not found:
        raise NameNotFound("this run has no event codes: no EvrData in it")
    return words, present


def _add_codes(
    recording: Recording, position: int, key: int, events: Ints, own: bool, damaged: bool,
    words: Array, present: Bools,
) -> None:  # fmt: skip
    """Add the codes that one receiver lists in the events of one stream."""
    from psana_dask.readers.xtc_codes import mark_codes

    index, blocks = recording.streams[position], recording.blocks[position]
    rows = recording.events.rows[position][events].astype(np.int64)
    chosen = blocks.locate(rows, [key] * (int(index["config"].max()) + 1))
    there = chosen >= 0
    if not damaged:
        there &= index["block_damage"][chosen] == 0
    events, rows, chosen = events[there], rows[there], chosen[there]
    if not len(events):
        return
    contains = blocks.kind(key)[2]
    record = record_for(contains & 0xFFFF, contains >> 16 & 0x7FFF)
    read = blocks.payloads(rows, chosen)
    counts, items = ragged(record, "fifo_events", read.data, read.starts, read.stops)
    fiducials = np.ascontiguousarray(recording.facts["fiducial"][events], np.int64)
    mark_codes(items.view("<u4").reshape(-1, 3), counts, events, fiducials, int(own), words)
    present[events] = True
