"""CrystFEL ``.geom`` files: read with `read_crystfel`, write with `write_crystfel`.

Format: CrystFEL's manual page ``crystfel_geometry``.  Positions are in units of pixels
(``res`` pixels per metre) in the laboratory frame; ``corner_x``, ``corner_y`` are the outer
corner of a panel's first pixel, half a pixel before its centre, and ``z = clen + coffset``.

psana's and psgeom's own converters write the centre of the first pixel instead; read such a
file with ``corner="centre"``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Array, Convention, SegmentType, segment_type
from psana_dask.geometry.tiles import Tile, geometry_of, recognised, tiles_of

Corner = Literal["corner", "centre"]
Region = tuple[int, tuple[int, int], tuple[int, int]]
# (panel, (first row, past-the-end row), (first col, past-the-end col))


@dataclass(frozen=True)
class CrystfelPanel:
    """One panel of a file, with all that the file says of it."""

    name: str
    values: Mapping[str, str]
    # every directive in force for the panel, as text
    lines: Mapping[str, int]
    # where each of them stands

    def number(self, key: str, default: float | None = None) -> float:
        """Return a directive as a number."""
        if key not in self.values:
            if default is not None:
                return default
            raise GeometryError(f"panel {self.name!r} has no {key}")
        try:
            return float(self.values[key].split()[0])
        except (ValueError, IndexError):
            what = f"{key} of panel {self.name!r} is no number: {self.values[key]!r}"
            raise GeometryError(f"line {self.lines[key]}: {what}") from None

    def vector(self, key: str) -> Array:
        """Return a directive like ``+0.99x -0.01y`` as a vector (3,)."""
        if key not in self.values:
            raise GeometryError(f"panel {self.name!r} has no {key}")
        try:
            return _vector(self.values[key])
        except ValueError:
            what = f"{key} of panel {self.name!r} is no vector: {self.values[key]!r}"
            raise GeometryError(f"line {self.lines[key]}: {what}") from None


@dataclass(frozen=True)
class CrystfelFile:
    """A parsed file."""

    panels: tuple[CrystfelPanel, ...]
    header: Mapping[str, str]
    # directives that belong to no panel: data, clen, photon_energy, ...
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # rigid groups: name -> panels; collections: name -> groups
    bad: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # bad regions: name -> its directives

    def tiles(
        self,
        panel_shape: tuple[int, int],
        *,
        corner: Corner = "corner",
        distance: float | None = None,
    ) -> tuple[Tile, ...]:
        """Return the panels as ASICs of detector panels of `panel_shape` (rows, columns).

        Data that are stacked along one or both axes are cut into blocks of that shape, column of
        blocks by column (psana's stack, and Cheetah's 8 by 4 blocks for the CSPAD); a file with a
        panel axis (``dim1 = 3``) is taken at its word.

        Parameters
        ----------
        panel_shape : (int, int)
            Rows and columns of one detector panel.
        corner : {"corner", "centre"}
            What the file's ``corner_x`` is: CrystFEL's outer corner, or psana's pixel centre.
        distance : float, optional
            Instead of the file's ``clen``, m.  A ``clen`` that names a place in a data file counts as 0.
        """
        tall = 1 + max(int(panel.number("max_ss")) for panel in self.panels) // panel_shape[0]
        return tuple(_tile(panel, panel_shape, tall, corner, distance) for panel in self.panels)

    def good(self, found: Sequence[Tile], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Return which pixels (panel, row, col) lie in no bad region; `found` is from `tiles`."""
        mask = np.ones(shape, np.bool_)
        for region in self.bad.values():
            for panel, tile in zip(self.panels, found, strict=True):
                if region.get("panel") in (None, panel.name):
                    _mark(mask, region, panel, tile)
        return mask


def parse_crystfel(text: str) -> CrystfelFile:
    """Parse a ``.geom`` file.

    Raises
    ------
    GeometryError
        With the line number.
    """
    state = _State()
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split(";", 1)[0].strip()
        if line:
            state.directive(line, number)
    return state.result()


