"""Columns on disk: one file, written atomically, read back as memory-mapped arrays.

Layout: one line of JSON (what the columns are, and whatever the caller wants to keep
with them), then the arrays, each starting at a multiple of 64 bytes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from psana_dask.model import Array

FORMAT = "psana_dask columns 1"
_ALIGN = 64


def save_columns(path: Path, columns: Mapping[str, Array], about: Mapping[str, Any]) -> bool:
    """Write `columns` and `about` (JSON) to `path`; return False where that is not possible.

    The file appears complete or not at all, also when several processes write it at once.
    """
    placed, offset = {}, 0
    for name, column in columns.items():
        placed[name] = [column.dtype.str, len(column), offset]
        offset += -(-column.nbytes // _ALIGN) * _ALIGN
    head = json.dumps({"format": FORMAT, "columns": placed, "bytes": offset, "about": about}).encode()
    head += b" " * (-(len(head) + 1) % _ALIGN) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, head, columns)
    except OSError:
        return False  # a read-only or full cache folder must not stop anyone from reading data
    return True


def _write(path: Path, head: bytes, columns: Mapping[str, Array]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(handle, "wb") as file:
            file.write(head)
            for column in columns.values():
                file.write(np.ascontiguousarray(column).data)
                file.write(b"\0" * (-column.nbytes % _ALIGN))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_columns(
    path: Path, mode: Literal["r", "c"] = "r"
) -> tuple[dict[str, Array], dict[str, Any]] | None:
    """Return the columns (memory-mapped) and `about`; None if there is no sound file.

    They are read-only, or with mode "c" may be changed in memory, never in the file.
    """
    try:
        with open(path, "rb") as file:
            head = file.readline()
            size = os.fstat(file.fileno()).st_size
        facts = json.loads(head)
        if facts["format"] != FORMAT or size != len(head) + facts["bytes"]:
            return None
        whole = np.memmap(path, np.uint8, mode).view(np.ndarray) if size else np.zeros(0, np.uint8)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    columns = {}
    for name, (dtype, count, offset) in facts["columns"].items():
        start = len(head) + offset
        columns[name] = whole[start : start + count * np.dtype(dtype).itemsize].view(dtype)
    return columns, facts["about"]
