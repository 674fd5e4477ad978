"""Keys of events, in every form that users have."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import psana_dask
from psana_dask.keys import parse_keys, parse_time, times

MOMENT = np.datetime64("2014-06-14T06:12:03.5", "ns")
SECONDS = 1_402_726_323 - 631_152_000  # since 1990-01-01, of the same moment
WORD = SECONDS << 32 | 500_000_000

FORMS = {
    "datetime64": MOMENT,
    "datetime64 of a coarser unit": np.datetime64("2014-06-14T06:12:03.500", "ms"),
    "0-d array": np.array(MOMENT),
    "text": "2014-06-14T06:12:03.5",
    "text with a space": " 2014-06-14 06:12:03.5 ",
    "zulu": "2014-06-14T06:12:03.5Z",
    "small z": "2014-06-14T06:12:03.5z",
    "offset": "2014-06-14T08:12:03.5+02:00",
    "offset without colon": "2014-06-13T23:12:03.5-0700",
    "datetime": dt.datetime(2014, 6, 14, 6, 12, 3, 500_000),  # noqa: DTZ001  (naive is UTC)
    "datetime with a zone": dt.datetime(2014, 6, 14, 7, 12, 3, 500_000, dt.timezone(dt.timedelta(hours=1))),
    "pandas": pd.Timestamp("2014-06-14T06:12:03.5"),
    "pandas with a zone": pd.Timestamp("2014-06-14T06:12:03.5", tz="UTC").tz_convert("US/Pacific"),
    "xarray": xr.DataArray(MOMENT),
    "(seconds, nanoseconds)": (SECONDS, 500_000_000),
    "(seconds, nanoseconds, fiducial)": (SECONDS, 500_000_000, 12345),
    "word": WORD,
    "numpy word": np.uint64(WORD),
    "0-d array of a word": np.array(WORD),
}


@pytest.mark.parametrize("key", FORMS.values(), ids=FORMS)
def test_one_key(key):
    keys = parse_keys(key)
    assert keys.single
    assert (keys.values.shape, keys.are_words) == ((1,), keys.values.dtype.kind == "u")
    found = times(key)
    assert (found.shape, found.dtype) == ((), np.dtype("M8[ns]"))
    assert found == MOMENT


@pytest.mark.parametrize("kind", FORMS)
def test_lists_of_keys(kind):
    found = times([FORMS[kind]] * 2)
    assert found.dtype == "M8[ns]"
    assert found.tolist() == [int(MOMENT.astype(int))] * 2


@pytest.mark.parametrize("key", [MOMENT, np.uint64(WORD), np.int64(WORD)])
def test_arrays_of_keys(key):
    assert times(np.array([key, key])).tolist() == times([key, key]).tolist() == [int(MOMENT.astype(int))] * 2


def test_series_and_coordinates():
    index = pd.DatetimeIndex([MOMENT, MOMENT + 1])
    for many in (index, pd.Series(index), xr.DataArray(index.values, dims="time"), index.values):
        assert times(many).tolist() == [MOMENT.astype(int), MOMENT.astype(int) + 1]
        assert not parse_keys(many).single


def test_words_of_lcls1_count_from_1970():
    assert times((1_402_726_323, 500_000_000), format="xtc") == MOMENT
    assert times([1_402_726_323 << 32 | 5], format="xtc")[0] == np.datetime64("2014-06-14T06:12:03.000000005")


def test_pandas_keeps_nanoseconds():
    assert times(pd.Timestamp("2014-06-14T06:12:03.123456789")) == np.datetime64(
        "2014-06-14T06:12:03.123456789"
    )


def test_fiducials_are_kept():
    keys = parse_keys([(5, 6, 7), (8, 9)])
    assert keys.fiducials.tolist() == [7, -1]
    assert keys.values.tolist() == [5 << 32 | 6, 8 << 32 | 9]


def test_a_pair_of_large_numbers_is_two_words():
    keys = parse_keys((WORD, WORD + 1))
    assert (keys.values.tolist(), keys.single) == ([WORD, WORD + 1], False)


def test_no_keys_at_all():
    assert times([]).shape == (0,)
    assert times(np.zeros(0, "M8[ns]")).shape == (0,)


@given(st.integers(0, 2**32 - 1), st.integers(0, 999_999_999))
def test_words_and_pairs_agree(seconds, nanoseconds):
    assert times((seconds, nanoseconds)) == times(seconds << 32 | nanoseconds)
    assert parse_keys((seconds, nanoseconds)).values[0] == seconds << 32 | nanoseconds


MOMENTS = st.datetimes(*(dt.datetime(year, 1, 1) for year in (1970, 2200)))  # noqa: DTZ001


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_any_offset(moment, minutes):
    sign, size = "-" if minutes < 0 else "+", abs(minutes)
    text = f"{moment.isoformat()}{sign}{size // 60:02}:{size % 60:02}"
    assert parse_time(text) == np.datetime64(moment, "ns") - np.timedelta64(minutes, "m")


@pytest.mark.parametrize("text", ["", "yesterday", "2014-06-14T25:00", "06:12:03", "12/06/2014"])
def test_text_that_is_no_time(text):
    with pytest.raises(ValueError, match=r"is no time: use 2014-06-14T06:12:03.5, also with Z or \+01:00"):
        parse_time(text)


@pytest.mark.parametrize("key", [1.5, None, [1.5], len, [(1, 2, 3, 4)], [True]])
def test_what_is_no_key(key):
    with pytest.raises(TypeError, match="is no event key: use a datetime64, an ISO string"):
        parse_keys(key)


def test_two_forms_in_one_list():
    with pytest.raises(TypeError, match="several forms in one list: use either times or raw words"):
        parse_keys([WORD, MOMENT])


def test_the_function_is_public():
    from psana_dask import run  # noqa: F401  (nothing that is imported later may hide it)

    assert psana_dask.times is times
