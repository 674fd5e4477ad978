"""The summary of an experiment: one row a run, with columns of the user, kept per run.

What a column says of a run is kept in the cache folder, keyed by the run's files (path, size, time of
change) and by the code of the column: a run that was taken since the last time is worked out, the others
are read.  A run that cannot be opened has a row that says why.
Contract: tests/test_experiment_table.py.
"""

from __future__ import annotations

import hashlib
import html as markup
import importlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.calib.localstore import write_atomically
from psana_dask.errors import PsanaError, PsanaWarning, RunNotFound
from psana_dask.files import RunFiles, find_runs
from psana_dask.opening import Source, open_run
from psana_dask.options import current
from psana_dask.recording import run_numbers
from psana_dask.run import Run

if TYPE_CHECKING:
    import pandas as pd

Cell = float | int | str | bool | np.datetime64 | None
Column = Callable[[Run], Any]
Columns = Mapping[str, Column] | Column | None
Progress = Callable[[int, int], None]

FACTS: Mapping[str, Column] = {
    "start": lambda run: run.start,
    "seconds": lambda run: round(float((run.stop - run.start) / np.timedelta64(1, "ns")) / 1e9, 3),
    "events": len,
    "steps": lambda run: len(run.steps),
    "detectors": lambda run: ", ".join(run.detectors),
    "problems": lambda run: len(run.problems),
    "gigabytes": lambda run: round(sum(os.path.getsize(p) for p in run.files) / 1e9, 3),
}
"""Columns that every summary has."""

VERSION = 1
"""Of what is kept."""


def summary(
    experiment: Source,
    columns: Columns = None,
    *,
    dir: str | os.PathLike[str] | None = None,
    runs: Iterable[int] | None = None,
    refresh: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Return a table of an experiment: one row a run.

    Parameters
    ----------
    experiment, dir, **options
        As for `open_run`.
    columns : mapping of str to callable, or callable, optional
        Each takes a Run and returns a number, a text, a boolean or a time; a single callable returns a
        mapping of names to such values.
    runs : iterable of int, optional
        Only these.
    refresh : bool
        Work everything out again. Needed where a column depends on more than the run's files and the file
        that the column's code is in: on constants that were deployed since, for instance.
    progress : callable, optional
        Called with (runs done, runs in all).

    Returns
    -------
    pandas.DataFrame
        By ``run``: what `FACTS` names, then `columns`, then ``error``: why a run cannot be opened, or
        a column has no value there; empty in a sound run.

    Raises
    ------
    RunNotFound
        There is no run.

    Examples
    --------
    >>> table = psana_dask.summary("xpptut15", {"energy": lambda run: run.mean("gmd.milliJoulesPerPulse")})
    >>> table[table.events > 1000].plot(y="energy")
    """
    wanted = None if runs is None else set(runs)
    found = [entry for entry in entries(experiment, dir) if wanted is None or entry.number in wanted]
    if not found:
        raise RunNotFound(f"{experiment}: none of the runs {sorted(wanted or ())} is there")
    rows = []
    for done, entry in enumerate(found):
        if progress is not None:
            progress(done, len(found))
        rows.append(row_of(entry, columns, refresh=refresh, options=options))
    if progress is not None:
        progress(len(found), len(found))
    return table_of(rows)


# ---- runs ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RunEntry:
    """A run on disk, not yet opened.

    Parameters
    ----------
    experiment : str
    number : int
        -1 if neither file name nor content say it.
    files : RunFiles
    error : str
        Why the content cannot be looked at; empty if it can.
    """

    experiment: str
    number: int
    files: RunFiles
    error: str = ""

    @property
    def name(self) -> str:
        """Experiment and run in one word."""
        return f"{self.experiment or 'run'}-r{max(self.number, 0):04}"

    @property
    def identity(self) -> str:
        """A word that changes when the files change."""
        parts: list[Any] = [VERSION, self.number]
        for path in self.files.paths:
            status = os.stat(path)
            parts += [path, status.st_size, status.st_mtime_ns, status.st_ino]
        return digest(parts)

    def open(self, **options: Any) -> Run:
        """Open the run; what is wrong with it is in its `problems`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PsanaWarning)
            return open_run(list(self.files.paths), None if self.number < 0 else self.number, **options)


def entries(experiment: Source, folder: str | os.PathLike[str] | None = None) -> list[RunEntry]:
    """Return the runs of an experiment, by number; damaged files are no obstacle."""
    found = []
    for files in find_runs(experiment, folder=folder):
        name, known = files.experiment or "", -1 if files.number is None else files.number
        try:
            numbers = run_numbers(files) or [known]
        except (PsanaError, OSError) as error:
            found.append(RunEntry(name, known, files, str(error)))
            continue
        found += [RunEntry(name, int(number), files) for number in numbers]
    return sorted(found, key=lambda e: (e.experiment, e.number))


