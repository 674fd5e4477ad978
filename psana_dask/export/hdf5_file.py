"""Exports as HDF5 that follows netCDF-4: readable by h5py, and by xarray through h5netcdf.

HDF5 has one writer per file, so each piece is a file of its own, compressed by whoever
makes it; `finish` copies the compressed chunks into the result as they are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np

from psana_dask.export.content import shell
from psana_dask.export.plan import Column, Piece, Plan, Workshop
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
    return workshop.folder / "pieces" / f"{number}.h5"


def write_piece(workshop: Workshop, piece: Piece, values: Array, compression: str | None) -> None:
    """Write the rows of one piece to a file of its own, compressed."""
    path = _piece_file(workshop, piece.number)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    stored = values.astype(np.int8) if values.dtype.kind == "b" else values  # as netCDF has it
    chunk = (piece.column.chunk, *piece.column.shape[1:])
    whole = -(-len(stored) // chunk[0]) * chunk[0]  # chunks at the end of the variable are whole, too
    with h5py.File(fresh, "w") as file:
        made = file.create_dataset(
            "values", (whole, *stored.shape[1:]), stored.dtype, chunks=chunk, **filters(compression)
        )
        made[: len(stored)] = stored
    fresh.replace(path)


def finish(workshop: Workshop, plan: Plan) -> Path:
    """Copy the chunks of all pieces into the skeleton; return the file, complete and on disk."""
    shutil.copyfile(skeleton(workshop), workshop.data)
    with h5py.File(workshop.data, "r+") as file:
        for piece in plan.pieces:
            with h5py.File(_piece_file(workshop, piece.number), "r") as part:
                _copy(part["values"], file[f"{piece.column.group}/{piece.column.name}"], piece)
    with open(workshop.data, "rb+") as raw:
        os.fsync(raw.fileno())
    return workshop.data


def _copy(part: h5py.Dataset, whole: h5py.Dataset, piece: Piece) -> None:
    """Copy the chunks of one piece without looking into them."""
    rest = (0,) * (part.ndim - 1)
    for row in range(0, piece.stop - piece.start, piece.column.chunk):
        mask, chunk = part.id.read_direct_chunk((row, *rest))
        whole.id.write_direct_chunk((piece.start + row, *rest), chunk, mask)