def read_crystfel(
    text: str,
    segment: str | None = None,
    *,
    corner: Corner = "corner",
    distance: float | None = None,
    convention: Convention = "psana2",
) -> Geometry:
    """Read a CrystFEL geometry.

    Parameters
    ----------
    text : str
        The file's content.
    segment : str, optional
        The psana segment type the panels belong to; by default the one whose ASICs fit.
        A file that fits none gives one ``MTRX:V2`` panel for each of its own.
    corner, distance
        As in `CrystfelFile.tiles`.
    convention : {"psana2", "psana1"}
        Which library's segment types.
    """
    parsed = parse_crystfel(text)

    def tiles_for(kind: SegmentType) -> tuple[Tile, ...]:
        return parsed.tiles(kind.shape, corner=corner, distance=distance)

    if segment:
        found = tiles_for(segment_type(segment, convention))
        return geometry_of(found, segment, convention=convention)
    single = _single(parsed, corner, distance)
    with suppress(GeometryError):
        return recognised(tiles_for, convention)
    return geometry_of(single, convention=convention)


def write_crystfel(
    geometry: Geometry,
    *,
    clen: float | str | None = None,
    data: str = "/entry_1/data_1/data",
    mask: str | None = None,
    photon_energy: str | float = "/LCLS/photon_energy_eV",
    adu_per_ev: float | None = None,
    bad: Iterable[Region] = (),
    panel_axis: bool = False,
    peak_list: str | None = None,
) -> str:
    """Return the geometry as a CrystFEL ``.geom`` file.

    Parameters
    ----------
    geometry : Geometry
        The detector; each ASIC becomes a panel ``p<panel>a<asic>``, each panel a rigid group.
    clen : float or str, optional
        Camera length, m: positions are written relative to it (the mean distance by default).
        A str names the place in the data file; positions are then relative to 0.
    data, mask : str
        Where data and mask are in the file; ``mask`` says that any value but 0 is bad.
    photon_energy : str or float
        eV, or where it is in the file.
    adu_per_ev : float, optional
        Detector units per eV; where it is not known one unit is written to be one photon: CrystFEL reads
        no geometry without either, and uses it for estimates of errors.
    bad : iterable of (panel, (first row, end), (first col, end))
        Regions to exclude.
    panel_axis : bool
        Data are (event, panel, ss, fs) instead of panels stacked along ss.
    peak_list : str, optional
        Where a CXI peak list is; CrystFEL needs stacked panels for it.
    """
    found = tiles_of(geometry)
    distance = float(np.mean([tile.first[2] for tile in found])) if clen is None else clen
    lines = [*_header(distance, data, mask, photon_energy, adu_per_ev, panel_axis)]
    lines += [f"peak_list = {peak_list}", "peak_list_type = cxi"] if peak_list else []
    rows = 0 if panel_axis else geometry.shape[1]
    names = _names(found)
    lines += [*_rigid_groups(geometry, found, names), *_bad_regions(bad, found, names, rows)]
    reference = distance if isinstance(distance, float | int) else 0.0
    for tile, name in zip(found, names, strict=True):
        lines += ["", *_panel_lines(tile, name, geometry.segment.pixel_size, reference, rows, panel_axis)]
    return "\n".join(lines) + "\n"


class _State:
    """What has been read so far: defaults hold for the panels that are named after them."""

    def __init__(self) -> None:
        self.header: dict[str, str] = {}
        self.header_lines: dict[str, int] = {}
        self.panels: dict[str, tuple[dict[str, str], dict[str, int]]] = {}
        self.bad: dict[str, dict[str, str]] = {}
        self.groups: dict[str, tuple[str, ...]] = {}

    def directive(self, line: str, number: int) -> None:
        key, equals, value = (piece.strip() for piece in line.partition("="))
        if not equals or not key:
            raise GeometryError(f"line {number}: not of the form 'key = value': {line!r}")
        owner, slash, name = key.rpartition("/")
        if key.startswith("rigid_group"):
            self.groups[key] = tuple(word.strip() for word in value.split(","))
        elif slash and owner.startswith("bad"):
            self.bad.setdefault(owner, {})[name] = value
        elif slash:
            values, lines = self.panels.setdefault(owner, (dict(self.header), dict(self.header_lines)))
            values[name], lines[name] = value, number
        else:
            self.header[key], self.header_lines[key] = value, number

    def result(self) -> CrystfelFile:
        if not self.panels:
            raise GeometryError("no panels in this CrystFEL geometry: no line like 'p0/fs = +x'")
        found = tuple(CrystfelPanel(name, *both) for name, both in self.panels.items())
        return CrystfelFile(found, self.header, self.groups, self.bad)


