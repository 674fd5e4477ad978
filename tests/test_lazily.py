"""Names that are imported when they are first used: listed once, as imports for type checkers."""

import subprocess
import sys

import pytest

import psana_dask
from psana_dask import algorithms, analysis, calib, dark_runs, geometry, opening

PACKAGES = (psana_dask, algorithms, analysis, calib, geometry)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_imports_for_type_checkers_are_the_public_names(package):
    assert dir(package) == sorted(package.__all__)


def test_a_name_may_have_another_one_at_home_or_live_above_or_be_a_module():
    assert psana_dask.open_run is opening.open_run
    assert psana_dask.open.__name__ == "open_source"
    assert calib.dark is dark_runs.dark
    assert geometry.refine.__name__ == "psana_dask.geometry.refine"


def test_nothing_is_imported_before_a_name_is_used():
    code = f"import sys, {', '.join(p.__name__ for p in PACKAGES)}; print('numpy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False"]
