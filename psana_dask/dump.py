"""Looking at the bytes of a file: its datagrams as plain values, and as lines to read.

Works on damaged files and on parts of files; what is wrong is said where it is, and the look
goes on behind it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from psana_dask.errors import UnknownFormat
from psana_dask.files import FILE_NAME
from psana_dask.readers import xtc, xtc2
from psana_dask.sources import FileSource, Source, read_bytes

Item = Mapping[str, Any]

MAGIC = (
    (b"\x89HDF\r\n", "an HDF5 file"), (b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "a zip archive"),
    (b"\x89PNG", "a picture"), (b"%PDF", "a PDF"), (b"\x7fELF", "a program"), (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x93NUMPY", "a numpy array"), (b"{", "JSON"),
)  # fmt: skip


def datagrams(path: str | os.PathLike[str], start: int = 0, form: str | None = None) -> Iterator[Item]:
    """Yield the datagrams of a file as nested dicts, and what is wrong with it where it is.

    Parameters
    ----------
    path : path
        An XTC or XTC2 file, whole, growing, cut or damaged, of any name. For a later part of a
        stream the configuration is taken from the part ``c00`` beside it.
    start : int
        Byte from which datagrams are wanted; those before it still give the configuration.
    form : {"xtc", "xtc2"}, optional
        Format; by default what the content says.

    Yields
    ------
    dict
        A datagram (``offset, size, service, time, ..., containers``; each container with ``offset,
        depth, type, source, extent, damage`` and ``record, values`` or ``problem``), or
        ``{"offset": ..., "problem": ...}``.

    Raises
    ------
    UnknownFormat
        The content is of neither format: the message shows its first bytes.

    Examples
    --------
    >>> for item in datagrams("/data/tst-r0001-s000-c000.xtc2"):
    ...     print(item["offset"], item.get("service", item.get("problem")))
    """
    source = FileSource(os.fspath(path))
    found = form or recognised(source)
    if found is None:
        raise UnknownFormat(f"{source.name} is neither XTC nor XTC2: {first_bytes(source)}")
    first = _first_part(source.name)
    if found == "xtc":
        from psana_dask.readers import xtc_dump

        known = None if first is None else xtc_dump.configuration_of(FileSource(first))
        return xtc_dump.dump(source, start, known)
    from psana_dask.readers import xtc2_dump

    return xtc2_dump.dump(source, start, () if first is None else xtc2_dump.names_of(FileSource(first)))


def recognised(source: Source) -> str | None:
    """Return "xtc", "xtc2" or None, from the content."""
    if xtc2.recognise(source) is not None:
        return "xtc2"
    return "xtc" if xtc.recognise(source) else None


def first_bytes(source: Source) -> str:
    """Say what a file begins with."""
    size = source.size()
    if size == 0:
        return "it is empty"
    data = read_bytes(source, 0, min(size, 32))
    kind = next((f" ({what})" for magic, what in MAGIC if data.startswith(magic)), "")
    shown = "".join(chr(b) if 32 <= b < 127 else "." for b in data)
    return f"its {size} bytes begin with {data.hex(' ')}  |{shown}|{kind}"


def _first_part(path: str) -> str | None:
    """Return the part c00 of the stream of a later part, if it lies beside it."""
    folder, name = os.path.split(path)
    match = FILE_NAME.fullmatch(name)
    if match is None or not int(match["part"] or 0):
        return None
    for beside in sorted(os.listdir(folder or ".")):
        other = FILE_NAME.fullmatch(beside)
        if other is not None and not int(other["part"] or 0) and _stream(other) == _stream(match):
            return os.path.join(folder, beside)
    return None


def _stream(match: re.Match[str]) -> tuple[Any, ...]:
    return match["experiment"], int(match["run"]), int(match["stream"]), match["smd"]


# ---- as text ------------------------------------------------------------------------------------
_HEAD = ("offset", "size", "service", "time", "containers")


def lines(item: Item, *, brief: bool = False) -> Iterator[str]:
    """Yield the lines that show one item of `datagrams`; only its first one if `brief`."""
    if "service" not in item:
        yield f"!{item['offset']}: {item['problem']}"
        return
    rest = (f"{name} {value}" for name, value in item.items() if name not in _HEAD and value != "")
    yield f"@{item['offset']} {item['service']} {item['size']} bytes {item['time']}  {', '.join(rest)}"
    if not brief:
        for container in item["containers"]:
            yield from _container_lines(container)


def _container_lines(container: Item) -> Iterator[str]:
    indent = "  " * (container["depth"] + 1)
    marks = [container["source"], f"damage: {container['damage']}" if container["damage"] else "",
             "compressed" if container.get("compressed") else ""]  # fmt: skip
    about = "".join(f"  {mark}" for mark in marks if mark)
    version = f" v{container['version']}" if container["version"] else ""
    yield f"{indent}@{container['offset']} {container['type']}{version} {container['extent']} bytes{about}"
    if "record" in container:
        yield f"{indent}  {container['record']}"
    if "problem" in container:
        yield f"{indent}  ! {container['problem']}"
    yield from _value_lines(container.get("values", {}), indent + "    ")


def _value_lines(values: Any, indent: str) -> Iterator[str]:
    for name, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        if _is_short(value):
            yield f"{indent}{name} = {_text(value)}"
        else:
            yield f"{indent}{name}:"
            yield from _value_lines(value, indent + "  ")


def _is_short(value: Any) -> bool:
    """Tell whether a value goes on one line: a plain one, a summary, a list of plain ones."""
    if isinstance(value, Mapping):
        return "dtype" in value and "shape" in value
    return not isinstance(value, list) or not any(isinstance(v, Mapping | list) for v in value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        shape = "×".join(map(str, value["shape"]))
        return f"{value['dtype']} {shape}, {value['min']} to {value['max']}"
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return f"{value:.9g}" if isinstance(value, float) else repr(value) if value == "" else str(value)


def plain_json(value: Any) -> Any:
    """Return a value that JSON can hold: NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {name: plain_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
