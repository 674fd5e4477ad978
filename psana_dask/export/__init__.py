"""Exports: what the user chooses of a run, as Zarr or HDF5 that the same tool opens again.

>>> psana_dask.export.export(run, "reduced.zarr", ["cspad.calib", "ebeam"])

The steps are there one by one for job arrays: `begin`, `write_piece` for each number, `finish`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import as_completed as futures_done
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from psana_dask.dataset import Names
from psana_dask.errors import ExportError, PsanaError
from psana_dask.export.chunks import chunks
from psana_dask.export.content import Roi, Wanted, groups, time_order
from psana_dask.export.original import export_original
from psana_dask.export.plan import Piece, Plan, Workshop, plan_of, replace
from psana_dask.export.table_file import export_table
from psana_dask.fields import unsplit_reads

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.run import Run

__all__ = ["Wanted", "begin", "export", "export_original", "finish", "write_piece"]

COMPRESSIONS = ("lz4", "zstd", None)
FRAME_FILES = (".nxs", ".cxi")


def export(
    run: Run,
    path: str | os.PathLike[str],
    names: Names = None,
    *,
    roi: Roi | None = None,
    own: xr.Dataset | None = None,
    bundle: bool = False,
    photon_energy: float | str | None = None,
    distance: float | None = None,
    compression: str | None = "lz4",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Export a run; an export that was interrupted goes on where it stopped.

    Parameters
    ----------
    run : Run
        Its selection is what is exported, in time order.
    path : path
        ``.zarr``, or ``.h5`` (``.hdf5``, ``.nc``). With the frames of one detector ``.nxs`` (NeXus,
        NXmx) or ``.cxi``. Scalars also ``.parquet``.
    names : names of detectors and fields, optional
        As in `Run.dataset`, and ``"cspad.calib"``, ``"cspad.image"``; all fields by default.
    roi : mapping, optional
        For each detector a slice for each dimension: ``{"cspad": {"panel": slice(0, 4)}}``.
    own : Dataset, optional
        Variables of your own, kept in the group ``own``.
    bundle : bool
        Put constants and geometry in, so that the export can be calibrated anywhere.
    photon_energy : float or str, optional
        Of ``.nxs`` and ``.cxi``: eV, or the field that has it; by default what the accelerator reports.
    distance : float, optional
        Of ``.nxs`` and ``.cxi``: from the sample to the detector, m; by default the geometry's.
    compression : {"lz4", "zstd", None}
        Bitshuffle with LZ4, Zstandard, or none.
    overwrite : bool
        Replace a finished export.
    progress : callable, optional
        Called with pieces done and pieces in all.

    Returns
    -------
    Path
        The finished export.

    Raises
    ------
    ExportError
        The suffix is unknown, something is there already, or the disk is full; what was
        there is untouched, and what was done so far is kept for the next try.

    Examples
    --------
    >>> export.export(run, "reduced.zarr", ["epixquad.calib", "gmd"])
    """
    path = Path(path)
    run = time_order(run)
    wanted = Wanted(names, roi, bundle, photon_energy, distance)
    if path.suffix == ".parquet":
        return export_table(run, path, wanted, own=own, compression=compression, overwrite=overwrite)
    made, plan = begin(run, path, wanted, own=own, compression=compression, overwrite=overwrite)
    workshop = Workshop(path)
    if workshop.ready() is not None:
        return finish(path)
    todo = [piece for piece in plan.pieces if not workshop.is_done(piece)]
    with _together(workshop, compression) as assembly:
        with closing(_side_by_side(path, made, todo, compression, assembly)) as steps:
            for done, _ in enumerate(steps, len(plan.pieces) - len(todo) + 1):
                if progress is not None:
                    progress(done, len(plan.pieces))
        return _finish(workshop, plan, assembly)


