"""The web service of LCLS-II calibration constants, with the standard library only.

::

    GET <url>/cdb_<experiment>                              -> collections (JSON)
    GET <url>/cdb_<experiment>/<detector>?query_string=...  -> documents (JSON)
    GET <url>/cdb_<experiment>/gridfs/<id_data>             -> payload (bytes)
    GET <url>/cdb_detnames/<type>?query_string=...          -> long and short detector names

A payload is bytes whose document says type, dtype and shape; it is never unpickled and nothing
is evaluated.  Kinds that the experiment's database lacks come from the detector's database, the
newest document first whatever its run range, as psana2 does.  Answers have a time limit and a
size limit, failed requests are repeated, payloads (immutable by id) and the last documents are
kept on disk, so that constants seen once can be used without the network.
Source of protocol and choice rule: lcls2 ``MDBWebUtils.py``, ``CalibDoc.py``, ``MDBUtils.py``.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.constants import LAST_RUN, Constants, RunRange, checked
from psana_dask.calib.localstore import write_atomically
from psana_dask.calib.store import Listed, Lookup, Step, choose
from psana_dask.errors import ConstantsError, ConstantsNotFound

ONSITE = "https://psdmint.sdf.slac.stanford.edu/calib_ws/"
OFFSITE = "https://psextapi.slac.stanford.edu/calib_ws/"
LONGEST_SHORT_NAME = 20  # a name this long or longer is looked up in cdb_detnames

Document = Mapping[str, Any]

_DTYPES = re.compile(r"[<|=]?(float(16|32|64)|u?int(8|16|32|64)|[fiu][1248]|bool)")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def default_url() -> str:
    """Return ``LCLS_CALIB_HTTP`` from the environment, else the service off or on site."""
    fallback = OFFSITE if "SIT_PSDM_OFFSITE" in os.environ else ONSITE
    return os.environ.get("LCLS_CALIB_HTTP", fallback)


def parse_shape(text: object) -> tuple[int, ...]:
    """Return the shape that a document writes as text, ``"(3, 8, 512, 1024)"``.

    Raises
    ------
    ConstantsError
        It is not a tuple of whole numbers.
    """
    if isinstance(text, str) and re.fullmatch(r"\(\s*(\d{1,12}\s*(,\s*\d{1,12}\s*)*,?)?\s*\)", text.strip()):
        return tuple(int(n) for n in re.findall(r"\d+", text))
    raise ConstantsError(f"data_shape {text!r} is not a tuple of whole numbers")


def decode(payload: bytes, document: Document, where: str = "payload") -> NDArray[Any] | str:
    """Return the value that a payload holds, as its document says.

    Parameters
    ----------
    payload : bytes
        Little-endian numbers, or UTF-8 text.
    document : mapping
        ``data_type``, ``data_dtype``, ``data_shape``.
    where : str
        For messages.

    Raises
    ------
    ConstantsError
        Truncated, wrong shape, unknown type, or a pickle (``data_type`` "any").
    """
    kind = document.get("data_type")
    if kind == "str":
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConstantsError(f"{where}: text is not UTF-8 at byte {error.start}") from None
    if kind != "ndarray":
        raise ConstantsError(f"{where}: data_type {kind!r} is not read (a pickle is never opened)")
    name = str(document.get("data_dtype"))
    if _DTYPES.fullmatch(name) is None:
        raise ConstantsError(f"{where}: data_dtype {name!r} is no type of numbers")
    dtype = np.dtype(name).newbyteorder("<")
    shape = parse_shape(document.get("data_shape"))
    wanted = math.prod(shape) * dtype.itemsize
    if len(payload) != wanted:
        short = "truncated, " if len(payload) < wanted else ""
        raise ConstantsError(
            f"{where}: {short}{len(payload)} bytes, but {name} of shape {shape} needs {wanted}"
        )
    return np.frombuffer(payload, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def inserted(document: Document) -> int:
    """Return when a document was inserted, Unix seconds: the first 8 digits of its id."""
    ident = str(document.get("_id", ""))
    if re.fullmatch(r"[0-9a-fA-F]{24}", ident) is None:
        raise ConstantsError(f"document id {ident!r} is not 24 hexadecimal digits")
    return int(ident[:8], 16)


def document_runs(document: Document) -> RunRange | str:
    """Return the runs of a document, or why it does not count."""
    begin, end = document.get("run"), document.get("run_end", "end")
    if not re.fullmatch(r"\d{1,9}", str(begin)) or not re.fullmatch(r"\d{1,9}|end", str(end)):
        return f"runs {begin!r} to {end!r} are not numbers"
    first, last = int(str(begin)), LAST_RUN if end == "end" else int(str(end))
    if first > LAST_RUN or last > LAST_RUN:
        return f"run numbers end at {LAST_RUN}, not {max(first, last)}"
    return RunRange(first, last) if first <= last else f"begins ({first}) after it ends ({last})"


def chosen_document(documents: Iterable[Document], run: int) -> Document | None:
    """Return the document in force for a run, or None."""
    parsed = [(document_runs(d), inserted(d), d) for d in documents]
    best = choose([(r, t, d) for r, t, d in parsed if isinstance(r, RunRange)], run)
    return None if best is None else best[2]


class UnknownDetector(ConstantsNotFound):
    """The service answers, and has no such detector."""


@dataclass(frozen=True)
class Limits:
    """Patience of the client."""

    timeout: float = 20.0  # s without any byte
    total: float = 180.0  # s for one answer
    attempts: int = 3
    pause: float = 0.5  # s before the second attempt, doubled each time
    largest: int = 2 << 30  # bytes of one answer


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code in {408, 429}
    return isinstance(error, (OSError, http.client.HTTPException))


def _read_all(response: http.client.HTTPResponse, limits: Limits, url: str) -> bytes:
    """Read an answer piece by piece, within the limits of size and time."""
    started, parts, size = time.monotonic(), [], 0
    expected = response.headers.get("Content-Length")
    while True:
        part = response.read1(1 << 20)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > limits.largest:
            raise ConstantsError(f"{url}: the answer is larger than {limits.largest} bytes")
        if time.monotonic() - started > limits.total:
            raise TimeoutError(f"no complete answer within {limits.total} s")
    if expected is not None and expected.isdigit() and size < int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - size)
    return b"".join(parts)


def fetch(url: str, limits: Limits) -> bytes | None:
    """Return the answer of a GET request; None if the service does not know the address (404).

    Raises
    ------
    ConstantsNotFound
        The service cannot be reached or fails, after all attempts.
    ConstantsError
        The answer is too large, or the address is not http(s).
    """
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise ConstantsError(f"constants are fetched by http or https, not from {url}")
    request = urllib.request.Request(url, headers={"Accept": "*/*"})  # noqa: S310 - scheme checked above
    problem: Exception | None = None
    for attempt in range(limits.attempts):
        if attempt:
            time.sleep(limits.pause * 2 ** (attempt - 1))
        try:
            with urllib.request.urlopen(request, timeout=limits.timeout) as response:  # noqa: S310
                return _read_all(response, limits, url)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                return None
            problem = error
        except (OSError, http.client.HTTPException) as error:
            problem = error
        if not _is_temporary(problem):
            break
    raise ConstantsNotFound(
        f"the calibration service does not answer: {url}: {problem} ({attempt + 1} attempts)"
    ) from problem


@dataclass(frozen=True)
class WebStore:
    """Constants from the LCLS-II calibration database.

    Parameters
    ----------
    experiment : str
        Name of the experiment; its database is ``cdb_<experiment>``.  Empty: only the detector's.
    url : str
        Root of the service.
    cache : Path, optional
        Folder for payloads and documents.
    limits : Limits
        Time-outs, repetitions, sizes.

    Examples
    --------
    >>> store = calib.WebStore("tstx00117")  # doctest: +SKIP
    """

    experiment: str = ""
    url: str = field(default_factory=default_url)
    cache: Path | None = None
    limits: Limits = Limits()
    _documents: dict[str, list[Document]] = field(default_factory=dict, compare=False, repr=False)
    _notes: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """Return the name for explanations."""
        return f"web service {self.url}"

    def __reduce__(self) -> tuple[Any, ...]:
        return WebStore, (self.experiment, self.url, self.cache, self.limits)  # not what it remembers

    def find(self, detector: str, kind: str, run: int) -> Lookup:
        """Return the constant in force for a run.

        Raises
        ------
        ConstantsNotFound
            The service does not answer and there is no copy on disk.
        ConstantsError
            The document in force or its payload is malformed.
        """
        try:
            short = self.short_name(detector)
        except UnknownDetector as error:
            return Lookup(kind, detector, run, None, (Step(self.name, "cdb_detnames", "none", str(error)),))
        wanted = run or LAST_RUN  # psana2 asks for the last run in place of 0
        steps: tuple[Step, ...] = ()
        if self.experiment:
            database = f"cdb_{self.experiment}"
            documents = self._of_kind(database, short, kind)
            chosen = chosen_document(documents, wanted)
            steps += (*self._invalid(database, short, documents), *self._note(database, short))
            if chosen is not None:
                because = (f"{document_runs(chosen)}: largest begin, smallest end, newest of "
                           f"{len(documents)} documents")
                step = Step(self.name, self._place(database, short, chosen), "took", because)
                return Lookup(kind, detector, run, self._constants(database, short, chosen), (*steps, step))
            because = f"{len(documents)} documents, none covers run {wanted}"
            steps += (Step(self.name, f"{database}/{short}", "none", because),)
        return self._from_detector_database(detector, short, kind, run, steps)

    def _from_detector_database(
        self, detector: str, short: str, kind: str, run: int, steps: tuple[Step, ...]
    ) -> Lookup:
        database = f"cdb_{short}"
        documents = self._of_kind(database, short, kind)
        steps += self._note(database, short)
        if not documents:
            none = Step(self.name, f"{database}/{short}", "none", f"no document of kind {kind}")
            return Lookup(kind, detector, run, None, (*steps, none))
        newest = max(documents, key=inserted)
        because = f"newest of {len(documents)} documents of the detector, whatever its run range"
        step = Step(self.name, self._place(database, short, newest), "took", because)
        return Lookup(kind, detector, run, self._constants(database, short, newest), (*steps, step))

    def kinds(self, detector: str) -> tuple[str, ...]:
        """Return the kinds that either database has a document of."""
        short = self.short_name(detector)
        databases = [f"cdb_{self.experiment}"] if self.experiment else []
        found = {str(d["ctype"]) for db in [*databases, f"cdb_{short}"]
                 for d in self.documents(db, short) if "ctype" in d}
        return tuple(sorted(found))

    def detectors(self) -> list[str]:
        """Return the short names of the detectors that the experiment's database has."""
        place = f"cdb_{self.experiment}"
        answer = fetch(self._address(place), self.limits)
        names = json.loads(answer or b"[]")
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise ConstantsError(f"{place}: the service answered no list of names")
        return sorted(n for n in names if _SAFE.fullmatch(n) and n not in ("fs.files", "fs.chunks"))

    def listing(self, detector: str | None = None) -> list[Listed]:
        """Return all valid documents of the experiment's database, or of one detector."""
        if detector is None and not self.experiment:
            raise ConstantsError(f"{self.name}: name an experiment or a detector to list")
        names = self.detectors() if detector is None else [self.short_name(detector)]
        database = f"cdb_{self.experiment}" if self.experiment else f"cdb_{names[0]}"
        return [
            Listed(name, str(d.get("ctype", "")), runs, self._place(database, name, d),
                   str(d.get("time_stamp", "")), str(d.get("comment", "")))
            for name in names for d in self.documents(database, name)
            if isinstance(runs := document_runs(d), RunRange)
        ]

    def short_name(self, detector: str) -> str:
        """Return the database's name of a detector; a long one is looked up.

        Raises
        ------
        UnknownDetector
            The service does not know the long name.
        """
        if len(detector) < LONGEST_SHORT_NAME:
            return _safe(detector)
        folder = _safe(detector.split("_", 1)[0])
        for document in self.documents("cdb_detnames", folder, {"long": detector}):
            if document.get("long") == detector and document.get("short"):
                return _safe(str(document["short"]))
        raise UnknownDetector(
            f"{self.name}: no short name for detector {detector!r} in cdb_detnames/{folder}"
        )

    def documents(
        self, database: str, collection: str, query: Mapping[str, Any] | None = None
    ) -> list[Document]:
        """Return the documents of a collection, asked for once.

        If the service does not answer, those of the last time are taken from the disk.
        """
        asked = {"detector": collection} if query is None else query
        address = f"{self._address(database, collection)}?" + urllib.parse.urlencode(
            {"query_string": json.dumps(asked)})
        if address not in self._documents:
            self._documents[address] = self._ask(address, f"{database}/{collection}")
        return self._documents[address]

    def _ask(self, address: str, place: str) -> list[Document]:
        copy = self._cached("documents", hashlib.sha256(address.encode()).hexdigest() + ".json")
        try:
            answer = fetch(address, self.limits)
        except ConstantsNotFound as error:
            if copy is None or not copy.exists():
                raise
            self._notes[place] = f"{error}; used the documents of the last time"
            return _parsed(copy.read_bytes(), place)
        documents = _parsed(answer or b"[]", place)
        if copy is not None:
            write_atomically(copy, answer or b"[]")
        return documents

    def _of_kind(self, database: str, short: str, kind: str) -> list[Document]:
        return [d for d in self.documents(database, short) if d.get("ctype") == kind]

    def _invalid(self, database: str, short: str, documents: list[Document]) -> tuple[Step, ...]:
        reasons = [(d, document_runs(d)) for d in documents]
        return tuple(Step(self.name, self._place(database, short, d), "skipped", why)
                     for d, why in reasons if isinstance(why, str))

    def _note(self, database: str, short: str) -> tuple[Step, ...]:
        place = f"{database}/{short}"
        return (Step(self.name, place, "skipped", self._notes[place]),) if place in self._notes else ()

    @staticmethod
    def _place(database: str, short: str, document: Document) -> str:
        return f"{database}/{short}/{document.get('_id')}"

    def _address(self, *parts: str) -> str:
        return "/".join([self.url.rstrip("/"), *(urllib.parse.quote(part, safe="") for part in parts)])

    def _cached(self, *parts: str) -> Path | None:
        return None if self.cache is None else Path(self.cache).joinpath(*parts)

    def _constants(self, database: str, short: str, document: Document) -> Constants:
        where = f"{self.url} {self._place(database, short, document)}"
        kind = str(document["ctype"])
        value = self._value(database, document, where)
        stated = document_runs(document)
        runs = stated if isinstance(stated, RunRange) else RunRange(0)
        return Constants(
            kind, checked(kind, value, where=where), short, runs,
            self.name, self._place(database, short, document), str(document.get("version", "")),
            str(document.get("comment", "")), str(document.get("time_stamp", "")),
        )

    def _value(self, database: str, document: Document, where: str) -> NDArray[Any] | str:
        """Decode the payload from the disk if it is whole there, else from the service."""
        ident = _safe(str(document.get("id_data", "")))
        copy = self._cached(database, f"{ident}.bin")
        if copy is not None and copy.exists():
            try:
                return decode(copy.read_bytes(), document, str(copy))
            except ConstantsError:
                copy.unlink(missing_ok=True)
        payload = fetch(self._address(database, "gridfs", ident), self.limits)
        if payload is None:
            raise ConstantsError(f"{where}: the service has no payload {ident}")
        value = decode(payload, document, where)
        if copy is not None:
            write_atomically(copy, payload)
        return value


def _safe(name: str) -> str:
    """Return a name that is safe in an address and as a file name, or raise."""
    if _SAFE.fullmatch(name) is None:
        raise ConstantsError(f"{name!r} cannot be a name in the calibration database")
    return name


def _parsed(answer: bytes, place: str) -> list[Document]:
    try:
        parsed = json.loads(answer)
    except ValueError as error:
        raise ConstantsError(f"{place}: the service answered no JSON: {error}") from None
    if not isinstance(parsed, list) or not all(isinstance(d, dict) for d in parsed):
        raise ConstantsError(f"{place}: the service answered no list of documents")
    return parsed
