"""What one event of a run shows: a picture, lines, numbers, EPICS values, its step.

Each function takes a run and returns plain values; `pages.events` puts them on a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from psana_dask.drawing import side_by_side
from psana_dask.errors import EventNotFound, GeometryError, NameNotFound
from psana_dask.pages.pictures import Picture

if TYPE_CHECKING:
    from psana_dask.detector import Detector
    from psana_dask.run import Run

MOST_POINTS = 4000
"""Points of a line that are sent to a browser; longer ones are shown by their smallest and largest values."""

MOST_LINES = 16


@dataclass(frozen=True)
class Form:
    """How the frames of a detector are drawn."""

    calibrated: bool
    assembled: bool


FORMS = {
    "image": Form(calibrated=True, assembled=True),
    "image of raw counts": Form(calibrated=False, assembled=True),
    "panels": Form(calibrated=True, assembled=False),
    "panels of raw counts": Form(calibrated=False, assembled=False),
}

MASKS: dict[str, dict[str, bool] | None] = {
    "bad status": {},
    "bad status and pixel_mask": {"calib": True},
    "no mask": None,
}
"""What is left out of a picture: choices of `Detector.masked`."""


@dataclass(frozen=True)
class Layout:
    """What the events of a run have to show.

    Parameters
    ----------
    frames : tuple of str
        Detectors with frames.
    lines : tuple of str
        ``detector.field`` with an axis of samples.
    scalars : tuple of (detector, field)
    """

    frames: tuple[str, ...]
    lines: tuple[str, ...]
    scalars: tuple[tuple[str, str], ...]


def layout_of(run: Run) -> Layout:
    """Return what the events of a run have to show."""
    frames, lines, scalars = [], [], []
    for name, detector in run.detectors.items():
        for field in detector.fields:
            dims = _dims(detector, field)
            if field == "raw" and dims[-2:] == ("row", "col"):
                frames.append(name)
            elif dims == ("time",):
                scalars.append((name, field))
            elif dims and dims[-2:] not in (("row", "col"), ("y", "x")):
                lines.append(f"{name}.{field}")
    main = [n for n in lines if n.partition(".")[2] in ("raw", "volts", "spectrum", "waveform")]
    return Layout(tuple(frames), tuple(main + [n for n in lines if n not in main]), tuple(scalars))


def _dims(detector: Detector, field: str) -> tuple[str, ...]:
    """Return the dimensions of a field; those of a ragged one's items; none if no event has it."""
    try:
        found = detector.field(field, chunks=None)
    except NameNotFound:
        return ()
    return tuple(map(str, (found[field] if isinstance(found, xr.Dataset) else found).dims))


# ---- the picture --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Wanted:
    """Which picture of an event.

    Parameters
    ----------
    detector : str
    form : str
        A key of `FORMS`.
    mask : str
        A key of `MASKS`.
    common_mode : bool
        False leaves the common mode out.
    """

    detector: str
    form: str = "image"
    mask: str = "bad status"
    common_mode: bool = True


def picture_of(event: Run, wanted: Wanted) -> Picture:
    """Return the picture of the only event of a run.

    Raises
    ------
    EventNotFound
        The event does not have the detector.
    PsanaError
        Names, constants or geometry: what `Detector.assembled` raises.
    """
    detector = event[wanted.detector]
    if not detector.presence:
        raise EventNotFound(f"this event has no {detector.name}")
    frame = _frames(detector, wanted).isel(time=0).load()
    good = _good(detector, wanted, frame)
    calibrated = bool(frame.attrs.get("calibrated", FORMS[wanted.form].calibrated))
    unit = str(frame.attrs.get("units", "")) or ("" if calibrated else "ADU")
    values = frame.values
    if frame.ndim == 3:
        values, good = side_by_side(values), None if good is None else side_by_side(good) > 0
    if "x" in frame.coords:
        x, y, axes = _millimetres(frame.x.values), _millimetres(frame.y.values), "mm"
    else:
        x, y, axes = (0.0, float(values.shape[1])), (0.0, float(values.shape[0])), "pixels"
    return Picture(np.asarray(values, np.float32), x, y, axes, unit, good, calibrated)


def _millimetres(places: npt.NDArray[np.float64]) -> tuple[float, float]:
    half = float(places[-1] - places[0]) / max(len(places) - 1, 1) / 2
    return 1e3 * (float(places[0]) - half), 1e3 * (float(places[-1]) + half)


