"""A described run as LCLS-1 XTC files: streams, parts, small-data and index files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from psana_dask.readers.xtc2_layout import TransitionId as Service
from psana_dask.readers.xtc_index_build import build_idx
from psana_dask.readers.xtc_index_files import idx_file_of, write_idx
from psana_dask.readers.xtc_layout import L1Env, TransitionId
from psana_dask.readers.xtc_small_data import small_dgram
from psana_dask.readers.xtc_write import container, dgram
from psana_dask.simulate.closing import closed_name
from psana_dask.simulate.content import Content
from psana_dask.simulate.describe import FIRST_RECORDER, RunSpec, packed, unpacked
from psana_dask.simulate.schedule import DATAGRAMS, Entry, Rows
from psana_dask.simulate.xtc_blocks import XtcLayout
from psana_dask.sources import GROWING, FileSource

GROUPS = 3
"""Readout groups 0 and 1."""

TICKS = 11_850
"""Ticks of the 119 MHz clock inside the fiducial at which the DAQ is triggered."""

SERVICES = {
    Service.CONFIGURE: TransitionId.CONFIGURE,
    Service.UNCONFIGURE: TransitionId.UNCONFIGURE,
    Service.BEGIN_RUN: TransitionId.BEGIN_RUN,
    Service.END_RUN: TransitionId.END_RUN,
    Service.BEGIN_STEP: TransitionId.BEGIN_CALIB_CYCLE,
    Service.END_STEP: TransitionId.END_CALIB_CYCLE,
    Service.ENABLE: TransitionId.ENABLE,
    Service.DISABLE: TransitionId.DISABLE,
    Service.L1_ACCEPT: TransitionId.L1_ACCEPT,
}
"""LCLS-1's number of each transition."""


@dataclass
class XtcFiles:
    """Writes one stream: its parts in turn, the small-data file of each, and its index at the end."""

    folder: Path
    first: RunSpec  # names the files
    stream: int
    files: list[Path] = field(default_factory=list)
    smd_file: Path | None = None  # of the first part
    offset: int = 0  # where in the part the next datagram goes
    _out: BinaryIO | None = None
    _smd: BinaryIO | None = None

    def name_of(self, part: int) -> str:
        """Return the file name of a part."""
        spec = self.first
        prefix = spec.daq.prefix or spec.experiment
        return f"{prefix}-r{spec.number:04d}-s{self.stream:02d}-c{part:02d}.xtc{self._suffix}"

    @property
    def _suffix(self) -> str:
        return GROWING if self.first.in_progress or self.first.renames else ""

    def open_part(self) -> None:
        """Close the part being written and begin the next, with its small-data file."""
        number = len(self.files)
        self.close_part()
        path = self.folder / self.name_of(number)
        self.files.append(path)
        self._out, self.offset = path.open("wb"), 0
        if self.first.smalldata:
            name = path.name.removesuffix(self._suffix).removesuffix(".xtc") + ".smd.xtc" + self._suffix
            small = self.folder / "smalldata" / name
            small.parent.mkdir(exist_ok=True)
            self.smd_file = self.smd_file or small
            self._smd = small.open("wb")

    def write(self, data: bytes | memoryview) -> tuple[int, int]:
        """Append whole datagrams; return the part and offset of the first."""
        if self._out is None:
            raise RuntimeError("open_part() comes before write()")
        offset = self.offset
        self._out.write(data)
        self.offset += len(data)
        return len(self.files) - 1, offset

    def write_smd(self, data: bytes | memoryview) -> None:
        """Append to the small-data file, if there is one."""
        if self._smd is not None:
            self._smd.write(data)

    def flush(self) -> None:
        """Make what was written visible to others."""
        for file in (self._out, self._smd):
            if file is not None:
                file.flush()

    def close_part(self) -> None:
        """Close the data file and the small-data file."""
        for file in (self._out, self._smd):
            if file is not None:
                file.close()
                if self.first.renames:
                    closed_name(Path(file.name))
        if self._out is not None and self.first.renames:
            self.files[-1] = Path(str(self.files[-1]).removesuffix(GROWING))
        if self.smd_file is not None and self.first.renames:
            self.smd_file = Path(str(self.smd_file).removesuffix(GROWING))

    def write_indexes(self) -> None:
        """Write the .idx file of each part, as the DAQ does when they are closed."""
        wanted = self.first.daq.index and not self.first.in_progress
        for path in self.files if wanted else ():
            place = Path(idx_file_of(str(path)))
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(write_idx(build_idx(FileSource(str(path)))))

    def __enter__(self) -> XtcFiles:
        self.open_part()
        return self

    def __exit__(self, *_: object) -> None:
        self.close_part()
        self.write_indexes()


