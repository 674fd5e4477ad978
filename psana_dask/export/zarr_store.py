"""Exports as Zarr v3: one group per detector, shards of whole pieces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psana_dask.export.content import shell
from psana_dask.export.plan import Column, Piece, Plan, Workshop
from psana_dask.model import Array

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


def write_piece(workshop: Workshop, piece: Piece, values: Array, compression: str | None) -> None:
    """Write the rows of one piece."""
    import zarr

    del compression  # it is in the skeleton
    group = zarr.open_group(workshop.data, path=piece.column.group.strip("/"), mode="r+")
    array = group[piece.column.name]
    array[piece.start : piece.stop] = values  # type: ignore[index]


def finish(workshop: Workshop, plan: Plan) -> Path:
    """Return what is complete now."""
    del plan
    return workshop.data
