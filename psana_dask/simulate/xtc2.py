"""A described run as XTC2 files: streams, parts, smalldata files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from psana_dask.readers import xtc2_write as enc
from psana_dask.readers.xtc2_layout import TransitionId, TypeId
from psana_dask.simulate.blocks import SMDINFO, StreamLayout
from psana_dask.simulate.closing import closed_name
from psana_dask.simulate.content import Content
from psana_dask.simulate.describe import RunSpec
from psana_dask.simulate.schedule import DATAGRAMS, Entry, Rows
from psana_dask.sources import GROWING

GROUPS = 3  # readout groups 0 and 1


@dataclass
class _Part:
    """The data file being written."""

    path: Path
    number: int
    out: BinaryIO
    offset: int = 0


@dataclass
class StreamFiles:
    """Writes one stream: its parts in turn, and its smalldata file."""

    folder: Path
    first: RunSpec  # names the files
    stream: int
    files: list[Path] = field(default_factory=list)
    smd_file: Path | None = None
    _part: _Part | None = None
    _smd: BinaryIO | None = None

    def name_of(self, part: int) -> str:
        """Return the file name of a part."""
        spec = self.first
        if (self.stream, part) in spec.part_names:
            return spec.part_names[self.stream, part]
        bare = spec.naming == "s00" and part == 0
        tail = "" if bare else f"-c{part:0{self._digits}d}"
        return f"{self._stem}{tail}.xtc2{self._suffix}"

    @property
    def _digits(self) -> int:
        return 3 if self.first.naming == "s000-c000" else 2

    @property
    def _suffix(self) -> str:
        return GROWING if self.first.in_progress or self.first.renames else ""

    @property
    def _stem(self) -> str:
        return f"{self.first.experiment}-r{self.first.number:04d}-s{self.stream:0{self._digits}d}"

    def open_part(self) -> None:
        """Close the part being written and begin the next."""
        number = len(self.files)
        self.close_part()
        path = self.folder / self.name_of(number)
        self.files.append(path)
        self._part = _Part(path, number, path.open("wb"))

    def open_smd(self) -> None:
        """Begin the smalldata file."""
        tail = "-c000" if self.first.naming == "s000-c000" else ""  # one file for all parts
        self.smd_file = self.folder / "smalldata" / f"{self._stem}{tail}.smd.xtc2{self._suffix}"
        self.smd_file.parent.mkdir(exist_ok=True)
        self._smd = self.smd_file.open("wb")

    def write(self, data: bytes | memoryview) -> tuple[int, int]:
        """Append whole datagrams; return the part and offset of the first."""
        if self._part is None:
            raise RuntimeError("open_part() comes before write()")
        offset = self._part.offset
        self._part.out.write(data)
        self._part.offset += len(data)
        return self._part.number, offset

    def write_smd(self, data: bytes | memoryview) -> None:
        """Append to the smalldata file, if there is one."""
        if self._smd is not None:
            self._smd.write(data)

    @property
    def offset(self) -> int:
        """Where in the part the next datagram goes."""
        return self._part.offset if self._part else 0

    def flush(self) -> None:
        """Make what was written visible to others."""
        for file in (self._part.out if self._part else None, self._smd):
            if file is not None:
                file.flush()

    def close_part(self) -> None:
        """Close the data file."""
        if self._part is not None:
            self._part.out.close()
            if self.first.renames:
                self.files[-1] = closed_name(self.files[-1])

    def __enter__(self) -> StreamFiles:
        self.open_part()
        if self.first.smalldata:
            self.open_smd()
        return self

    def __exit__(self, *_: object) -> None:
        self.close_part()
        if self._smd is not None and self.smd_file is not None:
            self._smd.close()
            if self.first.renames:
                self.smd_file = closed_name(self.smd_file)


class StreamWriter:
    """Appends one run to the files of one stream, entry by entry."""

    def __init__(self, content: Content, files: StreamFiles) -> None:
        self.content, self.files = content, files
        self.spec, self.stream = content.spec, files.stream
        self.layout = StreamLayout(content, self.stream)
        self._damage = content.datagram_damage(self.stream)
        self._cuts = set(self.spec.cuts.get(self.stream, ()))
        daq = self.spec.smalldata == "daq"
        at = (self.stream, SMDINFO) if daq else (enc.SMD_NODE, enc.SMD_INDEX)
        self._smd_names = enc.smd_names(enc.names_id(*at))
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
        """Write the datagram of `entry`, and its line of the smalldata file."""
        next_part = entry.service == TransitionId.ENABLE and entry.next_event in self._cuts
        payload = self.payload(entry) + (self._chunkinfo() if next_part else b"")
        data = self.datagram(entry, payload)
        part, offset = self.files.write(data)
        place = (part, offset, len(data))
        self._rows.append((entry.timestamp, int(entry.service), entry.event, entry.step, *place))
        self.files.write_smd(self.smalldata(entry, payload, offset, len(data)))
        if next_part:
            self.files.open_part()

    def finish(self) -> None:
        """Write the first bytes of one more event, if the description wants that."""
        size = self.spec.partial_tail.get(self.stream)
        if size:
            event = Entry(TransitionId.L1_ACCEPT, timestamp=self.content.schedule[-1].timestamp + 1)
            block = enc.xtc(TypeId.SHAPES_DATA, bytes(max(size, 12)), src=self.layout.blocks[0].names.src)
            self.files.write(self.datagram(event, block)[:size])

    def payload(self, entry: Entry) -> bytes:
        """Return the containers of a datagram."""
        if entry.event >= 0 and not self.content.keeps_payload(entry.event, self.stream):
            return b""
        return self.layout.payload(entry)

    def _chunkinfo(self) -> bytes:
        number = len(self.files.files)
        name = self.files.name_of(number)
        said: list[object] = [name.removesuffix(GROWING) if self.spec.renames else name, number]
        return self.layout.shapes_data(self.layout.chunkinfo, said)

    def _bits(self, entry: Entry) -> int:
        if entry.event < 0:
            return GROUPS
        return GROUPS | 1 << 16 | (entry.event & 31) << 17  # L0Accept and the L0Tag counter

    def datagram(self, entry: Entry, payload: bytes) -> bytes:
        """Return the bytes of a whole datagram."""
        return enc.datagram(
            entry.timestamp,
            entry.service,
            payload,
            bits=self._bits(entry),
            src=self.stream,
            damage=int(self._damage[entry.event]) if entry.event >= 0 else 0,
            old=self.spec.old_header,
            pulse_id=entry.timestamp & (1 << 56) - 1,
        )

    def smalldata(self, entry: Entry, payload: bytes, offset: int, size: int) -> bytes:
        """Return what the smalldata file says of a datagram at `offset`."""
        old = self.spec.old_header
        if entry.service == TransitionId.L1_ACCEPT:
            bits = self._bits(entry)
            return enc.smd_datagram(entry.timestamp, self._smd_names, offset, size, bits=bits, old=old)
        if entry.service == TransitionId.CONFIGURE:
            payload += enc.names_block(self._smd_names)
        return self.datagram(entry, b"" if entry.service == TransitionId.END_RUN else payload)
