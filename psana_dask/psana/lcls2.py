"""psana2's detectors: ``run.Detector("jungfrau").raw.calib(evt)``, one attribute for each algorithm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.algorithms.hsd import PERIOD, HsdStreams, decode_hsd
from psana_dask.catalog import Channel, Entry
from psana_dask.errors import NameNotFound, suggestion
from psana_dask.geometry import prepare
from psana_dask.geometry.tree import coordinates
from psana_dask.pipeline import catalog_of
from psana_dask.psana.detectors import _number
from psana_dask.psana.environment import value_at
from psana_dask.psana.reading import has_frames
from psana_dask.settings import Config
from psana_dask.slow import steps_of

if TYPE_CHECKING:
    from psana_dask.detector import Detector as NativeDetector
    from psana_dask.psana.events import Event
    from psana_dask.psana.runs import Run, Step

Array = NDArray[Any]
CAMERAS = ("opal", "piranha4", "andor", "alvium")
"""Types whose one segment is no stack of panels."""
PULSE_BITS = (1 << 63) - 1
"""Bit 63 of a pulse number marks the timing system of LCLS-1."""


@dataclass(frozen=True)
class SegmentConfig:
    """The settings of one segment: ``det.raw._seg_configs()[0].config.user.gainMode``.

    Parameters
    ----------
    config : Config
    """

    config: Config


class Detector:
    """A detector: ``det.raw``, ``det.fex``, ... are its algorithms.

    Parameters
    ----------
    run : Run
    entry : Entry
    mask : mapping
        What its mask is made of.

    Examples
    --------
    >>> det = run.Detector("jungfrau")
    >>> det.raw.raw(evt), det.raw.calib(evt), det.raw.image(evt)
    """

    def __init__(self, run: Run, entry: Entry, mask: Mapping[str, Any]) -> None:
        self._run, self._entry, self._mask = run, entry, mask
        for algorithm in interfaces_of(entry):
            setattr(self, algorithm, _interface(run, entry, algorithm)(self, algorithm))

    @property
    def calibconst(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """The constants in force, (value, where from) by kind."""
        found = self._native.constants
        return {kind: (constant.value, constant.attrs()) for kind, constant in found.items()}

    @property
    def _native(self) -> NativeDetector:
        kept: dict[str, NativeDetector] = self._run.__dict__.setdefault("_natives", {})
        if self._entry.name not in kept:
            kept[self._entry.name] = self._run.native[self._entry.name]
        return kept[self._entry.name]

    @property
    def _dettype(self) -> str:
        return self._entry.det_type

    @property
    def _detid(self) -> str:
        return "_".join(self._entry.det_ids)

    @property
    def _det_name(self) -> str:
        return self._entry.alias

    def __getattr__(self, name: str) -> Any:
        algorithms = {c.algorithm for c in self.__dict__["_entry"].channels.values()}
        raise AttributeError(f"{self.__dict__['_entry'].name} has no {name!r}{suggestion(name, algorithms)}")

    def __repr__(self) -> str:
        return f"<psana2 detector {self._entry.alias}: {', '.join(interfaces_of(self._entry))}>"


def interfaces_of(entry: Entry) -> list[str]:
    """Return the algorithms of a detector."""
    return list(dict.fromkeys(c.algorithm for c in entry.channels.values()))


class Interface:
    """The fields of one algorithm as calls: ``det.fex.ampl(evt)``.

    Each gives None where the event lacks a segment of the detector; of several segments a plain
    field is that of the first, as in psana2.

    Parameters
    ----------
    detector : Detector
    algorithm : str
    """

    def __init__(self, detector: Detector, algorithm: str) -> None:
        self._detector, self._algorithm = detector, algorithm

    @property
    def _channels(self) -> dict[str, tuple[str, Channel]]:
        """Fields of the file: public name, channel."""
        channels = self._detector._entry.channels
        return {c.field: (name, c) for name, c in channels.items() if c.algorithm == self._algorithm}

    def __getattr__(self, name: str) -> Callable[[Event], Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._channels:
            what = f"{self._detector._entry.name}.{self._algorithm} has no {name!r}"
            raise AttributeError(f"{what}{suggestion(name, dir(self))}")

        def field(evt: Event) -> Any:
            """Return the value of the field in an event, of the first segment; None where it has none."""
            return self._value(evt, name)

        return field

    def _value(self, evt: Event, field: str) -> Any:
        entry, (public, channel) = self._detector._entry, self._channels[field]
        found = evt._reading.value(evt.position, entry.name, public, whole=True)
        if found is None or len(channel.segments) == 1:
            return _number(found)
        if evt._reading.is_ragged(channel):
            return found[: int(evt._reading.counts(evt.position, channel)[0])]
        first = found[: len(found) // len(channel.segments)]
        return _number(first[0] if channel.spec.rank < first.ndim else first)

    def config(self, evt: Event | None = None) -> dict[int, SegmentConfig]:
        """Return the settings of the segments at an event: ``config(evt)[0].config.user.gainMode``."""
        native = self._detector._run.native
        found = native.config(self._detector._entry.name, None if evt is None else evt.time)
        return {segment: SegmentConfig(settings) for segment, settings in found.segments.items()}

    def _seg_configs(self) -> dict[int, SegmentConfig]:
        return self.config()

    @property
    def _uniqueid(self) -> str:
        return f"{self._detector._dettype}_{self._detector._detid}"

    @property
    def _sorted_segment_inds(self) -> list[int]:
        return [s.number for _, c in list(self._channels.values())[:1] for s in c.segments]

    def __dir__(self) -> list[str]:
        return [*self._channels, "config"]

    def __repr__(self) -> str:
        return f"<{self._detector._entry.alias}.{self._algorithm}: {', '.join(dir(self))}>"


class Digitiser(Interface):
    """A fast digitiser (hsd): waveforms and peaks of its channels.

    Examples
    --------
    >>> hsd = run.Detector("hsd")
    >>> hsd.raw.waveforms(evt)[0][0], hsd.raw.waveforms(evt)[0]["times"]
    >>> starts, samples = hsd.raw.peaks(evt)[0][0]
    """

    def waveforms(self, evt: Event) -> dict[int, dict[int | str, Array]] | None:
        """Return the raw samples, ``{segment: {channel: counts, "times": seconds}}``; None without them."""
        found: dict[int, dict[int | str, Array]] = {}
        for segment, channel, streams in self._streams(evt):
            if streams.raw_count[0]:
                found.setdefault(segment, {})[channel] = streams.raw
                found[segment]["times"] = np.arange(len(streams.raw)) * PERIOD
        return found or None

    def peaks(self, evt: Event) -> dict[int, dict[int, tuple[list[int], list[Array]]]] | None:
        """Return the peaks, ``{segment: {channel: (first samples, counts of each)}}``; None without data."""
        found: dict[int, dict[int, tuple[list[int], list[Array]]]] = {}
        for segment, channel, streams in self._streams(evt):
            samples = np.split(streams.samples, np.cumsum(streams.length)[:-1]) if len(streams.length) else []
            found.setdefault(segment, {})[channel] = (streams.start.tolist(), samples)
        return found or None

    def peak_times(self, evt: Event) -> dict[int, dict[int, list[Array]]] | None:
        """Return the times of the samples of the peaks, ``{segment: {channel: [seconds, ...]}}``."""
        found: dict[int, dict[int, list[Array]]] = {}
        for segment, channel, streams in self._streams(evt):
            ranges = zip(streams.start.tolist(), streams.length.tolist(), strict=True)
            found.setdefault(segment, {})[channel] = [np.arange(at, at + n) * PERIOD for at, n in ranges]
        return found or None

    def padded(self, evt: Event) -> dict[int, dict[int | str, Array]] | None:
        """Return the peaks in their places of a whole waveform, as `waveforms` has them; None without peaks.

        Where no peak is, the value is the middle of the range that the settings leave out (``fex.ymin``,
        ``fex.ymax``), or the baseline where they have one; what is beyond the gate is left out.
        """
        found: dict[int, dict[int | str, Array]] = {}
        settings = self.config(evt)
        for segment, channel, streams in self._streams(evt):
            if streams.peak_count[0]:
                length, level = padding(settings[segment].config)
                found.setdefault(segment, {})[channel] = streams.assembled(length, level)[0]
                found[segment]["times"] = np.arange(length) * PERIOD
        return found or None

    def _streams(self, evt: Event) -> Iterator[tuple[int, int, HsdStreams]]:
        """Yield (segment, channel, what its bytes hold)."""
        entry = self._detector._entry
        for field, (public, channel) in self._channels.items():
            data = evt._reading.value(evt.position, entry.name, public) if field.startswith("chan") else None
            if data is None:
                continue
            counts = evt._reading.counts(evt.position, channel)
            pieces = np.split(data, np.cumsum(counts)[:-1])
            for segment, piece in zip(channel.segments, pieces, strict=True):
                if len(piece):
                    yield segment.number, int(field[4:]), decode_hsd(piece, np.array([len(piece)]))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), "padded", "peak_times", "peaks", "waveforms"]


def padding(config: Config) -> tuple[int, int]:
    """Return how long a waveform of an hsd is, in samples, and its level between peaks.

    Rules: lcls2 ``hsd.pyx``; a gate is counted in 40 samples of the 160 MHz clock.
    """
    if "fex.ymin" in config:  # the first version of the settings
        low, high, gate = (int(np.ravel(config[f"fex.{name}"])[0]) for name in ("ymin", "ymax", "gate"))
        return gate * 40, (low + high) // 2
    length = int(config["user.fex.gate_ns"] * 0.160 * 13 / 14) * 40
    if "user.fex.corr.baseline" in config:
        return length, int(config["user.fex.corr.baseline"])
    return length, int(config["user.fex.ymin"] + config["user.fex.ymax"]) // 2


class Timing(Interface):
    """The timing system: event codes, pulse number."""

    def eventcodes(self, evt: Event) -> list[int] | None:
        """Return for each of the 288 codes 1 or 0; None without timing data."""
        flags = evt._reading.codes(evt.position)
        return None if flags is None else flags.astype(int).tolist()

    def pulseId(self, evt: Event) -> int | None:
        """Return the number of the accelerator's pulse; None without timing data."""
        found = self._value(evt, "pulseId")
        return None if found is None else found & PULSE_BITS

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), "eventcodes"]


