"""Tables travel by reference: small pickles, one copy per process, made again where they cannot be seen."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from psana_dask.calib import kept
from psana_dask.calib.apply import apply
from psana_dask.calib.detectors import detector
from psana_dask.calib.directory import read_text
from psana_dask.calib.tables import prepare
from psana_dask.calib.textfile import write_text
from psana_dask.errors import ConstantsError, ConstantsNotFound
from psana_dask.options import set_options

SHAPE = (2, 512, 1024)


def tables_of(level=3000, **choices):
    peds = np.full((3, *SHAPE), level, np.float32)
    peds[0] += np.arange(1024)
    return prepare({"pedestals": peds}, detector("jungfrau"), xtc2=True, **choices)


@pytest.fixture
def cache(tmp_path):
    with set_options(cache_dir=tmp_path):
        kept._opened.clear()
        yield tmp_path
    kept._opened.clear()


def test_a_pickle_is_small_and_gives_the_same_values(cache):
    tables = tables_of()
    assert tables.nbytes > 20e6
    text = pickle.dumps(tables)
    assert len(text) < 2000
    again = pickle.loads(text)
    raw = np.random.default_rng(0).integers(0, 65536, SHAPE).astype(np.uint16)
    assert np.array_equal(apply(raw, again), apply(raw, tables))


def test_a_process_holds_one_copy(cache):
    text = pickle.dumps(tables_of())
    one, other = pickle.loads(text), pickle.loads(text)
    assert one.table is other.table
    different = pickle.loads(pickle.dumps(tables_of(common_mode=(7, 1, 100))))
    assert different.common_mode is not None
    assert one.common_mode is None


def test_small_tables_travel_as_they_are(cache):
    tables = prepare({"pedestals": np.ones((3, 4))}, mask=False)
    small = replace(tables, table=tables.table[:, :100])
    assert pickle.loads(pickle.dumps(small)).use.tolist() == [1] * 12
    assert not (cache / "constants").exists()


def test_they_are_made_again_where_the_file_cannot_be_seen(cache):
    tables = replace(tables_of(), again=tables_of)
    text = pickle.dumps(tables)
    for file in (cache / "constants").iterdir():
        file.unlink()
    assert np.array_equal(pickle.loads(text).table, tables.table)


def test_changed_constants_are_refused(cache):
    text = pickle.dumps(replace(tables_of(), again=partial(tables_of, 2999)))
    for file in (cache / "constants").iterdir():
        file.unlink()
    with pytest.raises(ConstantsError, match="changed since"):
        pickle.loads(text)


def test_without_a_way_to_make_them_the_error_says_what_to_do(cache):
    text = pickle.dumps(tables_of())
    for file in (cache / "constants").iterdir():
        file.write_bytes(b"cut")
    with pytest.raises(ConstantsNotFound, match="PSANA_DASK_CACHE"):
        pickle.loads(text)


def test_without_a_folder_to_write_to_they_travel_by_value(cache):
    (cache / "constants").write_text("a file where the folder should be")
    tables = tables_of()
    assert np.array_equal(pickle.loads(pickle.dumps(tables)).table, tables.table)


def test_the_folder_keeps_only_the_newest(cache, monkeypatch):
    monkeypatch.setattr(kept, "MOST_FILES", 2)
    for level in range(4):
        pickle.dumps(tables_of(level))
    assert len(list((cache / "constants").iterdir())) == 2


def test_a_large_text_file_is_parsed_once(cache, tmp_path, monkeypatch):
    value = np.random.default_rng(0).normal(1000, 30, (512, 1024)).astype(np.float32)
    path = tmp_path / "0-end.data"
    path.write_text(write_text(value))
    assert np.array_equal(read_text(path), value)
    with monkeypatch.context() as patch:
        patch.setattr("psana_dask.calib.directory.parse_text", None)
        assert np.array_equal(read_text(path), value)
    path.write_text(write_text(value + 1))  # another file is parsed anew
    assert np.array_equal(read_text(path), value + 1)
    path.unlink()
    with pytest.raises(ConstantsError, match="cannot be read: No such file"):
        read_text(path)
