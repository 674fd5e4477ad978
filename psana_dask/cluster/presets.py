"""Sites: what a job there may ask for; from a small file, and from one of the user's own."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from psana_dask.errors import ClusterError, NameNotFound, suggestion

KINDS = {int: "number", str: "text in quotes", tuple: "list"}


@dataclass(frozen=True)
class Preset:
    """What a job of a site may ask for; the keys of a table in ``presets.toml``.

    Parameters
    ----------
    cores : int
        Of one job.
    memory : str
        Of one job, with its unit.
    walltime : str
        Of one job: ``HH:MM:SS``, or with days ``D-HH:MM:SS``.
    queue : str, optional
    queue_flag : str
        What the queue is to Slurm: a partition, or a quality of service.
    account : str, optional
    interface : str, optional
        Network card that the nodes reach the scheduler by.
    local_directory : str, optional
        Fast scratch of a node.
    directives : tuple of str
        Further options of ``sbatch``.
    skip : tuple of str
        Directives that the site refuses.
    prologue : tuple of str
        Shell lines that run before the worker.

    Examples
    --------
    >>> cluster.Preset(cores=16, memory="64 GiB", walltime="02:00:00")
    """

    cores: int = 8
    memory: str = "32 GiB"
    walltime: str = "01:00:00"
    queue: str | None = None
    queue_flag: str = "-p"
    account: str | None = None
    interface: str | None = None
    local_directory: str | None = None
    directives: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()


def user_file() -> Path:
    """Return where the presets of the user are looked for."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "psana_dask" / "clusters.toml"


def presets() -> dict[str, Preset]:
    """Return all presets by name: those of the package, and those of the user's own file.

    Raises
    ------
    ClusterError
        The user's file is no TOML, or has a key that no preset has.

    Examples
    --------
    >>> sorted(cluster.presets())
    """
    tables = {name: dict(table) for name, table in _package_tables().items()}
    own = user_file()
    if own.is_file():
        for name, table in _tables(own.read_text(), str(own)).items():
            tables[name] = tables.get(name, {}) | table
    return {name: _preset(name, table) for name, table in tables.items()}


def preset(name: str | None = None) -> Preset:
    """Return a preset; by default what ``$PSANA_DASK_CLUSTER`` names, else ``generic``.

    Raises
    ------
    NameNotFound
        No such preset; lists the nearest names.
    """
    known = presets()
    wanted = name or os.environ.get("PSANA_DASK_CLUSTER") or "generic"
    if wanted not in known:
        raise NameNotFound.of("preset", wanted, known)
    return known[wanted]


@cache
def _package_tables() -> dict[str, dict[str, Any]]:
    source = files("psana_dask.cluster").joinpath("presets.toml")
    return _tables(source.read_text(), str(source))


def _tables(text: str, path: str) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ClusterError(f"{path}: {error}") from error
    if loose := [key for key, table in tables.items() if not isinstance(table, dict)]:
        raise ClusterError(f"{path}: {loose[0]!r} stands outside of a [preset]")
    return tables


def _preset(name: str, table: dict[str, Any]) -> Preset:
    defaults = {f.name: f.default for f in fields(Preset)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in defaults:
            raise ClusterError(f"preset {name!r} has no key {key!r}{suggestion(key, defaults)}")
        values[key] = tuple(value) if isinstance(value, list) else value
        kind = str if defaults[key] is None else type(defaults[key])
        if not isinstance(values[key], kind):
            raise ClusterError(f"preset {name!r}: {key} = {value!r} is no {KINDS[kind]}")
    return Preset(**values)
