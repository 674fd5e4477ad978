"""psana's small data: one HDF5 file with a row for every event that a script says something about.

Rows are in the order of the events.  What an event lacks is NaN in floats, '' in text, an empty list,
and -99999 in integers, as in psana; ``<name>_present`` beside it says where that is so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.pipeline import catalog_of
from psana_dask.psana.ddl import title_of
from psana_dask.psana.detectors import EvrDetector, ObjectDetector
from psana_dask.psana.environment import ConfigStore

if TYPE_CHECKING:
    import h5py

    from psana_dask.psana.datasource import MPIDataSource
    from psana_dask.psana.events import Event

MISSING = -99999
"""psana's integer for what an event lacks."""


@dataclass
class Column:
    """One column of the file.

    Parameters
    ----------
    name : str
        With ``/`` between groups.
    dtype : numpy.dtype or None
        None: text.
    shape : tuple of int
        Of one row.
    rows : int
        Written so far.
    present : list of bool
        Of all rows.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...] = ()
    rows: int = 0
    present: list[bool] = field(default_factory=list)

    @property
    def varies(self) -> bool:
        """Whether rows have different lengths, written one after another (``var_``)."""
        return "var_" in self.name

    @property
    def ragged(self) -> bool:
        """Whether rows are lists of their own (``ragged_``)."""
        return self.name.rpartition("/")[2].startswith("ragged_")

    @property
    def nothing(self) -> Any:
        """What stands where an event has no value."""
        if self.dtype is None:
            return ""
        if self.varies or self.ragged:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        if self.dtype.kind in "fc":
            return np.full(self.shape, np.nan, self.dtype)
        return np.full(self.shape, MISSING, np.int64 if _too_small(self.dtype) else self.dtype)


def column_for(name: str, value: Any) -> Column:
    """Return the column that a first value makes; numbers as psana stores them.

    Raises
    ------
    TypeError
        The value is no number, text or array of numbers.
    """
    if isinstance(value, str):
        return Column(name, None)
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"{name} is a {type(value).__name__}: small data are numbers, text and arrays of numbers"
        )
    dtype = np.dtype(np.int64) if array.dtype.kind == "b" else array.dtype
    return Column(name, dtype, array.shape)


class Rows:
    """Rows of columns, written to an HDF5 file some at a time.

    Parameters
    ----------
    path : path, optional
        None: nothing is kept.
    batch : int
        Rows that are written at once.
    """

    def __init__(self, path: str | os.PathLike[str] | None, batch: int) -> None:
        self._path, self._batch = path, max(1, batch)
        self._columns: dict[str, Column] = {}
        self._waiting: list[dict[str, Any]] = []
        self._written = 0
        self._file: h5py.File | None = None

    def __len__(self) -> int:
        return self._written + len(self._waiting)

    @property
    def last(self) -> dict[str, Any] | None:
        """The row that was begun last and may still be added to."""
        return self._waiting[-1] if self._waiting else None

    def begin(self, row: dict[str, Any]) -> None:
        """Begin a row; full batches before it are written."""
        if len(self._waiting) >= self._batch:
            self.write()
        self._waiting.append(row)

    def write(self) -> None:
        """Write the rows that wait."""
        rows, self._waiting = self._waiting, []
        if self._path is None or not rows:
            self._written += len(rows)
            return
        for name in dict.fromkeys(key for row in rows for key in row):
            if name not in self._columns:
                first = next(row[name] for row in rows if name in row)
                column = self._columns[name] = column_for(name, first)
                self._append(column, [column.nothing] * self._written, [False] * self._written)
        for name, column in self._columns.items():
            there = [name in row for row in rows]
            self._append(column, [row.get(name, column.nothing) for row in rows], there)
        self._written += len(rows)

    def _append(self, column: Column, values: list[Any], there: list[bool]) -> None:
        column.present += there
        if column.varies:
            self._extend(f"{column.name}_len", np.array([len(np.atleast_1d(v)) for v in values], np.int64))
            flat = [np.atleast_1d(v) for v in values]
            values = np.concatenate(flat) if flat else column.nothing  # type: ignore[assignment]
            self._extend(column.name, np.asarray(values, column.dtype))
        elif column.ragged:
            self._extend_lists(column, values)
        elif column.dtype is None:
            self._extend_text(column.name, values)
        else:
            self._extend(column.name, self._stacked(column, values, there))

    def _stacked(self, column: Column, values: list[Any], there: list[bool]) -> NDArray[Any]:
        """Return rows as one array; its type grows where a float comes, or psana's -99999."""
        assert column.dtype is not None  # noqa: S101
        for value in values:
            if np.shape(value) != column.shape:
                what = f"{column.name} had the shape {column.shape}, now {np.shape(value)}"
                raise ValueError(f"{what}: call it var_{column.name} or ragged_{column.name}")
        dtype = _common(
            [column.dtype, *(np.asarray(v).dtype for v, t in zip(values, there, strict=True) if t)]
        )
        if dtype.kind == "b" or (dtype.kind in "iu" and not all(there) and _too_small(dtype)):
            dtype = np.dtype(np.int64)
        if dtype != column.dtype:
            self._retype(column, dtype)
            values = [v if t else column.nothing for v, t in zip(values, there, strict=True)]
        return np.array(values, dtype).reshape(len(values), *column.shape)

    def _retype(self, column: Column, dtype: np.dtype[Any]) -> None:
        """Write a column anew in another type."""
        column.dtype = dtype
        file = self._open()
        if column.name not in file:
            return
        before = file[column.name][...].astype(dtype)
        lacking = ~np.array(column.present[: len(before)], bool)
        before[lacking] = column.nothing
        del file[column.name]
        self._extend(column.name, before)

    # ---- the file -----------------------------------------------------------------------------
    def _open(self) -> Any:
        import h5py

        if self._file is None:
            self._file = h5py.File(self._path, "w")
        return self._file

    def _extend(self, name: str, values: NDArray[Any]) -> None:
        file = self._open()
        if name not in file:
            file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), chunks=True)
            return
        data = file[name]
        data.resize(len(data) + len(values), axis=0)
        if len(values):
            data[-len(values) :] = values

    def _extend_text(self, name: str, values: list[str]) -> None:
        import h5py

        self._extend_objects(name, values, h5py.string_dtype())

    def _extend_lists(self, column: Column, values: list[Any]) -> None:
        import h5py

        self._extend_objects(column.name, [np.ravel(v) for v in values], h5py.vlen_dtype(column.dtype))

    def _extend_objects(self, name: str, values: list[Any], dtype: Any) -> None:
        file = self._open()
        data = file[name] if name in file else file.create_dataset(name, (0,), dtype, maxshape=(None,))
        first = len(data)
        data.resize(first + len(values), axis=0)
        for k, value in enumerate(values):
            data[first + k] = value

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write what waits, where values are missing, and the summary; close the file."""
        self.write()
        if self._path is None:
            return
        file = self._open()
        for column in self._columns.values():
            if not all(column.present):
                self._extend(f"{column.name}_present", np.array(column.present, bool))
        for name, value in summary.items():
            file[name] = value if isinstance(value, str) else np.atleast_1d(value)
        file.close()
        self._path, self._file = None, None


def _common(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """Return a type for all; whole numbers stay whole (numpy makes floats of uint64 and int64)."""
    found = np.result_type(*set(dtypes))
    return np.dtype(np.int64) if found.kind == "f" and all(d.kind in "iub" for d in dtypes) else found


def _too_small(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "u" or np.iinfo(dtype).min > MISSING


def flattened(mappings: Sequence[Mapping[str, Any]], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings as one: ``{"a": {"b": 1}}`` gives ``{"a/b": 1}``; None is left out."""
    found: dict[str, Any] = {}
    for mapping in (*mappings, keywords):
        for name, value in mapping.items():
            if isinstance(value, Mapping):
                found |= {f"{name}/{inner}": v for inner, v in flattened([value], {}).items()}
            elif value is not None:
                found[name] = value
    return found


