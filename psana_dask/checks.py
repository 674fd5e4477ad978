"""Is a run sound: what is missing, damaged, late, saturated, dead or hot, and does the beam look right.

`quality` gives a Dataset; `report` makes an HTML page of it.  Frames are judged by a sample of
events, everything else by all of them.
"""

from __future__ import annotations

import html as markup
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from psana_dask.detector import Detector
from psana_dask.errors import NameNotFound
from psana_dask.run import Run

SHIFTS = np.arange(-3, 4)
"""Events by which the signal of a detector may be off from the event codes."""

HOT = 8.0
"""A pixel is hot if its mean is this many robust standard deviations above its neighbours, but for one."""

ENOUGH = 16
"""Events in which a pixel that lives does not have one value by chance."""

REGULAR = 0.8
"""A detector that more than this share of the events has, but for one stretch, should be in all of them."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def quality(
    run: Run, *, dropped_code: int = 162, sample: int = 32, html: str | Path | None = None
) -> xr.Dataset:
    """Judge a run.

    Parameters
    ----------
    run : Run
    dropped_code : int
        Event code of shots without beam.
    sample : int
        Events of each camera and digitiser that are read, evenly spread; 0 leaves them out.
    html : path, optional
        Write an HTML page there.

    Returns
    -------
    Dataset
        By ``detector``: ``present`` (share of events), ``missing``, ``damaged``, ``longest_absence``
        (events in a row), and for cameras and digitisers ``saturated`` (share of sampled values at the
        end of the range), ``dead`` and ``hot`` (pixels, or channels), ``sampled`` (events). By ``scalar``
        (one number per event): ``mean``, ``std``, ``minimum``, ``maximum``, ``invalid`` (share that is not
        finite), and by ``shift`` the ``dropped_level``: its mean, relative to that of all events, so
        many events after a dropped shot. ``off_by`` is the shift where it is lowest, 0 in a sound run, NaN
        if it does not respond to the beam. Attributes: events, rate (Hz), gaps, problems,
        ``dropped_shots`` (-1: the run has no event codes).

    Examples
    --------
    >>> found = psana_dask.quality(run, html="quality.html")
    >>> found["present"].to_pandas()
    """
    names = list(run.detectors)
    rows = [{**_presence(run, name), **_frames(run, name, sample)} for name in names]
    found = xr.Dataset(
        {key: ("detector", [row[key] for row in rows]) for key in (*PRESENCE, *FRAMES)},
        {"detector": np.array(names, dtype=str)},
        {**_timing(run), **_origin(run)},
    )
    dropped = _dropped(run, dropped_code)
    found.attrs["dropped_shots"] = int(dropped.sum()) if dropped is not None else -1
    found = xr.merge([found, _beam(run, dropped)], combine_attrs="override", join="outer", compat="equals")
    if html is not None:
        Path(html).write_text(report(found), encoding="utf-8")
    return found


# ---- what is there -------------------------------------------------------------------------------
PRESENCE = ("present", "missing", "damaged", "longest_absence")
FRAMES = ("saturated", "dead", "hot", "sampled")


def _presence(run: Run, name: str) -> dict[str, float]:
    there = _there(run, name)
    damaged = np.zeros(len(there), bool)
    if there.any():
        damaged = np.asarray(run.detectors[name].damage.values) != 0
    return {
        "present": float(there.mean()) if len(there) else np.nan,
        "missing": int((~there).sum()),
        "damaged": int(damaged.reshape(len(there), -1).any(axis=1).sum()) if len(there) else 0,
        "longest_absence": longest(~there),
    }


def _there(run: Run, name: str) -> Bools:
    """Return which events have a detector; one that is declared alone has none."""
    return np.asarray(run.detectors[name].present.values, bool)


def longest(flags: Bools) -> int:
    """Return how many events in a row are flagged at most.

    >>> longest(np.array([True, False, True, True]))
    2
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _timing(run: Run) -> dict[str, Any]:
    """Return rate and gaps; a gap is more than one and a half of the usual distance of events."""
    time = run.events["time"].values.astype(np.int64)
    step = np.diff(time) / 1e9
    usual = float(np.median(step)) if len(step) else np.nan
    late = step > 1.5 * usual
    return {
        "events": len(time),
        "rate": 1 / usual if usual else np.nan,
        "gaps": int(late.sum()),
        "longest_gap_seconds": float(step.max(initial=0.0)),
        "missed_events": int(np.rint(step[late] / usual - 1).sum()) if late.any() else 0,
        "problems": len(run.problems),
    }


