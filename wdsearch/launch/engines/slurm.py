"""Workers as a Slurm array, through submitit: requeued when they are preempted, and when their time is up."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from wdsearch.launch.engines._base import (
    ENDED,
    RUNNING,
    WAITING,
    Launcher,
    LauncherOptions,
    LaunchError,
    Order,
    files_in,
    in_environment,
)

NEEDED = "the engine slurm needs submitit: pip install 'wdsearch[slurm]'"


class SlurmOptions(LauncherOptions):
    """Options for sbatch."""

    partition: str | None = None
    """Partition; by default the cluster's own."""
    time: int = 240
    """Minutes that a worker may run; after that it is requeued, and goes on."""
    cpus: int = 1
    """CPU cores of each worker."""
    memory_gb: float | None = None
    """Memory of each worker."""
    gpus: int = 0
    """GPUs of each worker."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that a node must have."""
    at_once: int = 256
    """Most workers of the array that run at the same time."""
    requeues: int = 100
    """Times that a worker may be requeued because its time was up; preemptions do not count."""
    warning_s: int = 90
    """Seconds before its time is up at which a worker is warned."""
    setup: tuple[str, ...] = ()
    """Shell lines before Python starts, such as `module load cuda`."""
    sbatch: dict[str, Any] = Field(default_factory=dict)
    """Further options of sbatch, as they are: {mail-type: END}."""


class SlurmWorker:
    """The callable that submitit runs in each task, at first and after each requeue."""

    def __init__(self, study: str) -> None:
        self.study = study

    def __call__(self) -> None:
        """Work until the study is done."""
        from wdsearch.search.run import work

        work(self.study, progress="lines")

    def checkpoint(self) -> Any:
        """Go on after a requeue, from the study's storage."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Slurm(Launcher[SlurmOptions]):
    """A job array of sbatch."""

    name = "slurm"
    summary = "a job array of Slurm"
    options = SlurmOptions
    spans = True

    def script(self, order: Order, options: SlurmOptions) -> str:
        """The file that sbatch is given."""
        executor = self._executor(order, options)
        executor.parameters["map_count"] = order.workers
        return str(executor._make_submission_file_text(executor._submitit_command_str, "worker"))

    def start(self, order: Order, options: SlurmOptions) -> list[str]:
        """Submit the array; a job is a task of it, such as 12_0. The storage's password travels in the environment alone."""
        executor = self._executor(order, options)
        from submitit.helpers import clean_env

        # within a Slurm job, as of a schedule, only variables that users set themselves are passed on
        user_set = {
            name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")
        }
        try:
            with clean_env(), in_environment(user_set | dict(order.environment)), executor.batch():
                jobs = [executor.submit(SlurmWorker(order.study)) for _ in range(order.workers)]
        except Exception as error:  # submitit's own, and CalledProcessError
            raise LaunchError(f"sbatch refuses: {_message(error)}") from error
        return [str(job.job_id) for job in jobs]

    def states(self, jobs: Sequence[str], options: SlurmOptions) -> dict[str, str]:
        """Each job's state by squeue, which forgets ended jobs; a cluster without accounting knows no more."""
        output = _slurm("squeue", "--noheader", "--array", "--states=all", "--format=%i %T")
        listed = dict(line.split() for line in output.splitlines() if len(line.split()) == 2)
        return {job: _STATES.get(listed.get(job, ""), ENDED) for job in jobs}

    def stop(self, jobs: Sequence[str], options: SlurmOptions) -> None:
        """Cancel with SIGTERM first, as Slurm does."""
        left = [job for job, state in self.states(jobs, options).items() if state != ENDED]
        if left:
            _slurm("scancel", *left)

    def logs(self, jobs: Sequence[str], folder: Path, options: SlurmOptions) -> dict[str, str]:
        """The tasks' output and errors."""
        return files_in(folder, "*_log.*")

    def _executor(self, order: Order, options: SlurmOptions) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise LaunchError(NEEDED) from error
        try:
            executor = submitit.SlurmExecutor(order.folder, max_num_timeout=options.requeues)
        except RuntimeError as error:
            raise LaunchError(f"no Slurm on this machine: {error}") from error
        executor.update_parameters(
            job_name=f"wdsearch-{order.study}",
            partition=options.partition,
            time=options.time,
            cpus_per_task=options.cpus,
            mem=f"{options.memory_gb * 1024:.0f}MB" if options.memory_gb else None,
            gpus_per_node=options.gpus or None,
            account=options.account,
            qos=options.qos,
            constraint=options.constraint,
            array_parallelism=options.at_once,
            signal_delay_s=options.warning_s,
            setup=list(options.setup) or None,
            stderr_to_stdout=True,
            additional_parameters={"requeue": True, **options.sbatch},
        )
        return executor


_STATES = {
    "PENDING": WAITING,
    "REQUEUED": WAITING,
    "REQUEUE_HOLD": WAITING,
    "SUSPENDED": WAITING,
    "CONFIGURING": WAITING,
    "RUNNING": RUNNING,
    "COMPLETING": RUNNING,
    "PREEMPTED": WAITING,
}


def _slurm(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    except FileNotFoundError as error:
        raise LaunchError(f"no Slurm on this machine: there is no {command[0]}") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{command[0]} fails: {_message(error)}") from error


def _message(error: Exception) -> str:
    message = getattr(error, "stderr", None) or str(error)
    return str(message.decode() if isinstance(message, bytes) else message).strip()