class Frames(Interface):
    """The pixels of a detector: counts, calibrated values, images; constants and positions."""

    def _made(self, evt: Event, what: str, **how: Any) -> Any:
        name = self._detector._entry.name
        return evt._reading.value(evt.position, name, what, whole=True, **how)

    def _stacked(self, frame: Array | None) -> Array | None:
        """Return (panel, row, col), but (row, col) of a camera."""
        if frame is None or frame.ndim > 2 or self._detector._dettype.startswith(CAMERAS):
            return frame
        return frame[None]

    def raw(self, evt: Event, copy: bool = True) -> Array | None:
        """Return the counts of an event, (panel, row, col); None where it lacks a panel."""
        return self._stacked(self._made(evt, "raw"))

    def calib(self, evt: Event, cmpars: Any = None, **mask: Any) -> Array | None:
        """Return the calibrated values of an event, float32 (panel, row, col); None where it lacks a panel.

        Raises
        ------
        ConstantsNotFound
            No pedestals: raw counts are never called calibrated.
        """
        return self._stacked(self._made(evt, "calib", calibration=self._choices(cmpars, mask)))

    def image(
        self, evt: Event, nda: Array | None = None, value_for_missing_segments: float | None = None,
        pix_scale_size_um: float | None = None, cmpars: Any = None, **mask: Any,
    ) -> Array | None:  # fmt: skip
        """Return the assembled image of an event, or of any array of its pixels; 0 where no pixel is."""
        if "image" in self._channels and nda is None:
            return self.raw(evt)  # a camera that calls its frame so
        how: dict[str, Any] = {} if pix_scale_size_um is None else {"pixel_size": pix_scale_size_um}
        native = self._detector._native
        if nda is None:
            return self._made(evt, "image", calibration=self._choices(cmpars, mask), assembly=how)
        frames = np.asarray(nda).reshape(native._imaging.shape)
        return np.asarray(native.assembled(frames, fill=value_for_missing_segments or 0, **how))

    def _choices(self, cmpars: Any, mask: Mapping[str, Any]) -> dict[str, Any]:
        choices: dict[str, Any] = {}
        if cmpars is not None:
            off = np.size(cmpars) == 1 and not np.any(cmpars)
            choices["common_mode"] = None if off else tuple(np.atleast_1d(cmpars).tolist())
        wanted = {**self._detector._mask, **mask}
        if wanted:
            choices["mask"] = mask_parts(wanted)
        return choices

    def _segment_numbers(self, evt: Event) -> Array | None:
        found = evt._reading.panels(evt.position, self._detector._entry)
        return None if found is None else np.asarray(found, np.uint16)

    # ---- constants and positions --------------------------------------------------------------
    def _constant(self, kind: str) -> Array:
        return np.asarray(self._detector._native._imaging.lookups[kind].found().value)

    def _pedestals(self) -> Array:
        return self._constant("pedestals")

    def _rms(self) -> Array:
        return self._constant("pixel_rms")

    def _status(self) -> Array:
        return self._constant("pixel_status")

    def _gain(self) -> Array:
        return self._constant("pixel_gain")

    def _gain_factor(self) -> Array:
        gain = self._gain()
        return np.divide(1, gain, out=np.zeros_like(gain), where=gain != 0)

    def _mask_calib(self) -> Array:
        return self._constant("pixel_mask")

    def _common_mode(self) -> Array:
        return self._constant("common_mode")

    def _mask(self, **choices: Any) -> Array:
        """Return a mask, uint8 (panel, row, col); 1 is good."""
        made = self._detector._native.masked(**mask_parts({**self._detector._mask, **choices}))
        found = self._stacked(np.asarray(made))
        assert found is not None  # noqa: S101  (a frame goes in)
        return found

    _mask_comb = _mask

    def _mask_from_status(self, status_bits: int = 0xFFFF, **choices: Any) -> Array:
        return self._mask(status=True, status_bits=status_bits)

    def _mask_edges(self, edge_rows: int = 1, edge_cols: int = 1, **choices: Any) -> Array:
        return self._mask(status=False, edges=True, edge_rows=edge_rows, edge_cols=edge_cols)

    def _mask_center(self, center_rows: int = 1, center_cols: int = 1, **choices: Any) -> Array:
        return self._mask(status=False, center=True, center_rows=center_rows, center_cols=center_cols)

    def _det_geo(self) -> Any:
        return self._detector._native.geometry

    def _pixel_coords(self, do_tilt: bool = True, cframe: int = 0) -> tuple[Array, Array, Array]:
        """Return x, y, z of the pixels, um, (panel, row, col); of all panels of the geometry."""
        frame = "lab" if cframe else "psana"
        found = coordinates(self._det_geo(), frame=frame, tilts=do_tilt)  # type: ignore[arg-type]
        return found.x, found.y, found.z

    def _pixel_coord_indexes(self, pix_scale_size_um: float | None = None) -> tuple[Array, Array]:
        """Return row and column of each pixel in the image, (panel, row, col)."""
        how: dict[str, Any] = {} if pix_scale_size_um is None else {"pixel_size": pix_scale_size_um}
        tables = prepare(self._det_geo(), **how)
        return np.divmod(tables.bins, tables.shape[1])

    def _shape_as_daq(self) -> tuple[int, ...]:
        shape = self._detector._native._imaging.shape
        return shape if len(shape) > 2 else (1, *shape)

    def _number_of_segments_total(self) -> int:
        return int(self._det_geo().shape[0])

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), "raw", "calib", "image"]


