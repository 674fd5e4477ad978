"""What the README promises to a newcomer: the example runs, links lead somewhere, CI times the way in."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import psana_dask

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLE = re.search(r"## Twelve lines\n```python\n(.*?)```", README, re.DOTALL)[1]


def pages():
    command = ["git", "ls-files", "*.md"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = tracked.stdout.split() or [str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")]
    return [name for name in names if (ROOT / name).exists()]


def test_the_example_has_twelve_lines_and_finds_the_mean(tmp_path, monkeypatch):
    from matplotlib import pyplot

    assert len(EXAMPLE.splitlines()) == 12
    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("agg")
    names = {}
    exec(EXAMPLE, names)
    assert len(pyplot.get_fignums()) == 2
    pyplot.close("all")
    picture, laser = names["truth"].picture("epixquad"), names["laser"]
    energy = float(laser.mean("gmd.milliJoulesPerPulse"))
    off = names["mean"].values - picture.assembled(picture.expected * energy)
    assert abs(np.nanmean(off)) < 0.01  # photons; noise of the mean of 270,000 pixels is 0.0003
    copy = psana_dask.open(tmp_path / "laser.zarr")
    assert np.array_equal(copy.epixquad.calib[0].values, laser.epixquad.calib[0].values)


def test_ci_times_the_first_command_of_the_readme():
    script = (ROOT / ".ci/run").read_text()
    first = re.search(r"^    (.*psana-dask demo)$", README, re.MULTILINE)[1]
    install, demo = first.split(" && ")
    timed = script.split("newcomer=")[1].split("- newcomer")[0]
    assert install.removeprefix("python -m pip install ") in timed
    assert demo in timed


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not target.startswith(("mailto:", "tutorial/")):  # made by docs/conf.py
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", pages())
def test_files_that_are_named_exist(page):
    text = (ROOT / page).read_text()
    named = re.findall(
        r"\b(?:benchmarks|examples|tests|notebooks|docs)/[\w./-]+\.(?:py|ipynb|md|svg|png)\b", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []
