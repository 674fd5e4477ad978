"""Simulated LCLS-1 runs against their own known answers."""

import dataclasses
import itertools
import json
import pickle
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.readers import xtc
from psana_dask.readers.tables.panels import is_imager, panel_stack
from psana_dask.readers.xtc_config import Configuration, aliases, event_codes, process_variables, scan_step
from psana_dask.readers.xtc_dump import dump
from psana_dask.readers.xtc_index_files import ORIGINAL, PROXY, idx_file_of, read_idx, verify_offsets
from psana_dask.readers.xtc_layout import COMPRESSED, DGRAM, XTC, TransitionId, source_key, source_name
from psana_dask.readers.xtc_merge import Stream, merge_order
from psana_dask.simulate import (
    PV,
    Config,
    Damage,
    Daq,
    Detector,
    Enum,
    Epics,
    Missing,
    RunSpec,
    Scan,
    corrupt,
)
from psana_dask.simulate.content import find_field
from psana_dask.sources import FileSource

L1 = TransitionId.L1_ACCEPT
SMALL = (16, 24)


def of(name, **given):
    return Detector(name=name, kind=name, **given)


ALL = (
    of("timing"),
    of("ebeam"),
    of("gas_detector"),
    of("phase_cavity"),
    of("gmd"),
    of("ipm"),
    of("epix100a", shape=SMALL),
    of("epix10ka", shape=SMALL, every=3, offset=1),
    Detector(name="jf", kind="jungfrau", segments=2, shape=(2, *SMALL)),
    Detector(name="opal", kind="camera", shape=(20, 30), stream=80, every=2),
    Detector(name="yag", kind="camera", shape=(10, 8), dtype="u1", stream=81, source="XppSb3Pim.1:Tm6740.1"),
    of("princeton", shape=(10, 12)),
    of("andor", shape=(8, 10)),
    of("waveform", shape=(2, 1, 50)),
    of("imp", shape=(4, 9)),
    of("timetool"),
    of("encoder"),
    Detector(name="diode", kind="record", record=(33, 1), source="XppSb3Pim.1:Ipimb.0"),
)
FEW = tuple(
    one for one in ALL if one.name in {"timing", "ebeam", "ipm", "epix100a", "epix10ka", "jf", "opal", "yag"}
)
BASE = {"format": "xtc", "experiment": "xpptut15", "number": 54, "events": 12, "detectors": FEW}


class Found:
    """One stream as the scan and the type tables read it."""

    def __init__(self, parts):
        self.dgrams, self.config, self.steps = [], Configuration(), []
        for number, path in enumerate(parts):
            source = FileSource(str(path))
            block = xtc.scan(source)
            data = path.read_bytes()
            for row, dgram in enumerate(block.dgrams):
                payload = data[dgram["offset"] : dgram["offset"] + dgram["size"]]
                self._add(number, dgram, np.frombuffer(payload, np.uint8), block.leaves_of(row))
            self.problems = block.problems

    def _add(self, part, dgram, payload, leaves):
        if dgram["service"] in {TransitionId.CONFIGURE, TransitionId.BEGIN_CALIB_CYCLE}:
            self.config = self.config.with_dgram(payload, leaves)
            self.steps += [self.config] if dgram["service"] == TransitionId.BEGIN_CALIB_CYCLE else []
        self.dgrams.append((part, dgram, payload, leaves, self.config))

    def events(self, rows):
        """Return the datagram of each event, by its number."""
        return {int(r["event"]): d for r, d in zip(rows, self.dgrams, strict=True) if r["event"] >= 0}


def read(truth):
    return {stream: Found(parts) for stream, parts in truth.streams.items()}


def checked(spec, folder):
    """Write a run, and compare every datagram and every value of every file with the truth."""
    truth = simulate.write(spec, folder)
    streams = read(truth)
    for stream, found in streams.items():
        check_places(truth, stream, found)
    events = {s: found.events(truth.datagrams[s]) for s, found in streams.items()}
    for one in truth._content.xtc:
        for segment in one.sources:
            check_detector(truth, one, segment, events)
    return truth, streams


