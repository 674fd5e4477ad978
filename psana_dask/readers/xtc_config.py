"""What the configuration of an LCLS-1 run says: shapes, aliases, process variables, event codes, scan steps.

A `Configuration` holds the records of one Configure (and BeginCalibCycle), by type and source, and
finds the one that a payload needs.  The questions that users ask of it are functions of their own:
`aliases`, `process_variables`, `event_codes`, `scan_step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError
from psana_dask.readers.compression import decompress
from psana_dask.readers.records import Record, View
from psana_dask.readers.tables import EPICS, config_keys, is_config, is_known, record_for
from psana_dask.readers.tables.signals import shared_parts
from psana_dask.readers.xtc_layout import COMPRESSED, XTC, Damage, source_key, source_name

Bytes = npt.NDArray[np.uint8]
Key = tuple[int, int]
"""(type number, version)."""
Source = tuple[int, int]
"""(level, phy): see `xtc_layout.source_key`."""

NOT_AN_ARRAY = 0xFFFFFFFF
"""Index of a scan variable that is no element of an array."""


@dataclass(frozen=True)
class Configuration:
    """The records in force at an event.

    Parameters
    ----------
    records : mapping of (type, source) to View
    epics : tuple of (source, View)
        EPICS records with the names of process variables (CTRL types).
    problems : tuple of (int, str)
        Byte of a container in its datagram, and why its record is missing.
    """

    records: Mapping[tuple[Key, Source], View] = field(default_factory=dict)
    epics: tuple[tuple[Source, View], ...] = ()
    problems: tuple[tuple[int, str], ...] = ()

    def with_dgram(self, dgram: Bytes, leaves: Any) -> Configuration:
        """Return the configuration after a Configure or BeginCalibCycle.

        Damaged records are taken as psana takes them, if they can be decoded: without them the
        events of the source could not be.

        Parameters
        ----------
        dgram : ndarray of uint8
            The whole datagram; it is kept by the records.
        leaves : ndarray of xtc_scan.LEAF_ROW
            Its leaves.
        """
        records, epics, problems = dict(self.records), list(self.epics), list(self.problems)
        for leaf in leaves:
            source = source_key(int(leaf["log"]), int(leaf["phy"]))
            try:
                view = self._view(dgram, leaf)
            except FormatError as error:
                problems.append((int(leaf["at"]), str(error)))
                continue
            key = _key(leaf)
            if view is not None and key[0] == EPICS:
                epics.append((source, view))
            elif view is not None:
                records |= {(k, source): v for k, v in _parts(key, view)}
        return Configuration(records, tuple(epics), tuple(problems))

    def _view(self, dgram: Bytes, leaf: Any) -> View | None:
        size = int(leaf["extent"]) - XTC.itemsize
        start = int(leaf["at"]) + XTC.itemsize
        if size == 0 or int(leaf["damage"]) & Damage.INCOMPLETE_CONTRIBUTION:
            return None
        view = self.decode(int(leaf["contains"]), (0, 0), dgram[start : start + size])
        _ = view.nbytes  # a record that is cut or contradicts itself is found now, not at its first use
        return view if is_known(view.record) else None

    def config_for(self, record: Record, source: Source) -> View | None:
        """Return the configuration that a record of this source needs, None if there is none."""
        found = (self.records.get((key, source)) for key in config_keys(record))
        return next((view for view in found if view is not None), None)

    def decode(self, contains: int, source: Source, payload: Bytes) -> View:
        """Decode a payload.

        Parameters
        ----------
        contains : int
            Its type word.
        source : (int, int)
            Of `source_key`.
        payload : ndarray of uint8
            As in the file, compressed or not.
        """
        payload = decompress(payload) if contains & COMPRESSED else payload
        record = record_for(contains & 0xFFFF, contains >> 16 & 0x7FFF, payload)
        return record.view(payload, cfg=self.config_for(record, source))

    def of_type(self, *types: int) -> Iterator[tuple[Source, View]]:
        """Yield (source, record) of the types with these numbers."""
        for (key, source), view in self.records.items():
            if key[0] in types:
                yield source, view


def _key(leaf: Any) -> Key:
    return int(leaf["contains"]) & 0xFFFF, int(leaf["contains"]) >> 16 & 0x7FFF


def _parts(key: Key, view: View) -> Iterable[tuple[Key, View]]:
    """Return a record, or the configuration inside a shared beam-line record."""
    shared = [(k, part) for k, part in shared_parts(view) if is_config(k[0])]
    return shared if shared else [(key, view)]


# ---- aliases ------------------------------------------------------------------------------------
def aliases(configuration: Configuration) -> dict[Source, str]:
    """Return the DAQ's own name of each source that has one."""
    found = {}
    for _, view in configuration.of_type(69):
        for entry in view.src_alias:
            found[source_key(entry.src.log, entry.src.phy)] = str(entry.alias_name)
    return found