def _origin(run: Run) -> dict[str, Any]:
    return {"experiment": run.experiment or "", "run": -1 if run.number is None else run.number}


# ---- cameras and digitisers ----------------------------------------------------------------------
def _frames(run: Run, name: str, sample: int) -> dict[str, float]:
    """Judge a sample of the raw frames, or waveforms, of a detector."""
    nothing = dict.fromkeys(FRAMES, np.nan)
    there = np.flatnonzero(_there(run, name))
    if sample < 1 or not len(there):
        return nothing
    chosen = there[np.unique(np.linspace(0, len(there) - 1, sample).astype(int))]
    found = _values(run.isel(chosen).detectors[name])
    if found is None or not found.size:
        return nothing
    if len(chosen) < 2:
        return {**nothing, "sampled": len(chosen)}
    judge = _of_pixels if found.dims[-2:] == ("row", "col") else _of_channels
    return {"saturated": _saturated(found.values), "sampled": len(chosen), **judge(found.values)}


def _values(detector: Detector) -> xr.DataArray | None:
    """Return frames (time[, panel], row, col), waveforms (time, ..., sample), or None."""
    if "raw" in detector.fields:
        raw = detector.field("raw", None)
        if isinstance(raw, xr.DataArray) and (raw.dims[-2:] == ("row", "col") or raw.ndim > 2):
            return raw
    try:
        return detector.waveforms(chunks=None)["waveform"]
    except NameNotFound:
        return None


def _of_pixels(frames: npt.NDArray[Any]) -> dict[str, float]:
    """Count pixels that never change, and those far above neighbours: light falls on several."""
    mean = frames.mean(axis=0, dtype=np.float64)
    panels = mean.reshape(-1, *mean.shape[-2:])
    above = panels - _second_neighbour(panels)
    middle = np.median(panels, axis=(1, 2), keepdims=True)
    spread = 1.4826 * np.median(np.abs(panels - middle), axis=(1, 2), keepdims=True)
    return {
        "dead": int((frames == frames[0]).all(axis=0).sum()),
        "hot": int((above > HOT * np.maximum(spread, 1e-9)).sum()),
    }


