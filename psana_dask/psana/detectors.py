"""psana's ``Detector(name)``: one class for each kind of detector.

A detector is a name; what it gives is that of the event it is asked for, so the events of two runs
can be mixed.  Where psana takes a run number instead of an event, that run of the data source is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.catalog import Entry
from psana_dask.errors import NameNotFound, suggestion
from psana_dask.pipeline import catalog_of
from psana_dask.psana.ddl import Source, title_of
from psana_dask.psana.environment import ConfigStore, now, value_at
from psana_dask.psana.events import Event
from psana_dask.psana.reading import has_frames
from psana_dask.psana.runs import Run
from psana_dask.slow import steps_of

if TYPE_CHECKING:
    from psana_dask.psana.datasource import DataSource

TDC_CHANNELS = 6
SCANS = ("ControlData", "ScanData")


class AnyDetector:
    """What all detectors have.

    Parameters
    ----------
    name : str
        In any spelling.
    source : DataSource
    """

    def __init__(self, name: str, source: DataSource) -> None:
        self.name, self._source = name, source

    @property
    def source(self) -> Source:
        """Address of the detector: ``Source("DetInfo(XppGon.0:Cspad.0)")``."""
        return Source(self._entry(self._run_of()).source or self.name)

    def set_env(self, env: Any) -> None:
        """Do nothing: an event says which run it is of."""

    def _run_of(self, par: Any = None) -> Run:
        """Return the run of an event, with a number, or the one that the loop is in."""
        if isinstance(par, Run):
            return par
        return par._run if isinstance(par, Event) else self._source._run(par)

    def _entry(self, run: Run) -> Entry:
        known: dict[str, Entry] = run.__dict__.setdefault("_entries", {})
        if self.name not in known:
            known[self.name] = run.native._view.find(self.name)
        return known[self.name]

    def _field(self, evt: Event, field: str) -> Any:
        """Return a field of this detector in an event, None where it has none."""
        entry = self._entry(evt._run)
        if field not in entry.channels:
            raise NameNotFound.of(f"field of {entry.name}", field, entry.channels)
        return evt._reading.value(evt.position, entry.name, field)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class MissingDetector:
    """A detector that the run does not have: every call gives None.

    Parameters
    ----------
    name : str
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None

    def __call__(self, *args: Any) -> None:
        """Return None."""


# ---- objects ------------------------------------------------------------------------------------
class ObjectDetector(AnyDetector):
    """A source with one object per event: EBeam, gas detectors, phase cavities, encoders, ...

    Examples
    --------
    >>> ebeam = Detector("EBeam").get(evt)
    >>> ebeam.ebeamPhotonEnergy()
    """

    def get(self, evt: Event) -> Any:
        """Return the object of an event, with psana's accessors; None where there is none.

        Raises
        ------
        RuntimeError
            The source has several objects: ask ``evt.get(type, source)``.
        """
        entry = self._entry(evt._run)
        if evt._reading.view.recording.format != "xtc":
            return Fields(evt, entry) if _has_any(evt, entry) else None
        found = list(evt._records(entry))
        if len(found) > 1 and not title_of(found[0]).startswith("Bld."):
            titles = ", ".join(map(title_of, found))
            raise RuntimeError(f"{self.name} has several objects: {titles}; ask evt.get(type, source)")
        return found[0] if found else None


