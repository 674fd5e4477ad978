"""Zarr without copying: references to the frames where they lie in the files of the run.

The result is what kerchunk calls a reference set, as Parquet tables in a folder or as one JSON
file: names, shapes and attributes of a Zarr (version 2) group, and for each chunk a path, an
offset and a size. xarray, zarr and fsspec open it; this package is not needed. Other values of at
most `SMALL` bytes per event, coordinates and presence are in it as they are.
Contract: tests/export/test_virtual.py.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.dataset import Names, chosen_fields, common_events
from psana_dask.errors import DroppedWarning, ExportError, MissingLibrary
from psana_dask.export.content import time_order
from psana_dask.export.plan import replace
from psana_dask.fields import FrameReader, RaggedReader
from psana_dask.pipeline import SMALL, channel_reader
from psana_dask.sources import FileSource

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.run import Run

Ints = npt.NDArray[np.int64]

RECORD = 100_000
"""References in one Parquet file."""


@dataclass(frozen=True)
class References:
    """Where the chunks of one variable lie, in the order of its chunk grid.

    Parameters
    ----------
    paths : tuple of str
    which : (chunk,) int32
        Position in `paths`, -1: there is no chunk.
    offsets : (chunk,) int64
    size : int
        Bytes of each.
    chunks : tuple of int
        Shape of each.
    """

    paths: tuple[str, ...]
    which: npt.NDArray[np.int32]
    offsets: Ints
    size: int
    chunks: tuple[int, ...]

    @property
    def missing(self) -> int:
        """How many chunks there are not."""
        return int(np.count_nonzero(self.which < 0))


def to_virtual_zarr(
    run: Run,
    path: str | os.PathLike[str],
    names: Names = None,
    *,
    join: str | None = None,
    overwrite: bool = False,
) -> dict[str, str]:
    """Write references to the raw frames of a run; see `Run.to_virtual_zarr`."""
    place = Path(path)
    if place.exists() and not overwrite:
        raise ExportError(f"{place} is there already: overwrite=True replaces it")
    if run._recording.format == "export":
        raise ExportError(f"{run.files[0]} is an export already: xarray and zarr open it as it is")
    sheet = Sheet.of(time_order(run), names, join)
    fresh = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        (_write_json if place.suffix == ".json" else _write_parquet)(sheet, fresh)
        replace(fresh, place)
    except OSError as error:
        raise ExportError(f"cannot write {place}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.unlink(missing_ok=True)
    return sheet.left_out


# ---- which variables can be virtual -------------------------------------------------------------
@dataclass(frozen=True)
class Sheet:
    """What goes into a reference set.

    Parameters
    ----------
    data : Dataset
        All variables; those with references are never asked for their values.
    references : mapping of str to References
    left_out : mapping of str to str
        Variables that cannot be virtual, and why.
    """

    data: xr.Dataset
    references: Mapping[str, References]
    left_out: dict[str, str]

    @classmethod
    def of(cls, run: Run, names: Names, join: str | None) -> Sheet:
        """Sort the variables of a run."""
        chosen = chosen_fields(run._view, names)
        if join == "inner" or (join is None and names is not None):
            kept = common_events(run._view, chosen).numbers
            run = run.isel(np.flatnonzero(np.isin(run._view.choice.numbers, kept)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DroppedWarning)  # what no event has is no variable
            data = run.dataset(names, join="outer", chunks=None)
        references: dict[str, References] = {}
        left_out: dict[str, str] = {}
        for detector, fields in chosen.items():
            for field in fields:
                name = f"{detector}_{field}"
                if name in data:
                    found = _references(run, detector, field, data[name])
                    if isinstance(found, References):
                        references[name] = found
                    elif found:
                        left_out[name] = found
        gone = [n for n in data.variables if str(n) in left_out or str(n).removesuffix("_count") in left_out]
        attrs = {"left_out": json.dumps(left_out), "missing_chunks": json.dumps(_missing(references))}
        return cls(data.drop_vars(gone).assign_attrs(attrs), references, left_out)

    @cached_property
    def encoded(self) -> dict[str, bytes]:
        """Metadata, and the chunks of what is kept by value, by key."""
        by_value = _as_zarr(self.data.drop_vars(list(self.references)), {})
        encoding: dict[str, Any] = {
            n: {"chunks": r.chunks, "compressors": None} for n, r in self.references.items()
        }
        hollow = self.data[list(self.references)].isel(time=slice(0), missing_dims="ignore")
        for name in self.references:
            variable = hollow[name].variable
            hollow[name] = variable.copy(data=np.empty(variable.shape, variable.dtype))
        homes = tuple(f"{name}/" for name in self.references)
        about = {k: v for k, v in _as_zarr(hollow, encoding).items() if k.startswith(homes)}
        return by_value | about

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Metadata as JSON has it, by key."""
        found = {k: json.loads(v) for k, v in self.encoded.items() if _is_metadata(k)}
        for name in self.references:  # a chunk that is missing reads as what this package has for it
            about = found[f"{name}/.zarray"]
            about["shape"] = list(self.data[name].shape)
            about["fill_value"] = "NaN" if np.dtype(about["dtype"]).kind == "f" else None
        return found

    def chunks(self, name: str) -> list[bytes]:
        """Return the chunks of a variable that is kept by value, in the order of its chunk grid."""
        about = self.metadata[f"{name}/.zarray"]
        grid = [-(-s // c) for s, c in zip(about["shape"], about["chunks"], strict=True)]
        return [self.encoded[f"{name}/{'.'.join(map(str, at))}"] for at in np.ndindex(*grid)]


def _as_zarr(data: xr.Dataset, encoding: dict[str, Any]) -> dict[str, bytes]:
    """Return metadata and chunks of a Dataset, by key."""
    from zarr.storage import MemoryStore

    store = MemoryStore()
    data.to_zarr(store, zarr_format=2, consolidated=False, encoding=encoding, write_empty_chunks=True)
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


def _is_metadata(key: str) -> bool:
    return key.rpartition("/")[2].startswith(".z")


def _missing(references: Mapping[str, References]) -> dict[str, int]:
    return {name: found.missing for name, found in references.items() if found.missing}


def _references(run: Run, detector: str, field: str, variable: xr.DataArray) -> References | str | None:
    """Return where a field lies; why it cannot be virtual; or None if it is small enough to be kept."""
    view = run._view
    channel = view.entries[detector].channels[field]
    reader = channel_reader(view.recording, channel.id, view.keep_damaged)
    if isinstance(reader, RaggedReader):
        return "ragged: each event has another number of values"
    is_small = _event_bytes(variable) <= SMALL
    if not isinstance(reader, FrameReader) or (is_small and (len(reader.panel_shape) < 2 or reader.decoded)):
        return None
    if reader.decoded:
        return reader.decoded
    sources, which, offsets = reader.places(view.choice.numbers)
    if not all(isinstance(source, FileSource) for source in sources):
        return "not in a file"
    item = int(np.prod(reader.panel_shape, dtype=np.int64)) * reader.dtype.itemsize
    group = _neighbours(which, offsets, item)
    panels = (group,) if variable.ndim > 1 + len(reader.panel_shape) else ()
    return References(
        paths=tuple(os.path.abspath(s.name) for s in sources),
        which=np.ascontiguousarray(which[:, ::group]).reshape(-1),
        offsets=np.ascontiguousarray(offsets[:, ::group]).reshape(-1),
        size=group * item,
        chunks=(1, *panels, *reader.panel_shape),
    )


def _event_bytes(variable: xr.DataArray) -> int:
    return variable.nbytes // max(1, variable.shape[0])


def _neighbours(which: npt.NDArray[np.int32], offsets: Ints, size: int) -> int:
    """Return how many panels follow each other in the files, in all events: they are one chunk."""
    panels = which.shape[1]
    follows = np.all(
        (which[:, 1:] == which[:, :-1]) & ((which[:, 1:] < 0) | (np.diff(offsets, axis=1) == size)), axis=0
    )
    for group in range(panels, 1, -1):
        inside = np.arange(1, panels) % group != 0
        if panels % group == 0 and follows[inside].all():
            return group
    return 1


# ---- to files -----------------------------------------------------------------------------------
def _write_json(sheet: Sheet, path: Path) -> None:
    """Write everything into one file: for some ten thousand references."""
    refs: dict[str, Any] = {key: json.dumps(value) for key, value in sheet.metadata.items()}
    for key, value in sheet.encoded.items():
        if key not in refs:
            refs[key] = f"base64:{base64.b64encode(value).decode()}"
    for name, found in sheet.references.items():
        refs.update((f"{name}/{key}", place) for key, place in _places(sheet, name, found))
    with open(path, "w") as file:
        json.dump({"version": 1, "refs": refs}, file)
        file.flush()
        os.fsync(file.fileno())


def _places(sheet: Sheet, name: str, found: References) -> Iterator[tuple[str, list[Any]]]:
    """Yield key and place of each chunk that there is."""
    grid = [-(-s // c) for s, c in zip(sheet.data[name].shape, found.chunks, strict=True)]
    for at, number, offset in zip(
        np.ndindex(*grid), found.which.tolist(), found.offsets.tolist(), strict=True
    ):
        if number >= 0:
            yield ".".join(map(str, at)), [found.paths[number], offset, found.size]


def _write_parquet(sheet: Sheet, folder: Path) -> None:
    """Write tables of `RECORD` references each, which readers load when they are wanted."""
    try:
        from pyarrow import parquet
    except ImportError:
        what = "references as Parquet (x.json needs nothing)"
        raise MissingLibrary.of("pyarrow", "virtual", what) from None
    folder.mkdir()
    for name in sheet.data.variables:
        home = folder / str(name)
        home.mkdir()
        found = sheet.references.get(str(name))
        tables = _raw_tables(sheet.chunks(str(name))) if found is None else _tables(found)
        for number, table in enumerate(tables):
            parquet.write_table(table, home / f"refs.{number}.parq", compression="zstd")
    (folder / ".zmetadata").write_text(json.dumps({"metadata": sheet.metadata, "record_size": RECORD}))


def _raw_tables(chunks: list[bytes]) -> Iterator[Any]:
    import pyarrow as pa

    for first in range(0, len(chunks), RECORD):
        yield pa.table({"raw": pa.array(chunks[first : first + RECORD], pa.binary())})


def _tables(found: References) -> Iterator[Any]:
    import pyarrow as pa

    paths = pa.array(found.paths, pa.string())
    for first in range(0, len(found.which), RECORD):
        here = slice(first, first + RECORD)
        there = found.which[here] >= 0
        which = pa.array(found.which[here], pa.int32(), mask=~there)
        yield pa.table(
            {
                "path": pa.DictionaryArray.from_arrays(which, paths),
                "offset": pa.array(np.where(there, found.offsets[here], 0)),
                "size": pa.array(np.where(there, found.size, 0)),
            }
        )
