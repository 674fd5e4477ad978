"""Compiled code and where it is kept."""

import subprocess
import sys

import numba
import numpy as np
import pytest

import psana_dask
from psana_dask.jit import array, int64, njit


def doubled(values):
    total = 0
    for value in values:
        total += 2 * value
    return total


def test_kernels_are_kept_in_the_users_cache(tmp_path):
    with psana_dask.set_options(cache_dir=tmp_path):
        kernel = njit(int64(array("i8")))(doubled)
    assert kernel(np.arange(4)) == 12
    assert list((tmp_path / "kernels").rglob("*doubled*.nbc"))


def test_other_packages_keep_their_own_cache(tmp_path):
    with psana_dask.set_options(cache_dir=tmp_path):
        njit()(doubled)
    assert str(tmp_path) not in numba.config.CACHE_DIR


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "file").write_text("")
    with psana_dask.set_options(cache_dir=tmp_path / "file" / "cache"):
        kernel = njit(int64(array("i8")))(doubled)
    assert kernel(np.arange(4)) == 12


@pytest.mark.parametrize("writable", [False, True])
def test_arrays_that_may_be_changed_are_said_to_be(tmp_path, writable):
    with psana_dask.set_options(cache_dir=tmp_path):
        kernel = njit(int64(array("i8", writable=writable)))(doubled)
    values = np.arange(4)
    values.flags.writeable = False
    if writable:
        with pytest.raises(TypeError, match="No matching definition"):
            kernel(values)
    else:
        assert kernel(values) == 12


def test_a_run_opens_where_nothing_can_be_kept(rich, tmp_path):
    (tmp_path / "file").write_text("")
    script = (
        "import sys, psana_dask, psana_dask.columns\n"
        "run = psana_dask.open(sys.argv[1])\n"
        "with psana_dask.set_options(cache_dir=sys.argv[2]):\n"
        "    psana_dask.recording.forget_all()\n"
        "    run = psana_dask.open(sys.argv[1])\n"
        "    print(len(run), int(run.epix.raw.sum()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(rich.folder), str(tmp_path / "file" / "cache")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split()[0] == "40"
    assert done.stderr == ""
