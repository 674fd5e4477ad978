"""The time tool of a run: whatever of DAQ results and EPICS values it has, or from camera images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psana_dask.algorithms import timetool as blocks
from psana_dask.analysis.events import EVENT, Output, by_event
from psana_dask.errors import NameNotFound

# fmt: off
NAMES = {                  # LCLS-II fex,  LCLS-1 TimeTool data,  EPICS
    "position":        (("fltpos",     "position_pixel", "FLTPOS"),     "pixel"),
    "time_ps":         (("fltpos_ps",  "position_time",  "FLTPOS_PS"),  "ps"),
    "amplitude":       (("ampl",       "amplitude",      "AMPL"),       ""),
    "fwhm":            (("fltposfwhm", "position_fwhm",  "FLTPOSFWHM"), "pixel"),
    "next_amplitude":  (("amplnxt",    "nxt_amplitude",  "AMPLNXT"),    ""),
    "ref_amplitude":   (("refampl",    "ref_amplitude",  "REFAMPL"),    ""),
}
# fmt: on
"""What the sources call each variable, and its unit."""


class HasTimeTool(Protocol):
    """What of a run is needed."""

    @property
    def detectors(self) -> Mapping[str, Any]:
        """Detectors by name."""
        ...

    @property
    def epics(self) -> Any:
        """EPICS variables; ``at()`` gives them at the events."""
        ...


def time_tool(
    run: HasTimeTool,
    detector: str | None = None,
    *,
    stage: str | xr.DataArray | None = None,
    sign: int = 1,
) -> xr.Dataset:
    """Return the time tool's results of a run, under one set of names whatever their source.

    ``run.timetool`` is the same, unless a detector has this name.

    Parameters
    ----------
    run : Run
    detector : str, optional
        Take this one; by default the first detector with such results, else EPICS variables.
    stage : str or DataArray, optional
        Nominal delay in seconds, an EPICS variable or values by time: adds ``delay``.
    sign : {1, -1}
        See `corrected_delay`.

    Returns
    -------
    Dataset
        ``position`` (pixels), ``time_ps``, ``amplitude``, ``fwhm``, ``next_amplitude`` and
        ``ref_amplitude`` (time), those that there are, and ``delay`` (seconds); ``attrs["source"]`` says
        whose.

    Raises
    ------
    NameNotFound
        The run has no time tool, or the detector no such results.

    Examples
    --------
    >>> analysis.time_tool(run, stage="LAS:DELAY").delay
    """
    data = _whichever(run, list(run.detectors) if detector is None else [detector], detector is None)
    if stage is None:
        return data
    if "time_ps" not in data:
        raise NameNotFound(f"{data.attrs['source']} gives no times: use analysis.corrected_delay and time_of")
    series = run.epics[stage] if isinstance(stage, str) else stage
    return data.assign(delay=corrected_delay(series, data["time_ps"], sign=sign))


def _whichever(run: HasTimeTool, chosen: Sequence[str], epics: bool) -> xr.Dataset:
    for name in chosen:
        found = _of_detector(run.detectors[name])
        if "position" in found:
            return _labelled(found, f"detector {name}")
    found = _of_epics(run.epics) if epics else {}
    if "position" in found:
        return _labelled(found, "EPICS")
    raise NameNotFound(
        f"no time tool among {', '.join(chosen) or 'no detectors'} or the EPICS variables; "
        "analysis.time_edges finds edges in images"
    )


def _of_detector(detector: Any) -> dict[str, xr.DataArray]:
    found = {}
    for variable, (names, _) in NAMES.items():
        for field in detector.fields:
            if any(field == name or field.endswith(f"fex_{name}") for name in names):
                found[variable] = detector.field(field)
    return {k: v for k, v in found.items() if isinstance(v, xr.DataArray) and v.dims == (EVENT,)}


def _of_epics(epics: Any) -> dict[str, xr.DataArray]:
    names = list(epics)
    wanted = {
        variable: name
        for variable, (words, _) in NAMES.items()
        for name in names
        if name.upper().replace(":", "_").endswith(f"_{words[2]}")
    }
    values = epics.at() if wanted else {}
    return {variable: values[name] for variable, name in wanted.items()}


def _labelled(found: Mapping[str, xr.DataArray], source: str) -> xr.Dataset:
    arrays = {name: array.drop_attrs().assign_attrs(units=NAMES[name][1]) for name, array in found.items()}
    return xr.Dataset(arrays).assign_attrs(source=source)


def project(images: xr.DataArray, rows: slice, pedestals: Any = None) -> xr.DataArray:
    """Return the mean over a region of rows of each image, ([time,] sample); see `algorithms.project`.

    Examples
    --------
    >>> signals = analysis.project(run.opal.raw, slice(400, 450))
    """
    outputs = [Output("projection", {"sample": images.shape[-1]})]
    dark = None if pedestals is None else np.asarray(pedestals)
    chosen = {"rows": rows, "pedestals": dark}
    return by_event(blocks.project, images, outputs, constants=chosen)["projection"]


def time_edges(
    projections: xr.DataArray,
    dropped: xr.DataArray,
    weights: NDArray[Any],
    *,
    calibration: Sequence[float] = (),
    fraction: float = 0.1,
    share: float = 0.8,
) -> xr.Dataset:
    """Find the edge of each event, against the running mean of the dropped shots.

    Parameters
    ----------
    projections : DataArray (time, sample)
        From `project`, background taken off. Those of the dropped shots are computed here.
    dropped : DataArray (time) bool
        Events without X-rays: ``run.evr[162]``.
    weights : (weight,) array
        Of the matched filter; `algorithms.step_weights` makes plain ones.
    calibration : sequence of float, optional
        Polynomial from pixels to picoseconds, lowest power first: adds ``time_ps``.
    fraction : float
        Weight of the newest dropped shot in the reference.
    share : float
        Of the maximum, above which points count for the parabola.

    Returns
    -------
    Dataset
        The variables of `time_tool`, lazy where `projections` are.

    Examples
    --------
    >>> edges = analysis.time_edges(signals, run.evr[162], algorithms.step_weights(50))
    """
    missing = dropped.reindex({EVENT: projections[EVENT].values}, fill_value=False).values.astype(bool)
    # only the dropped shots are read now; the others stand as zeros, which no reference is made of
    signals = np.zeros(projections.shape)
    signals[missing] = projections[missing].values
    references, which = blocks.running_references(signals, missing, fraction=fraction)
    names = ("position", "amplitude", "fwhm", "next_amplitude", "ref_amplitude")
    at = xr.DataArray(which, {EVENT: projections[EVENT].values}, (EVENT,))
    chosen = {"references": references, "weights": np.asarray(weights), "share": share}
    found = by_event(_edges, projections, [Output(name) for name in names], at, constants=chosen)
    if len(calibration):
        found["time_ps"] = xr.apply_ufunc(
            lambda position: blocks.time_of(position, calibration), found["position"],
            dask="parallelized", output_dtypes=[np.float64],
        )  # fmt: skip
    return _labelled(found, "projections")


def _edges(signals: NDArray[Any], which: NDArray[np.int64], **chosen: Any) -> tuple[NDArray[Any], ...]:
    return tuple(
        blocks.find_time_edges(signals, chosen.pop("references"), chosen.pop("weights"), which, **chosen)
    )


def corrected_delay(stage: xr.DataArray, time_ps: xr.DataArray, *, sign: int = 1) -> xr.DataArray:
    """Return the delay between laser and X-rays: ``stage + sign * time_ps * 1e-12``, in seconds.

    Parameters
    ----------
    stage : DataArray (time)
        Nominal delay in seconds, by event; or an EPICS variable at its own rate, which holds until its
        next update.
    time_ps : DataArray (time)
        Of `time_tool` or `time_edges`. An event without it gets NaN.
    sign : {1, -1}
        Whether a larger position means a later laser.

    Examples
    --------
    >>> analysis.corrected_delay(run.epics.at()["stage"], run.timetool.time_ps)
    """
    if sign not in (1, -1):
        raise ValueError(f"sign={sign}: 1 or -1")
    if "pv" in stage.attrs:  # a step function of time
        stage = stage.drop_vars(set(stage.coords) - {EVENT}).reindex({EVENT: time_ps[EVENT]}, method="ffill")
    stage, shift = xr.align(stage, time_ps, join="left")
    delay = (stage + sign * shift * 1e-12).rename("delay")
    return delay.drop_attrs().assign_attrs(units="s")
