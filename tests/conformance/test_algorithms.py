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


def test_local_extrema_equal_psalgos(figures):
    image, _, mask = picture("cspad185x388")
    found = oracle("psalgos_extrema_cspad")
    for minima, name in ((False, "max"), (True, "min")):
        mine = algorithms.local_extrema(image, rank=3, mask=mask, minima=minima)[0]
        assert np.array_equal(mine, found[f"local_{name}_r3"])
        assert (mine == 7).sum() == found[f"n_{name}"]
        figures("local extremes equal to psalgos", pixels=mine.size, extremes=int(found[f"n_{name}"]))
    mine = algorithms.cross_maxima(image, mask=mask)[0]
    assert np.array_equal(mine, found["max_rank1_cross"])
    figures("local extremes equal to psalgos", pixels=mine.size, extremes=int((mine == 3).sum()))
    # maxima above a threshold (bit 8) are where the droplet form starts: low 45, high 90
    finder = algorithms.prepare_droplet(
        image.shape, low=45, high=90, mask=mask, selection=algorithms.Selection(0, 1e9, -1e9, -1e9, -1e9)
    )
    peaks = algorithms.find_peaks(image, finder).table()
    tops = np.argwhere(found["threshold_max"] & 8)
    assert np.array_equal(tops, np.stack([peaks["row_top"], peaks["col_top"]], axis=1))
    assert len(tops) == found["n_thr"] == 22


# ---- photons and droplets ------------------------------------------------------------------------
def test_photons_equal_imgalgos(figures):
    found = oracle("photons_thr0.9")
    mine = algorithms.count_photons(found["data"][None], 1.0, fraction=float(found["thr_fraction"]))[0]
    assert np.array_equal(mine, found["photons"])
    figures("photons equal to psana", pixels=mine.size, photons=int(mine.sum()))


def test_droplets_equal_smalldata(figures):
    image, _, mask = picture("cspad185x388")
    found = oracle("droplet_smalldata")
    mine = algorithms.find_droplets(image, high=60, low=30, least=100, mask=mask).table()
    assert len(mine["row"]) == found["nDroplets"] == found["nDroplets_all"]
    ours, theirs = (
        np.lexsort((a, b)) for a, b in ((mine["row"], mine["col"]), (found["dat_row"], found["dat_col"]))
    )
    for name, column in {"row": "row", "col": "col", "npix": "npix", "intensity": "data"}.items():
        np.testing.assert_allclose(mine[name][ours], found[f"dat_{column}"][theirs], rtol=1e-7)
    np.testing.assert_array_equal(mine["panel"][ours], found["dat_tile"][theirs])
    figures("droplets equal to smalldata", droplets=len(ours))


# ---- radial profiles -----------------------------------------------------------------------------
def flat_sensor(pixel):
    return algorithms.Positions(
        x=(np.arange(388) - 190.2 + np.zeros((185, 1))) * pixel,
        y=(np.arange(185)[:, None] - 90.7 + np.zeros(388)) * pixel,
        z=np.full((185, 388), 0.080),
        area=np.ones((185, 388)),
    )


def test_q_profile_equals_smalldata(figures):
    image, _, mask = picture("cspad185x388")
    found = oracle("azav_smalldata_nocorr")
    where = flat_sensor(100e-6)
    np.testing.assert_allclose(where.q(9500.0).ravel()[::997], found["matrix_q_sample"], rtol=1e-6)
    table = algorithms.prepare_azimuthal(
        where, bins=found["qbins"], energy=9500.0, mask=mask[0], solid_angle=False
    )
    mine = algorithms.integrate(image, table)
    # smalldata counts masked pixels in the norm of its first bin, which lies below q = 0
    assert found["norm"][0, 0] == (mask == 0).sum()
    assert np.isnan(mine.intensity[0, 0, 0])
    moved = np.flatnonzero(mine.pixels[0, 0, 1:] != found["norm"][0, 1:]) + 1
    assert len(moved) <= 2  # its wavelength is rounded: a pixel on an edge of a bin
    same = np.setdiff1d(np.arange(1, 27), moved)
    np.testing.assert_allclose(mine.intensity[0, 0, same], found["azav"][0, same], rtol=1e-6)  # float32 sums
    figures("radial bins equal to smalldata, HPolar and AngularIntegrator", bins=len(same))


