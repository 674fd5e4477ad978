"""``.psana`` on any DataArray or Dataset of this package: missing pieces, ragged values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from psana_dask.geometry.model import Geometry


@xr.register_dataarray_accessor("psana")  # type: ignore[no-untyped-call]
class ArrayAccessor:
    """What a DataArray of this package can do.

    Parameters
    ----------
    array : DataArray

    Examples
    --------
    >>> image = run.epixquad.image[0]
    >>> image.psana.plot()
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    def masked(self) -> xr.DataArray:
        """Return floats with NaN where the detector, or a panel of it, is missing.

        Raises
        ------
        ValueError
            The array does not know what is missing (no ``<detector>_present`` coordinate).

        Examples
        --------
        >>> run.epixquad.raw.psana.masked().mean("time")
        """
        detector = self._array.attrs.get("detector")
        names = [f"{detector}_{kind}" for kind in ("panel_present", "present")] + ["panel_present", "present"]
        known = [n for n in names if n in self._array.coords]
        if not known:
            hint = "; assemble with fill=np.nan instead" if "x" in self._array.dims else ""
            what = f"{self._array.name} does not know what is missing: no coordinate {names[1]}"
            raise ValueError(what + hint)
        dtype = np.result_type(self._array.dtype, np.float32)
        return self._array.astype(dtype).where(self._array.coords[known[0]])

    def calibrate(self, constants: Mapping[str, Any], **choices: Any) -> xr.DataArray:
        """Return the calibrated values of raw words (..., [panel,] row, col).

        Parameters
        ----------
        constants : mapping of kind to array or Constants
            ``det.constants``, or arrays.
        **choices
            ``common_mode=``, ``gain=``, ``mask=``, ``detector=``, ...: see `psana_dask.words.calibrate`.

        Examples
        --------
        >>> words.psana.calibrate({"pedestals": pedestals}, detector="epix100")
        """
        from psana_dask.words import calibrate

        return calibrate(self._array, constants, **choices)

    def assemble(self, geometry: Geometry | str | os.PathLike[str], **choices: Any) -> xr.DataArray:
        """Return the images (..., y, x) of an array of pixels (..., panel, row, col).

        Parameters
        ----------
        geometry : Geometry, str or path
            Or the text of one, or a file in any format that `psana_dask.geometry.load` reads.
        **choices
            ``fill=``, ``overlap=``, ``holes=``, ...: see `psana_dask.images.assemble`.

        Examples
        --------
        >>> panels.psana.assemble("54-end.data")
        """
        from psana_dask.geometry.files import as_geometry
        from psana_dask.images import assemble

        return assemble(self._array, as_geometry(geometry), **choices)

    def plot(self, axes: Axes | None = None, *, mask: Any = None, **options: Any) -> Axes:
        """Draw an image, with colours from the 1st to the 99th percentile of the pixels that are good.

        Parameters
        ----------
        axes : matplotlib Axes, optional
            Where to draw; a new figure by default.
        mask : array (y, x), optional
            Nonzero for good pixels, for instance ``det.assembled(det.mask)``; NaN is never good.
        **options
            For ``Axes.imshow``, for instance ``vmax=`` or ``cmap=``.

        Returns
        -------
        Axes
            Places in millimetres; rows and columns for a sensor without geometry.

        Raises
        ------
        ValueError
            This is no assembled image of one event.
        MissingLibrary
            matplotlib is not installed.

        Examples
        --------
        >>> run.epixquad.image.isel(time=0).psana.plot()  # doctest: +SKIP
        """
        from psana_dask.geometry.figure import draw_image

        if self._array.dims != ("y", "x"):
            raise ValueError(f"a picture has dimensions y and x, this has {self._array.dims}; assemble first")
        y, x = (self._array.coords[n].values if n in self._array.coords else None for n in ("y", "x"))
        good = None if mask is None else np.asarray(mask) != 0
        label = str(self._array.attrs.get("units", ""))
        return draw_image(self._array.values, y, x, axes, mask=good, label=label, **options)


@xr.register_dataset_accessor("psana")  # type: ignore[no-untyped-call]
class DatasetAccessor:
    """What a Dataset of this package can do.

    Parameters
    ----------
    dataset : Dataset

    Examples
    --------
    >>> run.dataset("hsd").psana.padded("hsd_chan00", 16)
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def ragged(self, name: str) -> list[Any]:
        """Return the values of a ragged variable as one array per event.

        Parameters
        ----------
        name : str
            A variable with ``<name>_count`` beside it.

        Examples
        --------
        >>> run.hsd.chan00.psana.ragged("chan00")[0]
        """
        ends = np.cumsum(self._counts(name))
        return np.split(self._dataset[name].values, ends)[: len(ends)]

    def padded(self, name: str, n: int | None = None, fill: Any = 0) -> xr.DataArray:
        """Return a ragged variable as (time, n): longer events are cut, shorter ones filled.

        Parameters
        ----------
        name : str
        n : int, optional
            By default the longest event.
        fill : number
            What stands behind the last value.

        Examples
        --------
        >>> run.hsd.chan00.psana.padded("chan00", 400)
        """
        pieces = self.ragged(name)
        width = max((len(p) for p in pieces), default=0) if n is None else n
        out = np.full((len(pieces), width), fill, self._dataset[name].dtype)
        for row, piece in zip(out, pieces, strict=True):
            row[: len(piece)] = piece[:width]
        time = np.atleast_1d(self._dataset["time"].values)  # a single event has no dimension
        return xr.DataArray(out, {"time": time}, ("time", f"{name}_padded"), name=name)

    def to_awkward(self, name: str) -> Any:
        """Return a ragged variable as an awkward array (needs the library awkward).

        Examples
        --------
        >>> run.hsd.chan00.psana.to_awkward("chan00")
        """
        try:
            import awkward
        except ImportError:
            from psana_dask.errors import MissingLibrary

            raise MissingLibrary.of("awkward", "ragged", "to_awkward") from None
        return awkward.unflatten(self._dataset[name].values, self._counts(name))

    def _counts(self, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        count = self._dataset[f"{name}_count"]
        return count.sum([d for d in count.dims if d != "time"]).values.astype(np.int64)