def begin(
    run: Run,
    path: str | os.PathLike[str],
    wanted: Wanted,
    *,
    own: xr.Dataset | None = None,
    compression: str | None = "lz4",
    overwrite: bool = False,
) -> tuple[dict[str, xr.Dataset], Plan]:
    """Make the skeleton of an export, unless it is there already; return its groups and its plan.

    Raises
    ------
    ExportError
        See `export`.

    Examples
    --------
    >>> groups, plan = export.begin(run, "big.zarr", wanted)
    """
    workshop = Workshop(Path(path))
    target = _target(workshop.path)
    if compression not in COMPRESSIONS:
        raise ExportError(f"compression={compression!r}: use one of {', '.join(map(repr, COMPRESSIONS))}")
    if workshop.path.exists() and not overwrite:
        raise ExportError(f"{workshop.path} is there already: overwrite=True replaces it")
    run = time_order(run)
    made = _contents(run, workshop.path, wanted, own)
    plan = plan_of(made, _digest(run, wanted, own, compression))
    before = workshop.plan()
    if before == plan:
        return made, plan
    if before is not None and not overwrite:
        raise ExportError(f"another export is unfinished in {workshop.folder}: finish or remove that")
    workshop.clear()
    with _explained(workshop):
        workshop.folder.mkdir(parents=True)
        target.begin(workshop, made, plan, compression)
        workshop.start(plan)
    return made, plan


def write_piece(
    run: Run,
    path: str | os.PathLike[str],
    number: int,
    wanted: Wanted,
    *,
    own: xr.Dataset | None = None,
    compression: str | None = "lz4",
) -> None:
    """Write one piece of an export that was begun; harmless if it is there already.

    Raises
    ------
    ExportError
        Nothing was begun there, or another export; or the disk is full.

    Examples
    --------
    >>> for number in range(len(plan)):
    ...     export.write_piece(run, "big.zarr", number, wanted)
    """
    workshop = Workshop(Path(path))
    plan = workshop.plan()
    run = time_order(run)
    if plan is None or plan.digest != _digest(run, wanted, own, compression):
        raise ExportError(f"{workshop.folder} holds no export of this run with these choices: begin it")
    if not 0 <= number < len(plan.pieces):
        raise ExportError(f"no piece {number}: {workshop.path} has {len(plan.pieces)}")
    piece = plan.pieces[number]
    if not workshop.is_done(piece):
        made = _contents(run, workshop.path, wanted, own)
        _write(workshop.path, _variable(made, piece), piece, compression)


def finish(path: str | os.PathLike[str]) -> Path:
    """Put a complete export into place; harmless if that was done already.

    Raises
    ------
    ExportError
        Pieces are missing: says how many, and the first.

    Examples
    --------
    >>> export.finish("big.zarr")
    """
    workshop = Workshop(Path(path))
    plan = workshop.plan()
    if plan is None:
        if workshop.path.exists():
            return workshop.path
        raise ExportError(f"nothing was begun for {workshop.path}")
    return _finish(workshop, plan, None)


def _finish(workshop: Workshop, plan: Plan, assembly: Any) -> Path:
    """Complete the result, unless that was done before, and give it its name."""
    made = workshop.ready()
    missing = [p.number for p in plan.pieces if not workshop.is_done(p)] if made is None else []
    if missing:
        raise ExportError(f"{len(missing)} of {len(plan.pieces)} pieces are missing, first {missing[0]}")
    with _explained(workshop):
        if made is None:
            made = _target(workshop.path).finish(workshop, plan, assembly)
            workshop.note_ready(made)
        if made.exists():  # else it has its name already
            replace(made, workshop.path)
    shutil.rmtree(workshop.folder)
    return workshop.path


def _together(workshop: Workshop, compression: str | None) -> AbstractContextManager[Any]:
    """Return what this process puts pieces into; None if workers make them, or each is a file for good."""
    target = _target(workshop.path)
    if _client() is not None or not hasattr(target, "together"):
        return nullcontext()
    with _explained(workshop):
        return cast("AbstractContextManager[Any]", target.together(workshop, compression))


