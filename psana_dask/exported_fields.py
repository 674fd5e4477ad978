"""Channels of an export: the catalog of its detectors, and what reads their values.

What `catalog` and `fields` are to files of the DAQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.catalog import Catalog, Channel, Entry, Segment
from psana_dask.exported import Store, open_store
from psana_dask.fields import FrameReader, RaggedReader, Reader, StringReader
from psana_dask.index import file_mark
from psana_dask.model import Array, FieldSpec, Kind, Names, Problem
from psana_dask.recording import Recording

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def store_of(recording: Recording) -> Store:
    """Return the store of a recording that is an export."""
    path = recording.files.paths[0]
    return open_store(path, tuple(file_mark(path)))


# ---- what there is ------------------------------------------------------------------------------
class ExportCatalog(Catalog):
    """Detectors of an export, from its own description."""

    @cached_property
    def declared(self) -> list[tuple[int, int, Names]]:
        """Nothing: an export has no blocks."""
        return []

    @cached_property
    def detectors(self) -> dict[str, Entry]:
        """Detectors by name, in alphabetical order."""
        store = store_of(self.recording)
        return {name: _entry(store, name, said) for name, said in sorted(store.about["detectors"].items())}


def _entry(store: Store, name: str, said: Mapping[str, Any]) -> Entry:
    fields = said["fields"].items()
    return Entry(
        name=name,
        alias=said["alias"],
        det_type=said["det_type"],
        det_ids=tuple(said["det_ids"]),
        channels={public: _channel(store, name, said, public, field) for public, field in fields},
        source=said["source"],
    )


def _channel(
    store: Store, name: str, said: Mapping[str, Any], public: str, field: Mapping[str, Any]
) -> Channel:
    dims = field["dims"]
    ragged = "count_dims" in field
    shown = field["count_dims"] if ragged else dims
    panel_dim = next((d for d in shown if d.endswith("panel")), None)
    numbers = _panels(store, said["group"], f"{public}_count" if ragged else public, shown, panel_dim)
    rank = len(dims) if ragged else len(dims) - 1 - (panel_dim is not None)
    spec = FieldSpec(
        field["field"], np.dtype(field["dtype"]), rank, Kind(field["kind"]), unit=field["unit"],
        accessor=field["accessor"],
    )  # fmt: skip
    return Channel(
        detector=f"{said['group']}/{public}",
        algorithm=field["algorithm"],
        version=tuple(field["version"]),
        spec=spec,
        segments=tuple(Segment(int(n), ()) for n in numbers),
    )


def _panels(store: Store, group: str, public: str, dims: list[str], panel_dim: str | None) -> Array:
    """Return the numbers of the panels of a field."""
    if panel_dim is None:
        return np.zeros(1, np.int64)
    if f"{group}/{panel_dim}" in store:
        return store.whole(f"{group}/{panel_dim}")
    return np.arange(store.array(f"{group}/{public}").shape[dims.index(panel_dim)])


# ---- their values -------------------------------------------------------------------------------
@dataclass(frozen=True)
class StoredEvents:
    """Which events have a channel of an export.

    Parameters
    ----------
    recording : Recording
    channel : Channel
    said : mapping
        Description of the field.
    """

    recording: Recording
    channel: Channel
    said: Mapping[str, Any]

    @property
    def store(self) -> Store:
        """Where the arrays are."""
        return store_of(self.recording)

    @property
    def name(self) -> str:
        """Path of the array."""
        return self.channel.detector

    @property
    def group(self) -> str:
        """Group of the detector."""
        return self.name.rpartition("/")[0]

    @property
    def enum(self) -> dict[int, str]:
        """Names of the values of an enum."""
        return {int(k): v for k, v in self.said.get("enum", {}).items()}

    @cached_property
    def _words(self) -> str:
        """What the presence of this algorithm is called."""
        prefix = f"{self.channel.algorithm}_"
        return prefix if f"{self.group}/{prefix}present" in self.store else ""

    @cached_property
    def _present(self) -> Bools:
        count = len(self.channel.segments)
        own = f"presence/{self.name}"  # of a field that is not in all payloads of its detector
        if own in self.store:
            return self.store.whole(own).astype(bool)
        whole = f"{self.group}/{self._words}panel_present"
        if whole in self.store and self.store.array(whole).shape[1] == count:
            return self.store.whole(whole).astype(bool)
        one = self.store.whole(f"{self.group}/{self._words}present").astype(bool)
        return np.repeat(one[:, None], count, axis=1)

    def present(self, events: Ints) -> Bools:
        """Return which panels each event has, (event, panel)."""
        return self._present[events]

    def damage(self, events: Ints) -> npt.NDArray[np.uint32]:
        """Return the damage word of each event."""
        name = f"{self.group}/{self._words}damage"
        return self.store.whole(name)[events].astype(np.uint32)


class StoredFrames(FrameReader):
    """Reads values of fixed shape from an export.

    Parameters
    ----------
    events : StoredEvents
    """

    decoded = "in an export"
    places = None  # type: ignore[assignment]  # chunks may be compressed: kernels cannot read them

    def __init__(self, events: StoredEvents) -> None:
        self.events = events  # type: ignore[assignment]
        self._stored = events
        dims = events.said["dims"]
        self.dtype = events.channel.spec.dtype
        self._panelled = any(d.endswith("panel") for d in dims)
        self.panels = np.array([s.number for s in events.channel.segments], np.int64)
        self.panel_shape = events.store.array(events.name).shape[2 if self._panelled else 1 :]
        self.dims = tuple(dims[2 if self._panelled else 1 :])
        self.attrs = events.said.get("attrs", {})
        here = [d for d in ("y", "x") if d in self.dims and f"{events.group}/{d}" in events.store]
        self.coords = {d: events.store.whole(f"{events.group}/{d}") for d in here}

    @property
    def segmented(self) -> bool:
        """Whether values have a panel dimension."""
        return self._panelled

    def present(self, events: Ints) -> Bools:
        """Return which panels each event has, (event, panel)."""
        return self._stored.present(events)

    def odd(self, most: int = 1000) -> list[Problem]:
        """Return nothing: values of other shapes were not exported."""
        del most
        return []

    def read_into(self, events: Ints, panels: Ints, rows: slice, out: Array) -> None:
        """Read panels of events; see `FrameReader.read_into`."""
        rest: list[Any] = [panels] if self._panelled else []
        rest += [rows] if self.panel_shape else []
        values = self._stored.store.rows(self._stored.name, events, *rest)
        if not self._panelled:
            values = np.repeat(values[:, None], len(panels), axis=1)
        out[...] = values.reshape(out.shape).astype(self.dtype, copy=False)


class StoredRagged(RaggedReader):
    """Reads values of variable length from an export.

    Parameters
    ----------
    events : StoredEvents
    """

    def __init__(self, events: StoredEvents) -> None:
        self.events = events  # type: ignore[assignment]
        self._stored = events
        self.dtype = events.channel.spec.dtype
        self.item_shape = events.store.array(events.name).shape[1:]
        self.dims = tuple(events.said["dims"][1:])
        counts = events.store.whole(f"{events.name}_count")
        self._counts = counts if counts.ndim == 2 else counts[:, None]
        self._ends = np.cumsum(self._counts.sum(axis=1))
        self.segmented = counts.ndim == 2
        self.panels = np.array([s.number for s in events.channel.segments], np.int64)

    def counts(self, events: Ints) -> Ints:
        """Return the number of items of each event and segment, (event, segment)."""
        return self._counts[events]

    def present(self, events: Ints) -> Bools:
        """Return which segments each event has, (event, segment)."""
        return self._stored.present(events)

    def read(self, events: Ints) -> Array:
        """Return the items of the events, one after the other, (item, ...)."""
        lengths = self._counts[events].sum(axis=1)
        starts = self._ends[events] - lengths
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self._stored.store.rows(self._stored.name, np.repeat(starts, lengths) + within)


class StoredText(StringReader):
    """Reads text from an export.

    Parameters
    ----------
    events : StoredEvents
    """

    def __init__(self, events: StoredEvents) -> None:
        self.events = events  # type: ignore[assignment]
        self._stored = events
        self._values = events.store.whole(events.name)
        self.segmented = self._values.ndim == 2
        self.panels = np.array([s.number for s in events.channel.segments], np.int64)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Wide enough for the longest text."""
        return np.dtype(self._stored.said["dtype"])

    def present(self, events: Ints) -> Bools:
        """Return which segments each event has, (event, segment)."""
        return self._stored.present(events)

    def read(self, events: Ints) -> Array:
        """Return the text of each event and segment, (event, segment)."""
        values = self._values[events].astype(self.dtype)
        return values if self.segmented else values[:, None]


def reader_of(recording: Recording, channel: Channel, *, keep_damaged: bool = False) -> Reader | None:
    """Return what reads a channel of an export; `keep_damaged` was decided when it was written."""
    del keep_damaged
    events = StoredEvents(recording, channel, _said(recording, channel))
    if channel.spec.kind is Kind.STRING:
        return StoredText(events)
    if "count_dims" in events.said:
        return StoredRagged(events)
    return StoredFrames(events)


def _said(recording: Recording, channel: Channel) -> Mapping[str, Any]:
    """Return the description of a field."""
    store = store_of(recording)
    group, _, public = channel.detector.rpartition("/")
    for said in store.about["detectors"].values():
        if said["group"] == group:
            return dict(said["fields"][public])
    raise KeyError(channel.detector)
