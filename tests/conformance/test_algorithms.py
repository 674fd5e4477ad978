"""Algorithms against psana1, psana2 and smalldata_tools: every oracle, every value.

The images are made by the oracles' own generator, from seeds.
"""

import ast
import hashlib
import importlib.util
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from psana_dask import algorithms

ROOT = Path(os.environ.get("PSANA_DASK_CONFORMANCE", Path(__file__).parents[2] / ".." / "shared" / "data"))
FOLDER = ROOT / "peaks"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"no oracles at {FOLDER}")


@lru_cache
def generator():
    spec = importlib.util.spec_from_file_location("gen_peak_inputs", FOLDER / "gen_peak_inputs.py")
    module = importlib.util.module_from_spec(spec)
    exec(compile((FOLDER / "gen_peak_inputs.py").read_text(), "gen_peak_inputs.py", "exec"), module.__dict__)
    return module


@lru_cache
def picture(name):
    """Image, radius and mask, (panel, row, col)."""
    if name == "cspad":
        return generator().cspad(100)
    seed, shape, peaks = {"jf512x1024": (11, (512, 1024), 60), "cspad185x388": (12, (185, 388), 12)}[name]
    return tuple(array[None] for array in generator().image(seed, shape, peaks)[:3])


def oracle(name):
    with np.load(FOLDER / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}


def check_inputs(found, *arrays):
    hashes = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in arrays]
    assert hashes == list(found["inputs_sha256"]), "the generator made other images than the oracle saw"


# ---- peaks ---------------------------------------------------------------------------------------
RADIAL = {
    "peakfinder8_jf512x1024_default": ("jf512x1024", 58),
    "peakfinder8_jf512x1024_max10": ("jf512x1024", 10),
    "peakfinder8_jf512x1024_onepanel": ("jf512x1024", 58),
    "peakfinder8_cspad_5920x388": ("cspad", 129),
}
# psana adds up a ring in float32 (up to 1500 values of 20 +- 4): its thresholds are off by up to 1e-4
# relative, and what is measured against the background by a few units of float32
ROUNDING = 2e-5


@pytest.mark.parametrize("name", RADIAL)
def test_radial_peaks_equal_peakfinder8(name, figures):
    image, radius, mask = picture(RADIAL[name][0])
    found, pars = oracle(name), ast.literal_eval(str(oracle(name)["params"]))
    rows, cols = image.shape[1:]
    check_inputs(found, *(a.reshape(-1, cols) for a in (image, mask, radius)))
    finder = algorithms.prepare_radial(
        radius, mask=mask, asic=(pars["asic_ny"], pars["asic_nx"]), adc=pars["adc"], snr=pars["snr"],
        pixels=(pars["minpix"], pars["maxpix"]), background_radius=pars["bgr"],
    )  # fmt: skip
    peaks = algorithms.find_peaks(image, finder, most=pars["max_num_peaks"])
    assert peaks.count[0] == len(found["peaks"]) == RADIAL[name][1]
    assert peaks.overflow[0] == (48 if name.endswith("max10") else 0)
    rows_of = {
        "com_fs": peaks["col"], "com_ss": peaks["row"] + peaks["panel"] * rows, "total": peaks["intensity"],
        "npix": peaks["npix"], "maxi": peaks["highest"], "sigma": peaks["noise"], "snr": peaks["snr"],
    }  # fmt: skip
    for column, theirs in zip(str(found["columns"]).split(","), found["peaks"].T, strict=True):
        if column == "com_index":
            assert np.array_equal(theirs, np.rint(found["peaks"].T[1]) * cols + np.rint(found["peaks"].T[0]))
            continue
        ours = rows_of[column][0, : len(theirs)]
        np.testing.assert_allclose(ours, theirs, rtol=ROUNDING, atol=1e-5, err_msg=column)
    figures("radial peaks equal to psana2", lists=1, peaks=len(found["peaks"]))


LOCAL = {  # rank, r0, dr, nsigma or thresholds: what the oracles were made with
    ("v3r3", "default"): {"rank": 5, "r0": 7, "dr": 2, "nsigma": 5},
    ("v3r3", "rank3"): {"rank": 3, "r0": 5, "dr": 0.05, "nsigma": 3},
    ("v4r3", "default"): {"rank": 5, "r0": 7, "dr": 2, "low": 45, "high": 90},
    ("v4r3", "rank4"): {"rank": 4, "r0": 4.5, "dr": 2, "low": 60, "high": 150},
}
NAMES = {
    "seg": "panel", "row": "row_top", "col": "col_top", "npix": "npix", "amp_max": "highest",
    "amp_tot": "intensity", "row_cgrav": "row", "col_cgrav": "col", "bkgd": "background", "noise": "noise",
    "son": "snr",
}  # fmt: skip


def local_oracles():
    return sorted(p.stem for p in FOLDER.glob("psalgos_p?_v*.npz")) if FOLDER.exists() else []


@pytest.mark.parametrize("name", local_oracles())
@pytest.mark.parametrize("which", ["peaks", "all_peaks"])
def test_local_peaks_equal_psalgos(name, which, figures):
    _, library, version, kind, place = name.split("_")
    image, _, mask = picture(place)
    found = oracle(name)
    check_inputs(found, image[0], mask[0].astype(np.uint16))
    keep = ast.literal_eval(str(found["selection"]))
    values = (keep[k] for k in ("npix_min", "npix_max", "amax_thr", "atot_thr", "son_min"))
    everything = algorithms.Selection(0, 1e9, -1e9, -1e9, -1e9)
    selection = algorithms.Selection(*values) if which == "peaks" else everything
    prepare = algorithms.prepare_adaptive if version == "v3r3" else algorithms.prepare_droplet
    finder = prepare(image.shape, mask=mask, selection=selection, **LOCAL[version, kind])
    peaks = algorithms.find_peaks(image, finder, most=10_000)
    theirs = dict(zip(str(found["columns"]).split(","), found[which].T, strict=True))
    ours = {name: peaks[NAMES.get(name, name)][0, : peaks.count[0]] for name in theirs}
    extra = psana2_only(ours, theirs)
    lacking = (library, version, place, kind) == ("p1", "v4r3", "jf512x1024", "default")
    assert len(extra) == int(lacking)
    for column, values in theirs.items():  # psana keeps float32
        mine = np.delete(ours[column], extra)
        np.testing.assert_allclose(mine, values, rtol=3e-7, atol=3e-7, err_msg=column)
    figures("adaptive and droplet peaks equal to psana", lists=1, peaks=len(theirs["row"]))


def psana2_only(ours, theirs):
    """Peaks that psana1 lacks: it compares a candidate with masked neighbours too (peaks.md)."""
    seen = set(zip(theirs["row"], theirs["col"], strict=True))
    pairs = zip(ours["row"], ours["col"], strict=True)
    return [k for k, place in enumerate(pairs) if place not in seen]