def _side_by_side(
    path: Path, made: dict[str, xr.Dataset], todo: Sequence[Piece], compression: str | None, assembly: Any
) -> Generator[None]:
    """Write pieces on the active Dask client, else in threads; yield after each; stop at the first error."""
    client = _client()
    if client is not None:
        from distributed import as_completed

        firsts = {p.column: p for p in todo}  # each variable is sent once, not per piece
        sent = {column: client.scatter(_Sent(_variable(made, p)), hash=False) for column, p in firsts.items()}
        jobs = [client.submit(_write_sent, path, sent[p.column], p, compression, pure=False) for p in todo]
        for job in as_completed(jobs):
            job.result()
            yield
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(_write, path, _variable(made, p), p, compression, assembly) for p in todo]
        try:
            for done in futures_done(futures):
                done.result()
                yield
        finally:
            for future in futures:
                future.cancel()


def _client() -> Any:
    """Return the Dask client of this process, if it has one."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def _variable(made: dict[str, xr.Dataset], piece: Piece) -> xr.Variable:
    """Return the variable that a piece is of, without its coordinates."""
    return made[piece.column.group].variables[piece.column.name]


@dataclass(frozen=True, eq=False)
class _Sent:
    """A variable on its way to workers: Dask would read all of a bare one to learn how large it is."""

    variable: xr.Variable


def _write_sent(path: Path, sent: _Sent, piece: Piece, compression: str | None) -> None:
    _write(path, sent.variable, piece, compression)


def _write(
    path: Path, variable: xr.Variable, piece: Piece, compression: str | None, assembly: Any = None
) -> None:
    workshop = Workshop(path)
    with _explained(workshop), unsplit_reads():
        parts = chunks(variable, piece)
        if assembly is not None:
            place = assembly.write_piece(piece, parts)
        else:
            place = _target(path).write_piece(workshop, piece, parts, compression)
        workshop.mark(piece, place)


def _digest(run: Run, wanted: Wanted, own: xr.Dataset | None, compression: str | None) -> str:
    """Return a hash of everything that decides the result."""
    from dask.base import tokenize

    parts = [run._recording.token, run._view.choice.digest, str(run._view.keep_damaged), wanted.text()]
    return hashlib.sha256("|".join([*parts, tokenize(own), str(compression)]).encode()).hexdigest()[:32]


def _contents(run: Run, path: Path, wanted: Wanted, own: xr.Dataset | None) -> dict[str, xr.Dataset]:
    """Return what goes into a file of this kind, by group."""
    if path.suffix in FRAME_FILES:
        from psana_dask.export import crystallography

        return crystallography.contents(path, run, wanted, own)
    if wanted.photon_energy is not None or wanted.distance is not None:
        raise ExportError(f"{path}: photon_energy and distance go into {' and '.join(FRAME_FILES)}")
    return groups(run, wanted, own)


def _target(path: Path) -> ModuleType:
    """Return the module that writes this kind of file."""
    from psana_dask.export import crystallography, hdf5_file, zarr_store

    known = {".zarr": zarr_store, ".h5": hdf5_file, ".hdf5": hdf5_file, ".nc": hdf5_file}
    known |= dict.fromkeys(FRAME_FILES, crystallography)
    if path.suffix == ".parquet":
        raise ExportError(f"{path}: a table is written at once, there are no pieces")
    if path.suffix not in known:
        raise ExportError(f"{path}: the suffix says the format, one of {', '.join(known)}")
    return known[path.suffix]


@contextmanager
def _explained(workshop: Workshop) -> Iterator[None]:
    """Say what a failing disk means for an export."""
    try:
        yield
    except PsanaError:  # the run cannot be read: that says enough
        raise
    except OSError as error:
        what = f"cannot write {workshop.path}: {error}"
        raise ExportError(f"{what}; what is done stays in {workshop.folder}, run again to go on") from error
