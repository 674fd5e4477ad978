"""psana's ``AreaDetector``: frames, constants, masks and positions of the pixels of one event or run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.algorithms import count_photons
from psana_dask.calib.masks import edge_mask, neighbour_mask
from psana_dask.detector import Detector as NativeDetector
from psana_dask.errors import ConstantsNotFound
from psana_dask.geometry import areas, coordinates, moved, prepare, tilted
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.tree import Coordinates, bin_of_point, bins
from psana_dask.geometry.tree import mask as layout_mask
from psana_dask.psana.arrays import correct_common_mode, load_array, save_array, type_number
from psana_dask.psana.detectors import AnyDetector
from psana_dask.psana.events import Event

Array = NDArray[Any]
STATUS, CALIB, EDGES, CENTRAL, UNBONDED, NEIGHBOURS_4, NEIGHBOURS_8 = (1 << k for k in range(7))
"""Bits of psana's ``mbits``."""
LAYOUT = EDGES | CENTRAL | UNBONDED | NEIGHBOURS_4 | NEIGHBOURS_8
PATTERNS: Mapping[str, str] = {"r": "rhombus", "c": "circle"}


class AreaDetector(AnyDetector):
    """A camera or pixel detector.

    Where psana has ``par`` an event or a run number may stand; nothing means the run of the loop.

    Examples
    --------
    >>> det = Detector("cspad")
    >>> det.raw(evt), det.calib(evt), det.image(evt)
    >>> det.pedestals(evt), det.mask(evt, status=True, edges=True), det.coords_x(evt)
    """

    # ---- frames -------------------------------------------------------------------------------
    def raw(self, evt: Event) -> Any:
        """Return the counts of an event, ([panel,] row, col); None where there are none."""
        return self._field(evt, "raw")

    raw_data = raw

    def calib(self, evt: Event, cmpars: Any = None, mbits: int | None = None, **mask: Any) -> Any:
        """Return the calibrated values of an event, float32 ([panel,] row, col); None where there are none.

        Parameters
        ----------
        evt : Event
        cmpars : numbers, optional
            Algorithm and parameters of the common mode, instead of the run's; 0: none.
        mbits : int, optional
            What the mask is made of, as in `mask_comb`.
        **mask
            As in `mask`.

        Raises
        ------
        ConstantsNotFound
            No pedestals: raw counts are never called calibrated.
        """
        return self._made(evt, "calib", self._calibration(evt, cmpars, mbits, mask), {})

    calib_data = calib

    def image(
        self, evt: Event, nda_in: Array | None = None, pix_scale_size_um: float | None = None,
        xy0_off_pix: Any = None, do_update: bool = False, cmpars: Any = None, mbits: int | None = None,
        **mask: Any,
    ) -> Any:  # fmt: skip
        """Return the assembled image of an event, or of any array of its pixels; 0 where no pixel is.

        Parameters
        ----------
        evt : Event
        nda_in : array, optional
            ([panel,] row, col): assembled instead of the calibrated frame.
        pix_scale_size_um : float, optional
            Size of a bin, um.
        xy0_off_pix, do_update
            Not used: the image begins at its first pixel, and nothing is stale.
        cmpars, mbits, **mask
            As in `calib`.
        """
        how: dict[str, Any] = {} if pix_scale_size_um is None else {"pixel_size": pix_scale_size_um}
        if nda_in is not None:
            native = self._native(evt)
            return np.asarray(native.assembled(np.asarray(nda_in), fill=0, **how))
        return self._made(evt, "image", self._calibration(evt, cmpars, mbits, mask), how)

    def _made(self, evt: Event, what: str, calibration: Mapping[str, Any], how: Mapping[str, Any]) -> Any:
        name = self._entry(evt._run).name
        return evt._reading.value(evt.position, name, what, calibration=calibration, assembly=how)

    def _calibration(
        self, evt: Event, cmpars: Any, mbits: int | None, mask: Mapping[str, Any]
    ) -> dict[str, Any]:
        choices: dict[str, Any] = {}
        if cmpars is not None:
            off = np.size(cmpars) == 1 and not np.any(cmpars)
            choices["common_mode"] = None if off else tuple(np.atleast_1d(cmpars).tolist())
        if mbits is not None:
            good = self.mask_comb(evt, mbits)
            choices["mask"] = False if good is None else good
        elif mask:
            choices["mask"] = self.mask(evt, **{"status": True, **mask})
        return choices

    def photons(
        self, evt: Event, nda_calib: Array | None = None, mask: Array | None = None,
        adu_per_photon: float | None = None, thr_fraction: float = 0.9,
    ) -> Any:  # fmt: skip
        """Return the photons in each pixel, uint16; None where there is no frame.

        Parameters
        ----------
        evt : Event
        nda_calib : array, optional
            Calibrated values, instead of the event's.
        mask : array, optional
            1 is good; by default everything that `mask` knows of.
        adu_per_photon : float, optional
            By default the values are photons already.
        thr_fraction : float
            Part of a photon from which two neighbours are one.
        """
        frame = self.calib(evt) if nda_calib is None else nda_calib
        if frame is None:
            return None
        all_parts = STATUS | CALIB | EDGES | CENTRAL | UNBONDED | NEIGHBOURS_4
        good = self.mask_comb(evt, all_parts) if mask is None else np.asarray(mask)
        return count_photons(
            np.asarray(frame)[None], adu_per_photon or 1.0, fraction=thr_fraction, mask=good
        )[0]

    def ndarray_from_image(self, par: Any, image: Array, pix_scale_size_um: float | None = None) -> Array:
        """Return the pixels of an image, ([panel,] row, col)."""
        how: dict[str, Any] = {} if pix_scale_size_um is None else {"pixel_size": pix_scale_size_um}
        return np.asarray(self._native(par).panels_of(np.asarray(image), **how))

    # ---- constants ----------------------------------------------------------------------------
    def _native(self, par: Any = None) -> NativeDetector:
        run = self._run_of(par)
        kept: dict[str, NativeDetector] = run.__dict__.setdefault("_natives", {})
        if self.name not in kept:
            kept[self.name] = run.native[self.name]
        return kept[self.name]

    def _constant(self, par: Any, kind: str) -> Array:
        return np.asarray(self._native(par)._imaging.lookups[kind].found().value)

    def pedestals(self, par: Any = None) -> Array:
        """Return the pedestals, ADU; `ConstantsNotFound` without them."""
        return self._constant(par, "pedestals")

    def rms(self, par: Any = None) -> Array:
        """Return the noise of the dark level, ADU."""
        return self._constant(par, "pixel_rms")

    def gain(self, par: Any = None) -> Array:
        """Return the gain of each pixel."""
        return self._constant(par, "pixel_gain")

    def offset(self, par: Any = None) -> Array:
        """Return the offset of each pixel."""
        return self._constant(par, "pixel_offset")

    def bkgd(self, par: Any = None) -> Array:
        """Return the background of each pixel."""
        return self._constant(par, "pixel_bkgd")

    def status(self, par: Any = None, ctype: str = "pixel_status") -> Array:
        """Return the status words of the pixels, or those of ``status_extra``, ``status_data``; 0 is good."""
        return self._constant(par, ctype)

    def status_extra(self, par: Any = None) -> Array:
        """Return the further status words of the pixels; 0 is good."""
        return self._constant(par, "status_extra")

    def status_data(self, par: Any = None) -> Array:
        """Return the status words from runs with light; 0 is good."""
        return self._constant(par, "status_data")

    def mask_calib(self, par: Any = None) -> Array:
        """Return the mask constant, uint8; 1 is good."""
        return self._constant(par, "pixel_mask")

    def common_mode(self, par: Any = None) -> Array:
        """Return the parameters of the common mode: the constant, else the detector's default."""
        calibration = self._native(par)._imaging.calibration
        found = calibration.lookups["common_mode"]
        if found:
            return np.asarray(found.found().value)
        return np.asarray(calibration.row.default_common_mode(calibration.xtc2), float)

    def common_mode_apply(self, par: Any, nda: Array, cmpars: Any = None) -> None:
        """Subtract the common mode from pedestal-subtracted values of the user's own, in place; 0: none."""
        if cmpars is not None and np.size(cmpars) == 1 and not np.any(cmpars):
            return
        parameters = self.common_mode(par) if cmpars is None else cmpars
        correct_common_mode(self._native(par), nda, parameters)

    def common_mode_correction(self, par: Any, nda: Array, cmpars: Any = None) -> Array:
        """Return what the common mode adds to pedestal-subtracted values, float32; they stay as they are."""
        corrected = np.array(nda, dtype=np.float32)
        self.common_mode_apply(par, corrected, cmpars)
        return corrected - np.asarray(nda, np.float32)

    def gain_mask(self, par: Any = None, gain: float | None = None) -> Array | None:
        """Return the factors of pixels in low gain (CSPAD): 1, or 6.85 (or `gain`)."""
        factors = self._native(par)._imaging.calibration.gain_mask
        if factors is None or gain is None:
            return factors
        return np.where(factors == 1, np.float32(1), np.float32(gain))

    def gain_mask_non_zero(self, par: Any = None, gain: float | None = None) -> Array | None:
        """Return `gain_mask`, None where no pixel is in low gain."""
        factors = self.gain_mask(par, gain)
        return None if factors is None or bool((factors == 1).all()) else factors

    # ---- masks --------------------------------------------------------------------------------
    def mask(
        self, par: Any = None, calib: bool = False, status: bool = False, edges: bool = False,
        central: bool = False, unbond: bool = False, unbondnbrs: bool = False, unbondnbrs8: bool = False,
        mask: Array | None = None,
    ) -> Array | None:  # fmt: skip
        """Return a mask, uint8 ([panel,] row, col), 1 good and 0 bad; None where nothing is asked for.

        Parameters
        ----------
        par : Event or int
        calib, status, edges, central, unbond : bool
            The mask constant; the status words; the outer rows and columns of each panel; those beside
            its middle; CSPAD's unbonded pixels.
        unbondnbrs, unbondnbrs8 : bool
            The 4 or 8 neighbours of unbonded pixels too.
        mask : array, optional
            One more.
        """
        bits = (status, calib, edges, central, unbond, unbondnbrs, unbondnbrs8)
        found = self.mask_comb(par, sum(1 << k for k, on in enumerate(bits) if on))
        if mask is None:
            return found
        own = (np.asarray(mask) != 0).astype(np.uint8)
        return own if found is None else found & own.reshape(found.shape)

    def mask_comb(self, par: Any = None, mbits: int = 0xFFFF) -> Array | None:
        """Return a mask by bits.

        1 status, 2 mask constant, 4 edges, 8 central, 16 unbonded, 32 and 64 with 4 or 8 neighbours.
        """
        if not mbits:
            return None
        native = self._native(par)
        found = np.asarray(native.masked(status=bool(mbits & STATUS), calib=bool(mbits & CALIB)))
        if not mbits & LAYOUT:
            return found
        if native._imaging.is_plain:
            return found & edge_mask(found.shape) if mbits & EDGES else found
        return found & self._own(par, _layout_mask(self._run_geometry(par), mbits))

    def mask_geo(self, par: Any = None, mbits: int = 0xFF) -> Array | None:
        """Return a mask of the layout: 1 edges, 2 central, 4 unbonded, 8 and 16 with 4 or 8 neighbours."""
        return self.mask_comb(par, mbits << 2)

    def mask_edges(self, mask: Array, mrows: int = 1, mcols: int = 1) -> Array:
        """Return a mask with the outer rows and columns of each panel bad too."""
        return np.asarray(mask, np.uint8) & edge_mask(np.shape(mask), mrows, mcols)

    def mask_neighbors(self, mask: Array, allnbrs: bool = True) -> Array:
        """Return a mask with the 8 (or 4) neighbours of bad pixels bad too."""
        return neighbour_mask(mask, 1, "square" if allnbrs else "rhombus")

    def mask_neighbors_in_radius(self, mask: Array, rad: int = 9, ptrn: str = "r") -> Array:
        """Return a mask with all pixels near bad ones bad too: within a rhombus, a circle or a square."""
        return neighbour_mask(mask, rad, PATTERNS.get(ptrn, "square"))  # type: ignore[arg-type]

    def status_as_mask(self, par: Any = None, mode: int = 0) -> Array:
        """Return the mask of the status words; mode 1 and 2: the 4 or 8 neighbours of bad pixels too."""
        found = np.asarray(self._native(par).masked(status=True))
        return self.mask_neighbors(found, mode == 2) if mode else found

    def mask_v2(
        self, par: Any = None, status: bool = True, unbond: bool = False, neighbors: bool = False,
        edges: bool = False, central: bool = False, calib: bool = False, *, rad: int = 5, ptrn: str = "r",
        mrows: int = 1, mcols: int = 1, wcentral: int = 1, mstcode: int = 0xFFFF,
    ) -> Array:  # fmt: skip
        """Return a mask with more choices: radius and pattern of neighbours, widths, status bits."""
        return np.asarray(
            self._native(par).masked(
                status=status,
                status_bits=mstcode,
                neighbours=rad if neighbors else 0,
                neighbour_shape=PATTERNS.get(ptrn, "square"),
                edges=(mrows, mcols) if edges else 0,
                center=wcentral if central else 0,
                calib=calib,
                unbonded=unbond,
            )
        )

    # ---- positions ----------------------------------------------------------------------------
    def geometry(self, par: Any = None) -> Geometry:
        """Return the geometry; see `psana_dask.geometry`."""
        return self._run_geometry(par)

    def _run_geometry(self, par: Any) -> Geometry:
        run = self._run_of(par)
        changed: dict[str, Geometry] = run.__dict__.setdefault("_geometries", {})
        return changed.get(self.name) or self._native(par).geometry

    def _own(self, par: Any, values: Array) -> Array:
        """Return values of the pixels of a geometry for the panels that the data have."""
        imaging = self._native(par)._imaging
        return np.ascontiguousarray(values[imaging._slots].reshape(imaging.shape))

    def _coordinates(self, par: Any, cframe: int = 0) -> Coordinates:
        return coordinates(self._run_geometry(par), frame="lab" if cframe else "psana")

    def coords_x(self, par: Any = None, cframe: int = 0) -> Array:
        """Return x of the pixels, um, float64 ([panel,] row, col); frame 0: psana's, 1: the laboratory's."""
        return self._own(par, self._coordinates(par, cframe).x)

    def coords_y(self, par: Any = None, cframe: int = 0) -> Array:
        """Return y of the pixels, um."""
        return self._own(par, self._coordinates(par, cframe).y)

    def coords_z(self, par: Any = None, cframe: int = 0) -> Array:
        """Return z of the pixels, um."""
        return self._own(par, self._coordinates(par, cframe).z)

    def coords_xy(self, par: Any = None, cframe: int = 0) -> tuple[Array, Array]:
        """Return x and y of the pixels, um."""
        return self.coords_x(par, cframe), self.coords_y(par, cframe)

    def coords_xyz(self, par: Any = None, cframe: int = 0) -> tuple[Array, Array, Array]:
        """Return x, y and z of the pixels, um."""
        return (*self.coords_xy(par, cframe), self.coords_z(par, cframe))

    def areas(self, par: Any = None) -> Array:
        """Return the areas of the pixels, in units of a regular one."""
        return self._own(par, areas(self._run_geometry(par)))

    def pixel_size(self, par: Any = None) -> float:
        """Return the size of a regular pixel, um."""
        return self._run_geometry(par).segment.pixel_size

    def indexes_xy(
        self,
        par: Any = None,
        pix_scale_size_um: float | None = None,
        xy0_off_pix: Sequence[float] | None = None,
    ) -> tuple[Array, Array]:
        """Return row and column of each pixel in the image, int64 ([panel,] row, col)."""
        where, size = self._coordinates(par), pix_scale_size_um or self.pixel_size(par)
        offset = (0.0, 0.0) if xy0_off_pix is None else (float(xy0_off_pix[0]), float(xy0_off_pix[1]))
        found = bins(where, size, offset=offset)
        return self._own(par, found.rows), self._own(par, found.cols)

    def indexes_x(
        self, par: Any = None, pix_scale_size_um: float | None = None, xy0_off_pix: Any = None
    ) -> Array:
        """Return the image row of each pixel."""
        return self.indexes_xy(par, pix_scale_size_um, xy0_off_pix)[0]

    def indexes_y(
        self, par: Any = None, pix_scale_size_um: float | None = None, xy0_off_pix: Any = None
    ) -> Array:
        """Return the image column of each pixel."""
        return self.indexes_xy(par, pix_scale_size_um, xy0_off_pix)[1]

    def point_indexes(
        self, par: Any = None, pxy_um: tuple[float, float] = (0, 0), fract: bool = False
    ) -> Any:
        """Return row and column of a point (x, y) um in the image, whole or with fractions."""
        found = bin_of_point(pxy_um, self._coordinates(par), self.pixel_size(par))
        return found if fract else tuple(int(np.floor(v)) for v in found)

    def image_xaxis(self, par: Any = None) -> Array:
        """Return x of the middle of the image rows, um."""
        return -prepare(self._run_geometry(par)).y * 1e6

    def image_yaxis(self, par: Any = None) -> Array:
        """Return y of the middle of the image columns, um."""
        return -prepare(self._run_geometry(par)).x * 1e6

    def move_geo(self, par: Any, dx: float, dy: float, dz: float) -> None:
        """Move the detector by um for the positions of this run; images keep the run's geometry."""
        self._change(par, lambda g: moved(g, *_top(g), by=(dx, dy, dz)))

    def tilt_geo(self, par: Any, dtx: float, dty: float, dtz: float) -> None:
        """Tilt the detector by degrees for the positions of this run."""
        self._change(par, lambda g: tilted(g, *_top(g), by=(dtz, dty, dtx)))

    def _change(self, par: Any, change: Any) -> None:
        run, geometry = self._run_of(par), self._run_geometry(par)
        run.__dict__.setdefault("_geometries", {})[self.name] = change(geometry)

    # ---- files --------------------------------------------------------------------------------
    def save_txtnda(self, fname: str = "nda.txt", ndarr: Any = None, cmts: Sequence[str] = ()) -> None:
        """Write an array of the pixels as text, with comments; `load_txtnda` reads it."""
        save_array(fname, ndarr, cmts, self.source.address)

    def load_txtnda(self, fname: str) -> Array:
        """Return an array from a text file, such as one of a calib directory."""
        return load_array(fname)

    # ---- facts --------------------------------------------------------------------------------
    @property
    def dettype(self) -> int:
        """Number that psana gives the detector type: 1 Cspad, 26 Jungfrau, ...; 0: it has none."""
        return type_number(self._entry(self._run_of()).det_type)

    def is_cspad(self) -> bool:
        """Tell whether it is a CSPAD."""
        return self.dettype == type_number("Cspad")

    def is_cspad2x2(self) -> bool:
        """Tell whether it is a CSPAD of two panels."""
        return self.dettype == type_number("Cspad2x2")

    def is_jungfrau(self) -> bool:
        """Tell whether it is a Jungfrau."""
        return self.dettype == type_number("Jungfrau")

    def is_epix100a(self) -> bool:
        """Tell whether it is an ePix100a."""
        return self.dettype == type_number("Epix100a")

    def is_epix10ka_any(self) -> bool:
        """Tell whether it is an ePix10ka, alone or of several panels."""
        return self._entry(self._run_of()).det_type.startswith("Epix10ka")

    def set_print_bits(self, pbits: int) -> None:
        """Do nothing: what is missing is an exception, not a line of text."""

    def shape(self, par: Any = None) -> tuple[int, ...]:
        """Return the shape of a frame."""
        return self._native(par)._imaging.shape

    def size(self, par: Any = None) -> int:
        """Return the number of pixels."""
        return int(np.prod(self.shape(par)))

    def ndim(self, par: Any = None) -> int:
        """Return the number of dimensions of a frame."""
        return len(self.shape(par))

    def runnum(self, par: Any = None) -> int:
        """Return the number of the run."""
        return self._run_of(par).runnum

    def instrument(self) -> str:
        """Return the instrument, as ``XPP``."""
        return self._run_of().env().instrument()

    def loading_status(self, par: Any = None, kind: str = "pedestals") -> bool:
        """Tell whether a kind of constant was found; `explain_constants` of the native detector says why."""
        return bool(self._native(par)._imaging.lookups[kind])

    def print_attributes(self, par: Any = None) -> None:
        """Print what is known of the detector."""
        native = self._native(par)
        try:
            constants = native.explain_constants()
        except ConstantsNotFound as error:
            constants = str(error)
        print(f"{native!r}\n{constants}")

    def print_config(self, par: Any = None) -> None:
        """Print the settings of the detector."""
        print(self._run_of(par).native.config(self.name))


def _layout_mask(geometry: Geometry, mbits: int) -> Array:
    """Return the mask that follows from the layout of the panels, (panel, row, col)."""
    neighbours = 8 if mbits & NEIGHBOURS_8 else 4 if mbits & NEIGHBOURS_4 else 0
    found = layout_mask(
        geometry,
        edges=1 if mbits & EDGES else 0,
        centre=1 if mbits & CENTRAL else 0,
        unbonded=bool(mbits & (UNBONDED | NEIGHBOURS_4 | NEIGHBOURS_8)),
        neighbours=neighbours,
    )
    return found.astype(np.uint8)


def _top(geometry: Geometry) -> tuple[str, int]:
    """Return the outermost part."""
    return geometry.panels[0][-1].key
