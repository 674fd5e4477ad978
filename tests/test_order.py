"""The files that are said to take longest are there: a name that nothing has would begin late, unseen."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _longest():
    spec = importlib.util.spec_from_file_location("order_of_files", ROOT / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LONGEST


@pytest.mark.parametrize("name", _longest())
def test_a_long_file_is_there(name):
    assert (ROOT / name).is_file()


def test_processes_begin_with_the_longest(tmp_path):
    """The files are taken in the order of the list, whatever the number of tests in them."""
    pytest.importorskip("xdist")
    shutil.copy(ROOT / "conftest.py", tmp_path)
    first, second = _longest()[:2]
    for name, tests in (("tests/test_a.py", 9), (second, 3), (first, 3)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"def test_{k}(): pass\n" for k in range(tests)))
    asked = ["-n", "1", "--dist", "loadfile", "-v", "--import-mode=importlib", "tests"]
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", ".", *asked]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=True)
    begun = [line.split()[-1].split("::")[0] for line in done.stdout.splitlines() if "PASSED" in line]
    assert len(begun) == 15
    assert list(dict.fromkeys(begun)) == [first, second, "tests/test_a.py"]
