"""Several runs side by side: their events one behind the other, and what they make together.

A `Runs` is a sequence of `Run`; made by `open_runs`.  Its Datasets have the coordinate
``run`` along time.  A reduction makes that of each run, with the fixed order of `reductions.leaves`,
and then puts the runs together in their order: the bits depend on the events alone.
Contract: tests/test_runs.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from psana_dask.dataset import Names, run_dataset
from psana_dask.errors import DroppedWarning, NameNotFound, RunNotFound
from psana_dask.run import Run
from psana_dask.stacking import plain_dims, stacked

if TYPE_CHECKING:
    import dask.dataframe as dd
    import xarray as xr


class Runs(Sequence[Run]):
    """Runs of one experiment, or of several.

    Parameters
    ----------
    runs : iterable of Run

    Examples
    --------
    >>> runs = psana_dask.open_runs("xpptut15", range(54, 60))
    >>> runs.mean("cspad.image", by="run")  # one image a run, to compare
    >>> runs.select(lambda run: run.evr.has(90, -162)).mean("cspad.image")  # one of them all
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = tuple(runs)

    @overload
    def __getitem__(self, position: int) -> Run: ...

    @overload
    def __getitem__(self, position: slice) -> Runs: ...

    def __getitem__(self, position: int | slice) -> Run | Runs:
        if isinstance(position, slice):
            return Runs(self._runs[position])
        return self._runs[position]

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def numbers(self) -> list[int]:
        """The run numbers; -1 for a run whose files do not say it.

        Examples
        --------
        >>> runs.numbers
        """
        return [-1 if run.number is None else run.number for run in self._runs]

    def number(self, number: int) -> Run:
        """Return the run with a number.

        Raises
        ------
        RunNotFound

        Examples
        --------
        >>> runs.number(runs.numbers[0])
        """
        for run in self._runs:
            if run.number == number:
                return run
        there = ", ".join(map(str, self.numbers)) or "none"
        raise RunNotFound(f"no run {number} among these; there are {there}")

    def having(self, *detectors: str) -> Runs:
        """Return the runs that have all of some detectors in any event.

        Raises
        ------
        NameNotFound
            No run knows a name; lists the nearest ones.

        Examples
        --------
        >>> runs.having("epixquad")
        """
        for name in detectors:
            if self._runs and not any(_knows(run, name) for run in self._runs):
                raise NameNotFound.of("detector", name, self._detectors())
        return Runs(
            run
            for run in self._runs
            if all(_knows(run, name) and run[name].presence > 0 for name in detectors)
        )

    def _detectors(self) -> list[str]:
        """Return the detectors of all runs."""
        return list(dict.fromkeys(name for run in self._runs for name in run.detectors))

    def select(self, wanted: Any) -> Runs:
        """Return fewer events of each run.

        Parameters
        ----------
        wanted : condition, times, slice of times, DataArray, or callable
            As for `Run.select`; a callable makes it of each run: ``lambda run: run.evr.has(90)``.

        Examples
        --------
        >>> runs.select(lambda run: run.evr.has(90))
        """
        return Runs(run.select(wanted(run) if callable(wanted) else wanted) for run in self._runs)

    # ---- events -------------------------------------------------------------------------------
    def dataset(self, names: Names = None, *, join: str | None = None, chunks: Any = "auto") -> xr.Dataset:
        """Return the events of all runs as one Dataset, run by run, with the coordinate ``run``.

        Parameters
        ----------
        names, join, chunks
            As for `Run.dataset`. With names given (or ``join="inner"``) runs that lack one of them are
            left out, with a warning; else what a run lacks is missing there.

        Raises
        ------
        NameNotFound
            No run has it.
        ValueError
            A detector has other frames in one run than in another.

        Examples
        --------
        >>> runs.dataset(["gmd"])
        """
        join = join or ("outer" if names is None else "inner")
        parts = list(
            self._each(lambda run: run_dataset(run._view, names, join, chunks, own_dims=True), names)
        )
        return plain_dims(stacked(parts), self._detectors())

    def dataframe(self, names: Names = None, **choices: Any) -> dd.DataFrame:
        """Return the scalars of all runs as one dask DataFrame, with the column ``run``.

        Examples
        --------
        >>> runs.dataframe(["gmd"])
        """
        import dask.dataframe as dd

        parts = list(self._each(lambda run: run.dataframe(names, **choices), names))
        return dd.concat([table.assign(run=number) for number, table in parts], interleave_partitions=True)

    def map(
        self, function: Callable[[xr.Dataset], Any], names: Names = None, **choices: Any
    ) -> xr.Dataset | xr.DataArray:
        """Apply a function to the events of all runs, lazily, with the coordinate ``run``; see `Run.map`.

        Examples
        --------
        >>> runs.map(lambda events: events.epixquad_raw.max(("panel", "row", "col")), "epixquad.raw")
        """
        parts = list(self._each(lambda run: run.map(function, names, **choices), names))
        if not hasattr(parts[0][1], "data_vars"):
            name = parts[0][1].name
            whole = stacked([(number, made.to_dataset(name="value")) for number, made in parts])
            return whole["value"].rename(name)
        return stacked(parts)

    def _each(self, make: Callable[[Run], Any], names: Names) -> Iterator[tuple[int, Any]]:
        """Yield number and result of each run; runs without the names are left out, with a warning."""
        if not self._runs:
            raise RunNotFound("there are no runs: nothing was opened, or all were left out")
        lacking: list[int] = []
        first: NameNotFound | None = None
        for number, run in zip(self.numbers, self._runs, strict=True):
            try:
                found = make(run)
            except NameNotFound as error:
                if names is None:
                    raise
                lacking, first = [*lacking, number], first or error
                continue
            yield number, found
        if first is not None and len(lacking) == len(self):
            raise first
        if lacking:
            left = ", ".join(map(str, lacking))
            warnings.warn(f"runs left out, as they lack a name: {left}", DroppedWarning, stacklevel=4)

    # ---- reductions ---------------------------------------------------------------------------
    def reduce(
        self,
        what: Any,
        names: Names = None,
        *,
        by: Any = None,
        merge: Callable[[Any, Any], Any] | None = None,
        **choices: Any,
    ) -> Any:
        """Reduce over the events of all runs; the bits never depend on how.

        Parameters
        ----------
        what, names, merge, **choices
            As for `Run.reduce`, but for `weights`: an array of weights belongs to one run.
        by : optional
            As for `Run.reduce`; ``"run"``, alone or in a list or mapping, gives one result a run, on the
            dimension ``run``. Bins of runs are put together by their labels.

        Raises
        ------
        NameNotFound
            No run has it; runs that lack it are left out, with a warning.
        ValueError
            Frames or images of the runs do not have the same pixels.

        Examples
        --------
        >>> runs.reduce("epixquad.image", by=("delay", edges))  # the cube of all runs
        >>> runs.mean("gmd.milliJoulesPerPulse", by=["run", "step"])
        """
        from psana_dask.reductions.together import Together, side_by_side

        apart, rest = _apart(by)
        together = Together.of(what, names)
        alone = apart or len(self) == 1
        if not alone:
            together.check(rest, choices)
        what, names = (what, names) if alone else (together.needed, together.names)
        parts = list(self._each(lambda run: run.reduce(what, names, by=rest, merge=merge, **choices), names))
        if apart:
            return side_by_side(parts)
        return parts[0][1] if alone else together.put(parts, merge)

    def mean(self, names: Names = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the mean over the events of all runs; see `reduce`.

        Examples
        --------
        >>> runs.mean("epixquad.image", by="run")
        """
        return self.reduce("mean", names, by=by, mask=mask, **choices)

    def std(self, names: Names = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the standard deviation over the events of all runs (of the population).

        Examples
        --------
        >>> runs.std("epixquad.raw")
        """
        return self.reduce("std", names, by=by, mask=mask, **choices)

    def var(self, names: Names = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the variance over the events of all runs (of the population).

        Examples
        --------
        >>> runs.var("epixquad.raw")
        """
        return self.reduce("var", names, by=by, mask=mask, **choices)

    def sum(self, names: Names = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the sum over the events of all runs.

        Examples
        --------
        >>> runs.sum("gmd", by="run")
        """
        return self.reduce("sum", names, by=by, mask=mask, **choices)

    def min(self, names: Names = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the least value of each pixel in all runs.

        Examples
        --------
        >>> runs.min("gmd")
        """
        return self.reduce("min", names, by=by, mask=mask, **choices)

    def max(self, names: Names = None, by: Any = None, mask: Any = None, **choices: Any) -> Any:
        """Return the greatest value of each pixel in all runs.

        Examples
        --------
        >>> runs.max("gmd")
        """
        return self.reduce("max", names, by=by, mask=mask, **choices)

    # "count" is that of a sequence: how often it holds a run
    def __repr__(self) -> str:
        lines = [f"<{len(self)} runs>"]
        for number, run in zip(self.numbers, self._runs, strict=True):
            lines.append(
                f"  {run.experiment or '-'} run {number}: {len(run):,} events, {len(run.detectors)} detectors"
            )
        return "\n".join(lines)


def _knows(run: Run, detector: str) -> bool:
    try:
        run._view.find(detector)
    except NameNotFound:
        return False
    return True


def _apart(by: Any) -> tuple[bool, Any]:
    """Tell whether one result a run is wanted, and return the other bins."""
    if isinstance(by, str):
        return (True, None) if by == "run" else (False, by)
    if isinstance(by, Mapping):
        rest = {k: v for k, v in by.items() if not (isinstance(v, str) and v == "run")}
        return len(rest) < len(by), rest or None
    if isinstance(by, list | tuple) and "run" in [v for v in by if isinstance(v, str)]:
        kept = [v for v in by if not (isinstance(v, str) and v == "run")]
        return True, kept or None
    return False, by
