"""The calibration of one detector of a run: its constants, gain ranges, masks and calibrated frames.

Constants are looked up when they are first needed, kind by kind, once for a run and all its
selections; what was used is in the attributes of every result.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from psana_dask.calib import gain
from psana_dask.calib.commonmode import CommonMode
from psana_dask.calib.constants import Constants
from psana_dask.calib.detectors import GENERIC
from psana_dask.calib.detectors import Detector as DetectorRow
from psana_dask.calib.detectors import detector as detector_row
from psana_dask.calib.masks import combined_mask
from psana_dask.calib.store import Lookups
from psana_dask.calib.tables import Choices, Tables, common_mode_numbers, prepare, recorded
from psana_dask.calibrated import CalibratedArray, CommonModeArray, GainRangeArray, digest_of
from psana_dask.catalog import Entry
from psana_dask.choice import Choice
from psana_dask.dataset import View
from psana_dask.errors import (
    ConstantsError,
    ConstantsNotFound,
    ConstantsWarning,
    NameNotFound,
    refuse_unknown,
)
from psana_dask.pipeline import FrameArray
from psana_dask.settings import Config, DetectorConfig
from psana_dask.slow import detector_config
from psana_dask.stores import Calib, is_small, lookups_of
from psana_dask.words import step_attrs

Policy = Literal["error", "warn", "raw"]
Attrs = dict[str, Any]

PER_PIXEL = ("pedestals", "pixel_gain", "pixel_offset", "pixel_status", "status_extra", "status_data")
MASKS = ("pixel_status", "status_extra", "status_data", "pixel_mask")
QUIET_PIXELS = 6  # the common-mode algorithm that needs pixel_rms


@dataclass(frozen=True)
class DetectorCalibration:
    """What turns a detector's words into values.

    Parameters
    ----------
    view : View
    entry : Entry
    """

    view: View
    entry: Entry

    # ---- what the detector is -----------------------------------------------------------------
    @cached_property
    def raw(self) -> FrameArray:
        """The frames as they are in the file.

        Raises
        ------
        NameNotFound
            The detector has no frames.
        """
        channel = self.entry.channels.get("raw")
        if channel is not None and self.view.exists(channel):
            lazy = self.view.arrays(self.entry, "raw")["raw"]
            if isinstance(lazy, FrameArray) and lazy.dims[-2:] == ("row", "col"):
                return lazy
        fields = ", ".join(self.entry.channels)
        raise NameNotFound(f"{self.entry.name} has no frames to calibrate; its fields are {fields}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an event, ([panel,] row, col)."""
        return self.raw.shape[1:]

    @property
    def panels(self) -> list[int] | None:
        """Numbers of the panels that the data have; None without a panel dimension."""
        return self.raw.frame_reader().panels.tolist() if "panel" in self.raw.dims else None

    @property
    def xtc2(self) -> bool:
        """Whether the conventions of LCLS-II hold: gain divides, other default common modes."""
        return self.view.recording.data_format == "xtc2"

    @cached_property
    def row(self) -> DetectorRow:
        """What is known of this type of detector; a generic area detector if nothing is."""
        found = detector_row(self.entry.det_type)
        if not self.xtc2:
            named = detector_row(self.entry.source)
            return found if named is GENERIC else named
        raw = self.entry.channels.get("raw")
        return found if raw is None else found.of_version(raw.version)

    @cached_property
    def ranges(self) -> npt.NDArray[np.int8] | None:
        """Gain ranges that the settings allow each pixel, (2, [panel,] row, col): ePix10ka family.

        Those in force at the last event; a warning if they were others at the first.
        """
        decoding = self.row.decoding
        if decoding.kind != "switched" or len(decoding.ranges) < 3:
            return None
        first, last = (control_bits_of(self._settings(at)) for at in (0, -1))
        if first is None or last is None:
            return None if last is None else gain.allowed_ranges(last)
        found = gain.allowed_ranges(last)
        if not np.array_equal(first, last) and not np.array_equal(gain.allowed_ranges(first), found):
            what = f"{self.entry.name}: its gain ranges change within these events; the last ones are used"
            warnings.warn(f"{what}: select the events of one step", ConstantsWarning, stacklevel=4)
        return found

    def _settings(self, at: int) -> DetectorConfig:
        """Return the settings at an event of the view, by position."""
        numbers, recording = self.view.choice.numbers, self.view.recording
        until = recording.events.time[numbers[at]].astype("M8[ns]") if len(numbers) else None
        return detector_config(recording, self.entry.alias, until)

    @cached_property
    def gain_mask(self) -> npt.NDArray[np.float32] | None:
        """Factors of pixels that the settings put into low gain, (panel, row, col): CSPAD of LCLS-1."""
        sections = {"Cspad": 8, "Cspad2x2": 2}.get(self.row.name)
        if self.xtc2 or sections is None:
            return None
        config = self._settings(-1)
        maps = [part for segment in sorted(config.segments) for part in _gain_maps(config[segment])]
        if not maps:
            return None
        factors = gain.low_gain_factors(np.stack(maps), sections)
        return factors if self.panels is None else factors[self.panels]

    # ---- constants ----------------------------------------------------------------------------
    @cached_property
    def lookups(self) -> Lookups:
        """How each kind of constant is looked for, and what was found."""
        kept = self.view.kept
        if ("lookups", self.entry.name) not in kept:
            found = lookups_of(self.view.calib, self.view.recording, self.entry)
            kept["lookups", self.entry.name] = found
        lookups: Lookups = kept["lookups", self.entry.name]
        return lookups

    def mask(self, **parts: Any) -> npt.NDArray[np.uint8]:
        """Return the mask, 1 good and 0 bad; `parts` as in `calib.masks.combined_mask`."""
        arrays = recorded(self.lookups.constants(MASKS), self.row, self.panels)
        return combined_mask(arrays, self.shape, self.row, **parts)

    def _known(self, constants: Calib, how: Choices) -> dict[str, Any]:
        """Return the constants that these choices need."""
        if isinstance(constants, Mapping):
            return dict(constants)
        lookups = self.lookups
        if constants is not None:
            lookups = lookups_of(constants, self.view.recording, self.entry)
        if how.needs_pedestals and how.pedestals is True:
            lookups["pedestals"].found()
        found: dict[str, Any] = lookups.constants(_kinds(how))
        numbers = common_mode_numbers(how.common_mode, found.get("common_mode"), self.row, self.xtc2)
        if isinstance(numbers, CommonMode) and numbers.algorithm == QUIET_PIXELS:
            found |= lookups.constants(["pixel_rms"])
        return found

    # ---- results ------------------------------------------------------------------------------
    def calibrated(
        self, *, constants: Calib = None, policy: Policy = "error", **choices: Any
    ) -> tuple[CalibratedArray, Attrs]:
        """Return calibrated frames, and the attributes that say how; see `Detector.calibrated`."""
        if policy not in ("error", "warn", "raw"):
            raise ValueError(f'policy={policy!r}: use "error", "warn" or "raw"')
        try:
            tables, digest, attrs = self._prepared(constants, choices)
        except ConstantsNotFound as error:
            if policy == "error":
                raise
            return self._uncalibrated(policy, error)
        return CalibratedArray(self.raw, tables, digest), attrs

    def common_mode(
        self, parameters: Any = "default", *, constants: Calib = None, **choices: Any
    ) -> tuple[CommonModeArray, Attrs]:
        """Return what the common mode subtracts, ADU; see `Detector.common_mode`."""
        how = {**choices, "common_mode": parameters, "gain": False}
        tables, digest, attrs = self._prepared(constants, how)
        return CommonModeArray(self.raw, tables, f"{digest}-cm"), {**attrs, "calibrated": False}

    def gain_range(self) -> tuple[GainRangeArray, Attrs]:
        """Return the gain range of every word; see `Detector.gain_range`."""
        names = self.row.decoding.ranges or ("only",)
        if self.row.decoding.kind == "switched" and self.ranges is None and len(names) > 2:
            raise ConstantsError(
                f"{self.entry.name}: the settings in the file do not say which gain ranges its pixels have"
            )
        attrs = {"flag_values": [-1, *range(len(names))], "flag_meanings": " ".join(["none", *names])}
        return GainRangeArray(self.raw, self.row.decoding, self.ranges), attrs

    def _prepared(self, constants: Calib, choices: Mapping[str, Any]) -> tuple[Tables, str, Attrs]:
        """Return the tables for these choices, the hash of all that decides them, and what to tell."""
        refuse_unknown("calibrated()", choices, (f.name for f in fields(Choices)))
        how = self._with_settings(Choices(**choices))
        known = self._known(constants, how)
        parts = [_hash(kind, known[kind]) for kind in sorted(known) if known[kind] is not None]
        ranges = None if self.ranges is None else _hash("ranges", self.ranges)
        digest = digest_of(parts, ranges, self.xtc2, [_mark(v) for v in vars(how).values()])
        kept = self.view.kept
        held, tables = kept.get(("tables", self.entry.name), ("", None))
        if tables is None or held != digest:
            tables = prepare(
                known, self.row, xtc2=self.xtc2, shape=self.shape, ranges=self.ranges, panels=self.panels,
                **vars(how),
            )  # fmt: skip
            tables = replace(tables, again=self._again(constants, choices))
            kept["tables", self.entry.name] = digest, tables
        attrs = step_attrs(known, how, self.row, self.xtc2)
        if how.gain_mask is not None and (low := int(np.count_nonzero(np.asarray(how.gain_mask) != 1))):
            attrs["low_gain_pixels"] = low
        return tables, digest, attrs

    def _with_settings(self, how: Choices) -> Choices:
        """Return the choices with what the detector's settings say of its gain."""
        if how.gain is not True or how.gain_mask is not None:
            return how
        return replace(how, gain_mask=self.gain_mask)

    def _again(self, constants: Calib, choices: Mapping[str, Any]) -> Any:
        """Return a call that makes the tables in another process, if it is small enough to travel."""
        large = any(isinstance(v, np.ndarray) and v.nbytes > 1 << 16 for v in choices.values())
        if large or not is_small(self.view.calib if constants is None else constants):
            return None
        events = self.view.choice
        last = Choice(events.numbers[-1:], events.total)  # decides which settings are in force
        view = replace(self.view, choice=last, kept=type(self.view.kept)())
        return partial(_tables_again, view, self.entry.name, constants, dict(choices))

    def _uncalibrated(self, policy: Policy, error: ConstantsNotFound) -> tuple[CalibratedArray, Attrs]:
        """Return raw values as floats."""
        if policy == "warn":
            reason = str(error).splitlines()[0].rstrip(":")
            what = f"{self.entry.name}: its values are raw counts, as there is {reason}"
            warnings.warn(what, ConstantsWarning, stacklevel=5)
        return CalibratedArray(self.raw, None, "raw"), {"calibrated": False, "units": "ADU"}


