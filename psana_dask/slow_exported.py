"""Slow data of an export: EPICS, steps, settings and event codes as they were in the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import NameNotFound
from psana_dask.exported import Store, times_of
from psana_dask.exported_fields import store_of
from psana_dask.model import Array, Kind, Problem
from psana_dask.pipeline import catalog_of
from psana_dask.recording import Recording
from psana_dask.settings import Config, DetectorConfig, EnumValue
from psana_dask.stepwise import Series, Steps

if TYPE_CHECKING:
    from psana_dask.dataset import View


def epics_series(recording: Recording) -> tuple[dict[str, Series], list[Problem]]:
    """Return the updates of every EPICS variable by name; problems were kept with those of the run."""
    store = store_of(recording)
    return {name: _series(store, name, said) for name, said in store.about["epics"].items()}, []


def _series(store: Store, name: str, said: Mapping[str, Any]) -> Series:
    group = f"epics/{name}"
    return Series(
        name=name,
        pv=said["pv"],
        time=times_of(store, f"{group}/time"),
        values=store.whole(f"{group}/value"),
        kind=Kind(said["kind"]),
        enum={int(k): v for k, v in said["enum"].items()},
        unit=said["unit"],
        description=said["description"],
        facts={fact: _fact(store, f"{group}/{fact}") for fact in said["facts"]},
    )


def _fact(store: Store, name: str) -> Array:
    is_time = " since " in str(store.attrs_of(name).get("units", ""))
    return times_of(store, name) if is_time else store.whole(name)


def steps(recording: Recording) -> Steps:
    """Return the steps with their scan values."""
    store = store_of(recording)
    names = [n for n in store.names("steps") if n not in ("start", "stop", "step")]
    values = {name: store.whole(f"steps/{name}") for name in names}
    start, stop = times_of(store, "steps/start"), times_of(store, "steps/stop")
    return Steps(start, stop, values, tuple(store.about["scanned"]))


def settings(recording: Recording, alias: str, limit: int) -> DetectorConfig:
    """Return the settings of a detector as they were at the end of the run."""
    del limit
    store = store_of(recording)
    entry = catalog_of(recording).find(alias)
    group = f"settings/{alias if entry is None else entry.name}"
    if f"{group}/text" not in store:
        return DetectorConfig({})
    said = json.loads(store.whole(f"{group}/text").item())
    return DetectorConfig({int(k): _setting(store, group, v) for k, v in said.items()})


def _setting(store: Store, group: str, value: Any) -> Any:
    """Return a setting from what `export.descriptions` made of it."""
    match value:
        case {"config": inner}:
            config = Config()
            for name, one in inner.items():
                config._values[name] = _setting(store, group, one)
            return config
        case {"enum": number, "names": names}:
            return EnumValue(number, {int(k): v for k, v in names.items()})
        case {"array": name}:
            return store.whole(f"{group}/{name}")
        case {"list": values}:
            return [_setting(store, group, one) for one in values]
        case {"number": number, "dtype": dtype}:
            return np.dtype(dtype).type(number)
        case {"bytes": text}:
            return bytes.fromhex(text)
    return value


def code_words(view: View, *, own_fiducial: bool = False) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the codes of each event as bits, and whether it has timing data.

    Raises
    ------
    NameNotFound
        The run had no event codes.
    """
    store = store_of(view.recording)
    if "codes/words" not in store:
        raise NameNotFound("this export has no event codes: the run had none")
    words = store.whole("codes/own_words" if own_fiducial else "codes/words")
    numbers = view.choice.numbers
    return words[numbers].astype(np.uint16), store.whole("codes/present").astype(bool)[numbers]
