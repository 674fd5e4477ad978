"""Which constants serve a run: what the caller says, the environment, the folder beside the data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from psana_dask.calib.constants import Constants, checked
from psana_dask.calib.directory import CalibDirectory
from psana_dask.calib.store import Chain, ConstantsStore, Lookup, MemoryStore, Step
from psana_dask.calib.webdb import WebStore
from psana_dask.files import RunFiles

Calib = ConstantsStore | str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | None
"""A store, the path of a calib directory, a URL, a mapping of kind to array, or a list of these."""


def store_of(calib: Calib, files: RunFiles, experiment: str | None) -> ConstantsStore:
    """Return the store that serves a run.

    Parameters
    ----------
    calib : Calib
        None: the folder that ``PSANA_DASK_CALIB`` names, then ``calib`` beside the folder of the data.
    files : RunFiles
    experiment : str, optional
    """
    if calib is None:
        return Chain([CalibDirectory(folder) for folder in _usual_folders(files)])
    if isinstance(calib, str) and calib.startswith(("http://", "https://")):
        return WebStore(experiment or "", calib)
    if isinstance(calib, str | os.PathLike):
        return CalibDirectory(Path(calib))
    if isinstance(calib, Mapping):
        return MemoryStore(tuple(_constant(kind, value) for kind, value in calib.items()), "given")
    if isinstance(calib, ConstantsStore):
        return calib
    return Chain([store_of(one, files, experiment) for one in calib])


def _constant(kind: str, value: Any) -> Constants:
    return value if isinstance(value, Constants) else Constants(kind, checked(kind, value), store="given")


def _usual_folders(files: RunFiles) -> list[Path]:
    named = os.environ.get("PSANA_DASK_CALIB")
    data = Path(files.paths[0]).parent
    folders = [Path(named)] if named else []
    return folders + [folder for folder in (data.parent / "calib", data / "calib") if folder.is_dir()]


def look_up(store: ConstantsStore, alias: str, long_name: str, kind: str, run: int) -> Lookup:
    """Ask a store for a constant, by the name that this kind of store uses.

    Parameters
    ----------
    store : ConstantsStore
        A `Chain` asks its stores in turn.
    alias : str
        Name of the detector in the files.
    long_name : str
        Type and serial numbers: what the LCLS-II service calls it.
    kind : str
    run : int
    """
    if not isinstance(store, Chain) or not store.stores:
        return store.find(long_name if isinstance(store, WebStore) else alias, kind, run)
    steps: tuple[Step, ...] = ()
    for one in store.stores:
        found = look_up(one, alias, long_name, kind, run)
        steps += found.steps
        if found:
            return replace(found, steps=steps)
    return Lookup(kind, alias, run, None, steps)