def _frames(detector: Detector, wanted: Wanted) -> xr.DataArray:
    form = FORMS[wanted.form]
    if not form.calibrated:
        return detector.assembled(chunks=None) if form.assembled else _raw(detector)
    how: dict[str, Any] = {} if wanted.common_mode else {"common_mode": None}
    if form.assembled and not how:
        return detector.assembled(calibrated=True, policy="raw", chunks=None)
    frames = detector.calibrated(policy="raw", chunks=None, **how)
    if not form.assembled:
        return frames
    image = detector.assembled(frames)
    return image.assign_attrs(calibrated=frames.attrs.get("calibrated", True))


def _raw(detector: Detector) -> xr.DataArray:
    found = detector.field("raw", chunks=None)
    if not isinstance(found, xr.DataArray):
        raise NameNotFound(f"{detector.name} has no frames")
    return found.assign_attrs(calibrated=False)


def _good(detector: Detector, wanted: Wanted, frame: xr.DataArray) -> npt.NDArray[np.bool_] | None:
    """Return the pixels of a frame that are not masked, None if nothing is."""
    parts = MASKS[wanted.mask]
    if parts is None:
        return None
    mask = detector.masked(**parts)
    if FORMS[wanted.form].assembled:
        mask = detector.assembled(mask)
    good: npt.NDArray[np.bool_] = mask.values.reshape(frame.shape) > 0
    return good


PANEL_IMPORTS = ("import matplotlib.pyplot as plt", "from psana_dask.drawing import side_by_side")


def code_of(opening: str, time: Any, wanted: Wanted, limits: tuple[float, float]) -> str:
    """Return the program that draws the same picture.

    Parameters
    ----------
    opening : str
        The line that opens the run.
    time : datetime64
    wanted : Wanted
    limits : (float, float)
        Lowest and highest colour.
    """
    form, name = FORMS[wanted.form], repr(wanted.detector)
    low, high = (float(f"{v:.6g}") for v in limits)
    lines = ["import psana_dask", "", opening, f"det = run.sel({str(time)!r})[{name}]"]
    lines += _frame_code(form, wanted.common_mode)
    good = _mask_code(form, MASKS[wanted.mask])
    if good:
        lines += [good, "frame = frame.where(good > 0)"]
    if form.assembled:
        lines += [f"frame.psana.plot(vmin={low}, vmax={high})"]
    else:
        lines += ["", *PANEL_IMPORTS, "", f"plt.imshow(side_by_side(frame.values), vmin={low}, vmax={high})"]
    return "\n".join(lines) + "\n"


def _frame_code(form: Form, common_mode: bool) -> list[str]:
    off = "" if common_mode else ", common_mode=None"
    if not form.calibrated:
        return [f"frame = det.{'assembled()' if form.assembled else 'raw'}.isel(time=0)"]
    if form.assembled and common_mode:
        return ['frame = det.assembled(calibrated=True, policy="raw").isel(time=0)']
    frames = f'det.calibrated(policy="raw"{off})'
    return [f"frame = {f'det.assembled({frames})' if form.assembled else frames}.isel(time=0)"]


def _mask_code(form: Form, parts: dict[str, bool] | None) -> str:
    if parts is None:
        return ""
    mask = f"det.masked({', '.join(f'{k}={v}' for k, v in parts.items())})"
    return f"good = {f'det.assembled({mask})' if form.assembled else mask}"


# ---- everything else of the event ---------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Lines:
    """Curves of one field: x and y of each, and their names."""

    x: list[npt.NDArray[Any]]
    y: list[npt.NDArray[Any]]
    names: list[str]
    axis: str
    unit: str
    left_out: int = 0  # curves beyond `MOST_LINES`


def lines_of(event: Run, name: str) -> Lines:
    """Return the curves of ``detector.field`` in the only event of a run.

    Raises
    ------
    EventNotFound
        The event does not have the detector.
    """
    detector, _, field = name.partition(".")
    found = event[detector].field(field, chunks=None)
    if not event[detector].presence:
        raise EventNotFound(f"this event has no {detector}")
    ragged = isinstance(found, xr.Dataset)
    array = found[field] if isinstance(found, xr.Dataset) else found.isel(time=0)
    if ragged:
        array = array.transpose(..., f"{field}_item")
    values = np.asarray(array.values)
    rows = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    names = [_row_name(array, k) for k in range(min(len(rows), MOST_LINES))]
    curves = [_thinned(row) for row in rows[:MOST_LINES]]
    return Lines([c[0] for c in curves], [c[1] for c in curves], names, str(array.dims[-1]),
                 str(array.attrs.get("units", "")), max(0, len(rows) - MOST_LINES))  # fmt: skip


