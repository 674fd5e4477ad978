"""Scalars of a run as one Parquet file: what `Run.dataframe` gives, a row for each event.

A partition at a time is read and written. The file grows beside its place and gets its name when it is whole.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psana_dask.errors import ExportError, MissingLibrary
from psana_dask.export.content import Wanted, root_attrs
from psana_dask.pipeline import SCALAR_CHUNK

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.run import Run

ROWS = SCALAR_CHUNK
"""Rows that are read and written at once."""


def export_table(
    run: Run, path: Path, wanted: Wanted, *, own: xr.Dataset | None, compression: str | None, overwrite: bool
) -> Path:
    """Write the scalars of a run, and variables of your own along time; see `psana_dask.export.export`."""
    if wanted.roi or wanted.bundle or wanted.photon_energy is not None or wanted.distance is not None:
        raise ExportError(f"{path}: a table has neither regions nor constants nor a beam")
    if path.exists() and not overwrite:
        raise ExportError(f"{path} is there already: overwrite=True replaces it")
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        _write(run, fresh, wanted, own, compression)
        fresh.replace(path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return path


def _write(run: Run, path: Path, wanted: Wanted, own: xr.Dataset | None, compression: str | None) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingLibrary.of("pyarrow", "frame", "writing Parquet") from None
    names: Any = wanted.names
    table = run.dataframe(names, epics=names is None, partition=ROWS)
    about = {k.encode(): json.dumps(v).encode() for k, v in root_attrs(run).items()}
    writer = None
    with open(path, "wb") as file:
        for part in table.partitions:
            rows = pa.Table.from_pandas(_with_own(part.compute(), own))
            if writer is None:
                schema = rows.schema.with_metadata({**(rows.schema.metadata or {}), **about})
                writer = parquet.ParquetWriter(file, schema, compression=compression or "none")
            writer.write_table(rows.cast(writer.schema))
        if writer is not None:
            writer.close()
        file.flush()
        os.fsync(file.fileno())


def _with_own(rows: Any, own: xr.Dataset | None) -> Any:
    """Add variables along time; events that they lack are NaN."""
    if own is None:
        return rows
    lines = [n for n, v in own.data_vars.items() if v.dims != ("time",)]
    if lines:
        raise ExportError(f"own variable {lines[0]} is {own[lines[0]].dims}: a table has time only")
    return rows.join(own.drop_vars([n for n in own.coords if n != "time"]).to_dataframe())
