"""Values of records as dicts, lists, numbers and text: what a dump shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SHOWN = 16
"""Elements of an array that are written out; of longer ones shape, type, least and largest."""


def simple(value: Any) -> Any:
    """Return a value as dicts, lists, numbers and text; long arrays as what they are."""
    if isinstance(value, dict):
        return {name: simple(item) for name, item in value.items()}
    if isinstance(value, list):
        return [simple(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= SHOWN else _summary(value)
    return value


def _summary(array: npt.NDArray[Any]) -> dict[str, Any]:
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "min": array.min().item(),
        "max": array.max().item(),
    }