class Reduced:
    """Reductions over ranks, in one process: the value itself."""

    def sum(self, value: Any) -> Any:
        """Return the value: there is one rank."""
        return value

    def max(self, value: Any) -> Any:
        """Return the value: there is one rank."""
        return value

    def min(self, value: Any) -> Any:
        """Return the value: there is one rank."""
        return value


# ---- psana --------------------------------------------------------------------------------------
class SmallData(Reduced):
    """psana's small data; made by `MPIDataSource.small_data`.

    Every row has ``event_time`` (seconds << 32 | nanoseconds) and ``fiducials``, and what psana takes
    along: ``ebeam/*``, ``phase_cav/*``, ``gas_detector/*`` and ``evr/code_<n>``.

    Parameters
    ----------
    source : MPIDataSource
    filename : path, optional
    keys_to_save : iterable of str
        Columns to write; all by default.
    gather_interval : int
        Rows that are written at once.

    Examples
    --------
    >>> small = ds.small_data("run54.h5", gather_interval=100)
    >>> small.event(total=total, roi={"a": a, "b": b})
    >>> small.save(mean=mean)
    """

    def __init__(
        self, source: MPIDataSource, filename: str | os.PathLike[str] | None, keys_to_save: Iterable[str],
        gather_interval: int,
    ) -> None:  # fmt: skip
        self._source, self._keys = source, set(keys_to_save)
        self._rows = Rows(filename, gather_interval)
        self._monitors: list[Callable[[dict[str, Any]], None]] = []
        self._summary: dict[str, Any] = {}
        self._at: Event | None = None
        self._along = Along(source)

    def event(self, *mappings: Mapping[str, Any], **values: Any) -> None:
        """Add values of the event that the loop is at; several calls add to one row."""
        at = self._source._event
        if at is None:
            raise RuntimeError("small data are of an event: call event() within the loop over ds.events()")
        if at is not self._at:
            self._tell()
            self._rows.begin(self._kept(self._along.of(at), always=("event_time", "fiducials")))
            self._at = at
        row = self._rows.last
        assert row is not None  # noqa: S101  (it was begun)
        row |= self._kept(flattened(mappings, values))

    def _kept(self, values: dict[str, Any], always: tuple[str, ...] = ()) -> dict[str, Any]:
        if not self._keys:
            return values
        return {name: v for name, v in values.items() if name in self._keys or name in always}

    def _tell(self) -> None:
        row = self._rows.last
        for monitor in self._monitors:
            if row is not None:
                monitor(dict(row))

    def add_monitor_function(self, function: Callable[[dict[str, Any]], None]) -> None:
        """Call a function with each row."""
        self._monitors.append(function)

    def save(self, *mappings: Mapping[str, Any], **values: Any) -> None:
        """Add what is of no event, and finish the file."""
        self._summary |= flattened(mappings, values)
        self.close()

    def close(self) -> None:
        """Finish the file."""
        self._tell()
        self._rows.close(self._summary)


