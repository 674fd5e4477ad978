"""Plots that users write: functions of the accumulated Dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import panel as pn

from psana_dask.pages.frameplot import FramePlot
from psana_dask.pages.liveplots import BESIDE, Changed, LinesPlot, card, places


@dataclass(frozen=True)
class Drawn:
    """A HoloViews object, or text."""

    thing: Any


class OwnPlot:
    """What a function makes of the accumulated Dataset.

    Parameters
    ----------
    function : callable
        Takes the Dataset; returns an array or DataArray (a number, lines, a picture) or anything that
        panel shows, such as a HoloViews object.
    changed : callable
    """

    every = BESIDE  # a HoloViews object is drawn anew as a whole, which takes 0.1 to 0.3 s

    def __init__(self, function: Callable[[Any], Any], changed: Changed) -> None:
        self.name = getattr(function, "__name__", "plot").replace("_", " ")
        self._function, self._changed = function, changed
        self._inner: dict[str, Any] = {}
        self.card = pn.Column()

    def prepare(self, snapshot: Any) -> Any:
        """Return what the function makes, ready to be shown."""
        made = self._function(snapshot.dataset)
        if not isinstance(made, float | int | np.ndarray | np.generic) and not hasattr(made, "dims"):
            return "pane", Drawn(made)
        return self._array(made)

    def _array(self, made: Any) -> Any:
        import xarray as xr

        array = made if isinstance(made, xr.DataArray) else xr.DataArray(made)
        if array.ndim == 0:
            units = escape(str(array.attrs.get("units", "")))
            return "pane", Drawn(f"<b style='font-size:28px'>{float(array):.6g}</b> {units}")
        label = str(array.attrs.get("long_name", array.name or ""))
        if array.ndim == 1 or array.dims[0] == "panel":
            axis = "datetime" if places(array).dtype.kind == "M" else "linear"
            lines = self._of("lines", lambda: LinesPlot(self.name, False, axis, str(array.dims[-1])))
            return "lines", lines.prepare_arrays(array, None, label)
        frame = self._of("frame", lambda: FramePlot(self.name, False, self._changed))
        return "frame", frame.prepare_array(array, label)

    def _of(self, kind: str, make: Callable[[], Any]) -> Any:
        if kind not in self._inner:
            self._inner[kind] = make()
        return self._inner[kind]

    def show(self, prepared: Any) -> None:
        """Show it."""
        kind, made = prepared
        if kind == "pane":
            self._pane(made.thing)
            return
        self._inner[kind].show(made)
        self._put(self._inner[kind].card)

    def _pane(self, thing: Any) -> None:
        known = self._inner.get("pane")
        if known is not None and known.applies(thing):
            known.object = thing
            return
        text = isinstance(thing, str)
        self._inner["pane"] = pn.pane.HTML(thing) if text else pn.panel(thing)
        self._inner["card"] = card(self.name, self._inner["pane"])
        self._put(self._inner["card"])

    def _put(self, shown: Any) -> None:
        if list(self.card.objects) != [shown]:
            self.card.objects = [shown]
