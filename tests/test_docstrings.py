"""Every public call has an example in its docstring, and docs/api.md names nothing that is not there."""

import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import psana_dask
from psana_dask.accessor import ArrayAccessor, DatasetAccessor
from psana_dask.detector import Detector
from psana_dask.evr import Evr
from psana_dask.results import EventResults
from psana_dask.run import Run
from psana_dask.slow import Epics
from psana_dask.stream.stream import Stream

API = (Path(__file__).parents[1] / "docs/api.md").read_text()
OBJECTS = {
    "run": (Run, EventResults),
    "det": (Detector,),
    "run.epics": (Epics,),
    "run.evr": (Evr,),
    "stream": (Stream,),
    "da.psana": (ArrayAccessor,),
    "ds.psana": (DatasetAccessor,),
}
"""What the page calls objects, and their classes."""

OF_DATA = {"cspad", "raw", "timetool"}
"""Names that depend on the run."""


def methods():
    """Every public method of what a user holds."""
    for name, kinds in OBJECTS.items():
        for kind in kinds:
            for attribute, value in vars(kind).items():
                if inspect.isfunction(value) and not attribute.startswith("_"):
                    yield f"{name}.{attribute}", value


def functions():
    """Every public function of the package and its namespaces."""
    for name in psana_dask.__all__:
        found = getattr(psana_dask, name)
        if not inspect.ismodule(found):
            yield f"psana_dask.{name}", found
            continue
        for inner in getattr(found, "__all__", ()):
            if inspect.isfunction(getattr(found, inner)):
                yield f"psana_dask.{name}.{inner}", getattr(found, inner)


CALLS = {**dict(methods()), **dict(functions())}


def test_there_are_many_calls():
    assert len(CALLS) > 150


@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_an_example(name):
    text = inspect.getdoc(CALLS[name]) or ""
    _, heading, example = text.partition("Examples\n--------\n")
    assert heading, name
    assert example.lstrip().startswith(">>> ") or "\n>>> " in example, name


def named():
    """The names on the page: ``run.mean``, ``det.raw``, ``psana_dask.calib.dark``."""
    first = [line.split(" | ")[0] for line in API.splitlines() if line.startswith("| `")]
    codes = re.findall(r"`([^`]+)`", " ".join(first))
    found = (re.match(r"(?:psana_dask|run|det|stream)(?:\.\w+)+", code) for code in codes)
    return sorted({match[0] for match in found if match})


@pytest.mark.parametrize("name", named())
def test_what_the_page_names_is_there(name):
    head, _, rest = name.partition(".")
    if head == "psana_dask":
        assert pkgutil.resolve_name(name) is not None
        return
    first = rest.split(".")[0]
    assert first in OF_DATA or any(hasattr(kind, first) for kind in OBJECTS[head]), name
