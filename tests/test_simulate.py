"""Simulated runs against their own known answers, read by an independent parser."""

import dataclasses
import importlib.util
import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest

from psana_dask import simulate
from psana_dask.simulate import PV, Damage, Detector, Epics, Missing, RunSpec, Scan

_spec = importlib.util.spec_from_file_location("xtc2_parser", Path(__file__).with_name("xtc2_parser.py"))
parser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parser)

L1 = 12
SMALL = (24, 32)  # rows and columns of frames where their content does not matter


def parsed(truth):
    """All datagrams of each stream, in the order of the parts."""
    found = {}
    for stream, parts in truth.streams.items():
        table, rows = {}, []
        for number, path in enumerate(parts):
            data = bytearray(path.read_bytes())
            dgrams, end = parser.parse(data, table, truth.spec.old_header)
            last = number == len(parts) - 1
            tail = truth.spec.partial_tail.get(stream, 0) if last else 0
            assert len(data) - end == tail
            rows += [(number, dgram) for dgram in dgrams]
        found[stream] = rows
    return found


def assert_same(got, want):
    if isinstance(want, str):
        assert got == want
    else:
        assert np.asarray(got).dtype == np.asarray(want).dtype
        np.testing.assert_array_equal(got, want)


def checked(spec, folder):
    """Write a run, and compare every datagram and every value of every file with the truth."""
    truth = simulate.write(spec, folder)
    streams = parsed(truth)
    for stream, rows in streams.items():
        check_places(truth, stream, rows)
    for name in truth.detectors:
        check_values(truth, name, streams)
    return truth, streams


def check_places(truth, stream, rows):
    table = truth.datagrams[stream]
    assert len(rows) == len(table)
    for (part, dgram), row in zip(rows, table, strict=True):
        assert (part, dgram.offset, dgram.size) == (row["part"], row["offset"], row["size"])
        assert (dgram.timestamp, dgram.service) == (row["timestamp"], row["service"])
        assert dgram.src == stream
    events = table["event"][table["service"] == L1]
    assert sorted(events) == np.flatnonzero(truth.in_stream(stream)).tolist()
    np.testing.assert_array_equal(table["timestamp"][table["service"] == L1], truth.timestamps[events])


def check_values(truth, name, streams):
    detector = truth._content.detector(name)
    for segment, stream in detector.segment_streams.items():
        rows = zip(streams[stream], truth.datagrams[stream], strict=True)
        dgrams = {int(row["event"]): dgram for (_, dgram), row in rows if row["event"] >= 0}
        there = truth.present(name, segment, damaged=True)
        for event in range(truth.spec.events):
            blocks = dgrams[event].blocks(name) if event in dgrams else []
            blocks = [b for b in blocks if b.names.segment == segment and not b.empty]
            assert bool(blocks) == there[event]
            for block in blocks:
                check_block(truth, block, dgrams[event], event)
            if not blocks:
                first = detector.algorithms[0].fields[0].name
                assert truth.value(name, first, event, segment) is None


def check_block(truth, block, dgram, event):
    name, segment = block.names.det_name, block.names.segment
    assert block.damage | dgram.damage == truth.damage(name, segment)[event]
    for _, _, label, code, _ in block.names.fields:
        if code != 12:
            want = truth.value(name, f"{block.names.alg}.{label.split(':')[0]}", event, segment)
            assert_same(block[label], want)


def services(rows):
    return [dgram.service for _, dgram in rows]


ALL = (
    Detector(name="timing", kind="timing"),
    Detector(name="types", kind="alltypes"),
    Detector(name="epix", kind="epix10ka", segments=(2, 3, 7), stream=(1, 2, 1), shape=SMALL),
    Detector(name="jf", kind="jungfrau", segments=2, stream=2, shape=(2, *SMALL)),
    Detector(name="tt", kind="timetool", stream=3, every=5, offset=2, shape=SMALL),
    Detector(name="hsd", kind="hsd", segments=2, stream=3),
    Detector(name="wave", kind="waveform", stream=3, shape=(50,)),
    Detector(name="f4", kind="pixels", stream=4, shape=SMALL, dtype="f4", frame_field="arrayRaw2"),
)

