"""The faces of psana and psana2 on the facility's files: everything that they expose, against the oracles."""

import gzip
import hashlib
import itertools
import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from psana_dask import psana, simulate
from psana_dask.psana.area import AreaDetector
from psana_dask.psana.ddl import Record
from psana_dask.psana.environment import detector_names
from psana_dask.readers.tables import is_config
from psana_dask.readers.xtc_layout import source_name

DATA = Path(os.environ.get("PSANA_DASK_CONFORMANCE", Path(__file__).parents[3] / "shared/data"))
pytestmark = [
    pytest.mark.skipif(not DATA.exists(), reason=f"oracle data are not at {DATA}"),
    pytest.mark.filterwarnings("ignore::psana_dask.errors.PsanaWarning"),
]

XTC = ("e999-r0001", "cxitst17-r0002", "e999-r0003", "e999-r0004", "e999-r0005", "e999-r0006", "e999-r0100")
NOT_MERGED = {"e999-r0005", "e999-r0006", "e999-r0100"}  # psana's merger was not asked, or gave up
NO_VALUES = {"frameDuration"}  # what psana does not have
CONTAINER, EPICS, SMALL_DATA, EBEAM_USER_BITS = 1, 13, (89, 90, 91), 1 << 14


def lines(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


# ---- LCLS-1 -------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=XTC)
def xtc(request):
    """A data source over a run, and what the oracle says of each datagram: (file, offset) -> row."""
    paths = sorted((DATA / "xtc1").glob(f"{request.param}-s*-c*.xtc"))
    rows = {}
    for path in paths:
        for row in lines(DATA / "xtc1/oracle" / f"{path.name}.jsonl.gz"):
            if "error" not in row:
                rows[path.name, row["off"]] = row
    return request.param, psana.DataSource(*map(str, paths)), rows


def members(evt):
    """The datagrams of an event, (file, offset)."""
    recording, number = evt._reading.view.recording, evt._number
    found = []
    for stream, row in zip(recording.streams, recording.events.rows[:, number].tolist(), strict=True):
        if row >= 0:
            found.append((os.path.basename(stream.parts[stream["part"][row]]), int(stream["offset"][row])))
    return found


def leaves(node):
    for child in node.get("xtc", ()):
        yield from leaves(child)
    if not node.get("xtc") and node["typeval"] & 0xFFFF != CONTAINER and "class" in node:
        yield node


def compare(tally, where, ours, theirs):
    """Compare what accessors give with the oracle's values, all the way down."""
    if isinstance(theirs, dict) and "sha256" in theirs:
        array = np.ascontiguousarray(ours)
        tally.same(list(array.shape), theirs["shape"], where, "shape")
        tally.same(hashlib.sha256(array.tobytes()).hexdigest(), theirs["sha256"], where)
        tally.add(arrays=1)
    elif isinstance(theirs, dict):
        assert isinstance(ours, Record), where
        for name, value in theirs.items():
            if name not in NO_VALUES:
                compare(tally, f"{where}.{name}", of_accessor(ours, name), value)
    elif isinstance(theirs, list):
        if isinstance(ours, Record):  # a clock or an address
            names = ("seconds", "nanoseconds") if "seconds" in dir(ours) else ("log", "phy")
            ours = [getattr(ours, name)() for name in names]
        ours = ours.tolist() if isinstance(ours, np.ndarray) else ours
        tally.same(len(ours), len(theirs), where)
        for k, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            compare(tally, f"{where}[{k}]", one, other)
    else:
        ours = ours.item() if hasattr(ours, "item") else ours
        fits = ours == theirs or (ours != ours and theirs == "nan")
        tally.same(True if fits else ours, True if fits else theirs, where)


def of_accessor(record, name):
    """What an accessor gives; the oracle has accessors with an argument for each of its values."""
    if name == "channels" and name not in dir(record):
        cfg = record._view.cfg
        names = {0: "data_u8", 1: "data_u16", 2: "data_u32", 3: "data_f32", 4: "data_f64"}
        return [getattr(record, names[int(cfg.sample_type[k])])(k) for k in range(cfg.n_channels)]
    if name.endswith("_iq"):
        return [getattr(record, name.removesuffix("_iq"))(k) for k in range(4)]
    return getattr(record, name)()


def payloads_of(evt, rows):
    """What the event should have: (source, class) -> values, in the order of the datagrams."""
    found = defaultdict(list)
    for member in members(evt):
        for node in leaves(rows[member]["xtc"]) if member in rows else ():
            type_id = node["typeval"] & 0xFFFF
            said = (
                node["class"].startswith("Bld.BldDataEBeam") and node["damage"] & 0xFFFFFF == EBEAM_USER_BITS
            )
            if is_config(type_id) or type_id in {EPICS, *SMALL_DATA} or (node["damage"] and not said):
                continue
            if node["extent"] > 20:
                found[source_name(*node["src"]), node["class"]].append(node)
    return found


def test_every_accessor_of_every_object(xtc, tally):
    name, ds, rows = xtc
    tally.same(sum(1 for _ in ds.events()), len(next(ds.runs()).native), name)
    for evt in ds.events():
        for (source, title), nodes in payloads_of(evt, rows).items():
            if len(nodes) > 1:  # the same type twice: psana gives one of them
                tally.add(doubled=1)
                continue
            package, _, kind = title.partition(".")
            what = getattr(getattr(psana, package), kind)
            address = "" if source.startswith(("ProcInfo", "NoSource")) else source
            found = evt.get(what, psana.Source(address))
            assert found is not None, (name, evt, source, title)
            compare(tally, f"{evt.position} {source} {title}", found, nodes[0]["values"])
            tally.add(objects=1)


def test_ids_times_and_jumps(xtc, tally):
    name, ds, rows = xtc
    run = next(ds.runs())
    ids = []
    for evt in run.events():
        daq = [m for m in members(evt) if int(re.search(r"-s(\d+)-", m[0])[1]) < 80]
        row = rows.get((daq or members(evt))[0])
        event_id = evt.get(psana.EventId)
        ids.append(event_id)
        if row is not None:
            tally.same(event_id.time(), (row["sec"], row["nsec"]), name)
            ours = event_id.fiducials(), event_id.vector(), event_id.ticks()
            tally.same(ours, (row["fid"], row["vector"], row["ticks"]), name)
    times = run.times()
    tally.same(list(times), [i.idxtime() for i in ids], name)
    for position in np.random.default_rng(1).permutation(len(times)).tolist():
        evt = run.event(times[position])
        tally.same(evt.get(psana.EventId).idxtime(), times[position], name, "jump")
        tally.same(evt.get(psana.EventId).time(), (times[position].seconds(), times[position].nanoseconds()))
        tally.same(evt.position == position or times.count(times[position]) > 1, True, name)
    for k in range(run.nsteps()):
        tally.same(
            list(run.times(k)), [t for t, e in zip(times, run.events(), strict=True) if e.step == k], k
        )
    tally.same(len(times), len(run.native), name)
    assert run.event(psana.EventTime(1 << 62, 5)) is None


def test_frames_and_event_codes(xtc, tally):
    _, ds, rows = xtc
    tally.same(all(psana.Detector(full) for full, _, _ in psana.DetNames()), True)
    by_alias = {full: psana.Detector(full) for full, _, _ in psana.DetNames()}
    for evt in ds.events():
        for (source, title), nodes in payloads_of(evt, rows).items():
            detector = by_alias.get(source)
            if len(nodes) == 1 and title.startswith("EvrData.Data"):
                fifo = nodes[0]["values"]["fifoEvents"]
                codes = [f["eventCode"] for f in fifo]
                own = [f["eventCode"] for f in fifo if f["timestampHigh"] == evt._fact("fiducial")]
                tally.same(detector.eventCodes(evt, this_fiducial_only=False), codes, source)
                tally.same(detector.eventCodes(evt), own, source)
            if len(nodes) == 1 and isinstance(detector, AreaDetector):
                compare_frame(tally, detector, evt, title, nodes[0]["values"])


def compare_frame(tally, detector, evt, title, values):
    """Compare the pixels where psana's record has them in our layout; others are in test_xtc1_run."""
    name = next((n for n in ("frame", "frames", "data") if n in values), None)
    if name is None or not isinstance(values[name], dict) or title.startswith("CsPad2x2"):
        return
    raw = detector.raw(evt)
    if "sha256" in values[name] and list(raw.shape) == values[name]["shape"]:
        tally.same(
            hashlib.sha256(np.ascontiguousarray(raw).tobytes()).hexdigest(), values[name]["sha256"], title
        )
        tally.same(list(detector.shape(evt)), values[name]["shape"], title)
        tally.add(frames=1)


def in_force(rows):
    """Yield what Configure said, then what the first BeginCalibCycle changed; the first stream counts."""
    seen = set()
    for service in ("Configure", "BeginCalibCycle"):
        for (path, _), row in sorted(rows.items()):
            if row["svc"] != service or (path, service) in seen:
                continue
            seen.add((path, service))
            for node in leaves(row["xtc"]):
                key = node["class"], source_name(*node["src"])
                if is_config(node["typeval"] & 0xFFFF) and not node["damage"] and (key, service) not in seen:
                    seen.add((key, service))
                    yield key, node["values"]


def test_configurations(xtc, tally):
    """The store holds what is in force when the run begins: every accessor of every type and source."""
    name, ds, rows = xtc
    next(ds.events(), None)  # the loop is at the first event
    store = ds.env().configStore()
    known = {(key.type(), key.src()) for key in store.keys()}  # noqa: SIM118
    said = {key: values for key, values in in_force(rows) if key in known}
    for (title, source), values in said.items():
        package, _, kind = title.partition(".")
        found = store.get(getattr(getattr(psana, package), kind), psana.Source(source))
        compare(tally, f"{name} {source} {title}", found, values)
        tally.add(configurations=1)
    tally.same(len(known) > 0, True, name)


def test_epics_follow_the_loop(xtc, tally):
    """Values in force at each event; the native face is compared with the oracle in test_xtc1_slow."""
    _, ds, _ = xtc
    run = next(ds.runs())
    store, table = ds.env().epicsStore(), run.native.epics.at()
    for k, evt in enumerate(run.events()):
        for name in run.native.epics:
            wanted = table[name].values[k] if table[f"{name}_present"].values[k] else None
            for found in (store.value(name), psana.Detector(name)(), psana.Detector(name)(evt)):
                same = found is wanted or np.array_equal(
                    np.asarray(found), np.asarray(wanted), equal_nan=_float(wanted)
                )
                tally.same(same, True, name, k, found, wanted)
    tally.same(sorted(store.pvNames()), sorted(s.pv for s in run.native.epics.series.values()))


def _float(value):
    return np.asarray(value).dtype.kind == "f"


def test_names(xtc, tally):
    name, ds, _ = xtc
    run = next(ds.runs())
    aliases = ds.env().aliasMap()
    for full, alias, _ in detector_names(run):
        tally.same(aliases.alias(full), alias if alias != full else "", name)
        tally.same(psana.Detector(alias or full).name, alias or full)
    tally.same({n for n, _, _ in psana.DetNames("epics")}, {s.pv for s in run.native.epics.series.values()})


# ---- LCLS-II ------------------------------------------------------------------------------------
XTC2 = ("generated-small", "chunking", "mixed_rate", "intg_det", "fakesteps",
        "test_epix_calib.xtc2", "test_hsd.xtc2", "test_timetool.xtc2", "test_ts.xtc2")  # fmt: skip
SLOW = {"epics", "epicsinfo", "scan", "runinfo", "smdinfo", "chunkinfo"}


@pytest.fixture(params=XTC2)
def xtc2(request):
    """A run of psana2's face, and its events from the oracle: (timestamp, turn) -> blocks."""
    source = DATA / "xtc2" / request.param
    files = [source] if source.suffix else sorted(source.glob("*.xtc2"))
    ds = psana.DataSource(files=[str(f) for f in files])
    oracles = [load(DATA / "xtc2/oracle" / f"{f.relative_to(DATA / 'xtc2')}.json.gz") for f in files]
    streams = defaultdict(list)
    for oracle in oracles:
        streams[oracle["config_from"] or Path(oracle["file"]).name].append(oracle)
    events, segments = {}, defaultdict(set)
    for parts in streams.values():
        turns = Counter()
        for dgram in itertools.chain.from_iterable(
            o["dgrams"] for o in sorted(parts, key=lambda o: o["config_from"] or "")
        ):
            for block in dgram["xtcs"]:
                if block["kind"] == "Names" and not {block["det"], block["dettype"]} & SLOW:
                    segments[block["det"], block["alg"]].add(block["segment"])
            if dgram["service"] == "L1Accept":
                key = dgram["timestamp"], turns[dgram["timestamp"]]
                turns[dgram["timestamp"]] += 1
                blocks = events.setdefault(key, {})
                for block in dgram["xtcs"]:
                    if block["kind"] == "ShapesData" and not block["damage"] | dgram["damage"]:
                        blocks[block["det"], block["alg"], block["segment"]] = block
    return request.param, next(ds.runs()), [(k, events[k]) for k in sorted(events)], segments


def load(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def test_every_field_of_psana2(xtc2, tally):
    name, run, events, segments = xtc2
    detectors = {det: run.Detector(det) for det in run.detnames}
    tally.same(len(run.native), len(events), name)
    for evt, ((timestamp, _), blocks) in zip(run.events(), events, strict=True):
        tally.same(evt.timestamp, timestamp, name)
        for (det, alg), numbers in segments.items():
            if det not in detectors or not hasattr(detectors[det], alg):
                continue
            there = [blocks.get((det, alg, n)) for n in sorted(numbers)]
            interface = getattr(detectors[det], alg)
            for field in interface._channels:
                compare_field(tally, interface, field, evt, there)
            compare_stack(tally, interface, evt, there)


def compare_field(tally, interface, field, evt, there):
    """Compare a field with that of the first segment; None where a segment is missing."""
    ours = interface._value(evt, field)  # what getattr gives where no call of psana2 has the name
    where = (interface, field, evt.timestamp)
    if any(block is None for block in there):
        tally.same(ours, None, *where)
        return
    said = next(
        f for f in there[0]["fields"] if f["name"].partition(":")[0] == field and f["type"] != "ENUMDICT"
    )
    if "value" in said:
        tally.same(ours, said["value"], *where)
    else:
        array = np.ascontiguousarray(ours)
        tally.same(array.shape, tuple(said["shape"]), *where)
        tally.same(hashlib.sha256(array.tobytes()).hexdigest(), said["sha256"], *where)
    tally.add(fields=1)


def compare_stack(tally, interface, evt, there):
    """Compare the stack of all panels with the bytes of the segments, one after the other."""
    if type(interface).__name__ != "Frames":
        return
    raw = interface.raw(evt)
    if any(block is None for block in there):
        tally.same(raw, None, interface)
        return
    field = next(
        c.spec.name for _, c in interface._channels.values() if c.field in ("raw", "image", "arrayRaw")
    )
    hashes = [next(f for f in block["fields"] if f["name"] == field)["sha256"] for block in there]
    pieces = np.split(np.ascontiguousarray(raw), len(there)) if len(there) > 1 else [raw]
    tally.same([hashlib.sha256(p.tobytes()).hexdigest() for p in pieces], hashes, interface)
    tally.add(stacks=1)


def test_names_codes_and_jumps_of_psana2(xtc2, tally):
    name, run, events, segments = xtc2
    tally.same(
        {(det, alg) for det, alg in segments if not alg.lower().endswith("config")}, set(run.xtcinfo), name
    )
    codes = run.native.evr.codes.values if "timing" in run.detnames and name == "generated-small" else None
    for evt in run.events():
        if codes is not None:
            ours = run.Detector("timing").raw.eventcodes(evt)
            tally.same(ours, codes[evt.position].astype(int).tolist(), name)
    order = np.random.default_rng(2).permutation(len(events)).tolist()
    for position in order:
        timestamp = events[position][0][0]
        evt = run.event(timestamp)
        tally.same(evt.timestamp, timestamp)
    table = run.native.epics.at()
    for evt in run.events():
        for pv in run.native.epics:
            present = bool(table[f"{pv}_present"].values[evt.position])
            ours = run.Detector(pv)(evt)
            tally.same(repr(ours), repr(table[pv].values[evt.position].item()) if present else "None", pv)
        for scan in run.scannames:
            if evt.step >= 0:
                ours, theirs = run.Detector(scan)(evt), run.native.steps[scan].iloc[evt.step]
                tally.same(str(ours), str(theirs), scan)


# ---- positions, masks, images -------------------------------------------------------------------
@pytest.fixture(scope="module")
def cspad(tmp_path_factory):
    """A simulated CSPAD with the geometry of the oracle, and psana's answers for it."""
    oracle = np.load(DATA / "geometry/p1/cspad_quads.npz", allow_pickle=True)
    cam = simulate.Detector(name="cspad", kind="cspad")
    spec = simulate.RunSpec(format="xtc", experiment="tstx00117", number=3, events=2, detectors=(cam,))
    truth = simulate.write(spec, tmp_path_factory.mktemp("cspad"))
    constants = {"geometry": str(oracle["geo_text"]), "pedestals": np.zeros((32, 185, 388), np.float32)}
    return psana.DataSource(str(truth.folder), calib=constants), oracle


def test_positions_of_an_area_detector(cspad, tally):
    ds, oracle = cspad
    det, evt, idx = psana.Detector("cspad"), next(ds.events()), oracle["idx"]
    for name, values in {"x": det.coords_x(evt), "y": det.coords_y(evt), "z": det.coords_z(evt)}.items():
        tally.same(values.reshape(-1)[idx].tolist(), oracle[name].tolist(), name)
    for name, values in zip(("x_lab", "y_lab", "z_lab"), det.coords_xyz(evt, cframe=1), strict=True):
        tally.same(values.reshape(-1)[idx].tolist(), oracle[name].tolist(), name)
    rows, cols = det.indexes_xy(evt)
    tally.same(rows.reshape(-1)[idx].tolist(), oracle["ix"].tolist(), "rows")
    tally.same(cols.reshape(-1)[idx].tolist(), oracle["iy"].tolist(), "columns")
    tally.same(hashlib.sha256(rows.astype(np.uint32).tobytes()).hexdigest(), str(oracle["ix_sha256"]))
    tally.same(hashlib.sha256(cols.astype(np.uint32).tobytes()).hexdigest(), str(oracle["iy_sha256"]))
    moved = det.indexes_xy(evt, pix_scale_size_um=1.1 * det.pixel_size(evt), xy0_off_pix=(12, 7.5))
    tally.same(moved[0].reshape(-1)[idx].tolist(), oracle["ix_scale1p1_off12_7p5"].tolist())
    tally.same(moved[1].reshape(-1)[idx].tolist(), oracle["iy_scale1p1_off12_7p5"].tolist())
    tally.same(det.pixel_size(evt), float(oracle["pixel_scale_size"]))
    tally.same(det.areas(evt).reshape(-1)[idx].tolist(), oracle["area"].tolist())
    for bits in (1, 2, 4, 8, 16, 31):
        mask = det.mask_geo(evt, bits)
        if bits == 8:  # psana's bit 8 forgets the two unbonded pixels of row 0 themselves
            mask[:, 0, [col for row, col in det.geometry(evt).segment.unbonded if row == 0]] = 1
        tally.same(int((mask == 0).sum()), int(oracle[f"mask_mbits{bits}_nzero"]), bits)
        ours = hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest()
        tally.same(ours, str(oracle[f"mask_mbits{bits}_sha256"]), bits)


def test_image_of_an_area_detector(cspad, tally):
    """An image of the pixels' positions: psana's values in psana's bins."""
    ds, oracle = cspad
    det = psana.Detector("cspad")
    for evt in ds.events():
        image, raw = det.image(evt, cmpars=0), det.raw(evt)
        tally.same(image.shape, tuple(oracle["img_shape"].tolist()))
        rows, cols = det.indexes_xy(evt)
        wanted = np.zeros(image.shape, np.float32)
        wanted[rows.reshape(-1), cols.reshape(-1)] = raw.reshape(-1)  # the last pixel of a bin counts
        tally.same(np.array_equal(image, wanted), True, evt)
        tally.same(np.array_equal(det.image(evt, nda_in=raw), wanted), True, evt)
        back = det.ndarray_from_image(evt, image)
        tally.same(np.array_equal(back, wanted[rows, cols]), True, evt)
