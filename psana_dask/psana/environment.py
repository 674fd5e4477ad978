"""The environment of a run: names, EPICS values, configurations, as psana's ``env`` has them.

Values are those at the event (or step) that the script's loop is at, whatever was read ahead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.errors import NameNotFound
from psana_dask.model import Kind
from psana_dask.psana.ddl import Record, Type, address_of, title_of
from psana_dask.psana.events import EventKey
from psana_dask.readers.xtc_config import Configuration
from psana_dask.readers.xtc_layout import source_fits, source_name
from psana_dask.slow_xtc import configuring, state_at
from psana_dask.stepwise import Series

if TYPE_CHECKING:
    from psana_dask.psana.runs import Run


class Env:
    """What psana calls the environment of a run.

    Parameters
    ----------
    run : Run

    Examples
    --------
    >>> env = ds.env()
    >>> env.epicsStore().value("XPP:TEMP")
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def experiment(self) -> str:
        """Return the name of the experiment."""
        return self._run.expt or ""

    def instrument(self) -> str:
        """Return the instrument, as ``XPP``."""
        return self.experiment()[:3].upper()

    def expNum(self) -> int | None:
        """Return the number of the experiment where the names of its files say it, else None."""
        names = (os.path.basename(path) for path in self._run.native.files)
        found = next((m for m in (re.match(r"e(\d+)-r", name) for name in names) if m), None)
        return int(found[1]) if found else None

    def run(self) -> int:
        """Return the number of the run."""
        return self._run.runnum

    def calibDir(self) -> str:
        """Return where constants are looked for; see `psana_dask.open(calib=)`."""
        view = self._run.native._view
        if isinstance(view.calib, str | os.PathLike):
            return os.fspath(view.calib)
        beside = os.path.join(os.path.dirname(os.path.dirname(self._run.native.files[0])), "calib")
        return os.environ.get("PSANA_DASK_CALIB", beside)

    def jobName(self) -> str:
        """Return a name for output files, as psana made it: experiment and run."""
        return f"{self.experiment()}-r{self._run.runnum:04d}"

    def subprocess(self) -> int:
        """Return 0: there is one process."""
        return 0

    def fwkName(self) -> str:
        """Return the name of the framework."""
        return "psana_dask"

    def configStore(self) -> ConfigStore:
        """Return the configurations in force."""
        return ConfigStore(self._run)

    def epicsStore(self) -> EpicsStore:
        """Return the EPICS values in force."""
        return EpicsStore(self._run)

    def aliasMap(self) -> AliasMap:
        """Return the DAQ's names of the sources."""
        return AliasMap(self._run)

    def getConfig(self, what: Type, source: Any = "") -> Record | None:
        """Return a configuration; see `ConfigStore.get`."""
        found: Record | None = self.configStore().get(what, source)
        return found


def now(run: Run) -> np.datetime64:
    """Return the time that the script's loop is at; before it the beginning of the run."""
    if run._now is not None:
        return run._now.time
    return run.native.start if len(run.native) else np.datetime64(np.iinfo(np.int64).max, "ns")