def _tables_again(view: View, name: str, constants: Calib, choices: Mapping[str, Any]) -> Tables:
    return DetectorCalibration(view, view.find(name))._prepared(constants, choices)[0]


def ranges_of(config: DetectorConfig) -> npt.NDArray[np.int8] | None:
    """Return the gain ranges that an ePix10ka's settings allow, (2, panel, row, col); None if unknown."""
    control = control_bits_of(config)
    return None if control is None else gain.allowed_ranges(control)


def control_bits_of(config: DetectorConfig) -> npt.NDArray[np.uint8] | None:
    """Return the gain control bits of an ePix10ka's settings, (panel, row, col); None if unknown."""
    parts = [config[segment] for segment in sorted(config.segments)]
    parts = [one for part in parts for one in _inner(part, "elem_cfg", [part])]
    if parts and all("cbitsConfig" in part for part in parts):  # from version 3.0.1 on
        return np.stack([part["cbitsConfig"] & np.uint8(28) for part in parts])
    if parts and all("asicPixelConfig" in part for part in parts):
        pixels = np.stack([part["asicPixelConfig"][:, :176] for part in parts])
        levels = np.stack([part["trbit"] for part in parts])
    elif parts and all("asic_pixel_config_array" in part for part in parts):  # LCLS-1: whole panels
        pixels = np.stack([part["asic_pixel_config_array"] for part in parts])
        levels = np.array([[asic["trbit"] for asic in part["asics"]] for part in parts])
    else:
        return None
    return gain.control_bits(pixels, levels)


