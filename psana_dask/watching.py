"""Watches an experiment: as runs appear, pages of quality, the summary, and constants proposed from darks.

Everything goes into one folder: ``index.html`` (the summary, with links), ``quality/``, ``darks/``
(pictures), ``proposals/`` (constants, laid out as a store) and ``state.json`` (what is done: a restart goes
on there).  Constants are proposed, never put in force.  A run that cannot be read is said to be so, and does
not stop the others.
Contract: tests/test_watching.py.
"""

from __future__ import annotations

import json
import os
import shlex
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from psana_dask.calib.deploying import deploy
from psana_dask.calib.directory import CalibDirectory
from psana_dask.calib.localstore import LocalStore, write_atomically
from psana_dask.calib.store import Chain
from psana_dask.checks import quality
from psana_dask.dark_rules import DarkRun, Rule, cameras, said_by_rule, said_by_scan
from psana_dask.dark_runs import Dark, dark
from psana_dask.errors import ConstantsError, MissingLibrary, PsanaWarning, RunNotFound
from psana_dask.experiment_table import (
    Cell,
    Columns,
    RunEntry,
    digest,
    entries,
    fingerprint,
    page_of,
    row_of,
    table_of,
)
from psana_dask.opening import Source
from psana_dask.run import Run
from psana_dask.stores import store_of

TRIES = 3
"""How often a run is looked at whose files could not be read."""

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class WatchSettings:
    """What to make of runs.

    Parameters
    ----------
    folder : Path
        Where everything goes.
    columns : Columns
        Of the summary.
    dark_runs : tuple of tuple of int
        Runs that are dark; several that measure the gain ranges of one dark together.
    dark_rule : callable, optional
        Says of a run whether it is dark, or of which detectors.
    detectors : tuple of str
        Of named dark runs; all with frames if it is empty.
    settle : float
        Seconds without a change after which the files of a run are taken to be complete.
    sample : int
        Frames of each camera that the page of its quality looks at.
    memory : int
        Bytes that dark processing may use.
    options : mapping
        Of `open_run`: ``calib``.
    """

    folder: Path
    columns: Columns = None
    dark_runs: tuple[tuple[int, ...], ...] = ()
    dark_rule: Rule | None = None
    detectors: tuple[str, ...] = ()
    settle: float = 30.0
    sample: int = 32
    memory: int = 2 << 30
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def proposals(self) -> Path:
        """Store of what is proposed."""
        return self.folder / "proposals"


@dataclass(frozen=True)
class Done:
    """What was made of a run, as it stands in ``state.json``.

    Parameters
    ----------
    identity : str
        Of its files.
    said : list of str
        What went wrong, and what was left out.
    pages : dict of str to str
        Word to address, in the folder.
    proposed : list of str
        Constants, one line each.
    tries : int
        How often its files could not be read; 0 if they could.
    """

    identity: str
    said: list[str] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)
    proposed: list[str] = field(default_factory=list)
    tries: int = 0


