"""Values of varying length: items in one row, counts beside them."""

import sys

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import MissingLibrary
from psana_dask.simulate import Algorithm, Detector, Field, Missing, RunSpec


def pieces(truth, field, detector="hsd"):
    """The values of each event: those of its segments one after the other."""
    parts = [[truth.value(detector, field, int(e), s) for s in truth.segments(detector)] for e in truth.order]
    return [np.concatenate([p for p in event if p is not None] or [[]]) for event in parts]


@pytest.mark.parametrize("field", ["chan00", "chan01", "spectrum"])
@pytest.mark.parametrize("chunks", [None, "auto", {"time": 7, "hsd_chan00_item": 1000}])
def test_items_and_counts(rich, rich_run, field, chunks):
    data = rich_run.dataset("hsd", chunks=chunks)
    want = pieces(rich, field)
    items, counts = data[f"hsd_{field}"], data[f"hsd_{field}_count"]
    assert items.dims[0] == f"hsd_{field}_item"
    assert items.shape[1:] == ((3,) if field == "spectrum" else ())
    assert items.dtype == want[0].dtype
    np.testing.assert_array_equal(items.values, np.concatenate(want))
    assert counts.dims == ("time", "panel")
    assert counts.sum("panel").values.tolist() == [len(p) for p in want]


def test_a_field_alone_is_a_dataset(rich, rich_run):
    data = rich_run.hsd.chan00
    want = pieces(rich, "chan00")
    assert set(data) == {"chan00", "chan00_count"}
    for found, piece in zip(data.psana.ragged("chan00"), want, strict=True):
        np.testing.assert_array_equal(found, piece)
    assert rich_run["hsd", "chan00"].identical(data)


@pytest.mark.parametrize("n", [None, 0, 10, 1000])
def test_padded(rich, rich_run, n):
    data = rich_run.dataset("hsd")
    want = pieces(rich, "chan00")
    found = data.psana.padded("hsd_chan00", n, fill=255)
    width = max(map(len, want)) if n is None else n
    assert found.shape == (40, width)
    assert found.dims[0] == "time"
    for row, piece in zip(found.values, want, strict=True):
        kept = piece[:width]
        assert row[: len(kept)].tolist() == kept.tolist()
        assert (row[len(kept) :] == 255).all()


def test_a_selection_has_its_own_items(rich, rich_run):
    events = [30, 2, 2, 17]
    want = pieces(rich, "chan00")
    data = rich_run.isel(events).dataset("hsd")
    assert [p.tolist() for p in data.psana.ragged("hsd_chan00")] == [want[e].tolist() for e in events]


def test_no_events_have_no_items(rich_run):
    data = rich_run.isel([]).hsd.chan00
    assert data["chan00"].shape == (0,)
    assert data.psana.ragged("chan00") == []
    assert data.psana.padded("chan00").shape == (0, 0)


def test_a_single_event(rich, rich_run):
    event = rich_run.event(rich.times[7])
    want = pieces(rich, "chan00")[7].tolist()
    assert [p.tolist() for p in event.psana.ragged("hsd_chan00")] == [want]
    assert event.psana.padded("hsd_chan00").values.tolist() == [want]


def test_missing_events_and_segments_have_no_items(tmp_path):
    missing = (Missing(events=(2,), detector="hsd"), Missing(events=(4, 5), detector="hsd", segment=1))
    gmd = Detector(name="gmd", kind="gmd", stream=1)
    hsd = Detector(name="hsd", kind="hsd", segments=2)
    truth = simulate.write(RunSpec(events=8, detectors=(hsd, gmd), missing=missing), tmp_path)
    data = psana_dask.open(tmp_path).dataset()
    counts = data.hsd_chan00_count.values
    assert counts[2].tolist() == [0, 0]
    assert counts[[4, 5], 1].tolist() == [0, 0]
    for found, want in zip(data.psana.ragged("hsd_chan00"), pieces(truth, "chan00"), strict=True):
        assert found.tolist() == want.tolist()


def test_one_segment_has_counts_per_event(tmp_path):
    fields = (Field("peaks", "f4", (None,), longest=5),)
    detector = Detector(name="det", algorithms=(Algorithm("fex", fields=fields),))
    truth = simulate.write(RunSpec(events=20, detectors=(detector,)), tmp_path)
    data = psana_dask.open(tmp_path).det.fex_peaks
    assert data.fex_peaks_count.dims == ("time",)
    assert data.fex_peaks_count.values.tolist() == [len(p) for p in pieces(truth, "peaks", "det")]


def test_ragged_data_are_never_objects(rich_run):
    assert all(v.dtype != object for v in rich_run.dataset().variables.values())


def test_what_is_not_installed_is_said(rich_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "awkward", None)
    with pytest.raises(MissingLibrary, match=r'needs awkward: python -m pip install "psana_dask\[ragged\]"'):
        rich_run.dataset("hsd").psana.to_awkward("hsd_chan00")


def test_an_array_that_does_not_know_what_is_missing(rich_run):
    plain = rich_run.tt.raw.drop_vars("tt_present")
    with pytest.raises(ValueError, match="tt_raw does not know what is missing: no coordinate tt_present"):
        plain.psana.masked()


def test_only_the_items_asked_for_are_read(rich, rich_run, monkeypatch):
    from psana_dask.sources import FileSource

    sizes, read = [], FileSource.read_pieces

    def noted(self, offsets, size, out, places):
        sizes.append(int(size.sum()))
        return read(self, offsets, size, out, places)

    monkeypatch.setattr(FileSource, "read_pieces", noted)
    want = pieces(rich, "chan00")
    items = rich_run.dataset("hsd", chunks=None).hsd_chan00
    first = len(want[0])
    assert items[first : first + 1].values.tolist() == [want[1][0]]
    assert sum(sizes) == len(want[1])


def test_items_keep_the_shape_that_all_events_share(tmp_path):
    rows = Field("rows", "f4", (None, 3))
    odd = Field("odd", "f4", (None, None))
    detector = Detector(name="det", algorithms=(Algorithm(fields=(rows, odd)),))
    truth = simulate.write(RunSpec(events=12, detectors=(detector,)), tmp_path)
    run = psana_dask.open(tmp_path)
    data = run.det.rows
    expected = [truth.value("det", "rows", k) for k in range(12)]
    assert data.rows.dims[1:] == ("det_rows_0",)
    np.testing.assert_array_equal(data.rows.values, np.concatenate(expected))
    assert data.rows_count.values.tolist() == [len(e) for e in expected]
    np.testing.assert_array_equal(data.rows[2:5, 1].values, np.concatenate(expected)[2:5, 1])
    flat = [truth.value("det", "odd", k) for k in range(12)]
    assert run.det.odd.odd.ndim == 1
    np.testing.assert_array_equal(run.det.odd.odd.values, np.concatenate([f.ravel() for f in flat]))
