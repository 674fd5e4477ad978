"""Settings that hold for the whole process, all with defaults that need no thought.

`set_options` changes them, for good or inside a ``with`` block; `current` is what is in
force.  Where a folder is not set, the environment decides at the time of use:
``PSANA_DASK_CACHE`` (caches), ``SIT_PSDM_DATA`` (root of the facility's data).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from psana_dask.errors import suggestion


@dataclass(frozen=True)
class Options:
    """The settings.

    Parameters
    ----------
    cache_dir : Path, optional
        Folder of index and kernel caches; made when first needed.
    data_root : Path, optional
        Where ``<instrument>/<experiment>/xtc`` folders lie when no ``dir=`` is given.
    read_threads : int
        Threads that one large read is split over.
    chunk_bytes : int
        What ``chunks="auto"`` aims at for frames, in bytes.
    calib : optional
        Where constants come from when `open` does not say: what its ``calib=`` takes.
    """

    cache_dir: Path | None = None
    data_root: Path | None = None
    read_threads: int = 2
    chunk_bytes: int = 32 * 2**20
    calib: Any = None

    def cache_folder(self) -> Path:
        """Return the folder of the caches."""
        named = self.cache_dir or os.environ.get("PSANA_DASK_CACHE")
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(named) if named else Path(base) / "psana_dask"

    def data_folder(self) -> Path:
        """Return the root of the facility's data."""
        return self.data_root or Path(os.environ.get("SIT_PSDM_DATA", "/sdf/data/lcls/ds"))


_current = Options()


def current() -> Options:
    """Return the settings in force."""
    return _current


class set_options:
    """Change settings, for good or inside a ``with`` block.

    Parameters
    ----------
    **changes
        Fields of `Options`.

    Examples
    --------
    >>> with set_options(read_threads=1):
    ...     pass
    """

    def __init__(self, **changes: object) -> None:
        global _current  # noqa: PLW0603  (the one place where process-wide state lives)
        unknown = set(changes) - {f.name for f in fields(Options)}
        if unknown:
            name = sorted(unknown)[0]
            raise ValueError(f"no such option: {name}{suggestion(name, (f.name for f in fields(Options)))}")
        for name in ("cache_dir", "data_root"):
            if changes.get(name) is not None:
                changes[name] = Path(str(changes[name]))
        self._before = _current
        _current = replace(_current, **changes)  # type: ignore[arg-type]

    def __enter__(self) -> Options:
        return _current

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current  # noqa: PLW0603
        _current = self._before
