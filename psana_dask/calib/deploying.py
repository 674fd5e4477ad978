"""Putting constants in force: several kinds at once, looked at before they are written."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psana_dask.calib.constants import KINDS, LAST_RUN, Constants, RunRange, checked
from psana_dask.calib.detectors import Detector
from psana_dask.calib.localstore import Deployment, LocalStore
from psana_dask.errors import ConstantsError, PsanaWarning, near_names, suggestion

Runs = RunRange | int | str | tuple[int, int]
"""``10`` (from run 10 on), ``"10-20"``, ``"10-end"`` or ``(10, 20)``."""


def run_range(runs: Runs) -> RunRange:
    """Return a range of runs in any of its forms.

    Raises
    ------
    ConstantsError
        It is none of them, or begins after it ends.
    """
    if isinstance(runs, RunRange):
        return runs
    if isinstance(runs, int):
        return RunRange(runs)
    if isinstance(runs, tuple):
        return RunRange(*runs)
    match = re.fullmatch(r"(\d+)(-(\d+|end)?)?", runs.strip())
    if match is None:
        raise ConstantsError(f"runs {runs!r}: write 10, 10-20 or 10-end")
    return RunRange(int(match[1]), LAST_RUN if match[3] in (None, "end") else int(match[3]))


def deploy(
    constants: Any,
    store: LocalStore | str | os.PathLike[str],
    detector: str | None = None,
    runs: Runs | None = None,
    *,
    kinds: Sequence[str] | None = None,
    comment: str = "",
    dry_run: bool = False,
    against: Mapping[str, Constants] | None = None,
) -> list[Deployment]:
    """Put constants in force for a range of runs.

    All of them are checked before the first is written.

    Parameters
    ----------
    constants : mapping of kind to array or Constants, Constants, or the result of `dark`
    store : LocalStore or path
        A writable store; the folder is made if need be.
    detector : str, optional
        Source or alias; else the one that the constants name.
    runs : RunRange, int, str or (int, int), optional
        ``10`` means from run 10 on; else the range that the constants have.
    kinds : sequence of str, optional
        Only these.
    comment : str
        For the HISTORY of the store.
    dry_run : bool
        Say what would happen and how the values differ; write nothing.
    against : mapping of kind to Constants, optional
        The constants in force, to compare with; by default those of a dark's run, else of `store`.

    Returns
    -------
    list of Deployment
        One for each kind: file, backup, difference from the constant in force.

    Raises
    ------
    ConstantsError
        A value does not fit its kind or the detector, or detector or runs are not known.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> peds = {"pedestals": np.ones((4, 5))}
    >>> [done] = deploy(peds, tempfile.mkdtemp(), "opal", 10, comment="by hand")
    >>> done.path.name
    '10-end.data'
    """
    values = _values(constants, kinds)
    target = store if isinstance(store, LocalStore) else LocalStore(Path(store))
    plans = [(value, _detector(value, detector), _runs(value, runs)) for value in values]
    if against is None and hasattr(constants, "in_force"):
        there = [v.kind for v in values if v.kind in constants.in_force]
        against = constants.in_force.constants(there)
    row = getattr(constants, "row", None)
    group = row.group if isinstance(row, Detector) else ""
    options: dict[str, Any] = {"comment": comment, "against": against, "group": group}
    trials = [target.deploy(*plan, dry_run=True, **options) for plan in plans]
    return trials if dry_run else [target.deploy(*plan, **options) for plan in plans]


def _values(constants: Any, kinds: Sequence[str] | None) -> list[Constants]:
    """Return constants in any form as a list."""
    if isinstance(constants, Constants):
        constants = {constants.kind: constants}
    elif not isinstance(constants, Mapping):
        constants = constants.constants()
    made = {
        kind: value if isinstance(value, Constants) else Constants(kind, checked(kind, value))
        for kind, value in constants.items()
    }
    for kind in set(made) - set(KINDS):
        if near_names(kind, KINDS):
            what = f"no program of LCLS reads a constant {kind!r}{suggestion(kind, KINDS)}"
            warnings.warn(what, PsanaWarning, stacklevel=4)
    missing = sorted(set(kinds or ()) - set(made))
    if missing:
        raise ConstantsError(f"there is no {', '.join(missing)} to deploy, only {', '.join(made)}")
    return [made[kind] for kind in kinds or made]


def _detector(constant: Constants, given: str | None) -> str:
    if not (given or constant.detector):
        raise ConstantsError(f"say which detector {constant.kind} is for: detector=")
    return given or constant.detector


def _runs(constant: Constants, given: Runs | None) -> RunRange:
    if given is None and constant.runs == RunRange(0) and not constant.origin:
        raise ConstantsError(f"say for which runs {constant.kind} is: runs=10 means from run 10 on")
    return constant.runs if given is None else run_range(given)
