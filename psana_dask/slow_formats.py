"""What slow data need to know of a file format: one row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from psana_dask import epics_xtc, slow_exported, slow_xtc, slow_xtc2
from psana_dask.model import Array, Problem
from psana_dask.recording import Recording
from psana_dask.settings import DetectorConfig
from psana_dask.stepwise import Series, Steps

if TYPE_CHECKING:
    from psana_dask.dataset import View


@dataclass(frozen=True)
class SlowFormat:
    """How slow data are stored.

    Parameters
    ----------
    epics : callable
        Gives the updates of every EPICS variable by name, and problems.
    steps : callable
        Gives the steps with their scan values.
    settings : callable
        ``settings(recording, alias, limit)``: those of a detector in force at `limit` (ns).
    code_words : callable
        ``code_words(view, own_fiducial=)``: event codes as bits, (event, word) uint16 with code c at bit
        c % 16 of word c // 16, and which events have any timing data.
    """

    epics: Callable[[Recording], tuple[dict[str, Series], list[Problem]]]
    steps: Callable[[Recording], Steps]
    settings: Callable[[Recording, str, int], DetectorConfig]
    code_words: Callable[..., tuple[Array, npt.NDArray[np.bool_]]]


FORMATS: Mapping[str, SlowFormat] = {
    "xtc2": SlowFormat(slow_xtc2.epics_series, slow_xtc2.steps, slow_xtc2.settings, slow_xtc2.code_words),
    "xtc": SlowFormat(epics_xtc.epics_series, slow_xtc.steps, slow_xtc.settings, slow_xtc.code_words),
    "export": SlowFormat(
        slow_exported.epics_series, slow_exported.steps, slow_exported.settings, slow_exported.code_words
    ),
}


def slow_format(recording: Recording) -> SlowFormat:
    """Return how the slow data of a recording are stored."""
    return FORMATS[recording.format]


def code_words(view: View, *, own_fiducial: bool = False) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the event codes of each event as bits, and which events have timing data; see `SlowFormat`.

    Raises
    ------
    NameNotFound
        The run has no event codes.
    """
    return slow_format(view.recording).code_words(view, own_fiducial=own_fiducial)
