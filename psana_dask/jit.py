"""How this package compiles: numba with its cache in the user's cache folder.

The cache folder is set only while a kernel of ours is made, so other packages keep
their own; where no folder can be written the kernel is compiled in each process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from psana_dask.options import current

void, int32, int64 = types.void, types.int32, types.int64
uint64, float64, boolean = types.uint64, types.float64, types.boolean

F = TypeVar("F", bound=Callable[..., Any])

pread = types.ExternalFunction("pread", int64(int32, types.voidptr, uint64, int64))
"""The C library's ``pread(fd, buffer, count, offset)``, callable inside kernels."""


def njit(signature: Any = None, *, counted: bool = True, **options: Any) -> Callable[[F], F]:
    """Compile a kernel: no GIL, no fastmath, cached on disk.

    Parameters
    ----------
    signature : str or numba signature or list of them, optional
        Compiled at once if given, else at the first call.
    counted : bool
        False for a kernel that makes no array: numba then leaves out the counting of
        references, which costs more than the work where small functions take many arrays
        (200 ns against 30 ns for one datagram of a scan).
    **options
        Passed to `numba.njit`.
    """
    if not counted:
        options["_nrt"] = False

    def decorate(function: F) -> F:
        try:
            return _compiled(function, signature, options, cache=True)
        except (OSError, RuntimeError):  # numba found no folder to write to
            return _compiled(function, signature, options, cache=False)

    return decorate


def _compiled(function: F, signature: Any, options: dict[str, Any], *, cache: bool) -> F:
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(current().cache_folder() / "kernels")
    try:
        make = numba.njit(signature, nogil=True, cache=cache, **options)
        return make(function)
    finally:
        numba.config.CACHE_DIR = before


def array(dtype: npt.DTypeLike, ndim: int = 1, *, layout: str = "C", writable: bool = False) -> types.Array:
    """Return the numba type of an array argument; read-only unless said, so both kinds are taken."""
    return types.Array(numba.from_dtype(np.dtype(dtype)), ndim, layout, readonly=not writable)
