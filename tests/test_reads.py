"""What is read: exactly what is shown, and nothing before that.

The run has 100 events of two panels of 8 x 12 uint16; every read goes through
`FileSource.read_pieces`, which is counted here.
"""

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import Detector, RunSpec
from psana_dask.sources import FileSource

ROW = 12 * 2
PANEL = 8 * ROW
FRAME = 2 * PANEL


class Reads:
    """Counts what is read: pieces, bytes, and the datagrams they lie in."""

    def __init__(self):
        self.pieces, self.bytes, self.calls = 0, 0, 0

    def since(self):
        """Return (pieces, bytes) since the last call."""
        said = self.pieces, self.bytes
        self.__init__()
        return said


@pytest.fixture
def reads(monkeypatch):
    counted, read = Reads(), FileSource.read_pieces

    def noted(self, offsets, sizes, out, places):
        counted.calls += 1
        counted.pieces += len(sizes)
        counted.bytes += int(sizes.sum())
        return read(self, offsets, sizes, out, places)

    monkeypatch.setattr(FileSource, "read_pieces", noted)
    return counted


@pytest.fixture(scope="module")
def truth(plain, expected):
    return expected(plain, "cam", "image")


@pytest.fixture(params=["indexed", "chunked", "small chunks"])
def raw(request, plain_run):
    chunks = {"indexed": None, "chunked": "auto", "small chunks": {"time": 10}}[request.param]
    return plain_run.dataset(["cam", "gmd"], chunks=chunks).cam_raw


WANTED = {
    "one event": (lambda a: a.isel(time=57), 1, FRAME),
    "last event": (lambda a: a[-1], 1, FRAME),
    "nearest": (lambda a: a.sel(time="2024-06-14T06:12:03.5001", method="nearest"), 1, FRAME),
    "slice": (lambda a: a.isel(time=slice(20, 25)), 5, FRAME),
    "slice over a border": (lambda a: a.isel(time=slice(38, 42)), 4, FRAME),
    "slice of times": (
        lambda a: a.sel(time=slice("2024-06-14T06:12:03.1", "2024-06-14T06:12:03.15")),
        7,
        FRAME,
    ),
    "steps": (lambda a: a.isel(time=slice(0, 100, 25)), 4, FRAME),
    "nothing": (lambda a: a.isel(time=slice(5, 5)), 0, FRAME),
    "panel": (lambda a: a.isel(time=slice(0, 8), panel=1), 8, PANEL),
    "rows": (lambda a: a.isel(time=slice(0, 8), row=slice(2, 5)), 8, 2 * 3 * ROW),
    "one row": (lambda a: a.isel(time=9, row=3), 1, 2 * ROW),
    "rows and panel": (lambda a: a.isel(time=9, panel=0, row=slice(6, 8)), 1, 2 * ROW),
    "columns": (lambda a: a.isel(time=9, col=slice(2, 5)), 1, FRAME),  # of whole rows
    "a corner": (lambda a: a.isel(time=slice(4, 6), panel=1, row=slice(0, 2), col=[0, 5]), 2, 2 * ROW),
}
LISTS = {  # Dask does not push these into the read
    "list": (lambda a: a.isel(time=[50, 8]), 2, FRAME),
    "backwards": (lambda a: a.isel(time=slice(99, None, -33)), 4, FRAME),
    "panels": (lambda a: a.isel(time=3, panel=[1]), 1, PANEL),
    "mask": (lambda a: a[np.isin(np.arange(100), [8, 9, 50])], 3, FRAME),
}


@pytest.mark.parametrize("name", WANTED)
def test_only_what_is_shown_is_read(raw, reads, truth, name):
    call, events, size = WANTED[name]
    shown = call(raw)
    assert reads.since() == (0, 0)
    values = shown.values
    pieces, read = reads.since()
    assert read == events * size
    assert pieces <= 2 * events
    plain = call(xr.DataArray(truth, {"time": raw.time.values}, raw.dims)).values
    np.testing.assert_array_equal(values, plain)


@pytest.mark.parametrize("which", ["list", "mask", "times"])
def test_lists_and_masks_through_the_run_read_only_those_events(plain_run, reads, truth, which):
    events = np.array([3, 41, 77])
    mask = np.isin(np.arange(100), events)
    wanted = {"list": plain_run.isel, "mask": plain_run.select, "times": plain_run.sel}
    key = {"list": events, "mask": mask, "times": plain_run.events.time.values[events]}
    run = wanted[which](key[which])
    np.testing.assert_array_equal(run.cam.raw.values, truth[events])
    assert reads.since() == (6, 3 * FRAME)