def digest(value: Any) -> str:
    """Return a short word for anything that has a repr."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:32]


# ---- rows ---------------------------------------------------------------------------------------
def row_of(
    entry: RunEntry,
    columns: Columns = None,
    *,
    refresh: bool = False,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Cell]:
    """Return the row of a run: ``experiment``, ``run``, a value for each column, ``error``."""
    row: dict[str, Cell] = {"experiment": entry.experiment, "run": entry.number}
    if entry.error:
        return {**row, "error": entry.error}
    kept = Kept.of(entry, options or {}, refresh=refresh)
    run: Run | None = None
    errors = []
    for name, column in [*FACTS.items(), *_columns(columns)]:
        key = digest([name, fingerprint(column)])
        try:
            if key not in kept.cells:
                run = run or entry.open(**(options or {}))
                kept.cells[key] = _cells(name, column, run)
            row |= kept.cells[key]
        except Exception as error:  # whatever a column of the user raises
            if run is None:  # it does not open: no column can say anything
                return {**row, "error": _said(error)}
            errors.append(f"{name}: {_said(error)}")
    kept.write()
    return {**row, "error": "; ".join(errors)}


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, PsanaError) else f"{type(error).__name__}: {error}"


def _columns(columns: Columns) -> Iterator[tuple[str, Column]]:
    if columns is None:
        return
    if isinstance(columns, Mapping):
        yield from columns.items()
    else:
        yield getattr(columns, "__name__", "columns"), columns


def _cells(name: str, column: Column, run: Run) -> dict[str, Cell]:
    """Return what a column says of a run: one value, or several by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PsanaWarning)
        found = column(run)
    if isinstance(found, Mapping):
        return {str(key): _cell(str(key), value) for key, value in found.items()}
    return {name: _cell(name, found)}


def _cell(name: str, value: Any) -> Cell:
    """Return a value as a plain one.

    Raises
    ------
    TypeError
        It is no single number, text, boolean or time.
    """
    if value is None:
        return None
    array = np.asarray(getattr(value, "values", value))
    if array.ndim == 0 and array.dtype.kind in "biufU":
        plain: Cell = array.item()
        return plain
    if array.ndim == 0 and array.dtype.kind == "M":
        return array.astype("M8[ns]").reshape(1)[0]
    what = f"{type(value).__name__} of shape {array.shape}" if array.ndim else type(value).__name__
    raise TypeError(f"a column is one number, text or time for each run, {name} is a {what}")


@dataclass(frozen=True, eq=False)
class Kept:
    """What is known of a run, in a file.

    Parameters
    ----------
    path : Path
    cells : dict
        By column: its values.
    """

    path: Path
    cells: dict[str, dict[str, Cell]]

    @classmethod
    def of(cls, entry: RunEntry, options: Mapping[str, Any], *, refresh: bool) -> Kept:
        """Read what is known; nothing, if the file is not there, or is not ours."""
        word = digest([entry.identity, sorted(options.items())])
        path = current().cache_folder() / "summary" / f"{entry.name}-{word}.json"
        try:
            found = {} if refresh else json.loads(path.read_text(encoding="utf-8"), object_hook=_read)
        except (OSError, ValueError):
            found = {}
        return cls(path, found if isinstance(found, dict) else {})

    def write(self) -> None:
        """Keep it, unless the cache folder cannot be written."""
        try:
            write_atomically(self.path, json.dumps(self.cells, default=_written).encode())
        except OSError:
            return


TIME = "datetime64[ns]"
"""Marks a time in what is kept."""


def _written(value: Any) -> Any:
    return {TIME: str(value)}


def _read(value: dict[str, Any]) -> Any:
    is_time = value.keys() == {TIME}
    return np.datetime64(value[TIME], "ns") if is_time else value


def fingerprint(function: Any) -> str:
    """Return a word for what a function does: its code, what it has bound, and the file it stands in."""
    if isinstance(function, partial):
        bound = [function.args, sorted(function.keywords.items())]
        return digest([fingerprint(function.func), bound])
    code = getattr(function, "__code__", None)
    if code is None:
        call = vars(type(function)).get("__call__")
        inner = _code(call.__code__) if hasattr(call, "__code__") else ""
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return digest([name, inner, getattr(function, "__dict__", "")])
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    bound = [_code(c.__code__) if hasattr(c, "__code__") else c for c in cells]
    defaults = [function.__defaults__, function.__kwdefaults__]
    return digest([_code(code), defaults, bound, _file(code.co_filename)])


def _code(code: Any) -> list[Any]:
    consts = [_code(c) if hasattr(c, "co_code") else c for c in code.co_consts]
    return [code.co_code, code.co_names, consts]


