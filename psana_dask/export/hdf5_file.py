"""Exports as HDF5 that follows netCDF-4: readable by h5py, and by xarray through h5netcdf.

Chunks are compressed by whoever makes them (`codecs`).  The process that makes all pieces puts them where
they stay (`hdf5_growing`); other processes, workers and job arrays, write a file of their own for each
piece, from which `finish` copies the compressed chunks as they are.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np

from psana_dask.export.codecs import Chunk, Encoder, hdf5_encoder
from psana_dask.export.content import shell
from psana_dask.export.hdf5_growing import Assembly
from psana_dask.export.plan import Column, Piece, Place, Plan, Workshop, write_all

if TYPE_CHECKING:
    import xarray as xr


def begin(workshop: Workshop, groups: Mapping[str, xr.Dataset], plan: Plan, compression: str | None) -> None:
    """Write the skeleton: every group, all small variables, and the large ones without values."""
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    large = {(c.group, c.name): c for c in plan.columns}
    (workshop.folder / "pieces").mkdir(exist_ok=True)
    # Opened once: each opening looks at all groups.
    with Remembering(skeleton(workshop), "w", track_order=True) as hdf5, h5netcdf.File(hdf5, "w") as file:
        for path, data in groups.items():
            mine = {name: large[path, str(name)] for name in data.data_vars if (path, str(name)) in large}
            encoding = {name: _encoding(c, compression) for name, c in mine.items()}
            store = H5NetCDFStore(file if path == "/" else file.create_group(path))
            _plain(shell(data, mine)).dump_to_store(store, encoding=encoding)


class Remembering(h5py.File):
    """A file that looks each of its objects up once: h5netcdf asks for each some thirty times."""

    def __getitem__(self, name: Any) -> Any:
        """Return an object of the file; one that lost its name was removed."""
        known: dict[Any, Any] = self.__dict__.setdefault("_known", {})
        if name not in known or not known[name].name:
            found = super().__getitem__(name)
            if not isinstance(name, str):
                return found
            known[name] = found
        return known[name]


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


def encoder(compression: str | None) -> Encoder:
    """Return what compresses chunks."""
    return hdf5_encoder(compression) or _hdf5_itself(compression)


def write_piece(workshop: Workshop, piece: Piece, chunks: Iterable[Chunk], compression: str | None) -> Place:
    """Write the chunks of one piece to a file of its own, as the result has them."""
    name = f"pieces/{piece.number}.chunks"
    path = workshop.folder / name
    fresh = path.with_suffix(f".{os.getpid()}.new")
    encode = encoder(compression)
    with open(fresh, "wb", buffering=0) as file:
        sizes = [write_all(file, encode(chunk)) for chunk in chunks]
    fresh.replace(path)
    offsets = [0, *accumulate(sizes)][:-1]
    return Place(name, tuple(offsets), tuple(sizes))


def _hdf5_itself(compression: str | None) -> Encoder:
    """Return an encoder that lets HDF5 compress: one thread at a time."""

    def encode(chunk: Chunk) -> bytes:
        with h5py.File(f"chunk{threading.get_ident()}", "w", driver="core", backing_store=False) as file:
            made = file.create_dataset("x", data=chunk.whole(), chunks=chunk.shape, **filters(compression))
            return bytes(made.id.read_direct_chunk((0,) * len(chunk.shape))[1])

    return encode


def together(workshop: Workshop, compression: str | None) -> Assembly:
    """Return a result into which this process puts pieces; `finish` takes it."""
    return Assembly(workshop, skeleton(workshop), encoder(compression))


def finish(workshop: Workshop, plan: Plan, assembly: Assembly | None = None) -> Path:
    """Put the pieces together; return the complete file."""
    if assembly is not None:
        return assembly.finish(plan)
    with together(workshop, None) as fresh:  # what is there already is compressed
        return fresh.finish(plan)
