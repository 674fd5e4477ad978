"""What a run shows of itself: detectors by kind, constants, steps, EPICS, problems; nothing executes."""

import re
import socket
import time
from html.parser import HTMLParser

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.calib.store import MemoryStore
from psana_dask.calib.webdb import WebStore
from psana_dask.describe import run_facts, summaries
from psana_dask.simulate import PV, Algorithm, Detector, Enum, Epics, Field, RunSpec, Scan

NASTY = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Seen(HTMLParser):
    """Collects elements, their attributes and the text of a page, and checks that elements close."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return simulate.write(simulate.demo_spec(32), tmp_path_factory.mktemp("described"))


@pytest.fixture
def run(demo):
    return psana_dask.open(demo.folder, calib=demo.calib)


def test_detectors_stand_by_kind(run):
    kinds = {one.name: one.kind for one in summaries(run)}
    assert list(kinds) == ["epixquad", "opal", "hsd", "gmd", "timing"]
    assert list(kinds.values()) == ["pixels", "pixels", "samples", "values", "timing"]
    assert run_facts(run)["detectors"]["epixquad"]["constants"] == "runs 0-end"


def test_html_says_what_is_there(run):
    text = Seen(run._repr_html_()).text
    for words in ("tstx00117 run 1", "32 events", "2024-06-14 06:12:03.000 UTC", "Pixel detectors",
                  "4×352×384", "4 steps of delay -1 to 2", "4 EPICS variables, 4 moved", "TST:SAMPLE:TEMP",
                  "✓ runs 0-end"):  # fmt: skip
        assert words in text, words


def test_enums_have_names_and_numbers_a_course(run):
    seen = Seen(run._repr_html_())
    assert "OPEN" in seen.text
    assert "CLOSED" in seen.text
    assert seen.tags.count("svg") == 4  # the events in time, and three variables that are numbers


def test_a_selection_says_so(run):
    text = Seen(run.select(run.evr.has(90))._repr_html_()).text
    assert "16 of 32 events" in text
    assert "evr 90" in text


def test_html_of_a_detector(run):
    text = Seen(run.opal._repr_html_()).text
    assert "serial opal-1234" in text
    assert all(field in text for field in run.opal.fields)


def test_nothing_of_a_file_becomes_markup(tmp_path):
    detector = Detector(
        name="det", det_type=NASTY, det_id=NASTY, algorithms=(Algorithm("raw", fields=(Field("x"),)),)
    )
    words = (PV("T", lambda m: f"{NASTY} {m.event}", "str", address=NASTY),
             PV("E", lambda m: m.event % 2, "enum", Enum("e", {NASTY: 0, "b": 1}), NASTY))  # fmt: skip
    spec = RunSpec(
        experiment="e<b>p", events=4, steps=2, detectors=(detector,), epics=(Epics(pvs=words),), slow_every=1,
        scan=Scan(motors={NASTY.replace("/", ""): np.array([1.0, 2.0])}), partial_tail={0: 9},
    )  # fmt: skip
    truth = simulate.write(spec, tmp_path / "<b>data")
    with pytest.warns(psana_dask.errors.PartialRunWarning):
        run = psana_dask.open(truth.folder)
    for page in (run._repr_html_(), run.det._repr_html_()):
        seen = Seen(page)
        assert not {"script", "img", "b>data"} & set(seen.tags)
        assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert NASTY in Seen(run._repr_html_()).text


# ---- constants ----------------------------------------------------------------------------------
def words_of(run):
    return {one.name: one.constants.words for one in summaries(run) if one.constants}


def test_no_constants(demo):
    assert words_of(psana_dask.open(demo.folder)) == {"epixquad": "none", "opal": "none"}


def test_constants_of_other_runs_are_not_in_force(demo, tmp_path):
    found = demo.calib.find("opal", "pedestals", 1).constants
    psana_dask.calib.deploy({"pedestals": found.value}, tmp_path, "opal", runs=(5, 8), comment="later")
    words = words_of(psana_dask.open(demo.folder, calib=tmp_path))
    assert words == {"epixquad": "none", "opal": "only runs 5-8"}
    psana_dask.calib.deploy({"pedestals": found.value}, tmp_path, "opal", runs=1, comment="from run 1 on")
    assert words_of(psana_dask.open(demo.folder, calib=tmp_path))["opal"] == "runs 1-end"


def test_the_repr_never_waits_for_a_service(demo, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        run = psana_dask.open(demo.folder, calib=[MemoryStore(()), WebStore("tstx00117", url, tmp_path)])
        began = time.perf_counter()
        pages = repr(run), run._repr_html_(), repr(run.opal), run.opal._repr_html_()
        assert time.perf_counter() - began < 5  # the store itself waits longer than that
        silent.settimeout(0.05)
        with pytest.raises(TimeoutError):
            silent.accept()
    assert re.search(r"opal .* asked when used", pages[0])
    assert "? asked when used" in pages[1]
