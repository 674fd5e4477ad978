"""The known answers of a simulated run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from psana_dask.calib.store import MemoryStore
from psana_dask.errors import NameNotFound
from psana_dask.readers.xtc_layout import FIDUCIALS
from psana_dask.readers.xtc_layout import Damage as XtcDamage
from psana_dask.simulate.constants import constants_of
from psana_dask.simulate.content import Content, find_field, scan_columns, scan_docstrings, stored
from psana_dask.simulate.describe import RunSpec, unpacked
from psana_dask.simulate.images import Picture
from psana_dask.simulate.schedule import Entry, Rows
from psana_dask.simulate.values import pulse_number

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """What a reader of the run should find.  Events are numbered in the order of writing; see `order`.

    Examples
    --------
    >>> truth.value("gmd", "milliJoulesPerPulse", event=3)
    """

    spec: RunSpec
    folder: Path
    streams: Mapping[int, tuple[Path, ...]] = field(default_factory=dict)  # the parts of each stream
    smd_files: Mapping[int, Path] = field(default_factory=dict)  # the smalldata file of each stream
    datagrams: Mapping[int, Rows] = field(default_factory=dict)
    # what stands where in each stream: rows of schedule.DATAGRAMS

    @cached_property
    def _content(self) -> Content:
        return Content(self.spec)

    @property
    def files(self) -> tuple[Path, ...]:
        """All data files."""
        return tuple(path for parts in self.streams.values() for path in parts)

    @cached_property
    def timestamps(self) -> npt.NDArray[np.uint64]:
        """Time stamp word of each event: seconds since ``spec.epoch`` << 32 | nanoseconds."""
        return self._content.timestamps

    @cached_property
    def times(self) -> npt.NDArray[np.datetime64]:
        """UTC time of each event."""
        return self.spec.epoch + unpacked(self.timestamps).astype("timedelta64[ns]")

    @cached_property
    def written(self) -> Flags:
        """Tell which events have a datagram in any stream (LCLS-1: and a fiducial)."""
        there: Flags = np.any([self.in_stream(stream) for stream in self.spec.streams], axis=0)
        return there & (self.fiducials < FIDUCIALS) if self._content.is_xtc else there

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """Numbers of the written events, sorted by time.

        Equal times stay in the order of writing; LCLS-1 puts them in the order of their fiducials.
        """
        by_time = np.argsort(self.timestamps, kind="stable")
        if self._content.is_xtc:
            by_time = np.lexsort((self._fiducial_ranks(), self.timestamps))
        return by_time[self.written[by_time]]

    def _fiducial_ranks(self) -> npt.NDArray[np.int64]:
        """Return how far each fiducial is behind the first one of the same time, across the wrap."""
        _, first, which = np.unique(self.timestamps, return_index=True, return_inverse=True)
        behind = (self.fiducials - self.fiducials[first][which]) % FIDUCIALS
        return np.where(behind < FIDUCIALS // 2, behind, behind - FIDUCIALS)

    @property
    def fiducials(self) -> npt.NDArray[np.int64]:
        """LCLS-1: fiducial of each event."""
        return self._content.fiducials

    @cached_property
    def pulse_ids(self) -> npt.NDArray[np.int64]:
        """Pulse number of each event, as timing detectors write it."""
        return np.array([pulse_number(int(word)) for word in self.timestamps])

    def in_stream(self, stream: int) -> Flags:
        """Tell which events have a datagram in the stream."""
        return self._content.has_datagram(stream)

    @property
    def schedule(self) -> tuple[Entry, ...]:
        """Transitions and events in the order of writing, with their time stamps."""
        return self._content.schedule

    @property
    def detectors(self) -> tuple[str, ...]:
        """Names of the detectors."""
        return tuple(dict.fromkeys(detector.name for detector in self.spec.detectors))

    def segments(self, detector: str) -> tuple[int, ...]:
        """Return the segment numbers of a detector."""
        return self._content.detector(detector).segment_numbers

    def value(self, detector: str, field: str, event: int, segment: int | None = None) -> object:
        """Return what was written: an array, a numpy scalar or text; None where nothing was.

        Parameters
        ----------
        detector : str
            Its name.
        field : str
            Its name, or ``algorithm.name``; text of CHARSTR fields is without the NUL.
        event : int
            Its number.
        segment : int, optional
            Default: all, stacked in the order of `segments` (one segment: not stacked);
            None then if any is missing.
        """
        found = self._content.detector(detector)
        if segment is None and len(found.segment_numbers) > 1:
            pieces = [self.value(detector, field, event, one) for one in found.segment_numbers]
            gaps = any(piece is None for piece in pieces)
            return None if gaps else np.stack([np.asarray(piece) for piece in pieces])
        chosen = found.segment_numbers[0] if segment is None else segment
        if not self._content.has_block(found, chosen)[event]:
            return None
        return self._content.value(found, find_field(found, field), event, chosen)

    def present(self, detector: str, segment: int | None = None, *, damaged: bool = False) -> Flags:
        """Tell in which events there are data: (event,), or (event, segment) without `segment`.

        Data with damage count as missing unless `damaged`.
        """
        found = self._content.detector(detector)
        if segment is None:
            columns = [self.present(detector, one, damaged=damaged) for one in found.segment_numbers]
            return np.stack(columns, axis=1)
        there = self._content.has_block(found, segment)
        words = self.damage(detector, segment)
        if found.kind == "ebeam":  # what the user alone says of it is no loss
            words = words & ~np.uint32(XtcDamage.USER_DEFINED | 0xFF << 24)
        return there if damaged else there & (words == 0)

    def damage(self, detector: str, segment: int) -> npt.NDArray[np.uint32]:
        """Return the damage word of each event: the block's (LCLS-II: and the datagram's)."""
        found = self._content.detector(detector)
        words = self._content.block_damage(found, segment)
        if self._content.is_xtc:
            return words
        return words | self._content.datagram_damage(found.segment_streams[segment])

    @property
    def step(self) -> npt.NDArray[np.int64]:
        """Step of each event, from 0."""
        return self._content.step

    @property
    def scan(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """Motors and `step_value` (LCLS-II): one number for each step."""
        return scan_columns(self.spec)

    @property
    def docstrings(self) -> list[str]:
        """`step_docstring` of each step, if the run has a scan."""
        said = self.spec.scan and self.spec.scan.docstring and not self._content.is_xtc
        return scan_docstrings(self.spec) if said else []

    def epics_updates(self, name: str) -> tuple[npt.NDArray[np.uint64], list[object]]:
        """Return the time stamps and values of all updates of a variable, in order of time.

        Of two streams that write at the same time the one described first is taken.
        """
        updates: dict[int, object] = {}
        for epics in self.spec.epics:
            for pv in epics.pvs:
                if pv.name == name:
                    for entry in self._content.epics_updates(epics):
                        value = self._content.epics_value(pv.as_field(), entry)
                        updates.setdefault(entry.timestamp, value)
        if not updates and name not in self.pvs:
            raise NameNotFound.of("EPICS variable", name, self.pvs)
        return np.array(sorted(updates), np.uint64), [updates[stamp] for stamp in sorted(updates)]

    @property
    def pvs(self) -> tuple[str, ...]:
        """Names of the EPICS variables."""
        return tuple(dict.fromkeys(pv.name for epics in self.spec.epics for pv in epics.pvs))

    def epics(self, name: str) -> list[object]:
        """Return the variable's value at each event: the last update at or before it, or None."""
        stamps, values = self.epics_updates(name)
        last = np.searchsorted(stamps, self.timestamps, side="right") - 1
        return [values[i] if i >= 0 else None for i in last]

    def config(self, detector: str, segment: int, step: int | None = None) -> dict[str, object]:
        """Return the configuration: in Configure, or with the updates in force in `step`."""
        config = self._content.detector(detector).config
        if config is None:
            return {}
        said = {**config.of_segment(segment)}
        if step is not None:
            said |= config.begin_run if self.spec.begin_run else {}
            for earlier in range(step + 1):
                said |= config.of_step(earlier)
        return {name: stored(value) for name, value in said.items()}

    def event_codes(self, event: int) -> tuple[int, ...]:
        """Return the event codes that fired."""
        return self._content.event_codes(event)

    def picture(self, detector: str) -> Picture:
        """Return what falls on the detector: rings, peaks, beam centre, pedestals, panel places."""
        return self._content.pictures[detector]

    @cached_property
    def calib(self) -> MemoryStore:
        """The constants of detectors with frames: ``psana_dask.open(truth.folder, calib=truth.calib)``."""
        return constants_of(self._content.detectors, self._content.pictures, self.spec.format)
