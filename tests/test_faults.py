"""Files that were cut anywhere, and bytes that were changed anywhere: the rest of the run stays.

Every case gives a run or a clear error of this package, in bounded time and memory, and no
event that lies wholly before the fault is lost or changed.  A seeded tenth of the cases runs
by default, all of them with ``--full``.
"""

import re
import shutil
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import PsanaError, PsanaWarning
from psana_dask.model import Service
from psana_dask.readers import xtc
from psana_dask.readers.xtc2_scanner import Scanner
from psana_dask.simulate import (
    PV,
    Algorithm,
    Choice,
    Config,
    Daq,
    Detector,
    Enum,
    Epics,
    Field,
    RunSpec,
    Scan,
)
from psana_dask.sources import POOL, FileSource, MemorySource

CUTS, FLIPS = 2_000, 10_000
SEED = 20_240_614
MEGABYTES = 200
SECONDS = 20.0
"""A case takes some hundredths of a second; the machine may be busy, but this is a hang."""

STATE = Enum("stateEnum", {"OFF": 0, "ON": 1})
SETTINGS = Config(
    values={"gain": 3.5, "mode": Choice(STATE, 1), "expert.word": "abc"},
    begin_step=lambda step: {"gain": 1.0 * step},
)
MIXED = Algorithm(
    fields=(
        Field("level", "f8"),
        Field("word", "str", value=lambda m: f"event {m.event}"),
        Field("state", "enum", value=lambda m: m.event % 2, enum=STATE),
        Field("var", "f4", (None, 3)),
    )
)
SPEC = RunSpec(
    events=30,
    steps=3,
    slow_every=5,
    slow_offset=2,
    detectors=(
        Detector(name="timing", kind="timing"),
        Detector(name="cam", kind="camera", segments=2, shape=(8, 12), config=SETTINGS),
        Detector(name="mixed", kind="camera", algorithms=(MIXED,), every=3),
    ),
    epics=(Epics(pvs=(PV("T", lambda m: 1.5 * m.event), PV("s", lambda m: f"n{m.event}", "str"))),),
    scan=Scan(motors={"x": np.float32([1, 2, 3])}),
)


LCLS1 = RunSpec(
    format="xtc",
    events=30,
    steps=3,
    slow_every=5,
    slow_offset=2,
    smalldata=None,
    daq=Daq(streams=1, index=False),
    detectors=(
        Detector(name="evr0", kind="timing"),
        Detector(name="ebeam", kind="ebeam"),
        Detector(name="cam", kind="camera", shape=(8, 12)),
        Detector(name="acq", kind="waveform", shape=(2, 1, 20), every=3),
    ),
    epics=(Epics(pvs=(PV("T", lambda m: 1.5 * m.event, address="TST:T"),)),),
    scan=Scan(motors={"x": np.float64([1, 2, 3])}),
)

OTHERS = {
    "old header": {"old_header": True},
    "tiny times": {"timestamps": tuple(range(30))},
    "nested, data first": {"nested": True, "data_first": True, "shapes_tail": 4},
}
"""The same run in other clothes: these get a tenth of the cases."""

CHECKED = {
    "xtc2": (("timing", "pulseId", 0), ("cam", "raw", 1), ("mixed", "level", 0)),
    "xtc": (("ebeam", "photon_energy", 0), ("cam", "raw", 0), ("acq", "raw", 0)),
}
"""Detector, field and segment that are compared with what was simulated."""


@dataclass(frozen=True)
class Case:
    """What came of one file: an error, or a run with its events."""

    error: PsanaError | None = None
    timestamps: tuple[int, ...] = ()
    dataset: object = None
    problems: int = 0


