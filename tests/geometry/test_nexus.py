"""NeXus files against the rules of NXmx, NXdetector_module and NXtransformations.

The rules are those of https://manual.nexusformat.org (NXmx application definition, NXtransformations
base class); the check reads the file with h5py alone.
"""

import h5py
import numpy as np
import pytest

from psana_dask import geometry
from psana_dask.geometry.convert import nexus

RUN = {"title": "quad of run 1", "start_time": "2024-06-14T06:12:03Z", "end_time": "2024-06-14T06:13:03Z"}
NAMES = ["jungfrau4m", "epix10kaquad", "cspad", "epix100", "epixhr2x2", "epixuhr3x2", "epixm320", "pnccd"]


@pytest.fixture(params=NAMES)
def file(request, tmp_path):
    path = tmp_path / "detector.nxs"
    geometry.save(geometry.default_geometry(request.param), path, wavelength=1.3, **RUN)
    with h5py.File(path) as opened:
        yield opened


def groups(file, kind):
    """All groups of an NX_class."""
    found = []
    file.visititems(lambda _, item: found.append(item) if item.attrs.get("NX_class") == kind else None)
    return found


REQUIRED = {
    "NXentry": {"definition", "title", "start_time", "end_time_estimated"},
    "NXinstrument": {"name"},
    "NXsource": {"name"},
    "NXsample": {"name", "depends_on"},
    "NXbeam": {"incident_wavelength"},
    "NXdetector": {"depends_on", "description"},
    "NXdetector_module": {
        "data_origin",
        "data_size",
        "module_offset",
        "fast_pixel_direction",
        "slow_pixel_direction",
    },
    "NXtransformations": set(),
}


def test_what_nxmx_requires_is_there(file):
    assert file["entry/definition"].asstr()[()] == "NXmx"
    for kind, names in REQUIRED.items():
        found = groups(file, kind)
        assert found, kind
        for group in found:
            assert names <= set(group), f"{group.name} has no {names - set(group)}"
    everything = []
    file.visititems(lambda _, item: everything.append(item))
    classes = {item.attrs.get("NX_class") for item in everything if isinstance(item, h5py.Group)}
    assert classes == set(REQUIRED)
    assert file["entry/instrument/beam/incident_wavelength"].attrs["units"] == "angstrom"
    assert file.attrs["default"] in file


def axes_of(file):
    found = []
    file.visititems(lambda _, item: found.append(item) if "vector" in item.attrs else None)
    return found


def test_every_axis_is_a_transformation(file):
    axes = axes_of(file)
    assert len(axes) > 4
    for axis in axes:
        kind, units = axis.attrs["transformation_type"], axis.attrs["units"]
        assert (kind, units) in (("translation", "m"), ("rotation", "deg")), axis.name
        assert axis.shape == ()
        assert axis.dtype.kind == "f"
        assert axis.attrs["vector"].shape == axis.attrs["offset"].shape == (3,)
        assert np.linalg.norm(axis.attrs["vector"]) == pytest.approx(1, abs=1e-12)
        assert axis.attrs["offset_units"] == "m"


def chain(file, axis):
    """Names from an axis to the laboratory; fails on a loop or a link to nothing."""
    names = [axis.name]
    while (above := file[names[-1]].attrs["depends_on"]) != ".":
        assert above in file, f"{names[-1]} depends on {above}"
        assert "vector" in file[above].attrs
        assert above not in names, f"loop at {above}"
        names.append(above)
    return names


def test_chains_lead_from_modules_to_the_laboratory(file):
    detector = file["entry/instrument/detector"]
    rail = detector["depends_on"].asstr()[()]
    for module in groups(file, "NXdetector_module"):
        for name in ("fast_pixel_direction", "slow_pixel_direction"):
            names = chain(file, module[name])
            assert names[1] == module["module_offset"].name
            assert names[-1] == rail


def test_modules_cover_the_data_once(file):
    known = geometry.load(file.filename)
    seen = np.zeros(known.shape, np.int8)
    for module in groups(file, "NXdetector_module"):
        origin, size = module["data_origin"][()], module["data_size"][()]
        assert origin.dtype.kind == size.dtype.kind == "i"
        assert origin.shape == size.shape == (3,)
        seen[tuple(slice(first, first + count) for first, count in zip(origin, size, strict=True))] += 1
        fast, slow = (module[f"{name}_pixel_direction"] for name in ("fast", "slow"))
        assert abs(fast.attrs["vector"] @ slow.attrs["vector"]) < 1e-12
        detector = file["entry/instrument/detector"]
        assert fast[()] == pytest.approx(detector["x_pixel_size"][()], rel=1e-9)
        assert slow[()] == pytest.approx(detector["y_pixel_size"][()], rel=1e-9)
    assert (seen == 1).all()


def test_a_geometry_without_a_run_leaves_out_what_it_does_not_know(tmp_path):
    with h5py.File(tmp_path / "d.nxs", "w") as file:
        nexus.write_entry(file, geometry.default_geometry("epix100"))
        assert not {"start_time", "end_time"} & set(file["entry"])
        assert "beam" not in file["entry/instrument"]
        assert file["entry/title"].asstr()[()] == "geometry of 1 x EPIX100:V1"
