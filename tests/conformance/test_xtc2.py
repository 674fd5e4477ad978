"""LCLS-II files against what the facility's own library reads from them: everything, at two levels.

First the index: every datagram, every name, every block, every byte of every field.  Then
the public face: every event of every detector, found again by its time stamp in what
`psana_dask.open` and xarray deliver, with what should be there worked out from the oracle alone.
"""

import hashlib
import itertools
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask.blocks import StreamBlocks, decode_block
from psana_dask.files import StreamFiles
from psana_dask.index import stream_index

EPOCH = 631152000
TYPES = {
    "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FLOAT": "<f4", "DOUBLE": "<f8",
    "CHARSTR": "S1", "ENUMVAL": "<i4", "ENUMDICT": "<i4",
}  # fmt: skip
KINDS = {"CHARSTR": 1, "ENUMVAL": 2, "ENUMDICT": 3}
SERVICES = {
    "ClearReadout": 0, "Reset": 1, "Configure": 2, "Unconfigure": 3, "BeginRun": 4, "EndRun": 5,
    "BeginStep": 6, "EndStep": 7, "Enable": 8, "Disable": 9, "SlowUpdate": 10, "L1Accept": 12,
}  # fmt: skip
NO_DETECTORS = {"epics", "epicsinfo", "scan", "runinfo", "smdinfo", "chunkinfo"}
RUNS = ["generated-small", "chunking", "mixed_rate", "intg_det", "fakesteps",
        "test_epix_calib.xtc2", "test_hsd.xtc2", "test_timetool.xtc2", "test_ts.xtc2"]  # fmt: skip
PROBLEMS = {
    "test_hsd.xtc2": [("test_hsd.xtc2", 430884)],
    "chunking/smalldata/xpptut15-r0014-s000-c000.smd.xtc2": [
        ("chunking/smalldata/data-r0001-s000-c001.xtc2", -1)
    ],
    "generated-small/smalldata/tstx00117-r0001-s001-c000.smd.xtc2": [
        ("generated-small/smalldata/tstx00117-r0001-s001-c001.xtc2", -1)
    ],
}
"""A last datagram that is not whole (the library's own message says so), and small-data files
that announce a part: taken as data files, it is not beside them."""


def type_of(code):
    """Return the dtype and the kind (number, string, enum, entry of an enum) of a type's name."""
    return np.dtype(TYPES[code]), KINDS.get(code, 0)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_every_file_has_an_oracle(xtc2_data):
    files = {str(p.relative_to(xtc2_data)) for p in xtc2_data.rglob("*.xtc2")}
    folder = xtc2_data / "oracle"
    assert files == {str(p.relative_to(folder)).removesuffix(".json.gz") for p in folder.rglob("*.json.gz")}
    assert len(files) == 30


# ---- the index ----------------------------------------------------------------------------------
def test_index(xtc2_oracle, xtc2_data, tally):
    path = xtc2_data / xtc2_oracle["file"]
    parts = [path.with_name(xtc2_oracle["config_from"])] if xtc2_oracle["config_from"] else []
    index = stream_index(StreamFiles(0, (*map(str, parts), str(path))), cache=False)
    rows = np.flatnonzero(index["part"] == len(parts))
    dgrams = xtc2_oracle["dgrams"]
    tally.same(len(rows), xtc2_oracle["n_dgrams"], path)
    tally.same([(p.file, p.offset) for p in index.problems],
               [(str(xtc2_data / f), o) for f, o in PROBLEMS.get(xtc2_oracle["file"], [])])  # fmt: skip
    content = path.read_bytes()
    tally.same(int((index["offset"] + index["size"])[rows].max()), xtc2_oracle["consumed"], path)
    for row, dgram in zip(rows.tolist(), dgrams, strict=True):
        check_dgram(index, row, dgram, tally)
        if dgram["service"] == "Configure":
            check_names(index, row, dgram, tally)
        check_blocks(index, row, dgram, content, tally)
    tally.add(files=1, datagrams=len(rows))


def check_dgram(index, row, dgram, tally):
    where = (dgram["service"], dgram["i"])
    tally.same(index["size"][row] - 12, dgram["extent"], *where)
    tally.same(index["service"][row], SERVICES[dgram["service"]], *where)
    tally.same(int(index["time"][row]), (dgram["sec"] + EPOCH) * 10**9 + dgram["nsec"], *where)
    for column in ("offset", "size", "timestamp", "env", "damage"):
        tally.same(int(index[column][row]), dgram[column], column, *where)