def looked_at(path: Path) -> Case:
    """Open a file and look at everything in it, as a user would."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PsanaWarning)
            run = psana_dask.open(path, cache=False)
            dataset = run.dataset(chunks=None).load()
            repr(run), run.steps, run.epics.at(), run.search("a")
            for name in run.detectors:
                repr(run.config(name))
            return Case(None, tuple(run.events.timestamp.values.tolist()), dataset, len(run.problems))
    except PsanaError as error:
        return Case(error)


def pieces(dataset, name):
    """Return the values of a variable event by event, as bytes, whether ragged or not."""
    variable = dataset[name]
    counts = f"{name}_count"
    if counts in dataset:
        ends = np.cumsum(dataset[counts].values.reshape(dataset.sizes["time"], -1).sum(axis=1))
        return [piece.tobytes() for piece in np.split(variable.values, ends[:-1])]
    if variable.dtype.kind == "U":
        return [repr(value) for value in variable.values.tolist()]
    return [value.tobytes() for value in variable.values]


class Reference:
    """The whole run: what each event holds."""

    def __init__(self, truth):
        (self.path,) = truth.files
        self.content = self.path.read_bytes()
        self.dgrams = truth.datagrams[0]
        case = looked_at(self.path)
        assert case.error is None
        assert case.problems == 0
        self.dataset, self.timestamps = case.dataset, np.array(case.timestamps)
        fields = [n for n, v in self.dataset.data_vars.items() if "field" in v.attrs]
        self.names = [n for n in fields if not n.endswith("_count")]
        self.pieces = {name: pieces(self.dataset, name) for name in self.names}
        self.present = {name: self.dataset[self._presence(name)].values for name in self.names}
        ends = self.dgrams["offset"].astype(int) + self.dgrams["size"].astype(int)
        events = self.dgrams["service"] == Service.L1_ACCEPT
        stamps = self.dgrams["timestamp"][events].tolist()
        self.ends = dict(zip(stamps, ends[events].tolist(), strict=True))
        self.sizes = dict(zip(stamps, self.dgrams["size"][events].tolist(), strict=True))
        self.configured = int(ends[0])

    def _presence(self, name):
        detector = self.dataset[name].attrs["detector"]
        return f"{detector}_present"

    def before(self, offset):
        """Return the time stamps of the events that lie wholly before a byte."""
        return [stamp for stamp, end in self.ends.items() if end <= offset]

    def unlike(self, case, stamps):
        """Return the time stamps, of those given, whose event is lost or changed."""
        place = {stamp: k for k, stamp in enumerate(case.timestamps)}
        lost = {stamp for stamp in stamps if stamp not in place}
        own = {stamp: k for k, stamp in enumerate(self.timestamps.tolist())}
        for name in self.names:
            there = [s for s in stamps if s not in lost and self.present[name][own[s]]]
            if there and name not in case.dataset:
                lost.update(there)
            elif there:
                got = pieces(case.dataset, name)
                lost.update(s for s in there if got[place[s]] != self.pieces[name][own[s]])
        return sorted(lost)


@pytest.fixture(scope="module", params=["new header", *OTHERS, "LCLS-1"])
def reference(request, tmp_path_factory):
    spec = LCLS1 if request.param == "LCLS-1" else replace(SPEC, **OTHERS.get(request.param, {}))
    truth = simulate.write(spec, tmp_path_factory.mktemp("faults"))
    found = Reference(truth)
    found.title, found.share = request.param, 0.1 if request.param in {*OTHERS, "LCLS-1"} else 1
    assert len(found.content) <= 64 * 1024
    assert len(found.timestamps) == SPEC.events
    for name, field, segment in CHECKED[spec.format]:
        in_file = "image" if field == "raw" and spec.format == "xtc2" else field
        for k, event in enumerate(truth.order):
            want = truth.value(name, in_file, int(event), segment)
            got = found.dataset[f"{name}_{field}"].values[k]
            if want is not None:
                np.testing.assert_array_equal(got[1] if segment else got, want)
    return found


# ---- bounds ---------------------------------------------------------------------------------------
class Watch:
    """Peak memory since the start, and the longest case."""

    def __init__(self):
        self.longest = 0.0
        self._start = self._resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here

    def _resident(self, kind):
        return int(re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

    def run(self, path):
        begin = time.perf_counter()
        case = looked_at(path)
        self.longest = max(self.longest, time.perf_counter() - begin)
        return case

    @property
    def megabytes(self):
        """Peak of the resident memory above the start."""
        return self._resident("VmHWM") - self._start


@pytest.fixture
def watch():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is measured through /proc")
    return Watch()


def cases(count, reference, full, seed):
    """Return the numbers of the cases to run: all, or a seeded tenth."""
    wanted = round(count * reference.share * (1 if full else 0.1))
    chosen = np.random.default_rng(seed).choice(count, wanted, replace=False)
    return np.sort(chosen)


def try_content(path, content, watch):
    path.write_bytes(content)
    try:
        return watch.run(path)
    finally:
        POOL.forget(str(path))
        path.unlink()


# ---- cuts -----------------------------------------------------------------------------------------
@pytest.mark.timeout(1800)
def test_every_prefix(reference, watch, full, figures, tmp_path):
    offsets = np.linspace(0, len(reference.content) - 1, CUTS).astype(int)
    runs = errors = delivered = 0
    for number in cases(CUTS, reference, full, SEED).tolist():
        cut = int(offsets[number])
        case = try_content(tmp_path / f"cut{number}.xtc2", reference.content[:cut], watch)
        before = reference.before(cut)
        if case.error is not None:
            assert cut < reference.configured, (cut, case.error)
            assert str(tmp_path) in str(case.error), cut
            errors += 1
            continue
        assert list(case.timestamps) == before, cut
        assert reference.unlike(case, before) == [], cut
        whole = cut in {int(r["offset"]) for r in reference.dgrams}
        assert (case.problems > 0) != whole, cut
        runs, delivered = runs + 1, delivered + len(before)
    counts = {"runs": runs, "clear_errors": errors, "events_compared": delivered}
    finish(f"prefixes ({reference.title})", watch, figures, **counts)
    assert runs > 0
    assert errors > 0


def finish(title, watch, figures, **counts):
    numbers = {"cases": counts["runs"] + counts["clear_errors"], **counts}
    bounds = {"MB_above_the_start": round(watch.megabytes), "ms_longest": round(1e3 * watch.longest)}
    figures(title, **numbers, **bounds)
    assert watch.megabytes < MEGABYTES
    assert watch.longest < SECONDS


# ---- changed bytes --------------------------------------------------------------------------------
def flips(count):
    """Return place (0 to 1), mask and whether it is in a header of every case."""
    rng = np.random.default_rng(SEED)
    return rng.random(count), rng.integers(1, 256, count), rng.random(count) < 0.5


def changed_place(reference, share, in_header):
    """Return the byte that a case changes: anywhere, or in the first bytes of a datagram."""
    if not in_header:
        return int(share * len(reference.content))
    number = int(share * len(reference.dgrams))
    within = int((share * len(reference.dgrams) - number) * 48)  # its header and the first container's
    return min(int(reference.dgrams["offset"][number]) + within, len(reference.content) - 1)


@pytest.mark.timeout(3600)
def test_changed_bytes(reference, watch, full, figures, tmp_path):
    shares, masks, headers = flips(FLIPS)
    counts = dict.fromkeys(("runs", "clear_errors", "events_compared"), 0)
    for number in cases(FLIPS, reference, full, SEED + 1).tolist():
        place = changed_place(reference, shares[number], headers[number])
        content = bytearray(reference.content)
        content[place] ^= int(masks[number])
        case = try_content(tmp_path / f"flip{number}.xtc2", bytes(content), watch)
        what = f"byte {place} ^ {masks[number]:#x}"
        if case.error is not None:
            # without its Configure no file can be read
            assert place < reference.configured, (what, case.error)
            counts["clear_errors"] += 1
            continue
        counts["runs"] += 1
        if place >= reference.configured:  # every event but the one that was hit, before and after
            whole = [stamp for stamp in reference.ends if not hit(reference, stamp, place)]
            # tiny time stamps: the one that was hit may now have the time of another one
            whole = [stamp for stamp in whole if case.timestamps.count(stamp) < 2]
            assert reference.unlike(case, whole) == [], what
            counts["events_compared"] += len(whole)
    finish(f"changed bytes ({reference.title})", watch, figures, **counts)
    assert counts["events_compared"] > 1000


def hit(reference, stamp, place):
    """Tell whether the byte lies in the datagram of an event."""
    end = reference.ends[stamp]
    return end - reference.sizes[stamp] <= place < end


def scanned(source):
    """Return all that a scan finds, as far as it does not name the source."""
    if xtc.recognise(source):
        block = xtc.scan(source)
        problems = [(p.offset, p.what) for p in block.problems]
        return block.next, block.dgrams.tobytes(), block.leaves.tobytes(), problems
    scanner = Scanner()
    end = scanner.scan(source, 0)
    columns = scanner.columns() if scanner.has_rows() else {}
    columns = {name: column.tobytes() for name, column in columns.items()}
    return end, columns, scanner.configs, [(p.offset, p.what) for p in scanner.problems]


def test_memory_and_systems_without_preadv_give_the_same(reference, full, monkeypatch, tmp_path):
    """The scan that is handed its bytes finds what the one that reads the file itself finds."""
    shares, masks, headers = flips(FLIPS)
    for number in cases(FLIPS // 10, reference, full, SEED + 2).tolist():
        content = bytearray(reference.content[: len(reference.content) - number % 50])
        place = changed_place(reference, shares[number], headers[number])
        content[min(place, len(content) - 1)] ^= int(masks[number])
        path = tmp_path / f"same{number}.xtc2"
        path.write_bytes(content)
        by_itself = scanned(FileSource(str(path)))
        assert scanned(MemorySource(bytes(content))) == by_itself, number
        with monkeypatch.context() as without:
            without.setattr("psana_dask.sources.PREAD", None)
            assert scanned(FileSource(str(path))) == by_itself, number
        POOL.forget(str(path))
        path.unlink()


def test_pixels_are_not_taken_for_datagrams(tmp_path, full, figures):
    """Zeros, small numbers and time stamps near zero look most like headers: none may come of them."""
    pixels = Field("raw", "u4", (20, 20), lambda m: np.arange(400).reshape(20, 20) % 7 // 6 * (40 + m.event))
    camera = Detector(name="cam", kind="camera", algorithms=(Algorithm(fields=(pixels,)),))
    spec = RunSpec(events=30, timestamps=range(30), detectors=(SPEC.detectors[0], camera))
    truth = simulate.write(spec, tmp_path)
    content, rows = truth.files[0].read_bytes(), truth.datagrams[0]
    starts, ends = rows["offset"].tolist(), (rows["offset"] + rows["size"]).tolist()
    rng = np.random.default_rng(SEED)
    count = 10_000 if full else 1_000
    for number, place in enumerate(rng.integers(ends[0], len(content), count).tolist()):
        changed = bytearray(content[:place] if number % 2 else content)
        hit = starts[np.searchsorted(starts, place, "right") - 1]
        if number % 2 == 0:
            changed[place] ^= int(rng.integers(1, 256))
        scanner = Scanner()
        scanner.scan(MemorySource(bytes(changed)), 0)
        whole = [s for s, end in zip(starts, ends, strict=True) if end <= len(changed) and s != hit]
        found = scanner.columns()["offset"].tolist()
        assert [s for s in found if s != hit] == whole, (number, place)
    figures("scans of files like headers", cases=count)


# ---- one stream of several ------------------------------------------------------------------------
def test_a_damaged_stream_leaves_the_others_alone(tmp_path, full, figures):
    """Bytes of one stream change; the events and values of the other one are all there."""
    spec = RunSpec(
        events=20,
        detectors=(Detector(name="timing", kind="timing"), Detector(name="gmd", kind="gmd", stream=1)),
        smalldata="offline",
    )
    truth = simulate.write(spec, tmp_path / "whole")
    good, bad = (truth.streams[k][0].read_bytes() for k in (0, 1))
    smd = [truth.smd_files[k].read_bytes() for k in (0, 1)]
    rng = np.random.default_rng(SEED)
    count = 1000 if full else 100
    for number, place in enumerate(rng.integers(0, len(bad) + len(smd[1]), count).tolist()):
        folder = tmp_path / f"run{number}"
        (folder / "smalldata").mkdir(parents=True)
        pieces = [bytearray(bad), bytearray(smd[1])]
        pieces[place >= len(bad)][place - len(bad) * (place >= len(bad))] ^= int(rng.integers(1, 256))
        for name, content in zip(
            (truth.streams[0][0], truth.streams[1][0], truth.smd_files[0], truth.smd_files[1]),
            (good, pieces[0], smd[0], pieces[1]),
            strict=True,
        ):
            (folder / name.relative_to(tmp_path / "whole")).write_bytes(content)
        case = looked_at(folder)
        assert case.error is None, (place, case.error)
        own = np.isin(np.array(case.timestamps, np.uint64), truth.timestamps)
        np.testing.assert_array_equal(case.dataset.timing_pulseId.values[own], truth.pulse_ids)
        np.testing.assert_array_equal(case.dataset.timing_present.values, own)
        if place >= len(bad):  # the small-data file must not matter
            np.testing.assert_array_equal(case.dataset.gmd_present.values, True)
        shutil.rmtree(folder)
    figures("changed bytes in one stream of two", cases=count)
