"""Azimuthal integration: pyFAI, numpy, known rings, any chunking, and what is missing."""

import warnings

import numpy as np
import pytest
import xarray as xr

from psana_dask import algorithms, analysis, geometry
from psana_dask.algorithms.positions import HC
from psana_dask.simulate import Picture, Scene

ENERGY = 9500.0
NOMINAL = geometry.default_geometry("jungfrau", panels=2)
# off the symmetric place, in which whole rows of pixels lie on edges of bins
DETECTOR = geometry.moved(NOMINAL, *NOMINAL.panels[0][-1].key, by=(1370.31, 2110.77, 0.0))


@pytest.fixture(scope="module")
def where():
    return algorithms.pixel_positions(DETECTOR, distance=0.1)


@pytest.fixture(scope="module")
def image(where):
    smooth = 20 * np.exp(-((where.radius / 0.03) ** 2)) + 10
    # at least one photon: to pyFAI the variance of none is 1, to us 0
    return np.maximum(np.random.default_rng(3).poisson(smooth), 1).astype(np.float32)


@pytest.fixture(scope="module")
def mask(where):
    return np.random.default_rng(4).random(where.shape) > 0.01


@pytest.fixture(scope="module")
def pyfai_integrator():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyFAI's own imports
        pytest.importorskip("pyFAI")
        from pyFAI.integrator.azimuthal import AzimuthalIntegrator

        from psana_dask.geometry.convert.pyfai import to_pyfai

        detector, place = to_pyfai(DETECTOR)
        return AzimuthalIntegrator(detector=detector, wavelength=HC / ENERGY * 1e-10, **place)


@pytest.mark.parametrize(
    ("sectors", "error", "polarisation"),
    [(1, None, None), (1, "poisson", 1.0), (1, "azimuthal", 1.0), (12, "poisson", None)],
)
def test_it_equals_pyfai(pyfai_integrator, where, image, mask, sectors, error, polarisation, figures):
    theirs = pyfai_integrator
    # from 0: pyFAI counts pixels up to one bin below the range in its first bin
    span, bins = (0.0, 2.5), 300
    edges = np.linspace(span[0], span[1] * (1 + np.finfo(np.float32).eps), bins + 1)  # as pyFAI has them
    z, y, x = (np.asarray(axis).reshape(where.shape) for axis in theirs.calc_pos_zyx(corners=False))
    for mine, its in ((-where.x, x), (where.y, y), (where.z, z)):  # its x axis is the other way
        np.testing.assert_allclose(mine, its, atol=1e-8)  # m; its corners are float32
    # its positions, else pixels at the edges of bins change places; to it all pixels have one area
    seen = algorithms.Positions(x, y, z, np.ones(where.shape))
    # pixels on the edge of a bin, which pyFAI knows to float32, are masked in both
    mask = (
        mask
        & ~on_an_edge(seen.q(ENERGY), edges)
        & ~on_an_edge(np.degrees(seen.azimuth), np.linspace(-180, 180, sectors + 1))
    )
    table = algorithms.prepare_azimuthal(
        seen, bins=edges, energy=ENERGY, azimuths=sectors, mask=mask, polarisation=polarisation
    )
    mine = algorithms.integrate(image[None], table, error=error)
    choices = {
        "unit": "q_A^-1", "radial_range": span, "mask": ~mask.reshape(-1, 1024), "error_model": error,
        "polarization_factor": polarisation, "method": ("no", "csr", "cython"),
    }  # fmt: skip
    flat = image.reshape(-1, 1024)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if sectors == 1:
            found = theirs.integrate1d(flat, bins, **choices)
        else:
            found = theirs.integrate2d(flat, bins, sectors, azimuth_range=(-180, 180), **choices)
    np.testing.assert_allclose(found.radial, table.centres, rtol=1e-6)
    count = np.asarray(found.count).reshape(sectors, bins)
    filled = count > 0
    assert np.array_equal(count, mine.pixels[0])
    expected = np.asarray(found.intensity).reshape(sectors, bins)
    np.testing.assert_allclose(mine.intensity[0][filled], expected[filled], rtol=1e-5)
    figures("azimuthal bins within 1e-5 of pyFAI", bins=int(filled.sum()), pixels=int(count.sum()))
    if error:
        sigma = np.asarray(found.sigma).reshape(sectors, bins)
        # of the scatter pyFAI keeps a running mean along the ring; ours is that of the final one
        tolerance = 1e-5 if error == "poisson" else 5e-4
        np.testing.assert_allclose(mine.error[0][filled], sigma[filled], rtol=tolerance)


