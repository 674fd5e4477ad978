"""The dump shows every datagram of the facility's files, and finds no fault in intact ones."""

from psana_dask.dump import datagrams
from psana_dask.readers import xtc
from psana_dask.sources import FileSource

CORRUPT = {"e999-r0003-s00-c00.xtc", "e999-r0004-s00-c00.xtc", "e999-r0006-s00-c00.xtc"}

WITHOUT_NAMES = {"data-r0001-s000-c001.xtc2"}
"""A part whose first part bears the name of another experiment: alone it cannot be decoded."""


def shown(path, tally):
    """Datagrams of a file; counts what they hold."""
    items = list(datagrams(path))
    blocks = [c for item in items for c in item.get("containers", ())]
    faults = [i for i in items if "service" not in i] + [c for c in blocks if "problem" in c]
    tally.add(files=1, containers=len(blocks), decoded=sum("values" in c for c in blocks), faults=len(faults))
    return [i for i in items if "service" in i], faults


def test_xtc(conformance, tally):
    for path in sorted((conformance / "xtc1").rglob("*.xtc")):
        items, faults = shown(path, tally)
        found = xtc.scan(FileSource(str(path))).dgrams["offset"].tolist()
        tally.same([i["offset"] for i in items], found, path.name)
        tally.same(bool(faults), path.name in CORRUPT, path.name, "faults")


def test_xtc2(conformance, tally):
    for path in sorted((conformance / "xtc2").rglob("*.xtc2")):
        items, faults = shown(path, tally)
        ends = [i["offset"] + i["size"] for i in items]
        tally.same([0, *ends[:-1]], [i["offset"] for i in items], path.name)
        if path.name in WITHOUT_NAMES:
            tally.same({f["problem"][:31] for f in faults}, {"no Configure declares the names"}, path.name)
        else:
            left = path.stat().st_size - ends[-1]
            tally.same(len(faults), int(left > 0), path.name, "faults", faults[:3])
