"""Runs and the streams that are made of them, for all tests of streams."""

from dataclasses import replace

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.model import Service
from psana_dask.simulate.runs import DEMO_DETECTORS
from psana_dask.stream.replay import moments
from psana_dask.stream.stream import Stream
from psana_dask.stream.taps import Delivery, ListTap

FRAMES = {"xtc2": "epixquad", "xtc": "epix100a"}
SHAPES = {"xtc2": (4, 352, 384), "xtc": (704, 768)}
SMALL = {"xtc2": (4, 16, 24), "xtc": (44, 48)}
FORMATS = ["xtc2", "xtc"]


def constants(form, shape):
    rng = np.random.default_rng(1)
    gains = (7, *shape) if form == "xtc2" else shape
    return {"pedestals": rng.normal(1000, 5, gains).astype(np.float32)}


@pytest.fixture(scope="module", params=FORMATS)
def calibrated(request, tmp_path_factory):
    """A closed run of 40 events with constants."""
    folder = simulate.demo_run(tmp_path_factory.mktemp("closed"), 40, format=request.param)
    return psana_dask.open(folder, calib=constants(request.param, SHAPES[request.param]))


@pytest.fixture(scope="module", params=FORMATS)
def small(request, tmp_path_factory):
    """The same with small frames."""
    folder = small_run(tmp_path_factory.mktemp("small"), request.param, 40)
    return psana_dask.open(folder, calib=constants(request.param, SMALL[request.param]))


def small_run(folder, form, events, **changes):
    """Write the demo run without its large detectors."""
    frames = FRAMES[form]
    detectors = [
        replace(d, shape=SMALL[form][-2:]) if d.name == frames else d
        for d in DEMO_DETECTORS[form]
        if d.name not in ("opal", "cspad")
    ]
    return simulate.demo_run(folder, events, format=form, detectors=tuple(detectors), **changes)


@pytest.fixture(scope="session")
def write_small_run():
    """What writes the demo run without its large detectors: ``(folder, format, events, **changes)``."""
    return small_run


def deliveries(run, sizes):
    """What a tap delivers: events in groups of the given sizes, again and again."""
    waiting, made, turn = [], [], 0
    transitions = []
    for moment in moments(run._recording):
        if moment.service == Service.L1_ACCEPT:
            waiting.append(moment.dgrams)
        if waiting and (moment.service != Service.L1_ACCEPT or len(waiting) == sizes[turn % len(sizes)]):
            made.append(Delivery(transitions, waiting))
            waiting, transitions, turn = [], [], turn + 1
        if moment.service != Service.L1_ACCEPT:
            transitions.append(moment.dgrams)
    return [*made, Delivery(transitions, waiting)]


def streams(run, shape):
    """Make streams of a run, in groups of some sizes; they are closed at the end."""
    opened = []

    def made(sizes=(3, 1, 7), **options):
        tap = ListTap(run.format, deliveries(run, sizes))
        opened.append(Stream(tap, calib=constants(run.format, shape), **options))
        return opened[-1]

    yield made
    [s.close() for s in opened]


@pytest.fixture
def calibrated_stream_of(calibrated):
    """What makes streams of the calibrated run."""
    yield from streams(calibrated, SHAPES[calibrated.format])


@pytest.fixture
def small_stream_of(small):
    """What makes streams of the run with small frames."""
    yield from streams(small, SMALL[small.format])
