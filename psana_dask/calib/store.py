"""The protocol of a constants store, the choice rule, and chains that explain themselves.

A store answers one question: which constant of this kind is in force for this detector and
run?  The answer is a `Lookup`, found or not, with one line for every place that was looked at:
*looked here, took this, because*.  A `Chain` asks several stores in turn.

Choice rule (both facilities): of the constants whose run range covers the run, the largest
begin wins; among these the smallest end; among these the newest insertion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from psana_dask.calib.constants import KINDS, Constants, RunRange, kind_of
from psana_dask.errors import ConstantsNotFound


@dataclass(frozen=True)
class Step:
    """One place that was looked at."""

    store: str
    place: str  # folder, file, database/collection
    outcome: str  # "took", "none", "skipped"
    because: str

    def __str__(self) -> str:
        return f"{self.outcome:7s} {self.store}: {self.place}: {self.because}"


@dataclass(frozen=True, eq=False)
class Lookup:
    """The answer of a store: a constant or None, and how it was reached.

    Examples
    --------
    >>> print(truth.calib.find("epixquad", "pedestals", 1).explain())
    """

    kind: str
    detector: str
    run: int
    constants: Constants | None
    steps: tuple[Step, ...]

    def __bool__(self) -> bool:
        return self.constants is not None

    def explain(self) -> str:
        """Return one line for every place that was looked at."""
        head = f"{self.kind} of {self.detector}, run {self.run}:"
        return "\n  ".join([head, *map(str, self.steps)])

    def found(self) -> Constants:
        """Return the constant, or raise `ConstantsNotFound` with the explanation."""
        if self.constants is None:
            raise ConstantsNotFound(
                f"no {self.explain()}\nDeploy one, name a store with calib=, or choose "
                "policy='warn' or 'raw' to go on without"
            )
        return self.constants


@dataclass(frozen=True)
class Listed:
    """One constant that a store holds, in force or not."""

    detector: str
    kind: str
    runs: RunRange
    origin: str
    created: str = ""
    comment: str = ""


class Lookups(Mapping[str, Lookup]):
    """How several kinds of constants are found; each is looked up once, when it is first asked for.

    Parameters
    ----------
    kinds : sequence of str
    find : callable
        Looks a kind up.
    """

    def __init__(self, kinds: Sequence[str], find: Callable[[str], Lookup]) -> None:
        self._kinds, self._find = tuple(kinds), find
        self._known: dict[str, Lookup] = {}

    def __getitem__(self, kind: str) -> Lookup:
        if kind not in self._kinds:
            raise KeyError(kind)
        if kind not in self._known:
            self._known[kind] = self._find(kind)
        return self._known[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def constants(self, kinds: Iterable[str] | None = None) -> dict[str, Constants]:
        """Return the constants that were found, of all kinds or of some."""
        found = {kind: self[kind].constants for kind in (self if kinds is None else kinds)}
        return {kind: constant for kind, constant in found.items() if constant is not None}


@runtime_checkable
class ConstantsStore(Protocol):
    """Where constants come from."""

    @property
    def name(self) -> str:
        """Short name, for explanations and provenance."""

    def find(self, detector: str, kind: str, run: int) -> Lookup:
        """Return the constant in force, or why there is none; raise if it is malformed."""

    def kinds(self, detector: str) -> tuple[str, ...]:
        """Return the kinds of constants that the store holds for a detector."""

    def listing(self, detector: str | None = None) -> list[Listed]:
        """Return everything that the store holds, or all of one detector."""


Item = TypeVar("Item")


def choose(
    candidates: Iterable[tuple[RunRange, int, Item]], run: int
) -> tuple[RunRange, int, Item] | None:
    """Return the candidate (run range, insertion time, item) in force for a run, or None."""
    fits = [c for c in candidates if run in c[0]]
    return max(fits, key=lambda c: (c[0].begin, -c[0].end, c[1]), default=None)


@dataclass(frozen=True, eq=False)
class MemoryStore:
    """Constants at hand: inside an export, or made by a program."""

    constants: tuple[Constants, ...]
    name: str = "memory"

    def find(self, detector: str, kind: str, run: int) -> Lookup:
        """Return the constant in force; a constant without detector name fits every detector."""
        fits = [(c.runs, i, c) for i, c in enumerate(self.constants)
                if c.kind == kind and c.detector in {"", detector}]
        best = choose(fits, run)
        if best is None:
            step = Step(self.name, kind, "none", f"{len(fits)} of this kind, none for run {run}")
            return Lookup(kind, detector, run, None, (step,))
        step = Step(self.name, kind, "took", f"runs {best[0]}")
        return Lookup(kind, detector, run, replace(best[2], store=best[2].store or self.name), (step,))

    def kinds(self, detector: str) -> tuple[str, ...]:
        """Return the kinds held for a detector."""
        return tuple(sorted({c.kind for c in self.constants if c.detector in {"", detector}}))

    def listing(self, detector: str | None = None) -> list[Listed]:
        """Return everything held, or all of one detector."""
        return [
            Listed(c.detector, c.kind, c.runs, c.origin or self.name, c.created, c.comment)
            for c in self.constants if detector is None or c.detector in {"", detector}
        ]


@dataclass(frozen=True, eq=False)
class Chain:
    """Stores asked in turn; the first that has a constant gives it.

    Examples
    --------
    >>> calib.Chain([calib.LocalStore(Path("own")), truth.calib]).find("epixquad", "pedestals", 1).found()
    """

    stores: Sequence[ConstantsStore]
    name: str = "chain"

    def find(self, detector: str, kind: str, run: int) -> Lookup:
        """Return the first constant found, with the steps of all stores asked."""
        steps: tuple[Step, ...] = ()
        for store in self.stores:
            lookup = store.find(detector, kind, run)
            steps += lookup.steps
            if lookup:
                return replace(lookup, steps=steps)
        if not self.stores:
            steps = (Step(self.name, "-", "none", "no store is known; name one with calib="),)
        return Lookup(kind, detector, run, None, steps)

    def kinds(self, detector: str) -> tuple[str, ...]:
        """Return the kinds that any store holds for a detector."""
        return tuple(sorted({kind for store in self.stores for kind in store.kinds(detector)}))

    def listing(self, detector: str | None = None) -> list[Listed]:
        """Return everything that the stores hold, store after store."""
        return [found for store in self.stores for found in store.listing(detector)]


def constants_for(
    store: ConstantsStore, detector: str, run: int, kinds: Iterable[str] | None = None
) -> tuple[dict[str, Constants], dict[str, Lookup]]:
    """Return the constants in force, and the lookup of every kind.

    Parameters
    ----------
    store : ConstantsStore
        A `Chain` as a rule.
    detector : str
        Source or short name.
    run : int
        Run number.
    kinds : iterable of str, optional
        Else every kind that the store holds and this package knows.
    """
    wanted = [k for k in store.kinds(detector) if k in KINDS] if kinds is None else list(kinds)
    lookups = {kind: store.find(detector, kind_of(kind).name, run) for kind in wanted}
    return {k: v.constants for k, v in lookups.items() if v.constants is not None}, lookups


@dataclass(frozen=True)
class Difference:
    """How a constant differs from another, for a look before deploying."""

    kind: str
    pixels: int
    changed: int
    largest: float  # of |new - old|; NaN for text or another shape
    mean: float  # of new - old
    note: str = ""

    def __str__(self) -> str:
        if self.note:
            return f"{self.kind}: {self.note}"
        return (f"{self.kind}: {self.changed} of {self.pixels} values differ, by at most {self.largest:g}, "
                f"{self.mean:+g} on average")


def difference(new: Constants, old: Constants | None) -> Difference:
    """Return how `new` differs from `old`."""
    nothing = float("nan")
    if old is None:
        return Difference(new.kind, np.size(new.value), np.size(new.value), nothing, nothing, "none before")
    if isinstance(new.value, str) or isinstance(old.value, str):
        same = isinstance(new.value, type(old.value)) and new.value == old.value
        note = "same text" if same else "text differs"
        return Difference(new.kind, 1, int(not same), nothing, nothing, note)
    if new.value.size != old.value.size:
        shapes = f"shape {new.value.shape} in place of {old.value.shape}"
        return Difference(new.kind, new.value.size, new.value.size, nothing, nothing, shapes)
    a, b = (np.asarray(v, np.float64).reshape(-1) for v in (new.value, old.value))
    delta = a - b
    changed = int((~((a == b) | (np.isnan(a) & np.isnan(b)))).sum())
    return Difference(new.kind, a.size, changed, float(np.abs(delta).max(initial=0)),
                      float(delta.mean()) if a.size else 0.0)


def summary(lookups: Mapping[str, Lookup]) -> str:
    """Return the explanations of several lookups, one below the other."""
    return "\n".join(lookup.explain() for lookup in lookups.values())
