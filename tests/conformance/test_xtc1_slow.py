"""EPICS, steps, event codes and settings of the LCLS-1 runs, by the public face.

The expected values follow from the oracle alone: its datagrams, in the order in which psana merges them.
"""

import gzip
import hashlib
import json
import re

import numpy as np
import pytest

import psana_dask
from psana_dask.errors import NameNotFound
from psana_dask.readers.tables import is_config, record_for
from psana_dask.readers.tables.signals import EPICS_EPOCH
from psana_dask.readers.xtc_layout import source_name

pytestmark = pytest.mark.filterwarnings(
    "ignore::psana_dask.errors.PartialRunWarning"
)  # r3, r4, r6 are corrupt

RUNS = {1: "e999", 2: "cxitst17", 3: "e999", 4: "e999", 5: "e999", 6: "e999", 100: "e999"}
ENUM, NOT_AN_ARRAY = "u16", 0xFFFFFFFF
DTYPES = {"u8": "u1", "i16": "<i2", "u16": "<u2", "i32": "<i4", "f32": "<f4", "f64": "<f8"}


class Oracle:
    """The datagrams of a run as the facility read them, in the order of merging."""

    def __init__(self, folder, number):
        self.folder, self.stem = folder / "oracle", f"{RUNS[number]}-r{number:04d}"
        self.dgrams = {}
        for path in sorted(self.folder.glob(f"{self.stem}-s*.xtc.jsonl.gz")):
            if ".smd." not in path.name:
                name = path.name.removesuffix(".jsonl.gz")
                for row in load(path):
                    if "error" not in row:
                        self.dgrams[name, row["off"]] = row
        self.groups = list(self._merged())

    def _merged(self):
        path = self.folder / f"{self.stem}.merge.jsonl.gz"
        rows = load(path) if path.exists() else []
        if len(rows) > 2:
            for row in rows:
                yield row["svc"], [self.dgrams[name, off] for name, off in row["dgrams"]]
            return
        first = min(
            (name for name, _ in self.dgrams), default=""
        )  # no merge was made: one stream after the other
        kept = {"L1Accept"}
        rows = [d for (name, _), d in self.dgrams.items() if name == first or d["svc"] in kept]
        for row in sorted(rows, key=lambda d: (d["sec"], d["nsec"])):
            yield row["svc"], [row]

    def events(self):
        """Yield (timestamp, fiducial, step, datagrams) of each event."""
        step = -1
        for service, dgrams in self.groups:
            step += service == "BeginCalibCycle"
            if service == "L1Accept":
                first = dgrams[0]
                yield first["sec"] << 32 | first["nsec"], first["fid"], step, dgrams


