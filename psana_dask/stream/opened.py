"""From the name of a source to its micro-batches, in the process that reads them."""

from __future__ import annotations

import importlib
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from psana_dask.errors import ReadError
from psana_dask.stream.batches import Batches, checked
from psana_dask.stream.followed import ClosedRun, LiveRun
from psana_dask.stream.received import WAITING_EVENTS, Received, Shown
from psana_dask.stream.taps import Share, SharedTap, Tap

TAPS = ("tcp://", "shmem://")
"""How the names of servers begin."""

AT_ONCE = (
    "dask.array", "psana_dask.merge", "psana_dask.gather", "psana_dask.locate", "psana_dask.calib.apply",
    "psana_dask.reductions.kernels",
)  # fmt: skip
"""What the first batch needs and what takes long to import: a server drops what comes in the meantime."""


@dataclass(frozen=True, eq=False)
class Opening:
    """How to open one source.

    Parameters
    ----------
    source : str
        ``shmem://[HOST/]TAG``, ``tcp://host:port``, ``live:RUN``, ``replay://RUN``, or a run.
    options : mapping
        Of `open_stream`.
    share : Share, optional
        Which events are this reader's.
    after : int
        Of files: leave out the events up to this number, which another reader had.
    """

    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    share: Share | None = None
    after: int = -1

    @property
    def host(self) -> str | None:
        """The machine that must read it; None: any."""
        if not self.source.startswith("shmem://"):
            return None
        host, slash, _ = self.source.removeprefix("shmem://").rpartition("/")
        return host if slash else socket.gethostname()

    def batches(self) -> Batches:
        """Open it in this process.

        Raises
        ------
        ReadError
            No server, or it is on another machine.
        ValueError
            Options that do not fit.
        """
        chosen = dict(self.options)
        policy = checked(chosen.pop("policy", "complete"))
        waiting = chosen.pop("waiting", None)
        timeout = chosen.pop("timeout", 10.0)
        if self.share is not None and self.source.startswith("shmem://"):
            policy = "complete"  # who has no room leaves events to the others of its team
        if self.source.startswith(TAPS):
            shown = _shown(**chosen)
            for module in AT_ONCE:
                importlib.import_module(module)
            return Received(self._tap(timeout), shown, policy, waiting)
        chosen.pop("experiment", None)  # files say it by their names
        return self._of_files(policy, WAITING_EVENTS[policy] if waiting is None else waiting, chosen)

    def _tap(self, timeout: float) -> Tap:
        if self.source.startswith("tcp://"):
            from psana_dask.stream.receiving import ZmqTap

            tap = ZmqTap(self.source, timeout)
            return SharedTap(tap, self.share) if self.share is not None and tap.everyone else tap
        from psana_dask.stream.shmem import ShmemTap

        host, tag = self.host, self.source.removeprefix("shmem://").rpartition("/")[2]
        if not is_here(host):
            raise ReadError(
                f"{self.source}: shared memory is read on its own machine, not on {socket.gethostname()}: "
                f"open it with a dask client that has a worker on {host}"
            )
        return ShmemTap(tag, timeout, self.share)

    def _of_files(self, policy: str, waiting: int, options: dict[str, Any]) -> Batches:
        from psana_dask.opening import open_run

        if self.source.startswith("live:"):
            run = open_run(self.source.removeprefix("live:"), live=True, **options)
            return LiveRun(run, policy, waiting, self.share, self.after)
        path, choices = _replayed(self.source)
        return ClosedRun(open_run(path, **options), policy, waiting, self.share, self.after, **choices)


def _replayed(source: str) -> tuple[str, dict[str, Any]]:
    """Return the run, and the choices, of ``replay://RUN?rate=120&loop``."""
    if not source.startswith("replay://"):
        return source, {}
    path, _, query = source.removeprefix("replay://").partition("?")
    choices: dict[str, Any] = {}
    for each in filter(None, query.split("&")):
        name, _, value = each.partition("=")
        if name == "rate" and _is_rate(value):
            choices["rate"] = float(value)
        elif name == "loop" and not value:
            choices["repeat"] = True
        else:
            raise ValueError(f"{source!r}: {each!r} is none of rate=EVENTS_A_SECOND and loop")
    return path, choices


def _is_rate(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _shown(
    calib: Any = None, detectors: Any = None, damaged: str = "missing", experiment: str | None = None
) -> Shown:
    keep = {"missing": False, "keep": True}.get(damaged)
    if keep is None:
        raise ValueError(f'damaged={damaged!r}: use "missing" or "keep"')
    only = None if detectors is None else ([detectors] if isinstance(detectors, str) else list(detectors))
    return Shown(calib, None if only is None else tuple(only), keep, experiment)


def is_here(host: str | None) -> bool:
    """Tell whether a machine is this one."""
    return host is None or same_host(host, socket.gethostname())


def same_host(one: str, two: str) -> bool:
    """Tell whether two names mean one machine."""
    if one == two or one.partition(".")[0] == two.partition(".")[0]:
        return True
    return bool(addresses(one) & addresses(two))


def addresses(host: str) -> set[str]:
    """Return the addresses of a machine; those of this one for ``localhost``."""
    found = set()
    for name in {host, socket.gethostname()} if host in ("localhost", "127.0.0.1", "::1") else {host}:
        try:
            found |= {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
        except OSError:
            found.add(name)
    return found


def shared(opening: Opening, readers: int) -> list[Opening]:
    """Return the openings of several readers of one source."""
    if readers == 1:
        return [opening]
    team = secrets.randbits(32) | 1
    return [replace(opening, share=Share(k, readers, team)) for k in range(readers)]
