"""A run as users meet it: names, text, completion, two at once, travelling, and quick imports."""

import html
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import psana_dask
from psana_dask import recording, simulate
from psana_dask.errors import NameNotFound, PartialRunWarning
from psana_dask.simulate import PV, Algorithm, Detector, Epics, Field, Missing, RunSpec

GMD = Detector(name="gmd", kind="gmd")


# ---- facts --------------------------------------------------------------------------------------
def test_facts(rich, rich_run):
    assert (rich_run.experiment, rich_run.number, rich_run.format) == ("tstx00117", 7, "xtc2")
    assert (rich_run.start, rich_run.stop) == (rich.times[0], rich.times[-1])
    assert rich_run.files == list(map(str, rich.files))
    assert len(rich_run) == 40
    assert list(rich_run.problems.columns) == ["file", "offset", "event", "what"]
    assert len(rich_run.problems) == 0


def test_problems_are_a_table_and_a_warning(tmp_path):
    truth = simulate.write(RunSpec(events=5, detectors=(GMD,), partial_tail={0: 9}), tmp_path)
    with pytest.warns(PartialRunWarning, match=r"9 bytes are passed over; .* at byte \d+: see run.problems"):
        run = psana_dask.open(tmp_path)
    assert isinstance(run.problems, pd.DataFrame)
    size = truth.files[0].stat().st_size
    assert run.problems[["file", "offset", "event"]].values.tolist() == [[str(truth.files[0]), size - 9, -1]]
    assert "1 problems, the first: the datagram is longer" in repr(run)
    assert "1 problems" in run._repr_html_()


# ---- text ---------------------------------------------------------------------------------------
def test_the_repr_says_what_is_there(rich_run):
    text = repr(rich_run)
    assert text.startswith("<tstx00117 run 7: 40 events>")
    assert "2024-06-14T06:12:03.000 UTC, 0.325 s, 120 events/s" in text
    assert "xtc2, 4 streams, 7 files" in text
    assert "4 steps of delay, step_value" in text
    assert "3 EPICS variables, 3 moved" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[7:] if line.strip()}
    wanted = ["epix10ka", "raw", "uint16", "3×8×12", "114", "Hz", "95.0%", "none"]
    assert rows["epix"] == wanted  # not in events 5 and 6; without constants
    assert rows["tt"][-4:] == ["24", "Hz", "20.0%", "none"]
    titles = [line.strip() for line in text.splitlines() if line.startswith("  --")]
    assert titles == ["-- Pixel detectors", "-- Waveforms and spectra", "-- Values of each event",
                      "-- Timing and event codes"]  # fmt: skip
    assert "ragged" in text
    assert "and 18 more" in text


def test_the_repr_of_a_detector(rich_run):
    text = repr(rich_run.tt)
    assert text.startswith("<Detector tt: opal, in 20.0% of the events, serial tt-1234>")
    assert "fex_ampl                 float64    scalar" in text
    assert repr(rich_run.detectors).count("<Detector") == 8


NASTY = "<script>alert('&')</script>"


def test_names_in_html_are_escaped(tmp_path):
    fields = (Algorithm("raw", fields=(Field("x"),)),)
    detector = Detector(name="det", algorithms=fields, det_type=NASTY)
    epics = (Epics(pvs=(PV("T", 1.0, address=NASTY),)),)
    simulate.write(RunSpec(experiment="e<b>p", events=3, detectors=(detector,), epics=epics), tmp_path)
    text = psana_dask.open(tmp_path)._repr_html_()
    assert "<script>" not in text
    assert html.escape(NASTY) in text
    assert "e&lt;b&gt;p run 1" in text


def test_html_shows_every_field(rich_run):
    text = rich_run._repr_html_()
    assert all(f">{field}<" in text for d in rich_run.detectors.values() for field in d.fields)


@pytest.mark.parametrize("events", [0, 1])
def test_a_run_with_hardly_any_events(tmp_path, events):
    simulate.write(RunSpec(events=events, detectors=(GMD,), slow_every=1), tmp_path)
    run = psana_dask.open(tmp_path)
    assert f"{events} events" in repr(run)
    assert len(run.events.time) == len(run.epics.at().time) == events
    assert run._repr_html_()


# ---- names --------------------------------------------------------------------------------------
def test_completion(rich_run):
    assert {"epix", "tt", "select", "events"} <= set(dir(rich_run))
    assert {"raw", "fex_ampl", "config"} <= set(dir(rich_run.tt))
    assert rich_run._ipython_key_completions_() == list(rich_run.detectors)
    assert rich_run.detectors._ipython_key_completions_() == list(rich_run.detectors)
    assert rich_run.tt._ipython_key_completions_() == rich_run.tt.fields