def check_places(truth, stream, found):
    table = truth.datagrams[stream]
    assert len(found.dgrams) == len(table)
    for (part, dgram, *_), row in zip(found.dgrams, table, strict=True):
        assert (part, dgram["offset"], dgram["size"]) == (row["part"], row["offset"], row["size"])
        assert (dgram["timestamp"], dgram["service"]) == (row["timestamp"], row["service"])
        if row["event"] >= 0:
            assert dgram["fiducial"] & 0x1FFFF == truth.fiducials[row["event"]]
            assert dgram["fiducial"] >> 17 == row["event"] + 1
    written = table["event"][table["event"] >= 0]
    assert sorted(written) == np.flatnonzero(truth.in_stream(stream)).tolist()


def check_detector(truth, one, segment, events):
    name, declared = one.detector.name, one.detector.segment_streams[segment]
    homes = truth._content.homes(declared)
    there, damage = truth.present(name, segment, damaged=True), truth.damage(name, segment)
    for event in range(truth.spec.events):
        _, _, payload, leaves, config = events[int(homes[event])].get(event, (0, 0, None, (), None))
        mine = [leaf for leaf in leaves if is_of(leaf, one, segment) and leaf["extent"] > 20]
        assert len(mine) == there[event], (name, event)
        for leaf in mine:
            assert leaf["damage"] == damage[event]
            check_values(truth, name, event, segment, view_of(config, leaf, payload))


def is_of(leaf, one, segment):
    same = source_key(int(leaf["log"]), int(leaf["phy"])) == source_key(*one.sources[segment])
    return same and leaf["contains"] & 0xFFFF == one.data_key[0]


def view_of(config, leaf, payload):
    start = int(leaf["at"]) + XTC.itemsize
    source = source_key(int(leaf["log"]), int(leaf["phy"]))
    return config.decode(int(leaf["contains"]), source, payload[start : start + int(leaf["extent"]) - 20])


def check_values(truth, name, event, segment, view):
    detector = truth._content.detector(name)
    for field in (f for algorithm in detector.algorithms for f in algorithm.fields):
        want = truth.value(name, field.name, event, segment)
        np.testing.assert_array_equal(value_in(view, field.name, want), want, err_msg=f"{name}.{field.name}")


def value_in(view, name, want):
    if name == "raw":
        return raw_in(view, np.shape(want))
    if name == "position":
        return [[stamp.pos for stamp in channel.timestamp] for channel in view.data]
    if name in view.record.lookup:
        return view[name]
    for field in view.record.fields:
        prefix = view.record.name_of(field)
        if field.record is not None and name.startswith(prefix + "_"):
            inner, rest = view[prefix], name.removeprefix(prefix + "_")
            return [one[rest] for one in inner] if isinstance(inner, list) else inner[rest]
    raise AssertionError(f"{view.record.title} has no {name}")


def raw_in(view, shape):
    if is_imager(view.record.title):
        return panel_stack(view)[0].reshape(shape)
    if view.record.title.startswith("Acqiris"):
        return np.array([channel.waveforms for channel in view.data])
    return np.array([sample.channels for sample in view.samples]).T


