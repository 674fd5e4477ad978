"""What a run holds, as facts and as text: what a person sees first.

Nothing is read but headers, and no service is waited for. `describe_html` draws the same facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from psana_dask.slow import steps_of
from psana_dask.stores import Standing, standing

if TYPE_CHECKING:
    from psana_dask.detector import Detector
    from psana_dask.run import Run
    from psana_dask.stepwise import Series

KindOfDetector = Literal["pixels", "samples", "values", "timing", "settings"]

KINDS: dict[KindOfDetector, str] = {
    "pixels": "Pixel detectors",
    "samples": "Waveforms and spectra",
    "values": "Values of each event",
    "timing": "Timing and event codes",
    "settings": "Settings only",
}
"""Kinds of detectors in the order in which they are shown, and what people call them."""

TIMING = ("ts", "timing", "evr", "evrdata")
"""Types of the detectors that deliver event codes, without versions."""

COLUMNS = ("detector", "type", "field", "dtype", "shape", "rate", "present", "constants")
MOST_FIELDS = 6
"""Fields of one detector that the text shows; ``repr(run.det)`` shows all."""

MOST_MOVED = 6
"""EPICS variables that the text names."""


@dataclass(frozen=True)
class Summary:
    """One detector in a few words.

    Parameters
    ----------
    name, det_type : str
    kind : str
        Of KINDS.
    fields : list of dict
        ``field``, ``dtype`` and ``shape`` of each.
    rate : float
        Events with it per second.
    presence : float
        Share of the events that have it.
    constants : Standing, optional
        Of pixel detectors: whether they can be calibrated.
    """

    name: str
    det_type: str
    kind: KindOfDetector
    fields: list[dict[str, Any]]
    rate: float
    presence: float
    constants: Standing | None


def summaries(run: Run) -> list[Summary]:
    """Return the detectors of a run, kind by kind."""
    rate = rate_of(run._view.time)
    found = [summary(detector, rate) for detector in run.detectors.values()]
    order = list(KINDS)
    return sorted(found, key=lambda one: order.index(one.kind))


def summary(detector: Detector, rate: float) -> Summary:
    """Return one detector in a few words; `rate` is that of the events."""
    fields, kind = detector.facts(), _kind(detector)
    view, entry = detector._view, detector._entry
    constants = standing(view.calib, view.recording, entry) if kind == "pixels" else None
    share = detector.presence
    return Summary(detector.name, detector.det_type, kind, fields, rate * share, share, constants)


def _kind(detector: Detector) -> KindOfDetector:
    """Tell what kind a detector is, by its type and the shapes of its fields."""
    shapes = {fact["field"]: fact["shape"] for fact in detector.facts()}
    if not shapes:
        return "settings"
    if detector.det_type.lower().partition("_")[0] in TIMING:
        return "timing"
    if shapes.get("raw", "").count("×") and detector._view.frame(detector._entry) is not None:
        return "pixels"
    return "values" if all(shape in ("scalar", "text", "-") for shape in shapes.values()) else "samples"


def rate_of(time: npt.NDArray[np.datetime64]) -> float:
    """Return events per second (0 where that cannot be said)."""
    if len(time) < 2:
        return 0.0
    seconds = (time[-1] - time[0]) / np.timedelta64(1, "s")
    return float((len(time) - 1) / seconds) if seconds > 0 else 0.0


def run_facts(run: Run) -> dict[str, Any]:
    """Return the facts of a run as plain values, ready for JSON."""
    view = run._view
    return {
        "experiment": run.experiment,
        "run": run.number,
        "format": run.format,
        "files": run.files,
        "streams": [s.stream for s in run._recording.streams],
        "start": None if not len(run) else str(run.start),
        "stop": None if not len(run) else str(run.stop),
        "events": len(run),
        "events_total": view.choice.total,
        "steps": len(steps_of(run._recording)),
        "epics": {"variables": len(run.epics), "moved": run.epics.moved},
        "detectors": {one.name: _detector_facts(run, one) for one in summaries(run)},
        "problems": [p._asdict() for p in run._all_problems],
    }


def _detector_facts(run: Run, one: Summary) -> dict[str, Any]:
    detector = run.detectors[one.name]
    return {
        "type": one.det_type,
        "kind": one.kind,
        "alias": detector.alias,
        "serials": detector.source["det_ids"],
        "present": one.presence,
        "rate": one.rate,
        "constants": None if one.constants is None else one.constants.words,
        "fields": {f["field"]: {"dtype": f["dtype"], "shape": f["shape"]} for f in one.fields},
    }


# ---- lines --------------------------------------------------------------------------------------
def headline(run: Run) -> str:
    """Return the first line: what, when, how many events."""
    total = run._view.choice.total
    number = "?" if run.number is None else run.number
    chosen = f"{len(run):,} of {total:,} events" if len(run) != total else f"{total:,} events"
    words = f" ({', '.join(run._history)})" if run._history else ""
    return f"{run.experiment or 'unnamed'} run {number}: {chosen}{words}"


def summary_lines(run: Run) -> list[str]:
    """Return the lines between headline and detectors."""
    lines = []
    if len(run):
        seconds = (run.stop - run.start) / np.timedelta64(1, "s")
        lines.append(f"{str(run.start)[:23]} UTC, {seconds:.3f} s, {rate_of(run._view.time):.4g} events/s")
    streams = run._recording.streams
    lines.append(f"{run.format}, {len(streams)} streams, {len(run.files)} files")
    steps = steps_of(run._recording)
    if len(steps):
        scanned = ", ".join(steps.scanned)
        lines.append(f"{len(steps)} steps" + (f" of {scanned}" if scanned else ""))
    if len(run.epics):
        lines.append(f"{len(run.epics)} EPICS variables, {_moved(run.epics.moved)}")
    return lines


def _moved(names: list[str]) -> str:
    more = f", and {len(names) - MOST_MOVED} more" if len(names) > MOST_MOVED else ""
    shown = f": {', '.join(names[:MOST_MOVED])}{more}" if names else ""
    return f"{len(names)} moved{shown}"


def moved_series(run: Run) -> list[Series]:
    """Return the EPICS variables that moved."""
    return [run.epics.series[name] for name in run.epics.moved]


def detector_rows(run: Run, most: int | None = MOST_FIELDS) -> Iterator[tuple[str, ...]]:
    """Yield rows of COLUMNS for all detectors, one per field."""
    for one in summaries(run):
        yield from rows_of(one, most)


def rows_of(one: Summary, most: int | None = MOST_FIELDS) -> Iterator[tuple[str, ...]]:
    """Yield rows of COLUMNS for one detector, one per field."""
    words = "" if one.constants is None else one.constants.words
    for k, f in enumerate(one.fields[:most]):
        first = (one.name, one.det_type) if k == 0 else ("", "")
        last = (f"{one.rate:.4g} Hz", f"{one.presence:.1%}", words) if k == 0 else ("", "", "")
        yield (*first, f["field"], f["dtype"], f["shape"], *last)
    if most is not None and len(one.fields) > most:
        yield ("", "", f"and {len(one.fields) - most} more", "", "", "", "", "")
    if not one.fields:
        yield (one.name, one.det_type, "(settings only)", "", "", "", "", "")


def run_text(run: Run) -> str:
    """Return the repr of a run."""
    lines = [f"<{headline(run)}>", *(f"  {line}" for line in summary_lines(run)), ""]
    lines += _table(summaries(run))
    if run._all_problems:
        first = run._all_problems[0].what
        lines += ["", f"  {len(run._all_problems)} problems, the first: {first} (run.problems)"]
    return "\n".join(lines)


def _table(found: list[Summary]) -> list[str]:
    """Return the lines of the table of detectors, with a heading for each kind."""
    rows = {one.name: list(rows_of(one)) for one in found}
    everything = [COLUMNS, *(row for of_one in rows.values() for row in of_one)]
    widths = [max(len(row[k]) for row in everything) for k in range(len(COLUMNS))]

    def line(row: tuple[str, ...]) -> str:
        return "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()

    lines = [line(COLUMNS)]
    for kind, title in KINDS.items():
        these = [one for one in found if one.kind == kind]
        lines += [f"  -- {title}"] if these else []
        lines += [line(row) for one in these for row in rows[one.name]]
    return lines
