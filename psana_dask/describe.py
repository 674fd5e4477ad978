"""A run as text and as HTML: what a person sees first."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.slow import steps_of

if TYPE_CHECKING:
    from psana_dask.run import Run

COLUMNS = ("detector", "type", "field", "dtype", "shape", "rate", "present")
MOST_FIELDS = 6
"""Fields of one detector that the text shows; ``repr(run.det)`` shows all."""


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
        "detectors": {name: _detector_facts(run, name) for name in view.entries},
        "problems": [p._asdict() for p in run._all_problems],
    }


def _detector_facts(run: Run, name: str) -> dict[str, Any]:
    detector = run.detectors[name]
    source = detector.source
    return {
        "type": detector.det_type,
        "alias": detector.alias,
        "serials": source["det_ids"],
        "present": detector.presence,
        "rate": _rate(run) * detector.presence,
        "fields": {f["field"]: {"dtype": f["dtype"], "shape": f["shape"]} for f in detector.facts()},
    }


def _rate(run: Run) -> float:
    """Return events per second (0 where that cannot be said)."""
    if len(run) < 2:
        return 0.0
    seconds = (run.stop - run.start) / np.timedelta64(1, "s")
    return float((len(run) - 1) / seconds) if seconds > 0 else 0.0


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
        lines.append(f"{str(run.start)[:23]} UTC, {seconds:.3f} s, {_rate(run):.4g} events/s")
    streams = run._recording.streams
    lines.append(f"{run.format}, {len(streams)} streams, {len(run.files)} files")
    steps = steps_of(run._recording)
    if len(steps):
        scanned = ", ".join(steps.scanned)
        lines.append(f"{len(steps)} steps" + (f" of {scanned}" if scanned else ""))
    if len(run.epics):
        lines.append(f"{len(run.epics)} EPICS variables, {len(run.epics.moved)} moved")
    return lines


def detector_rows(run: Run, most: int | None = MOST_FIELDS) -> Iterable[tuple[str, ...]]:
    """Yield rows of COLUMNS, one per field."""
    for name, detector in run.detectors.items():
        facts = detector.facts()
        share, rate = f"{detector.presence:.1%}", f"{_rate(run) * detector.presence:.4g} Hz"
        for k, f in enumerate(facts[:most]):
            first = (name, detector.det_type) if k == 0 else ("", "")
            last = (rate, share) if k == 0 else ("", "")
            yield (*first, f["field"], f["dtype"], f["shape"], *last)
        if most is not None and len(facts) > most:
            yield ("", "", f"and {len(facts) - most} more", "", "", "", "")
        if not facts:
            yield (name, detector.det_type, "(settings only)", "", "", "", "")


def run_text(run: Run) -> str:
    """Return the repr of a run."""
    rows = [COLUMNS, *detector_rows(run)]
    widths = [max(len(r[k]) for r in rows) for k in range(len(COLUMNS))]
    lines = [f"<{headline(run)}>", *(f"  {line}" for line in summary_lines(run)), ""]
    lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    if run._all_problems:
        first = run._all_problems[0].what
        lines += ["", f"  {len(run._all_problems)} problems, the first: {first} (run.problems)"]
    return "\n".join(lines)


def run_html(run: Run) -> str:
    """Return the repr of a run for Jupyter; names come from files and are escaped."""
    head = "".join(f"<th style='text-align:left'>{c}</th>" for c in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(c)}</td>" for c in row) + "</tr>"
        for row in detector_rows(run, most=None)
    )
    facts = "".join(f"<div>{html.escape(line)}</div>" for line in summary_lines(run))
    problems = "".join(
        f"<tr><td style='text-align:left'>{html.escape(p.what)}</td><td>{html.escape(p.file)}</td></tr>"
        for p in run._all_problems[:20]
    )
    trouble = (
        f"<details><summary>{len(run._all_problems)} problems</summary><table>{problems}</table></details>"
        if problems
        else ""
    )
    return (
        f"<div><b>{html.escape(headline(run))}</b>{facts}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{trouble}</div>"
    )
