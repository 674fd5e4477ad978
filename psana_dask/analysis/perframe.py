"""Values that are made of each frame while it is reduced: no array of all events is ever made.

`PerFrame` says what is made of which field; `Run.reduce`, `Run.mean`, `Stream.reduce` and their like take
it in place of a name.  Frames are read, calibrated and handed to the function a few at a time, and what
it makes is accumulated at once, in the fixed order of every reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

EVENT = "time"


@dataclass(frozen=True, eq=False)
class PerFrame:
    """What a function makes of each frame of a field.

    Parameters
    ----------
    of : str
        ``"cspad.calib"``, ``"cspad.image"``, ``"opal.raw"``.
    name : str
        Of the result: ``<detector>_<name>``.
    function : callable
        Takes frames (event, [panel,] row, col), then one array (event,) for each of `along`, and gives an
        array (event, ...). What it makes of a frame must not depend on the others. Missing panels
        of calibrated frames are NaN; NaN in a result is left out.
    dims : mapping of str to int, optional
        Dimensions of the result of one frame, and their sizes; by default those of the frame.
    dtype : dtype
    coords, attrs : mapping
        Of the result.
    along : tuple of str
        Scalar fields that go along, one number per event as float64, NaN where the event lacks it:
        ``("ebeam.photon_energy",)``.

    Examples
    --------
    >>> rows = PerFrame("opal.raw", "rows", lambda frames: frames.mean(axis=2), {"row": 1024})
    >>> run.reduce(["mean", "std"], rows, by="step")
    >>> run.map(rows)
    """

    of: str
    name: str
    function: Callable[..., Any]
    dims: Mapping[str, int] | None = None
    dtype: Any = np.float64
    coords: Mapping[str, Any] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    along: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.of, str) or "." not in self.of:
            raise ValueError(f"of={self.of!r}: name a field, such as 'cspad.calib'")

    @property
    def detector(self) -> str:
        """Whose frames they are."""
        return self.of.rpartition(".")[0]

    @property
    def names(self) -> list[str]:
        """The fields that are needed."""
        return [self.of, *self.along]

    def __call__(self, data: xr.Dataset) -> xr.DataArray:
        """Return what is made of the events of a Dataset, as `Run.map` and `Run.dataset` give it."""
        import xarray as xr

        frames, *sides = (data[name.replace(".", "_")] for name in self.names)
        frames = frames.transpose(EVENT, ...)
        dims = frames.dims[1:] if self.dims is None else tuple(self.dims)
        values = self.function(frames.values, *(np.asarray(side.values, np.float64) for side in sides))
        coords = {k: v for k, v in frames.coords.items() if set(v.dims) <= {EVENT}}
        name = f"{frames.attrs.get('detector', self.detector)}_{self.name}"
        return xr.DataArray(values, {**coords, **self.coords}, (EVENT, *dims), name, dict(self.attrs))
