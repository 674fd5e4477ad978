"""A writable store of constants in the layout of the LCLS-1 calib directory.

Every deployment is atomic (written beside, flushed, renamed), keeps what it replaces as
``<name>.data-<time stamp>``, and adds a line to the folder's HISTORY; `undo` takes the last
one back.  psana reads such a folder as it is.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from psana_dask.calib.constants import Constants, RunRange, checked
from psana_dask.calib.detectors import detector as detector_row
from psana_dask.calib.directory import CalibDirectory, check_fit, source_folder
from psana_dask.calib.store import Difference, Listed, Lookup, difference
from psana_dask.calib.textfile import write_text
from psana_dask.errors import ConstantsError, ConstantsNotFound

_FIELD = re.compile(r"(\w+):(.*?)(?=\s+\w+:|$)")


@dataclass(frozen=True)
class Deployment:
    """What a deployment did, or would do."""

    path: Path
    backup: Path | None  # what the file there was renamed to
    difference: Difference  # from the constant in force for the first run
    done: bool  # False: a dry run


@dataclass(frozen=True)
class HistoryLine:
    """One line of a HISTORY file."""

    action: str  # "deploy" or "undo"
    file: str
    backup: str
    time: str
    user: str
    comment: str


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container without a user name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def _one_line(text: str) -> str:
    """Blanks for line ends, and no ``word:`` that would read as another field."""
    return re.sub(r"(\w):", r"\1 :", " ".join(text.split()))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


@dataclass(frozen=True)
class LocalStore:
    """A folder of constants that can be written.

    Parameters
    ----------
    path : Path
        Root, made when first written.

    Examples
    --------
    >>> store = calib.LocalStore(Path("own"))
    >>> store.kinds("epixquad")
    """

    path: Path

    @property
    def name(self) -> str:
        """Return the name for explanations."""
        return f"local store {self.path}"

    @property
    def _reader(self) -> CalibDirectory:
        return CalibDirectory(Path(self.path))

    def find(self, detector: str, kind: str, run: int) -> Lookup:
        """Return the constant in force for a run; see `CalibDirectory.find`."""
        return self._reader.find(detector, kind, run)

    def has(self, source: str) -> bool:
        """Return whether there is a folder for a source."""
        return self._reader.has(source)

    def kinds(self, detector: str) -> tuple[str, ...]:
        """Return the kinds that have a folder."""
        return self._reader.kinds(detector)

    def detectors(self) -> list[str]:
        """Return the sources that have a folder."""
        return self._reader.detectors()

    def listing(self, detector: str | None = None) -> list[Listed]:
        """Return all valid files, or those of one source; backups are not among them."""
        return self._reader.listing(detector)

    def problems(self, detector: str, kind: str) -> list[str]:
        """Return what is wrong with the files of a kind; see `CalibDirectory.problems`."""
        return self._reader.problems(detector, kind)

    def folder(self, detector: str, kind: str, group: str = "") -> Path:
        """Return where constants of a kind lie, whether or not the folder exists."""
        source = source_folder(detector)
        if not source or source.startswith(".") or re.search(r"[/\\\0]", source + kind):
            raise ConstantsError(f"cannot make a folder for detector {detector!r} and kind {kind!r}")
        existing = self._reader.folder(source)
        named = group if group and ":" not in source else detector_row(source).group
        new = Path(self.path) / named / source
        return (existing or new) / kind

    def deploy(
        self,
        constants: Constants,
        detector: str,
        runs: RunRange,
        *,
        comment: str = "",
        dry_run: bool = False,
        against: Mapping[str, Constants] | None = None,
        group: str = "",
    ) -> Deployment:
        """Put a constant in force for a range of runs.

        Parameters
        ----------
        constants : Constants
            Its value is checked against its kind.
        detector : str
            Source (``CxiDs1.0:Cspad.0``).
        runs : RunRange
            Becomes the file name.
        comment : str
            For HISTORY.
        dry_run : bool
            Say what would happen, write nothing.
        against : mapping of kind to Constants, optional
            What is in force elsewhere, for the difference; by default what is in force here.
        group : str
            Folder for a detector whose name does not say its type (an alias of LCLS-II).
        """
        value = checked(constants.kind, constants.value)
        check_fit(source_folder(detector), constants.kind, value, "the new constant")
        path = self.folder(detector, constants.kind, group) / f"{runs}.data"
        elsewhere = (against or {}).get(constants.kind)
        before = elsewhere or self.find(detector, constants.kind, runs.begin).constants
        change = difference(constants.with_value(value), before)
        stamp = _now()
        backup = path.with_name(f"{path.name}-{stamp}") if path.exists() else None
        if not dry_run:
            header = self._header(constants, detector, stamp)
            text = value if isinstance(value, str) else write_text(value, header)
            path.parent.mkdir(parents=True, exist_ok=True)
            if backup is not None:
                os.link(path, backup)
            write_atomically(path, text.encode())
            self._record(path.parent, "deploy", path.name, backup, stamp, constants.origin, comment)
        return Deployment(path, backup, change, not dry_run)

    def _header(self, constants: Constants, detector: str, stamp: str) -> dict[str, str]:
        return {"TITLE": "written by psana_dask", "DETECTOR": detector, "CALIB_TYPE": constants.kind,
                "DATE_TIME": stamp, "COMMENT": constants.comment, "ORIGIN": constants.origin}

    def _record(
        self, folder: Path, action: str, file: str, backup: Path | None, stamp: str, source: str, comment: str
    ) -> None:
        line = (f"file:{file}  copy_of:{_one_line(source) or '-'}  action:{action}  "
                f"backup:{backup.name if backup else '-'}  ctype:{folder.name}  user:{_user()}  "
                f"host:{socket.gethostname()}  cptime:{stamp}  zone:+0000  comment:{_one_line(comment)}\n")
        with open(folder / "HISTORY", "a", encoding="utf-8") as file_:
            file_.write(line)

    def history(self, detector: str, kind: str) -> list[HistoryLine]:
        """Return the lines of HISTORY, oldest first; lines of other programs too."""
        path = self.folder(detector, kind) / "HISTORY"
        if not path.exists():
            return []
        return list(_history_lines(path.read_text(encoding="utf-8", errors="replace")))

    def undo(self, detector: str, kind: str, *, comment: str = "") -> HistoryLine:
        """Take the last deployment of a kind back: restore what it replaced, or remove its file.

        Returns
        -------
        HistoryLine
            The deployment that was taken back.

        Raises
        ------
        ConstantsNotFound
            There is no deployment left to take back.
        """
        folder = self.folder(detector, kind)
        last = self.last_deployment(detector, kind)
        path = folder / last.file
        stamp = _now()
        kept = path.with_name(f"{path.name}-{stamp}")
        if path.exists():
            os.link(path, kept)
        if last.backup not in {"", "-"}:
            write_atomically(path, (folder / last.backup).read_bytes())
        else:
            path.unlink(missing_ok=True)
        self._record(folder, "undo", last.file, kept, stamp, last.backup, f"of {last.time} {comment}")
        return last

    def last_deployment(self, detector: str, kind: str) -> HistoryLine:
        """Return the deployment that `undo` would take back.

        Raises
        ------
        ConstantsNotFound
            There is none.
        """
        open_ones: list[HistoryLine] = []
        for line in self.history(detector, kind):
            if line.action == "undo" and open_ones:
                open_ones.pop()
            elif line.action == "deploy":
                open_ones.append(line)
        if not open_ones:
            raise ConstantsNotFound(f"{self.name}: no deployment of {kind} for {detector} to take back")
        return open_ones[-1]


def _history_lines(text: str) -> Iterator[HistoryLine]:
    for line in text.splitlines():
        words = {key: value.strip() for key, value in _FIELD.findall(line)}
        if "file" not in words:
            continue
        yield HistoryLine(words.get("action", "other"), words["file"], words.get("backup", "-"),
                          re.sub(r" ", "", words.get("cptime", "")), words.get("user", ""),
                          re.sub(r"(\w) :", r"\1:", words.get("comment", words.get("cmt", ""))))
