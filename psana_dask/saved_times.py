"""Files of event times: interesting events are noted while they are taken, and found again afterwards.

One line per event: its time (UTC, ISO, nanoseconds) and the file's word (seconds << 32 | nanoseconds). Lines
after ``#`` are comments. Several processes may append at once; a line that a crash cut short is left
out by who reads, and closed by who writes next.  Contract: tests/test_saved_times.py.
"""

from __future__ import annotations

import os
import re
import warnings

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import FormatError, StreamWarning

SUFFIX = ".times"

_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}) (\d{1,20})")


def is_file_of_times(key: object) -> bool:
    """Tell whether an event key is a file of times: a path, or a text that ends with ``.times``."""
    return isinstance(key, os.PathLike) or (isinstance(key, str) and key.endswith(SUFFIX))


def append_times(
    path: str | os.PathLike[str], times: NDArray[np.datetime64], words: NDArray[np.uint64]
) -> None:
    """Append events to a file of times, which is made if it does not exist; they are on disk afterwards.

    Parameters
    ----------
    path : path
    times : (event,) datetime64[ns]
    words : (event,) uint64
        As the data files have them.
    """
    stamps = np.datetime_as_string(np.asarray(times, "M8[ns]"), unit="ns")
    text = "".join(f"{stamp} {word}\n" for stamp, word in zip(stamps, words.tolist(), strict=True))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        _lock(descriptor)
        whole = os.lseek(descriptor, 0, os.SEEK_END)
        if whole and _last_byte(descriptor, whole) != b"\n":
            text = "\n" + text
        data = text.encode()
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)  # and the lock is gone


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system: appending is all there is
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _last_byte(descriptor: int, size: int) -> bytes:
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1)


def read_times(path: str | os.PathLike[str]) -> NDArray[np.datetime64]:
    """Return the times that a file has, in order, each once.

    Raises
    ------
    FormatError
        It is no file of times; names the line.
    """
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    found, broken = [], []
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.strip())
        if match is not None:
            found.append(match[1].decode())
        elif line.strip() and not line.startswith(b"#"):
            broken.append(number)
    if broken and not found:
        raise FormatError(
            f"{os.fspath(path)}: line {broken[0]} is no event time: is it a file of save_times?"
        )
    if broken:
        what = f"{os.fspath(path)}: {len(broken)} lines were cut short and are left out (line {broken[0]})"
        warnings.warn(what, StreamWarning, stacklevel=4)
    return np.unique(np.array(found, "M8[ns]"))
