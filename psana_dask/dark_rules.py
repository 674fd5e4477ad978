"""Which runs are dark: what the run itself says, and what the user names.  Nothing is guessed from the data.

The DAQ of LCLS-II writes into each step of a pedestal scan a text such as
``{"detname": "epixquad_0", "scantype": "pedestal", "step": 0}`` (``step_docstring``; psdaq's scripts
``*_pedestal_scan.py``). LCLS-1 files say nothing: there the user names runs, or gives a rule.
Contract: tests/test_watching.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psana_dask.errors import ConstantsError

if TYPE_CHECKING:
    from psana_dask.run import Run

Rule = Callable[["Run"], Any]
"""Of a run: True, False or None, or the names of the detectors that it is a dark of."""

SCAN_TYPE = "pedestal"


@dataclass(frozen=True)
class DarkRun:
    """That a run is dark.

    Parameters
    ----------
    detectors : tuple of str
        Of these; all with frames if it is empty.
    because : str
        Who says so.
    """

    detectors: tuple[str, ...]
    because: str


def said_by_scan(run: Run) -> DarkRun | None:
    """Return what the texts of the steps say of a run; None if they say nothing of pedestals."""
    texts = run.scan.get("step_docstring")
    if texts is None:
        return None
    said = [_words(str(text)) for text in texts.values.ravel()]
    names = [str(s.get("detname", "")) for s in said if s.get("scantype") == SCAN_TYPE]
    if not names or len(names) < len(said):  # a scan of which some steps only are dark is no dark run
        return None
    found = [_detector(run, name) for name in dict.fromkeys(names)]
    return DarkRun(
        tuple(n for n in found if n), f"its scan says {SCAN_TYPE} of {', '.join(dict.fromkeys(names))}"
    )


def _words(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _detector(run: Run, name: str) -> str:
    """Return the detector that the DAQ calls so; ``epixquad_0`` is a part of ``epixquad``.

    Raises
    ------
    ConstantsError
        The run has none.
    """
    for spelling in (name, re.sub(r"_\d+$", "", name)):
        for detector in run.detectors.values():
            if spelling in (detector.name, detector.alias):
                return detector.name
    there = ", ".join(run.detectors) or "none"
    raise ConstantsError(
        f"its scan is one of pedestals of {name!r}, but there is no such detector; there are {there}"
    )


def said_by_rule(run: Run, rule: Rule) -> DarkRun | None:
    """Return what a function of the user says of a run.

    Raises
    ------
    ConstantsError
        It is neither a boolean nor names.
    """
    found = rule(run)
    because = f"{getattr(rule, '__name__', 'the rule')} says so"
    if found is None or found is False:
        return None
    if found is True:
        return DarkRun((), because)
    names = [found] if isinstance(found, str) else list(found) if isinstance(found, Iterable) else [found]
    if all(isinstance(n, str) for n in names):
        return DarkRun(tuple(run[n].name for n in names), because) if names else None
    raise ConstantsError(f"{because}: True, False, or names of detectors are wanted, not {found!r}")


def dark_groups(text: str) -> tuple[tuple[int, ...], ...]:
    """Return the dark runs that a text names: ``5,8-10`` are four, ``5+6+7`` one in three gain ranges.

    Raises
    ------
    ValueError
        The text means nothing.

    Examples
    --------
    >>> dark_groups("3,5-6,8+9+10")
    ((3,), (5,), (6,), (8, 9, 10))
    """
    groups: list[tuple[int, ...]] = []
    for word in text.split(","):
        if match := re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", word):
            groups += [(n,) for n in range(int(match[1]), int(match[2]) + 1)]
        elif re.fullmatch(r"\s*\d+\s*(\+\s*\d+\s*)*", word):
            groups.append(tuple(int(n) for n in word.split("+")))
        else:
            raise ValueError(f"{word!r}: name dark runs as 5,8-10, and several of one dark as 5+6+7")
    return tuple(groups)


def cameras(run: Run, wanted: Sequence[str] = ()) -> list[str]:
    """Return the names of detectors that have frames in any event, or those of `wanted`."""
    if wanted:
        return [run[name].name for name in wanted]
    found = []
    for name, detector in run.detectors.items():
        if "raw" in detector.fields and detector.presence > 0:
            raw = detector.field("raw")
            if tuple(raw.dims)[-2:] == ("row", "col"):
                found.append(name)
    return found
