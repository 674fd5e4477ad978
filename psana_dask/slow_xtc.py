"""Slow data of LCLS-1 besides EPICS: scan values in BeginCalibCycles, settings, event codes in lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import NameNotFound
from psana_dask.model import Array, Service, StreamIndex
from psana_dask.payload_blocks import PayloadBlocks, Payloads
from psana_dask.pipeline import catalog_of
from psana_dask.readers.record_blocks import gather, ragged
from psana_dask.readers.records import Record, View, snake
from psana_dask.readers.tables import is_config, is_known, record_for, type_name
from psana_dask.readers.xtc_config import (
    Configuration,
    ScanStep,
    scan_step,
)
from psana_dask.readers.xtc_layout import ID_EVR_DATA, source_key
from psana_dask.recording import Recording
from psana_dask.settings import Config, DetectorConfig, EnumValue
from psana_dask.stepwise import Steps, steps_from

if TYPE_CHECKING:
    from psana_dask.dataset import View as RunView

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
CODES = 256


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
    said = _scan_steps(recording)
    for step, one in said.items():
        for name, value in _columns(one).items():
            values.setdefault(name, {})[step] = value
    controls = dict.fromkeys(name for one in said.values() for name in one.controls)
    return steps_from(starts, stops, values, tuple(controls))


def _scan_steps(recording: Recording) -> dict[int, ScanStep]:
    """Return what the run control asked for in each step; what a step does not say stays."""
    found: dict[int, ScanStep] = {}
    for position, index in enumerate(recording.streams):
        blocks: PayloadBlocks = recording.blocks[position]
        before = None
        for row in configuring(recording, position).tolist():
            step = int(index["step"][row]) if index["service"][row] == Service.BEGIN_STEP else -1
            if step in found:
                continue
            said = scan_step(Configuration().with_dgram(blocks.dgram(row), blocks.leaves(row)))
            before = said or before
            if step >= 0 and before is not None:
                found[step] = before
    return found


def configuring(recording: Recording, position: int) -> Ints:
    """Return the rows of the Configures and BeginCalibCycles of a stream, in its order."""
    services = (Service.CONFIGURE, Service.BEGIN_STEP)
    return np.sort(np.concatenate([recording.transitions(position, s) for s in services]))


def _columns(said: ScanStep) -> dict[str, Any]:
    """Return the columns of one step: controls by name, limits of monitors, labels."""
    columns: dict[str, Any] = dict(said.controls)
    for name, (low, high) in said.monitors.items():
        columns |= {f"{name}_low": low, f"{name}_high": high}
    for name, text in said.labels.items():
        columns[f"{name}_label" if name in columns else name] = text
    return columns


# ---- settings -----------------------------------------------------------------------------------
def settings(recording: Recording, alias: str, limit: int) -> DetectorConfig:
    """Return the settings of a detector (by its alias) in force at `limit` (ns).

    Values of its configuration record; if there are several, those of feature extraction and the like
    by their type (``config.frame_fex_config``).
    """
    detectors = catalog_of(recording).detectors.values()
    source = next((entry.source for entry in detectors if entry.alias == alias), alias)
    segments: dict[int, Config] = {}
    for position in recording.wanted:
        index = recording.streams[position]
        state = state_at(index, limit)
        if state < 0:
            continue
        blocks: PayloadBlocks = recording.blocks[position]
        configuration = blocks.configuration(state)
        for segment, keys in _kinds_of(index, state, source).items():
            config = _config(configuration, [blocks.kind(key) for key in keys])
            if len(config):
                segments.setdefault(segment, config)
    return DetectorConfig(segments)


def state_at(index: StreamIndex, limit: int) -> int:
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
    """Return the settings of one source: of the device itself, the others nested."""
    sources = {source_key(log, phy) for log, phy, _ in kinds}
    own = {key: v for (key, source), v in configuration.records.items() if source in sources}
    records = {key: v for key, v in own.items() if is_config(key[0])}
    config = Config()
    for number, key in enumerate(sorted(records, key=lambda key: key[0] in EXTRACTION)):
        if number == 0:
            config.update(nested_values(records[key]))
        else:
            config.put(snake(type_name(key[0])), nested_values(records[key]))
    return config


EXTRACTION = (7, 20, 30, 32, 34, 86, 101)
"""Types of settings that stand beside those of a device: what is done with its data."""


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
            if not is_known(_record(recording.blocks[position], key)):
                continue
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
    read = blocks.payloads(rows, chosen)
    fits = _whole_lists(read)
    events = events[fits]
    counts, items = ragged(
        _record(blocks, key), "fifo_events", read.data, read.starts[fits], read.stops[fits]
    )
    fiducials = np.ascontiguousarray(recording.facts["fiducial"][events], np.int64)
    mark_codes(items.view("<u4").reshape(-1, 3), counts, events, fiducials, int(own), words)
    present[events] = True


def _record(blocks: PayloadBlocks, key: int) -> Record:
    contains = blocks.kind(key)[2]
    return record_for(contains & 0xFFFF, contains >> 16 & 0x7FFF)


def _whole_lists(read: Payloads) -> Bools:
    """Tell which EvrData hold as many codes as they say: what a corrupt one says is not known."""
    sizes = read.stops - read.starts
    heads = np.zeros(len(sizes), np.int64)
    there = sizes >= 4
    heads[there] = gather(read.data, read.starts[there], np.dtype("<u4"))
    whole: Bools = there & (4 + 12 * heads <= sizes)
    return whole
