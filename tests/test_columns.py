"""Columns on disk: whole or not at all, and never trusted blindly."""

import errno
import os
import threading

import numpy as np
import pytest

from psana_dask.columns import load_columns, save_columns

COLUMNS = {
    "time": np.arange(5, dtype="<i8"),
    "flag": np.array([1, 0, 1], "u1"),
    "none": np.zeros(0, "<f4"),
    "shape": np.array([7], "<u4"),
}


def test_columns_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "er" / "columns"
    assert save_columns(path, COLUMNS, {"what": ["anything", 1, None]})
    columns, about = load_columns(path)
    assert about == {"what": ["anything", 1, None]}
    assert columns.keys() == COLUMNS.keys()
    for name, want in COLUMNS.items():
        assert columns[name].dtype == want.dtype
        np.testing.assert_array_equal(columns[name], want)


def test_columns_are_memory_maps_that_nobody_can_change(tmp_path):
    path = tmp_path / "columns"
    save_columns(path, COLUMNS, {})
    columns, _ = load_columns(path)
    with pytest.raises(ValueError, match="read-only"):
        columns["time"][0] = 1
    assert all(c.__array_interface__["data"][0] % 64 == 0 for c in columns.values() if len(c))


def test_the_file_is_whole_or_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "columns"
    save_columns(path, COLUMNS, {"version": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "replace", full)
    assert not save_columns(path, COLUMNS, {"version": 2})
    assert load_columns(path)[1] == {"version": 1}
    assert os.listdir(tmp_path) == ["columns"]


def test_many_writers_at_once_leave_one_sound_file(tmp_path):
    path = tmp_path / "columns"
    big = [{"x": np.full(200_000, k, "<i8")} for k in range(8)]
    writers = [threading.Thread(target=save_columns, args=(path, c, {})) for c in big]
    for writer in writers:
        writer.start()
    while any(w.is_alive() for w in writers):
        found = load_columns(path)
        assert found is None or len(np.unique(found[0]["x"])) == 1
    assert len(np.unique(load_columns(path)[0]["x"])) == 1
    assert os.listdir(tmp_path) == ["columns"]


DAMAGE = {
    "nothing": lambda b: b"",
    "no head": lambda b: b"\n" + b,
    "cut": lambda b: b[:-1],
    "longer": lambda b: b + b"\0",
    "head only": lambda b: b[: b.index(b"\n") + 1],
    "half a head": lambda b: b[:20],
    "other format": lambda b: b.replace(b"psana_dask columns 1", b"psana_dask columns 0"),
    "not json": lambda b: b"x" + b[1:],
    "not text": lambda b: b"\xff" + b[1:],
    "a list": lambda b: b"[1]\n" + b,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_no_file(tmp_path, damage):
    path = tmp_path / "columns"
    save_columns(path, COLUMNS, {})
    path.write_bytes(damage(path.read_bytes()))
    assert load_columns(path) is None


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "columns"  # its folder cannot be made, whoever asks
    assert not save_columns(path, COLUMNS, {})
    assert load_columns(path) is None