def _second_neighbour(panels: Floats) -> Floats:
    """Return the second highest of the eight neighbours of each pixel, (panel, row, col)."""
    rows, cols = panels.shape[1:]
    wide = np.pad(panels, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    first = second = np.full(panels.shape, -np.inf)
    for down, right in itertools.product(range(3), range(3)):
        if (down, right) != (1, 1):
            other = wide[:, down : down + rows, right : right + cols]
            second = np.maximum(second, np.minimum(first, other))
            first = np.maximum(first, other)
    return second


def _of_channels(waves: npt.NDArray[Any]) -> dict[str, float]:
    """Count channels that have one value, and those that are at the end of their range half of the time."""
    channels = np.moveaxis(waves.reshape(len(waves), -1, waves.shape[-1]), 1, 0)
    known = [channel[np.isfinite(channel)] for channel in channels]
    return {
        "dead": sum(len(v) > 0 and bool((v == v[0]).all()) for v in known),
        "hot": sum(len(v) > 0 and _saturated(v) > 0.5 for v in known),
    }


def _saturated(values: npt.NDArray[Any]) -> float:
    """Return the share of values at the end of what 8, 12, 14 or 16 bits hold; 0 of floats."""
    if values.dtype.kind not in "iu" or not values.size:
        return 0.0
    limits = np.iinfo(values.dtype)
    if values.dtype.kind == "i":
        return float(((values == limits.max) | (values == limits.min)).mean())
    highest = int(values.max())
    top = next((2**bits - 1 for bits in (8, 12, 14, 16, 32) if highest < 2**bits), limits.max)
    return float((values >= top).mean())


# ---- the beam ------------------------------------------------------------------------------------
def _dropped(run: Run, code: int) -> Bools | None:
    """Return which events have the code of dropped shots; None without event codes."""
    try:
        return np.asarray(run.evr[code].values, bool)
    except (NameNotFound, KeyError):
        return None


def _beam(run: Run, dropped: Bools | None) -> xr.Dataset:
    """Return statistics of every field that is one number per event, and what dropped shots do to it."""
    columns = dict(_numbers(run))
    levels = np.array([dropped_levels(c, dropped) for c in columns.values()]).reshape(-1, len(SHIFTS))
    noises = [dropped_noise(c, dropped) for c in columns.values()]
    stats = {key: ("scalar", [kind(c) for c in columns.values()]) for key, kind in STATISTICS.items()}
    return xr.Dataset(
        {
            **stats,
            "dropped_level": (("scalar", "shift"), levels),
            "off_by": ("scalar", [off_by(row, n) for row, n in zip(levels, noises, strict=True)]),
        },
        {"scalar": np.array([*columns], dtype=str), "shift": SHIFTS},
    )


def _numbers(run: Run) -> Iterator[tuple[str, Floats]]:
    """Yield every field that is one number per event: name, and values (event), NaN where it is missing."""
    for name, detector in run.detectors.items():
        there = _there(run, name)
        for field in detector.fields if there.any() else ():
            try:
                array = detector.field(field)
            except NameNotFound:  # declared, and in no event
                continue
            if isinstance(array, xr.DataArray) and array.dims == ("time",) and array.dtype.kind == "f":
                yield f"{name}_{field}", np.where(there, np.asarray(array.values, np.float64), np.nan)


def _of_finite(function: Any) -> Any:
    def of(values: Floats) -> float:
        known = values[np.isfinite(values)]
        return float(function(known)) if len(known) else np.nan

    return of


STATISTICS = {
    "mean": _of_finite(np.mean),
    "std": _of_finite(np.std),
    "minimum": _of_finite(np.min),
    "maximum": _of_finite(np.max),
    "invalid": lambda values: float((~np.isfinite(values)).mean()) if len(values) else np.nan,
}


def dropped_levels(values: Floats, dropped: Bools | None) -> Floats:
    """Return the mean of a signal so many events (`SHIFTS`) after dropped shots, relative to that of all.

    NaN where nothing is known: no event codes, no dropped shot, a mean of 0.
    """
    out = np.full(len(SHIFTS), np.nan)
    mean = STATISTICS["mean"](values)
    if dropped is None or not dropped.any() or not np.isfinite(mean) or mean == 0:
        return out
    for k, shift in enumerate(SHIFTS):
        at = np.flatnonzero(dropped) + shift
        at = at[(at >= 0) & (at < len(values))]
        out[k] = STATISTICS["mean"](values[at]) / mean
    return out


def dropped_noise(values: Floats, dropped: Bools | None) -> float:
    """Return the standard error of `dropped_levels`, if nothing but chance made them differ."""
    mean = STATISTICS["mean"](values)
    if dropped is None or not dropped.any() or not np.isfinite(mean) or mean == 0:
        return np.nan
    return float(STATISTICS["std"](values) / np.sqrt(dropped.sum()) / abs(mean))


def off_by(levels: Sequence[float] | Floats, noise: float = 0.0) -> float:
    """Return the shift with the lowest level; NaN unless it lies clearly below half of the others'.

    Parameters
    ----------
    levels : (shift,) sequence of float
        From `dropped_levels`.
    noise : float
        Their standard error; the lowest level is five of it below the others.
    """
    known = np.asarray(levels, np.float64)
    if not np.isfinite(known).all():
        return np.nan
    lowest = int(np.argmin(known))
    usual = float(np.median(np.delete(known, lowest)))
    clear = known[lowest] < 0.5 * usual and usual - known[lowest] > 5 * noise
    return float(SHIFTS[lowest]) if clear else np.nan


# ---- the page ------------------------------------------------------------------------------------
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; max-width: 70em; color: #222; }
table { border-collapse: collapse; margin: 0.5em 0 2em; }
th, td { padding: 0.2em 0.8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
"""


def findings(found: xr.Dataset) -> list[str]:
    """Return what is wrong, one sentence each."""
    said = [*_gaps(found.attrs)]
    for name in found["detector"].values:
        row = found.sel(detector=name)
        said += [*_absences(name, row, found.attrs["events"]), *_defects(name, row)]
    for name in found["scalar"].values:
        shift = float(found["off_by"].sel(scalar=name))
        if np.isfinite(shift) and shift != 0:
            said.append(f"{name} is off by {_count(int(shift), 'event', '+')} from the event codes")
    return said


def _gaps(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts["gaps"]:
        missed = _count(facts["missed_events"], "event")
        yield f"{_count(facts['gaps'], 'gap')} in time, about {missed} missed"
    if facts["problems"]:
        yield f"{_count(facts['problems'], 'problem')} while reading (run.problems)"


def _absences(name: str, row: xr.Dataset, events: int) -> Iterator[str]:
    """Say that a detector is missing, but not of one with a lower rate."""
    missing, longest_absence = int(row["missing"]), int(row["longest_absence"])
    there = events - missing
    if missing and not there:
        yield f"{name} is declared, but in no event"
    elif missing and there > max(1, REGULAR * (events - longest_absence)):  # one event has no rate
        in_a_row = f", {longest_absence} of them in a row" if longest_absence > 1 else ""
        yield f"{name}: missing in {_count(missing, 'event')}{in_a_row}"


def _defects(name: str, row: xr.Dataset) -> Iterator[str]:
    if row["damaged"] > 0:
        yield f"{name}: {_count(int(row['damaged']), 'damaged event')}"
    if row["saturated"] > 1e-3:
        yield f"{name}: {float(row['saturated']):.1%} of the values are saturated"
    if row["sampled"] >= ENOUGH:
        yield from (f"{name}: {int(row[what])} {what}" for what in ("dead", "hot") if row[what] > 0)


def _count(number: int, what: str, sign: str = "") -> str:
    return f"{number:{sign}d} {what}{'' if abs(number) == 1 else 's'}"


def report(found: xr.Dataset) -> str:
    """Return an HTML page of what `quality` found."""
    title = f"Quality of {found.attrs['experiment'] or 'a run'}"
    title += "" if found.attrs["run"] < 0 else f" run {found.attrs['run']}"
    facts = {k: v for k, v in found.attrs.items() if k not in ("experiment", "run")}
    facts["dropped_shots"] = "no event codes" if facts["dropped_shots"] < 0 else facts["dropped_shots"]
    said = findings(found) or ["Nothing conspicuous."]
    by_detector = _table(found, "detector", (*PRESENCE, *FRAMES))
    by_scalar = _table(found, "scalar", (*STATISTICS, "off_by"))
    body = [
        f"<h1>{markup.escape(title)}</h1>",
        f"<ul>{''.join(f'<li>{markup.escape(s)}</li>' for s in said)}</ul>",
        f"<table>{''.join(_row((k.replace('_', ' '), v)) for k, v in facts.items())}</table>",
        "<h2>Detectors</h2>", by_detector, "<h2>Beam</h2>", by_scalar,
    ]  # fmt: skip
    head = f"<meta charset='utf-8'><title>{markup.escape(title)}</title><style>{STYLE}</style>"
    return f"<!doctype html><html><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _table(found: xr.Dataset, dim: str, columns: Sequence[str]) -> str:
    head = "".join(f"<th>{c.replace('_', ' ')}</th>" for c in (dim, *columns))
    rows = [_row((name, *(found[c].sel({dim: name}).item() for c in columns))) for name in found[dim].values]
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _row(cells: Iterable[Any]) -> str:
    return f"<tr>{''.join(f'<td>{markup.escape(_shown(c))}</td>' for c in cells)}</tr>"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)