@pytest.mark.parametrize("name", LISTS)
def test_lists_and_masks_on_the_unchunked_form_read_only_those_events(plain_run, reads, truth, name):
    call, events, size = LISTS[name]
    values = call(plain_run.dataset("cam", chunks=None).cam_raw).values
    assert reads.since()[1] == events * size
    np.testing.assert_array_equal(
        values, call(xr.DataArray(truth, dims=("time", "panel", "row", "col"))).values
    )


@pytest.mark.parametrize("name", LISTS)
def test_lists_and_masks_on_the_chunked_form_read_at_most_their_chunks(plain_run, reads, truth, name):
    call, events, _ = LISTS[name]
    values = call(plain_run.cam.field("raw", chunks={"time": 10})).values
    assert reads.since()[1] <= events * 10 * FRAME
    np.testing.assert_array_equal(
        values, call(xr.DataArray(truth, dims=("time", "panel", "row", "col"))).values
    )


def test_after_arithmetic_the_unit_is_the_chunk(plain_run, reads, truth):
    raw = plain_run.cam.field("raw", chunks={"time": 10})
    doubled = raw.astype("f4") * 2
    np.testing.assert_array_equal(doubled.isel(time=57).values, truth[57].astype("f4") * 2)
    assert reads.since()[1] <= 10 * FRAME
    assert float(doubled.mean()) == pytest.approx(2 * truth.mean(), rel=1e-5)  # float32 sums
    assert reads.since()[1] == 100 * FRAME


def test_a_selection_of_a_selection(plain_run, reads, truth):
    raw = plain_run.isel(slice(10, 90)).select(slice(0, 80, 2)).cam.raw
    np.testing.assert_array_equal(raw.isel(time=[0, -1], panel=0).values, truth[[10, 88], 0])
    np.testing.assert_array_equal(raw[5, 1, 2].values, truth[20, 1, 2])


def test_a_scalar_reads_its_own_bytes(plain_run, reads):
    values = plain_run.gmd.milliJoulesPerPulse.values
    assert values.shape == (100,)
    assert reads.since() == (100, 400)
    assert plain_run.gmd.milliJoulesPerPulse[7].values == values[7]
    assert reads.since() == (1, 4)


def test_looking_reads_no_frame(plain, reads):
    run = psana_dask.open(plain.folder)
    repr(run), run._repr_html_(), repr(run.cam), run.detectors, dir(run)
    data = run.dataset()
    repr(data), data._repr_html_(), run.tree(), run.events, run.steps, run.epics, run.problems
    assert data.sizes["time"] == 100
    assert data.cam_present.values.all()
    assert data.cam_damage.values.sum() == 0
    assert reads.since() == (0, 0)


def test_an_event_reads_only_itself(plain_run, reads, plain, truth):
    event = plain_run.event(plain.times[31])
    np.testing.assert_array_equal(event.cam_raw.values, truth[31])
    assert reads.since() == (2 + 2, FRAME + 8)


@pytest.mark.parametrize("shape", [(8, 12), (352, 384), (1024, 1024)])
@pytest.mark.parametrize("budget", [1, 4096, 1 << 20, 32 << 20, 1 << 31])
def test_automatic_chunks_never_split_panels_rows_or_columns(tmp_path_factory, shape, budget):
    folder = tmp_path_factory.getbasetemp() / f"frames {shape}"
    cam = Detector(name="cam", kind="pixels", segments=2, shape=shape)
    if not folder.exists():
        small = RunSpec(events=2, detectors=(cam,), smalldata=None)
        simulate.repeat(small, folder, 200 if shape == (8, 12) else 5)
    run = psana_dask.open(folder)
    with psana_dask.set_options(chunk_bytes=budget):
        for array in (run.cam.raw, run.dataset().cam_raw, run.tree()["cam/raw"]):
            events, *rest = array.chunks
            assert rest == [(2,), (shape[0],), (shape[1],)]
            size = np.clip(budget // (4 * shape[0] * shape[1]), 1, 64)
            assert events[0] == min(1 << (int(size).bit_length() - 1), len(run))
            assert set(events[:-1]) <= {events[0]}


def test_scalars_are_chunked_by_65536(tmp_path):
    simulate.write_many(tmp_path, events=70_000, size=200, pool=100)
    run = psana_dask.open(tmp_path)
    name = next(iter(run.detectors))
    assert run[name]["number"].chunks == ((65536, 70_000 - 65536),)
