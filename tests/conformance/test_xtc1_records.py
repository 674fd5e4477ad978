"""Every datagram, container and accessor value of the LCLS-1 oracle files, and of their index files."""

import gzip
import hashlib
import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from psana_dask.errors import FormatError
from psana_dask.readers import xtc, xtc2
from psana_dask.readers.compression import decompress
from psana_dask.readers.record_blocks import Batch, batches
from psana_dask.readers.record_writing import encode
from psana_dask.readers.records import View
from psana_dask.readers.tables import RECORDS, is_config, is_known, record_for, type_name
from psana_dask.readers.tables.panels import is_imager, panel_table, panels_of
from psana_dask.readers.xtc_config import Configuration
from psana_dask.readers.xtc_layout import COMPRESSED, Level, TransitionId, daq_source_name, source_key
from psana_dask.readers.xtc_values import Ragged, read_value, values_of
from psana_dask.sources import FileSource, MemorySource

DATA = Path(os.environ.get("PSANA_DASK_CONFORMANCE", Path(__file__).parents[3] / "shared/data")) / "xtc1"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"oracle data are not at {DATA}")

ORACLES = sorted((DATA / "oracle").glob("*.xtc.jsonl.gz")) if DATA.exists() else []
TYPES = {"u1": "u8", "i1": "i8", "u2": "u16", "i2": "i16", "u4": "u32", "i4": "i32", "u8": "u64", "i8": "i64",
         "f4": "f32", "f8": "f64"}  # fmt: skip
# values that psana does not have
OURS = {
    "Camera.FrameV1": {"pixels", "pixelBytes"},
    **{f"OceanOptics.DataV{i}": {"frameDuration"} for i in (1, 2, 3)},
}


class Tally:
    """Counts comparisons and keeps the differences."""

    def __init__(self):
        self.counts, self.differences, self.titles = Counter(), [], set()
        self.payloads = {}  # every distinct one, by (record, configuration)

    def same(self, kind, where, ours, theirs):
        self.counts[kind] += 1
        both_nan = isinstance(ours, float) and ours != ours and theirs == "nan"
        if ours != theirs and not both_nan:
            self.differences.append(f"{where} {kind}: {ours!r} is not {theirs!r}")


def path_of(oracle):
    name = oracle.name.removesuffix(".jsonl.gz")
    return DATA / ("smalldata" if ".smd." in name else ".") / name


def stream_of(path):
    return path.name.split("-c")[0] + path.suffixes[0]


@pytest.fixture(scope="module")
def tally():
    """Compare all files once: parts of a stream in order, since only the first has the configuration."""
    tally, configs = Tally(), {}
    for oracle in ORACLES:
        path = path_of(oracle)
        stream = stream_of(path)
        configs[stream] = compare_file(tally, path, oracle, configs.get(stream, Configuration()))
    return tally


def compare_file(tally, path, oracle, configuration):
    """Compare one file; return the configuration at its end."""
    data = np.fromfile(path, np.uint8)
    block = xtc.scan(FileSource(str(path)), containers=True)
    rows = [json.loads(line) for line in gzip.decompress(oracle.read_bytes()).splitlines()]
    good = [row for row in rows if "error" not in row]
    for row, dgram, first in zip(good, block.dgrams, range(len(good)), strict=False):
        compare_header(tally, f"{path.name}@{row['off']}", row, dgram)
        nodes = list(flat(row["xtc"]))
        leaves = block.leaves_of(first)
        if dgram["service"] in (TransitionId.CONFIGURE, TransitionId.BEGIN_CALIB_CYCLE):
            start, stop = int(dgram["offset"]), int(dgram["offset"]) + int(dgram["size"])
            inner = leaves[leaves["contains"] & 0xFFFF != 1]
            configuration = configuration.with_dgram(data[start:stop], inner)
            tally.same("problem", path.name, configuration.problems, ())
        tally.same("containers", f"{path.name}@{row['off']}", len(leaves), len(nodes))
        for node, leaf in zip(nodes, leaves, strict=False):
            compare_leaf(tally, f"{path.name}@{node['off']}", node, leaf, dgram, data, configuration)
    for row in rows:
        problems = {problem.offset for problem in block.problems}
        for bad in [row["off"]] if "error" in row else corrupt(row["xtc"]):
            tally.same("problem", path.name, bad in problems, True)
    # after a corrupt extent psana stops; what we find behind it is checked in test_corrupt_runs
    tally.same("datagrams", path.name, len(block.dgrams) >= len(good), True)
    return configuration


