"""Where the panels of each detector type are when nobody has measured it.

Positions are those of the facility's own defaults (psana1: Detector, psana2: pscalib), so an
image made with them has the same shape; the distance to the interaction point is nominal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from psana_dask.errors import GeometryError, suggestion
from psana_dask.geometry.model import Geometry, Part, Triple
from psana_dask.geometry.segments import Convention

FLAT: Triple = (0.0, 0.0, 0.0)
TURNED: Triple = (90.0, 0.0, 0.0)
FLIPPED: Triple = (90.0, 180.0, 0.0)
# seen from behind: turned by 90 about z, then by 180 about y


@dataclass(frozen=True)
class Place:
    """Where a panel is in its frame: um, and degrees about z, y, x."""

    x: float
    y: float
    z: float = 0.0
    rotation: Triple = FLAT
    tilt: Triple = FLAT


@dataclass(frozen=True)
class Layout:
    """A default: panels of one segment type in one frame in front of the interaction point."""

    segment: str
    places: Sequence[Place]
    distance: float = 1e6
    # um
    rotation: Triple = TURNED
    # of the frame about the interaction point
    tilt: Triple = FLAT
    shift: float = 0.0
    # um, of the frame along x
    psana2: str = ""
    # segment type under psana2, where that is another one


CSPAD = (  # x, y, z (um); turn about z, tilts about z, y, x (degrees)
    (51621, 112683, 153, 90, 0.48292, 0.0, 0.00263),
    (74168, 112907, 135, 90, 0.48886, -0.05755, 0.01316),
    (16366, 124137, 107, 0, 0.3237, 0.00395, -0.01096),
    (16415, 101350, 185, 0, 0.1513, 0.09867, -0.29055),
    (27786, 159233, 123, 270, 0.24474, -0.03015, 0.03948),
    (4845, 159260, 106, 270, 0.05987, -0.04659, 0.01053),
    (62758, 168631, 132, 0, 0.4494, 0.02895, -0.00548),
    (62881, 145851, 137, 0, 0.20068, 0.03553, -0.03015),
    (107098, 129494, 165, 0, 0.01316, 0.01184, -0.02742),
    (107067, 106699, 152, 0, -0.15924, -0.01316, -0.05208),
    (118871, 164660, 152, 270, 0.11249, -0.02193, 0.04078),
    (95879, 164632, 143, 270, -0.07632, -0.05757, 0.03158),
    (153905, 153051, 158, 180, -0.03026, 0.0, -0.04385),
    (153838, 175841, 140, 180, -0.03947, -0.01973, -0.16719),
    (163149, 117980, 156, 270, -0.175, -0.04385, -0.00526),
    (140287, 117936, 153, 270, 0.0, -0.02741, -0.0079),
    (123905, 73726, 133, 270, 0.00263, -0.00548, -0.00921),
    (101282, 73699, 130, 270, 0.20725, -0.0274, -0.03948),
    (159023, 62203, 142, 180, -0.05461, -0.00263, -0.03562),
    (159024, 84885, 136, 180, -0.08026, 0.01579, -0.06576),
    (147998, 26847, 106, 90, 0.03158, -0.08219, 0.08947),
    (170404, 26856, 96, 90, -0.07893, -0.00822, 0.06972),
    (112701, 17748, 97, 180, 0.26908, -0.025, -0.00548),
    (112640, 40586, 100, 180, 0.03685, -0.01448, 0.03836),
    (68448, 57015, 119, 180, 0.27835, -0.02501, 0.09319),
    (68292, 79701, 120, 180, 0.3744, -0.0329, -0.04112),
    (56919, 21965, 69, 90, 0.18024, -0.06578, 0.07894),
    (79497, 22002, 67, 90, 0.1204, -0.0274, 0.09211),
    (21658, 33119, 72, 0, 0.2724, 0.03553, -0.12332),
    (21748, 10489, 28, 0, 0.09805, 0.03027, -0.07946),
    (12357, 68156, 97, 90, 0.20919, 0.03562, 0.05789),
    (35247, 68250, 89, 90, 0.09144, -0.04109, 0.02368),
)
EPIX10KA2M = (  # x, y (um); turn and tilt about z (degrees)
    (-59032, 23573, 270, -0.01949),
    (-59026, 64317, 270, -0.14725),
    (-17405, 23567, 270, -0.38763),
    (-17039, 63692, 270, -0.28908),
    (23423, 59147, 180, -0.59396),
    (64071, 59039, 180, -0.1992),
    (23779, 17334, 180, -0.40785),
    (63997, 17181, 180, -0.40771),
    (59152, -23403, 90, -0.36743),
    (58942, -64143, 90, -0.53539),
    (17468, -23658, 90, -0.33429),
    (17029, -63871, 90, -0.24041),
    (-23591, -59310, 0, -0.24184),
    (-64155, -59056, 0, -0.54221),
    (-23622, -17240, 0, -0.14729),
    (-63991, -17169, 0, -0.148),
)


def _cspad() -> list[Place]:
    return [
        Place(x, y, z, (turn, 0.0, 0.0), (about_z, about_y, about_x))
        for x, y, z, turn, about_z, about_y, about_x in CSPAD
    ]


def _epix10ka2m() -> list[Place]:
    return [Place(x, y, 0.0, (turn, 0.0, 0.0), (tilt, 0.0, 0.0)) for x, y, turn, tilt in EPIX10KA2M]


def _jungfrau4m() -> list[Place]:
    """Eight modules in a windmill of two columns, seen from behind."""
    across = ((-56807.1, -15557.5, 25692.1, 66941.7), (44005.5, 44005.5, 33921.7, 33921.7))
    half = list(zip(*across, strict=True))
    return [Place(x, y, 0.0, FLIPPED) for x, y in [*half, *((-x, -y) for x, y in half[::-1])]]


def _jungfrau16m() -> list[Place]:
    """Thirty-two modules, four in a row; the right two columns stand 5.1 mm higher."""
    upper = [
        Place(-114300.0 + 77925 * col, -146925.0 + 41250 * row + (5100 if col > 1 else 0))
        for row in range(4)
        for col in range(4)
    ]
    return [*upper, *(Place(-place.x, -place.y) for place in upper[::-1])]


def _grid1x4() -> list[Place]:
    """Twenty modules in two columns of ten, with a gap at the beam."""
    steps = [15000.0 * k for k in (1, 2, 3, 4, 5, -1, -2, -3, -4, -5)]
    return [Place(x, y) for x in (40000.0, -40000.0) for y in steps]


def _pair(x: float, y: float, rotation: Triple) -> list[Place]:
    return [Place(x, y, 0.0, rotation), Place(x, -y, 0.0, rotation)]


UP_SIDE_DOWN: Triple = (180.0, 0.0, 0.0)
CENTRE = (Place(0.0, 0.0),)
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "cspad": Layout("SENS2X1:V1", _cspad(), 1e6, FLAT, (10.0, 0.0, 0.0)),
        "cspad2x2": Layout(
            "SENS2X1:V1",
            [
                Place(21769, 10453, 9, UP_SIDE_DOWN, (-0.00197, -0.02369, 0.01919)),
                Place(21810, 33805, 3, UP_SIDE_DOWN, (0.0, -0.00658, -0.03837)),
            ],
            1e6,
            FLAT,
            (10.0, 0.0, 0.0),
        ),
        "epix100": Layout("EPIX100:V1", CENTRE, 1e6, FLIPPED),
        "epix10ka": Layout("EPIX10KA:V1", CENTRE),
        "epix10kaquad": Layout(
            "EPIX10KA:V1",
            [Place(x, y, 0.0, UP_SIDE_DOWN) for y in (20950.0, -20950.0) for x in (-20150.0, 20150.0)],
        ),
        "epix10ka2m": Layout("EPIX10KA:V1", _epix10ka2m(), 118000.0),
        "epixhr2x2": Layout("EPIXHR2X2:V1", CENTRE, 10000.0),
        "epixhr1x4": Layout("EPIXHR1X4:V1", CENTRE, 10000.0),
        "epixhr1x4x20": Layout("EPIXHR1X4:V1", _grid1x4(), 10000.0),
        "epixm320": Layout(
            "EPIXMASIC:V1",
            [
                Place(-9600, 4800, 0, UP_SIDE_DOWN),
                Place(9600, 4800, 0, UP_SIDE_DOWN),
                Place(9600, -4800),
                Place(-9600, -4800),
            ],
            10000.0,
        ),
        "epixuhr": Layout(
            "EPIXUHRASIC:V1",
            [
                Place(-8500, 9700, 0, (270.0, 0.0, 0.0)),
                Place(8500, 9700, 0, (270.0, 180.0, 180.0)),
                Place(8500, -9700, 0, (270.0, 180.0, 180.0)),
                Place(-8500, -9700, 0, (270.0, 0.0, 0.0)),
            ],
            10000.0,
        ),
        "epixuhr3x2": Layout("EPIXUHR3X2:V1", CENTRE, 100000.0),
        "epixuhr3x2x2": Layout("EPIXUHR3X2:V1", _pair(0.0, 18000.0, FLAT), 100000.0),
        "jungfrau05m": Layout("JUNGFRAU:V1", [Place(0, 0, 0, TURNED)], 10000.0, FLAT, psana2="JUNGFRAU:V2"),
        "jungfrau1m": Layout(
            "JUNGFRAU:V1", _pair(0.0, 20625.0, (0.0, 0.0, 180.0)), 100000.0, psana2="JUNGFRAU:V2"
        ),
        "jungfrau4m": Layout("JUNGFRAU:V1", _jungfrau4m(), 100000.0, psana2="JUNGFRAU:V2"),
        "jungfrau16m": Layout("JUNGFRAU:V1", _jungfrau16m(), 100000.0, shift=2587.5, psana2="JUNGFRAU:V2"),
        "archon": Layout("ARCHON:V1", [Place(0, 0, 0, TURNED)], 10000.0, FLAT),
        "axis": Layout("MTRXANY:V1", CENTRE, 10000.0, FLAT),
    }
)
BY_PANELS: Mapping[str, Sequence[tuple[int, str]]] = MappingProxyType(
    {
        "jungfrau": ((1, "jungfrau05m"), (2, "jungfrau1m"), (8, "jungfrau4m"), (32, "jungfrau16m")),
        "epix10ka": ((1, "epix10ka"), (4, "epix10kaquad"), (16, "epix10ka2m")),
        "epixhr1x4": ((1, "epixhr1x4"), (20, "epixhr1x4x20")),
        "epixuhr3x2": ((1, "epixuhr3x2"), (2, "epixuhr3x2x2")),
    }
)
# detector -> the smallest layout that has room: a run may have recorded only some of the panels
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "epix": "epix100",
        "epix100a": "epix100",
        "epix10k": "epix10ka",
        "epixquad": "epix10kaquad",
        "epixhremu": "epixhr1x4",
        "jungfrauemu": "jungfrau",
    }
)


def default_geometry(
    detector: str,
    *,
    panels: int | None = None,
    shape: tuple[int, int] | None = None,
    pixel_size: float | None = None,
    convention: Convention = "psana2",
) -> Geometry:
    """Return the nominal geometry of a detector type.

    Parameters
    ----------
    detector : str
        For instance "cspad", "jungfrau", "epix10ka2m", in any case; any other name, with `shape`
        and `pixel_size`, is a camera of one sensor that is shown as it is.
    panels : int, optional
        How many panels (highest segment number + 1) there are, for detectors that come in
        several sizes.  The geometry may hold more: panel k is segment k.
    shape : (int, int), optional
        Rows and columns of a panel, for "camera", "archon" and "axis".
    pixel_size : float, optional
        um, for "camera".
    convention : {"psana2", "psana1"}
        Which library's segment types: psana1 for LCLS-1 data, psana2 for LCLS-II.

    Raises
    ------
    GeometryError
        No such detector, more panels than it can have, or a camera without shape and pixel size.

    Examples
    --------
    >>> detector = geometry.default_geometry("jungfrau", panels=8)
    """
    name = ALIASES.get(detector.lower(), detector.lower())
    if name == "camera":
        return _camera(shape, pixel_size, convention)
    if name == "pnccd":
        return _pnccd(convention)
    layout = LAYOUTS.get(_sized(name, panels))
    if layout is None and shape is not None and pixel_size is not None:
        return _camera(shape, pixel_size, convention)
    if layout is None:
        known = [*LAYOUTS, *BY_PANELS, "pnccd", "camera"]
        raise GeometryError(f"no default geometry for {detector!r}{suggestion(detector, known)}")
    if panels is not None and panels > len(layout.places):
        raise GeometryError(f"{detector} has {len(layout.places)} panels by default, not {panels}")
    return _geometry(layout, convention, shape)


def _sized(name: str, panels: int | None) -> str:
    sizes = BY_PANELS.get(name, ())
    fitting = [layout for room, layout in sizes if panels is None or panels <= room]
    return fitting[0] if fitting else sizes[-1][1] if sizes else name


def _geometry(layout: Layout, convention: Convention, shape: tuple[int, int] | None) -> Geometry:
    segment = layout.psana2 if layout.psana2 and convention == "psana2" else layout.segment
    parts = [
        Part("CAMERA", 0, segment, k, (place.x, place.y, place.z), place.rotation, place.tilt)
        for k, place in enumerate(layout.places)
    ]
    origin = (layout.shift, 0.0, -layout.distance)
    frame = Part("IP", 0, "CAMERA", 0, origin, layout.rotation, layout.tilt)
    return Geometry((*parts, frame), convention=convention, segment_shape=shape)


def _pnccd(convention: Convention) -> Geometry:
    """Two halves of two sensors each, which can be moved apart."""
    sensors = [
        Part("HALF", half, "PNCCD:V1", k, (x, y, 0.0), (turn, 0.0, 0.0))
        for half in (0, 1)
        for k, (x, y, turn) in enumerate([(-38362.0, -38362.0, 0.0), (38362.0, -37.0, 180.0)])
    ]
    halves = [
        Part("CAMERA", 0, "HALF", half, (-1.0, y, 0.0), (turn, 0.0, 0.0), (20.0, 0.0, 0.0))
        for half, (y, turn) in enumerate([(-3300.0, 0.0), (3300.0, 180.0)])
    ]
    frame = Part("IP", 0, "CAMERA", 0, (0.0, 0.0, -100000.0), FLIPPED)
    return Geometry((*sensors, *halves, frame), convention=convention)


def _camera(shape: tuple[int, int] | None, pixel_size: float | None, convention: Convention) -> Geometry:
    if shape is None or pixel_size is None:
        raise GeometryError("a camera's default geometry needs shape=(rows, columns) and pixel_size= (um)")
    size = f"{pixel_size:g}"
    part = Part("IP", 0, f"MTRX:{shape[0]}:{shape[1]}:{size}:{size}", 0, (0.0, 0.0, -1e6))
    return Geometry((part,), convention=convention)
