"""Blocks to values: where each field of a block lies, and what it says.

`StreamBlocks` answers for one stream: which block of a datagram has a key, where a field
lies in it.  `decode_dgram` reads one datagram whole (configurations, scans), and
`read_columns` one detector's fields from many (EPICS, small data).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from psana_dask.model import Array, FieldSpec, Kind, Names, StreamIndex
from psana_dask.readers.xtc2 import text
from psana_dask.sources import FileSource, Source, read_bytes

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Where the fields of the blocks with one key lie, for each layout they have.

    Parameters
    ----------
    layouts : (n,) int64
        Rows of the layout table, sorted.
    offsets : (field, n) int64
        Byte of each field from the start of the data.
    sizes : (field, n) int64
        Bytes of each field.
    shapes : tuple of (n, rank) int64
        One array per field.
    """

    layouts: Ints
    offsets: Ints
    sizes: Ints
    shapes: tuple[Ints, ...]

    def local(self, layout: Array) -> Ints:
        """Return the positions of layout rows in `layouts`."""
        return np.searchsorted(self.layouts, layout)


class StreamBlocks:
    """Looks up blocks and fields of one stream.

    Parameters
    ----------
    index : StreamIndex
    """

    def __init__(self, index: StreamIndex) -> None:
        self.index = index
        self._places: dict[tuple[int, int], Places] = {}

    def source(self, part: int) -> Source:
        """Return the file of a part."""
        return FileSource(self.index.parts[part])

    def names_of(self, detector: str) -> list[tuple[int, Names]]:
        """Return (configuration, names) of every kind of block that a detector has."""
        configs = enumerate(self.index.configs)
        return [(c, names) for c, config in configs for names in config if names.detector == detector]

    def locate(self, rows: Array, wanted: Sequence[int], *, readable: bool = True) -> Ints:
        """Return for each datagram row the row of its block whose key is ``wanted[config]``, or -1.

        Blocks that cannot be read are left out, unless `readable` is False.
        """
        from psana_dask.locate import blocks_of

        out, layout = blocks_of(self.index, rows, wanted), self.index["layout"]
        if readable and len(layout):
            out[layout[out] < 0] = -1
        return out

    def places(self, config: int, names: Names) -> Places:
        """Return where the fields of `names` lie in each layout that occurs."""
        if (config, names.key) not in self._places:
            self._places[config, names.key] = _places(self.index, config, names)
        return self._places[config, names.key]


def _places(index: StreamIndex, config: int, names: Names) -> Places:
    own = (index["layout_key"] == names.key) & (index["layout_config"] == config)
    layouts = np.flatnonzero(own)
    first = index["first_word"][layouts]
    dims = sum(f.rank for f in names.fields)
    words = index["words"][first[:, None] + np.arange(dims)].astype(np.int64)
    sizes, shapes, at = [], [], 0
    for f in names.fields:
        shapes.append(words[:, at : at + f.rank])
        sizes.append(shapes[-1].prod(axis=1) * f.dtype.itemsize)
        at += f.rank
    table = np.array(sizes, np.int64).reshape(len(names.fields), len(layouts))
    return Places(layouts, np.cumsum(table, axis=0) - table, table, tuple(shapes))


# ---- whole datagrams ----------------------------------------------------------------------------
def decode_dgram(
    index: StreamIndex, row: int, source: Source | None = None
) -> list[tuple[Names, dict[str, Any]]]:
    """Return the meaning and the values of every block of one datagram.

    Strings come as str, scalars as Python numbers, arrays as they are; the entries of
    enum dictionaries are left in (their `Kind` says so).
    """
    start, stop = int(index["first_block"][row]), int(index["first_block"][row + 1])
    if start == stop:
        return []
    source = source or FileSource(index.parts[int(index["part"][row])])
    data = read_bytes(source, int(index["offset"][row]), int(index["size"][row]))
    config = index.configs[int(index["config"][row])]
    by_key = {n.key: n for n in config}
    return [
        (by_key[int(index["key"][b])], decode_block(index, b, by_key[int(index["key"][b])], data))
        for b in range(start, stop)
        if index["layout"][b] >= 0
    ]


