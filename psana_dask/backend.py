"""xarray's door: ``xarray.open_dataset(source, engine="psana")`` and ``open_datatree``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from xarray.backends import BackendEntrypoint

from psana_dask.files import FILE_NAME, SUFFIXES, is_data_set

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.run import Run


class PsanaBackend(BackendEntrypoint):
    """Opens LCLS runs for xarray; `chunks` is xarray's own parameter."""

    description = "Open LCLS runs (XTC, XTC2) as lazy datasets keyed by event time"
    url = "https://github.com/psana-dask/psana_dask"
    open_dataset_parameters = (
        "drop_variables", "detectors", "run", "dir", "streams", "join", "damaged", "cache_index",
    )  # fmt: skip
    supports_groups = True

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        detectors: str | Sequence[str] | None = None,
        run: int | None = None,
        dir: str | None = None,
        streams: Sequence[int] | None = None,
        join: str | None = None,
        damaged: str = "missing",
        cache_index: bool = True,
    ) -> xr.Dataset:
        """Open detectors of a run as one Dataset.

        Parameters
        ----------
        filename_or_obj : str, path or list
            As `psana_dask.open` takes it.
        drop_variables : str or iterable of str, optional
        detectors : str or sequence of str, optional
            ``"cspad"``, ``"cspad.raw"``, ``"epix*"``; all by default.
        run, dir, streams, damaged
            As in `psana_dask.open`; `cache_index` is its `cache`.
        join : {"inner", "outer"}, optional
        """
        opened = _open(filename_or_obj, run, dir, streams, damaged, cache_index)
        dataset = opened.dataset(detectors, join=join, chunks=None)
        return dataset.drop_vars(_listed(drop_variables), errors="ignore")

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        detectors: str | Sequence[str] | None = None,
        run: int | None = None,
        dir: str | None = None,
        streams: Sequence[int] | None = None,
        damaged: str = "missing",
        cache_index: bool = True,
    ) -> dict[str, xr.Dataset]:
        """Return the groups of `Run.tree`, by path; parameters as of `open_dataset`."""
        opened = _open(filename_or_obj, run, dir, streams, damaged, cache_index)
        tree = opened.tree(detectors, chunks=None)
        dropped = _listed(drop_variables)
        return {node.path: node.to_dataset().drop_vars(dropped, errors="ignore") for node in tree.subtree}

    def open_datatree(self, filename_or_obj: Any, **choices: Any) -> xr.DataTree:
        """Open a run as a tree: ``events``, ``epics``, and one node per detector.

        Parameters
        ----------
        filename_or_obj, **choices
            As of `open_groups_as_dict`.
        """
        import xarray as xr

        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **choices))

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Tell from the name whether this is a run; never raises."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        name = os.fspath(filename_or_obj)
        named = FILE_NAME.fullmatch(os.path.basename(name)) is not None
        return named or is_data_set(name) or name.endswith(SUFFIXES)


def _open(
    source: Any, run: int | None, folder: str | None, streams: Sequence[int] | None, damaged: str, cache: bool
) -> Run:
    from psana_dask.opening import open_run

    return open_run(source, run, dir=folder, streams=streams, damaged=damaged, cache=cache)


def _listed(names: str | Iterable[str] | None) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)
