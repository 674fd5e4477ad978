"""Repeated LCLS-1 runs: a pool of events written again and again, with clocks and places of their own."""

import numpy as np
import pytest

from psana_dask import simulate
from psana_dask.readers import xtc
from psana_dask.readers.xtc_config import Configuration
from psana_dask.readers.xtc_index_build import build_idx
from psana_dask.readers.xtc_index_files import idx_file_of, write_idx
from psana_dask.readers.xtc_layout import ID_EPICS, ID_EVR_DATA, XTC, source_key
from psana_dask.readers.xtc_small_data import small_data
from psana_dask.simulate import PV, Daq, Detector, Epics, Missing, RunSpec
from psana_dask.sources import FileSource

DETECTORS = (
    Detector(name="evr0", kind="timing"),
    Detector(name="ebeam", kind="ebeam"),
    Detector(name="cam", kind="camera", shape=(30, 40)),
    Detector(name="opal", kind="camera", shape=(10, 12), stream=80, every=2),
)
EPICS = (Epics(pvs=(PV("t", 1.5),)), Epics(pvs=(PV("u", 2, "u1"),), stream=80, segment=1))


def events_of(path):
    """Yield (dgram row, payloads by type) of each event, decoded."""
    source, data = FileSource(str(path)), np.fromfile(path, np.uint8)
    block, config = xtc.scan(source), Configuration()
    assert block.problems == ()
    for row, dgram in enumerate(block.dgrams):
        payload = data[dgram["offset"] : dgram["offset"] + dgram["size"]]
        leaves = block.leaves_of(row)
        if dgram["service"] in {4, 8}:
            config = config.with_dgram(payload, leaves)
        elif dgram["service"] == 12:
            views = {}
            for leaf in leaves:
                start, stop = int(leaf["at"]) + XTC.itemsize, int(leaf["at"]) + int(leaf["extent"])
                key = source_key(int(leaf["log"]), int(leaf["phy"]))
                views[int(leaf["contains"]) & 0xFFFF] = config.decode(
                    int(leaf["contains"]), key, payload[start:stop]
                )
            yield dgram, views


@pytest.mark.parametrize("events", [3, 8, 21])
def test_repeated_runs_hold_the_pool_again_and_again(tmp_path, events):
    spec = RunSpec(
        format="xtc", events=8, detectors=DETECTORS, epics=EPICS, slow_every=3, rate=100.0,
        daq=Daq(streams=2, first_fiducial=131_000), missing=(Missing(events=(5,), detector="ebeam"),),
    )  # fmt: skip
    run = simulate.repeat(spec, tmp_path, events)
    seen = []
    for stream, path in run.streams.items():
        there = [e for e in range(events) if run.pool.in_stream(stream)[e % 8]]
        found = list(events_of(path))
        assert len(found) == len(there)
        for event, (dgram, views) in zip(there, found, strict=True):
            check_event(run, stream, event, dgram, views)
        seen += there
        check_files_beside(path)
    assert len(seen) == events + (events + 1) // 2
    assert np.all(np.diff(run.timestamps.astype(np.int64)) > 0)


def check_event(run, stream, event, dgram, views):
    late = 4_000_000 if stream == 80 else 0
    assert nanoseconds(dgram["timestamp"]) == nanoseconds(run.timestamps[event]) + late
    assert dgram["fiducial"] == run.fiducials[event] | (event + 1) << 17
    name = "opal" if stream == 80 else "cam"
    np.testing.assert_array_equal(views[2].pixels, run.value(name, "raw", event))
    if stream < 80:
        codes = views[ID_EVR_DATA].fifo_events
        assert {code.timestamp_high for code in codes} == {run.fiducials[event]}
        assert tuple(code.event_code for code in codes) == run.pool.event_codes(event % 8)
        energy = run.value("ebeam", "photon_energy", event)
        assert (15 in views) == (energy is not None)
        assert energy is None or views[15].photon_energy == energy
    if ID_EPICS in views:
        stamp = views[ID_EPICS].stamp
        unix = (stamp.sec + 631_152_000) * 1_000_000_000 + stamp.nsec
        assert unix == nanoseconds(run.timestamps[event]) - 1_000_000


def nanoseconds(word):
    return (int(word) >> 32) * 1_000_000_000 + (int(word) & 0xFFFFFFFF)


def check_files_beside(path):
    """Compare the small-data and index files with those made from the whole file."""
    small = path.parent / "smalldata" / path.name.replace(".xtc", ".smd.xtc")
    assert small.read_bytes() == b"".join(small_data(FileSource(str(path))))
    with open(idx_file_of(str(path)), "rb") as file:
        assert file.read() == write_idx(build_idx(FileSource(str(path))))


def test_many_small_datagrams(tmp_path):
    run = simulate.write_many(tmp_path, events=2500, size=500, pool=1000, format="xtc")
    found = list(events_of(run.files[0]))
    assert len(found) == 2500
    assert max(dgram["size"] for dgram, _ in found) == 500
    energies = [views[15].photon_energy for _, views in found]
    assert energies == [run.value("ebeam", "photon_energy", event) for event in range(2500)]
    assert list(tmp_path.rglob("*.idx")) == []


def test_large_frames(tmp_path):
    run = simulate.write_large(
        tmp_path, gigabytes=1e-4, shape=(4, 16, 32), streams=2, pool=3, format="xtc", smalldata=None
    )
    assert run.events == round(1e5 / (4 * 16 * 32 * 2))
    assert len(run.files) == 2
    whole = sum(path.stat().st_size for path in run.files)
    assert whole == pytest.approx(1e5, rel=0.1)
    ((_, views),) = [pair for n, pair in enumerate(events_of(run.files[0])) if n == 5]  # 0, 2 of 3; 3, 5; 6
    np.testing.assert_array_equal(views[108].frame, run.value("jungfrau", "raw", 8))


@pytest.mark.parametrize("changes", [{"steps": 2}, {"swapped": {0: ((1, 2),)}}])
def test_what_cannot_be_repeated_is_refused(tmp_path, changes):
    with pytest.raises(ValueError, match="one step"):
        simulate.repeat(RunSpec(format="xtc", events=4, detectors=DETECTORS, **changes), tmp_path, 100)