def _row_name(array: xr.DataArray, row: int) -> str:
    at = np.unravel_index(row, array.shape[:-1] or (1,))
    return ", ".join(f"{dim} {i}" for dim, i in zip(array.dims[:-1], at, strict=False)) or str(array.name)


def _thinned(row: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return x and y of a curve; of a long one smallest and largest value of each stretch."""
    values = np.asarray(row, np.float64)
    if len(values) <= MOST_POINTS:
        return np.arange(len(values)), values
    step = -(-2 * len(values) // MOST_POINTS)
    at = np.arange(0, len(values), step)
    x = np.repeat(at + step / 2, 2)
    return x, np.stack([np.minimum.reduceat(values, at), np.maximum.reduceat(values, at)], 1).reshape(-1)


def scalars_of(event: Run, layout: Layout) -> list[tuple[str, Any, str]]:
    """Return name, value and unit of every number of the only event of a run; missing ones are ``"-"``."""
    rows, detectors = [], dict(event.detectors)  # each says once whether the event has it
    for name, field in layout.scalars:
        found = detectors[name].field(field, chunks=None)
        value = np.asarray(found.data).reshape(-1)[0].item() if detectors[name].presence else "-"
        rows.append((f"{name}.{field}", value, str(found.attrs.get("units", ""))))
    return rows


def epics_of(event: Run) -> Iterator[tuple[str, Any, str, str]]:
    """Yield name, value in force, unit and PV of every EPICS variable; those without a value are ``"-"``."""
    time = event.events.time.values
    for name, series in event.epics.series.items():
        values, has = series.at(time)
        attrs = series.attrs()
        value: Any = values[0] if has[0] else "-"
        value = value.item() if isinstance(value, np.generic) else value
        if has[0] and "flag_meanings" in attrs and isinstance(value, int):
            value = f"{value} ({_meaning(attrs, value)})"
        yield name, value, str(attrs.get("units", "")), series.pv


def _meaning(attrs: Any, value: int) -> str:
    meanings = str(attrs["flag_meanings"]).split()
    numbers = np.atleast_1d(attrs.get("flag_values", range(len(meanings)))).tolist()
    return dict(zip(numbers, meanings, strict=False)).get(value, "?")


def facts_of(event: Run) -> dict[str, Any]:
    """Return time, counters, step with what was scanned, and event codes of the only event of a run."""
    table = event.events
    facts: dict[str, Any] = {"time": str(table.time.values[0])}
    for name in ("timestamp", "pulse_id", "fiducial", "step"):
        if name in table.coords:
            facts[name] = table.coords[name].values[0].item()
    steps = event.steps
    if 0 <= facts.get("step", -1) < len(steps):
        scanned = steps.iloc[facts["step"]].drop(["start", "stop", "events"])
        facts |= {f"scan {name}": value for name, value in scanned.items()}
    facts["event codes"] = " ".join(map(str, _codes(event)))
    return facts


def _codes(event: Run) -> list[int]:
    try:
        return [code for code, count in event.evr.counts().items() if count]
    except (NameNotFound, KeyError):
        return []


# ---- where the detector is ----------------------------------------------------------------------
def distance_of(run: Run, detector: str) -> float | None:
    """Return how far a detector is from the sample, mm, if its geometry says so."""
    from psana_dask.geometry.tree import coordinates

    try:
        z = coordinates(run[detector].geometry, frame="lab")[2]
    except (GeometryError, NameNotFound):
        return None
    distance = float(np.nanmean(z)) * 1e-3
    return round(distance, 4) if distance > 0 else None


def energy_of(event: Run) -> float | None:
    """Return the photon energy of the only event of a run, keV, if an EBeam detector says it."""
    for detector in event.detectors.values():
        for field in ("photon_energy", "ebeamPhotonEnergy"):
            if field in detector.fields and detector.presence:
                electronvolts = float(np.asarray(detector.field(field, chunks=None)).reshape(-1)[0])
                return round(electronvolts * 1e-3, 6) if electronvolts > 0 else None
    return None
