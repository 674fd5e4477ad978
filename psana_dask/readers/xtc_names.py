"""What the blocks of LCLS-1 mean: the source and type of a kind as a detector with named fields.

A kind is a source with a type and version; its fields are the values of its record (`xtc_values`), found
from one payload.  Of an area detector's record the many views of its pixels are one field, its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from psana_dask.model import FieldSpec, Names
from psana_dask.readers.records import View, snake
from psana_dask.readers.tables import EPICS, is_config, is_known, type_name
from psana_dask.readers.xtc_fields import columns_of
from psana_dask.readers.xtc_layout import ID_XTC, Level, jungfrau_segment, source_name

ID_ANY, ID_SMALL_DATA = 0, (89, 90, 91)
"""Types that are no data: what only marks damage, and the records of small-data files."""

ID_CONTROL = (10, 54, 69, 70, 79)
"""Settings of the DAQ itself: run control, EPICS archiver, aliases, trigger, partition."""

CONFIG = "config"
"""Algorithm of the settings of a detector."""

ALGORITHMS = {5: "gaussian", 27: "info", 31: "fex", 33: "fex", 87: "timetool", 102: "fex"}
"""Algorithm of types that come beside the data (``raw``) of the same source: each may be missing alone."""


def kind_names(key: int, kind: tuple[int, int, int], sample: View | None) -> Names:
    """Return the names of one kind.

    Parameters
    ----------
    key : int
        Its number.
    kind : (int, int, int)
        log, phy and type word.
    sample : View, optional
        One payload; without it the kind has no fields.
    """
    log, phy, contains = kind
    type_id, version = contains & 0xFFFF, contains >> 16 & 0x7FFF
    source, segment = detector_of(log, phy, type_id)
    names = Names(
        key=key,
        detector=source,
        det_type=det_type_of(source, log, type_id),
        det_id="",
        algorithm=CONFIG if is_config(type_id) else ALGORITHMS.get(type_id, "raw"),
        version=(version, 0, 0),
        segment=segment,
        fields=() if sample is None or not has_fields(type_id) else tuple(field_specs(sample)),
    )
    return names if sample is None or is_known(sample.record) else undecoded(key, kind)


def detector_of(log: int, phy: int, type_id: int) -> tuple[str, int]:
    """Return what a source is called, and which segment of its detector it is.

    Sources that are no detectors (nodes of the DAQ) are called after what they say.
    """
    if log >> 24 == Level.SOURCE:
        found = jungfrau_segment(phy)
        return (source_name(log, phy), 0) if found is None else (source_name(log, found[0]), found[1])
    return (source_name(log, phy) if log >> 24 == Level.REPORTER else type_name(type_id)), 0


def det_type_of(source: str, log: int, type_id: int) -> str:
    """Return the device of a detector, else the name of the type."""
    slow = type_id in {ID_ANY, ID_XTC, EPICS, *ID_SMALL_DATA, *ID_CONTROL}
    if log >> 24 != Level.SOURCE or slow:
        return type_name(type_id)
    return source.partition(":")[2].rpartition(".")[0]


def has_fields(type_id: int) -> bool:
    """Tell whether blocks of a type are data of events."""
    return not is_config(type_id) and type_id not in {ID_ANY, ID_XTC, EPICS, *ID_SMALL_DATA}


def field_specs(sample: View) -> Iterator[FieldSpec]:
    """Yield the fields of a payload."""
    for column in columns_of(sample):
        accessor = ".".join(column.value.path) if column.value is not None else ""
        rank = len(column.shape)
        yield FieldSpec(column.name, column.dtype, rank, column.kind, column.unit, column.dims, accessor)


def undecoded(key: int, kind: tuple[int, int, int]) -> Names:
    """Return the names of a kind that cannot be decoded: its bytes are its only field."""
    names = kind_names(key, kind, None)
    type_id, version = kind[2] & 0xFFFF, kind[2] >> 16 & 0x7FFF
    if not has_fields(type_id):
        return names
    bytes_ = FieldSpec("bytes", np.dtype(np.uint8), 1)
    return replace(names, algorithm=f"{snake(type_name(type_id))}_v{version}", fields=(bytes_,))
