"""Regions of interest equal numpy on the whole frame, and read no more than they show."""

import numpy as np
import pytest

from psana_dask.fields import FrameReader

PICKED = {"panel": 1, "rows": slice(2, 7), "cols": [1, 3, 4]}


def cut(array):
    return array[:, 1:2, 2:7][..., [1, 3, 4]]


@pytest.mark.parametrize("field", ["raw", "calib"])
def test_sums_means_projections_and_histograms(run, values, field):
    roi = run.jf.roi(**PICKED)
    part = cut(values(f"jf.{field}"))
    pixels = part.reshape(len(part), -1)
    np.testing.assert_allclose(roi.sum(field), pixels.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(roi.mean(field), pixels.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(roi.projection("row", field), part.sum(axis=(1, 3)), rtol=1e-12)
    np.testing.assert_allclose(roi.projection("col", field, "mean"), part.mean(axis=(1, 2)), rtol=1e-12)
    edges = np.linspace(part.min(), part.max(), 9)
    expected = np.stack([np.histogram(row, edges)[0] for row in pixels])
    np.testing.assert_array_equal(roi.histogram(edges, field), expected)
    np.testing.assert_array_equal(getattr(roi, field).values.reshape(part.shape), part)
    assert roi.projection("row").row.values.tolist() == [2, 3, 4, 5, 6]


def test_missing_panels_and_masks(run, values):
    cam = values("cam.raw")
    roi = run.cam.roi(rows=slice(0, 4))
    part = cam[:, :, :4]
    np.testing.assert_array_equal(roi.sum("raw"), np.nansum(part, axis=(1, 2, 3)))
    mean = roi.mean("raw").values
    gone = np.isnan(part).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(np.isnan(mean), gone)
    assert gone.sum() == 3  # of event 7 one panel is there
    mask = np.zeros((2, 8, 12))
    mask[0, 1, 2] = 1
    np.testing.assert_array_equal(run.cam.roi(mask=mask).mean("raw"), cam[:, 0, 1, 2])


def test_a_region_reads_its_panel_and_rows_only(run, monkeypatch):
    read = []
    original = FrameReader.read_into

    def counted(self, events, panels, rows, out):
        if out.ndim == 4:  # not the pulse numbers
            read.append((len(events), panels.tolist(), out.shape[2]))
        original(self, events, panels, rows, out)

    monkeypatch.setattr(FrameReader, "read_into", counted)
    run.jf.roi(**PICKED).sum("raw").isel(time=5).compute()
    assert read == [(1, [1], 5)]


def test_what_a_region_cannot_do_is_said(run):
    with pytest.raises(ValueError, match="the region has no row"):
        run.jf.roi(rows=slice(50, 60)).sum().compute()
    with pytest.raises(ValueError, match="bin edges must increase"):
        run.jf.roi().histogram([1, 1])
    with pytest.raises(ValueError, match="not 'max' onto 'row'"):
        run.jf.roi().projection("row", statistic="max")
