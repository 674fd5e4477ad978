"""xarray's door: open_dataset and open_datatree with the engine psana."""

import pickle

import dask
import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask.backend import PsanaBackend
from psana_dask.errors import NameNotFound, RunNotFound
from psana_dask.sources import FileSource


@pytest.fixture
def folder(rich):
    return str(rich.folder)


# xarray takes preferred chunks for stored ones; frames are stored one by one
other_chunks = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")


@other_chunks
@pytest.mark.parametrize("chunks", [None, {}, "auto", {"time": 7}, {"time": 7, "epix_row": 4}])
def test_the_same_data_through_xarrays_door(folder, rich_run, chunks):
    data = xr.open_dataset(folder, engine="psana", chunks=chunks)
    own = rich_run.dataset(join="outer", chunks=None).load()
    assert data.attrs == own.attrs
    assert data.load().equals(own)


def test_without_chunks_nothing_is_read_until_it_is_indexed(folder, monkeypatch):
    sizes, read = [], FileSource.read_pieces

    def noted(self, offsets, size, out, places):
        sizes.append(int(size.sum()))
        return read(self, offsets, size, out, places)

    monkeypatch.setattr(FileSource, "read_pieces", noted)
    data = xr.open_dataset(folder, engine="psana", cache=False)
    assert sizes == []
    assert not data.chunks
    assert data.epix_raw.isel(time=17, epix_panel=1).values.shape == (8, 12)
    assert sizes == [8 * 12 * 2]


def test_our_chunks_are_xarrays_preferred_ones(folder, rich_run):
    data = xr.open_dataset(folder, engine="psana", chunks={})
    for name, array in rich_run.dataset().variables.items():
        if array.chunks is not None:
            assert data[name].chunks == array.chunks


@pytest.mark.parametrize("limit", ["32kiB", "128MiB"])
def test_automatic_chunks_of_xarray_keep_frames_whole(folder, limit):
    with dask.config.set({"array.chunk-size": limit}):
        data = xr.open_dataset(folder, engine="psana", chunks="auto")
    assert data.epix_raw.chunks[1:] == ((3,), (8,), (12,))


@pytest.mark.parametrize(
    ("detectors", "variables"),
    [
        ("gmd", {"gmd_milliJoulesPerPulse", "gmd_milliJoulesAverage", "gmd_damage"}),
        (["epix.raw", "wave"], {"epix_raw", "epix_damage", "wave_raw", "wave_damage"}),
    ],
)
def test_detectors_may_be_chosen(folder, detectors, variables):
    data = xr.open_dataset(folder, engine="psana", detectors=detectors)
    assert set(data) == variables
    assert data.attrs["join"] == "inner"


def test_the_options_of_open(rich, folder):
    path = str(rich.files[0])
    assert set(xr.open_dataset(folder, engine="psana", run=7, streams=[3], join="inner").coords) >= {
        "tt_present"
    }
    assert set(xr.open_dataset(path, engine="psana", detectors="gmd")) > {"gmd_damage"}
    kept = xr.open_dataset(folder, engine="psana", detectors="epix", damaged="keep", cache_index=False)
    assert kept.attrs["damaged"] == "keep"
    assert kept.sizes["time"] == 39  # only event 6 lacks it
    text = f"exp=tstx00117:run=7:dir={folder}"
    assert xr.open_dataset(text, engine="psana").sizes["time"] == 40
    assert xr.open_dataset("tstx00117", engine="psana", run=7, dir=folder).sizes["time"] == 40
    assert xr.open_dataset(list(map(str, rich.files)), engine="psana").sizes["time"] == 40


def test_variables_may_be_dropped(folder):
    data = xr.open_dataset(folder, engine="psana", drop_variables=["epix_raw", "no such one"])
    assert "epix_raw" not in data
    assert "epix_aux" in data
    assert "gmd_damage" not in xr.open_dataset(folder, engine="psana", drop_variables="gmd_damage")


@pytest.mark.parametrize("chunks", [None, {}])
def test_trees(folder, rich_run, chunks):
    tree = xr.open_datatree(folder, engine="psana", chunks=chunks)
    own = rich_run.tree(chunks=None)
    assert set(tree.children) == set(own.children)
    for node in own.subtree:
        assert tree[node.path].to_dataset().load().equals(node.to_dataset().load())
    assert tree.attrs["experiment"] == "tstx00117"


