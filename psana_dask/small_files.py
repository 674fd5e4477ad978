"""Small data of psana, psana2, smalldata_tools and of `Run.smalldata` as events of a run.

Facts of the layouts (read from the writers; spec/psana-api.md): every dataset as long as the key
column has one row per event, in no order in particular.  The key is ``event_time`` (psana:
seconds since 1970 << 32 | nanoseconds, with ``fiducials`` beside it) or ``timestamp`` (psana2: seconds
since 1990).  An event lacks a value where an integer is -99999 or a float NaN; psana2 has 0 before
the first value of a dataset, which nobody can tell from a 0.  ``var_x`` has values of all events one
after the other and ``var_x_len`` how many each has; ``ragged_x`` is a list for each event;
`Run.smalldata` has ``x`` and ``x_count``.  A boolean ``x_present`` says which events have ``x``.
Everything else (sums, settings, geometry) is what ``run.config(group)`` shows.

A group is a detector, deeper groups are joined with ``_``; datasets of the root belong to ``values``.
Contract: tests/export/test_small_files.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import ReadError
from psana_dask.model import Array, Kind, Problem
from psana_dask.names import RESERVED
from psana_dask.readers.xtc2_layout import EPOCH_1990
from psana_dask.trees import Column, Ready, Tree, without_sentinel

Ints = npt.NDArray[np.int64]

ROOT = "values"
"""Detector of the datasets that are in no group."""

NAMED = re.compile(r"([a-z]{3}[a-z0-9]{5,8})[-_.]r(?:un)?[-_]?0*(\d+)", re.IGNORECASE)
"""Experiment and run in the name of a file: ``xpptut15_Run0054.h5``."""

TAKEN = RESERVED - {"raw"}
"""Names that mean the same on every detector: a dataset called so gets ``_`` behind its name."""

NANOSECONDS = {"units": "nanoseconds since 1970-01-01"}


def is_small_data(file: Any) -> bool:
    """Tell whether an HDF5 file has the key column of small data."""
    return any(name in file and getattr(file[name], "ndim", 0) == 1 for name in ("event_time", "timestamp"))


@dataclass
class _Found:
    """What was found in a file: arrays by path, and fields by detector."""

    arrays: dict[str, Any] = field(default_factory=dict)
    detectors: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Keys:
    """The events of a file.

    Parameters
    ----------
    words : (event,) uint64
        As in the file, in time order.
    time : (event,) int64
        ns since 1970, sorted and unique.
    order : (event,) int64
        Row of each event in the file.
    fiducials : (event,) int64 or None
    xtc2 : bool
        Whether words count from 1990.
    doubled : int
        Events whose key another event has, too.
    """

    words: npt.NDArray[np.uint64]
    time: Ints
    order: Ints
    fiducials: Ints | None
    xtc2: bool
    doubled: int

    @classmethod
    def of(cls, file: Any) -> Keys:
        """Read and sort the keys of a file.

        Raises
        ------
        ReadError
            The file only points to others, and one of these is not there.
        """
        name = "event_time" if "event_time" in file else "timestamp"
        _check_sources(file[name])
        words = np.asarray(file[name][...]).astype(np.uint64)
        fiducials = next((np.asarray(file[n][...]) for n in ("fiducials", "fiducial") if n in file), None)
        order = np.lexsort((np.zeros(len(words)) if fiducials is None else fiducials, words))
        words = words[order]
        xtc2 = name == "timestamp" and str(file.attrs.get("format", "xtc2")) == "xtc2"
        seconds, rest = (words >> np.uint64(32)).astype(np.int64), (words & np.uint64(2**32 - 1))
        time = (seconds + (EPOCH_1990 if xtc2 else 0)) * 10**9 + rest.astype(np.int64)
        doubled = int(np.count_nonzero(np.diff(time) <= 0))
        count = np.arange(len(time))
        time = np.maximum.accumulate(time - count) + count if len(time) else time
        kept = None if fiducials is None else fiducials[order].astype(np.int64)
        return cls(words, time, order, kept, xtc2, doubled)


def _check_sources(dataset: Any) -> None:
    """Refuse a file whose rows lie in files that are gone: HDF5 would give zeros for them."""
    if not dataset.is_virtual:
        return
    home = Path(dataset.file.filename).parent
    for source in dataset.virtual_sources():
        if source.file_name != "." and not (home / source.file_name).exists():
            raise ReadError(f"{dataset.file.filename} points to {source.file_name}, which is not beside it")


def open_small_data(file: Any, mark: str) -> Tree:
    """Return small data as the tree that an export would be.

    Parameters
    ----------
    file : h5py.File
    mark : str
        Attribute that makes a tree an export.
    """
    keys = Keys.of(file)
    found = _Found()
    _walk(file, keys, found)
    _events(keys, found)
    _codes(file, keys, found)
    path = os.path.abspath(file.filename)
    attrs = {mark: 1, "format": "xtc2" if keys.xtc2 else "xtc", **_run_of(file, path)}
    what = f"{keys.doubled} events have the key of another one: moved by 1 ns each"
    problems = [list(Problem(path, 0, -1, what))] if keys.doubled else []
    for name, said in found.settings.items():
        found.arrays[f"settings/{name}/text"] = Ready(np.array(json.dumps({"0": {"config": said}}), object))
        found.detectors.setdefault(name, _detector(name))
    about = {"detectors": found.detectors, "epics": {}, "scanned": [], "problems": problems}
    found.arrays["about/text"] = Ready(np.array(json.dumps(about), object))
    return Tree(found.arrays, attrs, file)


def _run_of(file: Any, path: str) -> dict[str, Any]:
    """Return experiment and run number: as the file says, else as its name does."""
    named = NAMED.search(Path(path).name)
    experiment = str(file.attrs.get("experiment", "")) or (named[1].lower() if named else "")
    number = int(file.attrs.get("run", named[2] if named else -1))
    return {"experiment": experiment, "run": number}


def _detector(name: str) -> dict[str, Any]:
    group = f"detectors/{name}"
    said = {"group": group, "alias": name, "det_type": "small data", "det_ids": [], "source": ""}
    return {**said, "fields": {}}


def plain(name: str) -> str:
    """Return a name that Python takes as an attribute."""
    text = re.sub(r"\W", "_", name)
    return f"d_{text}" if text[:1].isdigit() else text


# ---- datasets -----------------------------------------------------------------------------------
def _walk(file: Any, keys: Keys, found: _Found) -> None:
    """Sort all datasets: fields of the events, ragged ones, and everything else."""
    datasets = _datasets(file)
    for path, dataset in datasets.items():
        if path in ("event_time", "timestamp", "fiducials", "fiducial", "time", "step"):
            continue
        if _is_partner(path, datasets):
            continue
        detector, public = _place(path)
        lengths = _lengths_of(path, datasets)
        if lengths is not None:
            _add_ragged(found, detector, public, dataset, datasets[lengths], keys)
        elif dataset.shape[:1] == keys.order.shape:
            _add(found, detector, public, path, dataset, datasets, keys)
        else:
            _add_setting(found, path, dataset)


def _datasets(file: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    file.visititems(lambda path, item: found.update({path: item}) if hasattr(item, "shape") else None)
    return {path: item for path, item in found.items() if item.shape is not None}


def _place(path: str) -> tuple[str, str]:
    """Return detector and field of a dataset."""
    group, slash, rest = path.partition("/")
    detector, name = (group, rest) if slash else (ROOT, path)
    public = plain(name.replace("/", "_"))
    return plain(detector), f"{public}_" if public in TAKEN else public


def _lengths_of(path: str, datasets: dict[str, Any]) -> str | None:
    """Return the dataset that says how many values each event has; None for a plain one."""
    if f"{path}_count" in datasets:
        return f"{path}_count"
    parts = path.split("/")
    for k, part in enumerate(parts):
        stem = "/".join(parts[: k + 1])
        if part.startswith("var_") and f"{stem}_len" in datasets:
            return f"{stem}_len"
    return None


def _is_partner(path: str, datasets: dict[str, Any]) -> bool:
    """Tell whether a dataset only says something of another one: its lengths, or its presence."""
    if path.endswith("_len") and "var_" in path:
        return True
    stem = path.removesuffix("_count").removesuffix("_present")
    if stem == path or stem not in datasets:
        return False
    return path.endswith("_count") or datasets[path].dtype.kind == "b"


def _add(
    found: _Found, detector: str, public: str, path: str, dataset: Any, datasets: dict[str, Any], keys: Keys
) -> None:
    """Add a field that has one value per event."""
    inner = getattr(dataset.dtype, "metadata", None) or {}
    if "vlen" in inner and inner["vlen"] is not str and inner["vlen"] is not bytes:
        lists = [dataset[...][k] for k in keys.order.tolist()]
        items = np.concatenate(lists) if lists else np.zeros(0, inner["vlen"])
        _put_ragged(found, detector, public, Ready(items), np.array([len(v) for v in lists], np.int64))
        return
    column = Column((dataset,), np.zeros(len(keys.order), np.int64), keys.order, attrs=dict(dataset.attrs))
    there = datasets.get(f"{path}_present")
    present = Column((there,), column.part, keys.order) if there is not None else Ready(column.present)
    text = column.dtype.kind in "OS"
    shown = _text_dtype(dataset) if text else column.dtype.str
    dims = ["time", *(f"{public}_{k}" for k in range(1, dataset.ndim))]
    unit = str(dataset.attrs.get("units", ""))
    said = _field(public, Kind.STRING if text else Kind.NUMBER, unit, dims, shown)
    _put(found, detector, public, {"": column}, present, len(keys.order), said)


def _text_dtype(dataset: Any) -> str:
    """Return the type of text, wide enough."""
    if dataset.dtype.kind == "S":
        return f"<U{max(1, dataset.dtype.itemsize)}"
    words = (v.decode() if isinstance(v, bytes) else str(v) for v in dataset[...].reshape(-1))
    return f"<U{max(1, max(map(len, words), default=1))}"


def _field(name: str, kind: Kind, unit: str, dims: list[str], dtype: str) -> dict[str, Any]:
    return {
        "algorithm": "small", "version": [0, 0, 0], "field": name, "kind": int(kind), "unit": unit,
        "accessor": "", "dims": dims, "dtype": dtype, "enum": {},
    }  # fmt: skip


class PanelPresence:
    """Presence of a field as (event, 1)."""

    def __init__(self, present: Any) -> None:
        self._present = present
        self.attrs: dict[str, Any] = {}

    def __getitem__(self, key: Any) -> Array:
        values: Array = np.asarray(self._present[...]).astype(bool)[:, None]
        return values[key]


def _add_ragged(found: _Found, detector: str, public: str, dataset: Any, lengths: Any, keys: Keys) -> None:
    """Add a field of which every event has another number of values."""
    unsorted = without_sentinel(np.asarray(lengths[...])).astype(np.int64)
    starts = np.cumsum(unsorted) - unsorted
    counts = unsorted[keys.order]
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.repeat(starts[keys.order], counts) + within
    _put_ragged(found, detector, public, Column((dataset,), np.zeros(len(rows), np.int64), rows), counts)


def _put_ragged(found: _Found, detector: str, public: str, items: Column | Ready, counts: Ints) -> None:
    dims = [f"{public}_item", *(f"{public}_{k}" for k in range(1, len(items.shape)))]
    said = {**_field(public, Kind.NUMBER, "", dims, items.dtype.str), "count_dims": ["time"]}
    _put(found, detector, public, {"": items, "_count": Ready(counts)}, Ready(counts > 0), len(counts), said)


def _put(
    found: _Found,
    detector: str,
    public: str,
    arrays: Mapping[str, Column | Ready],
    present: Column | Ready,
    events: int,
    said: dict[str, Any],
) -> None:
    """Put the arrays of a field, by what their names have behind its own; `said` is what they are."""
    about = found.detectors.setdefault(detector, _detector(detector))
    group = about["group"]
    found.arrays |= {f"{group}/{public}{behind}": array for behind, array in arrays.items()}
    found.arrays[f"presence/{group}/{public}"] = PanelPresence(present)
    if f"{group}/present" not in found.arrays:  # the first field stands for its detector
        found.arrays[f"{group}/present"] = present
        found.arrays[f"{group}/damage"] = Ready(np.zeros(events, np.uint32))
    about["fields"][public] = said


def _add_setting(found: _Found, path: str, dataset: Any) -> None:
    """Add what has no row for each event: sums, masks, geometry, settings."""
    group, slash, rest = path.partition("/")
    owner = plain(group) if slash else ROOT
    *nest, name = (rest if slash else path).split("/")
    place = found.settings.setdefault(owner, {})
    for part in nest:
        place = place.setdefault(plain(part), {"config": {}})["config"]
    key = f"array_{len(found.arrays)}"
    found.arrays[f"settings/{owner}/{key}"] = Ready(lambda: _setting(dataset))
    place[plain(name)] = {"array": key}


def _setting(dataset: Any) -> Array:
    """Return a whole dataset; text as str."""
    values = np.asarray(dataset[()])
    if values.dtype.kind not in "OS":
        return values
    words = [v.decode() if isinstance(v, bytes) else str(v) for v in values.reshape(-1).tolist()]
    return np.array(words, dtype=str).reshape(values.shape)


# ---- events -------------------------------------------------------------------------------------
def _events(keys: Keys, found: _Found) -> None:
    """Add the table of events: small data say nothing of steps."""
    count = len(keys.time)
    found.arrays |= {
        "events/time": Ready(keys.time, NANOSECONDS),
        "events/timestamp": Ready(keys.words),
        "events/step": Ready(np.full(count, -1, np.int32)),
        "events/stream_0": Ready(np.ones(count, bool)),
        "steps/start": Ready(np.zeros(0, np.int64), NANOSECONDS),
        "steps/stop": Ready(np.zeros(0, np.int64), NANOSECONDS),
    }
    if keys.fiducials is not None:
        found.arrays["events/fiducial"] = Ready(keys.fiducials.astype(np.int32))


CODE = re.compile(r"code_(\d+)")


def _codes(file: Any, keys: Keys, found: _Found) -> None:
    """Add the event codes: columns ``evr/code_40``, or ``timing/eventcodes`` with all 288."""
    flags: dict[int, Array] = {}
    if "evr" in file and hasattr(file["evr"], "keys"):
        named = {name: CODE.fullmatch(name) for name in file["evr"]}
        flags = {int(m[1]): np.asarray(file["evr"][n][...]) == 1 for n, m in named.items() if m}
    table = file.get("timing/eventcodes")
    if table is not None and table.ndim == 2:
        values = np.asarray(table[...])
        flags |= {code: values[:, code] == 1 for code in np.flatnonzero((values == 1).any(axis=0)).tolist()}
    if not flags:
        return
    words = np.zeros((len(keys.order), max(flags) // 16 + 1), np.uint16)
    for code, flag in flags.items():
        words[:, code // 16] |= (flag[keys.order].astype(np.uint16) << np.uint16(code % 16)).astype(np.uint16)
    present = np.ones(len(words), bool)
    found.arrays |= {
        "codes/words": Ready(words),
        "codes/own_words": Ready(words),
        "codes/present": Ready(present),
    }
