"""LCLS-1 runs through the public face: every event, every value of every field, against the oracle files."""

import gzip
import hashlib
import json
import os
import pickle
import re
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import psana_dask
from psana_dask.readers.tables import is_config, record_for, signals
from psana_dask.readers.tables.panels import pnccd_image
from psana_dask.readers.xtc_fields import columns_of
from psana_dask.readers.xtc_names import ALGORITHMS, detector_of

DATA = Path(os.environ.get("PSANA_DASK_CONFORMANCE", Path(__file__).parents[3] / "shared/data")) / "xtc1"
pytestmark = [
    pytest.mark.skipif(not DATA.exists(), reason=f"oracle data are not at {DATA}"),
    pytest.mark.filterwarnings("ignore::psana_dask.errors.PartialRunWarning"),
    pytest.mark.filterwarnings("ignore::psana_dask.errors.DroppedWarning"),
]

RUNS = ("e999-r0001", "cxitst17-r0002", "e999-r0003", "e999-r0004", "e999-r0005", "e999-r0006", "e999-r0100")
NOT_MERGED = {"e999-r0005", "e999-r0006", "e999-r0100"}  # psana's merger was not asked, or gave up
ANY, XTC, EPICS, SMALL_DATA = 0, 1, 13, (89, 90, 91)
OURS = {"frameDuration"}  # values that psana does not have
EBEAM_USER_BITS = 1 << 14


