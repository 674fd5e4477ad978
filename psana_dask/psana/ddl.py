"""psana's types and addresses: ``evt.get(EvrData.DataV4, Source("evr0"))`` has psana's accessors.

The accessors, nested ones too, are those of the type tables (`psana_dask.readers.tables`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import suggestion
from psana_dask.readers.records import View
from psana_dask.readers.xtc_config import Configuration
from psana_dask.readers.xtc_layout import source_key


class Record:
    """One decoded payload: ``evr.fifoEvents()[0].eventCode()``.

    A list is indexed by an argument too: ``data.quads(0)`` is ``data.quads()[0]``, and
    ``data.quads_shape()`` says how many there are.

    Parameters
    ----------
    view : View
    """

    __slots__ = ("_view",)

    def __init__(self, view: View) -> None:
        self._view = view

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        known = self._view.record.lookup
        if name.endswith("_shape") and name.removesuffix("_shape") in known:
            return lambda: list(np.shape(self._view[name.removesuffix("_shape")]))
        if name not in known:
            near = suggestion(name, self._view.record.accessors)
            raise AttributeError(f"{self._view.record.title} has no {name}(){near}")

        def accessor(*index: int) -> Any:
            found = self._view[name]
            return _plain(found(*index)) if callable(found) else _plain(_item(found, index))

        return accessor

    def __dir__(self) -> list[str]:
        return list(self._view.record.accessors)

    def __repr__(self) -> str:
        return f"<{self._view.record.title}: {', '.join(self._view.record.accessors)}>"


def _item(found: Any, index: tuple[int, ...]) -> Any:
    for k in index:
        found = found[k]
    return found


def _plain(found: Any) -> Any:
    """Return a value with records as `Record`."""
    if isinstance(found, View):
        return Record(found)
    return [_plain(one) for one in found] if isinstance(found, list) else found


@dataclass(frozen=True)
class Payload:
    """The bytes of one payload of an event, and what they mean.

    Parameters
    ----------
    data : (bytes,) uint8
    contains : int
        Type word.
    address : (int, int)
        log and phy of the source.
    configuration : Configuration
        In force at the event.
    """

    data: NDArray[np.uint8]
    contains: int
    address: tuple[int, int]
    configuration: Configuration

    def records(self) -> Iterator[Record]:
        """Yield the record; of shared beam-line data its parts too, as psana has them."""
        from psana_dask.readers.tables import is_config
        from psana_dask.readers.tables.signals import shared_parts

        view = self.configuration.decode(self.contains, source_key(*self.address), self.data)
        yield Record(view)
        for (type_id, _), part in shared_parts(view):
            if not is_config(type_id):
                yield Record(part)


def title_of(record: Record) -> str:
    """Return the name of a record's type, as ``Bld.BldDataEBeamV7``."""
    return record._view.record.title


@dataclass(frozen=True)
class Type:
    """A type of psana: ``Bld.BldDataEBeamV7``.

    Parameters
    ----------
    title : str
    """

    title: str

    def __call__(self, record: Record) -> bool:
        """Tell whether a record has this type."""
        return title_of(record) == self.title

    def __repr__(self) -> str:
        return self.title


class Package:
    """The types of one group: ``EvrData.ConfigV7``.

    Parameters
    ----------
    name : str
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Type:
        if name.startswith("__"):
            raise AttributeError(name)
        title = f"{self._name}.{name}"
        if title not in (known := _titles()):
            raise AttributeError(f"psana has no type {title}{suggestion(title, known)}")
        return Type(title)

    def __dir__(self) -> list[str]:
        return [t.partition(".")[2] for t in _titles() if t.startswith(f"{self._name}.")]

    def __repr__(self) -> str:
        return f"<types of {self._name}: {', '.join(dir(self))}>"


def _titles() -> list[str]:
    from psana_dask.readers.tables import titles

    return titles()


PACKAGES = (
    "Acqiris", "Alias", "Andor", "Andor3d", "Archon", "Arraychar", "Bld", "Camera", "ControlData",
    "CsPad", "CsPad2x2", "Encoder", "Epics", "Epix", "EpixSampler", "EvrData", "FCCD", "Fli",
    "Generic1D", "GenericPgp", "Gsc16ai", "Imp", "Ipimb", "Jungfrau", "L3T", "Lusi", "OceanOptics",
    "Opal1k", "Orca", "PNCCD", "Partition", "Pds", "Pimax", "Pixis", "Princeton", "Pulnix", "QuadAdc",
    "Quartz", "Rayonix", "SmlData", "Streak", "TimeTool", "Timepix", "UsdUsb", "Uxi", "Vimba", "Zyla",
    "iStar",
)  # fmt: skip
"""Groups of types that psana's scripts import by name."""


@dataclass(frozen=True)
class Source:
    """An address of LCLS-1, in any spelling: ``Source("DetInfo(XppGon.0:Cspad.0)")``, ``Source("cspad")``.

    Parameters
    ----------
    address : str
        Empty: any.

    Examples
    --------
    >>> evt.get(CsPad.DataV2, Source("cspad"))
    """

    address: str = ""

    def __str__(self) -> str:
        return self.address


def address_of(source: Any) -> str:
    """Return the text of an address, whether it is text or a `Source`."""
    return "" if source is None else str(source)
