"""A real Slurm on this machine: munge, a controller and a node, all on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
CPUS = 4  # claimed; more than there may be

CONF = """
ClusterName=psanatest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={port_of_node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=2
MinJobAge=5
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class Slurm:
    """A batch system of one node; a context."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.conf = self.folder / "slurm.conf"

    def __enter__(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        ports = free_ports(2)
        named = {"folder": self.folder, "cpus": CPUS, "port": ports[0], "port_of_node": ports[1]}
        self.conf.write_text(CONF.format(host=socket.gethostname().split(".")[0], **named))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        os.environ["SLURM_CONF"] = str(self.conf)
        try:
            self._start(key)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, key):
        f = self.folder
        munge = ["munged", "--force", f"--key-file={key}", f"--socket={f}/munge.sock", "--num-threads=2"]
        munge += [f"--pid-file={f}/munged.pid", f"--log-file={f}/munged.log", f"--seed-file={f}/seed"]
        for command in (munge, ["slurmctld", "-c", "-f", self.conf], ["slurmd", "-f", self.conf]):
            subprocess.run(command, check=True, timeout=30)
        until(lambda: self.ask("sinfo", "-h", "-p", "debug", "-o", "%T") == ["idle"], 30, "an idle node")

    def __exit__(self, *error):
        subprocess.run(["scancel", "-u", "root"], check=False, timeout=30)
        for name in ("slurmd", "slurmctld", "munged"):
            stop(self.folder / f"{name}.pid")
        del os.environ["SLURM_CONF"]

    def ask(self, *command):
        """Return the lines that a command prints."""
        done = subprocess.run(command, check=False, timeout=30, capture_output=True, text=True)
        return done.stdout.split("\n")[:-1]

    def jobs(self, state="R"):
        """Return the numbers of the jobs in a state."""
        return [int(line) for line in self.ask("squeue", "-h", "-t", state, "-o", "%i")]

    def until(self, ready, seconds, what):
        """Wait until `ready()` is true; what Slurm has logged is shown where it is not."""
        try:
            until(ready, seconds, what)
        except BaseException:
            for log in self.folder.glob("slurm*.log"):
                print(log.name, log.read_text()[-3000:], sep="\n")
            raise


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def stop(pid_file):
    """End a daemon by the number that it wrote, and wait until it is gone or a zombie."""
    if not pid_file.exists() or not pid_file.read_text().strip():
        return
    number = int(pid_file.read_text())
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if not alive(number):
            return
        os.kill(number, sign)
        deadline = time.monotonic() + 10
        while alive(number) and time.monotonic() < deadline:
            time.sleep(0.05)


def alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def until(ready, seconds, what):
    """Wait until `ready()` is true."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not there after {seconds} s")
        time.sleep(0.1)


@pytest.fixture(scope="session")
def slurm():
    """A running batch system; tests that want one are skipped where Slurm is not installed."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip("needs root" if not missing else f"Slurm is not installed: no {', '.join(missing)}")
    folder = tempfile.mkdtemp(prefix="psana_slurm_")  # short: a path of a socket has at most 108 bytes
    Path(folder).chmod(0o755)
    with Slurm(folder) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)
