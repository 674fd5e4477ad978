"""What is exported is what was in the run, whatever happens on the way."""

import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import export as export_module
from psana_dask import simulate
from psana_dask.errors import ExportError, NameNotFound
from psana_dask.export import Wanted, begin, export, finish, hdf5_file, plan, write_piece
from psana_dask.simulate import Detector, RunSpec, demo_run

FORMATS = (".zarr", ".h5")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Cut small runs into many pieces."""
    monkeypatch.setattr(plan, "CHUNK_BYTES", 2**18)
    monkeypatch.setattr(plan, "PIECE_BYTES", 2**20)
    monkeypatch.setattr(plan, "SMALL_BYTES", 2**12)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    demo_run(folder, 40)
    return psana_dask.open_run(folder)


def opened(path, group):
    options = {"engine": "h5netcdf"} if path.suffix == ".h5" else {"engine": "zarr", "consolidated": False}
    with xr.open_dataset(path, group=group, **options) as data:
        return data.load()


def check_equal(expected, found):
    assert set(expected.variables) == set(found.variables)
    for name, variable in expected.variables.items():
        values = found[name].values
        assert found[name].dims == variable.dims, name
        assert values.dtype == variable.dtype or variable.dtype.kind == "U", name
        np.testing.assert_array_equal(values, variable.values, err_msg=str(name))
        kept = {k: v for k, v in variable.attrs.items() if k != "units"}
        for key, value in kept.items():
            np.testing.assert_array_equal(found[name].attrs[key], value, err_msg=f"{name}.{key}")


@pytest.mark.parametrize(
    ("suffix", "compression"), [(".zarr", "lz4"), (".zarr", None), (".h5", "lz4"), (".h5", "zstd")]
)
def test_every_value_of_a_run_comes_back(run, tmp_path, suffix, compression):
    path = export(run, tmp_path / f"all{suffix}", compression=compression)
    for name, detector in run.detectors.items():
        check_equal(detector.dataset(None), opened(path, name))
    check_equal(run.events, opened(path, "events"))
    check_equal(run.scan, opened(path, "steps"))
    for name in run.epics:
        check_equal(run.epics[name].to_dataset(name="value"), opened(path, f"epics/{name}"))
    assert opened(path, None).attrs["experiment"] == run.experiment
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_run_with_missing_pieces_comes_back(rich_run, tmp_path):
    for suffix in FORMATS:
        path = export(rich_run, tmp_path / f"rich{suffix}")
        for name, detector in rich_run.detectors.items():
            check_equal(detector.dataset(None), opened(path, name))


def test_a_selection_is_exported_in_time_order(run, tmp_path):
    chosen = run.isel([30, 3, 17, 3])
    found = opened(export(chosen, tmp_path / "some.zarr", ["epixquad"]), "epixquad")
    check_equal(run.isel([3, 17, 30])["epixquad"].dataset(None), found)


def test_fields_and_regions_are_chosen(run, tmp_path):
    roi = {"epixquad": {"panel": slice(1, 3), "row": slice(10, 20)}}
    path = export(run, tmp_path / "roi.h5", ["epixquad.raw", "gmd"], roi=roi)
    with h5py.File(path) as file:
        assert set(file) >= {"epixquad", "gmd", "events"}
        assert "hsd" not in file
        assert "aux" not in file["epixquad"]
        expected = run.epixquad.field("raw", chunks=None)[:, 1:3, 10:20].values
        np.testing.assert_array_equal(file["epixquad/raw"][()], expected)


def test_calibrated_frames_and_images_are_exported(run, tmp_path):
    pedestals = np.random.default_rng(0).normal(100, 5, (7, 4, 352, 384)).astype(np.float32)
    known = psana_dask.open_run(run.files, calib={"pedestals": pedestals})
    found = opened(export(known, tmp_path / "made.zarr", ["epixquad.calib", "epixquad.image"]), "epixquad")
    detector = known.epixquad
    np.testing.assert_array_equal(found["calib"].values, detector.calibrated(chunks=None).values)
    image = detector.assembled(calibrated=True, chunks=None)
    np.testing.assert_array_equal(found["image"].values, image.values)
    np.testing.assert_array_equal(found["x"].values, image.x.values)
    assert found["image"].attrs["calibrated"]
    assert "raw" not in found


def test_own_variables_go_along(run, tmp_path):
    own = xr.Dataset({"sum": ("time", np.arange(len(run)) * 0.5)}, {"time": run.events.time.values})
    path = export(run, tmp_path / "own.h5", "gmd", own=own)
    check_equal(own, opened(path, "own"))


def test_what_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(NameNotFound, match="epixquad"):
        export(run, tmp_path / "x.zarr", ["epixqad"])
    with pytest.raises(NameNotFound, match="row"):
        export(run, tmp_path / "x.zarr", ["epixquad"], roi={"epixquad": {"rows": slice(3)}})
    with pytest.raises(ExportError, match=r"\.zarr"):
        export(run, tmp_path / "x.txt")
    with pytest.raises(ExportError, match="lz4"):
        export(run, tmp_path / "x.zarr", compression="gzip")
    assert not list(tmp_path.iterdir())


def test_a_finished_export_is_replaced_only_when_asked(run, tmp_path):
    path = export(run, tmp_path / "a.zarr", "gmd")
    with pytest.raises(ExportError, match="overwrite"):
        export(run, path, "hsd")
    export(run, path, "hsd", overwrite=True)
    assert "spectrum" in opened(path, "hsd")
    assert not (path / "gmd").exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_steps_of_an_export_can_be_repeated(run, tmp_path, suffix):
    wanted = Wanted(("epixquad.raw", "gmd"))
    path = tmp_path / f"steps{suffix}"
    _, made = begin(run, path, wanted)
    begin(run, path, wanted)
    with pytest.raises(ExportError, match="missing, first 0"):
        finish(path)
    for piece in reversed(made.pieces):
        write_piece(run, path, piece.number, wanted)
        write_piece(run, path, piece.number, wanted)
    assert not path.exists()
    assert finish(path) == finish(path) == path
    check_equal(run.epixquad.dataset(None).drop_vars("aux"), opened(path, "epixquad"))


def test_pieces_of_another_export_are_refused(run, tmp_path):
    path = tmp_path / "a.zarr"
    begin(run, path, Wanted("epixquad"))
    with pytest.raises(ExportError, match="begin it"):
        write_piece(run, path, 0, Wanted("gmd"))
    with pytest.raises(ExportError, match="unfinished"):
        export(run, path, "gmd")
    with pytest.raises(ExportError, match="no piece 999"):
        write_piece(run, path, 999, Wanted("epixquad"))
    (tmp_path / "a.zarr.part" / "plan.json").write_text("{")
    with pytest.raises(ExportError, match="remove"):
        export(run, path, "epixquad")


def unfinished(path, pattern):
    """Return what there is of an export that is not finished."""
    return sorted(path.with_name(f"{path.name}.part").glob(pattern))


def test_one_process_writes_each_chunk_once(run, tmp_path, monkeypatch):
    sizes = []

    def watched(workshop, *rest):
        sizes.append(sum(f.stat().st_size for f in workshop.folder.rglob("*") if f.is_file()))
        return finished(workshop, *rest)

    finished = hdf5_file.finish
    monkeypatch.setattr(hdf5_file, "finish", watched)
    path = export(run, tmp_path / "once.h5", "epixquad.raw", compression=None)
    frames = run.epixquad.field("raw", chunks=None)
    assert frames.nbytes < sizes[0] < 1.1 * frames.nbytes  # before the end all is there, nothing twice
    np.testing.assert_array_equal(opened(path, "epixquad").raw.values, frames.values)


@pytest.mark.parametrize("in_kernel", [True, False])
def test_pieces_that_others_wrote_are_taken_over(run, tmp_path, monkeypatch, in_kernel):
    def refused(*_):
        raise OSError(errno.EXDEV, "not between these")

    def stop(done, total):
        if done % 7 == 0:
            raise KeyboardInterrupt

    if not in_kernel:
        monkeypatch.setattr(os, "copy_file_range", refused)
    path, wanted = tmp_path / "again.h5", Wanted("epixquad.raw")
    for attempt in range(1, 3):
        with pytest.raises(KeyboardInterrupt):
            export(run, path, wanted.names, progress=stop)
        assert len(unfinished(path, "pieces/*.h5")) == attempt
    assert len(unfinished(path, "done/*")) >= 14
    _, made = begin(run, path, wanted)
    write_piece(run, path, made.pieces[-1].number, wanted)  # as a job of an array does
    assert len(unfinished(path, "pieces/*.chunks")) == 1
    said = []
    export(run, path, wanted.names, progress=lambda done, total: said.append(done))
    assert 15 < said[0] <= said[-1] == len(made.pieces)
    expected = run.epixquad.field("raw", chunks=None)
    np.testing.assert_array_equal(opened(path, "epixquad").raw.values, expected.values)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_mark_without_its_bytes_does_not_count(run, tmp_path, suffix):
    """A computer that fails may lose the end of a file, and keep the mark."""
    path, wanted = tmp_path / f"lost{suffix}", Wanted("epixquad.raw")
    _, made = begin(run, path, wanted)
    for piece in made.pieces:
        write_piece(run, path, piece.number, wanted)
    workshop = plan.Workshop(path)
    cut, gone = (workshop.folder / workshop.place(made.pieces[k]).file for k in (3, 5))
    os.truncate(cut, cut.stat().st_size // 2)
    gone.unlink()
    (workshop.marks / "7").write_text("")
    with pytest.raises(ExportError, match=f"3 of {len(made.pieces)} pieces are missing, first 3"):
        finish(path)
    export(run, path, wanted.names)
    expected = run.epixquad.field("raw", chunks=None)
    np.testing.assert_array_equal(opened(path, "epixquad").raw.values, expected.values)


def interrupted(*_args, **_choices):
    raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("what", "instead", "there"),
    [("replace", interrupted, "gmd"), ("shutil", SimpleNamespace(rmtree=interrupted), "epixquad")],
)
def test_the_end_can_be_interrupted(run, tmp_path, monkeypatch, suffix, what, instead, there):
    path, wanted = tmp_path / f"end{suffix}", Wanted("epixquad.raw")
    for again in (finish, lambda path: export(run, path, wanted.names, overwrite=True)):
        export(run, path, "gmd", overwrite=True)
        _, made = begin(run, path, wanted, overwrite=True)
        for piece in made.pieces:
            write_piece(run, path, piece.number, wanted)
        with monkeypatch.context() as patched:
            patched.setattr(export_module, what, instead)
            with pytest.raises(KeyboardInterrupt):
                finish(path)
        assert opened(path, there)  # the old or the new one, whole
        assert again(path) == path
        check_equal(run.epixquad.dataset(None)[["raw"]], opened(path, "epixquad")[["raw"]])
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


SCRIPT = """
import sys, psana_dask
from psana_dask.export import export, plan
plan.CHUNK_BYTES, plan.PIECE_BYTES, plan.SMALL_BYTES = 2**18, 2**20, 2**12
print("ready", flush=True)
export(psana_dask.open_run(sys.argv[1]), sys.argv[2], compression=None)
print("done", flush=True)
"""

KILLER = """
import os, random, signal, sys, time
import psana_dask
from psana_dask.export import export, plan
plan.CHUNK_BYTES, plan.PIECE_BYTES, plan.SMALL_BYTES = 2**18, 2**20, 2**12
source, folder, suffix, kills, seed = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
run = psana_dask.open_run(source)
export(run, f"{folder}/warm{suffix}", compression=None)
started = time.monotonic()
export(run, f"{folder}/whole{suffix}", compression=None)
takes = time.monotonic() - started
moments = random.Random(seed)
killed = finished = 0
while killed < kills:
    path = f"{folder}/killed{finished}{suffix}"
    if not (child := os.fork()):  # this process has one thread
        export(run, path, compression=None)
        os._exit(0)
    time.sleep(moments.uniform(0, takes))
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] != 0
    finished += os.path.exists(path)  # what has the name of the result is complete
export(run, f"{folder}/killed{finished}{suffix}", compression=None)
print(killed, finished + 1)
"""


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_killed_export_goes_on(tmp_path, suffix, pytestconfig):
    """SIGKILL at random moments, again and again until it is through, then from the start."""
    kills = 60 if pytestconfig.getoption("--full") else 20
    cameras = (Detector(name="cam", kind="camera", shape=(256, 512)), Detector(name="gmd", kind="gmd"))
    source = simulate.write(RunSpec(events=60, detectors=cameras), tmp_path / "data").folder
    call = [sys.executable, "-c", KILLER, source, tmp_path, suffix, str(kills), "1"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    killed, finished = map(int, done.stdout.split())
    assert killed == kills
    print(f"{killed} kills, {finished} exports")
    for name in ("cam", "gmd", "events", "steps"):
        expected = opened(tmp_path / f"whole{suffix}", name)
        for number in range(finished):
            xr.testing.assert_identical(expected, opened(tmp_path / f"killed{number}{suffix}", name))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_file_system(run, tmp_path, suffix):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small file system to fill: {mounted.stderr.strip() or 'mount failed'}")
    try:
        path = small / f"full{suffix}"
        before = export(run, path, "gmd")
        with pytest.raises(ExportError, match="No space left"):
            export(run, path, compression=None, overwrite=True)
        xr.testing.assert_identical(
            run.gmd.dataset(None).load().drop_attrs(), opened(before, "gmd").drop_attrs()
        )
        workshop = plan.Workshop(path)
        done = sum(map(workshop.is_done, workshop.plan().pieces))  # a mark that found no room may lie there
        assert done > 1
        subprocess.run(["mount", "-o", "remount,size=300m", str(small)], check=True)
        said = []
        export(run, path, compression=None, overwrite=True, progress=lambda k, total: said.append(k))
        assert said[0] == done + 1  # it went on
        check_equal(run.epixquad.dataset(None), opened(path, "epixquad"))
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_full_disk_keeps_what_was_there(run, tmp_path):
    script = SCRIPT.replace("import sys,", "import resource, sys,").replace(
        'print("ready"', 'resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); print("ready"'
    )
    script = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + script
    path = tmp_path / "full.zarr"
    done = subprocess.run(
        [sys.executable, "-c", script, os.path.dirname(run.files[0]), str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "ExportError: cannot write" in done.stderr
    assert "run again to go on" in done.stderr
    assert not path.exists()
    export(run, path, compression=None)
    check_equal(run.epixquad.dataset(None), opened(path, "epixquad"))
