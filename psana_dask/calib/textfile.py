"""The text format of LCLS-1 calibration files: comment lines with metadata, then numbers.

::

    # TITLE     ...free text...
    # DTYPE     float32
    # NDIM      3
    # DIM:0     32
    # DIM:1     185
    # DIM:2     388
    1100.25 1100.5 ...        the last axis on one line

A keyword is the second word of a comment line.  Without ``DTYPE`` the numbers are float32;
the dimensions are needed for more than two axes (PSCalib ``NDArrIO.py``).  `write_text` writes
the shortest decimal that reads back to the same bits; psana's tools write ``%.3f``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import ConstantsError

DTYPES = ("float32", "float64", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "float", "double", "int", "unsigned", "uint", "short")
_C_NAMES = {"float": "float32", "double": "float64", "int": "int32", "unsigned": "uint32",
            "uint": "uint32", "short": "int16"}


def parse_header(text: str) -> dict[str, str]:
    """Return the keywords of the comment lines."""
    header = {}
    for line in text.splitlines():
        words = line.split(None, 2)
        if len(words) >= 2 and words[0] == "#":
            header[words[1]] = words[2].strip() if len(words) == 3 else ""
    return header


def _dtype(header: Mapping[str, str], where: str) -> np.dtype[Any]:
    name = header.get("DTYPE", "float32")
    if name not in DTYPES:
        raise ConstantsError(f"{where}: DTYPE {name!r} is no type of numbers; use one of {', '.join(DTYPES)}")
    return np.dtype(_C_NAMES.get(name, name))


def _shape(header: Mapping[str, str], where: str) -> tuple[int, ...] | None:
    if "NDIM" not in header:
        return None
    try:
        ndim = int(header["NDIM"])
        dims = [int(v) for k, v in header.items() if k.startswith("DIM:")]
    except ValueError as error:
        raise ConstantsError(f"{where}: NDIM and DIM must be whole numbers: {error}") from None
    if len(dims) != ndim or any(d < 0 for d in dims):
        raise ConstantsError(f"{where}: NDIM is {ndim}, but DIM lines give {dims}")
    return tuple(dims)


def parse_text(text: str, where: str = "text") -> NDArray[Any]:
    """Return the array of a calibration file.

    Parameters
    ----------
    text : str
        Content of the file.
    where : str
        Name of the file, for messages.

    Raises
    ------
    ConstantsError
        Words among the numbers, lines of different length, a size that the dimensions
        contradict, or no numbers at all.
    """
    header = parse_header(text)
    dtype, shape = _dtype(header, where), _shape(header, where)
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        raise ConstantsError(f"{where}: there are no numbers in it")
    try:
        array = np.loadtxt(io.StringIO(text), dtype=dtype, ndmin=1)
    except (ValueError, OverflowError) as error:
        raise ConstantsError(f"{where}: not a table of {dtype} numbers: {error}") from None
    if shape is not None and array.shape != shape:
        if array.size != math.prod(shape):
            raise ConstantsError(f"{where}: {array.size} numbers, but the dimensions say {shape}")
        array = array.reshape(shape)
    return array


def _numbers(row: NDArray[Any]) -> str:
    # numpy's own text of a float is the shortest that reads back to the same bits
    return " ".join(row.astype("U32").tolist())


def write_text(array: NDArray[Any], header: Mapping[str, str] | None = None) -> str:
    """Return the content of a calibration file for an array of any number of axes."""
    values = np.atleast_1d(array)
    lines = [f"# {key:<11} {' '.join(str(text).split())}" for key, text in (header or {}).items()]
    lines += [f"# DTYPE       {values.dtype.name}", f"# NDIM        {values.ndim}"]
    lines += [f"# DIM:{i}       {n}" for i, n in enumerate(values.shape)]
    rows = values.reshape(-1, values.shape[-1]) if values.size else values.reshape(0, 1)
    return "\n".join([*lines, "", *(_numbers(row) for row in rows), ""])
