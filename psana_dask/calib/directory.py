"""The calib directory of LCLS-1: ``<calib>/<group>/<source>/<kind>/<begin>-<end>.data``.

Only names of exactly that form count; HISTORY, backups and other files are skipped, and so are
ranges that make no sense, each with its reason (`explain`, `problems`).  Of the files that cover
a run the one with the largest begin wins, then the smallest end (PSCalib
``CalibFileFinder.py``).  A chosen file that is malformed is an error, not a silent default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.constants import KINDS, LAST_RUN, Constants, RunRange, checked
from psana_dask.calib.detectors import GENERIC, detector
from psana_dask.calib.kept import parsed
from psana_dask.calib.store import Listed, Lookup, Step, choose
from psana_dask.calib.textfile import parse_text
from psana_dask.errors import ConstantsError

LARGEST_FILE = 4 << 30  # bytes: a text file beyond this is no calibration constant


def parse_name(name: str) -> RunRange | str:
    """Return the runs of a file name, or why it is not a constant's."""
    stem, dot, extension = name.rpartition(".")
    if not dot or extension != "data":
        return "not a .data file"
    match = re.fullmatch(r"([0-9]+)-([0-9]+|end)", stem)
    if match is None:
        return "not named <begin>-<end>.data with run numbers or 'end'"
    begin = int(match[1])
    end = LAST_RUN if match[2] == "end" else int(match[2])
    if begin > LAST_RUN or end > LAST_RUN:
        return f"run numbers end at {LAST_RUN}"
    return RunRange(begin, end) if begin <= end else f"begins ({begin}) after it ends ({end})"


def chosen_file(names: Iterable[str], run: int) -> str | None:
    """Return which of the file names is in force for a run, or None."""
    parsed = [(parse_name(name), name) for name in names]
    best = choose([(runs, 0, name) for runs, name in parsed if isinstance(runs, RunRange)], run)
    return None if best is None else best[2]


def source_folder(source: str) -> str:
    """Return the folder name of a source: ``DetInfo(...)`` is taken off."""
    return re.sub(r"^\w*Info\((.*)\)$", r"\1", source.strip())


def read_text(path: Path) -> NDArray[Any]:
    """Return the array of a calibration file; see `textfile.parse_text`."""
    try:
        return parsed(path, lambda: parse_text(_content(path), str(path)))
    except OSError as error:
        raise ConstantsError(f"{path}: cannot be read: {error.strerror}") from error