@dataclass(eq=False)
class State:
    """What is done, by run or group of dark runs; and what files looked like when they were seen.

    Parameters
    ----------
    path : Path
    done : dict of str to Done
    seen : dict of str to list
        By run: identity of its files, and since when (Unix time).
    """

    path: Path
    done: dict[str, Done]
    seen: dict[str, list[Any]]

    @classmethod
    def of(cls, path: Path) -> State:
        """Read what is done; nothing, if there is no such file, or not one of ours."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            done = {key: Done(**value) for key, value in found["done"].items()}
            return cls(path, done, dict(found["seen"]))
        except FileNotFoundError:
            return cls(path, {}, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            warnings.warn(f"{path} is not readable: everything is done again", PsanaWarning, stacklevel=2)
            return cls(path, {}, {})

    def write(self) -> None:
        """Keep it."""
        done = {key: asdict(value) for key, value in self.done.items()}
        write_atomically(self.path, json.dumps({"done": done, "seen": self.seen}, indent=1).encode())

    def settled(self, entry: RunEntry, settle: float) -> bool:
        """Tell whether the files of a run are complete: closed, and unchanged for a while."""
        if any(path.endswith(".inprogress") for path in entry.files.paths):
            return False
        now, key = time.time(), entry.name
        changed = max(os.stat(path).st_mtime for path in entry.files.paths)
        before = self.seen.get(key)
        if before is None or before[0] != entry.identity:
            self.seen[key] = [entry.identity, now]
        # the clock of a file server may be ahead: then what counts is since when nothing changed
        return now - changed >= settle or now - self.seen[key][1] >= settle


@dataclass(eq=False)
class Watch:
    """An experiment that is watched.

    Parameters
    ----------
    experiment : str
        Or any source of runs.
    data : path, optional
        Folder of the files.
    settings : WatchSettings
    say : callable
        Called with a line for each thing that was done.
    """

    experiment: Source
    data: str | os.PathLike[str] | None
    settings: WatchSettings
    say: Say = print

    def look(self) -> int:
        """Look once at what is there; return how many runs and darks were worked on."""
        with _alone(self.settings.folder):
            state = State.of(self.settings.folder / "state.json")
            worked, found = 0, self._entries()
            ready = [e for e in found if state.settled(e, self.settings.settle)]
            for entry in ready:
                worked += self._run(state, entry)
            for group in self.settings.dark_runs:
                worked += self._group(state, group, ready)
            if worked or not (self.settings.folder / "index.html").exists():
                self._summary(state, found, ready)
            state.write()
        return worked

    def keep_looking(self, every: float, rounds: int | None = None) -> None:
        """Look again and again; Ctrl-C ends it between two steps, and a restart goes on there.

        Parameters
        ----------
        every : float
            Seconds between two looks.
        rounds : int, optional
            How often; for ever by default.
        """
        done = 0
        while rounds is None or done < rounds:
            self.look()
            done += 1
            if rounds is None or done < rounds:
                time.sleep(every)

    def _entries(self) -> list[RunEntry]:
        try:
            return entries(self.experiment, self.data)
        except RunNotFound:  # the first run is yet to come
            return []

    # ---- one run ------------------------------------------------------------------------------
    def _run(self, state: State, entry: RunEntry) -> bool:
        key = entry.name
        before = state.done.get(key)
        same = before is not None and before.identity == self._identity(entry)
        tries = before.tries if before is not None and same else 0
        if same and not 0 < tries < TRIES:
            return False
        self._note(state, key, self._worked(entry, tries), f"run {entry.number}")
        return True

    def _note(self, state: State, key: str, done: Done, what: str) -> None:
        """Keep what was made, and say it."""
        state.done[key] = done
        state.write()
        for line in [*done.proposed, *done.said]:
            self.say(f"{what}: {line}")

    def _worked(self, entry: RunEntry, tries: int) -> Done:
        """Return what was made of a run; an error of any kind is said, not raised."""
        done = Done(self._identity(entry))
        try:
            if entry.error:
                return replace(done, said=[entry.error])
            run = entry.open(**self.settings.options)
            done = self._quality(run, entry, done)
            found = self._is_dark(run)
            if found is not None:
                done = self._dark([run], found, done)
        except OSError as error:
            return replace(done, said=[*done.said, f"cannot be read: {error}"], tries=tries + 1)
        except Exception as error:
            return replace(done, said=[*done.said, _said(error)])
        return done

    def _identity(self, entry: RunEntry) -> str:
        """Return a word for the files of a run and for what the user says of it."""
        settings, named = self.settings, (entry.number,) in self.settings.dark_runs
        rule = None if settings.dark_rule is None else fingerprint(settings.dark_rule)
        return digest([entry.identity, named and settings.detectors, named, rule])

    def _quality(self, run: Run, entry: RunEntry, done: Done) -> Done:
        """Write the page of a run's quality."""
        self.say(f"run {run.number}: quality")
        path = self.settings.folder / "quality" / f"{entry.name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        with _quiet():
            quality(run, sample=self.settings.sample, html=path)
        said = [] if not len(run.problems) else [f"{len(run.problems)} problems while reading"]
        pages = {**done.pages, "quality": f"quality/{path.name}"}
        return replace(done, pages=pages, said=[*done.said, *said])

    # ---- darks --------------------------------------------------------------------------------
    def _is_dark(self, run: Run) -> DarkRun | None:
        """Return what is said of a run; named groups of runs are worked on when all are there."""
        if (run.number,) in self.settings.dark_runs:
            return DarkRun(self.settings.detectors, "it is named as dark")
        if self.settings.dark_rule is not None:
            found = said_by_rule(run, self.settings.dark_rule)
            if found is not None:
                return found
        return said_by_scan(run)

    def _group(self, state: State, group: Sequence[int], ready: Sequence[RunEntry]) -> bool:
        """Work on runs that are one dark together, once all of them are there."""
        own = [entry for entry in ready if entry.number in group]
        if len(group) < 2 or len(own) < len(group):
            return False
        key, identity = "+".join(map(str, group)), "+".join(e.identity for e in own)
        if key in state.done and state.done[key].identity == identity:
            return False
        done = Done(identity)
        try:
            runs = [entry.open(**self.settings.options) for entry in own]
            done = self._dark(runs, DarkRun(self.settings.detectors, "they are named as dark"), done)
        except Exception as error:
            done = replace(done, said=[*done.said, _said(error)])
        self._note(state, key, done, f"runs {key}")
        return True

    def _dark(self, runs: Sequence[Run], found: DarkRun, done: Done) -> Done:
        """Propose constants of each detector; what cannot be worked out is said."""
        number = runs[0].number
        for name in cameras(runs[0], found.detectors):
            self.say(f"run {number}: dark of {name}, as {found.because}")
            try:
                done = self._proposed(runs, name, done)
            except OSError:
                raise
            except Exception as error:
                done = replace(done, said=[*done.said, f"no dark of {name}: {_said(error)}"])
        return done

    def _proposed(self, runs: Sequence[Run], name: str, done: Done) -> Done:
        settings = self.settings
        refuse_in_force(settings.proposals, runs[0])
        with _quiet():
            made = dark(list(runs), name, memory=settings.memory)
            comment = f"proposed by psana-dask watch: dark of run {', '.join(map(str, made.runs))}"
            kinds = deploy(made, LocalStore(settings.proposals), comment=comment)
        differences = "; ".join(str(d.difference) for d in kinds)
        command = deploy_command(self.experiment, self.data, runs, name)
        lines = [
            f"{name}: {len(kinds)} constants proposed in {settings.proposals}; {differences}",
            f"{name}: put them in force with: {command}",
        ]
        picture = self._picture(made, name)
        if picture is None:
            lines.append(f"{name}: no picture, as matplotlib is not installed")
        pages = {} if picture is None else {f"dark of {name}": picture}
        return replace(done, proposed=[*done.proposed, *lines], pages={**done.pages, **pages})

    def _picture(self, made: Dark, name: str) -> str | None:
        """Draw constants; return where, from the folder of the pages. None without matplotlib."""
        place = f"darks/{made.experiment or 'run'}-r{min(made.runs, default=0):04}_{name}.png"
        path = self.settings.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.report(path)
        except MissingLibrary:
            return None
        return place

    # ---- the summary --------------------------------------------------------------------------
    def _row(self, entry: RunEntry, ready: bool) -> dict[str, Cell]:
        if ready:
            return row_of(entry, self.settings.columns, options=self.settings.options)
        return {"experiment": entry.experiment, "run": entry.number, "error": "is still being written"}

    def _summary(self, state: State, found: Sequence[RunEntry], ready: Sequence[RunEntry]) -> None:
        rows = [self._row(entry, entry in ready) for entry in found]
        labels: list[Any] = [entry.number for entry in found]
        if len({entry.experiment for entry in found}) > 1:
            labels = [(entry.experiment, entry.number) for entry in found]
        done = [state.done.get(entry.name, Done("")) for entry in found]
        for row, own in zip(rows, done, strict=True):
            row["error"] = "; ".join(dict.fromkeys(filter(None, [str(row["error"]), *own.said])))
        links = {label: own.pages for label, own in zip(labels, done, strict=True)}
        said = [f"{key}: {line}" for key, own in state.done.items() for line in own.proposed]
        table = table_of(rows) if rows else table_of([{"experiment": "", "run": 0, "error": ""}]).iloc[:0]
        page = page_of(table, f"{self.experiment}", links, said or ["No constants are proposed."])
        write_atomically(self.settings.folder / "index.html", page.encode())
        self.say(f"{self.settings.folder / 'index.html'}: {len(rows)} runs")