def test_a_corrected_profile_equals_smalldata(figures):
    image, _, mask = picture("cspad185x388")
    found = oracle("azav_smalldata_1phi")
    where = flat_sensor(100e-6)
    # solid angle (z / r)^3, light polarised along x; it samples the good pixels
    corrections = (where.solid_angle * where.polarisation(1.0))[mask[0] > 0]
    np.testing.assert_allclose(corrections[::997], found["corr_sample"], rtol=1e-14)
    table = algorithms.prepare_azimuthal(
        where, bins=found["qbins"], energy=9500.0, mask=mask[0], polarisation=1.0, weighted=False
    )
    mine = algorithms.integrate(image, table)
    # all bins but the first, in whose norm smalldata counts masked pixels, and which lies below q = 0
    assert np.array_equal(mine.pixels[0, 0, 1:], found["norm"][0, 1:])
    np.testing.assert_allclose(mine.intensity[0, 0, 1:], found["azav"][0, 1:], rtol=1e-14)
    figures("radial bins equal to smalldata, HPolar and AngularIntegrator", bins=26)


def test_polar_bins_equal_hpolar(figures):
    image, _, mask = picture("cspad185x388")
    found = oracle("hpolar_p2")
    edges = np.linspace(500, 18000, 61)
    table = algorithms.prepare_azimuthal(
        flat_sensor(100.0), unit="radius", bins=edges, azimuths=8, azimuth_span=(0, 360), mask=mask[0],
        solid_angle=False,
    )  # fmt: skip
    mine = algorithms.integrate(image, table)
    # the last of its bins holds what lies outside all
    assert np.array_equal(mine.pixels[0].ravel(), found["bin_npix"][:480])
    filled = found["bin_npix"][:480] > 0
    np.testing.assert_allclose(mine.intensity[0].ravel()[filled], found["bin_avrg"][:480][filled], rtol=1e-12)
    total = (mine.intensity * mine.pixels)[0].ravel()[filled]
    np.testing.assert_allclose(total, found["bin_intensity"][:480][filled], rtol=1e-12)
    figures("radial bins equal to smalldata, HPolar and AngularIntegrator", bins=int(filled.sum()))


def test_radial_bins_equal_the_angular_integrator(figures):
    image, _, mask = picture("cspad185x388")
    found = oracle("angular_AngularIntegrator")
    table = algorithms.prepare_azimuthal(
        flat_sensor(1.0), unit="radius", bins=60, span=(5, 180), mask=mask[0], solid_angle=False
    )
    np.testing.assert_allclose(table.centres, found["bincent"], rtol=1e-12)
    mine = algorithms.integrate(image, table).intensity[0, 0]
    inner = slice(1, 59)  # it puts what lies outside the range into the first and the last bin
    np.testing.assert_allclose(mine[inner], found["value"][inner], rtol=1e-12)
    figures("radial bins equal to smalldata, HPolar and AngularIntegrator", bins=58)


# ---- edges ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("leading", [True, False])
def test_edges_equal_psalg(leading, figures):
    found = oracle("psalg_fir_parab_edges")
    mine = algorithms.find_edges(
        found["waveform"], baseline=0, threshold=-15, fraction=0.5, deadtime=5, leading=leading
    )
    theirs = found["edges_neg_lead" if leading else "edges_neg_trail"]
    assert mine.count == len(theirs) == 3
    np.testing.assert_allclose(mine.amplitude[:3], theirs[:, 0], rtol=1e-12)
    np.testing.assert_allclose(mine.position[:3], theirs[:, 1], rtol=1e-12)
    figures("edges equal to psalg, psana1 and psana2", edges=3)


def test_the_time_tool_equals_psalg(figures):
    found = oracle("psalg_fir_parab_edges")
    weights = -found["weights"]  # the oracle's edge falls, and its weights are those of one that rises
    mine = algorithms.find_time_edges(found["signal"][None], np.ones(1024), weights)
    first = mine.position[0] - (len(weights) - 1) / 2  # psalg counts from the first weight
    theirs = found["parab_amp_pos_fwhm"]
    np.testing.assert_allclose([mine.amplitude[0], first, mine.fwhm[0]], theirs, rtol=1e-9)
    figures("edges equal to psalg, psana1 and psana2", edges=1)


def test_the_time_tool_finds_the_edge_of_psana2(figures):
    found = oracle("edgefinder_p2")
    weights = found["kernel"][::-1].astype(float)  # psana2 convolves: the kernel is turned round
    mine = algorithms.find_time_edges(found["image"][None], found["iir"], weights)
    last = mine.position[0] + (len(weights) - 1) / 2  # psana2 counts from the last weight
    # psana2 takes the largest sample, we the top of the parabola around it
    assert abs(last - found["edge"]) < 1
    assert mine.ref_amplitude[0] == found["ref_amplitude"]
    figures("edges equal to psalg, psana1 and psana2", edges=1)