class Along:
    """What psana writes into every row.

    Parameters
    ----------
    source : MPIDataSource
    """

    def __init__(self, source: MPIDataSource) -> None:
        self._source = source
        self._objects: list[tuple[str, Mapping[str, str], ObjectDetector]] | None = None
        self._receivers: list[EvrDetector] = []
        self._codes: list[int] = []

    def of(self, event: Event) -> dict[str, Any]:
        """Return the values of one event."""
        if self._objects is None:
            self._look()
        seconds, nanoseconds = divmod(event._unix_word, 1 << 32)
        row: dict[str, Any] = {
            "event_time": seconds << 32 | nanoseconds,
            "fiducials": event._fact("fiducial"),
        }
        for group, names, detector in self._objects or ():
            found = detector.get(event)
            known = () if found is None else dir(found)
            row |= {
                f"{group}/{ours}": getattr(found, name)() for ours, name in names.items() if name in known
            }
        codes = [c for c in (r.eventCodes(event) for r in self._receivers) if c is not None]
        if codes:
            seen = {code for some in codes for code in some}
            row |= {f"evr/code_{code}": int(code in seen) for code in self._codes}
        return row

    def _look(self) -> None:
        """Find out which of these detectors the run has, and which codes the receivers were set up for."""
        run = self._source._run()
        catalog = catalog_of(run.native._recording)
        there = [(name, group) for name, group in GROUPS.items() if catalog.find(name) is not None]
        self._objects = [(group, ALONG[group], ObjectDetector(name, self._source)) for name, group in there]
        entries = catalog.detectors.values()
        receivers = [e.name for e in entries if e.det_type == "Evr" and "event_codes" in e.channels]
        self._receivers = [EvrDetector(name, self._source) for name in receivers]
        records = [record for record, _, _ in ConfigStore(run)._records("")]
        configured = [
            r for r in records if title_of(r).startswith("EvrData.Config") and "eventcodes" in dir(r)
        ]
        self._codes = sorted({code.code() for record in configured for code in record.eventcodes()})