_TERM = re.compile(r"([+-]?)\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)?\s*\*?\s*([xyz])")


def _vector(text: str) -> Array:
    vector = np.zeros(3)
    if _TERM.sub("", text).strip() or not text.strip():
        raise ValueError(text)
    for sign, size, axis in _TERM.findall(text):
        vector["xyz".index(axis)] += (-1 if sign == "-" else 1) * float(size or 1)
    return vector


def _tile(
    panel: CrystfelPanel, shape: tuple[int, int], tall: int, corner: Corner, distance: float | None
) -> Tile:
    (first_ss, end_ss), (first_fs, end_fs) = _ranges(panel)
    block, row = divmod(first_ss, shape[0])
    wide, col = divmod(first_fs, shape[1])
    index = _panel_axis(panel)
    index = wide * tall + block if index is None else index
    first, slow, fast = _place(panel, distance)
    if corner == "corner":
        first = first + (slow + fast) / 2
    return Tile(index, (row, row + end_ss - first_ss), (col, col + end_fs - first_fs), first, slow, fast)


def _ranges(panel: CrystfelPanel) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the (first, past-the-end) positions in the data along ss and fs."""
    ends = {key: int(panel.number(key)) for key in ("min_ss", "max_ss", "min_fs", "max_fs")}
    if ends["max_ss"] < ends["min_ss"] or ends["max_fs"] < ends["min_fs"]:
        line = panel.lines["max_ss"]
        raise GeometryError(f"line {line}: panel {panel.name!r} ends before it begins: {ends}")
    return (ends["min_ss"], ends["max_ss"] + 1), (ends["min_fs"], ends["max_fs"] + 1)


def _panel_axis(panel: CrystfelPanel) -> int | None:
    fixed = [v for k, v in panel.values.items() if re.fullmatch(r"dim\d+", k) and v.isdigit()]
    if len(fixed) > 1:
        raise GeometryError(f"panel {panel.name!r} has more than one panel axis: {fixed}")
    return int(fixed[0]) if fixed else None


def _place(panel: CrystfelPanel, distance: float | None) -> tuple[Array, Array, Array]:
    """Return what the file calls the corner, and the slow and fast steps, m."""
    res = panel.number("res")
    if distance is None:
        distance = _metres(panel.values.get("clen", "0"))
    across = (panel.number("corner_x") / res, panel.number("corner_y") / res)
    corner = np.array([*across, distance + panel.number("coffset", 0.0)])
    return corner, panel.vector("ss") / res, panel.vector("fs") / res


def _metres(text: str) -> float:
    """Return a length like ``0.08``, ``0.08 m`` or ``80 mm``; 0 for a place in a data file."""
    value, _, unit = text.strip().partition(" ")
    if not _is_number(value):
        return 0.0
    return float(value) * (1e-3 if unit.strip() == "mm" else 1.0)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _single(parsed: CrystfelFile, corner: Corner, distance: float | None) -> list[Tile]:
    """Return each panel of the file as a detector panel of its own."""
    found = []
    for index, panel in enumerate(parsed.panels):
        (first_ss, end_ss), (first_fs, end_fs) = _ranges(panel)
        first, slow, fast = _place(panel, distance)
        if corner == "corner":
            first = first + (slow + fast) / 2
        found.append(Tile(index, (0, end_ss - first_ss), (0, end_fs - first_fs), first, slow, fast))
    return found


def _mark(mask: NDArray[np.bool_], region: Mapping[str, str], panel: CrystfelPanel, tile: Tile) -> None:
    """Set the pixels of one ASIC that lie in a bad region to False."""
    inside = mask[tile.panel, tile.rows[0] : tile.rows[1], tile.cols[0] : tile.cols[1]]
    limits = {key: float(value) for key, value in region.items() if _is_number(value)}
    if "min_fs" in limits:
        ss, fs = (np.arange(*span) for span in _ranges(panel))
        rows = (ss >= limits["min_ss"]) & (ss <= limits["max_ss"])
        inside[np.logical_and.outer(rows, (fs >= limits["min_fs"]) & (fs <= limits["max_fs"]))] = False
    elif "min_x" in limits:
        x, y = np.moveaxis(tile.positions()[..., :2] * panel.number("res"), -1, 0)
        across = (x >= limits["min_x"]) & (x <= limits["max_x"])
        inside[across & (y >= limits["min_y"]) & (y <= limits["max_y"])] = False


def _header(
    clen: float | str,
    data: str,
    mask: str | None,
    photon_energy: str | float,
    adu_per_ev: float | None,
    panel_axis: bool,
) -> Iterator[str]:
    yield "; written by psana_dask; lengths in pixels of size 1/res, clen and coffset in metres"
    yield f"clen = {clen if isinstance(clen, str) else repr(float(clen))}"
    yield f"photon_energy = {photon_energy}"
    yield "adu_per_photon = 1.0" if adu_per_ev is None else f"adu_per_eV = {adu_per_ev!r}"
    yield f"data = {data}"
    if mask is not None:
        yield from (f"mask = {mask}", "mask_good = 0x0000", "mask_bad = 0xffff")
    yield "dim0 = %"
    if not panel_axis:
        yield from ("dim1 = ss", "dim2 = fs")


def _names(found: Sequence[Tile]) -> list[str]:
    counts: dict[int, int] = {}
    names = []
    for tile in found:
        counts[tile.panel] = counts.get(tile.panel, -1) + 1
        names.append(f"p{tile.panel}a{counts[tile.panel]}")
    return names


def _rigid_groups(geometry: Geometry, found: Sequence[Tile], names: Sequence[str]) -> Iterator[str]:
    """Yield a group per panel, and one per part that holds several panels (a quad)."""
    panels: dict[str, list[str]] = {}
    frames: dict[str, list[str]] = {}
    for tile, name in zip(found, names, strict=True):
        panels.setdefault(f"p{tile.panel}", []).append(name)
        part = geometry.panels[tile.panel][0]
        frames.setdefault(f"f{part.parent_index}", []).append(name)
    for kind, groups in (("panels", panels), ("frames", frames)):
        for group, members in groups.items():
            yield f"rigid_group_{group} = {','.join(members)}"
        yield f"rigid_group_collection_{kind} = {','.join(groups)}"


def _bad_regions(
    bad: Iterable[Region], found: Sequence[Tile], names: Sequence[str], stacked_rows: int
) -> Iterator[str]:
    """Yield each region once per ASIC that it touches, in data coordinates."""
    for number, (panel, rows, cols) in enumerate(bad):
        for tile, name in zip(found, names, strict=True):
            ss = max(rows[0], tile.rows[0]), min(rows[1], tile.rows[1])
            fs = max(cols[0], tile.cols[0]), min(cols[1], tile.cols[1])
            if tile.panel != panel or ss[0] >= ss[1] or fs[0] >= fs[1]:
                continue
            top = panel * stacked_rows
            yield f"bad{number}{name}/panel = {name}"
            yield f"bad{number}{name}/min_ss = {top + ss[0]}"
            yield f"bad{number}{name}/max_ss = {top + ss[1] - 1}"
            yield f"bad{number}{name}/min_fs = {fs[0]}"
            yield f"bad{number}{name}/max_fs = {fs[1] - 1}"


def _panel_lines(
    tile: Tile, name: str, pixel_size: float, distance: float, stacked_rows: int, panel_axis: bool
) -> Iterator[str]:
    res = 1e6 / pixel_size
    corner, top = tile.corner, tile.panel * stacked_rows
    if panel_axis:
        yield from (f"{name}/dim1 = {tile.panel}", f"{name}/dim2 = ss", f"{name}/dim3 = fs")
    yield f"{name}/min_fs = {tile.cols[0]}"
    yield f"{name}/max_fs = {tile.cols[1] - 1}"
    yield f"{name}/min_ss = {top + tile.rows[0]}"
    yield f"{name}/max_ss = {top + tile.rows[1] - 1}"
    yield f"{name}/res = {res!r}"
    yield f"{name}/fs = {_vector_text(tile.fast * res)}"
    yield f"{name}/ss = {_vector_text(tile.slow * res)}"
    yield f"{name}/corner_x = {float(corner[0] * res)!r}"
    yield f"{name}/corner_y = {float(corner[1] * res)!r}"
    yield f"{name}/coffset = {float(corner[2] - distance)!r}"


def _vector_text(vector: Array) -> str:
    # fixed notation: some readers do not know exponents in vectors
    return " ".join(f"{value:+.15f}{axis}" for value, axis in zip(vector, "xyz", strict=True))