def _content(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConstantsError(f"{path}: {path.stat().st_size} bytes are too many for a constant")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConstantsError(f"{path}: not a text file ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConstantsError(f"{path}: cannot be read: {error.strerror}") from error


def check_fit(source: str, kind: str, value: NDArray[Any] | str, where: str, *, finite: bool = True) -> None:
    """Check that a value can be a constant of a detector.

    Raises
    ------
    ConstantsError
        Another number of values than the detector has pixels (and gain ranges); NaN or infinite.
    """
    if finite:
        _finite(kind, value, where)
    size = _expected_size(source)
    per_pixel = not isinstance(value, str) and kind != "common_mode" and kind in KINDS
    if per_pixel and size is not None and np.size(value) not in {size, *_partial_sizes(source)}:
        raise ConstantsError(f"{where}: {np.size(value)} values of {kind}, {source} needs {size}")


def _finite(kind: str, value: NDArray[Any] | str, where: str) -> None:
    if not isinstance(value, str) and value.dtype.kind == "f" and not np.isfinite(value).all():
        bad = ~np.isfinite(value)
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ConstantsError(
            f"{where}: {int(bad.sum())} values of {kind} are NaN or infinite, first at {first}"
        )


LONGEST = 255
"""Bytes in a name of a folder: the names that the LCLS-II service has may be longer."""


def _expected_size(source: str) -> int | None:
    row = detector(source)
    is_source = ":" in source  # an alias may be called like another type
    if not is_source or not row.shape or 0 in row.shape:
        return None
    return int(np.prod(row.shape)) * max(1, len(row.decoding.ranges))


@dataclass(frozen=True)
class CalibDirectory:
    """Reads an LCLS-1 calib directory.

    Parameters
    ----------
    path : Path
        The folder that holds the groups (``CsPad::CalibV1``, ...).
    finite : bool
        Refuse files with NaN or infinite values.

    Examples
    --------
    >>> store = calib.CalibDirectory("xpptut15/calib")  # doctest: +SKIP
    >>> store.listing()  # doctest: +SKIP
    """

    path: Path
    finite: bool = True

    @property
    def name(self) -> str:
        """Return the name for explanations."""
        return f"calib directory {self.path}"

    def folder(self, source: str) -> Path | None:
        """Return the folder of a source, or None if there is none."""
        wanted = source_folder(source)
        if len(wanted.encode()) > LONGEST:
            return None
        row = detector(wanted)
        named = Path(self.path) / row.group / wanted
        if row is not GENERIC and named.is_dir():
            return named
        return next((p for p in sorted(Path(self.path).glob(f"*/{_escaped(wanted)}")) if p.is_dir()), None)

    def has(self, source: str) -> bool:
        """Return whether there is a folder for a source."""
        return self.folder(source) is not None

    def kinds(self, detector: str) -> tuple[str, ...]:
        """Return the kinds that have a folder."""
        folder = self.folder(detector)
        return () if folder is None else tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))

    def detectors(self) -> list[str]:
        """Return the sources that have a folder."""
        groups = [g for g in sorted(Path(self.path).glob("*::*")) if g.is_dir()]
        return [s.name for g in groups for s in sorted(g.iterdir()) if s.is_dir()]

    def listing(self, detector: str | None = None) -> list[Listed]:
        """Return all valid files, or those of one source."""
        sources = self.detectors() if detector is None else [source_folder(detector)]
        return [
            Listed(source, kind, runs, str(path), _changed(path))
            for source in sources for kind in self.kinds(source) for runs, path in self.ranges(source, kind)
        ]

    def ranges(self, source: str, kind: str) -> list[tuple[RunRange, Path]]:
        """Return the valid files of a kind with their runs, in the order of begin and end."""
        folder = self.folder(source)
        if folder is None or not (folder / kind).is_dir():
            return []
        parsed = [(parse_name(p.name), p) for p in (folder / kind).iterdir() if p.is_file()]
        return sorted((runs, p) for runs, p in parsed if isinstance(runs, RunRange))

    def find(self, detector: str, kind: str, run: int) -> Lookup:
        """Return the constant in force for a run.

        Raises
        ------
        ConstantsError
            The file in force is malformed.
        """
        folder = self.folder(detector)
        if folder is None:
            because = f"no folder */{source_folder(detector)}"
            return self._none(detector, kind, run, str(self.path), because)
        place = folder / kind
        if not place.is_dir():
            return self._none(detector, kind, run, str(place), "no such folder")
        skipped = self._skipped(place)
        valid = self.ranges(detector, kind)
        best = choose([(runs, 0, path) for runs, path in valid], run)
        if best is None:
            because = f"{len(valid)} files, none covers run {run}"
            return self._none(detector, kind, run, str(place), because, skipped)
        covering = sum(run in runs for runs, _ in valid)
        because = f"largest begin, then smallest end, of {covering} that cover run {run}"
        step = Step(self.name, f"{detector}/{kind}/{best[2].name}", "took", because)
        return Lookup(kind, detector, run, self.read(detector, kind, best[2]), (*skipped, step))

    def _none(
        self, source: str, kind: str, run: int, place: str, because: str, skipped: tuple[Step, ...] = ()
    ) -> Lookup:
        return Lookup(kind, source, run, None, (*skipped, Step(self.name, place, "none", because)))

    def _skipped(self, folder: Path) -> tuple[Step, ...]:
        names = sorted(p.name for p in folder.iterdir() if p.name != "HISTORY" and p.suffix == ".data")
        reasons = [(name, parse_name(name)) for name in names]
        return tuple(Step(self.name, str(folder / name), "skipped", why)
                     for name, why in reasons if isinstance(why, str))

    def read(self, source: str, kind: str, path: Path) -> Constants:
        """Return the constant of one file, checked against its kind and the detector's size."""
        text = KINDS[kind].dtype == "str" if kind in KINDS else False
        value: Any = _content(path) if text else checked(kind, read_text(path), where=str(path))
        check_fit(source, kind, value, str(path), finite=self.finite)
        named = parse_name(path.name)
        runs = named if isinstance(named, RunRange) else RunRange(0)
        return Constants(kind, value, source_folder(source), runs, self.name, str(path),
                         created=_changed(path))

    def problems(self, source: str, kind: str) -> list[str]:
        """Return what is wrong with the files of a kind: names, ranges, contents."""
        folder = self.folder(source)
        if folder is None or not (folder / kind).is_dir():
            return [f"{self.path}: nothing of kind {kind} for {source}"]
        found = [str(step) for step in self._skipped(folder / kind)]
        valid = self.ranges(source, kind)
        found += [
            f"{later[1].name} hides {earlier[1].name} for runs {later[0].begin} to "
            f"{min(earlier[0].end, later[0].end)}"
            for i, earlier in enumerate(valid) for later in valid[i + 1 :]
            if earlier[0].end >= later[0].begin and earlier[0].end != LAST_RUN
        ]
        for _, path in valid:
            try:
                self.read(source, kind, path)
            except ConstantsError as error:
                found.append(str(error))
        return found


def _changed(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _partial_sizes(source: str) -> set[int]:
    """One gain range for all: a mask or status of a multi-gain detector may have no range axis."""
    row = detector(source)
    return {int(np.prod(row.shape))} if row.multigain else set()


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
