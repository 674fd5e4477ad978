"""Every public call has an example in its docstring, and docs/api.md names nothing that is not there.

The examples of what a user holds are run, too, but for those of calls that need another machine.
"""

import functools
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.accessor import ArrayAccessor, DatasetAccessor
from psana_dask.detector import Detector
from psana_dask.evr import Evr
from psana_dask.pages.live import Live
from psana_dask.readouts import LiveReadouts, Readouts
from psana_dask.reductions.roi import Roi
from psana_dask.results import EventResults
from psana_dask.run import Run
from psana_dask.runs import Runs
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
    "runs": (Runs,),
    "readouts": (Readouts, LiveReadouts),
    "spot": (Roi,),
    "live": (Live,),
}
"""What the page calls objects, and their classes."""

OF_DATA = {"cspad", "raw", "timetool"}
"""Names that depend on the run."""


def methods():
    """Every class of what a user holds, its public methods and properties."""
    for name, kinds in OBJECTS.items():
        for kind in kinds:
            yield f"{name}: {kind.__name__}", kind
            for attribute, value in vars(kind).items():
                if attribute.startswith("_"):
                    continue
                if inspect.isfunction(value):
                    yield f"{name}.{attribute}", value
                elif isinstance(value, property | functools.cached_property):
                    yield f"{name}.{attribute}", getattr(value, "fget", None) or value.func


def is_plain_class(found):
    return inspect.isclass(found) and not issubclass(found, Exception)


def functions():
    """Every public function of the package and its namespaces."""
    for name in psana_dask.__all__:
        found = getattr(psana_dask, name)
        if not inspect.ismodule(found):
            yield f"psana_dask.{name}", found
            continue
        for inner in getattr(found, "__all__", ()):
            if inspect.isfunction(getattr(found, inner)) or is_plain_class(getattr(found, inner)):
                yield f"psana_dask.{name}.{inner}", getattr(found, inner)


CALLS = {**dict(methods()), **dict(functions())}


def test_there_are_many_calls():
    assert len(CALLS) > 250


@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_an_example(name):
    text = inspect.getdoc(CALLS[name]) or ""
    _, heading, example = text.partition("Examples\n--------\n")
    assert heading, name
    assert example.lstrip().startswith(">>> ") or "\n>>> " in example, name


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the examples stand on: a run with everything, and what a user makes of it."""
    folder = tmp_path_factory.mktemp("examples")
    truth = simulate.write(simulate.demo_spec(events=16), folder)
    shape = psana_dask.open(folder).epixquad.raw.shape[1:]
    more = {"pixel_rms": np.full((7, *shape), 2.0, "f4"), "pixel_status": np.zeros((7, *shape), "u2")}
    calib = [truth.calib, more]
    run = psana_dask.open(folder, calib=calib)
    spot = run.epixquad.roi(panel=0, rows=slice(10, 20), cols=slice(5, 9))
    held = {
        "psana_dask": psana_dask,
        "run": run,
        "runs": psana_dask.open_runs(folder, calib=calib),
        "spot": spot,
    }
    held |= {name: getattr(psana_dask, name) for name in psana_dask.__all__ if name != "open"}
    held |= {"edges": np.linspace(-1, 2, 4), "truth": truth, "np": np, "Path": Path}
    with psana_dask.open_stream(folder) as stream, psana_dask.plot.live(run, "gmd") as live:
        next(stream.follow("gmd"))
        yield held | {"stream": stream, "live": live, "readouts": run.group_by_readout("opal")}


def properties():
    """Properties of what a user holds, and every call of several runs, readouts and regions."""
    for name, kinds in OBJECTS.items():
        for kind in kinds:
            for attribute, value in vars(kind).items():
                plain = not inspect.isfunction(value) or name in ("runs", "readouts", "spot")
                if plain and f"{name}.{attribute}" in CALLS:
                    yield f"{name}.{attribute}"


NEED_MORE = ("psana_dask.Run", "psana_dask.set_options", "psana_dask.analysis.PerFrame", "psana_dask.psana.")
"""Their examples need an experiment, or are of several lines."""

PROPERTIES = [
    *properties(),
    *(n for n, call in functions() if is_plain_class(call) and not n.startswith(NEED_MORE)),
]


@pytest.mark.parametrize("name", PROPERTIES)
def test_the_example_of_what_is_held_runs(name, names, tmp_path, monkeypatch):
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(CALLS[name]).partition("Examples\n--------\n")[2]
    lines = [line[4:] for line in text.splitlines() if line.startswith((">>> ", "... "))]
    for line in lines:
        if "+SKIP" not in line:
            exec(compile(line, name, "exec"), names)


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
