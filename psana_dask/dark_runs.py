"""Dark runs: from a run to pedestals, noise and pixel status, gain stage by gain stage.

Frames stream through `calib.darks` in blocks; a detector whose kept frames would not fit into
the memory allowed is taken in groups of panels, each in a pass of its own.  Which gain range a
step of the run measures is read from the words (and the settings at that step), so a scan over
ranges, separate runs for each, or one run of a detector with one range are all the same call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.calib.constants import Constants, RunRange, neutral
from psana_dask.calib.darks import (
    DarkAccumulator,
    DarkResult,
    DarkSettings,
    finish,
    guarded,
    joined,
    stack_ranges,
)
from psana_dask.calib.detectors import Detector as DetectorRow
from psana_dask.calib.gain import gain_range
from psana_dask.calib.store import Lookups
from psana_dask.calibration import DetectorCalibration, ranges_of
from psana_dask.dataset import View
from psana_dask.errors import ConstantsError
from psana_dask.slow import detector_config
from psana_dask.stores import Calib, StoreNames, lookups_of

if TYPE_CHECKING:
    from psana_dask.run import Run

BLOCK = 16  # events read at once
SUM_BYTES = 35  # of each pixel, for the sums of an accumulator
LOOKED_AT = 3  # frames of a step that say which gain range it measures

Ints = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Part:
    """Events of one run that measure one gain range."""

    calibration: DetectorCalibration
    events: Ints  # event numbers that have all panels


@dataclass(frozen=True, eq=False)
class Dark:
    """What dark runs say about a detector; made by `dark`.

    Parameters
    ----------
    detector : str
        What stores call it.
    row : DetectorRow
    stages : mapping of int to DarkResult
        By gain range; 0 for a detector with one.
    panels : list of int, optional
        Numbers of the panels.
    runs : tuple of int
    experiment : str
    skipped : int
        Events left out because a panel was missing.
    settings : DarkSettings
    in_force : Lookups
        The constants of the first run, to compare with and to fill up from.
    missing : {"error", "in force", "neutral"}
        What `constants` does about gain ranges that were not measured.
    """

    detector: str
    row: DetectorRow
    stages: Mapping[int, DarkResult]
    panels: list[int] | None
    runs: tuple[int, ...]
    experiment: str
    skipped: int
    settings: DarkSettings
    in_force: Lookups
    missing: str = "error"

    def constants(self, missing: str | None = None) -> dict[str, Constants]:
        """Return pedestals, rms, status, largest and smallest values, for all gain ranges.

        Parameters
        ----------
        missing : {"error", "in force", "neutral"}
            Ranges that were not measured: an error (the default), those of the constants in
            force, or zeros (ones for rms), as psana does.

        Raises
        ------
        ConstantsError
            Ranges are missing, and `missing` does not help.
        """
        runs = ", ".join(map(str, self.runs))
        origin = f"{self.experiment} run {runs}" if self.runs else self.experiment
        begin = RunRange(min(self.runs, default=0))
        about = {"detector": self.detector, "runs": begin, "origin": origin, "comment": f"dark of run {runs}"}
        if not self.row.multigain:
            return self.stages[0].constants(**about)
        stacked = stack_ranges(self.stages, self.row, self._previous(missing or self.missing), **about)
        if self.panels is not None:
            return stacked
        # psana wants an axis of panels also where there is one
        return {k: replace(c, value=np.asarray(c.value)[:, None]) for k, c in stacked.items()}

    def _previous(self, missing: str) -> Mapping[str, Constants] | None:
        if missing == "error":
            return None
        kinds = list(next(iter(self.stages.values())).constants())
        if missing == "in force":
            known = self.in_force.constants([k for k in kinds if k in self.in_force])
            shape = next(iter(self.stages.values())).pedestals.shape
            fitting = {k: replace(c, value=np.asarray(c.value).reshape(-1, *shape)) for k, c in known.items()}
            return {k: self._neutral(k) for k in ("pixel_max", "pixel_min")} | fitting
        if missing == "neutral":
            return {kind: self._neutral(kind) for kind in kinds}
        raise ValueError(f'missing={missing!r}: use "error", "in force" or "neutral"')

    def _neutral(self, kind: str) -> Constants:
        shape = (len(self.row.decoding.ranges), *next(iter(self.stages.values())).pedestals.shape)
        has_none = kind in ("pixel_max", "pixel_min")
        return Constants(kind, np.zeros(shape, np.uint64) if has_none else neutral(kind, shape))

    def names(self) -> dict[int, str]:
        """Return the name of each gain range that was measured."""
        ranges = self.row.decoding.ranges or ("",)
        return {k: ranges[k] for k in self.stages}

    def report(self, path: str | os.PathLike[str]) -> None:
        """Draw maps and histograms of every gain stage to a file (.png, .pdf, .svg).

        Raises
        ------
        MissingLibrary
            Matplotlib is not installed.
        """
        from psana_dask.calib.figure import draw_darks

        runs = ", ".join(map(str, self.runs))
        draw_darks({self.names()[k]: r for k, r in self.stages.items()}, path,
                   f"{self.experiment} run {runs}: dark of {self.detector}")  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Return what the report says, for programs."""
        stages = {self.names()[k] or "all": _stage_facts(r) for k, r in self.stages.items()}
        return {"experiment": self.experiment, "runs": list(self.runs), "detector": self.detector,
                "skipped_events": self.skipped, "stages": stages}  # fmt: skip

    def __repr__(self) -> str:
        lines = [f"<Dark of {self.detector}, {self.experiment} run {', '.join(map(str, self.runs))}>"]
        if self.skipped:
            lines.append(f"  {self.skipped} events left out: a panel was missing")
        for name, facts in self.facts()["stages"].items():
            bad = ", ".join(f"{n} {text}" for text, n in facts["status"].items() if n) or "none"
            lines.append(
                f"  {name}: {facts['frames']} frames, pedestal {facts['pedestal_median']:.1f}, "
                f"rms {facts['rms_median']:.2f} ADU (medians); bad pixels: {bad}"
            )
        return "\n".join(lines)