def load(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def open_run(name, **options):
    return psana_dask.open_run(sorted(DATA.glob(f"{name}-s*-c*.xtc")), cache=False, **options)


def leaves(node):
    """The containers of a tree that hold no others."""
    inner = node.get("xtc", ())
    for child in inner:
        yield from leaves(child)
    if not inner and node["typeval"] & 0xFFFF != XTC:
        yield node


@pytest.fixture(scope="module", params=RUNS)
def case(request):
    """A run, and what the oracle says of each of its datagrams: (file, offset) -> row."""
    rows = {}
    for path in sorted((DATA / "oracle").glob(f"{request.param}-s*-c*.xtc.jsonl.gz")):
        if ".smd." not in path.name:
            name = path.name.removesuffix(".jsonl.gz")
            rows |= {(name, row["off"]): row for row in load(path) if "error" not in row}
    run = open_run(request.param)
    return request.param, run, rows


def datagrams_of(run):
    """For each event its datagrams, (file, offset), in the order of the streams."""
    recording = run._recording
    found = []
    for event in range(len(run)):
        members = []
        for stream, row in zip(recording.streams, recording.events.rows[:, event].tolist(), strict=True):
            if row >= 0:
                path = stream.parts[stream["part"][row]]
                members.append((os.path.basename(path), int(stream["offset"][row])))
        found.append(members)
    return found


# ---- events -------------------------------------------------------------------------------------
def test_events_are_those_of_psanas_merger(case):
    name, run, _ = case
    merged = DATA / "oracle" / f"{name}.merge.jsonl.gz"
    if name in NOT_MERGED:
        assert not merged.exists() or load(merged) == []
        return
    theirs = [row for row in load(merged) if row["svc"].lower() == "l1accept"]
    ours = {tuple(map(tuple, members)) for members in map(sorted, datagrams_of(run))}
    assert ours == {tuple(sorted(map(tuple, row["dgrams"]))) for row in theirs}
    assert len(ours) == len(theirs) == len(run)
    table = run.events
    heads = Counter((row["sec"] << 32 | row["nsec"], row["fid"], row["vector"]) for row in theirs)
    found = zip(table.timestamp.values.tolist(), table.fiducial.values.tolist(), table.vector.values.tolist(),
                strict=True)  # fmt: skip
    assert Counter(found) == heads
    print(f"\n{name}: {len(run)} events as merged by psana")


def test_headers(case):
    _, run, rows = case
    table = run.events
    assert np.all(np.diff(table.time.values) > np.timedelta64(0))
    for event, members in enumerate(datagrams_of(run)):
        daq = [m for m in members if int(re.search(r"-s(\d+)-", m[0])[1]) < 80]
        row = rows.get((daq or members)[0])
        if row is None:  # behind a corrupt extent, where the oracle's reader stops
            continue
        one = table.isel(time=event)
        clock = np.datetime64(row["sec"] * 10**9 + row["nsec"], "ns")
        assert 0 <= (one.time.values - clock) / np.timedelta64(1, "ns") < 5
        ours = [int(one[n]) for n in ("fiducial", "vector", "ticks")]
        assert ours == [row[n] for n in ("fid", "vector", "ticks")]
        assert bool(one.recorder_only) == (not daq)
        assert (int(one.l3), bool(one.trimmed)) == (row["l1env"]["l3t"], bool(row["l1env"]["trimmed"]))
        assert int(one.dgram_damage) == row["xtc"]["damage"]


# ---- values -------------------------------------------------------------------------------------
class Values:
    """The fields of a run, loaded once; counts what is compared."""

    def __init__(self, run):
        self.run, self.loaded, self.counts, self.differences = run, {}, Counter(), []

    def at(self, detector, field, event):
        """The value of a field in one event."""
        if (detector, field) not in self.loaded:
            data = self.run[detector].field(field, chunks=None).load()
            counts = data[f"{field}_count"].values if hasattr(data, "data_vars") else None
            values = data[field].values if counts is not None else data.values
            self.loaded[detector, field] = values, None if counts is None else np.cumsum(counts)
        values, ends = self.loaded[detector, field]
        if ends is None:
            return values[event]
        return values[ends[event - 1] if event else 0 : ends[event]]

    def same(self, where, ours, theirs):
        """Compare a value with the oracle's: numbers, text, arrays by their hash, lists of these."""
        self.counts["values"] += 1
        if isinstance(theirs, dict):
            ours = np.ascontiguousarray(ours).reshape(theirs["shape"])
            fits = hashlib.sha256(ours.tobytes()).hexdigest() == theirs["sha256"]
            self.counts["arrays"] += 1
        elif isinstance(theirs, list):
            fits = len(ours) == len(theirs)
            for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
                self.same(f"{where}[{i}]", a, b)
        else:
            ours = ours.item() if hasattr(ours, "item") else ours
            fits = ours == theirs or (ours != ours and theirs == "nan")
        if not fits:
            self.differences.append(f"{where}: {ours!r} is not {theirs!r}")


def public_field(entry, algorithm, name):
    """The public name of a field of the file."""
    wanted = (entry.source, algorithm, name)
    return next((public for public, channel in entry.channels.items() if channel.id == wanted), None)


def walked(values, path):
    """What the oracle has at the end of a path of accessors; lists are walked through."""
    if not path:
        return values
    if isinstance(values, list):
        return [walked(v, path) for v in values]
    return walked(values[path[0]], path[1:])


def pixels(title, raw, values):
    """(our pixels in the layout of the oracle, the oracle's) for an area detector."""
    if title.startswith("CsPad.Data"):
        found = []
        for quad in values["quads"]:
            sections = [s for s in range(8) if quad["sectionMask"] >> s & 1]
            found.append((raw[[8 * quad["quad"] + s for s in sections]], quad["data"]))
        return found
    if title == "CsPad2x2.ElementV1":
        return [(np.moveaxis(raw, 0, -1), values["data"])]
    if title == "PNCCD.FramesV1":
        return [(raw[k] if raw.ndim == 3 else raw, f["data"]) for k, f in enumerate(values["frame"])]
    if title in {"Camera.FrameV1", "Bld.BldDataPimV1"}:
        frame = values if title == "Camera.FrameV1" else values["frame"]
        return [(raw, frame["data8" if raw.dtype.itemsize == 1 else "data16"])]
    name = next(n for n in ("frame", "frames", "data") if n in values)
    return [(raw, values[name])]


def test_every_value_of_every_event(case):
    name, run, rows = case
    values = Values(run)
    catalog = {e.source: e for e in run._view.entries.values()}
    seen = defaultdict(set)
    for event, members in enumerate(datagrams_of(run)):
        for member in members:
            for node in leaves(rows[member]["xtc"]) if member in rows else ():
                compare_leaf(values, run, catalog, seen, event, node)
    absent = compare_absence(run, seen, name, rows)
    print(f"\n{name}: {dict(values.counts)}, {absent} absences, {len(values.differences)} differences")
    assert values.differences == []
    assert values.counts["leaves"] > 20 or name == "e999-r0006"


def compare_leaf(values, run, catalog, seen, event, node):
    type_id, version = node["typeval"] & 0xFFFF, node["typeval"] >> 16 & 0x7FFF
    empty = "class" not in node or node["extent"] == 20
    if is_config(type_id) or type_id in {ANY, EPICS, *SMALL_DATA} or empty:
        return
    ebeam = node["class"].startswith("Bld.BldDataEBeam") and node["damage"] & 0xFFFFFF == EBEAM_USER_BITS
    if node["damage"] and not ebeam:
        return
    entry = catalog[detector_of(*node["src"], type_id)[0]]
    if node["level"] in {"Source", "Reporter"}:
        assert run[node["srcname"]].name == entry.name
    algorithm = ALGORITHMS.get(type_id, "raw")
    record = record_for(type_id, version)
    channels = {c.spec.name: c for c in entry.channels.values() if c.algorithm == algorithm}
    seen[entry.name, algorithm].add(event)
    values.counts["leaves"] += 1
    reader = values.run._view.target(next(iter(channels.values()))).reader()
    kinds = [k for _, k in reader.events.kinds if k.view.record is record]
    where = f"event {event} {node['srcname']} {node['class']}"
    assert kinds, where
    for column in columns_of(kinds[0].view):
        public = public_field(entry, algorithm, column.name)
        ours = values.at(entry.name, public, event)
        if column.is_frame and is_odd(run, record.title, ours, node):
            values.counts["frames of another shape"] += 1
            seen[entry.name, algorithm].discard(event)
        elif column.is_frame:
            for one, other in pixels(record.title, ours, node["values"]):
                values.same(f"{where} pixels", one, other)
                values.counts["frames"] += 1
        elif column.value is not None and column.value.path[-1] not in OURS:
            values_there = walked(node["values"], column.value.path)
            values.same(f"{where} {public}", ours, values_there)
        elif column.value is None:
            compare_computed(values, where, reader, column.name, event, ours)


COMPUTED = {
    ("Acqiris.DataDescV1", "volts"): signals.acqiris_volts,
    ("Acqiris.DataDescV1", "times"): signals.acqiris_times,
    ("Acqiris.TdcDataV1", "times"): lambda view: view.place("data") and _tdc_seconds(view),
    ("Imp.ElementV1", "samples"): signals.imp_waveforms,
    ("PNCCD.FramesV1", "full_frame"): lambda view: pnccd_image(np.stack([f.data for f in view.frame])),
    **{("Generic1D.DataV0", f"channel_{k}"): partial(lambda k, view: signals.generic_channels(view)[k], k)
       for k in range(16)},
    **{(f"OceanOptics.DataV{v}", "intensity"): signals.spectrum for v in (1, 2, 3)},
    **{(f"OceanOptics.DataV{v}", "wavelengths"): signals.wavelengths for v in (1, 2, 3)},
}  # fmt: skip


def _tdc_seconds(view):
    return np.array([item.count for item in view.data]) * 50e-12


def compare_computed(values, where, reader, name, event, ours):
    """Compare what is computed for many events at once with the same from one record."""
    (some,) = reader.payloads.some(np.array([event]))
    view = some.kind.blocks.decode(int(some.rows[0]), int(some.blocks[0]))
    theirs = np.asarray(COMPUTED[view.record.title, name](view))
    values.counts["computed"] += 1
    # the same operations in another order of loops: equal to the last bits
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-14, atol=0):
        values.differences.append(f"{where} {name}: {ours!r} is not {theirs!r}")


