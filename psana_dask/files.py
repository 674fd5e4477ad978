"""Experiment and run to files on disk: names, folders, data set strings.

A file of a run is called ``<experiment>-r<run>-s<stream>[-c<part>][.smd].xtc2`` (``.xtc``
for LCLS-1), with ``.inprogress`` appended while it is written; small-data files lie in
``smalldata/`` beside it.  Other names are taken as they come, one stream each.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from psana_dask.errors import AmbiguousRun, RunNotFound, near_names
from psana_dask.options import current

FILE_NAME = re.compile(
    r"(?P<experiment>.+)-r(?P<run>\d+)-s(?P<stream>\d+)(-c(?P<part>\d+))?(?P<smd>\.smd)?"
    r"\.xtc2?(?P<open>\.inprogress)?"
)
SUFFIXES = (".xtc", ".xtc2", ".xtc.inprogress", ".xtc2.inprogress")
EXPORT_SUFFIXES = (".zarr", ".h5", ".hdf5", ".nc")
EXPERIMENT = re.compile(r"[A-Za-z]{3}\w{3,12}")
_MODES = ("smd", "idx", "live", "xtc", "rax", "h5")


@dataclass(frozen=True)
class StreamFiles:
    """The files of one stream.

    Parameters
    ----------
    stream : int
    parts : tuple of str
        Absolute paths in the order they were written.
    smd : str, optional
        The small-data file.
    """

    stream: int
    parts: tuple[str, ...]
    smd: str | None = None


@dataclass(frozen=True)
class RunFiles:
    """The files of one run, and what of it is wanted: enough to open it again elsewhere.

    Parameters
    ----------
    experiment : str, optional
    number : int, optional
        Run number as the file names say it.
    streams : tuple of StreamFiles
        Ordered by stream number.
    wanted : int, optional
        Run number that was asked for.
    only : tuple of int, optional
        Streams to read; all of them decide the order of events all the same.
    cache : bool
        Whether indexes are kept on disk.
    """

    experiment: str | None
    number: int | None
    streams: tuple[StreamFiles, ...]
    wanted: int | None = None
    only: tuple[int, ...] | None = None
    cache: bool = True

    @property
    def paths(self) -> tuple[str, ...]:
        """All data files."""
        return tuple(path for s in self.streams for path in s.parts)


@dataclass(frozen=True)
class DataSet:
    """A data set string, taken apart.

    Parameters
    ----------
    experiment : str
    run : int, optional
    folder : str, optional
    streams : tuple of int, optional
    modes : frozenset of str
        Words such as ``smd``, ``idx`` and ``live``; only ``live`` changes anything here.
    """

    experiment: str
    run: int | None = None
    folder: str | None = None
    streams: tuple[int, ...] | None = None
    modes: frozenset[str] = field(default_factory=frozenset)


def parse_data_set(text: str) -> DataSet:
    """Take a data set string apart: ``exp=xpptut15:run=54:smd`` or ``exp=xpptut15,run=54,dir=/d``.

    Raises
    ------
    ValueError
        For a word that means nothing, naming it and what is known.
    """
    words = [w for w in re.split(r"[:,](?=\s*(?:\w+=|(?:{})\b))".format("|".join(_MODES)), text) if w.strip()]
    values: dict[str, str] = {}
    modes = set()
    for word in map(str.strip, words):
        key, equals, value = word.partition("=")
        if equals and key in ("exp", "run", "dir", "stream"):
            values[key] = value
        elif word in _MODES:
            modes.add(word)
        else:
            raise ValueError(
                f"{word!r} in data set {text!r} means nothing: use exp=, run=, dir=, stream= "
                f"or {', '.join(_MODES)}"
            )
    if "exp" not in values:
        raise ValueError(f"data set {text!r} names no experiment: add exp=NAME")
    return DataSet(
        experiment=values["exp"].rpartition("/")[2],  # "xpp/xpptut15" is accepted
        run=_run_number(values["run"]) if "run" in values else None,
        folder=values.get("dir"),
        streams=number_list(values["stream"]) if "stream" in values else None,
        modes=frozenset(modes),
    )


def _run_number(text: str) -> int:
    if not re.fullmatch(r"r?\d+", text):
        raise ValueError(f"run={text!r} is not one run number; open_runs() takes several")
    return int(text.lstrip("r"))


def number_list(text: str) -> tuple[int, ...]:
    """Return the numbers of ``"0,2,4-6"``."""
    numbers: list[int] = []
    for word in text.split(","):
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"{text!r} is not a list of numbers such as 0,2,4-6")
        numbers += range(int(first), int(last if dash else first) + 1)
    return tuple(numbers)


def is_data_set(source: object) -> bool:
    """Tell whether `source` is a data set string."""
    return isinstance(source, str) and re.match(r"\s*(exp|run|dir|stream)=", source) is not None


def find_run(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    run: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    streams: Iterable[int] | None = None,
) -> RunFiles:
    """Return the files of one run.

    Parameters
    ----------
    source : str, path or list of them
        Data set string, experiment name, file, glob, folder, or a list of files.
    run : int, optional
    folder : path, optional
        Where the files lie; by default ``<data root>/<instrument>/<experiment>/xtc``.
    streams : iterable of int, optional
        Read only these.

    Raises
    ------
    RunNotFound
        Nothing there, or nothing of this run; says where it looked and what is there.
    AmbiguousRun
        Several runs, and `run` does not say which.
    """
    if isinstance(source, str | os.PathLike) and is_export(os.fspath(source)):
        return _export_files(os.fspath(source), run)
    runs = find_runs(source, run, folder)
    if len(runs) > 1:
        found = ", ".join(f"{r.experiment} run {r.number}" for r in runs[:20])
        raise AmbiguousRun(f"{source} holds several runs ({found}): say run=NUMBER, or use open_runs()")
    only = tuple(streams) if streams is not None else None
    if is_data_set(source) and only is None:
        only = parse_data_set(str(source)).streams
    return replace(runs[0], only=only)


def is_export(path: str) -> bool:
    """Tell whether a path is that of an export, by its suffix."""
    return path.rstrip("/").endswith(EXPORT_SUFFIXES)


def _export_files(path: str, run: int | None) -> RunFiles:
    if not os.path.exists(path):
        raise RunNotFound(f"no file or folder {path}")
    return RunFiles(None, None, (StreamFiles(0, (os.path.abspath(path),)),), wanted=run)


def find_runs(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    run: int | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> list[RunFiles]:
    """Return the files of every run of `source`, ordered by run number; see `find_run`."""
    experiment, looked_in = None, str(source)
    if is_data_set(source):
        data_set = parse_data_set(str(source))
        experiment, run = data_set.experiment, data_set.run if run is None else run
        folder = folder or data_set.folder
    elif isinstance(source, str) and not os.path.exists(source) and EXPERIMENT.fullmatch(source):
        experiment = source
    if experiment is not None:
        paths, looked_in = _experiment_files(experiment, folder)
    else:
        paths = _listed_files(source)
    runs = group_runs(paths)
    if experiment is not None:
        runs = _of_experiment(runs, experiment, looked_in)
    return _chosen(runs, run, looked_in)


def _of_experiment(runs: list[RunFiles], experiment: str, looked_in: str) -> list[RunFiles]:
    """Return the runs of an experiment: names of LCLS-1 say ``e123``, those of LCLS-II its name.

    Raises
    ------
    RunNotFound
        All files are of other experiments.
    """
    own = [r for r in runs if r.experiment == experiment]
    left = own or [r for r in runs if r.experiment is None or ".xtc2" not in Path(r.paths[0]).name]
    if runs and not left:
        others = ", ".join(sorted({str(r.experiment) for r in runs})[:5])
        raise RunNotFound(f"no file of {experiment} in {looked_in}; there are files of {others}")
    return left


def _chosen(runs: list[RunFiles], run: int | None, looked_in: str) -> list[RunFiles]:
    if not runs:
        raise RunNotFound(f"no XTC or XTC2 file in {looked_in}")
    if run is None:
        return runs
    # a file whose name says no run, or another one, may still hold it: the content decides
    fitting = [r for r in runs if r.number == run] or [r for r in runs if r.number is None]
    if not fitting and len(runs) == 1:
        fitting = runs
    if not fitting:
        there = ", ".join(str(r.number) for r in runs[:20])
        raise RunNotFound(f"no run {run} in {looked_in}; there are runs {there}")
    return [replace(r, wanted=run) for r in fitting]


def _experiment_files(experiment: str, folder: str | os.PathLike[str] | None) -> tuple[list[str], str]:
    """Return the data files of an experiment and the folder where they were looked for."""
    base = Path(folder) if folder else current().data_folder() / experiment[:3].lower() / experiment / "xtc"
    if not base.is_dir():
        if folder:
            raise RunNotFound(f"no folder {base}")
        hint = "say dir=FOLDER, or set SIT_PSDM_DATA to the root of the data"
        raise RunNotFound(f"no folder {base}{_near_folders(base.parent)}; {hint}")
    return _folder_files(base), str(base)


def _near_folders(experiment: Path) -> str:
    """Return the experiments on disk whose names are like this one's, for a message."""
    near = near_names(experiment.name, (place.name for place in _children(experiment.parent)))
    return f" (but {', '.join(near)})" if near else ""


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _listed_files(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    if not isinstance(source, str | os.PathLike):
        return [path for item in source for path in _listed_files(item)]
    name = os.fspath(source)
    if os.path.isdir(name):
        return _folder_files(Path(name))
    if os.path.exists(name):
        return [os.path.abspath(name)]
    if glob.has_magic(name):
        return sorted(os.path.abspath(p) for p in glob.glob(name) if p.endswith(SUFFIXES))
    near = near_names(Path(name).name, (p.name for p in _children(Path(name).absolute().parent)), 3)
    beside = f"; beside it are {', '.join(near)}" if near else ""
    raise RunNotFound(f"no file or folder {name}, and no experiment is called so{beside}")


def _folder_files(folder: Path) -> list[str]:
    """Return the data files in `folder`, or in its ``xtc`` folder."""
    for place in (folder, folder / "xtc"):
        if place.is_dir():
            found = sorted(str(p.absolute()) for p in place.iterdir() if p.name.endswith(SUFFIXES))
            if found:
                return found
    return []


@dataclass(frozen=True)
class _Named:
    path: str
    experiment: str | None
    run: int | None
    stream: int
    part: int


def group_runs(paths: Iterable[str]) -> list[RunFiles]:
    """Sort files into runs and streams by their names.

    Files with other names form one run of their own, one stream each.  Parts whose first
    part is not among the files (a part may have any name: the one before it says which)
    are no run of their own; the index finds them.
    """
    named = [_named(path, k) for k, path in enumerate(dict.fromkeys(paths))]
    groups: dict[tuple[str | None, int | None], list[_Named]] = {}
    for file in named:
        groups.setdefault((file.experiment, file.run), []).append(file)
    with_start = {key: files for key, files in groups.items() if any(f.part == 0 for f in files)}
    runs = [_run_of(key, files) for key, files in (with_start or groups).items()]
    return sorted(runs, key=lambda r: (r.experiment or "", -1 if r.number is None else r.number))


def refreshed(files: RunFiles, *, new_streams: bool = True) -> RunFiles:
    """Return the files that a run has now: parts may have been added, closed and renamed.

    Parameters
    ----------
    files : RunFiles
    new_streams : bool
        Take streams that were not there before.
    """
    folder = os.path.dirname(files.paths[0])
    same = [r for r in group_runs(_in_folder(folder)) if (r.experiment, r.number) == _identity(files)]
    if not same or files.number is None:
        return files
    mine = {s.stream for s in files.streams}
    return replace(files, streams=tuple(s for s in same[0].streams if new_streams or s.stream in mine))


def has_all_streams(files: RunFiles) -> bool:
    """Tell whether the run's folder has no other stream of it."""
    return {s.stream for s in refreshed(files).streams} <= {s.stream for s in files.streams}


def _identity(files: RunFiles) -> tuple[str | None, int | None]:
    return files.experiment, files.number


def _in_folder(folder: str) -> list[str]:
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(SUFFIXES))


