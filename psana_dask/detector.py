"""One detector of a run: its fields as lazy labelled arrays, its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from psana_dask.catalog import Entry
from psana_dask.dataset import View, detector_dataset, field_of, main_channel, reader_facts
from psana_dask.errors import NameNotFound, near_names
from psana_dask.settings import DetectorConfig
from psana_dask.slow import detector_config

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.calib.constants import Constants
    from psana_dask.calibration import Policy
    from psana_dask.geometry.model import Geometry
    from psana_dask.geometry.refine import RingFit
    from psana_dask.imaging import Imaging
    from psana_dask.reductions.roi import Roi
    from psana_dask.stores import Calib


COORDINATES = ("time", "timestamp", "fiducial", "pulse_id", "step", "panel")
"""Reserved names that are coordinates of every field."""


class Detector:
    """A detector of a run.

    Fields are attributes (``det.raw``, ``det.fex_ampl``) and items (``det["raw.calib"]``,
    with any spelling). Each is a lazy DataArray over the events of the run.

    Parameters
    ----------
    view : View
    entry : Entry

    Examples
    --------
    >>> det = run.epixquad
    >>> det.image.isel(time=0).psana.plot()
    """

    def __init__(self, view: View, entry: Entry) -> None:
        self._view = view
        self._entry = entry

    @property
    def name(self) -> str:
        """What users call it.

        Examples
        --------
        >>> run.epixquad.name
        """
        return self._entry.name

    @property
    def alias(self) -> str:
        """The name in the file.

        Examples
        --------
        >>> run.epixquad.alias
        """
        return self._entry.alias

    @property
    def det_type(self) -> str:
        """The type in the file.

        Examples
        --------
        >>> run.epixquad.det_type
        """
        return self._entry.det_type

    @property
    def source(self) -> Mapping[str, Any]:
        """Where it comes from: name, address (LCLS-1), type, serial numbers, algorithms, as in the file.

        Examples
        --------
        >>> run.epixquad.source
        """
        channels = self._entry.channels.values()
        address = {"source": self._entry.source} if self._entry.source else {}
        return {
            "alias": self.alias,
            **address,
            "det_type": self.det_type,
            "det_ids": list(self._entry.det_ids),
            "algorithms": {c.algorithm: ".".join(map(str, c.version)) for c in channels},
        }

    @property
    def fields(self) -> list[str]:
        """Names of its fields.

        Examples
        --------
        >>> list(run.epixquad.fields)
        """
        return list(self._entry.channels)

    def field(self, name: str, chunks: Any = "auto") -> xr.DataArray | xr.Dataset:
        """Return one field.

        Parameters
        ----------
        name : str
            Public name, ``algorithm.field``, or the name in the file.
        chunks : "auto", mapping or None
            None: no Dask; the array is read when it is indexed.

        Returns
        -------
        DataArray
            (time[, panel][, row, col]).  A ragged field is a Dataset of values, on
            ``<name>_item``, and of counts, on ``time``.

        Raises
        ------
        NameNotFound
            No such field, or no event has it.

        Examples
        --------
        >>> run.epixquad.field("raw", chunks=None)
        """
        public = field_of(self._entry, name)
        if not self._view.exists(self._entry.channels[public]):
            raise NameNotFound(f"{self.name}.{public} is declared, but no event of the run has it")
        data = detector_dataset(self._view, self._entry, chunks, [public])
        renamed = data.rename({n: f"{self.name}_{n}" for n in data.coords if str(n).endswith("present")})
        if f"{public}_count" in data:
            return renamed[[public, f"{public}_count"]]
        return renamed[public].rename(f"{self.name}_{public}")

    def dataset(self, chunks: Any = "auto") -> xr.Dataset:
        """Return all fields as one Dataset; variables have the names of the fields.

        Examples
        --------
        >>> run.epixquad.dataset()
        """
        return detector_dataset(self._view, self._entry, chunks)

    @property
    def damage(self) -> xr.DataArray:
        """Damage word of each event; 0 everywhere if no event of the run has the detector.

        Examples
        --------
        >>> run.epixquad.damage.values.any()
        """
        return self._of_events("damage", np.uint32).rename("damage")

    @property
    def present(self) -> xr.DataArray:
        """Whether each event has the detector; False everywhere if no event of the run has it.

        Examples
        --------
        >>> run.select(run.epixquad.present)
        """
        return self._of_events("present", np.bool_).rename(f"{self.name}_present")

    def _of_events(self, name: str, dtype: Any) -> xr.DataArray:
        """Return ``present`` or ``damage``; zeros for a detector that is only declared."""
        main = self._main
        data = detector_dataset(self._view, self._entry, "auto", [] if main is None else [main])
        if name in data:
            return data[name]
        return data["time"].copy(data=np.zeros(len(self._view.choice), dtype)).drop_attrs()

    @property
    def config(self) -> DetectorConfig:
        """Its settings at the end of the run; `Run.config` gives them at any time.

        Examples
        --------
        >>> run.epixquad.config
        """
        return detector_config(self._view.recording, self.alias)

    # ---- pixels -------------------------------------------------------------------------------
    @cached_property
    def _imaging(self) -> Imaging:
        from psana_dask.imaging import Imaging

        return Imaging(self._view, self._entry)

    @property
    def constants(self) -> Mapping[str, Constants]:
        """The calibration constants in force, by kind; each says where it came from.

        Examples
        --------
        >>> run.epixquad.constants["pedestals"].attrs()
        """
        return self._imaging.constants

    def explain_constants(self) -> str:
        """Say for each kind of constant where it was looked for and what was taken, because.

        Examples
        --------
        >>> print(run.epixquad.explain_constants())
        """
        return "\n".join(found.explain() for found in self._imaging.lookups.values())

    @property
    def pedestals(self) -> xr.DataArray:
        """Mean dark level, ADU.

        Examples
        --------
        >>> run.epixquad.pedestals.mean()
        """
        return self._imaging.constant("pedestals")

    @property
    def rms(self) -> xr.DataArray:
        """Noise of the dark level, ADU.

        Examples
        --------
        >>> run.epixquad.rms.mean()
        """
        return self._imaging.constant("pixel_rms")

    @property
    def gain(self) -> xr.DataArray:
        """Gain of each pixel (and range).

        Examples
        --------
        >>> run.epixquad.gain.mean()
        """
        return self._imaging.constant("pixel_gain")

    @property
    def status(self) -> xr.DataArray:
        """Status words of the pixels: why a pixel is bad.

        Examples
        --------
        >>> (run.epixquad.status != 0).sum()
        """
        return self._imaging.constant("pixel_status")

    @property
    def mask(self) -> xr.DataArray:
        """Good pixels (1) and bad ones (0), from status words and the mask constant.

        Examples
        --------
        >>> int((run.epixquad.mask == 0).sum())
        """
        return self.masked()

    def masked(self, **choices: Any) -> xr.DataArray:
        """Return a mask made by choice: ``status=True, edges=1, center=1, neighbours=1, user=...``.

        Parameters
        ----------
        **choices
            Fields of `psana_dask.calib.masks.MaskParts`.

        Returns
        -------
        DataArray
            uint8 ([panel,] row, col); 1 good, 0 bad.

        Examples
        --------
        >>> run.epixquad.masked(status=True, edges=1, center=1)
        """
        return self._imaging.mask(**choices)

    @property
    def calib(self) -> xr.DataArray:
        """Calibrated frames, (time[, panel], row, col) float32.

        Raises
        ------
        ConstantsNotFound
            No pedestals; the message says where they were looked for.

        Examples
        --------
        >>> run.epixquad.calib.isel(time=0)
        """
        return self._exported("calib") if "calib" in self._entry.channels else self.calibrated()

    def calibrated(
        self,
        *,
        constants: Calib = None,
        policy: Policy = "error",
        chunks: Any = "auto",
        **choices: Any,
    ) -> xr.DataArray:
        """Return calibrated frames; each step can be switched off or replaced.

        Parameters
        ----------
        constants : mapping of kind to array, path, URL or store, optional
            Use these instead of the run's.
        policy : {"error", "warn", "raw"}
            Without pedestals: raise, warn and give raw values as floats, or just give them.
        chunks : "auto", mapping or None
        **choices
            Fields of `psana_dask.calib.Choices`: ``pedestals, common_mode, gain, mask, gain_mask,
            fill``. A step is True or False, an array in place of the constant, or a function;
            ``common_mode`` is "default", None, or algorithm and parameters.

        Returns
        -------
        DataArray
            (time[, panel], row, col) float32, NaN where a panel is missing; `attrs` say
            whether it is ``calibrated``, how each step was done, and with which ``constants``.

        Raises
        ------
        ConstantsNotFound
            No pedestals, under the policy "error"; says where they were looked for.
        ConstantsError
            A constant does not fit the frames.

        Examples
        --------
        >>> rows = det.calibrated(common_mode=(7, 1, 100), mask={"edges": 1})  # doctest: +SKIP
        """
        frames, attrs = self._imaging.calibrated(constants=constants, policy=policy, **choices)
        return self._imaging.labelled(frames, "calib", attrs, chunks, self._imaging.panel_coords())

    def common_mode(
        self, parameters: Any = "default", *, constants: Calib = None, chunks: Any = "auto", **choices: Any
    ) -> xr.DataArray:
        """Return what the common mode subtracts from each pixel.

        Parameters
        ----------
        parameters : "default", numbers or function
            As ``common_mode`` of `calibrated`.
        constants, chunks, **choices
            As for `calibrated`.

        Returns
        -------
        DataArray
            (time[, panel], row, col) float32, ADU; 0 where nothing is corrected.

        Examples
        --------
        >>> run.cspad.common_mode((1, 25, 25, 100)).isel(time=0)
        """
        imaging = self._imaging
        lazy, attrs = imaging.calibration.common_mode(parameters, constants=constants, **choices)
        return imaging.labelled(lazy, "common_mode", attrs, chunks, imaging.panel_coords())

    @property
    def gain_range(self) -> xr.DataArray:
        """Gain range of each pixel at each event, (time[, panel], row, col) int8; -1: none.

        Raises
        ------
        ConstantsError
            The settings do not say which ranges the pixels have (ePix10ka).

        Examples
        --------
        >>> run.epixquad.gain_range.isel(time=0)
        """
        lazy, attrs = self._imaging.calibration.gain_range()
        return self._imaging.labelled(lazy, "gain_range", attrs, "auto", self._imaging.panel_coords())

    @property
    def geometry(self) -> Geometry:
        """The geometry of the run, else the default of the detector type.

        Raises
        ------
        GeometryError
            Neither is known.

        Examples
        --------
        >>> run.epixquad.geometry.shape
        """
        return self._imaging.geometry

    @property
    def image(self) -> xr.DataArray:
        """Calibrated and assembled images, (time, y, x), with positions in metres.

        Raises
        ------
        ConstantsNotFound, GeometryError

        Examples
        --------
        >>> run.epixquad.image.isel(time=0).psana.plot()
        """
        if "image" in self._entry.channels:
            return self._exported("image")
        frames, attrs = self._imaging.calibrated()
        return self._imaging.images(frames, "image", attrs)

    def _exported(self, name: str) -> xr.DataArray:
        """Return frames that an export holds calibrated or assembled."""
        found: xr.DataArray = self.field(name)  # type: ignore[assignment]
        return found

    def assembled(
        self,
        frames: Any = None,
        *,
        calibrated: bool = False,
        policy: Policy = "error",
        geometry: Geometry | None = None,
        fill: float | None = None,
        chunks: Any = "auto",
        **choices: Any,
    ) -> xr.DataArray:
        """Return images of any array of this detector's pixels; by default of its raw frames.

        Parameters
        ----------
        frames : DataArray or array, optional
            (..., [panel,] row, col): a mean of ``det.calib``, a mask, pedestals. Dask stays lazy.
            Panels that its coordinates call missing, or that are NaN throughout, are missing.
        calibrated : bool
            Without `frames`: calibrate the raw frames first, under `policy`.
        policy : {"error", "warn", "raw"}
        geometry : Geometry, optional
            Another one than the run's.
        fill : number, optional
            For bins without data; ``fill=np.nan`` gives floats also for integers.
        chunks : "auto", mapping or None
            Without `frames`.
        **choices
            ``overlap="last"|"mean"|"max"``, ``holes="none"|"nearest"|"minimum"``, ``frame``, ...
            See `psana_dask.geometry.prepare`.

        Returns
        -------
        DataArray
            (..., y, x) with y and x in metres; bins without data are NaN, or 0 for integers. A
            sensor of one panel without a known geometry is its own image.

        Raises
        ------
        GeometryError
            No geometry is known, or the array does not have its pixels.

        Examples
        --------
        >>> mean = det.assembled(det.calib.mean("time"))  # doctest: +SKIP
        >>> good = det.assembled(det.mask)  # doctest: +SKIP
        """
        how = {**choices, "fill": fill}
        if frames is not None:
            if calibrated:
                raise ValueError("calibrated=True is for the raw frames; pass det.calib instead")
            return self._imaging.image_of(frames, geometry, **how)
        if calibrated:
            lazy, attrs = self._imaging.calibrated(policy=policy)
            return self._imaging.images(lazy, "image", attrs, chunks, geometry, **how)
        raw = self._imaging.raw
        return self._imaging.images(raw, "assembled", {"calibrated": False}, chunks, geometry, **how)

    def panels_of(
        self, image: Any, *, geometry: Geometry | None = None, fill: float | None = None, **choices: Any
    ) -> xr.DataArray:
        """Give each pixel the value of its bin in an image: the inverse of `assembled`.

        Parameters
        ----------
        image : DataArray or array
            (..., y, x), for instance a mask drawn on an image; with coordinates y and x it may be
            a part of one.
        geometry, **choices
            As they were when the image was assembled.
        fill : number, optional
            For pixels outside of the image: NaN for floats, 0 for integers.

        Returns
        -------
        DataArray
            (..., [panel,] row, col).

        Raises
        ------
        GeometryError
            The image was not made with this geometry and these choices.

        Examples
        --------
        >>> mask = det.panels_of(drawn)  # doctest: +SKIP
        >>> det.calibrated(mask=mask)  # doctest: +SKIP
        """
        return self._imaging.panels_of(image, geometry, fill, **choices)

    def fit_rings(
        self,
        intensity: Any,
        angles: Sequence[float],
        *,
        geometry: Geometry | None = None,
        mask: Any = None,
        **choices: Any,
    ) -> RingFit:
        """Find centre and distance of the detector from the rings of a powder.

        Parameters
        ----------
        intensity : DataArray or array
            ([panel,] row, col), for instance ``det.calib.mean("time")``.
        angles : sequence of float
            Scattering angles of the rings, rad: see `psana_dask.geometry.refine.two_theta`.
        geometry : Geometry, optional
            Where it is thought to be, instead of the run's.
        mask : array, optional
            1 good, 0 bad; by default ``det.mask``.
        **choices
            ``search=`` (um), ``sectors=``, ``distance=``: see `psana_dask.geometry.refine.fit_rings`.

        Returns
        -------
        RingFit
            The geometry where the rings say it is, and how sure that is; `psana_dask.calib.deploy`
            takes it.

        Raises
        ------
        GeometryError
            The rings were not found.

        Examples
        --------
        >>> fit = det.fit_rings(det.calib.mean("time"), two_theta(spacings("LaB6"), 1.3))  # doctest: +SKIP
        >>> psana_dask.calib.deploy(fit, "my/calib", det.alias, runs=12)  # doctest: +SKIP
        """
        return self._imaging.fit_rings(intensity, angles, geometry, mask, **choices)

    def roi(
        self, panel: Any = None, rows: Any = None, cols: Any = None, *, mask: Any = None, **choices: Any
    ) -> Roi:
        """Return a region of interest: sums, means, projections, histograms for every event.

        Parameters
        ----------
        panel, rows, cols : int, slice or list of int, optional
            Positions; all by default.
        mask : array, optional
            1 good, 0 bad, of the whole frame.
        **choices
            For calibrated values, as in `calibrated`.

        Examples
        --------
        >>> spot = run.epixquad.roi(panel=1, rows=slice(40, 80), cols=slice(100, 160))
        >>> spot.sum(), spot.projection("col"), spot.histogram(range(0, 100, 5)), spot.calib
        """
        from psana_dask.reductions.roi import Roi

        return Roi(self._view, self._entry, panel, rows, cols, mask, choices)

    # ---- waveforms ----------------------------------------------------------------------------
    def waveforms(
        self,
        *,
        stream: Literal["raw", "peaks"] = "raw",
        samples: int | None = None,
        period: float | None = None,
        chunks: Any = "auto",
    ) -> xr.Dataset:
        """Return the waveforms of a digitiser, in volts and seconds where its settings say so.

        Parameters
        ----------
        stream : {"raw", "peaks"}
            Of a high-speed digitiser (hsd): what it recorded, or the peaks that it found in their places.
        samples : int, optional
            Length of its waveforms; by default that of the first events.
        period : float, optional
            Seconds between samples, for digitisers whose settings do not say.
        chunks : "auto", mapping or None

        Returns
        -------
        Dataset
            ``waveform`` (time[, panel], channel[, segment], sample), lazy, in V or counts; NaN beyond the
            end of short channels and, of hsd, in events without; ``seconds`` where they are known.

        Raises
        ------
        NameNotFound
            The detector has no waveforms.

        Examples
        --------
        >>> waves = run.acqiris.waveforms()  # doctest: +SKIP
        >>> analysis.find_edges(waves.waveform, threshold=-0.02, deadtime=5)  # doctest: +SKIP
        """
        from psana_dask.waveforms import waveforms

        return waveforms(
            self._view, self._entry, stream=stream, samples=samples, period=period, chunks=chunks
        )

    def hsd_peaks(self, channel: str, *, panel: int | None = None) -> xr.Dataset:
        """Return the peaks that a high-speed digitiser found, ragged; see `analysis.decode_hsd`.

        Examples
        --------
        >>> peaks = run.hsd.hsd_peaks("chan00", panel=0)
        """
        from psana_dask.analysis.hsd import decode_hsd

        return decode_hsd(self.field(channel), panel=panel)  # type: ignore[arg-type]

    @property
    def _main(self) -> str | None:
        """The field that stands for the detector; None if no event of the run has any."""
        return main_channel(self._entry, [f for f, c in self._entry.channels.items() if self._view.exists(c)])

    # ---- text ---------------------------------------------------------------------------------
    @cached_property
    def presence(self) -> float:
        """Share of the events that have it, 0 to 1.

        Examples
        --------
        >>> run.epixquad.presence
        """
        main = self._main
        if main is None or not len(self._view.choice):
            return 0.0
        target = self._view.target(self._entry.channels[main])
        found = target.reader().present(self._view.choice.numbers)
        return float(np.count_nonzero(found.any(axis=1)) / len(found))

    def facts(self) -> list[dict[str, Any]]:
        """Return name, dtype and shape of each field, for tables.

        Examples
        --------
        >>> run.epixquad.facts()[0]["shape"]
        """
        return [
            dict(zip(("field", "dtype", "shape"), (n, *reader_facts(self._view, c)), strict=True))
            for n, c in self._entry.channels.items()
        ]

    def __getitem__(self, name: str) -> xr.DataArray | xr.Dataset:
        return self.field(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in COORDINATES and name in (coords := self.dataset(None).coords):
            return coords[name]
        try:
            return self.field(name)
        except NameNotFound as error:
            calls = near_names(name, (call for call in dir(type(self)) if not call.startswith("_")), 1)
            own = f"; its call {calls[0]!r} is near" if calls else ""
            raise AttributeError(f"{error}{own}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._entry.channels, *COORDINATES]

    def _ipython_key_completions_(self) -> list[str]:
        return self.fields

    def __repr__(self) -> str:
        serials = ", ".join(i for i in self._entry.det_ids if i) or "-"
        share = f"in {self.presence:.1%} of the events"
        lines = [f"<Detector {self.name}: {self.det_type}, {share}, serial {serials}>"]
        lines += [f"  {f['field']:24} {f['dtype']:10} {f['shape']}" for f in self.facts()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from psana_dask.describe import rate_of
        from psana_dask.describe_html import detector_html

        return detector_html(self, rate_of(self._view.time))
