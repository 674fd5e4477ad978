"""EPICS variables from an Archiver Appliance, for any range of time.

::

    GET <url>/retrieval/data/getData.json?pv=NAME&from=2024-06-14T06:12:03.000Z&to=...
    [{"meta": {"name": NAME, "EGU": "mm"},
      "data": [{"secs": 1718345523, "nanos": 250, "val": 1.5, "severity": 0, "status": 0}, ...]}]

or ``getData.raw`` for the same in protocol buffers (``form="pb"``).  The first sample may lie before
``from``: it is the value in force then.  Answers have a limit of size and of time, redirects go to
allowed hosts only, failed requests are repeated, and what lies in the past is kept on disk.  What
answers look like is in `archive_answers`.  Contract: tests/test_archive.py.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.archive_answers import FORMS
from psana_dask.errors import ArchiverError, NameNotFound, suggestion
from psana_dask.join import match
from psana_dask.keys import times
from psana_dask.model import Array
from psana_dask.options import current

if TYPE_CHECKING:
    import xarray as xr

Times = npt.NDArray[np.datetime64]

SETTLED = 600.0
"""Seconds after which what an archiver says of a time does not change any more."""

PARALLEL = 8
_OPERATOR = re.compile(r"[A-Za-z]+(_\d+(\.\d+)?)*")


@dataclass(frozen=True)
class ArchiverLimits:
    """Patience with an archiver.

    Parameters
    ----------
    timeout : float
        Seconds without any byte.
    total : float
        Seconds for one answer.
    attempts : int
    pause : float
        Seconds before the second attempt, doubled each time.
    largest : int
        Bytes of one answer.
    """

    timeout: float = 20.0
    total: float = 120.0
    attempts: int = 3
    pause: float = 0.5
    largest: int = 256 * 2**20


class Archiver:
    """An EPICS Archiver Appliance.

    Parameters
    ----------
    url : str
        ``http://host:port``, without ``/retrieval``.
    hosts : sequence of str
        Further hosts that it may redirect to.
    limits : ArchiverLimits
    cache : bool
        Keep answers about the past on disk.
    form : {"json", "pb"}
        What to ask for: text, or protocol buffers, a third of the size.
    """

    def __init__(
        self,
        url: str,
        hosts: Sequence[str] = (),
        limits: ArchiverLimits | None = None,
        *,
        cache: bool = True,
        form: str = "json",
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"form={form!r}{suggestion(form, FORMS)}")
        self.url = url.rstrip("/").removesuffix("/retrieval")
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ArchiverError(f"{url}: an archiver has an address such as http://host:17668")
        self._limits = limits or ArchiverLimits()
        self._cache, self._form = cache, FORMS[form]
        allowed = frozenset({parts.hostname, *hosts})
        self._opener = urllib.request.build_opener(_SameHosts(allowed))

    def get(self, pvs: str | Iterable[str], start: Any, stop: Any, *, operator: str | None = None) -> Any:
        """Return samples between two times, and the one in force at the first.

        Parameters
        ----------
        pvs : str or list of str
            Several are asked for at once.
        start, stop : event keys
            datetime64, ISO strings (UTC where there is no zone).
        operator : str, optional
            What the archiver is to do with them: ``"mean_60"``, ``"max_600"``.

        Returns
        -------
        DataArray, or a list of them
            On ``time``, with the coordinates ``severity`` and ``status``; units in ``attrs``.

        Raises
        ------
        NameNotFound
            It does not archive such a variable.
        ArchiverError
            No answer, or none that can be understood, within the limits.
        """
        ends = tuple(np.asarray(times(t), "M8[ns]").reshape(-1)[0] for t in (start, stop))
        if ends[1] < ends[0]:
            raise ValueError(f"from {ends[0]} to {ends[1]}: the end lies before the start")
        if isinstance(pvs, str):
            return self._one(pvs, ends, operator)
        names = list(pvs)
        with ThreadPoolExecutor(max(1, min(PARALLEL, len(names)))) as pool:
            return list(pool.map(lambda name: self._one(name, ends, operator), names))

    def between(self, start: Any, stop: Any) -> ArchiveRange:
        """Return the variables between two times, by name: ``archiver.between(a, b)["PV"]``."""
        return ArchiveRange(self, start, stop, np.zeros(0, "M8[ns]"))

    def __repr__(self) -> str:
        return f"<EPICS archiver {self.url}>"

    def _one(self, pv: str, ends: tuple[Any, ...], operator: str | None) -> xr.DataArray:
        if not pv or len(pv) > 256 or not pv.isprintable():
            raise NameNotFound(f"{pv[:300]!r} is no name of an EPICS variable")
        if operator is not None and _OPERATOR.fullmatch(operator) is None:
            raise ValueError(f'operator={operator!r}: such as "mean_60"')
        asked = pv if operator is None else f"{operator}({pv})"
        query = {
            "pv": asked,
            "from": f"{_milliseconds(ends[0])}Z",
            "to": f"{_milliseconds(ends[1], up=True)}Z",
        }
        url = f"{self.url}/retrieval/data/getData.{self._form.ending}?{urllib.parse.urlencode(query)}"
        return self._form.parse(self._answer(url, ends[1], pv), pv, url)

    def _answer(self, url: str, stop: Any, pv: str) -> bytes:
        """Return an answer, from disk if it was kept."""
        past = self._cache and time.time() - stop.astype(np.int64) / 1e9 > SETTLED
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.{self._form.ending}"
        kept = current().cache_folder() / "archiver" / name
        if past and kept.is_file():
            return kept.read_bytes()
        answer = _fetch(self._opener, url, self._limits, pv)
        if past:
            self._form.parse(answer, pv, url)  # what cannot be understood is not kept
            _keep(kept, answer)
        return answer


def _milliseconds(moment: Any, *, up: bool = False) -> str:
    """Return a time as text in milliseconds, rounded down, or up."""
    whole = moment.astype("M8[ms]")
    return str(whole + np.timedelta64(1, "ms") if up and whole < moment else whole)


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


# ---- http ---------------------------------------------------------------------------------------
class _SameHosts(urllib.request.HTTPRedirectHandler):
    """Follow a redirect only to a host that is allowed, and never from https to http."""

    def __init__(self, hosts: frozenset[str]) -> None:
        self._hosts = hosts

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Refuse what leads elsewhere."""
        to = urllib.parse.urlsplit(newurl)
        weaker = req.full_url.startswith("https:") and to.scheme != "https"
        if to.scheme not in ("http", "https") or to.hostname not in self._hosts or weaker:
            fp.close()
            raise ArchiverError(
                f"{req.full_url} redirects to {to.scheme}://{to.netloc}, which is not allowed: "
                "hosts= allows a host"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(opener: urllib.request.OpenerDirector, url: str, limits: ArchiverLimits, pv: str) -> bytes:
    """Return the answer of a GET request, after some attempts."""
    problem: Exception | None = None
    for attempt in range(limits.attempts):
        if attempt:
            time.sleep(limits.pause * 2 ** (attempt - 1))
        try:
            with opener.open(url, timeout=limits.timeout) as response:
                return _read(response, limits, url)
        except ArchiverError:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                raise NameNotFound(f"the archiver does not know {pv} ({url}: 404)") from None
            if error.code < 500 and error.code not in (408, 429):
                raise ArchiverError(f"{url}: {error.code} {error.reason}") from None
            problem = error
        except (OSError, http.client.HTTPException) as error:
            problem = error
    raise ArchiverError(f"{url}: no answer in {limits.attempts} attempts: {problem}") from problem


def _read(response: Any, limits: ArchiverLimits, url: str) -> bytes:
    """Read an answer piece by piece, within the limits of size and time."""
    began, parts, size = time.monotonic(), [], 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > limits.largest:
            raise ArchiverError(
                f"{url}: the answer is larger than {limits.largest} bytes: "
                "ask for less time, or operator='mean_60'"
            )
        if time.monotonic() - began > limits.total:
            raise ArchiverError(f"{url}: no complete answer within {limits.total} s: ask for less time")
    expected = response.headers.get("Content-Length")
    if expected is not None and expected.isdigit() and size < int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - size)
    return b"".join(parts)


