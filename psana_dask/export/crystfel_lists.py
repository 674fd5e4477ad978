"""What CrystFEL's indexamajig is started with: CXI files of so many events, one geometry, lists.

::

    <name>-000.cxi, <name>-001.cxi, ...    frames, masks, photon energies
    <name>.geom                            -g
    <name>.lst                             -i: the files
    <name>-events.lst                      -i: each event, as ``file //number``

An export that was interrupted goes on: files that are complete are kept.
Contract: tests/export/test_crystfel_lists.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.dataset import Names
from psana_dask.errors import ExportError
from psana_dask.export import export
from psana_dask.export.content import time_order
from psana_dask.export.plan import write_text

if TYPE_CHECKING:
    from psana_dask.run import Run


def export_crystfel(
    run: Run,
    folder: str | os.PathLike[str],
    names: Names,
    *,
    per_file: int = 1000,
    photon_energy: float | str | None = None,
    distance: float | None = None,
    compression: str | None = "lz4",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write files, geometry and lists for CrystFEL.

    Parameters
    ----------
    run : Run
        Its selection is what is written: hits, for instance.
    folder : path
        Made if need be.
    names : str or list of str
        One detector's frames (``"cspad.calib"``), and scalars to go along.
    per_file : int
        Events in a file.
    photon_energy, distance, compression
        As for `export`. ``"lz4"`` needs HDF5 plugins where CrystFEL runs, None does not.
    overwrite : bool
        Replace files that are there.
    progress : callable, optional
        Called with files done and files in all.

    Returns
    -------
    Path
        The list of events: ``indexamajig -g <name>.geom -i <name>-events.lst``.

    Raises
    ------
    ExportError
        See `export`; or no event has the detector.
    """
    if per_file < 1:
        raise ValueError(f"per_file={per_file}: one event at least")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    detector = _detector(names)
    name = f"{run.experiment or 'run'}-r{run.number or 0:04}-{run[detector].name}"
    run = time_order(run)
    run = run.isel(np.flatnonzero(run[detector].present.values))
    if not len(run):
        raise ExportError(f"no event has {detector}: there is nothing to write for CrystFEL")
    starts = range(0, len(run), per_file)
    choices: dict[str, Any] = {
        "photon_energy": photon_energy, "distance": distance, "compression": compression,
    }  # fmt: skip
    files = []
    for k, start in enumerate(starts):
        part, path = run.isel(slice(start, start + per_file)), folder / f"{name}-{k:03}.cxi"
        _written(part, path, names, choices, overwrite)
        files.append((path.resolve(), len(part)))
        if progress is not None:
            progress(k + 1, len(starts))
    return _lists(folder, name, files)


def _detector(names: Names) -> str:
    """Return the detector whose frames are wanted: that of the first name."""
    if names is None:
        raise ExportError('say which frames: "cspad.calib"')
    first = names if isinstance(names, str) else next(iter(names))
    if isinstance(first, tuple):
        return str(first[0])
    return first.partition(".")[0]


def _written(run: Run, path: Path, names: Names, choices: dict[str, Any], overwrite: bool) -> None:
    """Write one file, unless it is there with the same content."""
    mark = path.with_name(f".{path.name}.done")
    said = "|".join([run._recording.token, run._view.choice.digest, str(names), str(choices)])
    if path.exists() and mark.exists() and mark.read_text(encoding="utf-8") == said and not overwrite:
        return
    export(run, path, names, overwrite=overwrite, **choices)
    write_text(mark, said)


def _lists(folder: Path, name: str, files: list[tuple[Path, int]]) -> Path:
    """Write the lists, and the geometry that all files have; return the list of events."""
    beside = [path.with_name(path.name + ".geom") for path, _ in files]
    there = [path for path in beside if path.exists()]
    if there:
        write_text(folder / f"{name}.geom", there[0].read_text(encoding="utf-8"))
    for path in there:
        path.unlink()
    write_text(folder / f"{name}.lst", "".join(f"{path}\n" for path, _ in files))
    lines = "".join(f"{path} //{k}\n" for path, count in files for k in range(count))
    write_text(folder / f"{name}-events.lst", lines)
    return folder / f"{name}-events.lst"
