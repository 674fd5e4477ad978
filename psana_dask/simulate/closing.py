"""Names of files while they are written, and after."""

from __future__ import annotations

from pathlib import Path

from psana_dask.sources import GROWING


def closed_name(path: Path) -> Path:
    """Rename a file that its writer has closed; return its new path."""
    if path.name.endswith(GROWING) and path.exists():
        return path.rename(path.with_name(path.name.removesuffix(GROWING)))
    return path