# ---- ranges -------------------------------------------------------------------------------------
class ArchiveRange:
    """The variables of an archiver during a run, or between two times.

    Parameters
    ----------
    archiver : Archiver
    start, stop : event keys
    events : (event,) datetime64[ns]
        Where `at` looks by default.

    Examples
    --------
    >>> run.archiver["XPP:SAMPLE:TEMP"]  # at its own rate
    >>> run.archiver.at(["XPP:SAMPLE:TEMP", "GDET:FEE1:241:ENRC"])  # at every event
    """

    def __init__(self, archiver: Archiver, start: Any, stop: Any, events: Times) -> None:
        self._archiver, self._start, self._stop = archiver, start, stop
        self._events = events
        self._seen: dict[str, xr.DataArray] = {}

    def __getitem__(self, pv: str) -> xr.DataArray:
        if pv not in self._seen:
            self._seen[pv] = self._archiver.get(pv, self._start, self._stop)
        return self._seen[pv]

    def at(self, pvs: str | Iterable[str], time: Any = None) -> xr.Dataset:
        """Return variables at the given times (by default at the events): the last sample at or before.

        Parameters
        ----------
        pvs : str or list of str
        time : array of datetime64, optional

        Returns
        -------
        xarray.Dataset
            ``<pv>``, ``<pv>_severity`` and ``<pv>_present``: False before the first sample.
        """
        import xarray as xr

        names = [pvs] if isinstance(pvs, str) else list(pvs)
        wanted = self._events if time is None else np.atleast_1d(np.asarray(time, "M8[ns]"))
        new = [name for name in names if name not in self._seen]
        self._seen |= zip(new, self._archiver.get(new, self._start, self._stop), strict=True)
        variables: dict[str, Any] = {}
        for name in names:
            series = self._seen[name]
            rows = match(series.time.values.astype(np.int64), wanted.astype(np.int64), "ffill").before
            values, present = series.values, rows >= 0
            variables[name] = (("time", *series.dims[1:]), _at(values, rows), series.attrs)
            variables[f"{name}_severity"] = ("time", _at(series.severity.values, rows))
            variables[f"{name}_present"] = ("time", present)
        return xr.Dataset(variables, {"time": wanted})

    def __repr__(self) -> str:
        return f"<{self._archiver!r} from {self._start} to {self._stop}>"


