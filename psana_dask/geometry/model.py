"""What a geometry is: a tree of parts, each placed in the frame of its parent.

`Geometry` and `Part` are values: frozen, hashable, compared by content.  The functions that
change one (`moved`, `tilted`, `placed`) return a new one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from psana_dask.errors import GeometryError
from psana_dask.geometry.segments import (
    Convention,
    SegmentType,
    is_segment,
    segment_type,
)

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """One line of a geometry: an object and its place in the frame of its parent.

    Examples
    --------
    >>> [part.name for part in run.epixquad.geometry.parts]
    """

    parent: str
    parent_index: int
    name: str
    # a segment type (a sensor with pixels) or any other word (a frame that holds parts)
    index: int
    origin: Triple = (0.0, 0.0, 0.0)
    # um, x y z in the parent's frame
    rotation: Triple = (0.0, 0.0, 0.0)
    # degrees about z, y, x: the design value
    tilt: Triple = (0.0, 0.0, 0.0)
    # degrees about z, y, x: the measured deviation from it
    line: int | None = field(default=None, compare=False)
    # line number in the text it was read from

    @property
    def key(self) -> tuple[str, int]:
        """Name and index."""
        return self.name, self.index

    @property
    def parent_key(self) -> tuple[str, int]:
        """Name and index of the parent."""
        return self.parent, self.parent_index

    def __str__(self) -> str:
        where = "" if self.line is None else f" (line {self.line})"
        return f"{self.parent} {self.parent_index} / {self.name} {self.index}{where}"


@dataclass(frozen=True)
class Geometry:
    """A detector: parts in the order of their data, and the comments of the text.

    Examples
    --------
    >>> run.epixquad.geometry.shape
    """

    parts: tuple[Part, ...]
    # panel k of the data is the k-th segment, depth first, children in this order
    comments: tuple[tuple[int, str], ...] = ()
    # (number of parts above it, the line as it stood); blank lines are kept as well
    convention: Convention = "psana2"
    # which library's segment types are meant, where the two differ
    segment_shape: tuple[int, int] | None = None
    # rows and columns, for segment types that leave them open (ARCHON, MTRXANY)

    @property
    def panels(self) -> tuple[tuple[Part, ...], ...]:
        """For each panel its parts from the segment up to the outermost one."""
        return _panels(self)

    @property
    def segment(self) -> SegmentType:
        """The type of the panels."""
        return segment_type(self.panels[0][0].name, self.convention, self.segment_shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the data: (panel, row, col)."""
        return (len(self.panels), *self.segment.shape)

    @property
    def root(self) -> tuple[str, int]:
        """Name and index of the outermost frame, normally ``("IP", 0)``."""
        return self.panels[0][-1].parent_key

    @cached_property
    def key(self) -> str:
        """Hash of everything that decides where the pixels are, not of comments and line numbers."""
        parts = tuple(replace(part, line=None) for part in self.parts)
        content = repr((parts, self.convention, self.segment.shape))
        return hashlib.sha256(content.encode()).hexdigest()


def check(geometry: Geometry) -> None:
    """Raise `GeometryError` unless the parts form one tree whose leaves are equal segments.

    Called wherever a geometry is read; call it on one that was built part by part.
    """
    _check_names(geometry.parts)
    _check_panels(geometry)