def check_names(index, row, dgram, tally):
    wanted = [x for x in dgram["xtcs"] if x["kind"] == "Names"]
    found = index.configs[index["config"][row]]
    tally.same(len(found), len(wanted), "Names")
    for names, want in zip(found, wanted, strict=True):
        version = want["version"]
        tally.same(names.key, want["nodeId"] << 8 | want["namesId"], names)
        for got, key in zip((names.detector, names.det_type, names.det_id, names.algorithm, names.segment),
                            ("det", "dettype", "detid", "alg", "segment"), strict=True):  # fmt: skip
            tally.same(got, want[key], key, names)
        tally.same(names.version, (version >> 16 & 255, version >> 8 & 255, version & 255), names)
        tally.same(sum(f.rank > 0 for f in names.fields), want["numArrays"], names)
        fields = [(f.name, f.dtype, int(f.kind), f.rank) for f in names.fields]
        expected = [(name, *type_of(code), rank) for name, code, rank, *_ in want["fields"]]
        tally.same(fields, expected, names)
        tally.add(names=1)


def check_blocks(index, row, dgram, content, tally):
    wanted = [x for x in dgram["xtcs"] if x["kind"] == "ShapesData"]
    first, last = index["first_block"][row], index["first_block"][row + 1]
    tally.same(last - first, len(wanted), "blocks", dgram["i"])
    start, size = int(index["offset"][row]), int(index["size"][row])
    names_by_key = {n.key: n for n in index.configs[index["config"][row]]}
    for block, want in zip(range(first, last), wanted, strict=True):
        names = names_by_key[int(index["key"][block])]
        where = (dgram["i"], want["det"], want["alg"], want["segment"])
        tally.same(names.key, want["nodeId"] << 8 | want["namesId"], *where)
        tally.same((dgram["i"], names.detector, names.algorithm, names.segment), where)
        tally.same(names.version, tuple(want["version"] >> s & 255 for s in (16, 8, 0)), *where)
        tally.same(int(index["block_damage"][block]), want["damage"], *where)
        check_fields(index, row, block, names, want, content[start : start + size], tally)
        tally.add(blocks=1, fields=len(want["fields"]))


def check_fields(index, row, block, names, want, dgram, tally):
    places = StreamBlocks(index).places(int(index["config"][row]), names)
    at = int(places.local(index["layout"][block]))
    tally.same(int(places.sizes[:, at].sum()), want["datalen"], names)
    values = decode_block(index, block, names, dgram)
    for number, (spec, said) in enumerate(zip(names.fields, want["fields"], strict=True)):
        where = (names.detector, names.algorithm, spec.name)
        start = int(index["data"][block] + places.offsets[number, at])
        raw = dgram[start : start + int(places.sizes[number, at])]
        tally.same(sha(raw), said["sha256"], *where)
        tally.same(len(raw), said["nbytes"], *where)
        tally.same((spec.name, spec.rank), (said["name"], said["rank"]), *where)
        tally.same(places.shapes[number][at].tolist(), said.get("shape", []), *where)
        tally.same((spec.dtype, int(spec.kind)), type_of(said["type"]), *where)
        if "value" in said:
            tally.same(values[spec.name], said["value"], *where)
        else:
            check_array(values[spec.name], said, where, tally)


def check_array(array, said, where, tally):
    tally.same(array.shape, tuple(said["shape"]), *where)
    tally.same(sha(array.tobytes()), said["sha256"], *where)
    total = array.sum(dtype=np.float64 if array.dtype.kind == "f" else None)
    tally.same(total.item(), said["sum"], "sum", *where)
    tally.same(array.reshape(-1)[:4].tolist(), said["first"], "first", *where)