GROUPS = {"EBeam": "ebeam", "PhaseCavity": "phase_cav", "FEEGasDetEnergy": "gas_detector"}
ALONG: Mapping[str, Mapping[str, str]] = {
    "ebeam": {
        "charge": "ebeamCharge", "dump_charge": "ebeamDumpCharge", "L3_energy": "ebeamL3Energy",
        "photon_energy": "ebeamPhotonEnergy", "pk_curr_bc2": "ebeamPkCurrBC2", "LTU_pos_x": "ebeamLTUPosX",
        "LTU_pos_y": "ebeamLTUPosY", "LTU_ang_x": "ebeamLTUAngX", "LTU_ang_y": "ebeamLTUAngY",
        "und_pos_x": "ebeamUndPosX", "und_pos_y": "ebeamUndPosY", "und_ang_x": "ebeamUndAngX",
        "und_ang_y": "ebeamUndAngY", "XTCAV_ampl": "ebeamXTCAVAmpl", "XTCAV_phase": "ebeamXTCAVPhase",
        "LTU_250": "ebeamLTU250", "LTU_450": "ebeamLTU450",
    },
    "phase_cav": {
        "charge1": "charge1", "charge2": "charge2", "fit_time_1": "fitTime1", "fit_time_2": "fitTime2",
    },
    "gas_detector": {f"f_{n}_ENRC": f"f_{n}_ENRC" for n in (11, 12, 21, 22, 63, 64)},
}  # fmt: skip
"""Columns of psana's file, and the accessors that they come from."""


# ---- psana2 -------------------------------------------------------------------------------------
class SmallDataFile(Reduced):
    """psana2's small data; made by `DataSource.smalldata`.

    Parameters
    ----------
    filename : path, optional
    batch_size : int
        Rows that are written at once.
    callbacks : sequence of callable
        Called with each row as a dict.

    Examples
    --------
    >>> smd = ds.smalldata(filename="run1.h5", batch_size=100)
    >>> smd.event(evt, total=total)
    >>> if smd.summary:
    ...     smd.save_summary(mean=mean)
    >>> smd.done()
    """

    summary = True

    def __init__(
        self, filename: str | os.PathLike[str] | None, batch_size: int,
        callbacks: Sequence[Callable[[dict[str, Any]], None]],
    ) -> None:  # fmt: skip
        self._rows, self._callbacks = Rows(filename, batch_size), list(callbacks)
        self._summary: dict[str, Any] = {}

    def event(
        self, event: Any, *mappings: Mapping[str, Any], align_group: str | None = None, **values: Any
    ) -> None:
        """Add values of an event (or of a timestamp); several calls for one add to one row."""
        timestamp = event if isinstance(event, int) else event.timestamp
        row = self._rows.last
        if row is None or row["timestamp"] != timestamp:
            self._tell()
            row = {"timestamp": timestamp}
            self._rows.begin(row)
        row |= flattened(mappings, values)

    def _tell(self) -> None:
        row = self._rows.last
        for callback in self._callbacks:
            if row is not None:
                callback(dict(row))

    def save_summary(self, *mappings: Mapping[str, Any], **values: Any) -> None:
        """Add what is of no event."""
        self._summary |= flattened(mappings, values)

    def done(self) -> None:
        """Finish the file."""
        self._tell()
        self._rows.close(self._summary)
