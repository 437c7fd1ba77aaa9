"""Workers on this machine: processes of their own that outlive the one that started them."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from wdsearch.launch.engines._base import ENDED, RUNNING, Launcher, LauncherOptions, Order, files_in

STOPPING_S = 60.0
CLOCK_S = 3.0
"""Largest difference of two readings of a process's start time: a machine's start is known to the second."""
_started: list[subprocess.Popen[bytes]] = []
"""Processes to poll, so that none that ended stays as a zombie."""


class LocalOptions(LauncherOptions):
    """Options for workers that share this machine."""

    threads: int | None = None
    """CPU threads of each worker; by default the cores are divided among them."""


class Local(Launcher[LocalOptions]):
    """Processes on this machine."""

    name = "local"
    summary = "processes on this machine"
    options = LocalOptions
    spans = False

    def script(self, order: Order, options: LocalOptions) -> str:
        """The command that each process runs."""
        command = shlex.join(order.command)
        return "\n".join([f"OMP_NUM_THREADS={_threads(order, options)} {command} &"] * order.workers)

    def start(self, order: Order, options: LocalOptions) -> list[str]:
        """Start the processes; a job is a process's id with its start time, for ids are used again."""
        threads = str(_threads(order, options))
        environment = os.environ | order.environment | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        jobs = []
        for index in range(order.workers):
            with (order.folder / f"worker-{index}.log").open("ab") as log:
                process = subprocess.Popen(
                    order.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            _started.append(process)
            with suppress(psutil.NoSuchProcess):
                jobs.append(f"{process.pid}@{_started_at(psutil.Process(process.pid)):.2f}")
        return jobs

    def states(self, jobs: Sequence[str], options: LocalOptions) -> dict[str, str]:
        """Each job's state: running, or ended."""
        return {job: RUNNING if _process(job) else ENDED for job in jobs}

    def stop(self, jobs: Sequence[str], options: LocalOptions) -> None:
        """Send SIGTERM, and wait until the processes have ended, a minute at most."""
        processes = [process for job in jobs if (process := _process(job))]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(processes, timeout=STOPPING_S)

    def logs(self, jobs: Sequence[str], folder: Path, options: LocalOptions) -> dict[str, str]:
        """The log files, one for each worker."""
        return files_in(folder, "worker-*.log")


def _threads(order: Order, options: LocalOptions) -> int:
    from joblib import cpu_count  # heeds affinity and a container's share

    return options.threads or max(1, cpu_count() // order.workers)


def _process(job: str) -> psutil.Process | None:
    """The job's process if it still runs."""
    for started in _started:
        started.poll()
    number, _, started_at = job.partition("@")
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(number))
        same = abs(_started_at(process) - float(started_at)) < CLOCK_S
        if same and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _started_at(process: psutil.Process) -> float:
    """Seconds after the machine's start, which do not change when its clock is set."""
    return process.create_time() - psutil.boot_time()
