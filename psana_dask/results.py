"""What is made of the events of a run: loops, tables, joins, reductions, small data.

The public calls, with what they promise; each hands over to the module that does the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psana_dask.dataset import Names, View
from psana_dask.errors import refuse_unknown
from psana_dask.pipeline import SCALAR_CHUNK

if TYPE_CHECKING:
    import dask.dataframe as dd
    import xarray as xr

    from psana_dask.reductions.loops import Event
    from psana_dask.reductions.quantities import Wanted


class EventResults:
    """The calls of a `Run` that go through its events.

    Examples
    --------
    >>> run.mean("epixquad.image")  # a Run, or a stream of one
    """

    _view: View

    def __iter__(self) -> Iterator[Event]:
        """Yield the events, one after the other; `loop` reads what you name ahead."""
        return self.loop(prefetch=0)

    def loop(
        self, names: Names = None, prefetch: int = 8, *, calibration: Mapping[str, Any] | None = None
    ) -> Iterator[Event]:
        """Loop over the events.

        Parameters
        ----------
        names : names, optional
            What is read ahead: ``"cspad.calib"``, ``["cspad.raw", "gmd"]``. Anything else is read
            when it is asked for.
        prefetch : int
            How many events are read ahead, by a thread.
        calibration : mapping, optional
            As in `reduce`.

        Yields
        ------
        Event
            ``event["cspad.raw"]`` or ``event.cspad.raw`` is a numpy array, None where the event does
            not have it; ``event.time``, ``.timestamp``, ``.step``, ``.present("cspad")``.

        Examples
        --------
        >>> for event in run.loop("cspad.image"):
        ...     image = event["cspad.image"]
        """
        from psana_dask.reductions.loops import events_of

        return events_of(self._view, names, prefetch, calibration)

    def dataframe(
        self,
        names: Names = None,
        *,
        join: str | None = None,
        epics: bool | Sequence[str] = False,
        flags: Mapping[str, Sequence[int]] | None = None,
        partition: int = SCALAR_CHUNK,
    ) -> dd.DataFrame:
        """Return the scalars of the run as a dask DataFrame, one row per event, partitions along time.

        Parameters
        ----------
        names : str or list of str, optional
            Detectors or fields, as for `dataset`; by default all scalars of the run and what was
            scanned. A field with one value per panel is a column for each panel.
        join : {"inner", "outer"}, optional
            Events that all of them have (default where names are given), or all events.
        epics : bool or list of str
            EPICS variables to add as ``epics_<name>``, each its last update at or before the event.
        flags : mapping, optional
            Boolean columns from event codes: ``{"laser_on": [90, -162]}``.
        partition : int
            Events per partition.

        Returns
        -------
        dask.dataframe.DataFrame
            On ``time``; with ``timestamp``, ``step``, ``pulse_id`` where every event has one,
            ``<detector>_<field>`` and ``<detector>_present`` (an integer that is missing is 0).

        Raises
        ------
        NameNotFound
            A name fits nothing, or a detector has no scalars.

        Examples
        --------
        >>> table = run.dataframe(flags={"laser_on": [90, -162]})
        >>> table.groupby("laser_on").gmd_milliJoulesPerPulse.mean().compute()
        >>> table.to_parquet("run54")
        """
        from psana_dask.tables import run_dataframe

        return run_dataframe(self._view, names, join=join, epics=epics, flags=flags, partition=partition)

    def join(
        self,
        other: Any,
        on: str = "time",
        method: str = "exact",
        *,
        tolerance: Any = None,
        offset: Any = None,
        key: str | None = None,
        names: Sequence[str] | None = None,
        group: str | None = None,
        tz: str | None = None,
        unit: str | None = None,
        units: Mapping[str, str] | None = None,
        prefix: str = "",
    ) -> xr.Dataset:
        """Return data from outside of the DAQ as variables on the events of the run.

        Nothing is guessed: times without a zone need `tz`, numbers need `unit`; samples that are
        doubled (the last counts), out of order or without a key are counted, with a warning.

        Parameters
        ----------
        other : path, DataFrame, Series, Dataset, DataArray or Run
            CSV, parquet, zarr, HDF5 or netCDF. What is lazy stays lazy.
        on : {"time", "pulse_id", "fiducial"}
        method : {"exact", "nearest", "ffill", "interp"}
            The sample with the event's key; the nearest one; the last at or before; a number
            between the samples on both sides.
        tolerance : timedelta or str; int for counters
            Largest distance of a sample (for "interp" of both).
        offset : timedelta, str or `find_offset`'s result; int for counters
            What is added to the keys of `other`.
        key : str, optional
            Column or variable that holds the keys; by default what `on` says, or the table's index.
        names : list of str, optional
            What to take; everything by default.
        group : str, optional
            Of an HDF5 or zarr file: where the arrays are.
        tz : str, optional
            Zone of times that have none (``"UTC"``, ``"America/Los_Angeles"``).
        unit : {"s", "ms", "us", "ns"}, optional
            Of times that are numbers since 1970 UTC.
        units : mapping, optional
            Units of variables, for their attributes.
        prefix : str
            Of the names of variables.

        Returns
        -------
        xarray.Dataset
            Besides the variables ``joined`` (which events have a sample) and ``joined_<on>`` (its
            key); without a sample a float is NaN, an integer 0. ``attrs`` counts ``matched``,
            ``unmatched``, ``unused``, ``duplicates``, ``out_of_order``, ``without_key``.

        Raises
        ------
        NameNotFound, ValueError

        Examples
        --------
        >>> run.join("stage.csv", method="ffill", tolerance="1 s", tz="America/Los_Angeles")
        """
        from psana_dask.join import join

        return join(
            self._view, other, on, method, tolerance=tolerance, offset=offset, key=key, names=names,
            group=group, tz=tz, unit=unit, units=units, prefix=prefix,
        )  # fmt: skip

    def reduce(
        self,
        what: Any,
        names: Wanted = None,
        *,
        by: Any = None,
        mask: Any = None,
        weights: Any = None,
        calibration: Mapping[str, Any] | None = None,
        merge: Callable[[Any, Any], Any] | None = None,
        half_life: float | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Reduce over the events, in parallel and in one pass; the bits never depend on how.

        Parameters
        ----------
        what : str, Histogram, Projection, a list of these, or names
            ``"mean"``, ``"std"``, ``"var"``, ``"sum"``, ``"min"``, ``"max"``, ``"count"``. Names of
            arrays alone give the cube: count, sum, mean and variance of each. Or a function that
            makes partial results, without time, of a Dataset of at most 16 events.
        names : names, optional
            ``"cspad.image"``, ``"cspad.calib"``, ``"cspad.raw"``, ``"gmd"``, what is made of each frame
            (`analysis.PerFrame`, such as ``analysis.profile_of("cspad.calib", table)``), a list of these.
        by : optional
            ``"step"``; ``("delay", edges)`` with a scan variable, an EPICS variable or a scalar
            field; ``run.evr.has(90)``; an array over time; a list of these, or a mapping that
            names the dimensions.
        mask : optional
            A condition or a boolean over time: events that count. An array of pixels: pixels that do.
        weights : str or array, optional
            One number per event.
        calibration : mapping, optional
            Choices for ``calib`` and ``image``: ``{"common_mode": None}``, see `Detector.calibrated`.
        merge : callable, optional
            Of a function: ``merge(earlier, later)`` puts two partial results together; by default
            they are added.
        half_life : float, optional
            Of means and variances: an event counts half of one that came so many events later.
        progress : bool, optional
            Show a progress bar.

        Returns
        -------
        DataArray or Dataset
            A DataArray for one statistic of one name; else a Dataset of ``<name>_<statistic>``.
            Missing events, panels and NaN are left out; NaN where nothing is left (0 for sums).

        Examples
        --------
        >>> cube = run.reduce("cspad.image", by=("delay", np.linspace(-1, 3, 41)))
        >>> cube.cspad_image_mean.sel(delay=0.5, method="nearest")
        """
        from psana_dask.reductions.calls import Choices, reduce

        choices = Choices(by, mask, weights, calibration, progress, half_life)
        return reduce(self._view, what, names, choices, merge)

    def mean(self, names: Wanted = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the mean over the events, as float64; see `reduce` for `by`, `mask` and choices.

        Examples
        --------
        >>> run.mean("epixquad.image")
        >>> run.mean("gmd", by="step")
        """
        return self._statistic("mean", names, by, mask, choices)

    def std(self, names: Wanted = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the standard deviation over the events (of the population, as numpy's).

        Examples
        --------
        >>> run.std("epixquad.calib")
        """
        return self._statistic("std", names, by, mask, choices)

    def var(self, names: Wanted = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the variance over the events (of the population, as numpy's).

        Examples
        --------
        >>> run.var("epixquad.calib", by="step")
        """
        return self._statistic("var", names, by, mask, choices)

    def sum(self, names: Wanted = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the sum over the events: int64 of integers, else float64.

        Examples
        --------
        >>> run.sum("epixquad.raw", mask=run.evr.has(90))
        """
        return self._statistic("sum", names, by, mask, choices)

    def min(self, names: Wanted = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the least value of each pixel; integers become floats with NaN where there is none.

        Examples
        --------
        >>> run.min("epixquad.raw")
        """
        return self._statistic("min", names, by, mask, choices)

    def max(self, names: Wanted = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the greatest value of each pixel; integers become floats with NaN where there is none.

        Examples
        --------
        >>> run.max("epixquad.raw")
        """
        return self._statistic("max", names, by, mask, choices)

    def count(self, names: Wanted = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return how many events have each pixel, NaN not counted.

        Examples
        --------
        >>> run.count("epixquad.calib", by=("delay", edges))
        """
        return self._statistic("count", names, by, mask, choices)

    def _statistic(self, which: str, names: Wanted, by: Any, mask: Any, choices: Mapping[str, Any]) -> Any:
        from psana_dask.reductions.calls import Choices, statistic

        refuse_unknown(f"run.{which}", choices, ("weights", "calibration", "progress", "half_life"))
        return statistic(self._view, which, names, Choices(by, mask, **choices))

    def map(
        self,
        function: Callable[[xr.Dataset], Any],
        names: Names = None,
        *,
        calibration: Mapping[str, Any] | None = None,
    ) -> Any:
        """Apply a function to the events, block by block; lazy.

        Parameters
        ----------
        function : callable
            Takes a loaded Dataset of some events, as `dataset` makes it (``cspad_image``, ...), and
            returns a Dataset or DataArray with the same ``time``. What it makes of an event must
            not depend on the others.
        names : names, optional
            Also ``"cspad.calib"`` and ``"cspad.image"``; events that lack one are left out.
        calibration : mapping, optional
            As in `reduce`.

        Returns
        -------
        Dataset or DataArray
            As the function returns, over all events, of Dask arrays.

        Raises
        ------
        FunctionError
            The function raised (the message names event and file), or reduces over time (the
            message names the accumulator to use).

        Examples
        --------
        >>> run.map(lambda ds: ds.cspad_calib.sum(("panel", "row", "col")), "cspad.calib")
        """
        from psana_dask.reductions.functions import map_function

        return map_function(self._view, function, names, calibration)

    def smalldata(
        self,
        function: Callable[[Event], Mapping[str, Any] | None],
        path: str | os.PathLike[str],
        every: int | None = None,
        *,
        names: Names = None,
        calibration: Mapping[str, Any] | None = None,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Write what a function makes of each event into one file, sorted by time; in parallel.

        Parameters
        ----------
        function : callable
            Takes an event (see `loop`) and returns a mapping of names to numbers, text or arrays,
            or None to leave the event out.
        path : path
            ``.h5``, ``.parquet`` or ``.zarr``; replaced if it exists.
        every : int, optional
            Write what is there after every so many events; by default at the end.
        names : names, optional
            What to read ahead.
        calibration : mapping, optional
            As in `reduce`.
        progress : bool, optional
            Show a progress bar.

        Returns
        -------
        Dataset
            What was written. Arrays of varying length are flat, with ``<name>_count`` beside them;
            what some events lack is NaN or '', or 0 with ``<name>_present`` beside it.

        Raises
        ------
        FunctionError
            The function raised; the message names event and file.

        Examples
        --------
        >>> def total(event):
        ...     return {"total": event["cspad.calib"].sum()}
        >>> run.smalldata(total, "small.h5", names="cspad.calib")
        """
        from psana_dask.reductions.smalldata import smalldata

        return smalldata(self._view, function, path, names, every, calibration, progress)
