"""Arrays kept in the cache folder: tables that travel by reference, text files parsed once.

The tables of a large detector are 170 MB.  What is pickled is their hash, the file where they
are kept in the cache folder, and how to make them again for a process that cannot see that
file; small tables travel as they are.  Contract: tests/calib/test_kept.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.columns import load_columns, save_columns
from psana_dask.errors import ConstantsError, ConstantsNotFound
from psana_dask.options import current

SMALL = 1 << 16  # bytes that may travel by value
MOST_FILES = 16  # kept in a folder; the oldest go first
LARGE_TEXT = 1 << 20  # bytes of a text file worth keeping in parsed form: 0.3 s and more
MOST_OPEN = 4  # tables that a process keeps open

Arrays = Mapping[str, NDArray[Any]]

_opened: OrderedDict[str, Arrays] = OrderedDict()
_lock = threading.Lock()


def digest(arrays: Arrays) -> str:
    """Return the hash of the arrays: equal hashes, equal values."""
    sum_ = hashlib.sha256()
    for name, array in arrays.items():
        sum_.update(f"{name}{array.dtype}{array.shape}".encode())
        sum_.update(np.ascontiguousarray(array).data)
    return sum_.hexdigest()[:32]


def keep(key: str, arrays: Arrays, place: str = "constants") -> Path | None:
    """Keep arrays under a key in the cache folder; return where, or None if that is not possible."""
    folder = current().cache_folder() / place
    path = folder / key
    if path.exists():
        with contextlib.suppress(OSError):  # another user's, or gone just now
            os.utime(path)
        return path
    flat = {name: array.reshape(-1) for name, array in arrays.items()}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    if not save_columns(path, flat, shapes):
        return None
    with contextlib.suppress(OSError):  # another process tidies up too
        files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
        for old in files[:-MOST_FILES]:
            old.unlink(missing_ok=True)
    return path


def load(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a file, mapped; None if there is no sound file."""
    found = load_columns(path, mode="c")  # kernels are compiled for arrays that may be written
    if found is None:
        return None
    columns, shapes = found
    return {name: column.reshape(shapes[name]) for name, column in columns.items()}


def parsed(path: Path, parse: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return the array of a file; a large one is parsed once and kept while it does not change."""
    facts = path.stat()
    if facts.st_size < LARGE_TEXT:
        return parse()
    text = repr((str(path.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ino))
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    found = load(current().cache_folder() / "parsed" / key)
    if found is not None:
        return found["value"]
    value = parse()
    keep(key, {"value": value}, "parsed")
    return value


def shared(key: str, path: Path, again: Callable[[], Arrays] | None) -> Arrays:
    """Return arrays that were kept: from this process, from the disk, or made again.

    Raises
    ------
    ConstantsNotFound
        The file cannot be seen from here, and the arrays cannot be made again.
    ConstantsError
        The constants changed since.
    """
    with _lock:
        if key not in _opened:
            _opened[key] = load(path) or _made_again(key, path, again)
            while len(_opened) > MOST_OPEN:
                _opened.popitem(last=False)
        _opened.move_to_end(key)
        return _opened[key]


def _made_again(key: str, path: Path, again: Callable[[], Arrays] | None) -> Arrays:
    if again is None:
        raise ConstantsNotFound(
            f"this process cannot see {path}, where the constants of the computation are kept: let "
            "PSANA_DASK_CACHE name a folder that all workers share, or give calib= a folder or address "
            "that they can read"
        )
    arrays = again()
    if digest(arrays) != key:
        raise ConstantsError("the constants changed since the computation began: open the run again")
    return arrays