def test_trees_of_chosen_detectors(folder):
    tree = xr.open_datatree(folder, engine="psana", detectors=["epix.raw", "gm*"])
    assert set(tree.children) == {"events", "epics", "epix", "gmd"}
    assert set(tree["epix"].data_vars) == {"raw", "damage"}
    assert tree["gmd"].sizes["time"] == tree["epix"].sizes["time"] == 40
    with pytest.raises(NameNotFound, match="did you mean epix"):
        xr.open_datatree(folder, engine="psana", detectors="epx")


def test_groups_by_name(folder):
    groups = xr.open_groups(folder, engine="psana")
    assert {"/", "/events", "/epix", "/epics/valve"} <= set(groups)
    assert "raw" not in xr.open_groups(folder, engine="psana", drop_variables="raw")["/epix"]


GUESSES = {
    "tstx00117-r0007-s000-c000.xtc2": True,
    "/a/b/tstx00117-r0007-s00.xtc.inprogress": True,
    "anything.xtc2": True,
    "anything.xtc": True,
    "exp=tstx00117:run=7": True,
    "data.nc": False,
    "data.zarr": False,
    "": False,
}


@pytest.mark.parametrize("name", GUESSES)
def test_which_names_are_runs(name):
    assert PsanaBackend().guess_can_open(name) == GUESSES[name]
    assert not PsanaBackend().guess_can_open(name.encode())
    assert not PsanaBackend().guess_can_open(None)


def test_a_file_needs_no_engine(rich):
    data = xr.open_dataset(rich.files[0])
    assert "gmd_milliJoulesPerPulse" in data


def test_errors_are_ours(folder):
    with pytest.raises(NameNotFound, match=r"no detector 'epixx'; did you mean epix\?"):
        xr.open_dataset(folder, engine="psana", detectors="epixx")
    with pytest.raises(RunNotFound, match="no run 8"):
        xr.open_dataset(f"exp=tstx00117:run=8:dir={folder}", engine="psana")


@pytest.mark.parametrize("chunks", [None, {}])
def test_datasets_travel(folder, rich, expected, elsewhere, chunks):
    data = xr.open_dataset(folder, engine="psana", chunks=chunks)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.epix_raw[5:9], expected(rich, "epix", "raw")[5:9])
    found = elsewhere(data, "x.epix_raw.isel(time=slice(20, 30), epix_panel=1).values")
    np.testing.assert_array_equal(found, expected(rich, "epix", "raw")[20:30, 1])


def test_reading_may_be_awaited(folder, rich, expected):
    import asyncio

    data = xr.open_dataset(folder, engine="psana", detectors="epix", join="outer")
    loaded = asyncio.run(data.epix_raw.load_async())
    np.testing.assert_array_equal(loaded.values, expected(rich, "epix", "raw"))


def test_several_runs_side_by_side(rich, plain):
    opened = [xr.open_dataset(p.folder, engine="psana", detectors="gmd", chunks={}) for p in (rich, plain)]
    joined = xr.concat(
        [o.drop_vars("pulse_id", errors="ignore") for o in opened], "time", combine_attrs="drop"
    )
    assert joined.sizes["time"] == 140
    assert psana_dask.open(plain.folder).gmd.milliJoulesPerPulse.values.tolist() == (
        joined.gmd_milliJoulesPerPulse[40:].values.tolist()
    )


@pytest.mark.parametrize("chunks", [None, {}])
def test_points_of_many_frames(folder, rich, expected, chunks):
    raw = xr.open_dataset(folder, engine="psana", detectors="epix", join="outer", chunks=chunks).epix_raw
    time, row = xr.DataArray([5, 30, 7], dims="point"), xr.DataArray([1, 7, 3], dims="point")
    found = raw.isel(time=time, row=row, panel=1)
    want = expected(rich, "epix", "raw")[[5, 30, 7], 1, [1, 7, 3]]
    np.testing.assert_array_equal(found.transpose("point", "col").values, want)