def load(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def leaves(dgrams, kind):
    """Yield the undamaged payloads of one type."""
    waiting = [dgram["xtc"] for dgram in reversed(dgrams)]
    while waiting:
        one = waiting.pop()
        waiting += reversed(one.get("xtc", []))
        if one["type"] == kind and one.get("values") is not None and not one["damage"]:
            yield one


@pytest.fixture(scope="module", params=RUNS)
def opened(request, conformance):
    folder = conformance / "xtc1"
    run = psana_dask.open(str(folder / f"{RUNS[request.param]}-r{request.param:04d}-s*.xtc"))
    return run, Oracle(folder, request.param)


def in_order(run, oracle):
    """Return the oracle's events in the order of the run's, and check that they are the same."""
    known = {(stamp, fiducial): (step, dgrams) for stamp, fiducial, step, dgrams in oracle.events()}
    events = run.events
    keys = zip(events.timestamp.values.tolist(), events.fiducial.values.tolist(), strict=True)
    return [known[key] for key in keys]


def test_events_know_their_steps(opened, tally):
    run, oracle = opened
    steps = [step for step, _ in in_order(run, oracle)]
    for i, (ours, theirs) in enumerate(zip(run.events.step.values.tolist(), steps, strict=True)):
        tally.same(ours, theirs, oracle.stem, "event", i)
    tally.same(len(run.events.time), len(steps), "events")


def names_of(oracle):
    """Return the name of each (source, pvId)."""
    found = {}
    for _, dgrams in oracle.groups:
        for leaf in leaves(dgrams, "Epics"):
            if leaf["values"]["isCtrl"]:
                source, number = tuple(leaf["src"]), leaf["values"]["pvId"]
                found.setdefault((source, number), leaf["values"]["pvName"])
    return found


def walked(run, oracle):
    """Yield the values in force at each event of the run, and the updates it brought, by name."""
    names, store = names_of(oracle), {}
    configured = [dgrams for service, dgrams in oracle.groups if service == "Configure"]
    for leaf in (leaf for dgrams in configured for leaf in leaves(dgrams, "Epics")):
        store[names[tuple(leaf["src"]), leaf["values"]["pvId"]]] = leaf["values"]
    for _, dgrams in in_order(run, oracle):
        fresh = {}
        for leaf in leaves(dgrams, "Epics"):
            name, values = names[tuple(leaf["src"]), leaf["values"]["pvId"]], leaf["values"]
            if values["isTime"] and stamp_of(values) >= stamp_of(fresh.get(name)):
                fresh[name] = values
        store |= fresh
        yield dict(store), fresh


def stamp_of(values):
    return (values["stamp"]["sec"] + EPICS_EPOCH) * 10**9 + values["stamp"]["nsec"] if values else -1


def test_epics_values_at_every_event(opened, tally):
    run, oracle = opened
    found = run.epics.at()
    for i, (store, _) in enumerate(walked(run, oracle)):
        tally.same(
            {n for n in run.epics if found[f"{n}_present"].values[i]}, set(store), oracle.stem, "present", i
        )
        for name, values in store.items():
            tally.same(described(found[name].values[i], values["data"]), values["data"], name, i)
    tally.same(set(run.epics), set(names_of(oracle).values()), "names")


def described(value, theirs):
    """Describe a value as the oracle does."""
    if isinstance(theirs, list):
        return [str(one) for one in np.atleast_1d(value)]
    kind = theirs["dtype"]
    array = np.atleast_1d(value).astype(DTYPES[kind])
    assert array.dtype == np.asarray(value).dtype or kind == ENUM
    head = [one if "nan" not in str(one) else "nan" for one in array[: len(theirs["head"])].tolist()]
    return theirs | {
        "shape": list(array.shape),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        "head": theirs["head"] if np.allclose(head, theirs["head"], rtol=1e-15) else head,
    }


def test_epics_updates_with_status_severity_and_stamp(opened, tally):
    run, oracle = opened
    updates = {}
    for time, (_, fresh) in zip(run.events.time.values, walked(run, oracle), strict=True):
        for name, values in fresh.items():
            row = (values["status"], values["severity"], stamp_of(values))
            updates.setdefault(name, []).append((time.astype(int), *row))
    for name in run.epics:
        series = run.epics[name]
        series = series.isel(time=np.flatnonzero(~np.isnat(series.stamp.values)))
        columns = (series.time, series.status, series.severity, series.stamp)
        rows = list(zip(*(column.values.astype(np.int64).tolist() for column in columns), strict=True))
        tally.same(rows, updates.get(name, []), oracle.stem, name)
    tally.same(set(updates) <= set(run.epics), True, "names")


def test_epics_descriptions(opened, tally):
    run, oracle = opened
    names = names_of(oracle)
    configured = [dgrams for service, dgrams in oracle.groups if service == "Configure"]
    for leaf in (leaf for dgrams in configured for leaf in leaves(dgrams, "EpicsConfig")):
        for entry in leaf["values"]["getPvConfig"]:
            name = names.get((tuple(leaf["src"]), entry["pvId"]))
            if name is not None:
                tally.same(run.epics[entry["description"]].name, name, entry["description"])
                tally.same(run.epics[name].attrs["description"], entry["description"], name)
    tally.same(len(run.epics), len(set(names.values())), "number")


def test_steps_say_what_the_run_control_set(opened, tally):
    run, oracle = opened
    begun = [dgrams for service, dgrams in oracle.groups if service == "BeginCalibCycle"]
    tally.same(len(run.steps), len(begun), oracle.stem, "steps")
    for step, dgrams in enumerate(begun):
        row = run.steps.iloc[step]
        first = dgrams[0]
        start = np.datetime64(first["sec"] * 10**9 + first["nsec"], "ns")
        tally.same(row.start.to_datetime64(), start, step, "start")
        for leaf in [*leaves(dgrams, "RunControlConfig")][:1]:
            said = leaf["values"]
            for one in said["pvControls"]:
                tally.same(row[element(one)], one["value"], step, one["name"])
            for one in said["pvMonitors"]:
                limits = row[f"{element(one)}_low"], row[f"{element(one)}_high"]
                tally.same(limits, (one["loValue"], one["hiValue"]), step, one["name"])
            for one in said.get("pvLabels", []):
                tally.same(row[one["name"]], one["value"], step, one["name"])


def element(one):
    return one["name"] if one["index"] == NOT_AN_ARRAY else f"{one['name']}[{one['index']}]"


def codes_of(dgrams):
    said = [[e["eventCode"] for e in leaf["values"]["fifoEvents"]] for leaf in leaves(dgrams, "EvrData")]
    return (sorted({code for codes in said for code in codes if code < 256}), bool(said))


def test_event_codes(opened, tally):
    run, oracle = opened
    expected = [codes_of(dgrams) for _, dgrams in in_order(run, oracle)]
    if not expected:  # nothing behind Configure can be read of run 6
        with pytest.raises(NameNotFound, match="no event codes"):
            _ = run.evr.codes
        tally.same(len(run), 0, "events")
        return
    flags = run.evr.codes.values
    tally.same(len(flags), len(expected), "events")
    for i, (codes, _) in enumerate(expected):
        tally.same(np.flatnonzero(flags[i]).tolist(), codes, oracle.stem, "event", i)
    for code in {code for codes, _ in expected for code in codes} | {1}:
        fits = [code in codes for codes, _ in expected]
        without = [told and code not in codes for codes, told in expected]
        tally.same(run._view.choice.numbers[mask_of(run, run.evr.has(code))].tolist(), indices(fits), code)
        tally.same(
            run._view.choice.numbers[mask_of(run, run.evr.has(-code))].tolist(), indices(without), -code
        )


def mask_of(run, condition):
    return condition.mask(run._view)


def indices(flags):
    return np.flatnonzero(flags).tolist()


def test_settings_are_those_of_the_configure(opened, tally):
    run, oracle = opened
    configured = [dgrams for service, dgrams in oracle.groups if service == "Configure"]
    known = {entry.source: name for name, entry in run._view.entries.items()}
    for dgram in (dgram for dgrams in configured for dgram in dgrams):
        waiting = [dgram["xtc"]]
        while waiting:
            one = waiting.pop()
            waiting += one.get("xtc", [])
            detector = known.get(source_name(*one["src"]))
            if detector and one.get("values") and is_config(one["typeval"] & 0xFFFF):
                compare_settings(tally, run.config(detector, run.start if len(run) else None), one, detector)
    tally.add(detectors=len(known))
    tally.same(len(run.detectors), len(known), "detectors")


def compare_settings(tally, config, leaf, detector):
    """Compare the numbers and texts of one record, found at the top or under the name of its type."""
    record = record_for(leaf["typeval"] & 0xFFFF, leaf["typeval"] >> 16 & 0x7FFF)
    plain = {a: v for a, v in leaf["values"].items() if isinstance(v, int | str) and a in record.accessors}
    numbers = {a: v for a, v in plain.items() if v != "nan"}
    (segment,) = config.segments.values()
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", leaf["type"]).lower()
    found = segment[kind] if kind in dict(segment._values) else segment
    for accessor, value in numbers.items():
        tally.same(found[record.accessors[accessor]], value, detector, leaf["type"], accessor)


@pytest.mark.parametrize("number", [1, 2])
def test_random_access_equals_reading_in_order(conformance, number, tally):
    folder = conformance / "xtc1"
    run = psana_dask.open(str(folder / f"{RUNS[number]}-r{number:04d}-s*.xtc"))
    oracle = Oracle(folder, number)
    steps = [step for step, _ in in_order(run, oracle)]
    stores = [store for store, _ in walked(run, oracle)]
    stamps, fiducials = run.events.timestamp.values.tolist(), run.events.fiducial.values.tolist()
    for i in np.random.default_rng(number).permutation(len(run)).tolist():
        for key in ((stamps[i] >> 32, stamps[i] & 0xFFFFFFFF, fiducials[i]), run.events.time.values[i]):
            event = run.sel(key)
            tally.same(event.events.step.values.tolist(), [steps[i]], "step", i)
            slow = event.epics.at()
            for name, values in stores[i].items():
                tally.same(described(slow[name].values[0], values["data"]), values["data"], name, i)
    for i in np.random.default_rng(number).permutation(len(run))[:3].tolist():
        event = run.event((stamps[i] >> 32, stamps[i] & 0xFFFFFFFF, fiducials[i]))
        tally.same((int(event.step), int(event.fiducial)), (steps[i], fiducials[i]), "event", i)
