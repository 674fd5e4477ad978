"""Cuts: several conditions on events, and how many events each of them removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from psana_dask.analysis.events import EVENT

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Cuts:
    """Conditions taken together.

    Examples
    --------
    >>> cuts = analysis.apply_cuts({"bright": run.gmd.milliJoulesPerPulse > 0.9})
    >>> cuts.table
    """

    mask: xr.DataArray
    # (time,) bool: the events that pass all of them; for `run.select`
    table: pd.DataFrame
    # one row per cut, in order


def apply_cuts(cuts: Mapping[str, xr.DataArray] | xr.Dataset, events: xr.DataArray | None = None) -> Cuts:
    """Take conditions together and count what each of them removes.

    Parameters
    ----------
    cuts : mapping of name to boolean DataArray (time)
        In the order in which they are to be counted; a Dataset of flags (``run.flags``) will do. An
        event that a condition does not have does not pass it. Lazy ones are computed, all at once.
    events : DataArray, optional
        The times of all events (``run.events.time``); by default those that any condition has.

    Returns
    -------
    Cuts
        ``table``: ``passed`` (events that pass this cut alone), ``left`` (after it and all before it),
        ``removed`` (by it, of those that were left), ``absent`` (events that it does not have).

    Raises
    ------
    ValueError
        No condition, or one that is not boolean along time.

    Examples
    --------
    >>> laser = run.flags({"laser": [90, -162]})
    >>> cuts = analysis.apply_cuts({**laser, "i0": run.gmd.milliJoulesPerPulse > 0.5})
    >>> cuts.table
    >>> good = run.select(cuts.mask)
    """
    import pandas as pd

    given = {str(name): xr.DataArray(cut) for name, cut in cuts.items()}
    if not given:
        raise ValueError("no condition is given")
    for name, cut in given.items():
        if cut.dims != (EVENT,) or cut.dtype != bool:
            raise ValueError(f"cut {name!r} is {cut.dtype} {cut.dims}, not bool along {EVENT}")
    loaded = xr.Dataset({n: c.drop_vars([x for x in c.coords if x != EVENT]) for n, c in given.items()}, None)
    times = loaded[EVENT] if events is None else events
    whole = loaded.reindex({EVENT: times.values}, fill_value=False).load()
    rows, left = [], np.ones(whole.sizes[EVENT], bool)
    for name, cut in given.items():
        passed = _filled(whole[name])
        absent = int((~np.isin(times.values, cut[EVENT].values)).sum())
        removed = int((left & ~passed).sum())
        left = left & passed
        rows.append((int(passed.sum()), int(left.sum()), removed, absent))
    table = pd.DataFrame(rows, pd.Index(list(given), name="cut"), ["passed", "left", "removed", "absent"])
    return Cuts(xr.DataArray(left, {EVENT: times.values}, (EVENT,), name=" and ".join(given)), table)


def _filled(flags: xr.DataArray) -> Any:
    """Return booleans, False where alignment made them missing."""
    values = flags.values
    return values if values.dtype == bool else np.equal(values, True)