def is_odd(run, title, raw, node):
    """Whether a picture has another shape than those of its camera: it is missing, and a problem says so."""
    if title != "Camera.FrameV1" or (node["values"]["height"], node["values"]["width"]) == raw.shape:
        return False
    assert run.problems.offset.eq(node["off"] + 20).any()
    return True


def compare_absence(run, seen, name, rows):
    """Where the oracle has no intact payload of a detector, it is not present."""
    complete = {e for e, members in enumerate(datagrams_of(run)) if all(m in rows for m in members)}
    absent = 0
    for (detector, algorithm), events in seen.items():
        prefix = "" if algorithm == "raw" or len(run[detector]._entry.channels) == 0 else f"{algorithm}_"
        data = run[detector].dataset(None)
        present = data[f"{prefix}present" if f"{prefix}present" in data else "present"].values
        ours = set(np.flatnonzero(present).tolist()) & complete
        assert ours == events & complete, (name, detector, algorithm)
        absent += len(complete) - len(ours)
    return absent


# ---- random access ------------------------------------------------------------------------------
TWO = ("e999-r0001", "cxitst17-r0002")


def bytes_of(event):
    """Everything that a loaded event says, as text."""
    return {name: (v.dims, v.values.tobytes()) for name, v in sorted(event.variables.items())}


