"""The desk where constants are looked at, put in force and taken back: what the pages may do to a store.

Whether anything may be written is decided here, on the server, each time; what a page shows or hides
is for the eye only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.calib.constants import KINDS, LAST_RUN, Constants, kind_of
from psana_dask.calib.deploying import run_range
from psana_dask.calib.detectors import detector as row_of
from psana_dask.calib.detectors import row_of_folder
from psana_dask.calib.directory import CalibDirectory
from psana_dask.calib.localstore import Deployment, HistoryLine, LocalStore
from psana_dask.calib.store import ConstantsStore, Listed, choose
from psana_dask.errors import ConstantsError, NameNotFound, ReadOnlyError

if TYPE_CHECKING:
    from psana_dask.detector import Detector
    from psana_dask.run import Run

LONGEST_COMMENT = 500
LONGEST_NAME = 200

READ_ONLY = "these pages are read only: start psana-dask browse with --write to change constants"

_WRITING = threading.Lock()
"""Two users of the same pages write one after the other."""


@dataclass(frozen=True)
class Bar:
    """One constant on the time line.

    Parameters
    ----------
    listed : Listed
    in_force : tuple of (first, last)
        Runs in which it is the one that is used; others hide it in the rest of its range.
    """

    listed: Listed
    in_force: tuple[tuple[int, int], ...]

    @property
    def label(self) -> str:
        """Kind and runs."""
        return f"{self.listed.kind} {self.listed.runs}"


@dataclass(frozen=True)
class Desk:
    """Constants of one store.

    Parameters
    ----------
    store : ConstantsStore, optional
        None: there is none, and none can be written.
    write : bool
        Whether constants may be put in force and taken back; decided when the program was started.
    """

    store: ConstantsStore | None
    write: bool = False

    # ---- look ---------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """Name of the store."""
        return "no store" if self.store is None else self.store.name

    def detectors(self) -> list[str]:
        """Return the detectors that the store has constants of; none if it cannot list them."""
        listed = getattr(self.store, "detectors", None)
        return [] if listed is None else list(dict.fromkeys(listed()))

    def bars(self, detector: str) -> list[Bar]:
        """Return everything that the store holds for a detector, kind after kind, by first run."""
        if self.store is None:
            return []
        rows = sorted(self.store.listing(detector), key=lambda r: (_order(r.kind), r.runs, r.created))
        return [
            Bar(row, spans)
            for kind in dict.fromkeys(r.kind for r in rows)
            for row, spans in _in_force([r for r in rows if r.kind == kind])
        ]

    def constant(self, listed: Listed) -> Constants:
        """Return a constant that was listed.

        Raises
        ------
        ConstantsError
            It is malformed, or another one is in force in all of its runs (of the service only those
            in force can be had).
        """
        if isinstance(self.store, CalibDirectory | LocalStore):
            reader = CalibDirectory(Path(self.store.path))
            return reader.read(listed.detector, listed.kind, Path(listed.origin))
        if self.store is None:
            raise ConstantsError("there is no store")
        found = self.store.find(listed.detector, listed.kind, listed.runs.begin).found()
        if found.origin != listed.origin:
            hidden = f"{listed.origin} is hidden by {found.origin}"
            raise ConstantsError(f"{hidden}: the service gives those in force")
        return found

    def why(self, detector: str, kind: str, run: int) -> str:
        """Return which constant is in force for a run, and why."""
        if self.store is None:
            return "no store"
        return self.store.find(detector, kind_of(kind).name, run).explain()

    def history(self, detector: str, kind: str) -> list[HistoryLine]:
        """Return what was deployed and taken back, oldest first; nothing for stores without a history."""
        if not isinstance(self.store, LocalStore | CalibDirectory):
            return []
        return LocalStore(Path(self.store.path)).history(detector, kind)

    # ---- change -------------------------------------------------------------------------------
    @property
    def why_not(self) -> str:
        """Why nothing can be written; empty if it can."""
        if not self.write:
            return READ_ONLY
        if self._target is None:
            return f"{self.name} cannot be written: name a folder with --calib"
        return ""

    @property
    def _target(self) -> LocalStore | None:
        if isinstance(self.store, LocalStore | CalibDirectory):
            return LocalStore(Path(self.store.path))
        return None

    def _writable(self) -> LocalStore:
        target = self._target
        if self.why_not or target is None:
            raise ReadOnlyError(self.why_not)
        return target

    def preview(
        self, constants: Sequence[Constants], detector: str, runs: str, group: str = ""
    ) -> list[Deployment]:
        """Return what putting constants in force would do; nothing is written.

        Raises
        ------
        ReadOnlyError
            Nothing may be written here.
        ConstantsError
            A value, the runs or the name of the detector do not fit.
        """
        return self._deploy(constants, detector, runs, "", group, dry_run=True)

    def deploy(
        self, constants: Sequence[Constants], detector: str, runs: str, comment: str, group: str = ""
    ) -> list[Deployment]:
        """Put constants in force; all are checked before the first is written. Raises as `preview`."""
        self._deploy(constants, detector, runs, comment, group, dry_run=True)
        return self._deploy(constants, detector, runs, comment, group, dry_run=False)

    def _deploy(
        self,
        constants: Sequence[Constants],
        detector: str,
        runs: str,
        comment: str,
        group: str,
        dry_run: bool,
    ) -> list[Deployment]:
        target = self._writable()
        _checked(detector, comment)
        if len(runs) > 40:
            raise ConstantsError("runs: write 10, 10-20 or 10-end")
        range_ = run_range(runs)
        options: dict[str, Any] = {"comment": comment, "group": group, "dry_run": dry_run}
        with _WRITING:
            return [target.deploy(one, detector, range_, **options) for one in constants]

    def last(self, detector: str, kind: str) -> HistoryLine:
        """Return the deployment that `undo` would take back.

        Raises
        ------
        ReadOnlyError
            Nothing may be written here.
        ConstantsNotFound
            There is none.
        """
        return self._writable().last_deployment(detector, kind_of(kind).name)

    def undo(self, detector: str, kind: str, expected: HistoryLine, comment: str = "") -> HistoryLine:
        """Take the last deployment of a kind back.

        Parameters
        ----------
        detector, kind, comment : str
        expected : HistoryLine
            What the user was shown; if someone else was faster, nothing is done.

        Raises
        ------
        ReadOnlyError
            Nothing may be written here.
        ConstantsError
            Another deployment is the last one by now.
        """
        target = self._writable()
        _checked(detector, comment)
        with _WRITING:
            if target.last_deployment(detector, kind_of(kind).name) != expected:
                raise ConstantsError(f"{kind} of {detector} was changed in the meantime: look again")
            return target.undo(detector, kind, comment=comment)


def _checked(detector: str, comment: str) -> None:
    if not detector or len(detector) > LONGEST_NAME or not detector.isprintable():
        raise NameNotFound(f"no detector {detector[:40]!r}")
    if len(comment) > LONGEST_COMMENT:
        raise ConstantsError(f"a comment of {len(comment)} characters: at most {LONGEST_COMMENT}")


def _order(kind: str) -> tuple[int, str]:
    names = list(KINDS)
    return (names.index(kind) if kind in KINDS else len(names), kind)


def _in_force(rows: Sequence[Listed]) -> list[tuple[Listed, tuple[tuple[int, int], ...]]]:
    """Return constants of one kind, each with the runs in which it is the one that is used."""
    edges = sorted({r.runs.begin for r in rows} | {r.runs.end + 1 for r in rows})
    spans: dict[int, list[tuple[int, int]]] = {}
    for first, after in pairwise(edges):
        best = choose([(r.runs, k, k) for k, r in enumerate(rows)], first)
        if best is None:
            continue
        mine = spans.setdefault(best[2], [])
        if mine and mine[-1][1] == first - 1:
            mine[-1] = (mine[-1][0], after - 1)
        else:
            mine.append((first, after - 1))
    return [(row, tuple(spans.get(k, ()))) for k, row in enumerate(rows)]


def last_run(bars: Iterable[Bar], runs: Iterable[int]) -> int:
    """Return where the time line ends: after all that has a number; ``end`` goes on for ever."""
    numbers = [n for b in bars for n in (b.listed.runs.begin, b.listed.runs.end) if n < LAST_RUN]
    highest = max([*numbers, *runs], default=0)
    return highest + max(2, round(0.1 * highest))


# ---- names and values ---------------------------------------------------------------------------
def name_in_store(desk: Desk, detector: Detector) -> str:
    """Return what the store of a desk calls a detector of a run."""
    from psana_dask.stores import StoreNames

    names = StoreNames.of(detector._entry)
    return names.spellings[0] if desk.store is None else names.within(desk.store)


def stages_of(constant: Constants) -> list[str]:
    """Return the names of the gain ranges of a constant; one empty name if it has one for all."""
    value = constant.value
    if isinstance(value, str) or value.ndim < 3:
        return [""]
    by_name, by_folder = row_of(constant.detector), row_of_folder(constant.origin)
    for ranges in (by_name.decoding.ranges, by_folder.decoding.ranges):
        if ranges and value.shape[0] == len(ranges):
            return list(ranges)
    return [f"range {k}" for k in range(value.shape[0])] if value.ndim > 3 else [""]


def stage_values(constant: Constants, stage: str) -> npt.NDArray[Any]:
    """Return the values of one gain range, or all."""
    value = np.asarray(constant.value)
    names = stages_of(constant)
    if stage not in names:
        raise NameNotFound(f"no gain range {stage[:20]!r}; there are {', '.join(names)}")
    return value[names.index(stage)] if len(names) > 1 else value


def histogram(
    values: npt.NDArray[Any], bins: int = 120
) -> tuple[list[float], list[float], Mapping[str, float]]:
    """Return edges and counts of a histogram over all but the wildest values, and a few numbers.

    Values beyond the ends are in the numbers (``below``, ``above``).
    """
    flat = np.asarray(values, np.float64).ravel()
    known = flat[np.isfinite(flat)]
    if not known.size:
        return [0.0, 1.0], [0.0], {"values": flat.size, "not finite": flat.size}
    low, high = (float(v) for v in np.percentile(known, [0.5, 99.5]))
    margin = 0.3 * (high - low) or 0.5
    counts, edges = np.histogram(known, bins, (low - margin, high + margin))
    numbers = {
        "values": flat.size, "not finite": flat.size - known.size, "smallest": float(known.min()),
        "median": float(np.median(known)), "mean": float(known.mean()), "std": float(known.std()),
        "largest": float(known.max()), "below": int((known < edges[0]).sum()),
        "above": int((known > edges[-1]).sum()),
    }  # fmt: skip
    return edges.tolist(), counts.tolist(), numbers


def desk_for(calib: Any, experiment: str, run: Run | None, write: bool) -> Desk:
    """Return the desk of an experiment.

    Parameters
    ----------
    calib : str, optional
        A folder, the address of the service, or ``"web"``; by default the folder where constants of the
        run are deployed (`psana_dask.stores.default_folder`).
    experiment : str
    run : Run, optional
        One of the experiment.
    write : bool
    """
    from psana_dask.stores import default_folder, web_store

    if isinstance(calib, str) and (calib == "web" or "://" in calib):
        return Desk(web_store(experiment, None if calib == "web" else calib), write)
    if calib is not None:
        return Desk(LocalStore(Path(calib)), write)
    if run is None or run.format == "export":  # an export has its constants inside
        return Desk(None, write)
    return Desk(LocalStore(default_folder(run._view.recording)), write)