def flat(node):
    yield node
    for child in node.get("xtc", []):
        yield from flat(child)


def corrupt(node):
    found = [node["corrupt_child_at"]] if "corrupt_child_at" in node else []
    return found + [at for child in node.get("xtc", []) for at in corrupt(child)]


def compare_header(tally, where, row, dgram):
    ticks, fiducial, timestamp = int(dgram["ticks"]), int(dgram["fiducial"]), int(dgram["timestamp"])
    ours = {
        "off": int(dgram["offset"]), "size": int(dgram["size"]), "svcnum": int(dgram["service"]),
        "svc": TransitionId(int(dgram["service"])).name.replace("_", "").lower(), "seqtype": ticks >> 28 & 3,
        "extended": ticks >> 31, "sec": timestamp >> 32, "nsec": timestamp & 0xFFFFFFFF,
        "ticks": ticks & 0xFFFFFF, "fid": fiducial & 0x1FFFF, "control": ticks >> 24,
        "vector": fiducial >> 17, "env": int(dgram["env"]),
    }  # fmt: skip
    for key, value in ours.items():
        tally.same("header value", f"{where}.{key}", value, row[key].lower() if key == "svc" else row[key])
    if "l1env" in row:
        env = int(dgram["env"])
        ours = {"groups": env & 0xFF, "l3t": env >> 8 & 3, "trimmed": env >> 31, "unbiased": ~env >> 30 & 1}
        for key, value in ours.items():
            tally.same("header value", f"{where}.{key}", value, row["l1env"][key])


def compare_leaf(tally, where, node, leaf, dgram, data, configuration):
    log, phy, contains = int(leaf["log"]), int(leaf["phy"]), int(leaf["contains"])
    type_id, version = contains & 0xFFFF, contains >> 16 & 0x7FFF
    ours = {
        "off": int(dgram["offset"]) + int(leaf["at"]), "depth": int(leaf["depth"]),
        "src": [log, phy],
        "srcname": daq_source_name(log, phy), "level": Level(log >> 24).name.capitalize(),
        "typeval": contains,
        "type": type_name(type_id), "version": version, "compressed": contains >> 31,
        "damage": int(leaf["damage"]), "extent": int(leaf["extent"]),
    }  # fmt: skip
    for key, value in ours.items():
        tally.same("leaf value", f"{where}.{key}", value, node[key])
    if "class" not in node:
        return
    start = int(dgram["offset"]) + int(leaf["at"]) + 20
    payload = data[start : start + int(leaf["extent"]) - 20]
    tally.same("payload", where, hashlib.sha256(payload).hexdigest(), node["payload_sha256"])
    if contains & COMPRESSED:
        payload = decompress(payload)
        tally.same("payload", where, len(payload) + 20, node["uncompressed_extent"])
    record = record_for(type_id, version, payload)
    cfg = configuration.config_for(record, source_key(log, phy))
    compare_payload(tally, where, node, record.view(payload, cfg=cfg))


def compare_payload(tally, where, node, view):
    record, cfg, payload = view.record, view.cfg, view.buffer
    where = f"{where} {record.title}"
    tally.titles.add(record.title)
    tally.same("class", where, record.title, node["class"])
    if "cfgclass" in node:
        tally.same("configuration", where, cfg and cfg.record.title, node["cfgclass"])
    if node["_sizeof"] not in {-1, 0xFFFFFFFF}:
        tally.same("size", where, view.nbytes, node["_sizeof"])
    compare_values(tally, where, view, node["values"])
    tally.payloads.setdefault((record, cfg), {})[payload.tobytes()] = view


def compare_values(tally, where, view, values):
    ours = set(view.record.accessors) - OURS.get(view.record.title, set())
    extra = {key for key in values if key.endswith("_iq") or (key == "channels" and key not in ours)}
    tally.same("accessors", where, ours, set(values) - extra)
    for key, value in values.items():
        if key in extra:
            compare(tally, f"{where}.{key}", indexed(view, key), value)
        elif key in ours:
            compare(tally, f"{where}.{key}", view[key], value)