def _file(path: str) -> str:
    """Return a word for what is in a file of code; functions beside the column may matter."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:  # a cell of a notebook
        return ""


# ---- tables -------------------------------------------------------------------------------------
def table_of(rows: Sequence[Mapping[str, Cell]]) -> pd.DataFrame:
    """Return rows as a table by run; ``error`` comes last, ``experiment`` is there if there are several."""
    import pandas as pd

    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [n for n in names if n not in ("experiment", "run", "error")]
    several = len({row["experiment"] for row in rows}) > 1
    order = [*(["experiment"] if several else []), "run", *names, "error"]
    table = pd.DataFrame([{n: row.get(n) for n in order} for row in rows], columns=order)
    if "start" in table:
        table["start"] = pd.to_datetime(table["start"])
    return table.set_index(["experiment", "run"] if several else "run")


STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; }
th, td { padding: 0.2em 0.8em; border-bottom: 1px solid #ddd; text-align: right; }
th { position: sticky; top: 0; background: #fff; }
.text { text-align: left; }
td.text { max-width: 30em; }
.time { white-space: nowrap; }
tr.bad { background: #fee; }
"""


def page_of(
    table: pd.DataFrame,
    title: str,
    links: Mapping[Any, Mapping[str, str]] | None = None,
    said: Sequence[str] = (),
) -> str:
    """Return a table as an HTML page.

    Parameters
    ----------
    table : DataFrame
        From `summary`.
    title : str
    links : mapping of labels to mapping of str to str, optional
        By the label of a row: words and the addresses that they lead to.
    said : sequence of str
        Sentences above the table.
    """
    flat = table.reset_index()
    heads = [*map(_th, flat.columns, flat.dtypes), *(["<th class='text'>pages</th>"] if links else [])]
    lines = [
        f"<!doctype html><html><head><meta charset='utf-8'><title>{markup.escape(title)}</title>",
        f"<style>{STYLE}</style></head><body><h1>{markup.escape(title)}</h1>",
        *(f"<p>{markup.escape(sentence)}</p>" for sentence in said),
        f"<table><tr>{''.join(heads)}</tr>",
    ]
    for label, row in zip(table.index, flat.to_dict("records"), strict=True):
        more = _links(links.get(label, {})) if links else ""
        bad = " class='bad'" if row["error"] else ""
        lines.append(f"<tr{bad}>{''.join(map(_td, row.values()))}{more}</tr>")
    return "\n".join([*lines, "</table></body></html>", ""])


def _th(name: str, dtype: Any) -> str:
    kind = "" if dtype.kind in "biufM" else " class='text'"
    return f"<th{kind}>{markup.escape(str(name))}</th>"


def _td(value: Any) -> str:
    kind = "text" if isinstance(value, str) else "time" if hasattr(value, "year") else ""
    return f"<td class='{kind}'>{markup.escape(_shown(value))}</td>"


def _shown(value: Any) -> str:
    import pandas as pd

    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _links(pages: Mapping[str, str]) -> str:
    made = [f"<a href='{markup.escape(to)}'>{markup.escape(word)}</a>" for word, to in pages.items()]
    return f"<td class='text'>{' '.join(made)}</td>"


def check_table_name(path: str | os.PathLike[str]) -> None:
    """Raise ValueError unless `write_table` knows the end of the name."""
    if Path(path).suffix not in (".html", ".htm", ".parquet", ".pq", ".csv"):
        raise ValueError(f"{path}: the end of the name must be .html, .parquet or .csv")


def write_table(table: pd.DataFrame, path: str | os.PathLike[str], title: str) -> None:
    """Write a summary: ``.html``, ``.parquet`` or ``.csv``.

    Raises
    ------
    ValueError
        Another end of the name.
    """
    check_table_name(path)
    path = Path(path)
    if path.suffix in (".html", ".htm"):
        write_atomically(path, page_of(table, title).encode())
    elif path.suffix == ".csv":
        table.to_csv(path)
    else:
        table.to_parquet(path)


def named_function(text: str) -> Callable[..., Any]:
    """Return a function named as ``module:function`` or ``file.py:function``.

    Raises
    ------
    ValueError
        There is no such module or function.
    """
    home, colon, name = text.rpartition(":")
    if not colon or not home or not name:
        raise ValueError(f"{text!r}: write module:function, or file.py:function")
    try:
        module = _module_of_file(Path(home)) if home.endswith(".py") else _module(home)
        found = getattr(module, name)
    except (ImportError, AttributeError, FileNotFoundError) as error:
        raise ValueError(f"{text!r}: {error}") from None
    if not callable(found):
        raise ValueError(f"{text!r} is no function")
    made: Callable[..., Any] = found
    return made


def _module(name: str) -> Any:
    """Import a module, also from the folder one is in (as ``python -m`` does)."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def _module_of_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
