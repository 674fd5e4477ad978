"""Which constants serve a run: the argument, the option, the environment, the folder beside the data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from psana_dask.calib.constants import Constants, RunRange, checked
from psana_dask.calib.directory import CalibDirectory
from psana_dask.calib.localstore import LocalStore
from psana_dask.calib.store import Chain, ConstantsStore, Lookup, Lookups, MemoryStore, Step, choose
from psana_dask.calib.webdb import WebStore, default_url
from psana_dask.catalog import Entry
from psana_dask.errors import ConstantsNotFound
from psana_dask.exported_fields import store_of as exported_store
from psana_dask.options import current
from psana_dask.pipeline import catalog_of
from psana_dask.recording import Recording

Calib = ConstantsStore | str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | None
"""A store, the path of a calib directory, a URL, "web", a mapping of kind to array, or a list of these."""

KINDS = (
    "pedestals", "pixel_rms", "pixel_gain", "pixel_offset", "pixel_status", "status_extra", "status_data",
    "pixel_mask", "common_mode", "geometry",
)  # fmt: skip
"""What is looked for; each when it is first needed."""

SMALL = 1 << 16
"""Bytes of given constants that may travel to workers in a graph."""


def store_of(calib: Calib, recording: Recording) -> ConstantsStore:
    """Return the store that serves a run.

    Parameters
    ----------
    calib : Calib
        None: ``set_options(calib=)``, else what the environment names (``PSANA_DASK_CALIB``, one or
        several folders or addresses with commas between) and the folder ``calib`` beside the
        folder of the data. For LCLS-II the service that ``LCLS_CALIB_HTTP`` names comes last.
    recording : Recording
    """
    if calib is None and current().calib is not None:
        calib = current().calib
    if calib is None:
        return Chain([*_inside(recording), *_named(recording), *_beside(recording), *_service(recording)])
    if isinstance(calib, str) and (calib == "web" or calib.startswith(("http://", "https://"))):
        return web_store(recording.experiment or "", None if calib == "web" else calib)
    if isinstance(calib, str | os.PathLike):
        return CalibDirectory(Path(calib))
    if isinstance(calib, Mapping):
        return MemoryStore(tuple(_constant(kind, value) for kind, value in calib.items()), "given")
    if isinstance(calib, ConstantsStore):
        return calib
    return Chain([store_of(one, recording) for one in calib])


def named_store(name: str, experiment: str = "") -> CalibDirectory | LocalStore | WebStore:
    """Return the store that a name means, without a run: ``web``, an address, or a folder.

    Raises
    ------
    ConstantsNotFound
        There is no such folder.
    """
    if name == "web" or name.startswith(("http://", "https://")):
        return web_store(experiment, None if name == "web" else name)
    if not Path(name).is_dir():
        raise ConstantsNotFound(f"{name} is no calib directory: there is no such folder")
    return LocalStore(Path(name))


def default_folder(recording: Recording) -> Path:
    """Return where constants of a run are deployed if nothing is said.

    The first folder of ``PSANA_DASK_CALIB``, else ``calib`` beside the folder of the data.
    """
    words = [w.strip() for w in os.environ.get("PSANA_DASK_CALIB", "").split(",")]
    folders = [w for w in words if w and w != "web" and "://" not in w]
    return Path(folders[0]) if folders else Path(recording.files.paths[0]).parent.parent / "calib"


def web_store(experiment: str, url: str | None = None) -> WebStore:
    """Return the client of the LCLS-II service, with copies in the cache folder."""
    return WebStore(experiment, url or default_url(), current().cache_folder() / "calib_web")


def _constant(kind: str, value: Any) -> Constants:
    return value if isinstance(value, Constants) else Constants(kind, checked(kind, value), store="given")


def _named(recording: Recording) -> list[ConstantsStore]:
    words = os.environ.get("PSANA_DASK_CALIB", "").split(",")
    return [store_of(word.strip(), recording) for word in words if word.strip()]


def _inside(recording: Recording) -> list[ConstantsStore]:
    """Return the constants that an export brought along, under every name of their detectors."""
    if recording.format != "export":
        return []
    store = exported_store(recording)
    held = []
    for name, entry in catalog_of(recording).detectors.items():
        for kind in store.names(f"constants/{name}"):
            value = store.whole(f"constants/{name}/{kind}")
            facts = store.attrs_of(f"constants/{name}/{kind}")
            told: dict[str, Any] = {
                k: str(facts.get(k, "")) for k in ("origin", "version", "comment", "created")
            }
            long_name = "_".join([entry.det_type, *entry.det_ids])
            for spelling in {entry.alias, entry.source, entry.name, long_name}:
                made = Constants(kind, value.item() if value.dtype.kind == "U" else value, spelling, **told)
                held.append(made)
    return [MemoryStore(tuple(held), "export")] if held else []


def _beside(recording: Recording) -> list[ConstantsStore]:
    data = Path(recording.files.paths[0]).parent
    return [CalibDirectory(f) for f in (data.parent / "calib", data / "calib") if f.is_dir()]


def _service(recording: Recording) -> list[ConstantsStore]:
    wanted = recording.data_format == "xtc2" and recording.experiment and os.environ.get("LCLS_CALIB_HTTP")
    return [web_store(recording.experiment or "")] if wanted else []


@dataclass(frozen=True)
class StoreNames:
    """What stores call a detector.

    Parameters
    ----------
    spellings : tuple of str
        Names of folders, in the order they are tried; the first is its name in the files.
    long_name : str
        Type and serial numbers: its name in the LCLS-II service.
    """

    spellings: tuple[str, ...]
    long_name: str

    @classmethod
    def of(cls, entry: Entry) -> StoreNames:
        """Return the names of a detector."""
        long_name = "_".join([entry.det_type, *entry.det_ids])
        first = entry.source if ":" in entry.source else entry.alias  # LCLS-1 stores know sources only
        return cls(tuple(dict.fromkeys((first, entry.alias, *entry.spellings(), long_name))), long_name)

    def within(self, store: ConstantsStore) -> str:
        """Return the name that one store uses."""
        if isinstance(store, WebStore):
            return self.long_name
        if isinstance(store, CalibDirectory | LocalStore):
            return next((n for n in self.spellings if store.has(n)), self.spellings[0])
        return self.spellings[0]


def look_up(store: ConstantsStore, names: StoreNames, kind: str, run: int) -> Lookup:
    """Ask a store for a constant, by the name that this kind of store uses; a `Chain` in turn."""
    if not isinstance(store, Chain) or not store.stores:
        return store.find(names.within(store), kind, run)
    steps: tuple[Step, ...] = ()
    for one in store.stores:
        found = look_up(one, names, kind, run)
        steps += found.steps
        if found:
            return replace(found, steps=steps)
    return Lookup(kind, names.spellings[0], run, None, steps)


def lookups_of(calib: Calib, recording: Recording, entry: Entry) -> Lookups:
    """Return how each kind of constant of a detector is found; each is looked up once, when first needed."""
    store, names = store_of(calib, recording), StoreNames.of(entry)
    run = recording.number or 0
    return Lookups(KINDS, lambda kind: look_up(store, names, kind, run))


@dataclass(frozen=True)
class Standing:
    """Whether a detector can be calibrated, as far as can be said without waiting.

    Parameters
    ----------
    state : {"there", "none", "other runs", "unasked", "unreadable"}
        ``unasked``: a service may have them, and is asked when they are used.
    words : str
        For people.
    """

    state: Literal["there", "none", "other runs", "unasked", "unreadable"]
    words: str


def standing(calib: Calib, recording: Recording, entry: Entry) -> Standing:
    """Say whether pedestals of a detector are in force for a run; only names of files are looked at."""
    store, names = store_of(calib, recording), StoreNames.of(entry)
    others: list[RunRange] = []
    for one in store.stores if isinstance(store, Chain) else (store,):
        if not isinstance(one, MemoryStore | CalibDirectory | LocalStore):
            return Standing("unasked", "asked when used")
        try:
            held = [item.runs for item in one.listing(names.within(one)) if item.kind == "pedestals"]
        except OSError as error:
            return Standing("unreadable", str(error.strerror))
        best = choose([(runs, 0, runs) for runs in held], recording.number or 0)
        if best is not None:
            return Standing("there", f"runs {best[0]}")
        others += held
    if others:
        return Standing("other runs", f"only runs {', '.join(map(str, sorted(others)[:3]))}")
    return Standing("none", "none")


def is_small(calib: Calib) -> bool:
    """Tell whether a worker can be told where constants come from in a few words."""
    if isinstance(calib, Mapping):
        calib = MemoryStore(tuple(_constant(kind, value) for kind, value in calib.items()))
    if isinstance(calib, MemoryStore):
        return sum(np.asarray(c.value).nbytes for c in calib.constants) <= SMALL
    if isinstance(calib, Chain):
        calib = calib.stores
    if isinstance(calib, list | tuple):
        return all(map(is_small, calib))
    return calib is None or isinstance(calib, str | os.PathLike | CalibDirectory | LocalStore | WebStore)
