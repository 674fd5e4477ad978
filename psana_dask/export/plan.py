"""How the work of an export is cut into pieces, and which of them are done.

An export grows in ``<path>.part``: `begin` makes the skeleton (small variables included) and
``plan.json``; each piece is a range of rows of one large variable, and leaves a mark when it
is on disk; `finish` moves the whole into place. Each step is safe to repeat, so a killed
export is resumed by running it again, and nothing half done has the name of the result.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psana_dask.errors import ExportError

if TYPE_CHECKING:
    import xarray as xr

CHUNK_BYTES = 4 * 2**20
"""Bytes of a chunk, about: what is read and decoded to see one event of a small detector."""

PIECE_BYTES = 64 * 2**20
"""Bytes of a piece, about: one shard of Zarr, one unit of work."""

SMALL_BYTES = 2**20
"""Variables up to this size are written by `begin`."""


@dataclass(frozen=True)
class Column:
    """A large variable: how it is cut along its first dimension.

    Parameters
    ----------
    group, name : str
    shape : tuple of int
    dtype : str
    chunk : int
        Rows of a chunk.
    piece : int
        Rows of a piece; a multiple of `chunk`.
    """

    group: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    chunk: int
    piece: int

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """First and last row (exclusive) of each piece."""
        rows = self.shape[0]
        return [(first, min(first + self.piece, rows)) for first in range(0, rows, self.piece)]


@dataclass(frozen=True)
class Piece:
    """Rows of one column.

    Parameters
    ----------
    number : int
    column : Column
    start, stop : int
    """

    number: int
    column: Column
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """The large variables of an export.

    Parameters
    ----------
    columns : tuple of Column
    digest : str
        Hash of what is exported: another one is another export.
    """

    columns: tuple[Column, ...]
    digest: str

    @property
    def pieces(self) -> list[Piece]:
        """All pieces, numbered."""
        found = [(c, start, stop) for c in self.columns for start, stop in c.pieces]
        return [Piece(k, c, start, stop) for k, (c, start, stop) in enumerate(found)]

    def text(self) -> str:
        """Return the plan as JSON."""
        return json.dumps({"digest": self.digest, "columns": [asdict(c) for c in self.columns]}, indent=1)

    @classmethod
    def of_text(cls, text: str) -> Plan:
        """Return the plan that `text` writes."""
        read = json.loads(text)
        columns = tuple(Column(**c | {"shape": tuple(c["shape"])}) for c in read["columns"])
        return cls(columns, read["digest"])


@dataclass(frozen=True)
class Place:
    """Where the chunks of a piece are.

    Parameters
    ----------
    file : str
        In the folder of the workshop.
    offsets, sizes : tuple of int
        Of each chunk, bytes.
    """

    file: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def end(self) -> int:
        """The file is as long as this at least."""
        return max(o + s for o, s in zip(self.offsets, self.sizes, strict=True))

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Place:
        """Return the place that `text` writes."""
        read = json.loads(text)
        return cls(read["file"], tuple(read["offsets"]), tuple(read["sizes"]))


def plan_of(groups: Mapping[str, xr.Dataset], digest: str) -> Plan:
    """Return which variables of the groups are large, and how they are cut."""
    columns = [
        column_of(path, str(name), variable)
        for path, data in groups.items()
        for name, variable in data.data_vars.items()
        if is_large(variable)
    ]
    return Plan(tuple(columns), digest)


def is_large(variable: Any) -> bool:
    """Tell whether a variable is written in pieces."""
    return variable.ndim > 0 and variable.dtype.kind in "biuf" and variable.nbytes > SMALL_BYTES


def column_of(group: str, name: str, variable: Any) -> Column:
    """Cut one variable: chunks of some MiB, pieces of whole chunks."""
    rows, row_bytes = variable.shape[0], max(1, variable.nbytes // max(1, variable.shape[0]))
    chunk = max(1, min(rows, CHUNK_BYTES // row_bytes))
    piece = chunk * max(1, PIECE_BYTES // (chunk * row_bytes))
    return Column(group, name, tuple(variable.shape), str(variable.dtype), chunk, piece)


# ---- bytes on disk -------------------------------------------------------------------------------
WRITE_BYTES = 256 * 2**10
"""Bytes of one write: for larger ones Linux looks for larger pages, which costs up to four times the time."""


def write_all(file: Any, data: Any) -> int:
    """Write to an unbuffered file until all is there; return the bytes."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += file.write(view[done : done + WRITE_BYTES])
    return done


def write_at(number: int, data: Any, offset: int) -> None:
    """Write all bytes of a buffer at a place of an open file."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(number, view[done : done + WRITE_BYTES], offset + done)


# ---- the folder in which an export grows ----------------------------------------------------------
@dataclass(frozen=True)
class Workshop:
    """The folder beside the result, ``<path>.part``, while the export is under way.

    Parameters
    ----------
    path : Path
        Of the result.
    """

    path: Path

    @property
    def folder(self) -> Path:
        """Where the export grows."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def data(self) -> Path:
        """What becomes the result."""
        return self.folder / ("data" + self.path.suffix)

    @property
    def marks(self) -> Path:
        """Folder of marks: one file for each piece that is on disk."""
        return self.folder / "done"

    def plan(self) -> Plan | None:
        """Return the plan of the export that is under way; None if there is none."""
        try:
            return Plan.of_text((self.folder / "plan.json").read_text())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            what = f"{self.folder}/plan.json is no plan ({error}): remove {self.folder}"
            raise ExportError(what) from error

    def start(self, plan: Plan) -> None:
        """Write the plan: from now on the export can be resumed."""
        self.marks.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "plan.json", plan.text())

    def ready(self) -> Path | None:
        """Return what is complete and gets the name of the result, or got it already; None before."""
        try:
            return self.folder / (self.folder / "ready").read_text()
        except FileNotFoundError:
            return None

    def note_ready(self, made: Path) -> None:
        """Note that the result is complete."""
        write_text(self.folder / "ready", str(made.relative_to(self.folder)), durable=False)

    def clear(self) -> None:
        """Remove what an earlier export left."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_done(self, piece: Piece) -> bool:
        """Tell whether a piece is there: its mark, and the bytes that it speaks of."""
        try:
            place = self.place(piece)
            return (self.folder / place.file).stat().st_size >= place.end
        except (OSError, ValueError, TypeError):  # a computer that failed may lose a file, or its end
            return False

    def mark(self, piece: Piece, place: Place) -> None:
        """Note that a piece is there, and where."""
        write_text(self.marks / str(piece.number), place.text(), durable=False)

    def place(self, piece: Piece) -> Place:
        """Return where a piece is that is there."""
        return Place.of_text((self.marks / str(piece.number)).read_text())


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a small file so that it is whole or not there; durable: also if the computer fails now."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    with open(fresh, "w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    fresh.replace(path)


def replace(fresh: Path, path: Path) -> None:
    """Put a file or folder in the place of `path`; what was there goes only when the new one is there.

    It is there when it is on disk: also if the computer fails now, one of both is.
    """
    old = path.with_name(path.name + ".old")
    if path.exists():
        _settle(fresh)
    if path.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        path.replace(old)
    fresh.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def _settle(path: Path) -> None:
    """Wait until a file, or all files of a folder, are on disk."""
    for file in [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
