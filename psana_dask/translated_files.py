"""Runs that LCLS's translator wrote as HDF5, as events of a run.

The layout (Confluence, "The contents of HDF5 files"): ``/Configure:0000/Run:0000/CalibCycle:NNNN/
<type>/<source>`` holds ``time`` (records with seconds, nanoseconds, fiducials), ``data`` (records, or
an array), sometimes ``image`` or ``array``, and ``_mask`` (0: this row only fills a place) and
``_damage``; ``Epics::EpicsPv/<source>/<PV>`` the updates of a variable.  Steps are the calib cycles,
events the times that any source has.

A detector is a source: ``xpp_gon_0_cspad_0``; of two types of one source the second has its type's
name behind. Records become one field for each scalar, arrays and images keep their name, and the
largest of them is ``raw``.  Contract: tests/export/test_translated.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.model import Kind
from psana_dask.names import KNOWN_NAMES, snake_case
from psana_dask.small_files import NAMED, NANOSECONDS, TAKEN, PanelPresence, plain
from psana_dask.trees import Column, Ready, Tree

Ints = npt.NDArray[np.int64]
Stamps = npt.NDArray[np.void]
Key = tuple[str, str]
"""Type and source, as in the file."""

PIXELS = ("image", "data", "array", "waveforms")
"""Names of datasets that can be the pixels or samples of a detector."""

EPICS = "Epics::EpicsPv"


def is_translated(file: Any) -> bool:
    """Tell whether an HDF5 file has the translator's groups."""
    return any(name.startswith("Configure:") for name in file)


@dataclass
class Source:
    """One type of one source in all calib cycles.

    Parameters
    ----------
    kind, name : str
        As in the file.
    groups : list of (step, h5py.Group)
    """

    kind: str
    name: str
    groups: list[tuple[int, Any]] = field(default_factory=list)


def open_translated(file: Any, mark: str) -> Tree:
    """Return a translated run as the tree that an export would be."""
    sources, epics, cycles = _look_around(file)
    stamps = {key: [_stamps(group) for _, group in source.groups] for key, source in sources.items()}
    events, step = _events_of(sources, stamps)
    arrays: dict[str, Any] = _events(events, step, cycles)
    detectors: dict[str, Any] = {}
    for key, source in sources.items():
        _add(source, stamps[key], events, arrays, detectors)
    path = os.path.abspath(file.filename)
    named = NAMED.search(os.path.basename(path))
    about = {"detectors": detectors, "epics": _epics(epics, arrays), "scanned": [], "problems": []}
    arrays["about/text"] = Ready(np.array(json.dumps(about), object))
    attrs = {
        mark: 1, "format": "xtc", "experiment": named[1].lower() if named else "",
        "run": int(named[2]) if named else -1,
    }  # fmt: skip
    return Tree(arrays, attrs, file)


def _look_around(file: Any) -> tuple[dict[Key, Source], dict[str, list[Any]], int]:
    """Return sources by (type, source), EPICS groups by variable, and the number of calib cycles."""
    sources: dict[Key, Source] = {}
    epics: dict[str, list[Any]] = {}
    number = -1
    for place, group in _levels(file):
        if place.startswith("CalibCycle:"):
            number += 1
        for kind, name, found in _sources(group):
            if kind == EPICS:
                for pv in found:
                    epics.setdefault(pv, []).append(found[pv])
            elif place.startswith("CalibCycle:") and "time" in found:
                sources.setdefault((kind, name), Source(kind, name)).groups.append((number, found))
    return sources, epics, number + 1


LEVELS = ("Configure:", "Run:", "CalibCycle:")