def deploy_command(
    experiment: Source, data: str | os.PathLike[str] | None, runs: Sequence[Run], name: str
) -> str:
    """Return the command that puts the constants of a dark in force."""
    where = [] if data is None else ["--dir", os.path.abspath(data)]
    numbers = [word for run in runs for word in ("--run", str(run.number))]
    return shlex.join(["psana-dask", "dark", str(experiment), name, *numbers, *where, "--deploy"])


def refuse_in_force(proposals: Path, run: Run) -> None:
    """Refuse to propose constants into a folder that a run is calibrated from.

    Raises
    ------
    ConstantsError
    """
    store = store_of(run._view.calib, run._recording)
    for one in store.stores if isinstance(store, Chain) else [store]:
        path = getattr(one, "path", None) if isinstance(one, CalibDirectory | LocalStore) else None
        if path is not None and Path(path).resolve() == proposals.resolve():
            raise ConstantsError(
                f"{proposals} is in force for run {run.number}: proposals belong in another folder (-o)"
            )


def _said(error: Exception) -> str:
    return str(error) if str(error) else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out warnings about a run: what matters is on its pages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PsanaWarning)
        yield


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second watch from writing into the same folder.

    Raises
    ------
    BlockingIOError
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with open(folder / ".lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another watch is writing into {folder}: wait for it, or give another folder"
            ) from None
        yield
