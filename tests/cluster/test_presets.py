"""Presets, job scripts and wall times: no batch system is needed."""

import socket
import subprocess
import sys

import pytest

from psana_dask.cluster import presets
from psana_dask.cluster.launch import free_address, job_options, job_size, lifetime, seconds, slurm
from psana_dask.cluster.presets import Preset, preset, user_file
from psana_dask.cluster.sizes import worker_size
from psana_dask.errors import ClusterError, NameNotFound

GIB = 2**30


@pytest.fixture(autouse=True)
def no_user(tmp_path, monkeypatch):
    """Nobody's own presets."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("PSANA_DASK_CLUSTER", raising=False)


def write_own(text):
    user_file().parent.mkdir(exist_ok=True)
    user_file().write_text(text)


def script(place, **asked):
    """Return the job script of a place, as lines."""
    from psana_dask.cluster.slurm_jobs import SlurmJobs

    size, _ = job_size(place, **asked)
    options = job_options(place, size, "127.0.0.1:0")
    options.pop("interface")  # of the nodes; this machine lacks it
    with SlurmJobs(**options) as made:
        return made.job_script().splitlines()


def test_a_job_of_s3df_is_a_whole_node():
    lines = script(presets()["s3df"])
    assert {"#SBATCH -p milano", "#SBATCH --cpus-per-task=120", "#SBATCH -t 04:00:00"} <= set(lines)
    worker = lines[-1]
    for words in ("--nworkers 30", "--nthreads 4", "--lifetime 13800s", "--local-directory /lscratch/$USER"):
        assert words in worker
    assert "--preload psana_dask.cluster.worker" in worker


def test_nersc_has_a_quality_of_service_and_no_memory_line():
    lines = script(presets()["nersc"])
    assert {"#SBATCH --qos=regular", "#SBATCH --constraint=cpu"} <= set(lines)
    assert not [line for line in lines if "--mem=" in line or line.startswith("#SBATCH -p")]


def test_the_malloc_settings_stand_before_the_worker():
    lines = script(presets()["generic"])
    assert "export MALLOC_TRIM_THRESHOLD_=4294967296" in lines  # a quarter of 16 GiB
    assert [line for line in lines if line.startswith("export MALLOC_MMAP_THRESHOLD_=")]


def test_workers_make_jobs_no_larger_than_they_need():
    place = presets()["s3df"]  # 30 workers of 4 threads a node
    assert job_size(place, nodes=3) == (worker_size(120, 480 * 10**9), 3)
    size, jobs = job_size(place, workers=2)
    assert (size.workers, size.threads, size.memory, jobs) == (2, 4, 16 * 10**9, 1)
    size, jobs = job_size(place, workers=40)
    assert (size.workers, jobs) == (20, 2)
    with pytest.raises(ValueError, match="either nodes= or workers="):
        slurm("s3df", nodes=1, workers=1)


def test_own_presets_are_added_and_win_key_by_key(monkeypatch):
    write_own('[s3df]\naccount = "lcls:mine"\n[mine]\ncores = 4\ndirectives = ["--exclusive"]\n')
    assert preset("s3df") == Preset(**(vars(preset("s3df")) | {"account": "lcls:mine"}))
    assert preset("s3df").queue == "milano"
    monkeypatch.setenv("PSANA_DASK_CLUSTER", "mine")
    assert preset() == Preset(cores=4, directives=("--exclusive",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a]\nqueu = 'x'", "no key 'queu'; did you mean queue"),
        ("[a]\ncores = 'x'", "cores = 'x' is no number"),
        ("cores = 3", "'cores' stands outside of a"),
        ("[a", "clusters.toml: "),
    ],
)
def test_a_wrong_file_of_presets_says_what_is_wrong(text, words):
    write_own(text)
    with pytest.raises(ClusterError, match=words):
        presets()


def test_a_preset_that_is_not_there_names_the_nearest():
    with pytest.raises(NameNotFound, match="did you mean s3df"):
        slurm("s3fd")


def test_without_a_batch_system_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"no sbatch on this machine.*cluster\.local"):
        slurm()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", 600),
        ("10:30", 630),
        ("01:00:00", 3600),
        ("2-00", 172800),
        ("1-02:03:04", 93784),
        ("1-00:30", 88200),
    ],
)
def test_wall_times(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "1h", "-5", "1:2:3:4", "a-1"])
def test_what_is_no_wall_time(text):
    with pytest.raises(ValueError, match="HH:MM:SS"):
        seconds(text)


@pytest.mark.parametrize("walltime", ["00:02:00", "00:30:00", "04:00:00", "2-00:00:00"])
def test_workers_leave_in_time(walltime):
    _, life, _, stagger = lifetime(walltime)
    latest = int(life[:-1]) + int(stagger[:-1])
    total = seconds(walltime)
    assert 0.8 * total <= int(life[:-1]) - int(stagger[:-1])
    assert latest <= total - min(300, total // 10)


def test_a_taken_port_of_the_dashboard_becomes_a_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_address(f"127.0.0.1:{port}") == "127.0.0.1:0"
    assert free_address(f"127.0.0.1:{port}") == f"127.0.0.1:{port}"
    assert free_address(":0") == ":0"


def test_ctrl_c_stays_an_interrupt_beside_dask_jobqueue():
    script = "import signal; before = signal.getsignal(2); import psana_dask.cluster.slurm_jobs; "
    script += "import dask_jobqueue; assert signal.getsignal(2) is before"
    subprocess.run([sys.executable, "-c", script], check=True)
