"""Constants to and from single files, and what can be said of them in a few numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from psana_dask.calib.constants import KINDS, Constants, checked, kind_of
from psana_dask.calib.textfile import parse_text, write_text
from psana_dask.errors import ConstantsError


def load_constant(path: Path, kind: str) -> Constants:
    """Return the constant of a file: ``.npy``, or text as in a calib directory.

    Raises
    ------
    ConstantsError
        The file cannot be read, or its content is not of this kind.
    """
    where = str(path)
    try:
        if path.suffix == ".npy":
            value: Any = np.load(path, allow_pickle=False)
        else:
            text = path.read_text(encoding="utf-8")
            value = text if kind_of(kind).dtype == "str" else parse_text(text, where)
    except (OSError, ValueError) as error:
        if isinstance(error, ConstantsError):
            raise
        raise ConstantsError(f"{path}: cannot be read as {kind}: {error}") from error
    return Constants(kind, checked(kind, value, where=where), origin=where)


def save_constant(constant: Constants, path: Path) -> None:
    """Write a constant to a file: ``.npy`` keeps the bits; any other name gets the text format.

    Raises
    ------
    ConstantsError
        Text has no ``.npy`` form.
    """
    value = constant.value
    if path.suffix == ".npy":
        if isinstance(value, str):
            raise ConstantsError(f"{constant.kind} is text: write it to a file that is not .npy")
        np.save(path, value, allow_pickle=False)
        return
    header = {key.upper(): text for key, text in constant.attrs().items() if text}
    path.write_text(value if isinstance(value, str) else write_text(value, header), encoding="utf-8")


def facts(constant: Constants) -> dict[str, Any]:
    """Return provenance, shape and a few numbers of a constant, for people and for JSON."""
    value = constant.value
    if isinstance(value, str):
        return {**constant.attrs(), "dtype": "text", "lines": len(value.splitlines())}
    numbers: dict[str, Any] = {"dtype": str(value.dtype), "shape": list(value.shape)}
    if value.dtype.kind in "ui" and constant.kind.split("_")[-1] in ("status", "extra", "data"):
        bits = [b for b in range(64) if (value.astype(np.uint64) >> np.uint64(b) & np.uint64(1)).any()]
        counts = {1 << b: int((value.astype(np.uint64) >> np.uint64(b) & np.uint64(1)).sum()) for b in bits}
        numbers["bad_pixels"], numbers["bits"] = int((value != 0).sum()), counts
    elif value.size:
        finite = np.asarray(value, np.float64)
        finite = finite[np.isfinite(finite)]
        if finite.size:
            numbers |= {"min": float(finite.min()), "median": float(np.median(finite)),
                        "mean": float(finite.mean()), "max": float(finite.max()), "std": float(finite.std())}
        numbers["not_finite"] = int(value.size - finite.size)
    unit = KINDS[constant.kind].unit if constant.kind in KINDS else ""
    return {**constant.attrs(), **numbers, "unit": unit}


def change(new: Constants, old: Constants) -> Constants:
    """Return the difference of two constants as an array of the new one's kind, for pictures.

    Raises
    ------
    ConstantsError
        Text, or arrays of another size.
    """
    if isinstance(new.value, str) or isinstance(old.value, str) or new.value.size != old.value.size:
        raise ConstantsError(f"these two {new.kind} have no difference that can be drawn")
    a, b = (np.asarray(v, np.float64) for v in (new.value, old.value))
    return Constants(new.kind, a - b.reshape(a.shape), new.detector)