# ---- EPICS --------------------------------------------------------------------------------------
class EpicsStore:
    """EPICS values at the event that the loop is at.

    Parameters
    ----------
    run : Run

    Examples
    --------
    >>> store = ds.env().epicsStore()
    >>> store.value("XPP:TEMP"), store.status("XPP:TEMP")
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def names(self) -> list[str]:
        """Return all names: process variables and aliases."""
        return [name for series in self._series() for name in series.spellings]

    def pvNames(self) -> list[str]:
        """Return the names of the process variables."""
        return [series.pv or series.name for series in self._series()]

    def aliases(self) -> list[str]:
        """Return the aliases."""
        return [name for series in self._series() if (name := _alias(series))]

    def alias(self, pv: str) -> str:
        """Return the alias of a process variable, '' without one."""
        return _alias(self._run.native.epics.find(pv))

    def pvName(self, alias: str) -> str:
        """Return the process variable of an alias."""
        return self._run.native.epics.find(alias).pv

    def value(self, name: str, index: int | None = None) -> Any:
        """Return the value in force, or one element of it; None before the first update or without the PV."""
        if name not in self._run.native.epics:
            return None
        return value_at(self._run.native.epics.find(name), now(self._run), index)

    def status(self, name: str) -> tuple[int, int, float]:
        """Return status, severity and Unix time of the value in force (LCLS-1)."""
        series = self._run.native.epics.find(name)
        at = _place(series, now(self._run))
        if at < 0 or "status" not in series.facts:
            raise NameNotFound(f"no status of {name} is known at {now(self._run)}")
        stamp = float(series.facts["stamp"][at].astype("M8[ns]").astype(np.int64)) * 1e-9
        return int(series.facts["status"][at]), int(series.facts["severity"][at]), stamp

    def getPV(self, name: str) -> EpicsPv | None:
        """Return a process variable with its value, status and limits in force; None without it."""
        return EpicsPv(self._run, name) if name in self._run.native.epics else None

    def _series(self) -> Iterator[Series]:
        yield from self._run.native.epics.series.values()


class EpicsPv:
    """One process variable at the event that the loop is at.

    Parameters
    ----------
    run : Run
    name : str
    """

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._name = run, name

    def pvName(self) -> str:
        """Return its name."""
        return self._run.native.epics.find(self._name).pv

    def value(self, index: int = 0) -> Any:
        """Return one element of its value."""
        found = EpicsStore(self._run).value(self._name)
        return found[index] if isinstance(found, np.ndarray) else found

    def data(self) -> Any:
        """Return its value as an array."""
        return np.atleast_1d(EpicsStore(self._run).value(self._name))

    def numElements(self) -> int:
        """Return how many elements it has."""
        return int(np.size(self.data()))

    def status(self) -> int:
        """Return the alarm status."""
        return EpicsStore(self._run).status(self._name)[0]

    def severity(self) -> int:
        """Return the alarm severity."""
        return EpicsStore(self._run).status(self._name)[1]


def _alias(series: Series) -> str:
    own = [name for name in series.spellings if name != series.pv]
    return (series.description or own[0]) if own else ""


def _place(series: Series, time: np.datetime64) -> int:
    return int(np.searchsorted(series.time, time, side="right")) - 1


def value_at(series: Series, time: np.datetime64, index: int | None = None) -> Any:
    """Return the value of a slow variable at a time: a number, text or an array; None before the first."""
    at = _place(series, time)
    if at < 0:
        return None
    found = series.values[at]
    if index is not None:
        found = np.atleast_1d(found)[index]
    if isinstance(found, np.ndarray) and found.ndim:
        return found.copy()
    plain = found.item() if hasattr(found, "item") else found
    return int(plain) if series.kind is Kind.ENUM else plain


# ---- configurations -----------------------------------------------------------------------------
class ConfigStore:
    """Configurations in force at the event that the loop is at.

    Parameters
    ----------
    run : Run

    Examples
    --------
    >>> config = ds.env().configStore().get(CsPad.ConfigV5, Source("cspad"))
    >>> config.roiMask(0)
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def get(self, what: Any, source: Any = "") -> Any:
        """Return a configuration record; None where there is none.

        Parameters
        ----------
        what : type or str
            ``CsPad.ConfigV5`` (LCLS-1), or a detector's name: then its settings by our names.
        source : Source or str
        """
        if not isinstance(what, Type):
            return self._run.native.config(str(what))
        for record, _, _ in self._records(address_of(source)):
            if what(record):
                return record
        return None

    def keys(self) -> list[EventKey]:
        """Return what there is: type, source, alias."""
        return [EventKey(title_of(record), name, alias) for record, name, alias in self._records("")]

    def _in_force(self, stream: int, state: int, limit: int) -> Configuration:
        """Return the records of a stream at a time, with those of the last BeginCalibCycle (the scan)."""
        recording = self._run.native._recording
        rows, blocks = configuring(recording, stream), recording.blocks[stream]
        row = int(rows[recording.streams[stream]["time"][rows] <= limit][-1])
        kept: dict[tuple[int, int], Configuration] = self._run.__dict__.setdefault("_configurations", {})
        if (stream, row) not in kept:
            configuration = blocks.configuration(state)
            kept[stream, row] = configuration.with_dgram(blocks.dgram(row), blocks.leaves(row))
        return kept[stream, row]

    def _records(self, address: str) -> Iterator[tuple[Record, str, str]]:
        recording = self._run.native._recording
        if recording.format != "xtc":
            return
        limit = int(now(self._run).astype("M8[ns]").astype(np.int64))
        seen = set()
        for stream in recording.wanted:
            state = state_at(recording.streams[stream], limit)
            if state < 0:
                continue
            for (key, (level, phy)), view in self._in_force(stream, state, limit).records.items():
                name = source_name(level << 24, phy)
                alias = recording.aliases.get(name, "")
                if (key, name) not in seen and _fits(address, name, alias):
                    seen.add((key, name))
                    yield Record(view), name, alias


def _fits(address: str, name: str, alias: str) -> bool:
    plain = re.sub(r"^\w+Info\((.*)\)$", r"\1", address)
    return not address or address == name or plain in (name, alias) or source_fits(address, name)


class AliasMap:
    """The DAQ's names of the sources.

    Parameters
    ----------
    run : Run

    Examples
    --------
    >>> ds.env().aliasMap().alias("XppGon.0:Cspad.0")
    'cspad'
    """

    def __init__(self, run: Run) -> None:
        self._aliases = dict(run.native._recording.aliases)

    def alias(self, source: Any) -> str:
        """Return the name of a source, '' without one."""
        plain = re.sub(r"^\w+Info\((.*)\)$", r"\1", address_of(source))
        return self._aliases.get(plain, "")

    def src(self, alias: str) -> str:
        """Return the source of a name, '' without one."""
        return next((source for source, name in self._aliases.items() if name == alias), "")

    def srcs(self) -> list[str]:
        """Return the sources that have names."""
        return list(self._aliases)


# ---- names --------------------------------------------------------------------------------------
def detector_names(run: Run, which: str = "detectors") -> list[tuple[str, str, str]]:
    """Return (full name, DAQ's name, '') of detectors, of EPICS variables, or of both.

    Parameters
    ----------
    run : Run
    which : {"detectors", "epics", "all"}
    """
    if which not in ("detectors", "epics", "all"):
        raise ValueError(f'which={which!r}: use "detectors", "epics" or "all"')
    found = []
    if which != "epics":
        for entry in run.native._view.entries.values():
            full = entry.source or entry.alias
            found.append((full, "" if entry.alias == full else entry.alias, ""))
    if which != "detectors":
        found += [(s.pv or s.name, _alias(s), "") for s in run.native.epics.series.values()]
    return found