def _at(values: Array, rows: npt.NDArray[np.int64]) -> Array:
    """Return values at rows; NaN, 0 or '' where the row is -1."""
    blank = np.full(
        (1, *values.shape[1:]), np.nan if values.dtype.kind == "f" else np.zeros((), values.dtype)
    )
    return np.concatenate([values, blank.astype(values.dtype)])[rows]


def archiver(
    url: str | None = None,
    *,
    hosts: Sequence[str] = (),
    limits: ArchiverLimits | None = None,
    cache: bool = True,
    form: str = "json",
) -> Archiver:
    """Return an EPICS Archiver Appliance: samples of any variable at any time.

    Parameters
    ----------
    url : str, optional
        ``http://host:port``; by default ``$PSANA_DASK_ARCHIVER``.
    hosts : sequence of str
        Further hosts that it may redirect to.
    limits : ArchiverLimits, optional
    cache : bool
        Keep answers about the past (older than ten minutes) in the cache folder.
    form : {"json", "pb"}
        What to ask for: text, or protocol buffers, a third of the size.

    Raises
    ------
    ArchiverError
        No address, or no web address.

    Examples
    --------
    >>> archiver = psana_dask.archiver("http://archiver.example.org:17668")
    >>> archiver.get("XPP:SAMPLE:TEMP", "2024-06-14T06:00Z", "2024-06-14T07:00Z")
    """
    address = url or os.environ.get("PSANA_DASK_ARCHIVER")
    if not address:
        raise ArchiverError("which archiver? Give its url, or set PSANA_DASK_ARCHIVER=http://host:port")
    return Archiver(address, hosts, limits, cache=cache, form=form)