def decode_block(index: StreamIndex, block: int, names: Names, dgram: bytes) -> dict[str, Any]:
    """Return the values of one block, given the bytes of its datagram."""
    offset = int(index["data"][block])
    word = int(index["first_word"][index["layout"][block]])
    values = {}
    for f in names.fields:
        shape = tuple(index["words"][word : word + f.rank].tolist())
        count = int(np.prod(shape, dtype=np.int64)) if f.rank else 1
        flat = np.frombuffer(dgram, f.dtype, count, offset)
        values[f.name] = _value(f, flat, shape)
        offset += count * f.dtype.itemsize
        word += f.rank
    return values


def _value(spec: FieldSpec, flat: Array, shape: tuple[int, ...]) -> Any:
    if spec.kind is Kind.STRING:
        return text(flat.tobytes())
    return flat.reshape(shape) if spec.rank else flat[0].item()


# ---- columns of many datagrams ------------------------------------------------------------------
def read_columns(
    index: StreamIndex, rows: Array, detector: str, names: Sequence[str]
) -> tuple[Ints, dict[str, Array]]:
    """Read scalar fields of a detector from many datagrams.

    Returns
    -------
    rows : (n,) int64
        Those of the given datagram rows that have the detector.
    values : dict of str to (n,) array
    """
    blocks = StreamBlocks(index)
    kinds = [(c, n) for c, n in blocks.names_of(detector) if {f.name for f in n.fields} >= set(names)]
    wanted = [-1] * len(index.configs)
    for config, found in kinds:
        wanted[config] = found.key
    located = blocks.locate(rows, wanted)
    has = located >= 0
    columns = {
        name: read_field(blocks, np.asarray(rows)[has], located[has], dict(kinds), name) for name in names
    }
    return np.asarray(rows, np.int64)[has], columns


def read_field(blocks: StreamBlocks, rows: Array, located: Ints, kinds: dict[int, Names], name: str) -> Array:
    """Read one scalar or string field from the given blocks (one per datagram row)."""
    index = blocks.index
    out: Array | None = None
    for config, names in kinds.items():
        number = next((k for k, f in enumerate(names.fields) if f.name == name), -1)
        mine = np.flatnonzero(index["config"][rows] == config)
        if number < 0 or not mine.size:
            continue
        places = blocks.places(config, names)
        values = _read_one_kind(blocks, rows[mine], located[mine], places, names, number)
        if out is None:
            out = np.zeros(len(rows), values.dtype)
        out = out.astype(np.promote_types(out.dtype, values.dtype), copy=False)
        out[mine] = values
    return np.zeros(len(rows)) if out is None else out


def _read_one_kind(
    blocks: StreamBlocks, rows: Array, located: Ints, places: Places, names: Names, number: int
) -> Array:
    index, spec = blocks.index, names.fields[number]
    local = places.local(index["layout"][located])
    offsets = index["offset"][rows] + index["data"][located].astype(np.int64) + places.offsets[number][local]
    sizes = places.sizes[number][local]
    width = int(sizes.max(initial=spec.dtype.itemsize))
    buffer = np.zeros((len(rows), width), np.uint8)
    read_parts(blocks, index["part"][rows], offsets, sizes, buffer, np.arange(len(rows)) * width)
    if spec.kind is Kind.STRING:
        return np.array([text(line.tobytes()) for line in buffer])
    if spec.rank:
        raise ValueError(f"{names.detector}.{spec.name} is an array: read it through its detector")
    return buffer.view(spec.dtype).reshape(-1)


class Parts(Protocol):
    """What knows the files of a stream."""

    def source(self, part: int) -> Source:
        """Return the file of a part."""


def read_parts(blocks: Parts, part: Array, offsets: Ints, sizes: Ints, out: Array, places: Array) -> None:
    """Copy pieces that may lie in several parts to ``out`` (a C-contiguous array) at byte `places`."""
    flat = out.reshape(-1).view(np.uint8)
    if not len(part):
        return
    for number in np.unique(part).tolist():
        mine = part == number
        if mine.all():
            mine = slice(None)
        blocks.source(number).read_pieces(
            np.ascontiguousarray(offsets[mine]), np.ascontiguousarray(sizes[mine]), flat,
            np.ascontiguousarray(places[mine], np.int64),
        )  # fmt: skip