def _named(path: str, position: int) -> _Named:
    match = FILE_NAME.fullmatch(os.path.basename(path))
    if match is None:
        return _Named(path, None, None, position, 0)
    return _Named(
        path, match["experiment"], int(match["run"]), int(match["stream"]), int(match["part"] or 0)
    )


def _run_of(key: tuple[str | None, int | None], files: list[_Named]) -> RunFiles:
    streams: dict[int, list[_Named]] = {}
    for file in files:
        streams.setdefault(file.stream, []).append(file)
    return RunFiles(
        experiment=key[0],
        number=key[1],
        streams=tuple(_stream_of(number, streams[number]) for number in sorted(streams)),
    )


def _stream_of(stream: int, files: list[_Named]) -> StreamFiles:
    # a file that is renamed while we look may be listed twice: the finished one counts
    parts = {f.part: f.path for f in sorted(files, key=lambda f: f.path, reverse=True)}
    paths = tuple(parts[k] for k in sorted(parts))
    return StreamFiles(stream, paths, smd_file(paths[0]))


def smd_file(path: str) -> str | None:
    """Return the small-data file that belongs to a data file, if there is one."""
    folder, name = os.path.split(path)
    stem, suffix = re.fullmatch(r"(.*?)(\.xtc2?(?:\.inprogress)?)?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    stems = (stem, re.sub(r"-c\d+$", "", stem))
    for candidate in stems:
        smd = os.path.join(folder, "smalldata", f"{candidate}.smd{suffix or ''}")
        if os.path.exists(smd):
            return smd
    return None