def indexed(view, key):
    """The values of accessors with an argument, for each of its values."""
    if key == "channels":
        count = view.cfg.n_channels
        names = {0: "data_u8", 1: "data_u16", 2: "data_u32", 3: "data_f32", 4: "data_f64"}
        return [view[names[int(view.cfg.sample_type[i])]](i) for i in range(count)]
    return [view[key.removesuffix("_iq")](i) for i in range(4)]


def compare(tally, where, ours, theirs):
    if isinstance(theirs, dict) and "sha256" in theirs:
        compare_array(tally, where, ours, theirs)
    elif isinstance(theirs, dict):
        compare_values(tally, where, ours, theirs)
    elif isinstance(theirs, list):
        compare_list(tally, where, ours, theirs)
    else:
        tally.same("value", where, ours, theirs)


def compare_list(tally, where, ours, theirs):
    if isinstance(ours, View):
        names = ("seconds", "nanoseconds") if "seconds" in ours.record.lookup else ("log", "phy")
        ours = [ours[name] for name in names]
    tally.same("length", where, len(ours), len(theirs))
    for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        compare(tally, f"{where}[{i}]", a, b)


def compare_array(tally, where, ours, theirs):
    tally.same("shape", where, list(ours.shape), theirs["shape"])
    tally.same("dtype", where, TYPES[ours.dtype.str[1:]], theirs["dtype"])
    tally.same("array", where, hashlib.sha256(np.ascontiguousarray(ours)).hexdigest(), theirs["sha256"])
    if ours.dtype.kind in "iu":
        tally.same("sum", where, int(ours.sum(dtype=object)) if ours.size else 0, theirs["sum"])


def test_no_difference(tally):
    print("\n".join(["", *tally.differences[:50]]))
    print(f"\n{len(ORACLES)} files, {sum(tally.counts.values())} comparisons: {dict(tally.counts)}")
    assert "\n".join(tally.differences) == ""


def test_every_type_is_covered(tally):
    titles = {record_for(*key).title for key in RECORDS if key[0] != 13}
    print(f"\n{len(tally.titles)} classes have payloads, without: {sorted(titles - tally.titles)}")
    assert all(is_known(record_for(*key)) for key in RECORDS)
    assert len(titles & tally.titles) >= 181


