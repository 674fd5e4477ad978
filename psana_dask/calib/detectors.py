"""The detector table: one row per kind of imaging detector.

A row is composed of facts that other modules act on: the shape of its constants, how a raw
word splits into value and gain range, where its constants lie in an LCLS-1 calib directory,
what ``pixel_gain`` means, the default common mode, the grid of readout banks, and the name of
its pixel field in the file.  A detector that is not in the table is `GENERIC`: pedestals,
gain, mask and the algorithms that need no layout all work on it.

Facts: PSCalib ``GlobalUtils.py`` and ``CalibParsBase*V1.py`` (LCLS-1), lcls2
``psana/detector/*.py`` (LCLS-II); `docs/calibration.md` lists where this table differs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

GainMeaning = Literal["multiply", "divide"]


@dataclass(frozen=True)
class Decoding:
    """How a raw word splits into a value and a gain range."""

    kind: Literal["plain", "jungfrau", "switched"]
    # switched: one bit chooses between the two ranges a pixel's configuration allows
    data_bits: int = 0xFFFF  # of the raw word: the value
    gain_bit: int = 0  # of the raw word: set in the second range ("switched" only)
    ranges: tuple[str, ...] = ()  # names, in the order of the first axis of the constants
    steady: tuple[int, ...] = ()  # ranges whose pixels enter the common mode
    dark: tuple[int, ...] = ()  # ranges that a dark run can measure; their status words count


PLAIN = Decoding("plain")
JUNGFRAU_BITS = Decoding("jungfrau", 0x3FFF, 0, ("g0", "g1", "g2"), (0,), (0, 1, 2))
EPIX10KA_RANGES = ("FH", "FM", "FL", "AHL-H", "AML-M", "AHL-L", "AML-L")
EPIX10KA_BITS = Decoding("switched", 0x3FFF, 1 << 14, EPIX10KA_RANGES, (0, 1, 3, 4), (0, 1, 2, 3, 4))
EPIXHR_BITS = Decoding("switched", 0x3FFF, 1 << 15, EPIX10KA_RANGES, (0, 1, 3, 4), (0, 1, 2, 3, 4))
EPIXM_BITS = Decoding("switched", 0x7FFF, 1 << 15, ("SH", "SL"), (0,), (0, 1))
EPIXUHR_BITS = Decoding("switched", 0x0FFE, 1, ("high", "low"), (0,), (0, 1))


@dataclass(frozen=True)
class Detector:
    """One row of the table.

    Examples
    --------
    >>> calib.detector("Jungfrau").multigain
    """

    name: str  # device name in LCLS-1 sources, or the type in LCLS-II files
    group: str = "Camera::CalibV1"  # folder in an LCLS-1 calib directory
    shape: tuple[int, ...] = ()  # (panel, row, col) or (row, col); 0: not fixed; (): any
    decoding: Decoding = PLAIN
    gain: GainMeaning = "multiply"  # what pixel_gain does to the value, LCLS-1
    gain_xtc2: GainMeaning = "divide"  # the same, LCLS-II
    common_mode: tuple[float, ...] = (0,)  # default parameters, LCLS-1
    common_mode_xtc2: tuple[float, ...] = (0,)  # default parameters, LCLS-II
    stored_common_mode: bool = False  # LCLS-II: a ``common_mode`` constant is in force unless said
    no_common_mode_from: tuple[int, ...] = ()  # LCLS-II: version of the raw data without a default
    banks: tuple[int, int] = (1, 1)  # readout banks of a panel: down, across
    geometry: str = ""  # segment geometry of a panel
    field: str = "raw"  # pixel field of the file
    keV_per_adu: float | None = None  # scale when pixel_gain is missing (LCLS-II)
    center: tuple[int, int] = (0, 0)  # 1: wide pixels between the ASICs in rows, columns

    def of_version(self, version: tuple[int, ...]) -> Detector:
        """Return the row for a version of the raw data (LCLS-II): newer ePix10ka have no common mode."""
        if not self.no_common_mode_from or version < self.no_common_mode_from:
            return self
        return replace(self, stored_common_mode=False)

    @property
    def multigain(self) -> bool:
        """True if the constants have a leading axis of gain ranges."""
        return bool(self.decoding.ranges)

    def gain_meaning(self, xtc2: bool) -> GainMeaning:
        """Return whether ``pixel_gain`` multiplies or divides."""
        return self.gain_xtc2 if xtc2 else self.gain

    def default_common_mode(self, xtc2: bool) -> tuple[float, ...]:
        """Return the common-mode parameters in force without a ``common_mode`` constant."""
        return self.common_mode_xtc2 if xtc2 else self.common_mode


GENERIC = Detector("generic")

def _epix10ka(name: str) -> Detector:
    return Detector(name, f"{name}::CalibV1", (0, 352, 384), EPIX10KA_BITS, "divide", "divide",
                    (7, 2, 10, 10), (0,), True, (3, 0, 1), (2, 8), "EPIX10KA:V1", center=(1, 1))


def _camera(name: str, field: str = "data16") -> Detector:
    return Detector(name, shape=(0, 0), geometry="MTRX", field=field)


DETECTORS: tuple[Detector, ...] = (
    Detector("Cspad", "CsPad::CalibV1", (32, 185, 388), common_mode=(1, 25, 25, 100),
             geometry="SENS2X1:V1", field="data", center=(0, 1)),
    Detector("Cspad2x2", "CsPad2x2::CalibV1", (2, 185, 388), common_mode=(1, 25, 25, 100),
             geometry="SENS2X1:V1", field="data", center=(0, 1)),
    Detector("pnCCD", "PNCCD::CalibV1", (4, 512, 512), common_mode=(3, 350, 350, 128),
             banks=(1, 4), geometry="MTRX:512:512:75:75", field="data"),
    Detector("Epix", "Epix::CalibV1", (704, 768), banks=(2, 8), geometry="EPIX100:V1", field="frame"),
    Detector("Epix10k", "Epix10ka::CalibV1", (352, 384), banks=(2, 8), geometry="EPIX10KA:V1",
             field="frame", center=(1, 1)),
    Detector("Epix100a", "Epix100a::CalibV1", (704, 768), common_mode=(4, 6, 30, 30), banks=(2, 8),
             geometry="EPIX100:V1", field="frame", keV_per_adu=0.06, center=(1, 1)),
    _epix10ka("Epix10ka"), _epix10ka("Epix10kaQuad"), _epix10ka("Epix10ka2M"),
    Detector("ePixHR2x2", "EpixHR2x2::CalibV1", (0, 288, 384), EPIXHR_BITS, "divide", banks=(2, 8),
             stored_common_mode=True, geometry="EPIXHR2X2:V1", center=(1, 1)),
    Detector("ePixM320", "EpixM320::CalibV1", (0, 0, 0), EPIXM_BITS, "divide", geometry="EPIXMASIC:V1"),
    Detector("ePixUHR", "EpixUHR::CalibV1", (0, 0, 0), EPIXUHR_BITS, "divide", geometry="EPIXUHRASIC:V1"),
    Detector("Jungfrau", "Jungfrau::CalibV1", (0, 512, 1024), JUNGFRAU_BITS, "divide",
             common_mode=(7, 1, 100), banks=(2, 16), geometry="JUNGFRAU:V2", field="frame", center=(1, 1)),
    Detector("Princeton", "Princeton::CalibV1", (0, 0), common_mode=(1, 50, 50, 100, 1, 0, 1),
             geometry="MTRX", field="data"),
    Detector("Andor", "Andor::CalibV1", (0, 0), common_mode=(2, 10, 10, 0), geometry="MTRX", field="data"),
    Detector("Andor3d", "Andor3d::CalibV1", (0, 0, 0), common_mode=(2, 10, 10, 0), geometry="MTRX",
             field="data"),
    Detector("DualAndor", "Andor3d::CalibV1", (0, 0, 0), common_mode=(2, 10, 10, 0), geometry="MTRX",
             field="data"),
    Detector("Pixis", "Pixis::CalibV1", (0, 0), geometry="MTRX", field="data"),
    Detector("Fli", "Fli::CalibV1", (0, 0), geometry="MTRX", field="data"),
    Detector("Pimax", "Pimax::CalibV1", (0, 0), geometry="MTRX", field="data"),
    Detector("Timepix", "Timepix::CalibV1", (0, 0), geometry="MTRX", field="data"),
    Detector("Uxi", "Uxi::CalibV1", (0, 0, 0), geometry="MTRX", field="frames"),
    Detector("Fccd960", shape=(960, 960), geometry="MTRX", field="data16"),
    Detector("Archon", shape=(0, 4800), banks=(1, 16), geometry="ARCHON:V1", field="value",
             common_mode_xtc2=(9, 36, 300)),
    _camera("Opal1000"), _camera("Opal1600"), _camera("Opal2000"), _camera("Opal4000"),
    _camera("Opal8000"), _camera("Opal", "image"), _camera("Tm6740", "data8"), _camera("OrcaFl40"),
    _camera("Quartz4A150"), _camera("Fccd"), _camera("Rayonix"), _camera("Alvium", "data"),
    _camera("Zyla", "data"), _camera("iStar", "data"), _camera("StreakC7700"),
    _camera("ControlsCamera"), _camera("Phasics"), _camera("Piranha4", "image"),
)

# what a file may call the pixel field, in the order they are tried
PIXEL_FIELDS = ("raw", "arrayRaw", "image", "data16", "data8", "frame", "frames", "data", "value")

# LCLS-II types and other spellings that do not contain a name of the table
_ALIASES = {"epix100": "Epix100a", "epix100hw": "Epix100a", "epixquad": "Epix10kaQuad",
            "epix10kt": "ePixHR2x2", "epixhr": "ePixHR2x2", "epixhremu": "ePixHR2x2",
            "jungfrauemu": "Jungfrau", "streak": "StreakC7700", "dual_andor": "DualAndor"}
_BY_NAME = {row.name.lower(): row for row in DETECTORS}


def detector(name: str) -> Detector:
    """Return the row for a detector name in any historic spelling, else `GENERIC`.

    Parameters
    ----------
    name : str
        A source (``XppGon.0:Cspad.0``, ``DetInfo(...)``), a device or an LCLS-II detector type
        (``epix10ka``, ``epix100_raw_2_0_1``).

    Examples
    --------
    >>> calib.detector("XppGon.0:Cspad.0").name
    'Cspad'
    """
    text = re.sub(r"^\w*Info\((.*)\)$", r"\1", name.strip())
    device = text.rsplit(":", 1)[-1].rsplit("|", 1)[-1].split(".")[0].lower()
    for key in (device, re.split(r"[_\-]", device)[0]):
        if key in _BY_NAME:
            return _BY_NAME[key]
        if key in _ALIASES:
            return _BY_NAME[_ALIASES[key].lower()]
    fits = [key for key in _BY_NAME if device.startswith(key)]
    return _BY_NAME[max(fits, key=len)] if fits else GENERIC


def row_of_folder(path: str) -> Detector:
    """Return the row for a file of a calib directory: its source says it, else its group; else `GENERIC`."""
    parts = path.replace("\\", "/").split("/")
    at = next((i for i, part in enumerate(parts) if "::" in part), None)
    if at is None:
        return GENERIC
    source = parts[at + 1] if at + 1 < len(parts) else ""
    return detector(source if ":" in source else parts[at].split("::")[0])


def pixel_field(names: list[str] | tuple[str, ...], row: Detector = GENERIC) -> str | None:
    """Return which of a file's field names holds the pixels, or None."""
    wanted = (row.field, *PIXEL_FIELDS)
    return next((name for name in wanted if name in names), None)
