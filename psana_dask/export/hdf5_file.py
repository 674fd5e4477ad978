"""Exports as HDF5 that follows netCDF-4: readable by h5py, and by xarray through h5netcdf.

HDF5 has one writer per file, and one thread at a time: each piece is a file of its own, compressed by
whoever makes it (`codecs`); `finish` copies the compressed chunks into the result as they are.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import h5py
import hdf5plugin
import numpy as np

from psana_dask.export.codecs import Encoder, hdf5_encoder
from psana_dask.export.content import shell
from psana_dask.export.plan import Column, Piece, Plan, Workshop, chunks_of, write_all
from psana_dask.model import Array

if TYPE_CHECKING:
    import xarray as xr


def begin(workshop: Workshop, groups: Mapping[str, xr.Dataset], plan: Plan, compression: str | None) -> None:
    """Write the skeleton: every group, all small variables, and the large ones without values."""
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    large = {(c.group, c.name): c for c in plan.columns}
    (workshop.folder / "pieces").mkdir(exist_ok=True)
    with h5netcdf.File(skeleton(workshop), "w") as file:  # opened once: each opening looks at all groups
        for path, data in groups.items():
            mine = {name: large[path, str(name)] for name in data.data_vars if (path, str(name)) in large}
            encoding = {name: _encoding(c, compression) for name, c in mine.items()}
            store = H5NetCDFStore(file if path == "/" else file.create_group(path))
            _plain(shell(data, mine)).dump_to_store(store, encoding=encoding)


def _plain(data: xr.Dataset) -> xr.Dataset:
    """Return a group whose attributes netCDF can have: no booleans, no mappings."""
    plain = data.copy()
    plain.attrs = _attributes(plain.attrs)
    for variable in plain.variables.values():
        variable.attrs = _attributes(variable.attrs)
    return plain


def _attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): _attribute(value) for name, value in attrs.items()}


def _attribute(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return np.int8(value)
    return json.dumps(value, default=str) if isinstance(value, dict) else value


def skeleton(workshop: Workshop) -> Path:
    """Return the file that is complete but for the pieces."""
    return workshop.folder / "skeleton.h5"


def _encoding(column: Column, compression: str | None) -> dict[str, Any]:
    return {"chunksizes": (column.chunk, *column.shape[1:]), **filters(compression)}


def filters(compression: str | None) -> dict[str, Any]:
    """Return what h5py needs to know to compress."""
    known: dict[str | None, Any] = {
        None: {},
        "lz4": hdf5plugin.Bitshuffle(cname="lz4"),
        "zstd": hdf5plugin.Zstd(clevel=3),
    }
    return dict(known[compression])


def _piece_file(workshop: Workshop, number: int) -> Path:
    return workshop.folder / "pieces" / f"{number}.chunks"


def write_piece(workshop: Workshop, piece: Piece, blocks: Iterable[Array], compression: str | None) -> None:
    """Write the chunks of one piece to a file of its own: as the result has them, then their sizes."""
    path = _piece_file(workshop, piece.number)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    encode = hdf5_encoder(compression) or _hdf5_itself(compression)
    with open(fresh, "wb", buffering=0) as file:
        sizes = [write_all(file, encode(chunk)) for chunk in chunks_of(blocks, piece.column.chunk)]
        write_all(file, np.array(sizes, "<i8").tobytes())
    fresh.replace(path)


def _hdf5_itself(compression: str | None) -> Encoder:
    """Return an encoder that lets HDF5 compress: one thread at a time."""

    def encode(chunk: Array) -> bytes:
        with h5py.File(f"chunk{threading.get_ident()}", "w", driver="core", backing_store=False) as file:
            made = file.create_dataset("x", data=chunk, chunks=chunk.shape, **filters(compression))
            return bytes(made.id.read_direct_chunk((0,) * chunk.ndim)[1])

    return encode


def finish(workshop: Workshop, plan: Plan) -> Path:
    """Copy the chunks of all pieces into the skeleton; return the file, complete and on disk."""
    shutil.copyfile(skeleton(workshop), workshop.data)
    with h5py.File(workshop.data, "r+") as file:
        for piece in plan.pieces:
            whole = file[f"{piece.column.group}/{piece.column.name}"]
            with open(_piece_file(workshop, piece.number), "rb") as part:
                _copy(part, whole, piece)
    with open(workshop.data, "rb+") as raw:
        os.fsync(raw.fileno())
    return workshop.data


def _copy(part: BinaryIO, whole: h5py.Dataset, piece: Piece) -> None:
    """Copy the chunks of one piece without looking into them."""
    rest = (0,) * (len(piece.column.shape) - 1)
    rows = range(piece.start, piece.stop, piece.column.chunk)
    with mmap.mmap(part.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        data = np.frombuffer(mapped, np.uint8)
        sizes = np.frombuffer(data[-8 * len(rows) :].tobytes(), "<i8")
        ends = np.cumsum(sizes)
        for row, end, size in zip(rows, ends.tolist(), sizes.tolist(), strict=True):
            whole.id.write_direct_chunk((row, *rest), data[end - size : end])
        del data  # or the map could not be closed