@pytest.fixture(scope="module", params=TWO)
def sequential(request):
    """A run, and all its events as reading them one after the other gives them."""
    run = open_run(request.param)
    events = [run.event(time) for time in run.events.time.values]
    whole = run.dataset(chunks=None).load()
    for k, event in enumerate(events):
        for name in set(event.data_vars) & set(whole.data_vars):
            if whole[name].dims[:1] == ("time",):
                assert event[name].values.tobytes() == whole[name].values[k].tobytes(), (k, name)
    return run, [bytes_of(event) for event in events]


def raw_keys(run):
    table = run.events
    words = table.timestamp.values.astype(int).tolist()
    return [(w >> 32, w & 0xFFFFFFFF, f) for w, f in zip(words, table.fiducial.values.tolist(), strict=True)]


@pytest.mark.parametrize("form", ["time", "text", "seconds, nanoseconds, fiducial"])
def test_shuffled_access_equals_reading_in_order(sequential, form):
    run, expected = sequential
    times = run.events.time.values
    keys = {"time": list(times), "text": [str(t) for t in times]}.get(form, raw_keys(run))
    chosen = np.random.default_rng(5).permutation(len(run))[:: 1 if form == "time" else 4].tolist()
    for k in chosen:
        assert bytes_of(run.event(keys[k])) == expected[k]
    print(f"\n{len(chosen)} events by {form}")


def test_saved_lists(sequential, tmp_path):
    run, _ = sequential
    order = np.random.default_rng(6).permutation(len(run))
    np.save(tmp_path / "times.npy", run.events.time.values[order])
    chosen = run.sel(np.load(tmp_path / "times.npy"))
    assert np.array_equal(chosen.events.time.values, run.events.time.values[order])
    whole = run.ebeam.photon_energy.values
    assert np.array_equal(chosen.ebeam.photon_energy.values, whole[order], equal_nan=True)
    chosen = run.sel([raw_keys(run)[k] for k in order])
    assert np.array_equal(chosen.events.time.values, run.events.time.values[order])
    assert np.array_equal(chosen.events.step.values, run.events.step.values[order])


@pytest.mark.parametrize("name", TWO)
def test_equal_clocks_are_told_apart_whatever_streams_are_read(name):
    whole = open_run(name).events
    told = dict(zip(raw_keys_of(whole), whole.time.values, strict=True))
    assert len(told) == len(whole.time)
    for only in ((0,), (1,), (0, 1)):
        part = open_run(name, streams=only).events
        assert 0 < len(part.time) <= len(whole.time)
        for key, time in zip(raw_keys_of(part), part.time.values, strict=True):
            assert told[key] == time


def raw_keys_of(table):
    return list(zip(table.timestamp.values.tolist(), table.fiducial.values.tolist(), strict=True))


