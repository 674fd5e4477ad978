"""Text for pages. Names and comments come from files and from other people: all of it is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from psana_dask.errors import PsanaError

MOST = 4000
"""Characters of one text that a page shows."""

STYLE = """
:host { font: 14px/1.4 system-ui, sans-serif; color: #222; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 1px 10px 1px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eee; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f6f6f4; padding: 8px; margin: 0; white-space: pre-wrap; font-size: 12px; }
pre { user-select: all; }
.bad { background: #fdecea; border-left: 4px solid #c62828; padding: 6px 10px; }
.warn { background: #fff6df; border-left: 4px solid #e0a000; padding: 6px 10px; }
.good { background: #e9f5ea; border-left: 4px solid #2e7d32; padding: 6px 10px; }
.plain { color: #555; }
nav a { margin-right: 1.2em; } nav b { margin-right: 1.2em; }
"""


def text(value: Any) -> str:
    """Return anything as escaped text, shortened if it is very long."""
    words = value if isinstance(value, str) else _shown(value)
    return escape(words if len(words) <= MOST else words[:MOST] + " ...")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def note(words: Any, kind: str = "plain") -> str:
    """Return a line, or several; `kind` is plain, good, warn or bad."""
    lines = "<br>".join(text(line) for line in str(words).splitlines()[:40])
    return f"<div class='{kind}' role='status'>{lines}</div>" if lines else ""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], most: int = 400) -> str:
    """Return a table; numbers stand on the right."""
    shown = list(rows)
    top = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in shown[:most])
    more = f"<div>and {len(shown) - most} more</div>" if len(shown) > most else ""
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"<td class='number'>{text(value)}</td>" if number else f"<td>{text(value)}</td>"


def facts(values: Mapping[str, Any]) -> str:
    """Return names and values as a table; what is empty is left out."""
    rows = [(k.replace("_", " "), v) for k, v in values.items() if v not in ("", None)]
    body = "".join(f"<tr><th>{text(k)}</th><td>{text(v)}</td></tr>" for k, v in rows)
    return f"<table><tbody>{body}</tbody></table>"


def code(lines: str) -> str:
    """Return program text, to be copied."""
    return f"<pre>{escape(lines)}</pre>"


def navigation(here: str, pages: Mapping[str, str]) -> str:
    """Return links to the pages, beside each other: address to title."""
    links = [_link(path, title, path == here) for path, title in pages.items()]
    return f"<nav>{''.join(links)}</nav>"


def _link(path: str, title: str, here: bool) -> str:
    return f"<b>{text(title)}</b>" if here else f"<a href='{escape(path)}'>{text(title)}</a>"


def explained(error: BaseException) -> str:
    """Return what a user is told of an error."""
    words = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return words if isinstance(error, PsanaError | ValueError) else f"{type(error).__name__}: {words}"