MASKS = {
    "status": "status", "status_bits": "status_bits", "calib": "calib", "umask": "user",
}  # fmt: skip
"""Choices of psana2's masks that have one of ours."""
NO_MASKS = ("force_update", "gain_range_inds", "stextra_bits", "dtype", "width", "wcenter")
PATTERNS: Mapping[str, str] = {"r": "rhombus", "c": "circle"}


def mask_parts(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return psana2's choices for a mask as ours.

    Raises
    ------
    NameNotFound
        There is no such choice.
    """
    known = (*MASKS, *NO_MASKS, "neighbors", "rad", "ptrn", "edges", "edge_rows", "edge_cols", "center",
             "center_rows", "center_cols")  # fmt: skip
    for name in choices:
        if name not in known:
            raise NameNotFound.of("choice of a mask", name, known)
    parts = {MASKS[name]: value for name, value in choices.items() if name in MASKS}
    if choices.get("neighbors"):
        parts["neighbours"] = choices.get("rad", 5)
        parts["neighbour_shape"] = PATTERNS.get(choices.get("ptrn", "r"), "square")
    if choices.get("edges"):
        parts["edges"] = (choices.get("edge_rows", 1), choices.get("edge_cols", 1))
    if choices.get("center"):
        parts["center"] = (choices.get("center_rows", 1), choices.get("center_cols", 1))
    return parts


# ---- slow data ----------------------------------------------------------------------------------
class SlowDetector:
    """An EPICS or scan variable: ``run.Detector("delay")(evt)``; also with a step.

    Parameters
    ----------
    name : str
    run : Run
    scan : bool
    """

    def __init__(self, name: str, run: Run, *, scan: bool) -> None:
        self.name, self._run, self._scan = name, run, scan

    def __call__(self, at: Event | Step | list[Event]) -> Any:
        """Return the value at an event or step (or at each of a list); None before the first update."""
        if isinstance(at, list):
            return [self(one) for one in at]
        if not self._scan:
            return value_at(self._run.native.epics.find(self.name), at.time)
        values = steps_of(self._run.native._recording).values[self.name]
        return _number(values[at.step]) if at.step >= 0 else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        if self._scan:
            return steps_of(self._run.native._recording).values[self.name].dtype
        return self._run.native.epics.find(self.name).values.dtype

    def __repr__(self) -> str:
        return f"<{'scan' if self._scan else 'EPICS'} variable {self.name}>"


class Nothing:
    """A detector that the run does not have: whatever is asked of it, of an event it gives None."""

    def __getattr__(self, name: str) -> Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Return None."""


def detector(run: Run, name: str, accept_missing: bool, mask: Mapping[str, Any]) -> Any:
    """Return what a name means; see `Run.Detector`."""
    entry = catalog_of(run.native._recording).find(name)
    if entry is not None and entry.name in run.native._view.entries:
        return Detector(run, entry, mask)
    scan = steps_of(run.native._recording).values
    if name in scan:
        return SlowDetector(name, run, scan=True)
    if name in run.native.epics:
        return SlowDetector(name, run, scan=False)
    if name == "epicsinfo":
        return lambda: {s.name: s.pv for s in run.native.epics.series.values()}
    if accept_missing:
        return Nothing()
    known = [*run.detnames, *scan, *run.native.epics._spellings()]
    raise NameNotFound.of("detector, EPICS or scan variable", name, known)


def interfaces(run: Run, entry: Entry) -> dict[str, list[str]]:
    """Return the calls of each algorithm of a detector."""
    made = Detector(run, entry, {})
    return {a: sorted(dir(getattr(made, a))) for a in interfaces_of(entry)}


def _interface(run: Run, entry: Entry, algorithm: str) -> type[Interface]:
    """Return the class of an algorithm's calls."""
    if entry.det_type in KINDS:
        return KINDS[entry.det_type]
    raw = entry.channels.get("raw")
    pixels = raw is not None and raw.algorithm == algorithm and has_frames(run.native._view, entry)
    return Frames if pixels else Interface


KINDS: Mapping[str, type[Interface]] = {"ts": Timing, "hsd": Digitiser}