def find(geometry: Geometry, name: str, index: int = 0, parent: tuple[str, int] | None = None) -> int:
    """Return the position in ``geometry.parts`` of the one part with this name and index.

    Parameters
    ----------
    geometry : Geometry
        Where to look.
    name, index : str, int
        As in the text, for instance ``"QUAD:V1", 2``.
    parent : (str, int), optional
        Needed where several parents have such a part.

    Raises
    ------
    GeometryError
        None or several; the message lists them.
    """
    found = [
        k
        for k, part in enumerate(geometry.parts)
        if part.key == (name, index) and parent in (None, part.parent_key)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        names = ", ".join(dict.fromkeys(f"{part.name} {part.index}" for part in geometry.parts))
        raise GeometryError(f"no part {name} {index} in this geometry; it has {names}")
    several = ", ".join(str(geometry.parts[k]) for k in found)
    raise GeometryError(f"several parts are called {name} {index}; give parent= to choose from {several}")


def moved(
    geometry: Geometry,
    name: str,
    index: int = 0,
    *,
    by: Triple,
    parent: tuple[str, int] | None = None,
) -> Geometry:
    """Return the geometry with one part moved by ``(dx, dy, dz)`` um in its parent's frame.

    Examples
    --------
    >>> detector = geometry.moved(detector, "CAMERA", 0, by=(0.0, 0.0, -500.0))
    """
    part = geometry.parts[find(geometry, name, index, parent)]
    return placed(geometry, name, index, parent=parent, origin=_sum(part.origin, by))


def tilted(
    geometry: Geometry,
    name: str,
    index: int = 0,
    *,
    by: Triple,
    parent: tuple[str, int] | None = None,
) -> Geometry:
    """Return the geometry with one part tilted further by degrees about ``(z, y, x)``.

    Examples
    --------
    >>> detector = geometry.tilted(detector, "JUNGFRAU:V2", 3, by=(0.02, 0.0, 0.0))
    """
    part = geometry.parts[find(geometry, name, index, parent)]
    return placed(geometry, name, index, parent=parent, tilt=_sum(part.tilt, by))


def placed(
    geometry: Geometry,
    name: str,
    index: int = 0,
    *,
    parent: tuple[str, int] | None = None,
    origin: Triple | None = None,
    rotation: Triple | None = None,
    tilt: Triple | None = None,
) -> Geometry:
    """Return the geometry with one part's origin (um), rotation or tilt (degrees z, y, x) replaced.

    Examples
    --------
    >>> detector = geometry.placed(detector, "CAMERA", 0, origin=(0.0, 0.0, -100_000.0))
    """
    where = find(geometry, name, index, parent)
    part = geometry.parts[where]
    part = replace(
        part,
        origin=part.origin if origin is None else origin,
        rotation=part.rotation if rotation is None else rotation,
        tilt=part.tilt if tilt is None else tilt,
    )
    return replace(geometry, parts=(*geometry.parts[:where], part, *geometry.parts[where + 1 :]))


def _sum(a: Triple, b: Triple) -> Triple:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _check_names(parts: tuple[Part, ...]) -> None:
    if not parts:
        raise GeometryError("the geometry has no parts: every line is blank or a comment")
    seen: dict[tuple[object, ...], Part] = {}
    parents = {part.parent_key for part in parts}
    for part in parts:
        # segments of different quads may share a name; one that holds parts may not
        key = part.key if part.key in parents else (*part.parent_key, *part.key)
        if key in seen:
            raise GeometryError(f"{part} has the same name as {seen[key]}; give it another index")
        seen[key] = part


def _check_panels(geometry: Geometry) -> None:
    parents = {part.parent_key for part in geometry.parts}
    for part in geometry.parts:
        if part.key not in parents and not is_segment(part.name):
            _unknown_segment(geometry, part)
        if part.key in parents and is_segment(part.name):
            raise GeometryError(f"{part} is a sensor and cannot hold other parts")
    panels = geometry.panels
    roots = {chain[-1].parent_key: chain[-1] for chain in panels}
    if len(roots) > 1:
        listed = "; ".join(str(part) for part in roots.values())
        raise GeometryError(f"the geometry falls apart into {len(roots)} trees: {listed}")
    _check_equal(geometry, panels)


def _unknown_segment(geometry: Geometry, part: Part) -> None:
    try:
        segment_type(part.name, geometry.convention, geometry.segment_shape)
    except GeometryError as error:
        raise GeometryError(f"{part} holds no parts and is no sensor: {error}") from None


def _check_equal(geometry: Geometry, panels: tuple[tuple[Part, ...], ...]) -> None:
    first = panels[0][0]
    for chain in panels:
        shape = segment_type(chain[0].name, geometry.convention, geometry.segment_shape).shape
        if shape != geometry.segment.shape:
            raise GeometryError(f"{chain[0]} has {shape} pixels, {first} has {geometry.segment.shape}")


@lru_cache(maxsize=64)
def _panels(geometry: Geometry) -> tuple[tuple[Part, ...], ...]:
    by_key: dict[tuple[str, int], Part] = {}
    children: dict[tuple[str, int], list[Part]] = {}
    for part in geometry.parts:
        by_key.setdefault(part.key, part)
        children.setdefault(part.parent_key, []).append(part)
    for part in geometry.parts:
        _check_ends(part, by_key)
    roots = dict.fromkeys(key for key in children if key not in by_key)
    return tuple(chain for root in roots for chain in _chains(root, (), children))


def _chains(
    key: tuple[str, int], above: tuple[Part, ...], children: dict[tuple[str, int], list[Part]]
) -> list[tuple[Part, ...]]:
    """Return the chains below `key`, depth first; a part without children is a panel."""
    found = []
    for part in children[key]:
        chain = (part, *above)
        found += _chains(part.key, chain, children) if part.key in children else [chain]
    return found


def _check_ends(part: Part, by_key: dict[tuple[str, int], Part]) -> None:
    """Raise unless following the parents of `part` ends at a frame that is no part."""
    at, steps = part, 0
    while at.parent_key in by_key:
        at, steps = by_key[at.parent_key], steps + 1
        if steps > len(by_key):
            raise GeometryError(f"{part} is its own ancestor: the parents form a loop")
