"""A run: what is in it, and the ways to its events.

A `Run` is a view: selecting gives another Run over fewer events of the same recording.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.choice import Choice
from psana_dask.dataset import (
    Names,
    View,
    chosen_fields,
    detector_dataset,
    event_coords,
    event_facts,
    run_attrs,
    run_dataset,
)
from psana_dask.detector import Detector
from psana_dask.errors import DroppedWarning, NameNotFound, near_names, suggestion
from psana_dask.evr import CodeCondition, Evr
from psana_dask.indexing import labelled
from psana_dask.keys import parse_keys, times
from psana_dask.model import Problem
from psana_dask.pipeline import catalog_of
from psana_dask.recording import Recording
from psana_dask.results import EventResults
from psana_dask.selection import Condition, is_mask, key_positions, positions
from psana_dask.settings import DetectorConfig
from psana_dask.slow import Epics, detector_config, steps_of, steps_table

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from psana_dask.archive import ArchiveRange
    from psana_dask.readouts import Readouts


class Run(EventResults):
    """Events of one run.

    Detectors are attributes (``run.cspad``) and items (``run["cspad"]``, with any spelling;
    ``run["cspad", "raw"]`` is one field). Made by `open_run`.

    Parameters
    ----------
    view : View
    history : tuple of str
        What was selected so far, for the repr.

    Examples
    --------
    >>> run = psana_dask.open("exp=xpptut15:run=54")
    >>> run.cspad.image.isel(time=0)
    """

    def __init__(self, view: View, history: tuple[str, ...] = ()) -> None:
        self._view = view
        self._history = history

    # ---- facts --------------------------------------------------------------------------------
    @property
    def experiment(self) -> str | None:
        """Name of the experiment.

        Examples
        --------
        >>> run.experiment
        """
        return self._recording.experiment

    @property
    def number(self) -> int | None:
        """Run number.

        Examples
        --------
        >>> run.number
        """
        return self._recording.number

    @property
    def format(self) -> str:
        """File format: ``"xtc2"`` (LCLS-II) or ``"xtc"`` (LCLS-1).

        Examples
        --------
        >>> run.format
        """
        return self._recording.format

    @property
    def files(self) -> list[str]:
        """Paths of the data files.

        Examples
        --------
        >>> run.files[0]
        """
        return list(dict.fromkeys(path for stream in self._recording.streams for path in stream.parts))

    @property
    def start(self) -> np.datetime64:
        """Time of the first event (NaT without events).

        Examples
        --------
        >>> run.start
        """
        return self._view.time[0] if len(self) else np.datetime64("NaT", "ns")

    @property
    def stop(self) -> np.datetime64:
        """Time of the last event (NaT without events).

        Examples
        --------
        >>> run.stop - run.start
        """
        return self._view.time[-1] if len(self) else np.datetime64("NaT", "ns")

    @property
    def problems(self) -> pd.DataFrame:
        """What is wrong with the run: file, offset, event, what.

        Examples
        --------
        >>> run.problems
        """
        import pandas as pd

        return pd.DataFrame(self._all_problems, columns=list(Problem._fields))

    @cached_property
    def _all_problems(self) -> list[Problem]:
        found = list(self._recording.problems) + self.epics.problems
        for entry in self._view.entries.values():
            for channel in entry.channels.values():
                if self._view.exists(channel):
                    reader = self._view.target(channel).reader()
                    found += getattr(reader, "odd", list)()
        return found

    @property
    def _recording(self) -> Recording:
        return self._view.recording

    def __len__(self) -> int:
        return len(self._view.choice)

    # ---- what is in it ------------------------------------------------------------------------
    @property
    def detectors(self) -> Mapping[str, Detector]:
        """Detectors by name.

        Examples
        --------
        >>> list(run.detectors)
        >>> run.detectors["gmd"].facts()
        """
        return Detectors({name: Detector(self._view, e) for name, e in self._view.entries.items()})

    def __getitem__(self, name: str | tuple[str, str]) -> Any:
        detector, field = name if isinstance(name, tuple) else (name, None)
        if field is None and catalog_of(self._recording).find(detector) is None and "." in detector:
            detector, _, field = detector.partition(".")
        found = Detector(self._view, self._view.find(detector))
        return found if field is None else found.field(field)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        plain = name[:-1] if name.endswith("_") and name[:-1] in self._view.entries else name
        if plain not in self._view.entries:
            if name == "timetool":
                return self._time_tool()
            calls = near_names(name, (call for call in dir(type(self)) if not call.startswith("_")), 1)
            if calls and not near_names(name, self._view.entries):
                raise AttributeError(f"no detector or call {name!r}; did you mean {calls[0]}?")
            raise AttributeError(f"no detector {name!r}{suggestion(name, self._view.entries)}")
        return Detector(self._view, self._view.entries[plain])

    def _time_tool(self) -> xr.Dataset:
        """Return the time tool's results, whoever wrote them: ``run.timetool``."""
        from psana_dask.analysis.timetool import time_tool

        try:
            return time_tool(self)
        except NameNotFound as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        own = super().__dir__()
        return [*own, *(f"{n}_" if n in own else n for n in self._view.entries)]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._view.entries)

    def search(self, text: str) -> list[str]:
        """Return detectors, fields and EPICS variables whose names or PVs contain `text`.

        Where none does, those that are spelled like it.

        Parameters
        ----------
        text : str
            Capitals do not matter.

        Examples
        --------
        >>> run.search("temp")
        ['temperature', 'TST:TEMP']
        """
        wanted = text.lower()
        names = list(self._view.entries)
        names += [f"{n}.{f}" for n, e in self._view.entries.items() for f in e.channels]
        names += [n for s in self.epics.series.values() for n in s.spellings]
        return [n for n in names if wanted in n.lower()] or near_names(text, names)

    def config(self, detector: str, time: Any = None) -> DetectorConfig:
        """Return the settings of a detector, at a time or at the end of the run.

        Parameters
        ----------
        detector : str
        time : event key, optional

        Raises
        ------
        NameNotFound

        Examples
        --------
        >>> run.config("epixquad").expert.trbit
        >>> run.config("epixquad", run.start)
        """
        until = None if time is None else times(time, self._recording.data_format).reshape(-1)[0]
        entry = catalog_of(self._recording).find(detector)
        if entry is None:
            raise NameNotFound.of("detector", detector, self._view.entries)
        return detector_config(self._recording, entry.alias, until)

    # ---- slow data ----------------------------------------------------------------------------
    @cached_property
    def epics(self) -> Epics:
        """EPICS variables: ``run.epics["PV"]`` at their own rate, ``run.epics.at(time)`` as steps.

        Examples
        --------
        >>> run.epics["TST:SAMPLE:TEMP"]
        """
        return Epics(self._recording, self._view.time)

    @property
    def archiver(self) -> ArchiveRange:
        """EPICS variables from the archiver ``$PSANA_DASK_ARCHIVER``: ``run.archiver["PV"]``.

        Examples
        --------
        >>> run.archiver["XPP:ROOM:TEMP"]  # doctest: +SKIP
        """
        from psana_dask.archive import ArchiveRange, archiver

        return ArchiveRange(archiver(), self.start, self.stop, self._view.time)

    @property
    def evr(self) -> Evr:
        """Event codes.

        Examples
        --------
        >>> run.evr[90]
        >>> run.select(run.evr.has(90))
        """
        return Evr(self._view)

    def flags(self, rules: Mapping[str, Sequence[int]]) -> xr.Dataset:
        """Return boolean variables from event codes: ``{"laser_on": [90, -162]}``.

        Examples
        --------
        >>> run.flags({"laser_on": [90, -162], "dropped": [162]})
        """
        import xarray as xr

        masks = {n: ("time", CodeCondition(tuple(codes)).mask(self._view)) for n, codes in rules.items()}
        return xr.Dataset(masks, {"time": self._view.time})

    @property
    def steps(self) -> pd.DataFrame:
        """One row per scan step: start, stop, events, scan values.

        Examples
        --------
        >>> run.steps.delay
        """
        return steps_table(self._recording, self._recording.events.step[self._view.choice.numbers])

    @property
    def scan(self) -> xr.Dataset:
        """Scan values of each step.

        Examples
        --------
        >>> run.scan.delay
        """
        import xarray as xr

        steps = steps_of(self._recording)
        values = {name: ("step", column) for name, column in steps.values.items()}
        times = {"start": ("step", steps.start), "stop": ("step", steps.stop)}
        return xr.Dataset(values, {"step": np.arange(len(steps)), **times})

    # ---- events -------------------------------------------------------------------------------
    @property
    def events(self) -> xr.Dataset:
        """The event table: time, timestamp, step, pulse_id or fiducial, and which streams have each event.

        LCLS-1 has also ``l3`` (0 none, 1 pass, 2 fail), ``trimmed`` (L3 threw the payload away),
        ``recorder_only`` (no DAQ stream has the event), ``vector``, ``ticks`` and ``dgram_damage``.
        ``run.events.to_dataframe()`` has a row for each event.

        Examples
        --------
        >>> run.events.time[3].values
        >>> run.events.step
        """
        import xarray as xr

        recording, numbers = self._recording, self._view.choice.numbers
        table = recording.events.rows[:, numbers] >= 0
        streams = [s.stream for s in recording.streams]
        data: dict[str, Any] = event_facts(self._view)
        data |= {f"stream_{n}": ("time", there) for n, there in zip(streams, table, strict=True)}
        return xr.Dataset(data, event_coords(self._view), run_attrs(self._view))

    def select(self, wanted: Any) -> Run:
        """Return a Run over fewer events.

        Parameters
        ----------
        wanted : condition, mask, times or slice
            ``run.evr.has(90, -162)``; a boolean array or DataArray (aligned on time); event
            keys in any form; a slice of positions or of times.

        Examples
        --------
        >>> run.select(run.evr.has(90, -162))
        >>> run.select(run.gmd.milliJoulesPerPulse > 0.3)
        """
        wanted = labelled(wanted)
        chosen = positions(self._view, wanted)
        return self._chosen(chosen, _words(wanted))

    def sel(self, time: Any, method: str | None = None, tolerance: Any = None) -> Run:
        """Return a Run over the events at the given times.

        Parameters
        ----------
        time : event key, list of keys or slice of keys
        method : {None, "nearest", "ffill", "bfill"}
        tolerance : timedelta, optional
            For `method`.

        Raises
        ------
        EventNotFound
            No such event; names the nearest one.

        Examples
        --------
        >>> run.sel("2024-06-14T06:12:03.5", method="nearest")
        >>> run.sel(slice("2024-06-14T06:12", "2024-06-14T06:13"))
        """
        if isinstance(time, slice):
            return self._chosen(positions(self._view, time), _words(time))
        limit = None if tolerance is None else np.timedelta64(tolerance)
        return self._chosen(key_positions(self._view, parse_keys(time), method, limit), _words(time))

    def isel(self, time: Any) -> Run:
        """Return a Run over the events at positions: an integer, a list, a slice or a mask.

        Examples
        --------
        >>> run.isel(slice(None, None, 10))
        >>> run.isel([5, 3])
        """
        chosen = np.atleast_1d(np.arange(len(self))[time])
        return self._chosen(chosen, f"isel {_words(time)}")

    def _chosen(self, chosen: npt.NDArray[np.int64], words: str) -> Run:
        choice = Choice(self._view.choice.numbers[chosen], self._view.choice.total)
        return Run(replace(self._view, choice=choice), (*self._history, words))

    def event(self, key: Any, method: str | None = None) -> xr.Dataset:
        """Return one event, loaded: every detector that it has.

        Parameters
        ----------
        key : event key
            datetime64, ISO string, (sec, nsec[, fiducial]) or packed word.
        method : {None, "nearest", "ffill", "bfill"}

        Raises
        ------
        EventNotFound
            No such event; names the nearest one.

        Examples
        --------
        >>> run.event("2024-06-14T06:12:03.5", method="nearest").epixquad_raw
        >>> run.event(run.events.timestamp[7])
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # detectors that the event lacks are simply not in it
            return self.sel(key, method).dataset(join="outer", chunks=None).isel(time=0).load()

    # ---- xarray -------------------------------------------------------------------------------
    def dataset(self, names: Names = None, *, join: str | None = None, chunks: Any = "auto") -> xr.Dataset:
        """Return detectors as one flat Dataset; variables are ``<detector>_<field>``.

        Parameters
        ----------
        names : str or list of str, optional
            ``"cspad"``, ``"cspad.raw"``, ``"epix*"``, ``("cspad", "raw")``; all by default.
        join : {"inner", "outer"}, optional
            Events that all of them have (default where names are given), or all events.
        chunks : "auto", mapping of dimension to size, or None
            "auto": whole frames, about 32 MiB a chunk. None: no Dask; read when indexed.

        Raises
        ------
        NameNotFound
            A name fits nothing; lists the nearest ones.

        Examples
        --------
        >>> run.dataset(["epixquad.raw", "gmd"])
        >>> run.dataset(join="outer", chunks=None)
        """
        return run_dataset(self._view, names, join, chunks)

    def tree(self, names: Names = None, *, chunks: Any = "auto") -> xr.DataTree:
        """Return the run as a DataTree: ``events``, ``epics/<name>``, one node per detector.

        A detector called ``events`` or ``epics`` is the node ``events_`` or ``epics_``.

        Parameters
        ----------
        names, chunks
            As for `dataset`; a node has all events of the run.

        Raises
        ------
        NameNotFound
            A name fits nothing; lists the nearest ones.

        Examples
        --------
        >>> run.tree()["epixquad"]
        >>> run.tree(["epixquad.raw", "gmd"])
        """
        import xarray as xr

        groups: dict[str, Any] = {"/": xr.Dataset(attrs=run_attrs(self._view)), "/events": self.events}
        for name in self.epics:
            groups[f"/epics/{name}"] = self.epics[name].to_dataset(name="value")
        for name, fields in chosen_fields(self._view, names).items():
            node = f"{name}_" if name in ("events", "epics") else name
            groups[f"/{node}"] = detector_dataset(self._view, self._view.entries[name], chunks, fields)
        return xr.DataTree.from_dict(groups)

    def group_by_readout(self, detector: str, which: str = "before") -> Readouts:
        """Group the events by the readouts of a slow detector that integrates.

        Parameters
        ----------
        detector : str
            In any spelling.
        which : {"before", "after"}
            A readout stands for the events since the one before it, itself included; or for those
            from it up to the next.

        Returns
        -------
        Readouts
            ``.sum(names)``, ``.mean``, ``.count``, ``.reduce``, ``.lists(names)``, ``.table``; a loop
            gives each window as a Run, ``.follow()`` the windows of a run that is being written.

        Raises
        ------
        NameNotFound
            No such detector.

        Examples
        --------
        >>> windows = run.group_by_readout("andor")
        >>> windows.mean(["gmd.milliJoulesPerPulse", "hsd.sum"])
        """
        from psana_dask.readouts import WHICH, Readouts

        if which not in WHICH:
            raise ValueError(f'which={which!r}: use "before" (events since the readout before) or "after"')
        return Readouts(self, self._view, self._view.find(detector).name, which, Run)

    # ---- while it is written -------------------------------------------------------------------
    def follow(
        self,
        names: Names = None,
        *,
        batch: int = 64,
        timeout: float | None = 120.0,
        poll: float = 0.1,
        patience: float | None = None,
        join: str | None = None,
        chunks: Any = None,
    ) -> Iterator[xr.Dataset]:
        """Yield the events of a run while it is written, in order, each once: Datasets of a few events.

        Parameters
        ----------
        names, join, chunks
            As for `dataset`; without Dask by default.
        batch : int
            Events in a Dataset, at most: what is complete is given out at once.
        timeout : float, optional
            Seconds without anything new after which a run without its end is given up, with a
            `StreamWarning`.
        poll : float
            Seconds between looks at the files.
        patience : float, optional
            Seconds after which a stream that stands still is not waited for any more. By default an
            event waits for every stream; what comes late is then left out, and in `problems`.

        Yields
        ------
        Dataset
            As `dataset` makes it. A detector that no event of the batch has is there, all missing,
            if an event before had it.

        Examples
        --------
        >>> run = psana_dask.open("exp=tstx00117:run=5", live=True)
        >>> for events in run.follow("epixquad.raw", batch=16):
        ...     print(events.time.values[-1], events.epixquad_raw.mean().item())
        """
        for run in self.follow_runs(batch=batch, timeout=timeout, poll=poll, patience=patience):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DroppedWarning)
                events = run_dataset(run._view, names, join, chunks, absent_too=True)
            if events.sizes["time"]:
                yield events

    def follow_runs(self, **choices: Any) -> Iterator[Run]:
        """Yield the same micro-batches as `follow`, each as a Run: with detectors, EPICS, steps, problems.

        Examples
        --------
        >>> for part in run.follow_runs(batch=64):
        ...     print(part.evr.counts())
        """
        from psana_dask.follow import follow

        yield from map(Run, follow(self._view, **choices))

    # ---- to files -----------------------------------------------------------------------------
    def save_times(self, path: str | os.PathLike[str]) -> int:
        """Append the times of these events to a file, to find them again; return how many there are.

        Parameters
        ----------
        path : path
            By custom it ends with ``.times``. ``psana_dask.times(path)`` reads it, and
            ``run.select(path)`` gives its events. Several processes may append at the same time.

        Examples
        --------
        >>> for batch in run.follow_runs():
        ...     batch.select(batch.gmd.energy > 3).save_times("bright.times")
        """
        from psana_dask.saved_times import append_times

        events, numbers = self._view.recording.events, self._view.choice.numbers
        append_times(path, events.time[numbers].view("M8[ns]"), events.timestamp[numbers])
        return len(numbers)

    def export(self, path: str | os.PathLike[str], names: Names = None, **choices: Any) -> Path:
        """Export what you choose of the run: Zarr and HDF5, which `open` takes again, and other formats.

        Parameters
        ----------
        path : path
            ``.zarr``, or ``.h5`` (``.hdf5``, ``.nc``); frames of one detector as ``.nxs`` (NeXus) or
            ``.cxi``; scalars as ``.parquet``.
        names : names of detectors and fields, optional
            As in `dataset`, and ``"cspad.calib"``, ``"cspad.image"``; all fields by default.
        **choices
            ``roi, own, bundle, photon_energy, distance, compression, overwrite, progress``: see
            `psana_dask.export.export`.

        Examples
        --------
        >>> run.select(run.evr.has(90, -162)).export("laser.zarr", ["cspad.calib", "ebeam"])
        """
        from psana_dask.export import export

        return export(self, path, names, **choices)

    def export_crystfel(self, folder: str | os.PathLike[str], names: Names, **choices: Any) -> Path:
        """Write CXI files, a geometry and lists of events for CrystFEL's indexamajig.

        Parameters
        ----------
        folder : path
        names : str or list of str
            One detector's frames (``"cspad.calib"``), and scalars to go along.
        **choices
            ``per_file, photon_energy, distance, compression, overwrite, progress``: see
            `psana_dask.export.crystfel_lists.export_crystfel`.

        Returns
        -------
        Path
            The list of events, ``file //number``.

        Examples
        --------
        >>> hits = run.select(run.evr.has(40))
        >>> hits.export_crystfel("indexing", "cspad.calib", photon_energy=9500, distance=0.12)
        """
        from psana_dask.export.crystfel_lists import export_crystfel

        return export_crystfel(self, folder, names, **choices)

    def to_virtual_zarr(
        self,
        path: str | os.PathLike[str],
        names: Names = None,
        *,
        join: str | None = None,
        overwrite: bool = False,
    ) -> dict[str, str]:
        """Write references to the raw frames in the files, which open as Zarr without this package.

        Parameters
        ----------
        path : path
            ``run.parq``: a folder of Parquet tables, for any number of events; ``run.json``: one file.
        names, join
            As in `dataset`.
        overwrite : bool

        Returns
        -------
        dict of str to str
            The variables that cannot be virtual, and why (compressed, ragged, decoded); they are left
            out, and listed in the attribute ``left_out``, too. Frames that are missing or damaged have
            no reference; ``<detector>_present`` and ``<detector>_panel_present`` say which.

        Raises
        ------
        ExportError
            Something is there already, or cannot be written.

        Examples
        --------
        >>> run.to_virtual_zarr("run54.parq", "cspad")
        >>> options = {"fo": "run54.parq", "remote_protocol": "file"}
        >>> xarray.open_dataset("reference://", engine="zarr", chunks={},
        ...     backend_kwargs={"storage_options": options, "consolidated": False})
        """
        from psana_dask.export.virtual import to_virtual_zarr

        return to_virtual_zarr(self, path, names, join=join, overwrite=overwrite)

    # ---- text ---------------------------------------------------------------------------------
    def __repr__(self) -> str:
        from psana_dask.describe import run_text

        return run_text(self)

    def _repr_html_(self) -> str:
        from psana_dask.describe_html import run_html

        return run_html(self)


class Detectors(Mapping[str, Detector]):
    """Detectors of a run by name; a miss lists the nearest names."""

    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        self._detectors = dict(detectors)

    def __getitem__(self, name: str) -> Detector:
        if name not in self._detectors:
            raise NameNotFound.of("detector", name, self._detectors)
        return self._detectors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._detectors)

    def __len__(self) -> int:
        return len(self._detectors)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._detectors)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._detectors.values())) or "<no detectors>"


def _words(wanted: Any) -> str:
    """Return a selection as a few words."""
    if isinstance(wanted, slice):
        return f"{wanted.start or ''}:{wanted.stop or ''}" + (f":{wanted.step}" if wanted.step else "")
    if isinstance(wanted, str | int | np.integer | np.datetime64 | Condition):
        return str(wanted)
    if is_mask(wanted):
        return f"mask {wanted.name}" if getattr(wanted, "name", None) else "mask"
    if getattr(wanted, "ndim", 1) == 0:  # a single time of a table
        return str(np.asarray(wanted))
    return f"{len(wanted)} keys" if hasattr(wanted, "__len__") else str(wanted)


# ---- opening ------------------------------------------------------------------------------------
