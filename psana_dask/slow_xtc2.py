"""Slow data of LCLS-II: EPICS in SlowUpdates, scan values in BeginSteps, settings, event codes as bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.blocks import decode_dgram
from psana_dask.catalog import Channel, is_configuration
from psana_dask.channel_events import enum_entries
from psana_dask.errors import NameNotFound
from psana_dask.fields import any_panel
from psana_dask.model import Array, FieldSpec, Kind, Names, Problem, Service
from psana_dask.pipeline import FrameArray, catalog_of
from psana_dask.recording import Recording
from psana_dask.settings import Config, DetectorConfig, EnumValue
from psana_dask.stepwise import Series, Steps, stacked, steps_from

if TYPE_CHECKING:
    from psana_dask.dataset import View

Update = tuple[int, int, FieldSpec, Any]
"""Time in ns, stream position, field, value."""


# ---- EPICS --------------------------------------------------------------------------------------
def epics_series(recording: Recording) -> tuple[dict[str, Series], list[Problem]]:
    """Return the updates of every EPICS variable by name, and what is wrong with them."""
    pvs = _pv_names(recording)
    updates: dict[str, list[Update]] = {}
    enums: dict[str, dict[int, str]] = {}
    for stream, time, names, values in slow_values(recording, "epics"):
        for spec in names.fields:
            if spec.kind is Kind.ENUM_ENTRY:
                continue
            plain, _, tag = spec.name.partition(":") if spec.kind is Kind.ENUM else (spec.name, "", "")
            updates.setdefault(plain, []).append((time, stream, spec, values[spec.name]))
            if spec.kind is Kind.ENUM and plain not in enums:
                enums[plain] = enum_entries(names, values, tag)
    series, problems = {}, []
    for file_name, rows in sorted(updates.items()):
        streams = sorted({stream for _, stream, _, _ in rows})
        if len(streams) > 1:
            named = ", ".join(str(recording.streams[k].stream) for k in streams)
            what = f"EPICS {file_name} is in streams {named}: the newest value counts"
            problems.append(Problem(recording.streams[streams[0]].parts[0], -1, -1, what))
        name = file_name.replace("/", "_")
        series[name] = _series(name, pvs.get(file_name, file_name), rows, enums.get(file_name, {}))
    return series, problems


def _series(name: str, pv: str, rows: list[Update], enum: dict[int, str]) -> Series:
    rows = sorted(rows, key=lambda row: row[:2])
    time = np.array([row[0] for row in rows], np.int64).view("M8[ns]")
    spec, values = rows[0][2], [row[3] for row in rows]
    array = np.array(values, dtype=str) if spec.kind is Kind.STRING else stacked(values, spec.dtype)
    return Series(name, pv, time, array, spec.kind, enum)


def _pv_names(recording: Recording) -> dict[str, str]:
    """Return PV names by field name, from the epicsinfo of the Configures."""
    found: dict[str, str] = {}
    for _, _, names, values in slow_values(recording, "epicsinfo"):
        for spec in names.fields:
            if spec.name != "keys" and spec.kind is Kind.STRING:
                found[spec.name] = values[spec.name] or spec.name
    return found


def slow_values(recording: Recording, kind: str) -> Iterator[tuple[int, int, Names, dict[str, Any]]]:
    """Yield (stream position, time in ns, names, values) of one kind of slow data of a run."""
    declared: dict[int, set[tuple[int, int]]] = {}
    for stream, config, names in catalog_of(recording).slow(kind):
        declared.setdefault(stream, set()).add((config, names.key))
    for stream, keys in declared.items():
        index = recording.streams[stream]
        for service in Service:
            if service != Service.L1_ACCEPT:
                for row in recording.transitions(stream, service).tolist():
                    config = int(index["config"][row])
                    blocks = index["key"][index["first_block"][row] : index["first_block"][row + 1]]
                    if any((config, int(key)) in keys for key in blocks):
                        for names, values in decode_dgram(index, row):
                            if (config, names.key) in keys:
                                yield stream, int(index["time"][row]), names, values


# ---- scan steps ---------------------------------------------------------------------------------
def steps(recording: Recording) -> Steps:
    """Return the steps of a run, from all its streams."""
    starts: dict[int, int] = {}
    stops: dict[int, int] = {}
    values: dict[str, dict[int, Any]] = {}
    keys = {(k, c, n.key) for k, c, n in catalog_of(recording).slow("scan")}
    for stream in range(len(recording.streams)):
        index = recording.streams[stream]
        for row in recording.transitions(stream, Service.BEGIN_STEP).tolist():
            step = int(index["step"][row])
            starts.setdefault(step, int(index["time"][row]))
            for names, found in decode_dgram(index, row):
                if (stream, int(index["config"][row]), names.key) in keys:
                    for f in names.fields:
                        values.setdefault(f.name, {}).setdefault(step, found[f.name])
        for row in recording.transitions(stream, Service.END_STEP).tolist():
            stops.setdefault(int(index["step"][row]), int(index["time"][row]))
    return steps_from(starts, stops, values, tuple(name for name in values if name != "step_docstring"))


# ---- settings -----------------------------------------------------------------------------------
def settings(recording: Recording, alias: str, limit: int) -> DetectorConfig:
    """Return the settings of a detector (as the file names it) in force at `limit` (ns)."""
    updates = [u for u in _config_updates(recording, alias) if u[0] <= limit]
    dictionaries: dict[str, dict[int, str]] = {}
    segments: dict[int, Config] = {}
    for _, names, values in sorted(updates, key=lambda u: u[0]):
        for f in names.fields:
            if f.kind is Kind.ENUM_ENTRY:
                entry, _, tag = f.name.partition(":")
                dictionaries.setdefault(tag, {})[int(values[f.name])] = entry
        config = segments.setdefault(names.segment, Config())
        for f in names.fields:
            if f.kind is Kind.ENUM:
                plain, _, tag = f.name.partition(":")
                config.put(plain, EnumValue(int(values[f.name]), dictionaries.get(tag, {})))
            elif f.kind is not Kind.ENUM_ENTRY:
                config.put(f.name, values[f.name])
    return DetectorConfig(segments)


def _config_updates(recording: Recording, alias: str) -> Iterator[tuple[int, Names, dict[str, Any]]]:
    """Yield (time, names, values) of each block of settings of a detector."""
    for k in recording.wanted:
        index = recording.streams[k]
        used = {c for s, c, _ in catalog_of(recording).declared if s == k}
        for service in (Service.CONFIGURE, Service.BEGIN_RUN, Service.BEGIN_STEP):
            for row in recording.transitions(k, service).tolist():
                if int(index["config"][row]) in used:
                    for names, values in decode_dgram(index, row):
                        if names.detector == alias and is_configuration(names.algorithm):
                            yield int(index["time"][row]), names, values


# ---- event codes --------------------------------------------------------------------------------
def code_words(view: View, *, own_fiducial: bool = False) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the codes of each event as bits, (event, 18) uint16, and whether it has timing data.

    Code c is bit c % 16 of word c // 16: the 18 words of ``sequenceValues`` of the timing detector.
    LCLS-II tells only the codes of the event itself, so `own_fiducial` changes nothing.

    Raises
    ------
    NameNotFound
        The run has no timing detector with event codes.
    """
    target = view.target(_code_channel(view))
    words = np.asarray(FrameArray(target)[...], np.uint16)
    return words, any_panel(target.reader().present(view.choice.numbers))


def _code_channel(view: View) -> Channel:
    for entry in catalog_of(view.recording).detectors.values():
        for channel in entry.channels.values():
            if channel.spec.name == "sequenceValues" and view.exists(channel):
                return channel
    raise NameNotFound("this run has no event codes: no detector with sequenceValues")