def test_near_misses(rich_run):
    with pytest.raises(AttributeError, match=r"no detector 'epx'; did you mean epix\?"):
        rich_run.epx  # noqa: B018
    with pytest.raises(NameNotFound, match=r"no detector 'EPXI'; did you mean epix\?"):
        rich_run["EPXI"]
    with pytest.raises(KeyError, match=r"no detector 'wav'; did you mean wave\?"):
        rich_run.detectors["wav"]
    with pytest.raises(AttributeError, match=r"no field of tt 'fex_amp'; did you mean fex_ampl"):
        rich_run.tt.fex_amp  # noqa: B018
    with pytest.raises(NameNotFound, match=r"no field of epix 'rwa'; did you mean raw\?"):
        rich_run["epix", "rwa"]


def test_looking_for_hidden_names_is_quick_and_says_no(rich_run):
    for thing in (rich_run, rich_run.epix, rich_run.config("epix")[2]):
        assert not hasattr(thing, "__array__")
        assert not hasattr(thing, "_repr_png_")


def test_one_field_has_several_paths(rich_run):
    raw = rich_run.epix.raw
    for same in (
        rich_run["epix", "raw"],
        rich_run["epix.raw"],
        rich_run["epix"]["raw"],
        rich_run.epix.field("raw"),
    ):
        assert same.identical(raw)


CLASHES = ["events", "select", "config", "epics_", "start"]


@pytest.mark.parametrize("name", CLASHES)
def test_a_detector_named_like_an_attribute(tmp_path, name):
    truth = simulate.write(RunSpec(events=3, detectors=(Detector(name=name, kind="gmd"),)), tmp_path)
    run = psana_dask.open(tmp_path)
    (own,) = run.detectors
    want = [truth.value(name, "milliJoulesPerPulse", e) for e in range(3)]
    assert len(run.events.time) == 3
    assert run[own].milliJoulesPerPulse.values.tolist() == want
    assert getattr(run, f"{own}_").milliJoulesPerPulse.values.tolist() == want
    assert f"{own}_" in dir(run) or not hasattr(type(run), own)


def test_search(rich_run):
    assert rich_run.search("TEMP") == ["temperature", "TST:TEMP"]
    assert rich_run.search("ampl") == ["tt.fex_ampl"]
    assert rich_run.search("nothing like it") == []


# ---- several runs at once -----------------------------------------------------------------------
def test_two_runs_open_at_once_are_independent(tmp_path):
    specs = [RunSpec(number=n, events=6 + n, seed=n, detectors=(GMD,)) for n in (1, 2)]
    truths = [simulate.write(spec, tmp_path) for spec in specs]
    runs = [psana_dask.open(tmp_path, run=n) for n in (1, 2)]
    lazy = [run.gmd.milliJoulesPerPulse for run in runs]
    both = (lazy[0][:6].mean() - lazy[1][:6].values.mean()).values
    wants = [[t.value("gmd", "milliJoulesPerPulse", e) for e in range(t.spec.events)] for t in truths]
    for run, array, want in zip(runs, lazy, wants, strict=True):
        assert array.values.tolist() == want
        assert len(run) == len(want)
    assert both == np.float32(wants[0][:6]).mean() - np.float32(wants[1][:6]).mean()


def test_the_same_run_with_other_options(rich):
    strict, kept, one = (
        psana_dask.open(rich.folder),
        psana_dask.open(rich.folder, damaged="keep"),
        psana_dask.open(rich.folder, streams=[2]),
    )
    assert not strict.epix.raw[5].values.any()
    assert kept.epix.raw[5].values.any()
    assert one.epix.raw.dims == ("time", "row", "col")  # one segment is in this stream
    assert not strict.epix.raw[5].values.any()


def test_a_run_that_was_opened_again_after_it_grew_stays_as_it_was(tmp_path):
    growing = simulate.grow(RunSpec(events=9, detectors=(GMD,), in_progress=True), tmp_path)
    runs = [psana_dask.open(tmp_path) for entry in growing if entry.event in (3, 7)]
    assert [len(r) for r in runs] == [4, 8]
    first, second = (r.gmd.milliJoulesPerPulse.values for r in runs)
    assert first.tolist() == second[:4].tolist()