VARIANTS = {
    "plain": {},
    "data first": {"data_first": True},
    "shapes tail": {"shapes_tail": 4},
    "nested": {"nested": True},
    "old header": {"old_header": True},
    "old header nested tail": {"old_header": True, "nested": True, "partial_tail": {0: 20, 3: 70}},
    "old names": {"naming": "s00-c00", "cuts": {1: (7,)}},
    "daq smalldata": {"smalldata": "daq"},
    "no smalldata": {"smalldata": None},
    "parts": {"cuts": {1: (3, 10, 20), 2: (11,)}, "steps": 3},
    "odd part name": {"cuts": {1: (9,)}, "part_names": {(1, 1): "data-r0001-s000-c001.xtc2"}},
    "steps": {"steps": (5, 0, 25), "scan": Scan(motors={"x": np.float32([1, 2, 3])})},
    "unordered": {"timestamps": (7 << 32) + np.random.default_rng(0).permutation(30) * 1000},
    "equal times": {"timestamps": np.repeat(np.arange(15), 2)},
    "tiny times": {"timestamps": np.arange(30)},
    "swapped": {"swapped": {1: ((3, 4), (8, 12)), 3: ((0, 1),)}},
    "partial tail": {"partial_tail": {0: 5, 1: 30}},
    "not finished": {"finished": False, "in_progress": True},
    "no run transitions": {"begin_run": False, "end_run": False},
    "missing": {
        "missing": (
            Missing(events=(3, 4), stream=1),
            Missing(events=(6,), detector="epix"),
            Missing(events=(8, 9), detector="epix", segment=7),
            Missing(events=tuple(range(30)), detector="wave"),
        )
    },
    "damage": {
        "damage": (
            Damage(events=(1,), word=0x20, stream=2),
            Damage(events=(2,), word=0x4001, stream=2, payload=False),
            Damage(events=(5,), word=0x7, detector="epix"),
            Damage(events=(5, 6), word=0x8, detector="epix", segment=3),
            Damage(events=(9,), word=0x10, detector="jf", segment=1, payload=False),
            Damage(events=(11,), word=0x40),
        )
    },
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_value_is_where_the_truth_says(tmp_path, changes):
    spec = RunSpec(**{"events": 30, "detectors": ALL, "slow_every": 7, **changes})
    truth, streams = checked(spec, tmp_path)
    assert len(streams) == 5
    assert len(truth.timestamps) == 30


def test_transitions_follow_the_daq_order(tmp_path):
    _, streams = checked(RunSpec(events=4, steps=2, slow_every=2, detectors=ALL), tmp_path)
    step = [6, 8, 10, L1, L1, 9, 7]
    for stream in (0, 1, 2):
        assert services(streams[stream]) == [2, 4, *step, *step, 5]
    rows = [dgram for _, dgram in streams[0]]
    assert [a.timestamp < b.timestamp for a, b in itertools.pairwise(rows)] == [True] * (len(rows) - 1)


def test_env_has_readout_groups_and_the_event_counter(tmp_path):
    _, streams = checked(RunSpec(events=40, detectors=ALL[:1]), tmp_path)
    bits = [(dgram.service, dgram.bits) for _, dgram in streams[0]]
    assert {word for service, word in bits if service != L1} == {3}
    words = [word for service, word in bits if service == L1]
    assert words == [0x10003 | (event % 32) << 17 for event in range(40)]


def test_transitions_are_the_same_in_all_streams(tmp_path):
    spec = RunSpec(events=20, detectors=ALL, cuts={1: (6,), 3: (6, 13)}, slow_every=4)
    _, streams = checked(spec, tmp_path)
    lists = [[(d.service, d.timestamp) for _, d in rows if d.service != L1] for rows in streams.values()]
    assert all(one == lists[0] for one in lists)


def test_a_part_ends_with_the_enable_that_names_the_next(tmp_path):
    spec = RunSpec(events=20, detectors=ALL, cuts={1: (6, 13)}, part_names={(1, 2): "other.xtc2"})
    truth, streams = checked(spec, tmp_path)
    parts = [[d for part, d in streams[1] if part == number] for number in range(3)]
    said = [part[-1].blocks("chunkinfo")[0] for part in parts[:2]]
    assert [part[-1].service for part in parts[:2]] == [8, 8]
    names = [(one["chunkid"], one["filename"]) for one in said]
    assert names == [(1, truth.files[2].name), (2, "other.xtc2")]
    assert [part[0].service for part in parts] == [2, L1, L1]
    assert all(part[0].offset == 0 for part in parts)


@pytest.mark.parametrize("kind", ["offline", "daq"])
def test_smalldata_files_point_at_the_events(tmp_path, kind):
    sums = {"sum": np.arange(6.0).reshape(2, 3), "events": np.uint32(20)}
    spec = RunSpec(events=20, detectors=ALL, cuts={1: (6,)}, smalldata=kind, end_run_values=sums)
    truth, streams = checked(spec, tmp_path)
    for stream, path in truth.smd_files.items():
        dgrams, _ = parser.parse(bytearray(path.read_bytes()))
        big = [dgram for _, dgram in streams[stream]]
        np.testing.assert_array_equal(big[-1].blocks("cube")[0]["sum"], sums["sum"])
        heads = [[(d.timestamp, d.service, d.bits) for d in some] for some in (dgrams, big)]
        assert heads[0] == heads[1]
        for small, whole in zip(dgrams, big, strict=True):
            check_smalldata(small, whole, stream, kind)


def check_smalldata(small, whole, stream, kind):
    if small.service == L1:
        (block,) = small.blocks("smdinfo", "offsetAlg")
        assert small.size == 76
        assert (block["intOffset"], block["intDgramSize"]) == (whole.offset, whole.size)
        assert block.src == (512 << 8 if kind == "offline" else stream << 8 | 254)
    elif small.service == 2:
        assert small.size == whole.size + 12 + 1036 + 2 * 524
    else:
        assert small.size == (24 if small.service == 5 else whole.size)


def test_epics_are_step_functions_of_time(tmp_path):
    pvs = (PV("T", lambda m: 1.5 * m.event), PV("only", lambda m: m.event, "i4"))
    early = Epics(pvs=pvs, every=2)
    late = Epics(pvs=(PV("T", lambda m: -1.0 * m.event),), stream=4, every=2, offset=1, segment=1)
    spec = RunSpec(events=30, detectors=ALL, epics=(early, late), slow_every=5, slow_offset=3)
    truth, streams = checked(spec, tmp_path)
    updates = {}
    for stream in (0, 4):
        for _, dgram in streams[stream]:
            for block in dgram.blocks("epics"):
                updates[dgram.timestamp] = block["T"]
    stamps = np.array(sorted(updates))
    want = [([None] + [updates[s] for s in stamps])[np.sum(stamps <= t)] for t in truth.timestamps]
    assert truth.epics("T") == want
    assert want[:9] == [None, None, None, 0, 0, 0, 0, 0, -1]
    assert truth.epics("only")[-1] == 4


def test_an_update_at_the_very_time_of_an_event_counts(tmp_path):
    pvs = (PV("T", lambda m: float(m.event)),)
    spec = RunSpec(events=8, timestamps=range(100, 108), epics=(Epics(pvs=pvs),), slow_every=4, detectors=ALL)
    truth, streams = checked(spec, tmp_path)
    stamps = [d.timestamp for _, d in streams[0] if d.service == 10]
    assert stamps == [99, 104]  # no time between events 3 and 4
    assert truth.epics("T") == [0.0] * 4 + [1.0] * 4


def test_all_kinds_of_epics_values(tmp_path):
    state = simulate.Enum("valveEnum", {"CLOSED": 0, "OPEN": 1})
    pvs = (
        PV("f8", lambda m: m.event / 3),
        PV("f4", 0.25, "f4"),
        PV("i4", lambda m: -m.event, "i4"),
        PV("word", lambda m: f"n{m.event}", "str", address="TST:WORD"),
        PV("valve", lambda m: m.event % 2, "enum", state),
    )
    spec = RunSpec(events=6, detectors=ALL, epics=(Epics(pvs=pvs),), slow_every=2)
    truth, streams = checked(spec, tmp_path)
    blocks = [b for _, d in streams[0] for b in d.blocks("epics")]
    for pv in pvs:
        label = f"{pv.name}:valveEnum" if pv.enum else pv.name
        assert_all_same([block[label] for block in blocks], truth.epics_updates(pv.name)[1])
    assert (blocks[0]["CLOSED:valveEnum"], blocks[0]["OPEN:valveEnum"]) == (0, 1)
    (info,) = streams[0][0][1].blocks("epicsinfo")
    assert (info["keys"], info["word"], info["f8"]) == ("epicsname", "TST:WORD", "f8")


def assert_all_same(got, want):
    for one, other in zip(got, want, strict=True):
        assert_same(one, other)


def test_steps_say_what_the_scan_did(tmp_path):
    motors = {"x": np.float32([0.5, 1.5, 2.5]), "y": np.array([-1.0, 0.0, 1.0])}
    scan = Scan(motors=motors, stream=3, step_value=[10, 20, 30])
    spec = RunSpec(events=9, steps=3, detectors=ALL, scan=scan)
    truth, streams = checked(spec, tmp_path)
    blocks = [b for _, d in streams[3] if d.service == 6 for b in d.blocks("scan")]
    for name in ("x", "y", "step_value"):
        assert_all_same([block[name] for block in blocks], truth.scan[name])
    assert [block["step_docstring"] for block in blocks] == truth.docstrings
    assert truth.step.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_configurations_and_their_updates(tmp_path):
    truth, streams = checked(RunSpec(events=6, steps=3, detectors=ALL), tmp_path)
    known = {}
    for _, dgram in streams[2]:
        for block in dgram.blocks("jf", "config"):
            known.setdefault(block.names.segment, {}).update({k: block[k] for k in block.arrays})
        if dgram.service == 2:
            at_start = {segment: dict(values) for segment, values in known.items()}
    for segment in (0, 1):
        check_config(at_start[segment], truth.config("jf", segment))
        check_config(known[segment], truth.config("jf", segment, step=2))
    assert truth.config("jf", 1)["user.gain0"] == 1
    assert truth.config("jf", 1, step=2)["user.gain0"] == 0
    assert (at_start[0]["normal:gain0Enum"], at_start[0]["FIX_G2:gainModeEnum"]) == (0, 4)


def check_config(found, want):
    plain = {k.split(":")[0]: v for k, v in found.items() if k.split(":")[0] in want}
    assert plain.keys() == want.keys()
    for name, value in want.items():
        assert_same(plain[name], value)


def test_event_codes_pulses_and_times(tmp_path):
    spec = RunSpec(events=30, detectors=ALL, event_codes={40: 1, 162: 10, 287: 3})
    truth, streams = checked(spec, tmp_path)
    blocks = [b for _, d in streams[0] for b in d.blocks("timing")]
    words = np.array([block["sequenceValues"] for block in blocks])
    bits = np.unpackbits(words.view("u1"), axis=1, bitorder="little")
    for event in range(30):
        assert tuple(np.flatnonzero(bits[event])) == truth.event_codes(event)
    pulses = np.array([block["pulseId"] for block in blocks]).astype(int)
    assert len(set(np.diff(pulses))) <= 2  # evenly spaced up to rounding
    assert pulses.tolist() == truth.pulse_ids.tolist()
    assert [block["timeStamp"] for block in blocks] == truth.timestamps.tolist()


@pytest.mark.parametrize(
    ("naming", "files"),
    [
        ("s000-c000", {"e-r0009-s001-c000.xtc2", "e-r0009-s001-c001.xtc2", "e-r0009-s001-c000.smd.xtc2"}),
        ("s00-c00", {"e-r0009-s01-c00.xtc2", "e-r0009-s01-c01.xtc2", "e-r0009-s01.smd.xtc2"}),
        ("s00", {"e-r0009-s01.xtc2", "e-r0009-s01-c01.xtc2", "e-r0009-s01.smd.xtc2"}),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".inprogress"])
def test_file_names(tmp_path, naming, files, suffix):
    detector = Detector(name="t", kind="timing", stream=1)
    simulate.write(
        RunSpec(
            experiment="e",
            number=9,
            events=4,
            detectors=(detector,),
            naming=naming,
            cuts={1: (2,)},
            in_progress=bool(suffix),
        ),
        tmp_path,
    )
    assert {p.name for p in tmp_path.rglob("*.xtc2*")} == {name + suffix for name in files}


def test_the_order_of_time(tmp_path):
    gone = Missing(events=(1,), stream=0)
    spec = RunSpec(events=5, timestamps=[30, 20, 10, 30, 5], detectors=ALL[:1], missing=(gone,))
    truth = simulate.write(spec, tmp_path)
    assert truth.order.tolist() == [4, 2, 0, 3]


def test_several_runs_and_configures_in_one_file(tmp_path):
    first = RunSpec(number=5, events=6, detectors=ALL[:3], cuts={1: (3,)})
    second = RunSpec(number=6, events=4, detectors=ALL[:3], configure=False, start="2024-06-14T07:00", seed=1)
    renamed = (*ALL[:1], dataclasses.replace(ALL[2], name="epix_new", shape=(16, 16)))
    third = RunSpec(number=7, events=5, detectors=renamed, start="2024-06-14T08:00:00")
    truths = simulate.write_runs((first, second, third), tmp_path)
    streams = parsed(truths[0])
    for stream, rows in streams.items():
        assert [d.service for _, d in rows].count(2) == 2
        assert [d.blocks("runinfo")[0]["runnum"] for _, d in rows if d.service == 4] == [5, 6, 7]
        start = 0
        for truth in truths:
            count = len(truth.datagrams[stream])
            check_places(truth, stream, rows[start : start + count])
            start += count
        assert start == len(rows)
    later = {s: rows[-len(truths[2].datagrams[s]) :] for s, rows in streams.items()}
    check_values(truths[2], "epix_new", later)


def test_values_do_not_need_the_file_and_depend_on_the_seed(tmp_path):
    specs = [RunSpec(events=3, seed=seed, detectors=ALL) for seed in (0, 1)]
    one, other = (simulate.write(spec, tmp_path / str(spec.seed)) for spec in specs)
    kept = one.value("epix", "raw", 1, 3)
    for path in one.files:
        path.unlink()
    again = simulate.Truth(one.spec, one.folder)
    np.testing.assert_array_equal(again.value("epix", "raw", 1, 3), kept)
    assert not np.array_equal(kept, other.value("epix", "raw", 1, 3))
    assert not np.array_equal(kept, one.value("epix", "raw", 2, 3))
    assert one.value("epix", "raw", 1).shape == (3, *SMALL)


def test_writing_twice_gives_the_same_bytes(tmp_path):
    one, other = (simulate.write(simulate.demo_spec(8), tmp_path / name) for name in "ab")
    assert [p.read_bytes() for p in one.files] == [p.read_bytes() for p in other.files]


def test_the_demo_run_is_complete(tmp_path):
    truth, _ = checked(simulate.demo_spec(16), tmp_path)
    assert truth.written.all()
    assert len(truth.streams[1]) == 2
    assert (~truth.present("epixquad", 2)).sum() == 1


def test_descriptions_and_truths_can_be_pickled(tmp_path):
    truth = simulate.write(simulate.demo_spec(4), tmp_path)
    truth.config("epixquad", 1)
    again = pickle.loads(pickle.dumps(truth))
    np.testing.assert_array_equal(again.value("epixquad", "raw", 2), truth.value("epixquad", "raw", 2))
    assert again.epics("message") == truth.epics("message")


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs/simulate.md").read_text()
    names = {}
    exec(text.split("```python")[1].split("```")[0], names)
    assert names["truth"].value("epixquad", "raw", event=7) is None
    exec(text.split("```python")[2].split("```")[0], names)
    assert names["truth"].fiducials.tolist()[-1] == (131_000 + 3 * 63) % 131_040
    for kind in (*simulate.KINDS, *simulate.XTC_KINDS):
        assert kind in text
    for public in simulate.__all__:
        assert public in text or public in {"PV", "Moment", "Picture", "LargeRun", "Truth", "demo_spec"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (lambda: RunSpec(events=5, steps=(2, 2)), "hold 4 events of 5"),
        (lambda: RunSpec(events=5, timestamps=[1, 2]), "2 timestamps for 5 events"),
        (lambda: simulate.write(RunSpec(detectors=(Detector(name="a", kind="b"),)), "x"), "no kind 'b'"),
    ],
)
def test_impossible_descriptions_are_refused(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        spec()


def peak_of(values, centre, half):
    """Position of the maximum near `centre`: the centroid of what rises above the window's median."""
    y, x = (round(float(v)) for v in centre)
    window = values[y - half : y + half + 1, x - half : x + half + 1]
    weight = np.clip(window - np.median(window), 0, None)
    ys, xs = np.mgrid[y - half : y + half + 1, x - half : x + half + 1]
    return np.sum(weight * ys) / weight.sum(), np.sum(weight * xs) / weight.sum()


def ring_of(image, centre, near):
    """Radius of the ring near `near`: the centroid of the radial profile above the level beside it."""
    radius = np.hypot(*(np.indices(image.shape) - np.array(centre)[:, None, None]))
    edges = np.arange(near - 10, near + 10.25, 0.5)
    good = np.isfinite(image)
    index = np.digitize(radius[good], edges)
    profile = [np.median(image[good][index == i]) for i in range(1, len(edges))]
    weight = np.clip(profile - np.min(profile), 0, None)
    return np.sum(weight * (edges[:-1] + 0.25)) / weight.sum()


@pytest.mark.parametrize(
    "detector",
    [
        Detector(name="epix", kind="epix10ka", segments=4, stream=(1, 1, 2, 2), shape=(176, 192)),
        Detector(name="cam", kind="camera", shape=(300, 280), dtype="f4"),
        Detector(name="jf", kind="jungfrau", segments=(1, 5), shape=(2, 128, 256)),
    ],
    ids=lambda d: d.name,
)
def test_rings_and_peaks_are_found_in_written_frames(tmp_path, detector):
    spec = RunSpec(events=40, detectors=(detector,), seed=3)
    truth = simulate.write(spec, tmp_path)
    picture = truth.picture(detector.name)
    photons = (mean_frames(truth, detector.name) - picture.pedestals) / picture.scene.adu_per_photon
    image = picture.assembled(photons)
    for y, x in picture.peaks:
        found = peak_of(image, (y, x), 4)
        assert np.hypot(found[0] - y, found[1] - x) < 0.5
    for ring in picture.rings:
        # start 3 px away, so that the answer is not put in
        assert abs(ring_of(image, picture.centre, ring + 3) - ring) < 0.5
    assert len(picture.peaks) == 8
    assert len(picture.rings) == 3


def mean_frames(truth, name):
    sums, counts = {}, {}
    for rows in parsed(truth).values():
        for _, dgram in rows:
            for block in dgram.blocks(name, "raw") if dgram.service == L1 else ():
                segment = block.names.segment
                frame = next(iter(block.arrays.values())).astype(float)
                sums[segment] = sums.get(segment, 0) + frame
                counts[segment] = counts.get(segment, 0) + 1
    assert set(counts.values()) == {truth.spec.events}
    stack = np.stack([sums[segment] / counts[segment] for segment in truth.segments(name)])
    return stack.reshape(-1, *stack.shape[-2:])


def test_photons_and_noise_have_the_stated_statistics(tmp_path):
    detector = Detector(name="cam", kind="camera", shape=(200, 200), dtype="f4")
    truth = simulate.Truth(RunSpec(events=200, detectors=(detector,)), tmp_path)
    picture = truth.picture("cam")
    counts = np.stack([truth.value("cam", "image", event) for event in range(200)]) - picture.pedestals[0]
    energy = np.array([simulate.values.intensity(0, event) for event in range(200)])
    photons = counts / picture.scene.adu_per_photon
    # 200 x 40000 pixels: the mean of all is known to 1e-3 of itself, the variance to a few of that
    mean = (picture.expected[0] * energy[:, None, None]).mean()
    assert photons.mean() == pytest.approx(mean, rel=3e-3)
    dark = picture.expected[0] == 0
    assert dark.sum() > 300  # the shadow of the beam stop
    assert counts[:, dark].std() == pytest.approx(picture.scene.read_noise, rel=0.02)
    spread = (photons - picture.expected[0] * energy[:, None, None]) ** 2
    noise = (picture.scene.read_noise / picture.scene.adu_per_photon) ** 2
    assert spread.mean() == pytest.approx(mean + noise, rel=0.01)


def test_damaging_files(tmp_path):
    from psana_dask.simulate import corrupt

    truth = simulate.write(RunSpec(events=5, detectors=ALL[:1]), tmp_path)
    (path,) = truth.files
    whole = path.read_bytes()
    places = [(row["offset"], row["size"]) for row in truth.datagrams[0]]
    assert corrupt.datagrams(whole) == places
    changed = corrupt.flip_bits(path, 7, seed=2, start=100, stop=5000)
    now = path.read_bytes()
    assert [i for i, (a, b) in enumerate(zip(whole, now, strict=True)) if a != b] == changed
    assert len(changed) == 7
    path.write_bytes(whole)
    offset, size = corrupt.drop_datagram(path, 6)
    assert path.read_bytes() == whole[:offset] + whole[offset + size :]
    path.write_bytes(whole)
    corrupt.swap_datagrams(path, 6, 8)
    assert [d.timestamp for d in parser.parse(bytearray(path.read_bytes()))[0]][6] == places_stamp(truth, 8)
    path.write_bytes(whole)
    corrupt.set_extent(path, 6, 11)
    assert len(corrupt.datagrams(path.read_bytes())) == 6
    corrupt.cut(path, 1000)
    assert path.read_bytes() == whole[:1000]


def places_stamp(truth, number):
    return truth.datagrams[0]["timestamp"][number]


@pytest.mark.parametrize("events", [3, 8, 23])
@pytest.mark.parametrize("smalldata", ["offline", None])
def test_repeated_runs_hold_the_pool_again_and_again(tmp_path, events, smalldata):
    detectors = (*ALL[:3], *ALL[4:6])
    spec = RunSpec(events=8, detectors=detectors, slow_every=3, smalldata=smalldata, missing=FIRST_GAPS)
    run = simulate.repeat(spec, tmp_path, events)
    assert np.all(np.diff(run.timestamps.astype(int)) > 0)
    for stream, path in run.streams.items():
        dgrams, _ = parser.parse(bytearray(path.read_bytes()))
        assert services([(0, d) for d in dgrams])[:4] == [2, 4, 6, 8]
        assert services([(0, d) for d in dgrams])[-3:] == [9, 7, 5]
        stamps = [d.timestamp for d in dgrams]
        assert stamps == sorted(stamps)
        check_repeated(run, [d for d in dgrams if d.service == L1], run.pool.in_stream(stream))
        if smalldata:
            small, _ = parser.parse(bytearray(run.pool.smd_files[stream].read_bytes()))
            assert [d.timestamp for d in small] == stamps
            for one, whole in zip(small, dgrams, strict=True):
                check_smalldata(one, whole, stream, smalldata)


FIRST_GAPS = (Missing(events=(1,), stream=1), Missing(events=(2, 6), detector="epix", segment=3))


def check_repeated(run, dgrams, there):
    expected = [event for event in range(run.events) if there[event % 8]]
    assert [d.timestamp for d in dgrams] == run.timestamps[expected].tolist()
    for event, dgram in zip(expected, dgrams, strict=True):
        for block in dgram.blocks():
            for _, _, label, code, _ in block.names.fields:
                if code != 12:
                    name = f"{block.names.alg}.{label.split(':')[0]}"
                    want = run.value(block.names.det_name, name, event, block.names.segment)
                    assert_same(block[label], want)


def test_large_frames(tmp_path):
    run = simulate.write_large(tmp_path, gigabytes=1e-4, shape=(4, 16, 32), streams=2, pool=3)
    assert run.events == round(1e5 / (4 * 16 * 32 * 2))
    assert len(run.files) == 2
    assert sum(p.stat().st_size for p in run.files) == pytest.approx(1e5, rel=0.9)  # headers weigh in here
    dgrams, _ = parser.parse(bytearray(run.files[1].read_bytes()))
    block = [d for d in dgrams if d.service == L1][5].blocks("jungfrau", "raw")[1]
    assert block.names.segment == 3
    np.testing.assert_array_equal(block["raw"], run.value("jungfrau", "raw", 5, 3))


def test_many_small_datagrams(tmp_path):
    run = simulate.write_many(tmp_path, events=2500, size=200, pool=1000)
    table = {}
    dgrams, end = parser.parse(bytearray(run.files[0].read_bytes()), table)
    accepted = [d for d in dgrams if d.service == L1]
    assert {d.size for d in accepted} == {200}
    assert [d.blocks()[0]["number"] for d in accepted] == [event % 1000 for event in range(2500)]
    assert end == run.files[0].stat().st_size


def test_what_cannot_be_repeated_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one step"):
        simulate.repeat(RunSpec(events=4, steps=2), tmp_path, 100)


def test_a_growing_run_can_be_read_after_every_step(tmp_path):
    spec = RunSpec(events=6, detectors=ALL, cuts={1: (3,)}, partial_tail={2: 10})
    sizes, entries = [], []
    growing = simulate.grow(spec, tmp_path / "a")
    while True:
        try:
            entries.append(next(growing))
        except StopIteration as end:
            truth = end.value
            break
        sizes.append(sum(p.stat().st_size for p in (tmp_path / "a").glob("*.xtc2")))
    assert all(a < b for a, b in itertools.pairwise(sizes))
    assert tuple(entries) == truth.schedule
    at_once = simulate.write(spec, tmp_path / "b")
    assert [p.read_bytes() for p in truth.files] == [p.read_bytes() for p in at_once.files]
    assert [p.read_bytes() for p in truth.smd_files.values()] == [
        p.read_bytes() for p in at_once.smd_files.values()
    ]
