"""Settings of the process."""

from pathlib import Path

import pytest

import psana_dask
from psana_dask.options import Options, current


def test_settings_hold_inside_a_block():
    before = current()
    with psana_dask.set_options(read_threads=7) as inside:
        assert inside is current()
        assert current().read_threads == 7
        with psana_dask.set_options(chunk_bytes=5):
            assert (current().read_threads, current().chunk_bytes) == (7, 5)
    assert current() == before


def test_settings_hold_for_good_without_a_block():
    before = psana_dask.set_options(read_threads=3)
    assert current().read_threads == 3
    before.__exit__(None, None, None)
    assert current().read_threads == 2


def test_a_setting_that_does_not_exist():
    with pytest.raises(ValueError, match="no such option: thread"):
        psana_dask.set_options(thread=1)


def test_folders_come_from_the_environment_unless_set(monkeypatch, tmp_path):
    monkeypatch.setenv("PSANA_DASK_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("SIT_PSDM_DATA", str(tmp_path / "b"))
    assert (Options().cache_folder(), Options().data_folder()) == (tmp_path / "a", tmp_path / "b")
    with psana_dask.set_options(cache_dir=str(tmp_path / "c"), data_root=tmp_path / "d"):
        assert (current().cache_folder(), current().data_folder()) == (tmp_path / "c", tmp_path / "d")


def test_folders_without_any_environment(monkeypatch):
    for name in ("PSANA_DASK_CACHE", "SIT_PSDM_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert Options().cache_folder() == Path.home() / ".cache" / "psana_dask"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert Options().cache_folder() == Path("/x/psana_dask")
    assert Options().data_folder().is_absolute()