# ---- process variables --------------------------------------------------------------------------
@dataclass(frozen=True)
class ProcessVariable:
    """An EPICS process variable that the DAQ records.

    Parameters
    ----------
    name : str
    description : str
        The archiver's alias, "" if it has none.
    dbr_type : int
        Of its TIME records.
    count : int
        Elements of its value.
    unit : str
    states : tuple of str
        Names of the values of an enum.
    """

    name: str
    description: str
    dbr_type: int
    count: int
    unit: str
    states: tuple[str, ...]


_TIME_FROM_CTRL = 14


def process_variables(configuration: Configuration) -> dict[tuple[Source, int], ProcessVariable]:
    """Return the process variables by (source, pvId): what leads from an event's record to a name."""
    described = {
        (source, entry.pv_id): str(entry.description)
        for source, view in configuration.of_type(54)
        for entry in view.get_pv_config
    }
    return {
        (source, view.pv_id): _process_variable(view, described.get((source, view.pv_id), ""))
        for source, view in configuration.epics
        if view.is_ctrl
    }


def _process_variable(view: View, description: str) -> ProcessVariable:
    dbr = view.dbr
    known = dbr.record.accessors
    states = tuple(dbr.strings[: dbr.no_str]) if "strings" in known else ()
    return ProcessVariable(
        name=str(view.pv_name),
        description=description,
        dbr_type=view.dbr_type - _TIME_FROM_CTRL,
        count=view.num_elements,
        unit=str(dbr.units) if "units" in known else "",
        states=states,
    )


def made_up_name(source: Source, pv_id: int) -> str:
    """Return a name for a process variable that no Configure names."""
    return f"{source_name(source[0] << 24, source[1])}:pv{pv_id}"


# ---- event codes --------------------------------------------------------------------------------
def event_codes(configuration: Configuration) -> dict[int, str]:
    """Return the event codes that the receivers were set up for, with their descriptions."""
    found: dict[int, str] = {}
    for _, view in configuration.of_type(8, 78):
        if "eventcodes" in view.record.accessors:
            for code in view.eventcodes:
                text = str(code.desc) if "desc" in code.record.accessors else ""
                found[code.code] = found.get(code.code) or text
    return dict(sorted(found.items()))


# ---- scan steps ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class ScanStep:
    """What the run control asked for in one step.

    Parameters
    ----------
    controls : dict
        Value that each scan variable was set to; elements of arrays are ``name[index]``.
    monitors : dict
        (low, high) that each monitored variable had to stay between.
    labels : dict
        Text for the step, by name.
    events : int or None
        Number of events asked for.
    duration : float or None
        Seconds asked for.
    """

    controls: dict[str, float]
    monitors: dict[str, tuple[float, float]]
    labels: dict[str, str]
    events: int | None
    duration: float | None


def scan_step(configuration: Configuration) -> ScanStep | None:
    """Return what the run control asked for, None if it said nothing."""
    view = next((view for _, view in configuration.of_type(10)), None)
    if view is None:
        return None
    labels = view.pv_labels if "pvLabels" in view.record.accessors else []
    clock = view.duration
    return ScanStep(
        controls={_element(pv): pv.value for pv in view.pv_controls},
        monitors={_element(pv): (pv.lo_value, pv.hi_value) for pv in view.pv_monitors},
        labels={str(label.name): str(label.value) for label in labels},
        events=view.events if view.uses_events else None,
        duration=clock.seconds + clock.nanoseconds * 1e-9 if view.uses_duration else None,
    )


def _element(pv: View) -> str:
    return str(pv.name) if pv.index == NOT_AN_ARRAY else f"{pv.name}[{pv.index}]"