def _stage_facts(result: DarkResult) -> dict[str, Any]:
    return {
        "frames": result.frames, "pedestal_median": float(np.median(result.pedestals)),
        "rms_median": float(np.median(result.rms)), "status": result.counts(),
        "bad_pixels": int((result.status != 0).sum()), "limits": result.limits,
    }  # fmt: skip


def dark(
    run: Run | Sequence[Run],
    detector: str,
    *,
    stage: str | int | None = None,
    memory: int = 2 << 30,
    against: Calib = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Dark:
    """Work out pedestals, noise and bad pixels from frames without beam.

    Parameters
    ----------
    run : Run or list of Run
        Dark runs, or selections of them. A detector with several gain ranges needs events in each
        of them: steps of one run, or several runs.
    detector : str
    stage : str or int, optional
        Gain range that all events measure; by default what the words and the settings say.
    memory : int
        Bytes that may be used; a detector that needs more is taken in groups of panels.
    against : optional
        Constants in force to compare with; by default those of the (first) run.
    progress : callable, optional
        Called with (events done, events in all).
    **settings
        Fields of `psana_dask.calib.darks.DarkSettings`: ``gate_frames``, ``sigmas``, ...

    Returns
    -------
    Dark
        ``.constants()``, ``.report("dark.png")``; give it to `psana_dask.calib.deploy`.

    Raises
    ------
    NameNotFound
        No such detector, or it has no frames.
    ConstantsError
        Fewer than two frames of a stage, or frames whose pixels are in several gain ranges.

    Examples
    --------
    >>> found = dark(psana_dask.open("exp=tstx00117:run=5"), "epixquad")  # doctest: +SKIP
    >>> psana_dask.calib.deploy(found, "/my/calib", runs=5, dry_run=True)  # doctest: +SKIP
    """
    runs: Sequence[Run] = run if isinstance(run, Sequence) else [run]
    views = [one._view for one in runs]
    first = DetectorCalibration(views[0], views[0].find(detector))
    chosen = DarkSettings.of(first.row, **settings)
    parts, skipped = _stages(views, detector, _stage_number(first.row, stage))
    count = _Count(progress, sum(len(p.events) for some in parts.values() for p in some))
    stages = {k: _processed(parts[k], chosen, memory, count) for k in sorted(parts)}
    entry, recording = first.entry, views[0].recording
    lookups = first.lookups if against is None else lookups_of(against, recording, entry)
    return Dark(
        StoreNames.of(entry).spellings[0], first.row, stages, first.panels,
        tuple(v.recording.number for v in views if v.recording.number is not None),
        recording.experiment or "", skipped, chosen, lookups,
    )  # fmt: skip


# ---- which events measure what ------------------------------------------------------------------
def _stage_number(row: DetectorRow, stage: str | int | None) -> int | None:
    if stage is None or isinstance(stage, int):
        return stage if row.multigain or stage is None else 0
    if stage not in row.decoding.ranges:
        known = ", ".join(row.decoding.ranges) or "only one"
        raise ConstantsError(f"{row.name} has no gain range {stage!r}; there are: {known}")
    return row.decoding.ranges.index(stage)


def _stages(views: Sequence[View], detector: str, stage: int | None) -> tuple[dict[int, list[Part]], int]:
    """Return the parts of each gain range, and how many events lack a panel."""
    parts: dict[int, list[Part]] = {}
    skipped = 0
    for view in views:
        calibration = DetectorCalibration(view, view.find(detector))
        for events in _steps(view, calibration):
            present = calibration.raw.target.reader().present(events)
            whole = events[present.all(axis=1)]
            skipped += int(present.any(axis=1).sum()) - len(whole)
            if len(whole):
                number = _measured(calibration, whole) if stage is None else stage
                parts.setdefault(number, []).append(Part(calibration, whole))
    if not parts:
        raise ConstantsError(f"no event has all panels of {detector}: there is nothing to make a dark of")
    return parts, skipped


def _steps(view: View, calibration: DetectorCalibration) -> Iterator[Ints]:
    """Yield the event numbers of each step; a detector with one gain range has one."""
    numbers = view.choice.numbers
    if not calibration.row.multigain:
        yield numbers
        return
    step = view.recording.events.step[numbers]
    for one in np.unique(step):
        yield numbers[step == one]


def _measured(calibration: DetectorCalibration, events: Ints) -> int:
    """Return the gain range that most pixels of the first frames are in."""
    row = calibration.row
    if not row.multigain:
        return 0
    words = _read(calibration, events[:LOOKED_AT], np.arange(_panel_count(calibration)))
    ranges = _allowed(calibration, int(events[0]), words.shape[1:])
    found, counts = np.unique(gain_range(words, row.decoding, ranges), return_counts=True)
    number, share = int(found[counts.argmax()]), counts.max() / words.size
    if number < 0 or share < 0.5:
        shares = {int(k): f"{n / words.size:.0%}" for k, n in zip(found, counts, strict=True)}
        raise ConstantsError(
            f"{calibration.entry.name}: no gain range has half of the pixels from event {events[0]} on "
            f"({shares}); give stage="
        )
    return number


def _allowed(
    calibration: DetectorCalibration, event: int, shape: tuple[int, ...]
) -> npt.NDArray[np.int8] | None:
    """Return the gain ranges that the settings at an event allow each pixel; None if words say them."""
    decoding = calibration.row.decoding
    if decoding.kind != "switched" or len(decoding.ranges) < 3:
        return None
    recording = calibration.view.recording
    time = recording.events.time[event].astype("M8[ns]")
    found = ranges_of(detector_config(recording, calibration.entry.alias, time))
    if found is None:
        raise ConstantsError(
            f"{calibration.entry.name}: its settings do not say in which gain range it is; give stage="
        )
    return found.reshape(2, *shape)


# ---- frames through accumulators ----------------------------------------------------------------
class _Count:
    """Events done so far, told to whoever wants to know."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0.0

    def add(self, events: float) -> None:
        self._done += events
        if self._progress is not None:
            self._progress(round(self._done), self._total)


def _panel_count(calibration: DetectorCalibration) -> int:
    return len(calibration.raw.frame_reader().panels)


def _read(calibration: DetectorCalibration, events: Ints, panels: Ints) -> npt.NDArray[Any]:
    """Return words, (event, panel, row, col)."""
    out = np.empty((len(events), len(panels), *calibration.shape[-2:]), calibration.raw.dtype)
    calibration.raw.frame_reader().read_into(events, panels, slice(None), out)
    return out


def _groups(calibration: DetectorCalibration, settings: DarkSettings, memory: int) -> list[Ints]:
    """Return panels in groups that fit into memory."""
    count, pixels = _panel_count(calibration), int(np.prod(calibration.shape[-2:]))
    each = pixels * (2 * settings.gate_frames + SUM_BYTES + BLOCK * calibration.raw.dtype.itemsize)
    together = max(1, min(count, memory // each))
    return [np.arange(first, min(count, first + together)) for first in range(0, count, together)]


def _processed(parts: Sequence[Part], settings: DarkSettings, memory: int, count: _Count) -> DarkResult:
    """Return the result of one gain range."""
    first = parts[0].calibration
    frames = sum(len(p.events) for p in parts)
    settings = replace(settings, gate_frames=min(settings.gate_frames, frames))
    groups = _groups(first, settings, memory)
    states = []
    for panels in groups:
        accumulator = DarkAccumulator(settings)
        for part in parts:
            for at in range(0, len(part.events), BLOCK):
                some = part.events[at : at + BLOCK]
                accumulator.push(_read(part.calibration, some, panels))
                count.add(len(some) / len(groups))
        if accumulator.frames < 2:
            raise ConstantsError(f"a dark needs two frames or more of {first.entry.name}, there are {frames}")
        states.append(accumulator.state())
    sums, gate = joined(states, first.shape)
    result = finish(sums, gate, frames, settings)
    return replace(result, pedestals=guarded(result.pedestals, gate)) if settings.medians else result