# ---- what a run holds, worked out from the oracle alone -------------------------------------------
@dataclass
class Event:
    """One time stamp (the `turn`-th event that has it), and what each stream says then."""

    timestamp: int
    time: int
    step: int
    dgrams: dict[int, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def blocks(self):
        """Blocks by (detector, algorithm, segment); each is found in one stream only."""
        found = {}
        for stream, dgram in self.dgrams.items():
            for block in dgram["xtcs"]:
                if block["kind"] == "ShapesData":
                    key = (block["det"], block["alg"], block["segment"])
                    assert key not in found
                    found[key] = (stream, block)
        return found


class Expected:
    """The run that the files of a folder (or one file) make."""

    def __init__(self, files, load):
        oracles = [load(name) for name in files]
        first = [o for o in oracles if not o["config_from"]]
        parts = {o["file"].rpartition("/")[2]: [o] for o in first}
        for oracle in oracles:
            if oracle["config_from"]:
                parts[oracle["config_from"]].append(oracle)
        self.streams = [[d for part in parts[name] for d in part["dgrams"]] for name in sorted(parts)]
        self.names = [[x for d in s for x in d["xtcs"] if x["kind"] == "Names"] for s in self.streams]

    @cached_property
    def events(self):
        """All events in the order of time; equal times are moved on by a nanosecond each."""
        found = {}
        for stream, dgrams in enumerate(self.streams):
            step, turns = -1, defaultdict(int)
            for dgram in dgrams:
                step = -1 if dgram["service"] == "BeginRun" else step + (dgram["service"] == "BeginStep")
                if dgram["service"] == "L1Accept":
                    stamp = dgram["timestamp"]
                    key = (stamp, turns[stamp])
                    turns[stamp] += 1
                    event = found.setdefault(key, Event(stamp, unix_ns(dgram), step))
                    event.step = max(event.step, step)
                    event.dgrams[stream] = dgram
        ordered = [found[key] for key in sorted(found)]
        for before, event in itertools.pairwise(ordered):
            event.time = max(event.time, before.time + 1)
        return ordered

    def declared(self):
        """Yield (detector, algorithm, field, segments) of every channel of events."""
        segments = defaultdict(set)
        for names in itertools.chain.from_iterable(self.names):
            if not {names["det"], names["dettype"]} & NO_DETECTORS and not is_settings(names["alg"]):
                for name, code, *_ in names["fields"]:
                    if code != "ENUMDICT":
                        segments[names["det"], names["alg"], name].add(names["segment"])
        return {key: sorted(found) for key, found in segments.items()}

    def homes(self, det, alg):
        """Return the streams that declare a detector and algorithm."""
        return [k for k, s in enumerate(self.names) if any((n["det"], n["alg"]) == (det, alg) for n in s)]

    def updates(self, wanted, services=None):
        """Return (time, stream, block) of the transitions' blocks that `wanted` accepts, in time order."""
        found = [
            (unix_ns(dgram), stream, number, block)
            for stream, dgrams in enumerate(self.streams)
            for number, dgram in enumerate(dgrams)
            if dgram["service"] != "L1Accept" and (services is None or dgram["service"] in services)
            for block in dgram["xtcs"]
            if block["kind"] == "ShapesData" and wanted(block)
        ]
        return [(u[0], u[1], u[3]) for u in sorted(found, key=lambda u: u[:3])]


def unix_ns(dgram):
    return (dgram["sec"] + EPOCH) * 10**9 + dgram["nsec"]


def is_settings(algorithm):
    return algorithm.lower().endswith("config")


@pytest.fixture(params=RUNS)
def opened(request, xtc2_data, load_xtc2_oracle):
    """A run opened from its folder or file, and what it should hold."""
    name = request.param
    paths = [xtc2_data / name] if name.endswith(".xtc2") else (xtc2_data / name).glob("*.xtc2")
    want = Expected([str(p.relative_to(xtc2_data)) for p in paths], load_xtc2_oracle)
    return name, quietly(psana_dask.open, xtc2_data / name, cache=False), want


def quietly(function, *args, **kwargs):
    """Call a function that may warn of problems (another test compares them) or absent detectors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", psana_dask.errors.PsanaWarning)
        return function(*args, **kwargs)


# ---- what the public face delivers ----------------------------------------------------------------
def test_events_and_problems(opened, tally, xtc2_data):
    name, run, want = opened
    events = run.events
    tally.same(events.time.values.astype(int).tolist(), [e.time for e in want.events])
    tally.same(events.timestamp.values.tolist(), [e.timestamp for e in want.events])
    tally.same(events.step.values.tolist(), [e.step for e in want.events])
    there = [[k in e.dgrams for k in range(len(want.streams))] for e in want.events]
    tally.same(np.transpose([v.values for v in events.data_vars.values()]).tolist(), there)
    found = [(p.file, p.offset) for p in run.problems.itertuples()]
    tally.same(found, [(str(xtc2_data / f), o) for f, o in PROBLEMS.get(name, [])])
    said = [b["fields"] for _, _, b in want.updates(lambda b: b["det"] == "runinfo", {"BeginRun"})]
    values = [{f["name"]: f["value"] for f in fields} for fields in said]
    tally.same(run.number, values[0]["runnum"] if values else None)
    tally.same(run.experiment, values[0]["expt"] if values else None)
    tally.add(events=len(want.events))


def through_xarray(source, **options):
    return xr.open_dataset(source, engine="psana", cache_index=False, **options)


DOORS = {
    "run.dataset": lambda run, source: run.dataset(chunks=None),
    "with dask": lambda run, source: run.dataset(),
    "xarray": lambda run, source: through_xarray(source),
    "xarray with dask": lambda run, source: through_xarray(source, chunks={}),
    "damaged kept": lambda run, source: through_xarray(source, damaged="keep"),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_event(opened, door, tally, xtc2_data):
    name, run, want = opened
    dataset = quietly(DOORS[door], run, xtc2_data / name)
    tally.same(dataset.timestamp.values.tolist(), [e.timestamp for e in want.events])
    tally.same(dataset.step.values.tolist(), [e.step for e in want.events])
    check_channels(dataset, want, tally, keep=door == "damaged kept")


def check_channels(dataset, want, tally, *, keep):
    """Compare every channel of a dataset of all detectors, found by what its attributes say."""
    variables = {}
    for name, variable in dataset.data_vars.items():
        if "field" in variable.attrs and not name.endswith("_count"):
            key = tuple(variable.attrs[k] for k in ("alias", "algorithm", "field"))
            assert key not in variables
            variables[key] = name
    for (det, alg, file_field), segments in want.declared().items():
        own = variables.pop((det, alg, file_field.partition(":")[0]), None)
        occurs = [any((det, alg, s) in e.blocks for s in segments) for e in want.events]
        tally.same(own is not None, any(occurs), det, alg, file_field, "occurs")
        if own is not None:
            check_channel(Found(dataset, own, alg), want, (det, alg, file_field), segments, tally, keep)
            tally.add(channels=1)
    tally.same(variables, {}, "variables that the files do not have")


class Found:
    """One channel of a dataset, read whole."""

    def __init__(self, dataset, name, algorithm):
        detector = dataset[name].attrs["detector"]
        own = f"{detector}_{algorithm}"
        stem = own if f"{own}_present" in dataset else detector
        self.present = dataset[f"{stem}_present"].values
        self.damage = dataset[f"{stem}_damage"].values
        panels = f"{stem}_panel_present"
        self.panel_present = dataset[panels].values if panels in dataset else self.present[:, None]
        self.attrs, self.dtype = dataset[name].attrs, dataset[name].dtype
        self.name = name
        values = dataset[name].values
        self.counts = dataset[f"{name}_count"].values if f"{name}_count" in dataset else None
        if self.counts is not None:
            self.counts = self.counts.reshape(len(self.present), -1)
            self.values = np.split(values, np.cumsum(self.counts.reshape(-1))[:-1])
        else:
            self.values = values if panels in dataset else values[:, None]

    def segment(self, event, position, segments):
        """Return the values of one segment in one event, all its panels."""
        if self.counts is not None:
            return self.values[event * segments + position]
        each = self.values.shape[1] // segments
        return self.values[event, position * each : (position + 1) * each]

    def segment_present(self, event, position, segments):
        each = self.panel_present.shape[1] // segments
        return set(self.panel_present[event, position * each : (position + 1) * each].tolist())


def check_channel(found, want, channel, segments, tally, keep):
    det, alg, file_field = channel
    homes = want.homes(det, alg)
    for k, event in enumerate(want.events):
        there, word = [], 0
        for stream in homes:
            word |= event.dgrams[stream]["damage"] if stream in event.dgrams else 0
        for position, segment in enumerate(segments):
            stream, block = event.blocks.get((det, alg, segment), (None, None))
            usable = False
            if block is not None:
                word |= block["damage"]
                usable = keep or not block["damage"] | event.dgrams[stream]["damage"]
            there.append(usable)
            tally.same(found.segment_present(k, position, len(segments)), {usable}, *channel, k, segment)
            expected = next(f for f in block["fields"] if f["name"] == file_field) if usable else None
            got = found.segment(k, position, len(segments))
            check_value(found, got, expected, (*channel, k, segment), tally)
        tally.same(bool(found.present[k]), any(there), *channel, k, "present")
        tally.same(int(found.damage[k]), word, *channel, k, "damage")


def check_value(found, got, said, where, tally):
    tally.add(values=1)
    if said is None:  # missing: nothing, or zero, NaN or ''
        nothing = np.isnan(got) if got.dtype.kind == "f" else got == np.zeros((), got.dtype)
        tally.same(bool(np.all(nothing)) and (found.counts is None or got.size == 0), True, *where, "missing")
    elif said["type"] == "CHARSTR":
        tally.same(got.reshape(-1)[0], np.str_(said["value"]), *where)
    else:
        tally.same(found.dtype, np.dtype(said["dtype"]), *where)
        tally.same(sha(np.ascontiguousarray(got).tobytes()), said["sha256"], *where)
        tally.same(got.size, int(np.prod(said.get("shape", []))), *where)
        if "value" in said:
            tally.same(got.reshape(-1)[0].item(), said["value"], *where)


def test_enums(opened, tally):
    _, run, want = opened
    dataset = quietly(run.dataset, chunks=None)
    label = ("alias", "algorithm", "field")
    names = {tuple(v.attrs.get(k) for k in label): n for n, v in dataset.data_vars.items()}
    for det, alg, file_field in want.declared():
        plain, _, tag = file_field.partition(":")
        if tag and (det, alg, plain) in names:
            attrs = dataset[names[det, alg, plain]].attrs
            block = next(e.blocks[key][1] for e in want.events for key in e.blocks if key[:2] == (det, alg))
            entries = {f["value"]: f["name"].partition(":")[0] for f in block["fields"]
                       if f["type"] == "ENUMDICT" and f["name"].endswith(f":{tag}")}  # fmt: skip
            got = dict(zip(attrs["flag_values"], attrs["flag_meanings"].split(), strict=True))
            tally.same(got, entries, det, alg, file_field)
    tally.same(len(run), len(want.events))


def test_epics_at_every_event(opened, tally):
    _, run, want = opened
    updates = defaultdict(list)
    for time, _, block in want.updates(lambda b: b["det"] == "epics"):
        for f in block["fields"]:
            if f["type"] != "ENUMDICT":
                name = f["name"].partition(":")[0] if f["type"] == "ENUMVAL" else f["name"]
                updates[name].append((time, f["value"]))
    tally.same(sorted(run.epics), sorted(updates))
    table = run.epics.at()
    for name, rows in updates.items():
        plain = name.replace("/", "_")
        values, present = table[plain].values, table[f"{plain}_present"].values
        for k, event in enumerate(want.events):
            before = [value for time, value in rows if time <= event.time]
            tally.same(bool(present[k]), bool(before), name, k)
            if before:
                tally.same(values[k].item() if hasattr(values[k], "item") else values[k], before[-1], name, k)
        itself = run.epics.at([np.datetime64(time, "ns") for time, _ in rows])[plain]
        tally.same(itself.values.tolist(), [dict(rows)[time] for time, _ in rows], name, "at its update")
        own = run.epics[name]
        tally.same(own.values.tolist(), [value for _, value in rows], name)
        tally.same(own.time.values.astype(int).tolist(), [time for time, _ in rows], name)


def test_steps_and_scan_values(opened, tally):
    _, run, want = opened
    begins = [[d for d in s if d["service"] == "BeginStep"] for s in want.streams]
    steps = run.steps
    tally.same(len(steps), max(map(len, begins)))
    counts = np.bincount([e.step for e in want.events if e.step >= 0], minlength=len(steps))
    tally.same(steps["events"].tolist(), counts.tolist())
    tally.same(steps["start"].astype(int).tolist(), [unix_ns(d) for d in begins[0]])
    columns = defaultdict(dict)
    for dgrams in begins:
        for number, dgram in enumerate(dgrams):
            for block in dgram["xtcs"]:
                if block["kind"] == "ShapesData" and block["det"] == "scan":
                    for f in block["fields"]:
                        columns[f["name"]].setdefault(number, f["value"])
    tally.same(sorted(set(steps) - {"start", "stop", "events"}), sorted(columns))
    for name, values in columns.items():
        tally.same(steps[name].tolist(), [values[k] for k in range(len(steps))], name)


def test_configurations(opened, tally):
    _, run, want = opened
    services = {"Configure", "BeginRun", "BeginStep"}
    updates = want.updates(lambda b: is_settings(b["alg"]), services)
    times = sorted({time for time, _, _ in want.updates(lambda b: True, services)})
    tally.add(settings=0)
    known = {block["det"] for _, _, block in updates}
    tally.same({d.alias for d in run.detectors.values() if d.config.segments}, known)
    for det in known:
        for limit in (*times, None):
            config = run.config(det, None if limit is None else np.datetime64(limit, "ns"))
            expected = defaultdict(dict)
            for time, _, block in updates:
                if block["det"] == det and (limit is None or time <= limit):
                    expected[block["segment"]] |= {f["name"]: f for f in block["fields"]}
            tally.same(sorted(config.segments), sorted(expected), det, limit)
            for segment, fields in expected.items():
                check_config(config[segment], fields, (det, limit, segment), tally)


def check_config(config, fields, where, tally):
    entries = {(f["name"].partition(":")[2], f["value"]): f["name"].partition(":")[0]
               for f in fields.values() if f["type"] == "ENUMDICT"}  # fmt: skip
    expected = {n.partition(":")[0]: f for n, f in fields.items() if f["type"] != "ENUMDICT"}
    tally.same(sorted(config), sorted(expected), *where)
    for name, f in expected.items():
        got = config[name]
        if f["type"] == "ENUMVAL":
            tally.same(got.name, entries[f["name"].partition(":")[2], f["value"]], *where, name)
        if "value" in f:
            tally.same(got.value if f["type"] == "ENUMVAL" else got, f["value"], *where, name)
        else:
            tally.same((got.dtype.str.strip("|"), got.shape, sha(got.tobytes())),
                       (f["dtype"], tuple(f["shape"]), f["sha256"]), *where, name)  # fmt: skip
        tally.add(settings=1)


@pytest.mark.parametrize("name", [n for n in RUNS if not n.endswith(".xtc2")])
def test_smalldata_changes_nothing(name, xtc2_data, tmp_path, tally):
    for path in (xtc2_data / name).glob("*.xtc2"):
        (tmp_path / path.name).symlink_to(path)
    runs = [quietly(psana_dask.open, folder, cache=False) for folder in (xtc2_data / name, tmp_path)]
    assert runs[0]._recording.files.streams[0].smd is not None
    assert runs[1]._recording.files.streams[0].smd is None
    one, other = (quietly(run.dataset, chunks=None).load() for run in runs)
    xr.testing.assert_identical(one, other)
    xr.testing.assert_identical(runs[0].events, runs[1].events)
    xr.testing.assert_identical(runs[0].epics.at(), runs[1].epics.at())
    tally.same(runs[0].problems.to_dict(), runs[1].problems.to_dict())
    tally.add(variables=len(one.variables))


@pytest.mark.parametrize("name", RUNS)
def test_tree_and_cached_index(name, xtc2_data, tmp_path, tally):
    source = xtc2_data / name
    flat = quietly(xr.open_dataset, source, engine="psana", cache_index=False)
    tree = quietly(xr.open_datatree, source, engine="psana", cache_index=False)
    nodes = {v.attrs["detector"] for v in flat.data_vars.values() if "field" in v.attrs}
    for detector in nodes:
        for field_name, values in tree[detector].to_dataset().data_vars.items():
            np.testing.assert_array_equal(values.values, flat[f"{detector}_{field_name}"].values)
            tally.add(variables=1)
    with psana_dask.set_options(cache_dir=tmp_path):
        for _ in range(2):  # the first writes the cache, the second reads it
            cached = quietly(xr.open_dataset, source, engine="psana")
            xr.testing.assert_identical(cached.load(), flat.load())
            psana_dask.recording._opened.clear()
    assert list((tmp_path / "index").iterdir())
    tally.same(sorted(nodes), sorted(d for d in tree if d not in ("events", "epics") and tree[d].data_vars))
