"""Exports as Zarr v3: one group per detector, shards of whole pieces."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.export.codecs import Chunk, crc32c, zarr_encoder
from psana_dask.export.content import shell
from psana_dask.export.plan import Column, Piece, Place, Plan, Workshop, write_all

if TYPE_CHECKING:
    import xarray as xr


def begin(workshop: Workshop, groups: Mapping[str, xr.Dataset], plan: Plan, compression: str | None) -> None:
    """Write the skeleton: every group, all small variables, and the large ones without values."""
    large = {(c.group, c.name): c for c in plan.columns}
    for path, data in groups.items():
        mine = {name: large[path, str(name)] for name in data.data_vars if (path, str(name)) in large}
        encoding = {name: _encoding(c, compression) for name, c in mine.items()}
        shell(data, mine).to_zarr(
            workshop.data, group=path, mode="a", encoding=encoding, compute=False, zarr_format=3,
            consolidated=False,
        )  # fmt: skip


def _encoding(column: Column, compression: str | None) -> dict[str, Any]:
    rest = column.shape[1:]
    return {
        "chunks": (column.chunk, *rest),
        "shards": (column.piece, *rest),
        "compressors": _compressors(compression),
    }


def _compressors(compression: str | None) -> tuple[Any, ...]:
    from zarr.codecs import BloscCodec, ZstdCodec

    known: dict[str | None, tuple[Any, ...]] = {
        None: (),
        "lz4": (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),),
        "zstd": (ZstdCodec(level=3),),
    }
    return known[compression]


ABSENT = np.uint64(2**64 - 1)
"""In the index of a shard: there is no such chunk."""


def write_piece(workshop: Workshop, piece: Piece, chunks: Iterable[Chunk], compression: str | None) -> Place:
    """Write one shard: its chunks one after the other, where each lies, and a checksum of that."""
    column = piece.column
    shard = "/".join(["c", str(piece.start // column.piece), *["0"] * (len(column.shape) - 1)])
    path = workshop.data / column.group.strip("/") / column.name / shard
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    encode = zarr_encoder(compression)
    index = np.full((column.piece // column.chunk, 2), ABSENT, "<u8")
    place = 0
    with open(fresh, "wb", buffering=0) as file:
        for number, chunk in enumerate(chunks):
            coded = encode(chunk)
            size = write_all(file, coded)
            index[number] = place, size
            place += size
        words = index.tobytes()
        write_all(file, words + struct.pack("<I", crc32c(words)))
    fresh.replace(path)
    offsets, sizes = index[: number + 1].astype(np.int64).T.tolist()
    return Place(str(path.relative_to(workshop.folder)), tuple(offsets), tuple(sizes))


def finish(workshop: Workshop, plan: Plan, assembly: None = None) -> Path:
    """Return what is complete now."""
    del plan, assembly  # each piece is a file of the result
    return workshop.data
