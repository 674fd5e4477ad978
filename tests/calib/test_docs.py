"""The page on calibration names tests that exist, and its examples run."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/calibration.md").read_text()


def test_every_difference_from_psana_names_a_test_that_exists():
    table = PAGE.split("## Where this differs from psana")[1].split("\n\n")[2]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) > 20
    for row in rows:
        what, cell = row.split("|")[1], row.split("|")[5]
        names = re.findall(r"(?:`(tests/[\w/]+\.py)::)?`?(test_\w+)`", cell)
        assert names or "HDF5" in what, what
        last = "tests/conformance/test_calib.py"
        for path, name in names:
            last = path or last
            assert f"def {name}(" in (ROOT / last).read_text(), f"{last}::{name}"


def test_examples_without_data_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    scope = {}
    run = [block for block in blocks if "psana_dask.open" not in block]
    for block in run:
        exec(compile(block, "docs/calibration.md", "exec"), scope)
    assert len(run) == 3
