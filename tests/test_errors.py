"""Errors say what, where, and what to do; they survive the way from a worker."""

import pickle

import pytest

from psana_dask import errors
from psana_dask.errors import (
    EventNotFound,
    FormatError,
    MissingLibrary,
    NameNotFound,
    TruncatedError,
    suggestion,
)

KNOWN = ["epixquad", "epix100", "opal_0", "timing"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("epixqad", "; did you mean epixquad, epix100?"),
        ("EPIXQUAD", "; did you mean epixquad"),
        ("opal", "; did you mean opal_0"),
        ("zzz", "; there are epixquad, epix100, opal_0, timing"),
        ("", "; there are epixquad, epix100, opal_0, timing"),
    ],
)
def test_suggestions(name, said):
    assert suggestion(name, KNOWN).startswith(said)


def test_suggestions_of_nothing_and_of_much():
    assert suggestion("x", []) == "; there are none"
    assert suggestion("x", [f"d{k}" for k in range(9)]) == "; there are d0, d1, d2, d3, d4 and 4 more"


def test_messages_are_plain_text():
    assert str(NameNotFound.of("detector", "cma", ["cam"])) == "no detector 'cma'; did you mean cam?"
    assert str(NameNotFound()) == ""
    assert str(FormatError("bad", "/a/b", 12)) == "bad in /a/b at byte 12"
    assert str(FormatError("bad")) == "bad"
    said = str(MissingLibrary.of("awkward", "ragged", "to_awkward"))
    assert said == 'to_awkward needs awkward: python -m pip install "psana_dask[ragged]"'


@pytest.mark.parametrize(
    "error",
    [FormatError("bad", "/a", 0), TruncatedError("cut", "/b", 7), NameNotFound("x"), EventNotFound("y")],
)
def test_errors_travel(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert again.__dict__ == error.__dict__


BUILT_IN = {
    "FormatError": ValueError, "TruncatedError": EOFError, "UnknownFormat": ValueError,
    "RunNotFound": FileNotFoundError, "AmbiguousRun": ValueError, "NameNotFound": KeyError,
    "EventNotFound": KeyError, "DuplicateData": ValueError, "ReadError": OSError,
    "ConstantsError": ValueError, "ConstantsNotFound": LookupError, "GeometryError": ValueError,
    "MissingLibrary": ImportError,
}  # fmt: skip


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_error_is_also_a_built_in(name):
    found = getattr(errors, name)
    assert issubclass(found, BUILT_IN[name])
    assert issubclass(found, errors.PsanaError)
    assert name in errors.__doc__
