"""The examples of docs/geometry.md run, in order, as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from psana_dask import geometry
from psana_dask.geometry import refine, tree
from psana_dask.geometry.defaults import default_geometry

PAGE = Path(__file__).parents[2] / "docs" / "geometry.md"


def rings():
    """What the last example calls `mean_image`: LaB6 on a Jungfrau that is 300 um off."""
    true = refine.shifted(default_geometry("jungfrau", panels=8), (300.0, -200.0, 500.0))
    x, y, z = tree.coordinates(true, frame="lab")
    angle = np.arctan2(np.hypot(x, y), z)
    image = np.random.default_rng(1).normal(1.0, 0.1, angle.shape)
    for ring in refine.two_theta(refine.spacings("LaB6"), 1.3):
        image += 20 * np.exp(-0.5 * ((angle - ring) / 1e-3) ** 2)
    return image


def test_examples_run():
    pytest.importorskip("matplotlib")
    space = {"mean_image": rings()}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, space)
    back, panels = space["back"], space["panels"]
    np.testing.assert_array_equal(back, panels)
    # the geometry of the page was moved by 500 um along z, which the rings undo
    assert np.abs(np.subtract(space["fit"].shift, (300.0, -200.0, 0.0))).max() < 30


def test_the_namespace_has_what_it_lists():
    code = "import psana_dask.geometry as g, sys; print('numpy' in sys.modules, dir(g) == sorted(g.__all__))"
    lean = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # nothing heavy before the first name is used
    assert lean.stdout.split() == ["False", "True"]
    assert all(getattr(geometry, name) is not None for name in geometry.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        geometry.nothing  # noqa: B018


def test_every_module_is_mentioned():
    folder = PAGE.parents[1] / "psana_dask" / "geometry"
    public = {p.stem for p in folder.glob("*.py")} - {"__init__", "kernels", "tables", "segments", "tiles"}
    public |= {p.stem for p in (folder / "convert").glob("*.py")} - {"__init__"}
    text = PAGE.read_text()
    assert {name for name in public if name not in text} == set()