def test_many_runs_may_be_opened(tmp_path):
    simulate.write(RunSpec(events=3, detectors=(GMD,)), tmp_path)
    for k in range(40):
        psana_dask.open(tmp_path, streams=[0] * k or None)
    assert len(recording._opened) <= recording._MOST_OPEN


# ---- travelling ---------------------------------------------------------------------------------
def test_a_run_travels(rich, rich_run, elsewhere, expected):
    code = "len(x), repr(x), x.epix.raw[4:8].values, x.isel([3]).epics.at().temperature.values.tolist()"
    length, text, frames, temperature = elsewhere(rich_run, code)
    assert (length, text) == (40, repr(rich_run))
    np.testing.assert_array_equal(frames, expected(rich, "epix", "raw")[4:8])
    assert temperature == [rich.epics("temperature")[3]]


def test_selections_detectors_and_readers_travel(rich, rich_run, elsewhere, expected):
    truth = expected(rich, "epix", "raw")
    sent = (
        rich_run.isel([30, 2]),
        rich_run.epix,
        rich_run.epix.raw.data,
        rich_run.dataset("epix", join="outer"),
    )
    code = "x[0].epix.raw.values, x[1].raw[2].values, x[2][3].compute(), x[3].epix_raw[4].values"
    found = elsewhere(sent, code)
    for one, want in zip(found, (truth[[30, 2]], truth[2], truth[3], truth[4]), strict=True):
        np.testing.assert_array_equal(one, want)
    reader = rich_run._view.target(rich_run._view.entries["epix"].channels["raw"]).reader()
    there = elsewhere(reader, "x.present(__import__('numpy').arange(40))")
    assert there.tolist() == rich.present("epix").tolist()


# ---- imports ------------------------------------------------------------------------------------
def imported(code, folder=""):
    """Return which of the heavy packages a fresh process has imported after `code`."""
    heavy = "[m for m in ('dask', 'xarray', 'pandas', 'numba', 'distributed', 'h5py') if m in sys.modules]"
    script = f"import sys\n{code}\nprint({heavy})"
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], check=True, capture_output=True, text=True
    )
    return eval(done.stdout)


def test_importing_the_package_is_light():
    assert imported("import psana_dask") == []
    assert imported("import psana_dask; psana_dask.errors; psana_dask.times((1, 2)); dir(psana_dask)") == []


def test_importing_the_package_is_quick():
    script = "import time; t = time.perf_counter(); import psana_dask; print(time.perf_counter() - t)"
    times = [
        float(
            subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
        )
        for _ in range(3)
    ]
    assert min(times) < 0.3


def test_opening_and_looking_need_no_dask(rich):
    look = (
        "run = psana_dask.open(sys.argv[1]); repr(run); run._repr_html_(); len(run); run.detectors; dir(run)"
    )
    assert set(imported(f"import psana_dask; {look}", rich.folder)) <= {"numba"}


def test_selecting_needs_no_dask(rich):
    choose = "run.sel(run.stop); run.select(slice(2)); run.select(run.evr.has(40))"
    code = f"import psana_dask; run = psana_dask.open(sys.argv[1]); {choose}; repr(run.isel(0))"
    assert set(imported(code, rich.folder)) <= {"numba"}


def test_a_run_of_many_events_opens_quickly(tmp_path):
    simulate.write_many(tmp_path, events=200_000, size=200, pool=1000)
    psana_dask.open(tmp_path)
    recording.forget_all()
    start = time.perf_counter()
    run = psana_dask.open(tmp_path)
    assert len(run) == 200_000
    assert time.perf_counter() - start < 1  # measured 5 ms: this only notices a scan or objects per event


def test_names_of_the_package():
    assert set(psana_dask.__all__) <= set(dir(psana_dask))
    for name in psana_dask.__all__:
        assert getattr(psana_dask, name) is not None
    with pytest.raises(AttributeError, match="module 'psana_dask' has no attribute 'opne'"):
        psana_dask.opne  # noqa: B018


def test_missing_events_of_one_stream(tmp_path):
    gone = Missing(events=(1, 2), stream=0)
    truth = simulate.write(RunSpec(events=5, detectors=(GMD,), missing=(gone,)), tmp_path)
    run = psana_dask.open(tmp_path)
    assert run.events.timestamp.values.tolist() == truth.timestamps[[0, 3, 4]].tolist()


def test_a_loop_over_a_run_gives_its_events(plain_run):
    assert [event.timestamp for event in plain_run] == plain_run.events.timestamp.values.tolist()