class Fields:
    """The fields of a detector in an event as calls: ``gmd.milliJoulesPerPulse()``.

    Parameters
    ----------
    evt : Event
    entry : Entry
    """

    def __init__(self, evt: Event, entry: Entry) -> None:
        self._evt, self._entry = evt, entry

    def __getattr__(self, name: str) -> Callable[[], Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        channel = self._entry.channel(name)
        if channel is None:
            near = suggestion(name, dir(self))
            raise AttributeError(f"{self._entry.name} has no {name}(){near}")
        public = next(public for public, c in self._entry.channels.items() if c is channel)
        return lambda: _number(self._evt._reading.value(self._evt.position, self._entry.name, public))

    def __dir__(self) -> list[str]:
        return [c.spec.accessor or c.field for c in self._entry.channels.values()]


def _has_any(evt: Event, entry: Entry) -> bool:
    return any(
        evt._reading.value(evt.position, entry.name, field) is not None for field in list(entry.channels)[:1]
    )


def _number(value: Any) -> Any:
    """Return numpy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic) else value


# ---- event codes --------------------------------------------------------------------------------
class EvrDetector(ObjectDetector):
    """An event receiver.

    Examples
    --------
    >>> codes = Detector("evr0").eventCodes(evt)
    """

    def eventCodes(self, evt: Event, this_fiducial_only: bool = True) -> list[int] | None:
        """Return the event codes in the order in which they came; None without EVR data.

        Parameters
        ----------
        evt : Event
        this_fiducial_only : bool
            Leave out the codes of earlier fiducials, which a receiver may list too (LCLS-1).
        """
        entry = self._entry(evt._run)
        if "event_codes" not in entry.channels:
            return _codes_of_bits(evt)
        codes = self._field(evt, "event_codes")
        if codes is None:
            return None
        if this_fiducial_only:
            codes = codes[self._field(evt, "code_fiducials") == evt._fact("fiducial")]
        found: list[int] = codes.tolist()
        return found

    __call__ = eventCodes


def _codes_of_bits(evt: Event) -> list[int] | None:
    """Return the codes that the timing system of LCLS-II set."""
    flags = evt._reading.codes(evt.position)
    return None if flags is None else np.flatnonzero(flags).tolist()


# ---- digitisers ---------------------------------------------------------------------------------
class WaveformDetector(AnyDetector):
    """A digitiser: Acqiris in volts and seconds, IMP in counts.

    Examples
    --------
    >>> volts, seconds = Detector("acq").raw(evt)
    """

    def raw(self, evt: Event) -> Any:
        """Return (volts, seconds), each (channel, sample) float64; of an IMP counts, (4, sample)."""
        if "volts" not in self._entry(evt._run).channels:
            return self._field(evt, "raw")
        volts, times = self.waveform(evt), self.wftime(evt)
        return None if volts is None else (volts, times)

    def waveform(self, evt: Event) -> Any:
        """Return the volts, (channel, sample) float64; None where there is none."""
        return _one_segment(self._field(evt, "volts" if "volts" in self._entry(evt._run).channels else "raw"))

    def wftime(self, evt: Event) -> Any:
        """Return the seconds of the samples, (channel, sample) float64."""
        return _one_segment(self._field(evt, "times"))

    __call__ = raw


def _one_segment(values: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return (channel, sample) of (channel, 1, sample)."""
    if values is None or values.ndim < 3 or values.shape[1] != 1:
        return values
    return values[:, 0]


class ChannelsDetector(AnyDetector):
    """A digitiser whose channels have different lengths: wave8, LeCroy, QuadAdc.

    Examples
    --------
    >>> first, second, *rest = Detector("wave8").raw(evt)
    """

    def raw(self, evt: Event) -> list[NDArray[Any]] | None:
        """Return one array per channel; None where there is none."""
        channels = [f for f in self._entry(evt._run).channels if f.startswith("channel_")]
        found = [self._field(evt, field) for field in channels]
        return None if not found or found[0] is None else found

    def wftime(self, evt: Event | None = None) -> list[NDArray[Any]]:
        """Return the seconds of the samples of each channel, from the configuration."""
        config = self._run_of(evt).native.config(self.name)
        periods, offsets = np.atleast_1d(config.period), np.atleast_1d(config.delay_offset())
        lengths = np.atleast_1d(config.length)
        return [(o + np.arange(n)) * p for p, o, n in zip(periods, offsets, lengths, strict=False) if n]

    __call__ = raw


class TdcDetector(AnyDetector):
    """A time-to-digital converter."""

    def times(self, evt: Event) -> list[NDArray[Any]] | None:
        """Return the hits of the channels 1 to 6, in seconds; None where there is none."""
        times, channels = self._field(evt, "times"), self._field(evt, "source")
        if times is None:
            return None
        return [times[channels == k] for k in range(1, TDC_CHANNELS + 1)]

    def overflows(self, evt: Event) -> list[NDArray[Any]] | None:
        """Return the overflow flags of the hits of the channels 1 to 6."""
        flags, channels = self._field(evt, "overflow"), self._field(evt, "source")
        return None if flags is None else [flags[channels == k] for k in range(1, TDC_CHANNELS + 1)]


class SpectrumDetector(AnyDetector):
    """A spectrometer (OceanOptics)."""

    def intensity(self, evt: Event) -> Any:
        """Return the intensities, corrected where the coefficients are set."""
        return self._field(evt, "intensity")

    def wavelength(self, evt: Event) -> Any:
        """Return the wavelengths of the pixels, nm."""
        return self._field(evt, "wavelengths")


# ---- intensity and position ---------------------------------------------------------------------
class MonitorDetector(ObjectDetector):
    """An intensity and position monitor (IPIMB, PIM).

    Examples
    --------
    >>> ipm = Detector("XppSb2_Ipm")
    >>> ipm.sum(evt), ipm.channel(evt), ipm.xpos(evt)
    """

    def sum(self, evt: Event) -> Any:
        """Return the sum of the diodes."""
        return _number(self._field(evt, "sum"))

    def channel(self, evt: Event) -> Any:
        """Return the values of the four diodes."""
        return self._field(evt, "channel")

    def xpos(self, evt: Event) -> Any:
        """Return the horizontal position."""
        return _number(self._field(evt, "xpos"))

    def ypos(self, evt: Event) -> Any:
        """Return the vertical position."""
        return _number(self._field(evt, "ypos"))


class EncoderDetector(ObjectDetector):
    """Encoders behind a USB box (USDUSB)."""

    def values(self, evt: Event) -> Any:
        """Return the calibrated values of the encoders, else their counts."""
        fields = self._entry(evt._run).channels
        return self._field(evt, "encoder_values" if "encoder_values" in fields else "encoder_count")

    def descriptions(self) -> list[str]:
        """Return what the encoders are called."""
        config = self._run_of().native.config(self.name)
        found = config.usd_usb_fex_config if hasattr(config, "usd_usb_fex_config") else config
        return list(found.name)


# ---- slow data ----------------------------------------------------------------------------------
class EpicsDetector(AnyDetector):
    """An EPICS variable.

    Examples
    --------
    >>> Detector("XPP:TEMP")(evt)
    """

    def __call__(self, evt: Event | None = None) -> Any:
        """Return the value at an event, or where the loop is; None before the first update."""
        run = self._run_of(evt)
        return value_at(run.native.epics.find(self.name), evt.time if evt is not None else now(run))


class ControlDataDetector(AnyDetector):
    """What the run control asked for in the step that the loop is in.

    Examples
    --------
    >>> for pv in Detector("ControlData")().pvControls():
    ...     print(pv.name(), pv.value())
    """

    def __call__(self, evt: Event | None = None) -> Any:
        """Return what the step is: ``pvControls()``, ``pvMonitors()``, ``pvLabels()``, ``duration()``."""
        run = self._run_of(evt)
        if evt is not None:
            run._now = evt
        for record, _, _ in ConfigStore(run)._records(""):
            if title_of(record).startswith("ControlData.Config"):
                return record
        step = -1 if run._now is None else run._now.step
        return ScanValues(run, step)


class ScanValues:
    """The scan values of one step of LCLS-II, as psana1's ControlData has them.

    Parameters
    ----------
    run : Run
    step : int
    """

    def __init__(self, run: Run, step: int) -> None:
        self._steps, self._step = steps_of(run.native._recording), step

    def pvControls(self) -> list[ScanValue]:
        """Return the variables that were set, with their values."""
        if self._step < 0:
            return []
        return [ScanValue(n, _number(self._steps.values[n][self._step])) for n in self._steps.scanned]

    def pvMonitors(self) -> list[ScanValue]:
        """Return nothing: LCLS-II monitors none."""
        return []

    def pvLabels(self) -> list[ScanValue]:
        """Return what the step is called."""
        found = self._steps.values.get("step_docstring")
        return (
            [] if found is None or self._step < 0 else [ScanValue("step_docstring", str(found[self._step]))]
        )


class ScanValue:
    """A scan variable and its value."""

    def __init__(self, name: str, value: Any) -> None:
        self._name, self._value = name, value

    def name(self) -> str:
        """Return its name."""
        return self._name

    def value(self) -> Any:
        """Return its value."""
        return self._value


# ---- by name ------------------------------------------------------------------------------------
def _area() -> type[AnyDetector]:
    from psana_dask.psana.area import AreaDetector

    return AreaDetector


DEVICES: Mapping[str, type[AnyDetector]] = {
    "Acqiris": WaveformDetector, "Imp": WaveformDetector, "SharedAcqADC": WaveformDetector,
    "Wave8": ChannelsDetector, "LeCroy": ChannelsDetector, "QuadAdc": ChannelsDetector,
    "Evr": EvrDetector, "ts": EvrDetector, "AcqTDC": TdcDetector, "OceanOptics": SpectrumDetector,
    "Ipimb": MonitorDetector, "SharedIpimb": MonitorDetector, "USDUSB": EncoderDetector,
    "SharedUsdUsb": EncoderDetector, "Encoder": ObjectDetector, "Gsc16ai": ObjectDetector,
}  # fmt: skip
"""By the device of an LCLS-1 address, or the type of a detector; others are known by their pixels."""


def make_detector(name: str, source: DataSource, accept_missing: bool = False) -> Any:
    """Return the detector that a name means; see `psana_dask.psana.Detector`."""
    run = source._run(None)
    entry = catalog_of(run.native._recording).find(name)
    if entry is not None:
        return _class_of(run, entry)(name, source)
    if name in run.native.epics:
        return EpicsDetector(name, source)
    if name in SCANS:
        return ControlDataDetector(name, source)
    if accept_missing:
        return MissingDetector(name)
    known = [*run.native._view.entries, *run.native.epics._spellings(), *SCANS]
    known += [e.alias for e in run.native._view.entries.values() if e.alias not in known]
    raise NameNotFound.of("detector or EPICS variable", name, known)


def _class_of(run: Run, entry: Entry) -> type[AnyDetector]:
    found = DEVICES.get(entry.det_type)
    if found is not None:
        return found
    return _area() if has_frames(run.native._view, entry) else ObjectDetector
