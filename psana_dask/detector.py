"""One detector of a run: its fields as lazy labelled arrays, its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.catalog import Entry
from psana_dask.dataset import View, detector_dataset, field_of, main_channel, reader_facts
from psana_dask.errors import NameNotFound
from psana_dask.slow import DetectorConfig, detector_config

if TYPE_CHECKING:
    import xarray as xr


class Detector:
    """A detector of a run.

    Fields are attributes (``det.raw``, ``det.fex_ampl``) and items (``det["raw.calib"]``,
    with any spelling). Each is a lazy DataArray over the events of the run.

    Parameters
    ----------
    view : View
    entry : Entry
    """

    def __init__(self, view: View, entry: Entry) -> None:
        self._view = view
        self._entry = entry

    @property
    def name(self) -> str:
        """What users call it."""
        return self._entry.name

    @property
    def alias(self) -> str:
        """The name in the file."""
        return self._entry.alias

    @property
    def det_type(self) -> str:
        """The type in the file."""
        return self._entry.det_type

    @property
    def source(self) -> Mapping[str, Any]:
        """Where it comes from: name, type, serial numbers and algorithms, as in the file."""
        channels = self._entry.channels.values()
        return {
            "alias": self.alias,
            "det_type": self.det_type,
            "det_ids": list(self._entry.det_ids),
            "algorithms": {c.algorithm: ".".join(map(str, c.version)) for c in channels},
        }

    @property
    def fields(self) -> list[str]:
        """Names of its fields."""
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
        """Return all fields as one Dataset; variables have the names of the fields."""
        return detector_dataset(self._view, self._entry, chunks)

    @property
    def damage(self) -> xr.DataArray:
        """Damage word of each event."""
        return self.dataset()["damage"]

    @property
    def present(self) -> xr.DataArray:
        """Whether each event has the detector."""
        return self.dataset()["present"].rename(f"{self.name}_present")

    @property
    def config(self) -> DetectorConfig:
        """Its settings at the end of the run; `Run.config` gives them at any time."""
        return detector_config(self._view.recording, self.alias)

    @cached_property
    def presence(self) -> float:
        """Share of the events that have it, 0 to 1."""
        main = main_channel(self._entry, [f for f, c in self._entry.channels.items() if self._view.exists(c)])
        if main is None or not len(self._view.choice):
            return 0.0
        target = self._view.target(self._entry.channels[main])
        found = target.reader().present(self._view.choice.numbers)
        return float(np.count_nonzero(found.any(axis=1)) / len(found))

    def facts(self) -> list[dict[str, Any]]:
        """Return name, dtype and shape of each field, for tables."""
        return [
            dict(zip(("field", "dtype", "shape"), (n, *reader_facts(self._view, c)), strict=True))
            for n, c in self._entry.channels.items()
        ]

    def __getitem__(self, name: str) -> xr.DataArray | xr.Dataset:
        return self.field(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.field(name)
        except NameNotFound as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._entry.channels]

    def _ipython_key_completions_(self) -> list[str]:
        return self.fields

    def __repr__(self) -> str:
        serials = ", ".join(i for i in self._entry.det_ids if i) or "-"
        share = f"in {self.presence:.1%} of the events"
        lines = [f"<Detector {self.name}: {self.det_type}, {share}, serial {serials}>"]
        lines += [f"  {f['field']:24} {f['dtype']:10} {f['shape']}" for f in self.facts()]
        return "\n".join(lines)
