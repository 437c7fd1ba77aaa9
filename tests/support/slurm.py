"""A real Slurm of its own for tests: two emulated nodes of this machine, on loopback, in a temporary folder; needs root."""

import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from support.postgres import free_port

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue")
NODES = ("n1", "n2")


def why_not() -> str:
    """Reason for which Slurm cannot be had here; empty if it can."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


class Slurm:
    """A cluster with the partitions `main`, whose jobs are requeued when preempted, and `urgent`, which preempts them.

    There is no accounting. Credentials expire after 5 s, so that a requeued job starts soon.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path is short
        self.folder.chmod(0o755)
        for name in ("state", "spool", "log", "munge"):
            (self.folder / name).mkdir()
        self.configuration = self.folder / "slurm.conf"
        self.configuration.write_text(self._settings())
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment by which Slurm's commands ask this cluster."""
        return {"SLURM_CONF": str(self.configuration)}

    def start(self) -> None:
        """Start all daemons, and wait until both nodes are idle."""
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        for path in (munge, munge / "key"):
            shutil.chown(path, "munge")
            path.chmod(0o700 if path.is_dir() else 0o400)
        parts = {"key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={munge / name}" for option, name in parts.items()]
        shutil.chown(self.folder, "munge")
        self._daemon("munged", "munged", "--foreground", "--force", f"--socket={self._socket}", *options, user="munge")
        self.start_controller()
        for node in NODES:
            self._daemon(node, "slurmd", "-D", "-f", str(self.configuration), "-N", node)
        for _ in range(120):
            if self.ask("sinfo", "--noheader", "--format=%D %t").split() == ["2", "idle"]:
                return
            time.sleep(0.5)
        raise RuntimeError((self.folder / "log" / "slurmctld").read_text()[-2000:])

    def start_controller(self) -> None:
        """Start slurmctld, again too: it knows its jobs from before."""
        self._daemon("slurmctld", "slurmctld", "-D", "-f", str(self.configuration))

    def stop_controller(self) -> None:
        """End slurmctld; jobs go on."""
        self._end("slurmctld")

    def stop(self) -> None:
        """End all."""
        with suppress(subprocess.CalledProcessError):
            self.ask("scancel", "--user=root", "--signal=KILL")
        for name in reversed(list(self._processes)):
            self._end(name)

    def ask(self, *command: str) -> str:
        """Output of a command of Slurm."""
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True)
        return done.stdout

    @property
    def _socket(self) -> Path:
        return self.folder / "munge.sock"

    def _daemon(self, name: str, *command: str, user: str | None = None) -> None:
        with (self.folder / "log" / name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | self.environment, start_new_session=True, user=user
            )

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _settings(self) -> str:
        host, folder = platform.node().partition(".")[0], self.folder
        settings = {
            "ClusterName": "tests",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "SlurmctldPort": free_port(),
            "AuthType": "auth/munge",
            "CredType": "cred/munge",
            "AuthInfo": f"socket={self._socket},cred_expire=5",
            "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
            "StateSaveLocation": folder / "state",
            "SlurmdSpoolDir": folder / "spool" / "%n",
            "SlurmctldPidFile": folder / "slurmctld.pid",
            "SlurmdPidFile": folder / "slurmd-%n.pid",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "SwitchType": "switch/none",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            "DefMemPerCPU": 512,
            "SlurmdParameters": "config_overrides",
            "SchedulerParameters": "sched_interval=5,bf_interval=5,batch_sched_delay=1",
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "JobRequeue": 1,
            "ReturnToService": 2,
            "KillWait": 30,  # as by default
            "MessageTimeout": 30,
            "AccountingStorageType": "accounting_storage/none",
        }
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 RealMemory=8000"
            for node in NODES
        ]
        partitions = [
            "PartitionName=main Nodes=n1,n2 Default=YES State=UP PriorityTier=10 PreemptMode=REQUEUE",
            "PartitionName=urgent Nodes=n1,n2 State=UP PriorityTier=100 PreemptMode=OFF",
        ]
        lines = [f"{name}={value}" for name, value in settings.items()]
        return "\n".join([*lines, *nodes, *partitions, ""])


@contextmanager
def running() -> Iterator[Slurm]:
    """A cluster that runs meanwhile, and leaves nothing."""
    cluster = Slurm()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(cluster.folder, ignore_errors=True)