def on_an_edge(values, edges):
    """Whether values lie within a thousandth of a bin of an edge."""
    place = (values - edges[0]) / (edges[1] - edges[0])
    return np.abs(place - np.rint(place)) < 1e-3


def test_it_is_the_plain_mean_of_numpy(where, image, mask):
    edges = np.linspace(0.005, 0.06, 41)
    table = algorithms.prepare_azimuthal(
        where, bins=edges, unit="radius", mask=mask, weighted=False, polarisation=0.9, azimuths=4
    )
    mine = algorithms.integrate(image[None], table, error="azimuthal")
    corrected = image / (where.solid_angle * where.polarisation(0.9))
    for sector in range(4):
        low = -180 + 90 * sector
        inside = mask & (np.degrees(where.azimuth) >= low) & (np.degrees(where.azimuth) < low + 90)
        for k in (12, 17, 24):
            values = corrected[inside & (where.radius >= edges[k]) & (where.radius < edges[k + 1])]
            assert mine.pixels[0, sector, k] == len(values)
            np.testing.assert_allclose(mine.intensity[0, sector, k], values.mean(), rtol=1e-10)
            np.testing.assert_allclose(
                mine.error[0, sector, k], values.std() / np.sqrt(len(values)), rtol=1e-8
            )


def test_uneven_bins_equal_even_ones_with_the_same_edges(where, image):
    even = algorithms.prepare_azimuthal(where, bins=50, unit="two_theta", span=(3.0, 30.0))
    edges = np.sort(np.append(np.linspace(3.0, 30.0, 51), 31.0))
    odd = algorithms.prepare_azimuthal(where, bins=edges, unit="two_theta")
    a, b = algorithms.integrate(image[None], even), algorithms.integrate(image[None], odd)
    # a pixel within rounding of an edge may fall either way
    assert np.abs(a.pixels[0, 0] - b.pixels[0, 0, :50]).sum() <= 2
    np.testing.assert_allclose(a.intensity[0, 0], b.intensity[0, 0, :50], rtol=1e-3)


def test_rings_lie_where_they_were_planted():
    scene = Scene(rings=(40.0, 70.0, 95.0), ring_level=3.0, peaks=0, background=0.1, gap=0)
    picture = Picture(scene=scene, seed=2, name="cam", segments=(0,), frame_shape=(220, 240), dtype="f4")
    frames = np.stack([picture.frame(e, 0, 1.0) - picture.pedestals[0] for e in range(4)])
    pixel, distance = 75e-6, 0.05
    where = algorithms.flat_positions((220, 240), pixel=pixel, distance=distance, centre=picture.centre)
    table = algorithms.prepare_azimuthal(
        where, bins=240, unit="radius", span=(0, 120 * pixel), solid_angle=False
    )
    profile = algorithms.integrate(frames, table).intensity.mean(axis=0)[0]
    at = table.centres / pixel
    for ring in picture.rings:
        near = np.abs(at - ring) < 6
        peak = np.average(at[near], weights=np.clip(profile[near] - 0.1 * 20, 0, None))
        # some thousand photons in a ring of sigma 2: the centroid is known to 0.03 pixels
        assert abs(peak - ring) < 0.1
    q = algorithms.prepare_azimuthal(where, bins=240, energy=ENERGY, solid_angle=False)
    ring = 4 * np.pi * ENERGY / HC * np.sin(np.arctan(70 * pixel / distance) / 2)
    profile = algorithms.integrate(frames, q).intensity.mean(axis=0)[0]
    near = np.abs(q.centres - ring) < 0.08
    assert abs(q.centres[near][np.argmax(profile[near])] - ring) < 0.02


