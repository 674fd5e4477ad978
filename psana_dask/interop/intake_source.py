"""intake: runs as entries of a catalogue, through the entry point ``intake.drivers``.

A thin driver: it opens the run and gives the Dataset.  Without intake the module can be imported,
the class not be used.  API: the driver classes of intake 0.7, which intake 2 keeps.
Contract: tests/interop/test_intake.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from psana_dask.errors import MissingLibrary

if TYPE_CHECKING:
    import xarray as xr

    DataSource: Any = object
    Schema: Any = object
else:
    try:
        from intake.source.base import DataSource, Schema
    except ImportError:
        DataSource, Schema = object, None


class PsanaSource(DataSource):
    """A run, as intake opens it.

    Parameters
    ----------
    source : str or list of str
        As for `psana_dask.open`.
    names : list of str, optional
        Detectors and fields, as for `Run.dataset`.
    join : {"inner", "outer"}, optional
    chunks : "auto" or mapping
    metadata : mapping, optional
        intake's.
    **options
        Of `open_run`: ``run, dir, calib, ...``.

    Raises
    ------
    MissingLibrary
        intake is not installed.
    """

    name = "psana"
    version = "0.1.0"
    container = "xarray"
    partition_access = False

    def __init__(
        self,
        source: str | Sequence[str],
        names: Sequence[str] | None = None,
        join: str | None = None,
        chunks: Any = "auto",
        metadata: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if Schema is None:
            raise MissingLibrary("the intake driver needs intake: python -m pip install intake")
        super().__init__(metadata=metadata)
        self._source, self._names, self._join, self._chunks = source, names, join, chunks
        self._options = {key: value for key, value in options.items() if key != "storage_options"}
        self._data: xr.Dataset | None = None

    def to_dask(self) -> xr.Dataset:
        """Return the run as a Dataset of Dask arrays."""
        from psana_dask.opening import open_run

        if self._data is None:
            run = open_run(self._source, **self._options)
            self._data = run.dataset(self._names, join=self._join, chunks=self._chunks)
        return self._data

    def read(self) -> xr.Dataset:
        """Return the run as a Dataset in memory."""
        return self.to_dask().load()

    def read_chunked(self) -> xr.Dataset:
        """Return the run as a Dataset of Dask arrays."""
        return self.to_dask()

    def _get_schema(self) -> Any:
        data = self.to_dask()
        about = {
            **data.attrs,
            "dims": dict(data.sizes),
            "data_vars": {k: list(v.dims) for k, v in data.items()},
        }
        return Schema(datashape=None, dtype=None, shape=None, npartitions=None, extra_metadata=about)

    def _close(self) -> None:
        self._data = None
