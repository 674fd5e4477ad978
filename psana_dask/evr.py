"""Event codes: what the timing system said about each event.

LCLS-II: 288 codes, one bit each, in the 18 words of ``sequenceValues`` of the timing
detector (code = 16 * word + bit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.catalog import Channel
from psana_dask.dataset import View
from psana_dask.errors import NameNotFound
from psana_dask.fields import any_panel
from psana_dask.pipeline import FrameArray, catalog_of

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
    """

    codes: tuple[int, ...]
    negated: bool = False

    def mask(self, view: View) -> Bools:
        """Return which events fit."""
        flags, present = code_flags(view)
        fits = np.ones(len(present), bool)
        for code in self.codes:
            column = flags[:, abs(code)]
            fits &= column if code >= 0 else ~column
        return (fits != self.negated) & present

    def __invert__(self) -> CodeCondition:
        return CodeCondition(self.codes, not self.negated)

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
    """

    def __init__(self, view: View) -> None:
        self._view = view

    @property
    def codes(self) -> xr.DataArray:
        """Which event has which code, bool (time, code)."""
        import xarray as xr

        flags, _ = code_flags(self._view)
        coords = {"time": self._view.time, "code": np.arange(flags.shape[1])}
        return xr.DataArray(flags, coords, ("time", "code"), name="event_codes")

    def __getitem__(self, code: int) -> xr.DataArray:
        return self.codes.sel(code=code)

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
        """
        flags, _ = code_flags(self._view)
        wrong = [c for c in codes if not 0 <= abs(c) < flags.shape[1]]
        if wrong or not codes:
            named = ", ".join(map(str, wrong)) or "none"
            raise ValueError(f"event codes are 0 to {flags.shape[1] - 1}, not {named}")
        return CodeCondition(tuple(codes))

    def counts(self) -> dict[int, int]:
        """Return how many events have each code that occurs."""
        flags, _ = code_flags(self._view)
        totals = flags.sum(axis=0)
        return {int(code): int(totals[code]) for code in np.flatnonzero(totals)}

    def __repr__(self) -> str:
        words = ", ".join(f"{code}: {count}" for code, count in self.counts().items())
        return f"<event codes of {len(self._view.choice)} events: {words}>"


def code_flags(view: View) -> tuple[Bools, Bools]:
    """Return the codes of each event, (event, code), and whether it has timing data, (event,).

    Raises
    ------
    NameNotFound
        The run has no timing detector with event codes.
    """
    target = view.target(_code_channel(view))
    words = np.asarray(FrameArray(target)[...], np.uint16)
    bits: Sequence[int] = range(16)
    flags = (words[:, :, None] >> np.array(bits, np.uint16) & 1).astype(bool)
    return flags.reshape(len(words), words.shape[1] * 16), any_panel(target.reader().present(view.choice.numbers))


def _code_channel(view: View) -> Channel:
    for entry in catalog_of(view.recording).detectors.values():
        for channel in entry.channels.values():
            if channel.spec.name == "sequenceValues" and view.exists(channel):
                return channel
    raise NameNotFound("this run has no event codes: no detector with sequenceValues")
