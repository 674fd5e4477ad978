"""prepare and apply: fused equals stepwise, stacks equal events, regions equal wholes."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from psana_dask.calib import gain
from psana_dask.calib.apply import (
    apply,
    common_mode,
    correct_common_mode,
    gain_ranges,
    multiply_gain,
    prepare,
    subtract_pedestals,
    used_pixels,
)
from psana_dask.calib.constants import Constants
from psana_dask.calib.detectors import GENERIC, Detector, detector
from psana_dask.errors import ConstantsError, ConstantsNotFound

# a small detector of each decoding, with banks that divide its panels
SMALL = {
    "jungfrau": Detector("Jungfrau", decoding=detector("Jungfrau").decoding, gain="divide", banks=(2, 4),
                         common_mode=(7, 7, 100, 3)),
    "switched": Detector("Epix10ka", decoding=detector("Epix10ka").decoding, gain="divide", banks=(2, 4),
                         common_mode=(7, 7, 100, 3)),
    "plain": Detector("Epix100a", banks=(2, 4), common_mode=(4, 6, 300, 300)),
}
SHAPE = (2, 32, 64)


def made(kind, events=5, share=0.05):
    r = np.random.default_rng(11)
    row = SMALL[kind]
    planes = max(1, len(row.decoding.ranges))
    peds = r.normal(3000, 100, (planes, *SHAPE)).astype(np.float32)
    gains = r.normal(40, 2, (planes, *SHAPE)).astype(np.float32)
    status = (r.random(SHAPE) < 0.02).astype(np.uint64)
    raw = r.integers(2900, 3100, (events, *SHAPE)).astype(np.uint16)
    ranges = None
    if kind == "jungfrau":
        raw |= (r.choice(4, raw.shape, p=[1 - 3 * share, share, share, share]) << 14).astype(np.uint16)
    if kind == "switched":
        raw |= ((r.random(raw.shape) < share).astype(np.uint16) << 14)
        ranges = gain.allowed_ranges(r.choice(np.array([0, 16, 12, 28, 8, 4], np.uint8), SHAPE))
    if kind == "plain":
        peds, gains = peds[0], gains[0]
    constants = {"pedestals": peds, "pixel_gain": gains, "pixel_status": status}
    return raw, constants, row, ranges


def reference(raw, constants, row, ranges):
    """The rule in plain numpy, without common mode."""
    peds, gains = (np.asarray(constants[k]).reshape(-1, *SHAPE) for k in ("pedestals", "pixel_gain"))
    good = constants["pixel_status"] == 0
    index = gain.gain_range(raw, row.decoding, ranges)
    at = np.maximum(index, 0)
    pick = [np.take_along_axis(c, at[e][None], axis=0)[0] for c in (peds, gains) for e in range(len(raw))]
    ped, fac = np.stack(pick[: len(raw)]), np.stack(pick[len(raw) :])
    value = (raw & row.decoding.data_bits).astype(np.float32)
    factor = np.float32(1) / fac if row.gain == "divide" else fac
    return np.where((index >= 0) & good, (value - ped) * factor, 0).astype(np.float32)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_equals_plain_numpy(kind, share):
    raw, constants, row, ranges = made(kind, share=share)
    tables = prepare(constants, row, ranges=ranges, common_mode=None)
    assert np.array_equal(apply(raw, tables), reference(raw, constants, row, ranges))


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("common_mode", [None, "default"])
def test_fused_equals_stepwise_and_stack_equals_events(kind, common_mode):
    raw, constants, row, ranges = made(kind)
    tables = prepare(constants, row, ranges=ranges, common_mode=common_mode)
    stack = apply(raw, tables)
    steps = subtract_pedestals(raw, tables)
    if common_mode is not None:
        before = steps.copy()
        correct_common_mode(steps, raw, tables)
        assert not np.array_equal(steps, before)
    multiply_gain(steps, raw, tables)
    assert np.array_equal(stack, steps)
    assert np.array_equal(stack, np.stack([apply(event, tables) for event in raw]))


@pytest.mark.parametrize("kind", SMALL)
def test_out_is_written_and_returned(kind):
    raw, constants, row, ranges = made(kind)
    tables = prepare(constants, row, ranges=ranges)
    out = np.full(raw.shape, 7, np.float32)
    assert apply(raw, tables, out) is out
    assert np.array_equal(out, apply(raw, tables))


@pytest.mark.parametrize("kind", SMALL)
def test_regions_equal_the_whole(kind):
    raw, constants, row, ranges = made(kind)
    tables = prepare(constants, row, ranges=ranges, common_mode=None)
    part = tables.region(panels=slice(1, 2), rows=slice(4, 20), cols=slice(None, 33))
    assert tables.unit == "pixel"
    assert part.shape == (1, 16, 33)
    assert part.use.size == 16 * 33
    region = np.s_[:, 1:2, 4:20, :33]
    assert np.array_equal(apply(raw[region], part), apply(raw, tables)[region])
    assert np.array_equal(gain_ranges(raw[region], part), gain_ranges(raw, tables)[region])


@pytest.mark.parametrize("kind", SMALL)
def test_panels_with_a_common_mode(kind):
    raw, constants, row, ranges = made(kind)
    tables = prepare(constants, row, ranges=ranges)
    assert tables.unit == "panel"
    part = tables.region(panels=[1])
    assert np.array_equal(apply(raw[:, 1:], part), apply(raw, tables)[:, 1:])
    with pytest.raises(ValueError, match="needs a whole panel"):
        tables.region(rows=slice(0, 16))


def test_an_event_wide_common_mode_is_not_cut():
    _, constants, row, _ = made("plain")
    tables = prepare(constants, row, common_mode=(1, 1e9, 1e9, 1, 1, 0, 1))
    assert tables.unit == "event"
    with pytest.raises(ValueError, match="needs a whole event"):
        tables.region(panels=[0])


def test_a_function_as_common_mode():
    raw, constants, row, _ = made("plain")

    def centre(values, used):
        values -= values[used.astype(bool)].mean()

    out = apply(raw, prepare(constants, row, common_mode=centre, gain=False))
    good = constants["pixel_status"] == 0
    assert np.abs(out[:, good].mean(axis=1)).max() < 1e-3  # float32 means of values around 100


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_any_type_of_pixels_on_any_detector(dtype):
    r = np.random.default_rng(0)
    raw = r.integers(0, 120, (3, 8, 9)).astype(dtype)
    peds = r.normal(50, 1, (8, 9)).astype(np.float32)
    out = apply(raw, prepare({"pedestals": peds}, GENERIC))
    assert np.array_equal(out, raw.astype(np.float32) - peds)


def test_negative_pixels_keep_their_sign():
    raw = np.array([[[-5, 20000], [-32768, 32767]]], np.int16)
    out = apply(raw, prepare({"pedestals": np.zeros((1, 2, 2), np.float32)}))
    assert out.tolist() == raw.tolist()


def test_strided_raw_data():
    raw, constants, row, _ = made("plain")
    tables = prepare(constants, row)
    assert np.array_equal(apply(raw[::2], tables), apply(raw, tables)[::2])


@pytest.mark.parametrize("kind", SMALL)
def test_fill_nan_marks_what_is_bad(kind):
    raw, constants, row, ranges = made(kind)
    nan = apply(raw, prepare(constants, row, ranges=ranges, fill=np.nan))
    zero = apply(raw, prepare(constants, row, ranges=ranges))
    tables = prepare(constants, row, ranges=ranges)
    bad = (constants["pixel_status"] != 0) | (gain_ranges(raw, tables) == -1)
    assert np.array_equal(np.isnan(nan), np.broadcast_to(bad, raw.shape))
    assert np.array_equal(np.nan_to_num(nan), zero)


def test_used_pixels_are_steady_and_good():
    raw, constants, row, _ = made("jungfrau")
    tables = prepare(constants, row)
    wanted = (raw >> 14 == 0) & (constants["pixel_status"] == 0)
    assert np.array_equal(used_pixels(raw, tables) == 1, wanted)


def test_nan_constants_stay_nan_even_where_masked():
    peds = np.zeros((2, 2), np.float32)
    peds[0, 1] = np.nan
    status = np.zeros((2, 2), np.uint64)
    status[0, 1] = 1
    out = apply(np.ones((2, 2), np.uint16), prepare({"pedestals": peds, "pixel_status": status}))
    assert np.array_equal(out, [[1, np.nan], [1, 1]], equal_nan=True)


def test_gain_zero_gives_zero_where_it_divides():
    out = apply(np.ones((1, 2), np.uint16),
                prepare({"pedestals": np.zeros((1, 2)), "pixel_gain": np.array([[0, 4]])}, xtc2=True))
    assert out.tolist() == [[0, 0.25]]


def test_default_gain_of_epix100_in_lcls2():
    out = apply(np.full((704, 768), 100, np.uint16),
                prepare({"pedestals": np.zeros((704, 768))}, detector("epix100"), xtc2=True))
    assert np.allclose(out, 6.0, rtol=1e-6)  # 0.06 keV per ADU, rounded to float32


def test_constants_objects_and_arrays_are_equal():
    raw, constants, row, _ = made("plain")
    objects = {k: Constants(k, v) for k, v in constants.items()}
    assert np.array_equal(apply(raw, prepare(objects, row)), apply(raw, prepare(constants, row)))


def test_the_constant_overrides_the_default_common_mode():
    _, constants, row, _ = made("plain")
    off = prepare({**constants, "common_mode": np.array([0.0])}, row)
    assert off.common_mode is None
    assert prepare(constants, row).common_mode is not None


@pytest.mark.parametrize(("change", "message"), [
    ({"pedestals": np.zeros((3, 2, 32, 60))}, "pixel_gain has shape"),
    ({"pixel_gain": np.ones(7)}, "pixel_gain has shape"),
    ({"pixel_status": np.ones((2, 32, 63), np.uint64)}, "pixel_status has shape"),
    ({"pedestals": np.zeros(SHAPE)}, r"an event has \(32, 64\) with 3 gain ranges"),
    ({"pixel_gain": np.ones((3, 2, 64, 32))}, "pixel_gain has shape"),
    ({"pixel_status": np.ones((2, 64, 32), np.uint64)}, "pixel_status has shape"),
    ({"common_mode": [7.0, np.nan]}, "finite numbers"),
    ({"common_mode": [42.0]}, "no common-mode algorithm 42"),
    ({"common_mode": [7.0]}, "needs 1 parameters or more"),
])
def test_constants_that_do_not_fit(change, message):
    raw, constants, row, _ = made("jungfrau")
    with pytest.raises(ConstantsError, match=message):
        apply(raw, prepare({**constants, **change}, row))


def test_without_gain():
    peds = np.zeros((704, 768), np.float32)
    tables = prepare({"pedestals": peds}, detector("epix100"), xtc2=True, gain=False)
    assert (apply(np.full((704, 768), 7, np.uint16), tables) == 7).all()


def test_big_endian_and_read_only_data():
    raw, constants, row, _ = made("plain")
    tables = prepare(constants, row)
    foreign = raw.astype(">u2")
    foreign.flags.writeable = False
    assert np.array_equal(apply(foreign, tables), apply(raw, tables))


def test_raw_data_that_do_not_fit():
    raw, constants, row, _ = made("plain")
    with pytest.raises(ConstantsError, match=r"raw data of shape \(5, 2, 32, 60\) do not fit"):
        apply(raw[..., :60], prepare(constants, row))


def test_missing_pedestals():
    with pytest.raises(ConstantsNotFound, match="values would be raw counts"):
        prepare({"pixel_gain": np.ones((2, 2))})


def test_epix10ka_needs_its_configuration():
    _, constants, row, _ = made("switched")
    with pytest.raises(ConstantsError, match="allowed_ranges"):
        prepare(constants, row)


def test_outputs_of_the_wrong_kind():
    raw, constants, row, _ = made("plain")
    with pytest.raises(ValueError, match="C-contiguous float32"):
        apply(raw, prepare(constants, row), np.zeros(raw.shape, np.float64))


def test_masks_are_not_cached():
    """Both psana caches return the first mask; a second call here obeys its arguments."""
    raw, constants, row, _ = made("plain")
    first = apply(raw, prepare(constants, row, common_mode=None))
    second = apply(raw, prepare(constants, row, common_mode=None, mask=False))
    bad = constants["pixel_status"] != 0
    assert not first[:, bad].any()
    assert second[:, bad].all()


def test_constants_of_more_panels_than_the_data():
    raw, constants, row, _ = made("plain")
    tables = prepare(constants, row, panels=[1])
    assert tables.shape == (1, 32, 64)
    assert np.array_equal(apply(raw[:, 1:], tables), apply(raw, prepare(constants, row))[:, 1:])
    with pytest.raises(ConstantsError, match=r"has 2 panels, the data have panels \[2\]"):
        prepare(constants, row, panels=[2])


def test_cspad2x2_constants_in_the_order_of_the_daq():
    peds = np.random.default_rng(0).normal(0, 1, (185, 388, 2)).astype(np.float32)
    tables = prepare({"pedestals": peds}, detector("Cspad2x2"), common_mode=None)
    assert tables.shape == (2, 185, 388)
    assert np.array_equal(apply(np.zeros((2, 185, 388), np.int16), tables), 0 - peds.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", SMALL)
def test_tables_travel_and_threads_share_them(kind):
    """A worker gets pickled tables; its threads calibrate at the same time."""
    raw, constants, row, ranges = made(kind, events=8)
    tables = prepare(constants, row, ranges=ranges)
    sent = pickle.loads(pickle.dumps(tables))
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda event: apply(event, sent), raw))
    assert np.array_equal(np.stack(parts), apply(raw, tables))


@pytest.mark.parametrize(("name", "xtc2", "planned"), [
    ("Epix100a", False, True), ("epix100", True, False), ("epix10ka", True, True), ("jungfrau", True, False),
])
def test_where_the_common_mode_constant_counts(name, xtc2, planned):
    row = detector(name)
    planes = len(row.decoding.ranges)
    shape = (1, *row.shape[-2:])
    peds = np.zeros((planes, *shape) if planes else shape, np.float32)
    ranges = np.zeros((2, *shape), np.int8) if row.decoding.kind == "switched" else None
    tables = prepare({"pedestals": peds, "common_mode": [7, 1, 50]}, row, xtc2=xtc2, ranges=ranges)
    assert (tables.common_mode is not None) == planned


@pytest.mark.parametrize("kind", SMALL)
def test_one_scratch_serves_a_loop_over_events(kind):
    raw, constants, row, ranges = made(kind)
    tables = prepare(constants, row, ranges=ranges)
    scratch, out = tables.scratch(), np.empty(SHAPE, np.float32)
    for event, wanted in zip(raw, apply(raw, tables), strict=True):
        assert np.array_equal(apply(event, tables, out, scratch), wanted)


# ---- each step switched, replaced, inspected ------------------------------------------------------
@pytest.mark.parametrize("kind", SMALL)
def test_steps_can_be_switched_off(kind):
    raw, constants, row, ranges = made(kind)
    options = {"ranges": ranges, "common_mode": None}
    counts = apply(raw, prepare(constants, row, pedestals=False, gain=False, mask=False, **options))
    index = gain.gain_range(raw, row.decoding, ranges)
    assert np.array_equal(counts, np.where(index >= 0, raw & row.decoding.data_bits, 0))
    without = prepare({"pixel_gain": constants["pixel_gain"]}, row, pedestals=False, shape=SHAPE, **options)
    assert np.array_equal(
        apply(raw, without), apply(raw, prepare(constants, row, pedestals=False, mask=False, **options))
    )


@pytest.mark.parametrize("kind", SMALL)
def test_arrays_take_the_place_of_constants(kind):
    raw, constants, row, ranges = made(kind)
    peds, gains = constants["pedestals"] + 3, constants["pixel_gain"] * 2
    given = prepare(constants, row, ranges=ranges, pedestals=peds, gain=gains)
    other = prepare({**constants, "pedestals": peds, "pixel_gain": gains}, row, ranges=ranges)
    assert np.array_equal(apply(raw, given), apply(raw, other))


@pytest.mark.parametrize("kind", SMALL)
def test_functions_take_the_place_of_steps(kind):
    raw, constants, row, ranges = made(kind)
    peds, factor = prepare(constants, row, ranges=ranges, common_mode=None), 0.25
    expected = subtract_pedestals(raw, peds)
    expected *= factor
    expected[gain_ranges(raw, peds) == 0] *= 3
    expected[(constants["pixel_status"] != 0)[None].repeat(len(raw), 0)] = 0
    if kind != "plain":
        expected[gain_ranges(raw, peds) < 0] = 0

    def subtract(words, index):
        bare = {k: v for k, v in constants.items() if k == "pedestals"}
        return subtract_pedestals(words, prepare(bare, row, ranges=ranges, common_mode=None))

    def scale(values, index):
        values *= factor
        values[index == 0] *= 3

    tables = prepare(constants, row, ranges=ranges, common_mode=None, pedestals=subtract, gain=scale)
    assert tables.unit == "event"
    np.testing.assert_array_equal(apply(raw, tables), expected)
    np.testing.assert_array_equal(apply(raw[0], tables), expected[0])


def test_a_function_makes_the_mask_from_the_one_of_the_status_words():
    raw, constants, row, _ = made("plain")

    def also_the_first_row(mask):
        mask[:, 0] = 0
        return mask

    good = constants["pixel_status"] == 0
    good[:, 0] = False
    values = apply(raw, prepare(constants, row, mask=also_the_first_row))
    assert np.array_equal(values, apply(raw, prepare(constants, row, mask=good)))
    assert not values[:, ~good].any()


@pytest.mark.parametrize("kind", SMALL)
def test_the_common_mode_alone(kind):
    raw, constants, row, ranges = made(kind)
    tables = prepare(constants, row, ranges=ranges)
    subtracted = subtract_pedestals(raw, tables)
    found = common_mode(raw, tables)
    corrected = correct_common_mode(subtracted.copy(), raw, tables)
    assert np.array_equal(found, subtracted - corrected)
    assert found.any()


def test_an_unknown_choice_is_an_error():
    _, constants, row, _ = made("plain")
    with pytest.raises(TypeError, match="colour"):
        prepare(constants, row, colour=1)