class XtcWriter:
    """Appends one run to the files of one stream, entry by entry."""

    def __init__(self, content: Content, files: XtcFiles) -> None:
        self.content, self.files = content, files
        self.spec, self.stream = content.spec, files.stream
        self.layout = XtcLayout(content, self.stream)
        self._damage = content.datagram_damage(self.stream)
        self._cuts = sorted(self.spec.cuts.get(self.stream, ()))
        self._late = round(self.spec.daq.recorder_clock * 1e9) if self.stream >= FIRST_RECORDER else 0
        self._rows: list[tuple[int, ...]] = []

    @property
    def rows(self) -> Rows:
        """What was written, rows of `DATAGRAMS`."""
        return np.array(self._rows, DATAGRAMS)

    def entries(self) -> list[Entry]:
        """Return the stream's transitions and events in the order of its file."""
        return self.content.entries_of(self.stream)

    def has(self, entry: Entry) -> bool:
        """Tell whether the stream has a datagram for `entry`."""
        return self.content.has_entry(self.stream, entry)

    def append(self, entry: Entry) -> None:
        """Write the datagram of `entry`, and what the small-data file says of it."""
        if self._cuts and entry.event >= self._cuts[0]:
            self._cuts.pop(0)
            self.files.open_part()
        if entry.service == Service.CONFIGURE and self.spec.daq.mapped:
            self._write(entry, TransitionId.MAP, dgram(TransitionId.MAP, timestamp=self.clock(entry)))
        self._write(entry, SERVICES[entry.service], self.datagram(entry))

    def _write(self, entry: Entry, service: TransitionId, data: bytes) -> None:
        part, offset = self.files.write(data)
        place = (part, offset, len(data))
        self._rows.append((self.clock(entry), int(service), entry.event, entry.step, *place))
        self.files.write_smd(small_dgram(data, offset))

    def finish(self) -> None:
        """Write the first bytes of one more event, if the description wants that."""
        size = self.spec.partial_tail.get(self.stream)
        if size:
            block = container(bytes(max(size, 4)), type_id=0, source=(1 << 24, 0))
            after = self.content.schedule[-1].timestamp + 1
            self.files.write(dgram(TransitionId.L1_ACCEPT, [block], timestamp=after)[:size])

    def clock(self, entry: Entry) -> int:
        """Return the time stamp word; recorders have a clock of their own for events."""
        if entry.event < 0 or not self._late:
            return entry.timestamp
        return int(packed(unpacked(np.uint64(entry.timestamp)) + self._late))

    def datagram(self, entry: Entry) -> bytes:
        """Return the bytes of a whole datagram."""
        if entry.event < 0:
            env = self.spec.number if entry.service == Service.BEGIN_RUN else 0
            fiducial = self.content.fiducial_at(entry.timestamp)
            return dgram(
                SERVICES[entry.service],
                self.layout.children(entry),
                timestamp=entry.timestamp,
                fiducial=fiducial,
                env=env,
            )
        return dgram(
            TransitionId.L1_ACCEPT,
            self._payload(entry),
            timestamp=self.clock(entry),
            fiducial=int(self.content.fiducials[entry.event]),
            vector=entry.event + 1,
            ticks=TICKS,
            env=self._env(entry.event),
            damage=int(self._damage[entry.event]),
        )

    def _payload(self, entry: Entry) -> list[bytes]:
        keeps = self.content.keeps_payload(entry.event, self.stream)
        return self.layout.children(entry) if keeps else []

    def _env(self, event: int) -> int:
        trimmed = self.spec.daq.trimmed
        if not trimmed:
            return GROUPS
        return GROUPS | (L1Env.L3_FAIL | L1Env.TRIMMED if event in trimmed else L1Env.L3_PASS)
