"""The fields that a payload of LCLS-1 offers: its values (`xtc_values`), pixels and computed ones.

Of an area detector's record all views of the pixels are one field.  What psana's Detector classes
compute from a record stands beside its values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from psana_dask.model import Kind
from psana_dask.readers.records import View
from psana_dask.readers.tables.panels import is_imager, panels_of
from psana_dask.readers.xtc_values import Value, values_of


@dataclass(frozen=True)
class Column:
    """One field of a kind.

    Parameters
    ----------
    name : str
    dtype : numpy.dtype
    shape : tuple of int
        In the payload that was looked at.
    kind : Kind
    unit : str
    value : Value or None
        None for the pixels of an area detector.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    kind: Kind
    unit: str = ""
    value: Value | None = None


def columns_of(sample: View) -> Iterator[Column]:
    """Yield the fields of a payload, in the order of its record."""
    title = sample.record.title
    pixels = -1
    if is_imager(title):
        panels = panels_of(sample)
        pixels = panels.shape[0] * panels.shape[1]
        several = len(panels.starts) > 1
        shape = (len(panels.starts), *panels.shape) if several else panels.shape
        yield Column("raw", panels.dtype, shape, Kind.PIXELS)
    for value in values_of(sample):
        if value.dtype.kind == "O" or int(np.prod(value.shape)) >= pixels >= 0:
            continue
        kind = Kind.STRING if value.dtype.kind == "S" else Kind.NUMBER
        yield Column(value.name, value.dtype, value.shape, kind, value.unit, value)
