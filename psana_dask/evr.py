"""Event codes: what the timing system said about each event.

LCLS-II knows the codes 0 to 287, LCLS-1 0 to 255.  They are kept as bits, 16 to a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.dataset import View
from psana_dask.slow_formats import code_words

if TYPE_CHECKING:
    import xarray as xr

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CodeCondition:
    """All of some codes and none of others; an event without timing data never fits.

    Parameters
    ----------
    codes : tuple of int
        Negative ones must be absent.
    negated : bool
    own_fiducial : bool
        Only codes of the event's own fiducial count.
    """

    codes: tuple[int, ...]
    negated: bool = False
    own_fiducial: bool = False

    def mask(self, view: View) -> Bools:
        """Return which events fit."""
        words, present = code_words(view, own_fiducial=self.own_fiducial)
        fits = np.ones(len(present), bool)
        for code in self.codes:
            column = flag_of(words, abs(code))
            fits &= column if code >= 0 else ~column
        return (fits != self.negated) & present

    def __invert__(self) -> CodeCondition:
        return CodeCondition(self.codes, not self.negated, self.own_fiducial)

    def __and__(self, other: Any) -> Both:
        return Both(self, other)

    def __str__(self) -> str:
        words = " ".join(map(str, self.codes))
        return f"not evr {words}" if self.negated else f"evr {words}"


@dataclass(frozen=True)
class Both:
    """Two conditions at once."""

    first: Any
    second: Any

    def mask(self, view: View) -> Bools:
        """Return which events fit both."""
        found: Bools = self.first.mask(view) & self.second.mask(view)
        return found

    def __and__(self, other: Any) -> Both:
        return Both(self, other)

    def __str__(self) -> str:
        return f"{self.first} and {self.second}"


class Evr:
    """Event codes of a run.

    Parameters
    ----------
    view : View
    own_fiducial : bool
        Only codes of the event's own fiducial.

    Examples
    --------
    >>> run.evr.has(90, -162)  # a condition for run.select
    >>> run.evr[90]  # bool (time,)
    """

    def __init__(self, view: View, own_fiducial: bool = False) -> None:
        self._view = view
        self._own = own_fiducial

    @property
    def this_fiducial(self) -> Evr:
        """The same for codes of the event's own fiducial: LCLS-1 receivers may list earlier ones too.

        Examples
        --------
        >>> run.evr.this_fiducial.has(90)
        """
        return Evr(self._view, own_fiducial=True)

    def _words(self) -> npt.NDArray[np.uint16]:
        return code_words(self._view, own_fiducial=self._own)[0]

    @property
    def codes(self) -> xr.DataArray:
        """Which event has which code, bool (time, code).

        Examples
        --------
        >>> run.evr.codes.sum("time")
        """
        import xarray as xr

        flags = all_flags(self._words())
        coords = {"time": self._view.time, "code": np.arange(flags.shape[1])}
        return xr.DataArray(flags, coords, ("time", "code"), name="event_codes")

    def __getitem__(self, code: int) -> xr.DataArray:
        import xarray as xr

        words = self._words()
        self._check((code,), words)
        coords = {"time": self._view.time, "code": code}
        return xr.DataArray(flag_of(words, code), coords, ("time",), name="event_codes")

    def has(self, *codes: int) -> CodeCondition:
        """Ask for events with all of the positive codes and none of the negative ones.

        Parameters
        ----------
        *codes : int
            ``run.evr.has(90, -162)``: code 90, and not 162.

        Returns
        -------
        condition
            For `run.select`; ``~`` turns it round (events without timing data never fit).

        Examples
        --------
        >>> run.select(run.evr.has(90, -162))
        >>> run.select(~run.evr.has(90))
        """
        self._check(codes, self._words())
        return CodeCondition(tuple(codes), own_fiducial=self._own)

    def _check(self, codes: tuple[int, ...], words: npt.NDArray[np.uint16]) -> None:
        if not all(isinstance(code, int | np.integer) for code in codes):
            raise TypeError(f"event codes are numbers, as run.evr.has(90, -162), not {codes}")
        count = 16 * words.shape[1]
        wrong = [c for c in codes if not 0 <= abs(c) < count]
        if wrong or not codes:
            named = ", ".join(map(str, wrong)) or "none"
            raise ValueError(f"event codes are 0 to {count - 1}, not {named}")

    def counts(self) -> dict[int, int]:
        """Return how many events have each code that occurs.

        Examples
        --------
        >>> run.evr.counts()[162]
        """
        words = self._words()
        occurring = np.flatnonzero(all_flags(np.bitwise_or.reduce(words, axis=0)[None]))
        return {int(code): int(flag_of(words, int(code)).sum()) for code in occurring}

    def __repr__(self) -> str:
        words = ", ".join(f"{code}: {count}" for code, count in self.counts().items())
        return f"<event codes of {len(self._view.choice)} events: {words}>"


def flag_of(words: npt.NDArray[np.uint16], code: int) -> Bools:
    """Return which events have a code, from the words of `code_words`."""
    column: Bools = (words[:, code // 16] >> np.uint16(code % 16) & np.uint16(1)).astype(bool)
    return column


def all_flags(words: npt.NDArray[np.uint16]) -> Bools:
    """Return which event has which code, (event, code)."""
    octets = np.ascontiguousarray(words, "<u2").view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little").view(bool)