def _gain_maps(config: Config) -> list[npt.NDArray[Any]]:
    """Return the gain map of each quadrant of a CSPAD, or of a CSPAD2x2."""
    if "quad.gm.gain_map" in config:
        return [config["quad.gm.gain_map"]]
    return [quad["gm.gain_map"] for quad in _inner(config, "quads", [])]


def _inner(config: Config, name: str, otherwise: list[Config]) -> list[Config]:
    """Return the settings that are listed under a name."""
    if name not in config:
        return otherwise
    found: list[Config] = config[name]
    return found


def _kinds(how: Choices) -> list[str]:
    """Return the kinds of constants that are worth looking up."""
    off = {"pedestals": how.pedestals is not True, "pixel_offset": not how.needs_pedestals,
           "pixel_gain": how.gain is not True}  # fmt: skip
    kinds = [kind for kind in PER_PIXEL if not off.get(kind, False)]
    if isinstance(how.common_mode, str):
        kinds.append("common_mode")
    if isinstance(how.mask, Mapping) and how.mask.get("calib"):
        kinds.append("pixel_mask")
    return kinds


def _hash(kind: str, value: Any) -> tuple[str, str]:
    given = value if isinstance(value, Constants) else Constants(kind, np.asarray(value))
    return kind, given.sha256


def _mark(value: Any) -> Any:
    """Return something short that differs where choices differ."""
    if callable(value):
        from dask.base import tokenize

        return tokenize(value)
    if isinstance(value, Mapping):
        return sorted((key, _mark(v)) for key, v in value.items())
    return _hash("choice", value) if isinstance(value, np.ndarray) else repr(value)