VARIANTS = {
    "plain": {"detectors": ALL},
    "dealt over streams": {"daq": Daq(streams=3)},
    "dealt as said": {"daq": Daq(streams=2, dealt=(0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0))},
    "parts": {"cuts": {0: (3, 7), 80: (4,)}, "daq": Daq(streams=2)},
    "experiment number": {"daq": Daq(prefix="e665")},
    "steps": {"steps": (5, 0, 7), "scan": Scan(motors={"x": [1.0, 2.0, 3.0]})},
    "fiducials wrap": {"daq": Daq(first_fiducial=131_030)},
    "equal clocks": {"timestamps": np.repeat(np.arange(6), 2) * 1000 + (1_500_000_000 << 32),
                     "daq": Daq(streams=2, fiducials=np.arange(12) * 3 + 500)},
    "no fiducial": {"daq": Daq(fiducials=[*range(11), 0x1FFFF])},
    "out of order": {"swapped": {0: ((3, 4), (8, 10)), 80: ((0, 2),)}},
    "trimmed": {"daq": Daq(trimmed=(2, 7), streams=2)},
    "map first": {"daq": Daq(mapped=True, index=False), "smalldata": None},
    "as it is written": {"finished": False, "in_progress": True},
    "missing": {
        "missing": (
            Missing(events=(2,), stream=0),
            Missing(events=(4, 6), stream=80),
            Missing(events=(5,), detector="ebeam"),
            Missing(events=(7, 8), detector="jf", segment=1),
        )
    },
    "damage": {
        "damage": (
            Damage(events=(1,), word=1 << 1, stream=0),
            Damage(events=(2,), word=1 << 15, stream=0),
            Damage(events=(3,), word=1 << 1, stream=0, payload=False),
            Damage(events=(4,), word=1 << 12, detector="epix100a"),
            Damage(events=(5,), word=1 << 14 | 3 << 24, detector="ebeam"),
            Damage(events=(6,), word=1 << 14 | 1 << 12, detector="ebeam"),
            Damage(events=(7,), word=1 << 13, detector="jf", segment=1, payload=False),
        )
    },
    "settings": {
        "steps": 3,
        "detectors": (
            of("timing"),
            of("jungfrau", shape=(1, *SMALL), config=Config(
                values={"gain_mode": 3}, begin_step=lambda step: {"bias_voltage": 100 + step})),
        ),
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_value_is_where_the_truth_says(tmp_path, changes):
    truth, streams = checked(RunSpec(**{**BASE, **changes}), tmp_path)
    assert not any(found.problems for found in streams.values())
    assert truth.written.sum() >= 11
    assert len(truth.order) == truth.written.sum()
    check_events(truth)


def check_events(truth):
    """Open the run, and compare its events and who is present with the truth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lost events and those of equal clocks are problems
        run = psana_dask.open([str(path) for path in truth.files])
    order, events = truth.order, run.events
    assert events.fiducial.values.tolist() == truth.fiducials[order].tolist()
    assert events.step.values.tolist() == truth.step[order].tolist()
    late = events.time.values - truth.times[order]  # k-th of equal clocks: k ns; recorders alone: their clock
    only = ~np.any([truth.in_stream(s) for s in range(truth.spec.daq.streams)], axis=0)[order]
    assert events.recorder_only.values.tolist() == only.tolist()
    assert set(late[~only].astype(int)) <= {0, 1}
    assert set(late[only].astype(int)) <= {4_000_000}
    assert np.flatnonzero(events.trimmed.values).tolist() == list(truth.spec.daq.trimmed)
    for name in {"ebeam", "epix100a", "jf", "opal"} & set(truth.detectors):
        there = truth.present(name).any(axis=1)[order]
        assert run["EBeam" if name == "ebeam" else name].present.values.tolist() == there.tolist(), name


BIG = (
    of("cspad"),
    of("cspad2x2"),
    of("pnccd"),
    of("epix10kaquad"),
)


def test_every_kind_is_written(tmp_path):
    truth, _ = checked(RunSpec(**{**BASE, "events": 1, "detectors": BIG}), tmp_path)
    kinds = {d.kind for d in (*ALL, *BIG)} - {"record"}
    assert kinds == set(simulate.XTC_KINDS)
    assert truth.value("cspad", "raw", 0).shape == (32, 185, 388)


def test_the_regions_of_interest_of_a_cspad(tmp_path):
    masks = Config(values={"quad_mask": 0b1101, "roi_masks": 0x01FF_0003})
    detector = of("cspad", config=masks)
    truth, streams = checked(RunSpec(**{**BASE, "events": 1, "detectors": (detector,)}), tmp_path)
    _, _, payload, leaves, config = streams[0].events(truth.datagrams[0])[0]
    _, present = panel_stack(view_of(config, leaves[0], payload))
    assert np.flatnonzero(present).tolist() == [0, 1, *range(16, 24), 24]
    assert not truth.value("cspad", "raw", 0)[~present].any()
    assert truth.value("cspad", "raw", 0)[present].all()


@pytest.mark.parametrize("engine", ["hist16", "histn"])
def test_compressed_frames(tmp_path, engine):
    one = Config(values={"quad_mask": 2, "roi_masks": 0x0100})
    detectors = (
        of("cspad", config=one, compression=engine),
        of("camera", shape=(30, 20), compression=engine, stream=80),
        Detector(name="yag", kind="camera", shape=(8, 10), dtype="u1", compression="histn"),
    )
    _, streams = checked(RunSpec(**{**BASE, "events": 2, "detectors": detectors}), tmp_path)
    leaves = [leaf for s in streams.values() for d in s.dgrams if d[1]["service"] == L1 for leaf in d[3]]
    assert len(leaves) == 6
    assert all(leaf["contains"] & COMPRESSED for leaf in leaves)
    with pytest.raises(ValueError, match="no compressed ebeam"):
        simulate.write(RunSpec(**{**BASE, "detectors": (of("ebeam", compression="hist16"),)}), tmp_path)


def services(found):
    return [int(dgram["service"]) for _, dgram, *_ in found.dgrams]


def test_transitions_are_the_same_in_all_streams(tmp_path):
    spec = RunSpec(**{**BASE, "steps": 2, "daq": Daq(streams=2, mapped=True), "cuts": {1: (4,)}})
    _, streams = checked(spec, tmp_path)
    assert [s for s in services(streams[0]) if s != L1] == [2, 4, 6, 8, 10, 11, 9, 8, 10, 11, 9, 7, 5]
    kept = [[(d["service"], d["timestamp"]) for _, d, *_ in f.dgrams if d["service"] != L1]
            for f in streams.values()]  # fmt: skip
    assert all(one == kept[0] for one in kept)


def test_events_are_dealt_in_turn(tmp_path):
    truth, _ = checked(RunSpec(**{**BASE, "daq": Daq(streams=3)}), tmp_path)
    assert [np.flatnonzero(truth.in_stream(s)).tolist() for s in range(3)] == [
        [0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]  # fmt: skip
    assert np.flatnonzero(truth.in_stream(80)).tolist() == [0, 2, 4, 6, 8, 10]


def test_streams_merge_into_the_events_of_the_truth(tmp_path):
    daq = Daq(streams=2, first_fiducial=131_020)
    spec = RunSpec(**{**BASE, "steps": 2, "daq": daq, "swapped": {0: ((2, 4),)}})
    truth, streams = checked(spec, tmp_path)
    rows = {s: np.array([d for _, d, *_ in found.dgrams]) for s, found in streams.items()}
    merged = merge_order([Stream(s, r["service"], r["timestamp"], r["fiducial"]) for s, r in rows.items()])
    numbers = list(rows)
    found = []
    for first, stop in itertools.pairwise(merged.first):
        group = [(numbers[merged.stream[i]], merged.row[i]) for i in range(first, stop)]
        events = {int(truth.datagrams[s]["event"][row]) for s, row in group}
        assert len(events) == 1
        found += [(events.pop(), [s for s, _ in group])]
    there = [(e, streams_of) for e, streams_of in found if e >= 0]
    assert [e for e, _ in there] == truth.order.tolist() == list(range(12))
    assert all(s == [e % 2, *([80] if e % 2 == 0 else []), 81] for e, s in there)


def test_env_of_events_says_what_level_3_decided(tmp_path):
    _, streams = checked(RunSpec(**{**BASE, "daq": Daq(trimmed=(2,))}), tmp_path)
    env = [int(d["env"]) for _, d, *_ in streams[0].dgrams if d["service"] == L1]
    assert env[:4] == [0x103, 0x103, 0x80000203, 0x103]
    trimmed = [leaves for _, d, _, leaves, _ in streams[0].dgrams if d["env"] >> 31]
    assert [[leaf["contains"] & 0xFFFF for leaf in leaves] for leaves in trimmed] == [[71]]
    assert [int(d["env"]) for _, d, *_ in streams[0].dgrams if d["service"] == 6] == [54]


def test_aliases_and_addresses(tmp_path):
    two = (of("epix100a", shape=SMALL), Detector(name="b", kind="epix100a", shape=SMALL), of("ebeam"), ALL[8])
    truth, streams = checked(RunSpec(**{**BASE, "detectors": two}), tmp_path)
    named = {source_name(level << 24, phy): name for (level, phy), name in aliases(streams[0].config).items()}
    assert named == {
        "XppGon.0:Epix100a.0": "epix100a", "XppGon.0:Epix100a.1": "b", "MfxEndstation.0:Jungfrau.0": "jf",
    }  # fmt: skip
    sources = {source_name(*source) for one in truth._content.xtc for source in one.sources.values()}
    assert "EBeam" in sources
    assert {s for s in sources if "Segment" in s} == {
        "MfxEndstation.4:JungfrauSegmentM2.0", "MfxEndstation.4:JungfrauSegmentM2.2"}  # fmt: skip
    _, bare = checked(RunSpec(**{**BASE, "daq": Daq(aliases=False)}), tmp_path)
    assert aliases(bare[0].config) == {}


def test_steps_say_what_the_scan_did(tmp_path):
    scan = Scan(motors={"delay": [0.5, 1.5], "motor[3]": [7, 8]}, monitors={"rate": (0.0, 120.0)},
                labels={"scan": ["first", "second"]})  # fmt: skip
    truth, streams = checked(RunSpec(**{**BASE, "steps": 2, "scan": scan}), tmp_path)
    said = [scan_step(config) for config in streams[0].steps]
    assert [s.controls for s in said] == [{"delay": 0.5, "motor[3]": 7.0}, {"delay": 1.5, "motor[3]": 8.0}]
    assert [s.labels for s in said] == [{"scan": "first"}, {"scan": "second"}]
    assert {(s.monitors["rate"], s.events) for s in said} == {((0.0, 120.0), 6)}
    assert truth.scan.keys() == {"delay", "motor[3]"}
    assert truth.step.tolist() == [0] * 6 + [1] * 6


STATE = Enum("state", {"CLOSED": 0, "OPEN": 1})
PVS = (
    PV("temperature", lambda m: 295.0 + m.event, address="XPP:TEMP", unit="K"),
    PV("state", lambda m: m.event % 2, "enum", STATE, alarm=lambda update: (update, 1)),
    PV("note", lambda m: f"update {m.event}", "str"),
    PV("counts", lambda m: np.arange(3) * m.event, "i4", shape=(3,)),
    PV("small", lambda m: m.event % 5, "u1"),
    PV("short", lambda m: -m.event, "i2"),
    PV("float", lambda m: m.event / 4, "f4"),
)


def test_epics_are_step_functions_of_the_events(tmp_path):
    late = Epics(pvs=PVS[:1], segment=1, stream=80, every=2)
    lost = Missing(events=(6,), stream=0)
    spec = RunSpec(**{**BASE, "epics": (Epics(pvs=PVS), late), "slow_every": 3, "slow_offset": 3,
                      "missing": (lost,), "daq": Daq(streams=2, trimmed=(9,))})  # fmt: skip
    truth, streams = checked(spec, tmp_path)
    updates = {pv.name: [] for pv in PVS}
    for event in sorted(set(truth.order) - {6}):
        found = streams[event % 2].events(truth.datagrams[event % 2])[event]
        for leaf in (one for one in found[3] if one["contains"] & 0xFFFF == 13):
            view = view_of(found[4], leaf, found[2])
            value = view.data[0] if PVS[view.pv_id].shape == () else view.data
            updates[PVS[view.pv_id].name].append((event, value, view.status, view.stamp.sec))
    assert [event for event, *_ in updates["state"]] == [3, 9]
    assert [status for _, _, status, _ in updates["state"]] == [0, 2]
    for pv in PVS[1:]:
        values = truth.epics_updates(pv.name)[1]
        assert len(values) == 3  # Configure, and two events; that of event 6 was lost
        np.testing.assert_array_equal([v for _, v, *_ in updates[pv.name]], values[1:])
    assert truth.epics("note") == ["update -1"] * 3 + ["update 0"] * 6 + ["update 2"] * 3
    seconds = int(truth.timestamps[3]) >> 32
    assert updates["state"][0][3] in {seconds - 631_152_000, seconds - 631_152_001}


def test_the_configuration_names_process_variables(tmp_path):
    truth, streams = checked(RunSpec(**{**BASE, "epics": (Epics(pvs=PVS),)}), tmp_path)
    found = {pv.name: pv for pv in process_variables(streams[0].config).values()}
    assert found["XPP:TEMP"].description == "temperature"
    assert (found["XPP:TEMP"].unit, found["XPP:TEMP"].dbr_type) == ("K", 20)
    assert found["state"].states == ("CLOSED", "OPEN")
    assert (found["counts"].count, found["note"].dbr_type) == (3, 14)
    ctrl = {view.pv_id: view for _, view in streams[0].config.epics}
    for number, pv in enumerate(PVS):
        np.testing.assert_array_equal(np.squeeze(ctrl[number].data), truth.epics_updates(pv.name)[1][0])


def test_event_codes_carry_the_fiducial(tmp_path):
    codes = {40: 1, 90: 2, 162: 5}
    truth, streams = checked(RunSpec(**{**BASE, "event_codes": codes}), tmp_path)
    assert set(event_codes(streams[0].config)) == set(codes)
    for event, found in streams[0].events(truth.datagrams[0]).items():
        leaf = next(one for one in found[3] if one["contains"] & 0xFFFF == 19)
        view = view_of(found[4], leaf, found[2])
        assert tuple(one.event_code for one in view.fifo_events) == truth.event_codes(event)
        assert {one.timestamp_high for one in view.fifo_events} == {truth.fiducials[event]}


def test_configurations_by_step(tmp_path):
    truth, streams = checked(RunSpec(**{**BASE, **VARIANTS["settings"]}), tmp_path)
    found = [next(config.of_type(107))[1] for config in streams[0].steps]
    assert [(v.gain_mode, v.bias_voltage) for v in found] == [(3, 100), (3, 101), (3, 102)]
    assert [truth.config("jungfrau", 0, step)["bias_voltage"] for step in range(3)] == [100, 101, 102]
    assert truth.config("jungfrau", 0)["bias_voltage"] == 200


def test_index_files_point_at_the_events(tmp_path):
    daq = Daq(streams=2, fiducials=[*range(10, 21), 0x1FFFF])
    spec = RunSpec(**{**BASE, "daq": daq, "cuts": {0: (4,)}, "swapped": {1: ((1, 3),)}})
    truth, _ = checked(spec, tmp_path)
    seen = 0
    for stream, parts in truth.streams.items():
        for number, path in enumerate(parts):
            idx = read_idx(Path(idx_file_of(str(path))).read_bytes())
            offsets, problems = verify_offsets(idx, FileSource(str(path)))
            rows = truth.datagrams[stream]
            rows = rows[(rows["part"] == number) & (rows["event"] >= 0) & (rows["event"] != 11)]
            assert sorted(offsets) == rows["offset"].tolist()
            assert problems == []
            seen += len(offsets)
    assert seen == 6 + 5 + 6 + 11


def test_small_data_files_point_at_the_payloads(tmp_path):
    truth, _ = checked(RunSpec(**{**BASE, "cuts": {0: (4,)}}), tmp_path)
    proxies = 0
    for path in truth.files:
        big = path.read_bytes()
        small = tmp_path / "smalldata" / path.name.replace(".xtc", ".smd.xtc")
        block = xtc.scan(FileSource(str(small)))
        data = small.read_bytes()
        assert block.problems == ()
        for row, dgram in enumerate(block.dgrams):
            for leaf in block.leaves_of(row):
                start = int(dgram["offset"]) + int(leaf["at"]) + XTC.itemsize
                if leaf["contains"] & 0xFFFF == 90:
                    place = np.frombuffer(data, ORIGINAL, 1, start)[0]
                    header = np.frombuffer(big, DGRAM, 1, int(place["offset"]))[0]
                    assert header["extent"] == place["extent"]
                    assert int(header["seconds"]) << 32 | int(header["nanoseconds"]) == dgram["timestamp"]
                elif leaf["contains"] & 0xFFFF == 91:
                    place = np.frombuffer(data, PROXY, 1, start)[0]
                    header = np.frombuffer(big, XTC, 1, int(place["offset"]))[0]
                    assert (header["contains"], header["extent"]) == (place["contains"], place["extent"])
                    assert (header["log"], header["phy"]) == (leaf["log"], leaf["phy"])
                    proxies += 1
    assert proxies == 2 * 12 + 12 + 4 + 6  # both halves of the Jungfrau, the ePix, and the Opal


def test_the_dump_names_everything(tmp_path):
    spec = RunSpec(**{**BASE, "events": 2, "epics": (Epics(pvs=PVS),), "slow_every": 1})
    truth = simulate.write(spec, tmp_path)
    for path in truth.files:
        for dgram in dump(FileSource(str(path))):
            json.dumps(dgram)
            assert "problem" not in dgram
            assert not any("problem" in one for one in dgram["containers"])


def test_a_growing_run_has_the_same_bytes(tmp_path):
    spec = RunSpec(**{**BASE, "cuts": {0: (5,)}, "partial_tail": {0: 30}, "daq": Daq(streams=2)})
    growing = simulate.grow(spec, tmp_path / "a")
    sizes = []
    while True:
        try:
            next(growing)
        except StopIteration as end:
            truth = end.value
            break
        sizes.append(sum(p.stat().st_size for p in (tmp_path / "a").glob("*.xtc")))
    assert all(a < b for a, b in itertools.pairwise(sizes))
    at_once = simulate.write(spec, tmp_path / "b")
    files = [sorted(p.relative_to(t.folder) for p in t.folder.rglob("*") if p.is_file())
             for t in (truth, at_once)]  # fmt: skip
    assert files[0] == files[1]
    for name in files[0]:
        assert (truth.folder / name).read_bytes() == (at_once.folder / name).read_bytes()


def test_file_names(tmp_path):
    daq = Daq(prefix="e665", streams=2)
    spec = RunSpec(**{**BASE, "daq": daq, "cuts": {1: (6,)}, "detectors": ALL[:2], "in_progress": True})
    simulate.write(spec, tmp_path)
    stems = ("e665-r0054-s00-c00", "e665-r0054-s01-c00", "e665-r0054-s01-c01")
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {
        *(f"{stem}.xtc.inprogress" for stem in stems),
        *(f"smalldata/{stem}.smd.xtc.inprogress" for stem in stems),
    }


def test_truths_can_be_pickled_and_need_no_file(tmp_path):
    spec = RunSpec(**{**BASE, "detectors": (*ALL[:7], ALL[8])})
    truth = simulate.write(spec, tmp_path)
    truth.config("jf", 0)
    again = pickle.loads(pickle.dumps(truth))
    np.testing.assert_array_equal(again.value("jf", "raw", 2), truth.value("jf", "raw", 2))
    other = simulate.Truth(dataclasses.replace(spec, seed=1), tmp_path)
    assert not np.array_equal(other.value("jf", "raw", 2), truth.value("jf", "raw", 2))
    assert find_field(truth._content.detector("ipm"), "ipm_fex_data_sum").dtype == "f4"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detectors": (Detector(name="a", kind="hsd"),)}, "no kind 'hsd' of LCLS-1 detector"),
        ({"detectors": (of("ebeam", segments=2),)}, "only the Jungfrau has segments"),
        ({"detectors": (of("ebeam", source="Nowhere.0"),)}, "no LCLS-1 address 'Nowhere.0'"),
        ({"nested": True, "old_header": True}, "LCLS-1 runs have no old_header, nested"),
        ({"smalldata": "daq"}, "LCLS-1 runs have no"),
        ({"part_names": {(0, 1): "other.xtc"}}, "LCLS-1 runs have no"),
    ],
)
def test_impossible_descriptions_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        simulate.write(RunSpec(**{**BASE, **changes}), tmp_path)


def test_headers_are_those_of_the_specification(tmp_path):
    truth = simulate.write(RunSpec(**{**BASE, "start": "2014-06-14T06:12:03"}), tmp_path)
    row = next(r for r in truth.datagrams[0] if r["event"] == 1)
    words = struct.unpack("<10I", truth.files[0].read_bytes()[row["offset"] :][:40])
    assert words[1] == 1402726323
    assert words[0] == round(1e9 / 120)
    assert (words[2] >> 24, words[3] & 0x1FFFF, words[3] >> 17) == (12, 10_003, 2)
    assert words[9] + 20 == row["size"]
    assert words[8] == 1


def test_damaging_files(tmp_path):
    truth = simulate.write(RunSpec(**{**BASE, "events": 5, "detectors": ALL[:3]}), tmp_path)
    (path,) = truth.files
    whole = path.read_bytes()
    places = [(row["offset"], row["size"]) for row in truth.datagrams[0]]
    assert corrupt.datagrams(whole, "xtc") == places
    offset, size = corrupt.drop_datagram(path, 6)
    assert path.read_bytes() == whole[:offset] + whole[offset + size :]
    path.write_bytes(whole)
    corrupt.swap_datagrams(path, 5, 7)
    stamps = [int(d["timestamp"]) for _, d, *_ in Found([path]).dgrams]
    assert (stamps[5], stamps[7]) == tuple(truth.datagrams[0]["timestamp"][[7, 5]].tolist())
    path.write_bytes(whole)
    corrupt.set_extent(path, 6, 11)
    assert len(corrupt.datagrams(path.read_bytes(), "xtc")) == 6


def test_the_public_face_finds_every_value(tmp_path):
    daq = Daq(streams=2, first_fiducial=131_020)
    gaps = (Missing(events=(5,), detector="ebeam"), Missing(events=(4,), stream=80))
    bad = (
        Damage(events=(3,), word=1 << 12, detector="epix100a"),
        Damage(events=(6,), stream=0, word=1 << 15),
    )
    spec = RunSpec(**{**BASE, "detectors": ALL, "steps": 2, "daq": daq, "missing": gaps, "damage": bad})
    truth = simulate.write(spec, tmp_path)
    run = psana_dask.open(tmp_path)
    assert run.problems.what.tolist() == []
    assert (run.experiment, run.number, run.format) == ("xpptut15", 54, "xtc")
    assert run.events.time.values.tolist() == truth.times[truth.order].astype("M8[ns]").tolist()
    assert run.events.fiducial.values.tolist() == truth.fiducials[truth.order].tolist()
    assert run.events.step.values.tolist() == truth.step[truth.order].tolist()
    compared = sum(compare_detector(run, truth, one) for one in truth._content.xtc)
    assert compared > 600


def compare_detector(run, truth, one):
    """Compare every field that the face has under the same name; return how many values there were."""
    name, compared = one.detector.name, 0
    found = run[name if not one.is_bld else source_name(*one.whole)]
    there = truth.present(name).all(axis=1)[truth.order]
    assert found.present.values.tolist() == there.tolist()
    for field in (f for f in one.detector.algorithms[0].fields if f.name in found.fields):
        values = found[field.name].values
        for i in np.flatnonzero(there).tolist():
            want = truth.value(name, field.name, int(truth.order[i]))
            np.testing.assert_array_equal(
                values[i].reshape(np.shape(want)), want, err_msg=f"{name}.{field.name}"
            )
            compared += 1
    assert compared or name in {"timing", "ipm"}, name
    return compared