def test_an_energy_per_event_moves_the_bins(where, image):
    frames = np.stack([image, image, image])
    energies = np.array([9000.0, 9500.0, np.nan])
    moving = algorithms.prepare_azimuthal(where, bins=100, span=(0.3, 2.3))
    found = algorithms.integrate(frames, moving, energies)
    for event, energy in enumerate(energies[:2]):
        fixed = algorithms.prepare_azimuthal(where, bins=100, span=(0.3, 2.3), energy=float(energy))
        alone = algorithms.integrate(image[None], fixed)
        assert np.array_equal(found.intensity[event], alone.intensity[0], equal_nan=True)
    assert np.isnan(found.intensity[2]).all()
    assert (found.pixels[2] == 0).all()


def test_any_chunking_gives_the_same_profile(where, image, mask):
    time = np.datetime64("2024-06-14", "ns") + np.arange(4)
    frames = xr.DataArray(
        np.stack([image * k for k in range(4)]), {"time": time}, ("time", "panel", "row", "col")
    )
    frames[2, 1] = np.nan
    energy = xr.DataArray(np.linspace(9000, 9300, 4), {"time": time}, "time")
    table = algorithms.prepare_azimuthal(where, bins=200, span=(0.3, 2.3), mask=mask, azimuths=3)
    whole = analysis.integrate(frames, table, energy, error="poisson")
    assert dict(whole.sizes) == {"time": 4, "azimuth": 3, "q": 200}
    for chunks in ({"time": 1}, {"time": 3, "panel": 1}):
        lazy = analysis.integrate(frames.chunk(chunks), table, energy, error="poisson")
        xr.testing.assert_identical(lazy.compute(), whole)
    assert analysis.integrate(frames[:0], table, energy[:0])["intensity"].shape == (0, 3, 200)
    flat = algorithms.prepare_azimuthal(where, bins=200, energy=ENERGY)
    assert analysis.integrate(frames[0], flat)["intensity"].dims == ("q",)


def test_a_missing_panel_counts_in_no_bin(where, image):
    table = algorithms.prepare_azimuthal(where, bins=100, energy=ENERGY)
    broken = np.stack([image, image])
    broken[1, 0] = np.nan
    found = algorithms.integrate(broken, table)
    half = algorithms.prepare_azimuthal(
        where, bins=table.edges, energy=ENERGY, mask=np.arange(2)[:, None, None] * np.ones(where.shape)
    )
    only = algorithms.integrate(image[None], half)
    np.testing.assert_array_equal(found.pixels[1], only.pixels[0])
    np.testing.assert_allclose(found.intensity[1], only.intensity[0], rtol=1e-12)
    broken[:] = np.nan
    assert np.isnan(algorithms.integrate(broken, table).intensity).all()


def test_what_cannot_be_is_refused(where, image):
    with pytest.raises(ValueError, match="need energy="):
        algorithms.prepare_azimuthal(where)
    with pytest.raises(ValueError, match="edges of bins increase"):
        algorithms.prepare_azimuthal(where, bins=[1.0, 1.0], unit="radius")
    with pytest.raises(ValueError, match="a mask of"):
        algorithms.prepare_azimuthal(where, energy=1.0, mask=np.ones(3))
    with pytest.raises(ValueError, match="unit='r'"):
        algorithms.prepare_azimuthal(where, unit="r")
    with pytest.raises(ValueError, match="give one per event"):
        algorithms.integrate(image[None], algorithms.prepare_azimuthal(where, bins=[0.1, 0.2]))
    flat = geometry.default_geometry("epix100a")
    with pytest.raises(ValueError, match="give distance="):
        algorithms.pixel_positions(geometry.placed(flat, *flat.panels[0][-1].key, origin=(0.0, 0.0, 0.0)))