def test_runs_and_arrays_travel():
    run = open_run("e999-r0001")
    again = pickle.loads(pickle.dumps(run))
    assert again.events.identical(run.events)
    names = ["jungfrau.raw", "ebeam", "evr0"]
    data = run.dataset(names, join="outer")
    assert pickle.loads(pickle.dumps(data)).load().identical(data.load())
    assert data.load().identical(run.dataset(names, join="outer", chunks=None).load())


def test_equal_clocks_are_problems():
    run = open_run("cxitst17-r0002")
    assert run.problems.what.str.contains("moved by 1 ns").sum() == 1


def test_missing_sections_of_a_cspad_are_missing_panels():
    run = open_run("cxitst17-r0002")
    data = run.cspad.dataset(None)
    present = data.panel_present.values
    assert data.raw.dims == ("time", "panel", "row", "col")
    assert data.raw.shape[1:] == (32, 185, 388)
    assert (present.any(axis=1) == data.present.values).all()
    there = present[data.present.values]
    assert 0 < there.mean() < 1
    assert not data.raw.values[~present].any()


def test_user_bits_of_ebeam_are_no_loss():
    run = open_run("cxitst17-r0002")
    data = run.ebeam.dataset(None)
    flagged = (data.damage.values >> 14 & 1).astype(bool)
    assert flagged.sum() == 1
    assert data.present.values[flagged].all()
    assert np.isfinite(data.photon_energy.values[flagged]).all()


def test_damaged_payloads_are_missing_unless_asked_for():
    plain, kept = (open_run("cxitst17-r0002", damaged=d) for d in ("missing", "keep"))
    for name in plain.detectors:
        if plain[name].fields:
            assert (kept[name].present.values >= plain[name].present.values).all()


@pytest.mark.parametrize(
    ("name", "offsets"),
    [("e999-r0003", [133792]), ("e999-r0004", [64212, 92096, 119800]), ("e999-r0006", [4908])],
)
def test_corrupt_runs_say_where(name, offsets):
    with pytest.warns(psana_dask.errors.PartialRunWarning):
        run = open_run(name)
    problems = run.problems
    assert set(offsets) <= set(problems.offset)
    assert problems.file[problems.offset.isin(offsets)].str.endswith(f"{name}-s00-c00.xtc").all()
    rows = load(DATA / "oracle" / f"{name}-s00-c00.xtc.jsonl.gz")
    whole = [row for row in rows if row.get("svc") == "L1Accept" and "error" not in row]
    clocks = {row["sec"] << 32 | row["nsec"] for row in whole}
    assert clocks <= set(run.events.timestamp.values.tolist())


def test_identification_is_by_content(tmp_path):
    path = tmp_path / "something.xtc2"  # the suffix lies
    path.write_bytes((DATA / "e999-r0003-s00-c00.xtc").read_bytes())
    assert psana_dask.open_run(path, cache=False).format == "xtc"


def test_number_of_the_run(tmp_path):
    assert open_run("e999-r0005").number == 2  # BeginRun says so, whatever the file is called
    assert open_run("e999-r0100").number == 100


@pytest.mark.parametrize("beside", ["index", "smalldata"])
def test_files_beside_the_data_name_events_that_are_lost(tmp_path, beside):
    name = "e999-r0001-s00-c00.xtc"
    (tmp_path / beside).mkdir()
    small = {"index": f"{name}.idx", "smalldata": name.replace(".xtc", ".smd.xtc")}[beside]
    other = DATA / beside / small
    (tmp_path / beside / other.name).write_bytes(other.read_bytes())
    data = (DATA / name).read_bytes()
    (tmp_path / name).write_bytes(data)
    assert not psana_dask.open_run(tmp_path, cache=False).problems.what.str.contains("lists an event").any()
    last = load(DATA / "oracle" / f"{name}.jsonl.gz")[-1]
    (tmp_path / name).write_bytes(data[: last["off"]])  # cut between two datagrams: only the list tells
    assert psana_dask.open_run(tmp_path, cache=False).problems.what.str.contains("lists an event").sum() == 1
