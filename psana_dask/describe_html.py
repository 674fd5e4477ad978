"""A run as HTML for notebooks.

Everything that comes from a file is escaped: `element` escapes text, and only what it made itself
goes in as it is. Colours are those of the notebook (JupyterLab, VS Code, the documentation), light or
dark; there are no scripts. ``tests/pages/test_pictures.py`` looks at it in a browser.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.describe import KINDS, Summary, moved_series, rate_of, summaries, summary
from psana_dask.slow import steps_of

if TYPE_CHECKING:
    from psana_dask.detector import Detector
    from psana_dask.model import Array
    from psana_dask.run import Run
    from psana_dask.stepwise import Series

MOST_ROWS = 20
"""Steps, EPICS variables and problems that are shown."""

LONGEST = 60
"""Characters of a value."""

BINS = 96
"""Bars, at most, of the picture of the events in time."""

STYLE = """
.psana-run {
  --ink: var(--jp-content-font-color1, var(--pst-color-text-base, var(--vscode-foreground, #20242a)));
  --faint: var(--jp-content-font-color2, var(--pst-color-text-muted, var(--vscode-disabledForeground, #678)));
  --line: var(--jp-border-color2, var(--pst-color-border, var(--vscode-panel-border, #d9dee5)));
  --accent: #1b8f88; --alarm: #d0342c; --care: #a87200;
  color: var(--ink); font-size: 13px; line-height: 1.45; max-width: 64em; overflow-x: auto; }
.psana-run header { border-left: 4px solid var(--accent); padding: 2px 0 2px 12px; margin: 4px 0 8px; }
.psana-run header b { font-size: 16px; }
.psana-run .faint { color: var(--faint); }
.psana-run .badge { border: 1px solid var(--line); border-radius: 9px; padding: 0 8px; margin-left: 8px;
  font-size: 11px; color: var(--faint); }
.psana-run.psana-run table { border-collapse: collapse; margin: 0; width: 100%; border: none;
  table-layout: auto; font-size: 13px; color: inherit; }
.psana-run.psana-run tr { background: transparent; }
.psana-run.psana-run :is(th, td) { text-align: left; padding: 2px 14px 2px 0; border: none; max-width: none;
  border-bottom: 1px solid var(--line); background: transparent; vertical-align: top; color: inherit; }
.psana-run.psana-run :is(thead th, th.kind) { font-weight: 600; color: var(--faint); font-size: 11px;
  letter-spacing: .04em; padding-top: 8px; }
.psana-run td.name { font-weight: 600; }
.psana-run.psana-run :is(code, td.code) { font-size: 12px;
  font-family: var(--jp-code-font-family, monospace); }
.psana-run.psana-run code { background: transparent; color: inherit; padding: 0; border: none; }
.psana-run .bar { display: inline-block; width: 56px; height: 7px; border-radius: 3px;
  background: var(--line); margin-right: 6px; overflow: hidden; vertical-align: baseline; }
.psana-run .bar i { display: block; height: 100%; background: var(--accent); }
.psana-run.psana-run :is(td, th).line { white-space: nowrap; }
.psana-run .there { color: var(--accent); } .psana-run .none { color: var(--alarm); }
.psana-run .unasked, .psana-run .other { color: var(--care); }
.psana-run details { margin-top: 6px; } .psana-run td details { margin: 0; }
.psana-run summary { cursor: pointer; }
.psana-run svg { vertical-align: middle; color: var(--accent); }
"""


class Markup(str):
    """HTML that was made here."""

    __slots__ = ()


def element(tag: str, *content: object, **attributes: str) -> Markup:
    """Return an element; content and attributes are escaped unless they are `Markup`.

    Parameters
    ----------
    tag : str
    *content
        Text, or Markup.
    **attributes
        ``class_`` stands for ``class``, ``_`` for ``-``.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    return Markup(f"<{tag}{given}>{joined(content)}</{tag}>")


def joined(content: Iterable[object]) -> Markup:
    """Return pieces one after the other, escaped unless they are `Markup`."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(str(c)) for c in content))


# ---- pages --------------------------------------------------------------------------------------
def run_html(run: Run) -> str:
    """Return a run as HTML."""
    parts = [_header(run), _detectors(summaries(run)), _steps(run), _epics(run), _problems(run)]
    return _page(parts)


def detector_html(detector: Detector, rate: float) -> str:
    """Return a detector as HTML; `rate` is that of the events."""
    one = summary(detector, rate)
    serials = ", ".join(dict.fromkeys(i for i in detector.source["det_ids"] if i))
    title = element("b", one.name)
    words = element("div", f"{KINDS[one.kind]}, {one.det_type}{', serial ' + serials if serials else ''}",
                    class_="faint")  # fmt: skip
    return _page([element("header", title, words), _table(HEAD, _rows(one, folded=False))])


def _page(parts: Iterable[Markup]) -> str:
    return element("div", element("style", Markup(STYLE)), *parts, class_="psana-run")


def _header(run: Run) -> Markup:
    number = "?" if run.number is None else run.number
    total, here = run._view.choice.total, len(run)
    events = f"{here:,} of {total:,} events" if here != total else f"{total:,} events"
    badges = [element("span", words, class_="badge") for words in (run.format, f"{len(run.files)} files")]
    title = element("div", element("b", f"{run.experiment or 'unnamed'} run {number}"), *badges)
    chosen = [element("div", "chosen by ", element("code", ", ".join(run._history)))] if run._history else []
    return element("header", title, element("div", events, *_when(run)), *chosen)


def _when(run: Run) -> list[Markup]:
    if not len(run):
        return []
    seconds = (run.stop - run.start) / np.timedelta64(1, "s")
    start, rate = str(run.start)[:23].replace("T", " "), rate_of(run._view.time)
    words = f", {start} UTC, {seconds:.3f} s, {rate:.4g} Hz "
    return [element("span", words, class_="faint"), _events_in_time(run)]


def _events_in_time(run: Run) -> Markup:
    """Draw how many events each slice of the run's time has."""
    ticks = run._view.time.astype(np.int64)
    span, bins = ticks[-1] - ticks[0], min(BINS, max(1, len(ticks) // 4))
    if span <= bins:
        return Markup()
    counts = np.bincount((ticks - ticks[0]) * bins // (span + 1), minlength=bins)
    heights = 14.0 * counts / counts.max()
    step = 140.0 / len(counts)
    bars = "".join(
        f"M{k * step:.1f} 15h{step:.1f}v-{h:.1f}h-{step:.1f}z" for k, h in enumerate(heights.tolist()) if h
    )
    return _drawing(140, 16, f'<path d="{bars}" fill="currentColor" opacity=".45"/>', "events in time")


# ---- detectors ----------------------------------------------------------------------------------
HEAD = ("detector", "type", "field", "dtype", "shape", "rate", "present", "constants")


def _detectors(found: Sequence[Summary]) -> Markup:
    rows: list[Markup] = []
    for kind, title in KINDS.items():
        these = [one for one in found if one.kind == kind]
        if these:
            rows.append(element("tr", element("th", title, class_="kind", colspan=str(len(HEAD)))))
            rows += [row for one in these for row in _rows(one)]
    return _table(HEAD, rows)


def _rows(one: Summary, *, folded: bool = True) -> list[Markup]:
    """Return one row with the first field, the other fields folded into it; or a row for each."""
    fields = one.fields or [{"field": "settings only", "dtype": "", "shape": ""}]
    first, others = fields[0], fields[1:]
    name = element("code", first["field"])
    if folded and others:
        more = element("span", f" +{len(others)}", class_="faint")
        folds = [element("div", _field(fact)) for fact in others]
        name = element("details", element("summary", name, more), *folds)
    row = element(
        "tr", element("td", one.name, class_="name"), element("td", one.det_type), element("td", name),
        element("td", first["dtype"], class_="code"), element("td", first["shape"], class_="code"),
        element("td", f"{one.rate:.4g} Hz" if one.fields else "", class_="line"),
        element("td", _share(one) if one.fields else "", class_="line"),
        element("td", _constants(one), class_="line"),
    )  # fmt: skip
    return [row] if folded else [row, *(_field_row(f) for f in others)]


def _field(fact: dict[str, Any]) -> Markup:
    about = element("span", f" {fact['dtype']} {fact['shape']}", class_="faint")
    return element("span", element("code", fact["field"]), about)


def _field_row(fact: dict[str, Any]) -> Markup:
    cells = [element("td", element("code", fact["field"]))]
    cells += [element("td", fact[key], class_="code") for key in ("dtype", "shape")]
    return element("tr", element("td"), element("td"), *cells, *(element("td") for _ in range(3)))


def _share(one: Summary) -> Markup:
    filled = element("i", style=f"width:{100 * one.presence:.1f}%")
    return joined((element("span", filled, class_="bar"), f"{one.presence:.1%}"))


MARKS = {"there": "✓", "none": "✗", "other runs": "✗", "unasked": "?", "unreadable": "!"}


def _constants(one: Summary) -> Markup:
    if one.constants is None:
        return Markup()
    state = one.constants.state
    return element("span", f"{MARKS[state]} {one.constants.words}", class_=state.partition(" ")[0])


# ---- steps, slow data, problems -----------------------------------------------------------------
def _steps(run: Run) -> Markup:
    steps = steps_of(run._recording)
    if not len(steps):
        return Markup()
    number = run._recording.events.step[run._view.choice.numbers]
    counts = np.bincount(number[number >= 0], minlength=len(steps))
    shown = [(name, steps.values[name]) for name in steps.scanned if name in steps.values]
    rows = [
        _row(str(k), f"{counts[k]:,}", *(_value(column[k]) for _, column in shown))
        for k in range(min(len(steps), MOST_ROWS))
    ]
    ranges = "; ".join(f"{name} {_value(column[0])} to {_value(column[-1])}" for name, column in shown)
    title = f"{len(steps)} steps" + (f" of {ranges}" if ranges else "")
    table = _table(("step", "events", *(name for name, _ in shown)), rows)
    return _fold(title, table, _more(len(steps)))


def _epics(run: Run) -> Markup:
    if not len(run.epics):
        return Markup()
    moved = moved_series(run)
    rows = [
        _row(s.name, s.pv, f"{len(s.time):,}", _update(s, 0), _update(s, -1), s.unit, _course(s))
        for s in islice(moved, MOST_ROWS)
    ]
    head = ("variable", "PV", "updates", "first", "last", "unit", "course")
    title = f"{len(run.epics)} EPICS variables, {len(moved)} moved"
    return _fold(title, _table(head, rows) if rows else Markup(), _more(len(moved)), is_open=len(moved) <= 6)


def _problems(run: Run) -> Markup:
    found = run._all_problems
    if not found:
        return Markup()
    rows = [_row(p.what, str(p.file).rpartition("/")[2], p.offset) for p in found[:MOST_ROWS]]
    title = element("span", f"{len(found)} problems", class_="none")
    return _fold(title, _table(("what", "file", "byte"), rows), _more(len(found)))


def _update(series: Series, number: int) -> str:
    """Return one update of a variable; a code of an enum by its name."""
    value = series.values[number]
    known = series.enum.get(int(value)) if series.enum and np.ndim(value) == 0 else None
    return _value(value) if known is None else known


def _course(series: Series) -> Markup:
    """Draw how a number went, as a step function of time."""
    values, ticks = series.values, series.time.astype(np.int64)
    if values.ndim != 1 or values.dtype.kind not in "biuf" or len(values) < 2:
        return Markup()
    pick = np.unique(np.linspace(0, len(values) - 1, min(len(values), BINS)).astype(int))
    x, y = _scaled(ticks[pick], 90.0), 13.0 - _scaled(values[pick].astype(np.float64), 12.0)
    if not np.isfinite(y).all():
        return Markup()
    path = f"M{x[0]:.1f} {y[0]:.1f}" + "".join(
        f"H{a:.1f}V{b:.1f}" for a, b in zip(x[1:].tolist(), y[1:].tolist(), strict=True)
    )
    line = f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.3"/>'
    return _drawing(92, 15, line, "course")


def _scaled(values: Array, length: float) -> Array:
    low, high = values.min(), values.max()
    return (values - low) * (length / (high - low)) if high > low else np.full(len(values), length / 2)


# ---- pieces -------------------------------------------------------------------------------------
def _table(head: Sequence[str], rows: Iterable[Markup]) -> Markup:
    top = element("thead", element("tr", *(element("th", name) for name in head)))
    return element("table", top, element("tbody", *rows))


def _row(*cells: object) -> Markup:
    return element("tr", *(element("td", cell) for cell in cells))


def _fold(title: object, *content: Markup, is_open: bool = False) -> Markup:
    return element("details", element("summary", title), *content, **({"open": ""} if is_open else {}))


def _more(count: int) -> Markup:
    return element("div", f"and {count - MOST_ROWS} more", class_="faint") if count > MOST_ROWS else Markup()


def _value(value: Any) -> str:
    words = f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
    return words if len(words) <= LONGEST else words[:LONGEST] + " ..."


def _drawing(width: int, height: int, content: str, label: str) -> Markup:
    return Markup(f'<svg width="{width}" height="{height}" role="img" aria-label="{label}">{content}</svg>')
