"""The psana geometry text: one line of 13 fields per part, ``#`` comments, um and degrees.

::

    PARENT index OBJECT index  x0 y0 z0  rot_z rot_y rot_x  tilt_z tilt_y tilt_x

psana itself writes whole micrometres and five decimals of a tilt; here numbers are written
so that they are read back as the same numbers, and comments and blank lines stay where they
were.  A line whose parent is called IP must have its detector at negative z (the z axis
points against the beam): a positive z0 changes its sign on reading, as in psana.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry, Part, Triple, check
from psana_dask.geometry.segments import Convention

FIELDS = (
    "parent, parent index, object, object index, x0, y0, z0, rot_z, rot_y, rot_x, tilt_z, tilt_y, tilt_x"
)


def read_text(
    text: str, *, convention: Convention = "psana2", segment_shape: tuple[int, int] | None = None
) -> Geometry:
    r"""Read a geometry in the psana text format.

    Parameters
    ----------
    text : str
        The whole text, lines ended by ``\n`` or ``\r\n``.
    convention : {"psana2", "psana1"}
        Which library's segment types are meant: psana1 for LCLS-1 data, psana2 for LCLS-II.
    segment_shape : (int, int), optional
        Rows and columns of a panel for ARCHON and MTRXANY.

    Returns
    -------
    Geometry
        Checked: one tree, no loop, known segments of one shape.

    Raises
    ------
    GeometryError
        With the line number and what was expected.

    Examples
    --------
    >>> detector = geometry.read_text(open("54-end.data").read())
    """
    parts: list[Part] = []
    comments: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            comments.append((len(parts), line))
        else:
            parts.append(_part(line, number))
    geometry = Geometry(tuple(parts), tuple(comments), convention, segment_shape)
    check(geometry)
    return geometry


def write_text(geometry: Geometry) -> str:
    """Return the geometry in the psana text format; `read_text` gives the same geometry back.

    Examples
    --------
    >>> print(geometry.write_text(detector))
    """
    return "".join(f"{line}\n" for line in _lines(geometry))


def _part(line: str, number: int) -> Part:
    words = line.split()
    if len(words) != 13:
        raise GeometryError(f"line {number}: {len(words)} fields instead of 13 ({FIELDS}): {line.strip()!r}")
    parent, parent_index = words[0], _integer(words[1], number)
    name, index = words[2], _integer(words[3], number)
    values = [_number(word, number) for word in words[4:]]
    if parent.startswith("IP") and values[2] > 0:
        values[2] = -values[2]
    origin, rotation, tilt = (_triple(values[k : k + 3]) for k in (0, 3, 6))
    return Part(parent, parent_index, name, index, origin, rotation, tilt, number)


def _integer(word: str, number: int) -> int:
    try:
        return int(word)
    except ValueError:
        raise GeometryError(f"line {number}: {word!r} is not an index (a whole number)") from None


def _number(word: str, number: int) -> float:
    try:
        value = float(word)
    except ValueError:
        raise GeometryError(f"line {number}: {word!r} is not a number") from None
    if not isfinite(value):
        raise GeometryError(f"line {number}: {word!r} is not a finite number")
    return value


def _triple(values: list[float]) -> Triple:
    return values[0], values[1], values[2]


def _lines(geometry: Geometry) -> Iterator[str]:
    comments = list(geometry.comments)
    for position, part in enumerate(geometry.parts):
        while comments and comments[0][0] <= position:
            yield comments.pop(0)[1]
        yield _line(part)
    for _, comment in comments:
        yield comment


def _line(part: Part) -> str:
    names = f"{part.parent:<12} {part.parent_index:>2} {part.name:<22} {part.index:>3} "
    origin = " ".join(f"{_shortest(v, 1):>13}" for v in part.origin)
    rotation = " ".join(f"{_shortest(v, 1):>7}" for v in part.rotation)
    tilt = " ".join(f"{_shortest(v, 5):>10}" for v in part.tilt)
    return f"{names}{origin}   {rotation}   {tilt}"


def _shortest(value: float, decimals: int) -> str:
    """Return a fixed-point number where that is exact, else the shortest that is."""
    fixed = f"{value:.{decimals}f}"
    return fixed if float(fixed) == value else repr(value)
