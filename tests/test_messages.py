"""The messages on docs/errors.md are those that a user gets."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import Detector, RunSpec

PAGE = (Path(__file__).parents[1] / "docs/errors.md").read_text()
CASES = re.findall(r"```python\n(.*?)\n```\n```text\n(.*?)\n```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the data of an experiment, and a copy of the run that is damaged."""
    place = tmp_path_factory.mktemp("messages")
    detectors = (
        Detector(name="epixquad", kind="epix10ka", segments=4, shape=(8, 12)),
        Detector(name="gmd", kind="gmd"),
    )
    spec = RunSpec(experiment="tstx00117", number=7, events=40, detectors=detectors)
    truth = simulate.write(spec, place / "data/tst/tstx00117/xtc")
    (path,) = truth.streams[0]
    (place / "bad").mkdir()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = b"\xff" * 3000
    (place / "bad" / path.name).write_bytes(content)
    yield place
    shutil.rmtree(place)


def test_there_are_the_five_that_users_meet_most():
    kinds = {message.partition(":")[0] for _, message in CASES}
    assert kinds >= {"RunNotFound", "NameNotFound", "ConstantsNotFound", "FormatError", "MissingLibrary"}


@pytest.mark.parametrize(("code", "message"), CASES)
def test_the_message_is_what_is_said(code, message, place, monkeypatch):
    monkeypatch.chdir(place)
    for library in re.findall(r"needs (\w+):", message):
        monkeypatch.setitem(sys.modules, library, None)
    with psana_dask.set_options(data_root="data"):
        names = {"psana_dask": psana_dask, "run": psana_dask.open("exp=tstx00117:run=7")}
        with pytest.raises(Exception) as raised:  # noqa: PT011  (the page says which)
            exec(code, names)
    said = f"{raised.type.__name__}: {raised.value}".replace(f"{os.getcwd()}/", "")
    assert said == message
