"""What psana's ``AreaDetector`` does with a user's own arrays: common mode, text files; type numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.commonmode import plan
from psana_dask.calib.textfile import parse_text, write_text
from psana_dask.detector import Detector as NativeDetector

Array = NDArray[Any]

TYPE_NAMES = (
    "", "Cspad", "Cspad2x2", "Princeton", "pnCCD", "Tm6740", "Opal1000", "Opal2000", "Opal4000", "Opal8000",
    "OrcaFl40", "Epix", "Epix10k", "Epix100a", "Fccd960", "Andor", "Acqiris", "Imp", "Quartz4A150", "Rayonix",
    "Evr", "Fccd", "Timepix", "Fli", "Pimax", "DualAndor", "Jungfrau", "Zyla", "ControlsCamera", "Epix10ka",
    "Uxi", "Pixis", "Epix10ka2M", "Epix10kaQuad", "StreakC7700", "Archon",
)  # fmt: skip
"""Devices in the order of psana's numbers of detector types (PSCalib ``GlobalUtils.py``); 0: unknown."""


def type_number(device: str) -> int:
    """Return psana's number of a detector type, 0 where it has none."""
    return TYPE_NAMES.index(device) if device in TYPE_NAMES else 0


def correct_common_mode(native: NativeDetector, values: Array, parameters: Any) -> None:
    """Subtract the common mode from pedestal-subtracted values, in place.

    Parameters
    ----------
    native : psana_dask.detector.Detector
    values : ([panel,] row, col) float32 or float64
    parameters : numbers
        Algorithm and its parameters.

    Raises
    ------
    TypeError
        The values are no floats: a common mode of whole numbers means nothing.
    """
    if values.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"the common mode is of float values: use values.astype(np.float32), not {values.dtype}"
        )
    calibration = native._imaging.calibration
    rms = calibration.lookups["pixel_rms"]
    steps = plan(
        parameters, calibration.shape, calibration.row, xtc2=calibration.xtc2,
        rms=rms.found().value if rms else None,
    )  # fmt: skip
    if steps is None:
        return
    used = np.ascontiguousarray(native.masked(status=True)).reshape(-1)
    flat = np.ascontiguousarray(values).reshape(-1)
    steps.correct(flat, used)
    values[...] = flat.reshape(values.shape)


def save_array(path: str | os.PathLike[str], values: Array, comments: Iterable[str], source: str) -> None:
    """Write an array as text that calibration directories take: comments, shape and type in front."""
    text = write_text(np.asarray(values), {"SOURCE": source})
    lines = "".join(f"# {comment}\n" for comment in comments)
    Path(path).write_text(lines + text)


def load_array(path: str | os.PathLike[str]) -> Array:
    """Return an array from such a file, in its own shape and type."""
    return parse_text(Path(path).read_text(), os.fspath(path))