def _levels(group: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the configurations, runs and calib cycles of a file, in their order."""
    for name in sorted(n for n in group if depth < len(LEVELS) and n.startswith(LEVELS[depth])):
        yield name, group[name]
        yield from _levels(group[name], depth + 1)


def _sources(group: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield (type, source, group) of everything at one level."""
    for kind in group:
        if not kind.startswith((*LEVELS, "Filtered:")) and hasattr(group[kind], "keys"):
            for name in group[kind]:
                if hasattr(group[kind][name], "keys"):
                    yield kind, name, group[kind][name]


# ---- events -------------------------------------------------------------------------------------
STAMP = np.dtype([("time", "<i8"), ("fiducial", "<i4")])


def _stamps(group: Any) -> Stamps:
    """Return time (ns) and fiducial of each row of a source."""
    rows = group["time"][...]
    out = np.zeros(len(rows), STAMP)
    out["time"] = rows["seconds"].astype(np.int64) * 10**9 + rows["nanoseconds"]
    out["fiducial"] = rows["fiducials"] if "fiducials" in (rows.dtype.names or ()) else 0
    return out


def _events_of(
    sources: Mapping[Key, Source], stamps: Mapping[Key, Sequence[Stamps]]
) -> tuple[Stamps, npt.NDArray[np.int32]]:
    """Return the times that any source has, and the calib cycle of each."""
    rows, steps = [np.zeros(0, STAMP)], [np.zeros(0, np.int32)]
    for key, source in sources.items():
        for found, (step, _) in zip(stamps[key], source.groups, strict=True):
            rows.append(found)
            steps.append(np.full(len(found), step, np.int32))
    events, first = np.unique(np.concatenate(rows), return_index=True)
    return events, np.concatenate(steps)[first]


def _events(events: Stamps, step: npt.NDArray[np.int32], cycles: int) -> dict[str, Any]:
    count = np.arange(len(events))
    time = np.maximum.accumulate(events["time"] - count) + count if len(events) else events["time"]
    words = (events["time"] // 10**9).astype(np.uint64) << np.uint64(32)
    words |= (events["time"] % 10**9).astype(np.uint64)
    missing = np.iinfo(np.int64).min  # a step without events has no time
    ends = [np.flatnonzero(step == k)[[0, -1]] if (step == k).any() else None for k in range(cycles)]
    start, stop = (np.array([missing if e is None else time[e[k]] for e in ends], np.int64) for k in (0, 1))
    return {
        "events/time": Ready(time, NANOSECONDS),
        "events/timestamp": Ready(words),
        "events/step": Ready(step),
        "events/fiducial": Ready(events["fiducial"].astype(np.int32)),
        "events/stream_0": Ready(np.ones(len(events), bool)),
        "steps/start": Ready(start, NANOSECONDS),
        "steps/stop": Ready(stop, NANOSECONDS),
    }


# ---- detectors ----------------------------------------------------------------------------------
def _add(
    source: Source, stamps: list[Stamps], events: Stamps, arrays: dict[str, Any],
    detectors: dict[str, Any],
) -> None:  # fmt: skip
    """Add one source as a detector."""
    name = KNOWN_NAMES.get(source.name, snake_case(source.name))
    if name in detectors:
        name = f"{name}_{snake_case(source.kind)}"
    group = f"detectors/{name}"
    part, row = _rows(source, stamps, events)
    there = row >= 0
    arrays |= {f"{group}/present": Ready(there), f"{group}/damage": Ready(np.zeros(len(events), np.uint32))}
    fields: dict[str, Any] = {}
    for public, inner, column in _columns(source, part, row):
        dims = _dims(public, len(column.shape))
        arrays |= {f"{group}/{public}": column, f"presence/{group}/{public}": PanelPresence(Ready(there))}
        if "panel" in dims:
            panels = column.shape[1]
            arrays[f"{group}/panel"] = Ready(np.arange(panels))
            arrays[f"presence/{group}/{public}"] = Ready(np.repeat(there[:, None], panels, axis=1))
        fields[public] = {
            "algorithm": "translated", "version": [0, 0, 0], "field": inner, "unit": "",
            "kind": int(Kind.NUMBER), "accessor": "", "dims": dims, "dtype": column.dtype.str, "enum": {},
        }  # fmt: skip
    detectors[name] = {
        "group": group, "alias": source.name, "det_type": source.kind, "det_ids": [], "source": source.name,
        "fields": fields,
    }  # fmt: skip


def _columns(source: Source, part: Ints, row: Ints) -> Iterator[tuple[str, str, Column]]:
    """Yield (public name, name in the file, column) of the fields in which the calib cycles agree."""
    for public, dataset, inner in _fields(source.groups[0][1]):
        parts = tuple(group[dataset] for _, group in source.groups if dataset in group)
        if len(parts) == len(source.groups) and len({(p.dtype, p.shape[1:]) for p in parts}) == 1:
            yield public, inner or dataset, Column(parts, part, row, inner)


def _dims(public: str, rank: int) -> list[str]:
    if public == "raw" and rank in (3, 4):
        return ["time", "panel", "row", "col"] if rank == 4 else ["time", "row", "col"]
    return ["time", *(f"{public}_{k}" for k in range(1, rank))]


def _rows(source: Source, stamps: list[Stamps], events: Stamps) -> tuple[Ints, Ints]:
    """Return which calib cycle's group has each event, and in which row; -1: none has it."""
    part, row = np.zeros(len(events), np.int64), np.full(len(events), -1, np.int64)
    for number, (found, (_, group)) in enumerate(zip(stamps, source.groups, strict=True)):
        masked = "_mask" in group
        usable = np.asarray(group["_mask"][...]).astype(bool) if masked else np.ones(len(found), bool)
        at = np.searchsorted(events, found)[usable]
        part[at], row[at] = number, np.flatnonzero(usable)
    return part, row


def _fields(group: Any) -> Iterator[tuple[str, str, str | None]]:
    """Yield (public name, dataset, field of its records) of a source."""
    arrays = [n for n in PIXELS if n in group and group[n].dtype.base.kind in "iuf" and _rank(group[n]) > 1]
    largest = max(arrays, key=lambda n: group[n].size, default=None)
    for name in group:
        dataset = group[name]
        if name in ("time", "_mask", "_damage") or not hasattr(dataset, "dtype") or dataset.ndim < 1:
            continue
        if dataset.dtype.names:
            for inner in dataset.dtype.names:
                if dataset.dtype[inner].base.kind in "biuf":
                    yield _public(snake_case(inner)), name, inner
        elif dataset.dtype.base.kind in "biuf":
            yield ("raw" if name == largest else _public(name)), name, None


def _rank(dataset: Any) -> int:
    return dataset.ndim + len(dataset.dtype.shape)


def _public(name: str) -> str:
    text = plain(name)
    return f"{text}_" if text in TAKEN else text


# ---- EPICS --------------------------------------------------------------------------------------
def _epics(found: dict[str, list[Any]], arrays: dict[str, Any]) -> dict[str, Any]:
    """Add the updates of EPICS variables; return what each is."""
    said = {}
    for pv, groups in sorted(found.items()):
        usable = [g for g in groups if "data" in g and "value" in (g["data"].dtype.names or ())]
        times = [_stamps(g)["time"] if "time" in g else np.zeros(len(g["data"]), np.int64) for g in usable]
        if not usable or any(len(t) != len(g["data"]) for t, g in zip(times, usable, strict=True)):
            continue
        values = [np.asarray(g["data"]["value"]) for g in usable]
        if len({v.shape[1:] for v in values}) > 1 or values[0].dtype.kind not in "biufS":
            continue
        time = np.concatenate(times)
        order = np.argsort(time, kind="stable")
        name = plain(pv)
        joined = np.concatenate(values)[order]
        is_text = joined.dtype.kind == "S"
        arrays[f"epics/{name}/time"] = Ready(time[order], NANOSECONDS)
        arrays[f"epics/{name}/value"] = Ready(np.char.decode(joined, "latin-1") if is_text else joined)
        kind = int(Kind.STRING if is_text else Kind.NUMBER)
        said[name] = {"pv": pv, "kind": kind, "enum": {}, "unit": "", "description": "", "facts": []}
    return said