def same(a, b):
    """Equality of values, NaN equal to NaN."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b or (a != a and b != b)


def test_encode_is_the_reverse_of_decode(tally):
    count = Counter()
    for (record, cfg), views in tally.payloads.items():
        for payload, view in views.items():
            written = encode(record, view.stored(), cfg)
            again = record.view(np.frombuffer(written, np.uint8), cfg=cfg)
            assert again.nbytes == view.nbytes == len(written), record
            assert same(again.values(), view.values()), record
            count["payloads"] += 1
            count["byte by byte equal"] += written == payload[: len(written)]
    print(f"\n{count}")
    # the others have bytes behind the end of a text, or padding, that are no value
    assert count["byte by byte equal"] > 0.8 * count["payloads"]


def test_blocks_of_events_equal_single_ones(tally):
    count = Counter()
    for (record, cfg), views in tally.payloads.items():
        payloads = list(views)
        data = np.frombuffer(b"".join(payloads), np.uint8)
        stops = np.cumsum([len(p) for p in payloads])
        starts = stops - [len(p) for p in payloads]
        seen = []
        for batch in batches(record, data, starts, stops, cfg):
            seen += batch.picked.tolist()
            count["columns"] += compare_columns(batch, batch.picked, list(views.values()))
        assert sorted(seen) == list(range(len(payloads)))
        count["payloads"] += len(payloads)
    print(f"\n{count['columns']} columns of {count['payloads']} payloads")
    assert count["columns"] > 3000


def compare_columns(batch, picked, views):
    """Compare the columns of a batch with the values of single payloads; return how many there are."""
    views = [views[i] for i in picked]
    return sum(compare_column(batch, a, [v[a] for v in views]) for a in vector(batch.record))


def vector(record):
    """Accessors that have columns: formulas of configuration records are for single ones."""
    scalar = {d.accessor for d in record.derived} if record in CONFIGURATIONS else set()
    return [accessor for accessor in record.accessors if accessor not in scalar]


def compare_column(batch, accessor, single):
    column = batch[accessor]
    if isinstance(column, list):  # nested records of different layouts
        places = enumerate(column)
        return sum(compare_columns(c, range(len(single)), [s[k] for s in single]) for k, c in places)
    if isinstance(column, Batch) and column.table.ndim == 1:
        return compare_columns(column, range(len(single)), single)
    if isinstance(column, Batch):
        tables = enumerate(column.table.T)
        places = [(k, Batch(column.record, column.picked, t, column.cfg)) for k, t in tables]
        return sum(compare_columns(p, range(len(single)), [s[k] for s in single]) for k, p in places)
    for row, value in enumerate(single):
        assert same_cell(column[row], value), (batch.record, accessor, column[row], value)
    return 1


def nested_in(record):
    """A record and all that are nested in it."""
    return {record}.union(*(nested_in(f.record) for f in record.fields if f.record))


CONFIGURATIONS = set().union(*(nested_in(record_for(*key)) for key in RECORDS if is_config(key[0])))


def test_flat_values_equal_single_ones(tally):
    count = Counter()
    for (record, cfg), views in tally.payloads.items():
        if record in CONFIGURATIONS or not is_known(record):
            continue
        payloads = list(views)
        data = np.frombuffer(b"".join(payloads), np.uint8)
        stops = np.cumsum([len(p) for p in payloads])
        starts = stops - [len(p) for p in payloads]
        for value in values_of(next(iter(views.values()))):
            try:
                found = read_value(record, value, data, starts, stops, cfg)
            except FormatError:  # frames or quads of several sizes, which no one array holds
                assert record.title in {"Camera.FrameV1", "CsPad.DataV2"}, (record, value)
                count["refused"] += 1
                continue
            single = [at_path(view, value.path) for view in views.values()]
            compare_flat(value, found, single)
            count["values"] += 1
            count["cells"] += len(single)
    print(f"\n{dict(count)}")
    assert count["values"] > 800


def at_path(value, path):
    """The value that a path leads to; a list where it goes through lists of records."""
    for i, accessor in enumerate(path):
        if isinstance(value, list):
            return [at_path(v, path[i:]) for v in value]
        value = value[accessor]
    return value


def compare_flat(value, found, single):
    if isinstance(found, Ragged):
        found = np.split(found.items, np.cumsum(found.counts)[:-1])
    for cell, alone in zip(found, single, strict=True):
        expected = np.array(as_bytes(alone), cell.dtype)
        assert cell.shape == expected.shape or cell.size == expected.size == 0, (value, cell, expected)
        assert cell.tobytes() == expected.tobytes(), (value, cell, expected)


def as_bytes(value):
    """Texts of a value, which may be lists of lists, as bytes."""
    if isinstance(value, list):
        return [as_bytes(v) for v in value]
    return value.encode("latin-1") if isinstance(value, str) else value


def same_cell(cell, value):
    if isinstance(value, str):
        return cell == value.encode("latin-1")
    if isinstance(value, list):
        return [bytes(c) for c in cell] == [v.encode("latin-1") for v in value]
    if isinstance(value, np.ndarray):
        return same(np.ascontiguousarray(cell), np.ascontiguousarray(value))
    return bool(cell == value or (cell != cell and value != value))


def test_panel_tables_equal_single_payloads(tally):
    count = Counter()
    for (record, cfg), views in tally.payloads.items():
        if not is_imager(record.title):
            continue
        by_shape = {}
        for view in views.values():
            by_shape.setdefault(panels_of(view).shape, []).append(view)
        for alike in by_shape.values():
            table = panel_table(record, cfg, len(alike), partial(heads_of, alike))
            for starts, view in zip(table.starts, alike, strict=True):
                assert np.array_equal(starts, panels_of(view).starts)
                count[record.title] += 1
    print(f"\n{dict(count)}")
    assert len(count) == 24


def heads_of(views, offsets, size):
    return np.stack([v.buffer[o : o + size] for v, o in zip(views, offsets, strict=True)])


def test_flipped_bits_of_any_payload_give_values_or_a_format_error(tally):
    rng = np.random.default_rng(20)
    outcome = Counter()
    for (record, cfg), views in tally.payloads.items():
        for payload in list(views)[:3]:
            for _ in range(30):
                data = np.frombuffer(payload[:4096], np.uint8).copy()
                bits = rng.integers(0, 8 * max(1, len(data)), 3)
                data[bits // 8] ^= (1 << (bits % 8)).astype(np.uint8)
                outcome[decodes(record, data, cfg)] += 1
                outcome[decodes(record, np.frombuffer(payload, np.uint8), flipped(cfg, rng))] += 1
    print(f"\n{dict(outcome)}")
    assert outcome["values"] > 1000
    assert outcome["error"] > 1000


def flipped(cfg, rng):
    """The configuration with a few bits changed."""
    if cfg is None:
        return None
    data = np.array(cfg.buffer[cfg.start : cfg.stop])
    head = min(len(data), 200)
    data[rng.integers(0, head, 2)] ^= (1 << rng.integers(0, 8, 2)).astype(np.uint8)
    return cfg.record.view(data)


def decodes(record, data, cfg):
    try:
        with np.errstate(all="ignore"):
            record.view(data, cfg=cfg).values()
    except FormatError:
        return "error"
    return "values"


def test_every_file_is_recognised_and_no_other():
    kinds = Counter()
    for path in sorted(DATA.parent.rglob("*")):
        if path.is_file():
            source = FileSource(str(path))
            assert xtc.recognise(source) == (path.suffix == ".xtc"), path
            assert (xtc2.recognise(source) is not None) == (path.suffix == ".xtc2"), path
            kinds[path.suffix] += 1
    print(f"\n{dict(kinds)}")
    assert kinds[".xtc"] == 27


def test_flipped_bits_of_a_real_file_lose_at_most_one_datagram():
    data = (DATA / "e999-r0001-s81-c00.xtc").read_bytes()
    whole = xtc.scan(MemorySource(data)).dgrams
    rng, lost = np.random.default_rng(81), Counter()
    for bit in rng.choice(8 * len(data), 3000, replace=False).tolist():
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        found = set(xtc.scan(MemorySource(bytes(broken))).dgrams["offset"].tolist())
        victim = whole["offset"][np.searchsorted(whole["offset"], bit // 8, "right") - 1]
        missing = set(whole["offset"].tolist()) - found
        assert missing <= {int(victim)}, bit
        lost[len(missing)] += 1
    print(f"\n{dict(lost)}")


def test_corrupt_runs_lose_only_what_is_corrupt():
    expected = {  # datagrams delivered; bytes where something is wrong
        "e999-r0003-s00-c00.xtc": (13, [133792]),
        "e999-r0004-s00-c00.xtc": (18, [64212, 92096, 119800]),
        "e999-r0006-s00-c00.xtc": (3, [4908]),
    }
    for name, (count, places) in expected.items():
        block = xtc.scan(FileSource(str(DATA / name)))
        assert (len(block.dgrams), [p.offset for p in block.problems]) == (count, places)
        assert all(p.file.endswith(name) for p in block.problems)
    last = xtc.scan(FileSource(str(DATA / "e999-r0006-s00-c00.xtc"))).dgrams[-1]
    assert (last["offset"], last["service"]) == (4948, TransitionId.END_RUN)


def test_tables_agree_with_the_description_of_the_types():
    """Also for the records that no file holds: sizes, places and dimensions of every field."""
    path = DATA.parents[1] / "spec" / "xtc1-types.json"
    if not path.exists():
        pytest.skip(f"no type description at {path}")
    classes = json.loads(path.read_text())["classes"]
    fields = 0
    for record in set().union(*(nested_in(record_for(*key)) for key in RECORDS)):
        if record.title.startswith("Pds."):
            continue
        theirs = classes[record.title]
        assert record.size == theirs.get("size"), record
        ours = {f.offset: f for f in record.fields if f.offset is not None}
        for field in theirs["fields"]:
            if "off" in field:
                assert_same_field(record, ours[field["off"]], field)
                fields += 1
    print(f"\n{fields} fields")


def assert_same_field(record, ours, theirs):
    kind = theirs["type"]
    if isinstance(ours.type, str) and kind != "TypeId":
        assert TYPES.get(ours.type, "char") == kind, (record, ours)
    elif kind.startswith("class:"):
        assert ours.type.title == kind.removeprefix("class:"), (record, ours)
    fixed = [n for n in theirs.get("shape", []) if isinstance(n, int)]
    if record.title != "Camera.FrameV1":
        assert [n for n in ours.shape if isinstance(n, int)] == fixed, (record, ours)
        assert len(ours.shape) == len(theirs.get("shape", [])), (record, ours)
