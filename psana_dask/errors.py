"""What can go wrong, as a small tree of exceptions and warnings.

Every error says what is wrong, where (file, byte offset, event, detector) and what
to do next.  Each class is also a built-in, so code that knows nothing of this
package can still catch it::

    PsanaError
     ├── FormatError (ValueError)            bytes are not what the format says
     │    └── TruncatedError (EOFError)      the file ends before the datagram does
     ├── UnknownFormat (ValueError)          neither XTC nor XTC2 nor an export
     ├── RunNotFound (FileNotFoundError)     no file of this experiment and run
     ├── AmbiguousRun (ValueError)           several runs where one is meant
     ├── NameNotFound (KeyError)             no such detector, field or variable
     │    └── EventNotFound (KeyError)       no event at this time
     ├── DuplicateData (ValueError)          one (detector, field, segment) twice
     ├── ReadError (OSError)                 a file changed, shrank or vanished
     ├── ConditionError (ValueError)         a condition on events is not understood
     ├── ConstantsError (ValueError)         a constant is malformed
     ├── ConstantsNotFound (LookupError)     no constant covers this run
     ├── GeometryError (ValueError)          a geometry is malformed
     ├── ClusterError (RuntimeError)         workers cannot be had as asked
     ├── ArchiverError (OSError)             an archiver gives no usable answer
     ├── ExportError (OSError)              an export cannot be written or finished
     ├── PageError (OSError)                 a page cannot be served
     ├── ReadOnlyError (PermissionError)     constants may not be changed here
     ├── FunctionError (RuntimeError)        a function of the user failed, or does what it may not
     └── MissingLibrary (ImportError)        an optional library is not installed

    PsanaWarning (UserWarning)
     ├── PartialRunWarning                   part of a run could not be read
     ├── StreamWarning                       a live run or stream stopped, or dropped events
     ├── DroppedWarning                      a join or selection left something out
     └── ConstantsWarning                    uncalibrated or default constants in use
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PsanaError(Exception):
    """Base of every error that this package raises on purpose."""


class FormatError(PsanaError, ValueError):
    """Bytes that do not follow the format; names the file and the byte offset.

    Parameters
    ----------
    what : str
        What is wrong, and what was expected.
    path : str, optional
        The file.
    offset : int, optional
        Byte offset in the file.
    """

    def __init__(self, what: str, path: str | None = None, offset: int | None = None) -> None:
        self.what = what
        self.path = path
        self.offset = offset
        where = "" if path is None else f" in {path}"
        where += "" if offset is None else f" at byte {offset}"
        super().__init__(what + where)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.what, self.path, self.offset)


class TruncatedError(FormatError, EOFError):
    """The file ends inside a datagram."""


class UnknownFormat(PsanaError, ValueError):
    """The content is neither LCLS-1 XTC nor LCLS-II XTC2 nor an export of this package."""


class RunNotFound(PsanaError, FileNotFoundError):
    """No file was found for what was asked; the message lists the places looked at."""


class AmbiguousRun(PsanaError, ValueError):
    """The source holds several runs and ``run=`` does not say which one."""


class NameNotFound(PsanaError, KeyError):
    """A name that the run does not have; the message lists the nearest ones."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[str]) -> NameNotFound:
        """Build the error for `name`, listing the names of `known` that are near it."""
        return cls(f"no {kind} {str(name)!r}{suggestion(str(name), known)}")


class EventNotFound(NameNotFound):
    """No event has this key; the message names the nearest one and its distance."""


class DuplicateData(PsanaError, ValueError):
    """Two streams of a run deliver the same (detector, field, segment)."""


class ReadError(PsanaError, OSError):
    """A file cannot be read as indexed: it changed, shrank or vanished."""


class ConditionError(PsanaError, ValueError):
    """A condition on events, written as text, is not understood; shows which part."""


class ConstantsError(PsanaError, ValueError):
    """A calibration constant is malformed."""


class ConstantsNotFound(PsanaError, LookupError):
    """No calibration constant covers this detector and run."""


class GeometryError(PsanaError, ValueError):
    """A geometry description is malformed."""


class ExportError(PsanaError, OSError):
    """An export cannot be written, or is not complete; says what is kept, and how to go on."""


class ClusterError(PsanaError, RuntimeError):
    """Workers cannot be had as asked: no batch system, a refused job, a wrong preset."""


class PageError(PsanaError, OSError):
    """A page cannot be served: the port is taken, or the address is not of this machine."""


class ReadOnlyError(PsanaError, PermissionError):
    """Constants may not be changed here; says how to be allowed to."""


class FunctionError(PsanaError, RuntimeError):
    """A function of the user failed, or does what it may not; the message names event and file."""


class ArchiverError(PsanaError, OSError):
    """An EPICS archiver gives no answer, or none that can be used; names the address."""


class MissingLibrary(PsanaError, ImportError):
    """An optional library is needed; the message is the command that installs it."""

    @classmethod
    def of(cls, library: str, extra: str, purpose: str) -> MissingLibrary:
        """Build the error for `library`, part of the extra named `extra`."""
        return cls(f'{purpose} needs {library}: python -m pip install "psana_dask[{extra}]"')


class PsanaWarning(UserWarning):
    """Base of every warning of this package."""


class PartialRunWarning(PsanaWarning):
    """Part of a run could not be read; `run.problems` lists what."""


class StreamWarning(PsanaWarning):
    """A live run or a stream stopped without its end, or events of it were dropped."""


class DroppedWarning(PsanaWarning):
    """A join or a selection left detectors or events out."""


class ConstantsWarning(PsanaWarning):
    """Data are delivered uncalibrated, or with default constants."""


def no_attribute(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """Build the error for a name that a module does not have, listing the nearest ones."""
    near = "" if name.startswith("__") else suggestion(name, known)
    return AttributeError(f"module {module!r} has no attribute {name!r}{near}")


def refuse_unknown(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError for the first keyword that a call does not take, listing the nearest ones."""
    choices = list(known)
    for name in given:
        if name not in choices:
            raise TypeError(f"{call} takes no {name}={suggestion(name, choices)}")


def near_names(name: str, known: Iterable[str], most: int = 5) -> list[str]:
    """Return the names that are spelled like `name`, the nearest first."""
    lowered = {n.lower(): n for n in known}
    return [lowered[n] for n in difflib.get_close_matches(name.lower(), lowered, n=most, cutoff=0.5)]


def suggestion(name: str, known: Iterable[str], most: int = 5) -> str:
    """Return ``"; did you mean ...?"`` with the known names nearest to `name`."""
    names = list(known)
    near = near_names(name, names, most)
    near += [n for n in names if name and name.lower() in n.lower() and n not in near]
    if near:
        return f"; did you mean {', '.join(near[:most])}?"
    if not names:
        return "; there are none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"; there are {', '.join(names[:most])}{more}"
