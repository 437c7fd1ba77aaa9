"""Workers as tasks of one Ray job, on any nodes: started again when their process or their node is lost."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from wdsearch.launch.engines._base import ENDED, RUNNING, WAITING, Launcher, LauncherOptions, LaunchError, Order

NEEDED = "the engine ray needs Ray: pip install 'wdsearch[ray]'"
HOME = "WDSEARCH_HOME"
STOPPING_S = 120
"""Wait of Ray for a job that was asked to stop; its default of 3 seconds would cut off the delivery of records."""


class RayOptions(LauncherOptions):
    """Address of the cluster, and resources of each worker."""

    address: str = "http://127.0.0.1:8265"
    """Address at which the cluster takes jobs: its dashboard."""
    cpus: float = 1
    """CPU cores of each worker."""
    gpus: float = 0
    """GPUs of each worker; a part of one is shared."""
    memory_gb: float | None = None
    """Memory of each worker, of what the nodes offer."""
    retries: int = 10
    """Times that a worker is started again whose process or node was lost."""
    home: str | None = None
    """Folder of the studies on the nodes; by default the same as here."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Ray's runtime_env: {working_dir: ., pip: [...]}; user-defined modules and data files come this way too."""


class Ray(Launcher[RayOptions]):
    """A job of Ray's job server. The environment, the storage's password in it, is given as the job's `runtime_env`."""

    name = "ray"
    summary = "tasks of a job on a Ray cluster"
    options = RayOptions
    spans = True

    def script(self, order: Order, options: RayOptions) -> str:
        """The command that submits the job, with the names of its variables; the values may be secret."""
        names = "".join(f"{name}=... " for name in sorted(_environment(order, options)))
        submit = f"ray job submit --address {options.address} --submission-id {_job(order)} --"
        return f"{submit} \\\n  {names}{_driver(order, options)}"

    def start(self, order: Order, options: RayOptions) -> list[str]:
        """Submit one job, which has all workers."""
        environment = {**options.runtime_env, "env_vars": _environment(order, options)}
        with _client(options) as client:
            return [
                client.submit_job(
                    entrypoint=_driver(order, options),
                    submission_id=_job(order),
                    runtime_env=environment,
                    metadata={"wdsearch.study": order.study},
                )
            ]

    def states(self, jobs: Sequence[str], options: RayOptions) -> dict[str, str]:
        """Each job's state by the job server; a restarted cluster does not know earlier jobs."""
        with _client(options) as client:
            known = {job.submission_id: str(job.status) for job in client.list_jobs()}
        return {job: _STATES.get(known.get(job, ""), ENDED) for job in jobs}

    def stop(self, jobs: Sequence[str], options: RayOptions) -> None:
        """Send SIGTERM to the driver, which asks its workers to end in order; returns at once."""
        with _client(options) as client:
            for job in jobs:
                client.stop_job(job)

    def logs(self, jobs: Sequence[str], folder: Path, options: RayOptions) -> dict[str, str]:
        """All workers' lines in one text, each with its process and node."""
        with _client(options) as client:
            return {job: client.get_job_logs(job) for job in jobs}


_STATES = {"PENDING": WAITING, "RUNNING": RUNNING}


def _job(order: Order) -> str:
    return f"wdsearch-{order.study}-{order.folder.name}"


def _driver(order: Order, options: RayOptions) -> str:
    words = ["python", "-m", "wdsearch.launch.engines._ray_driver", order.study, "--workers", order.workers]
    words += ["--cpus", options.cpus, "--gpus", options.gpus, "--retries", options.retries]
    words += ["--memory-gb", options.memory_gb] if options.memory_gb else []
    return shlex.join(map(str, words))


def _environment(order: Order, options: RayOptions) -> Mapping[str, str]:
    home = {HOME: options.home} if options.home else {}
    variables = options.runtime_env.get("env_vars", {})
    return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOPPING_S), **order.environment, **home, **variables}


@contextmanager
def _client(options: RayOptions) -> Iterator[Any]:
    """The job server's client; raises LaunchError if there is no Ray here, nobody answers, or it refuses."""
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise LaunchError(NEEDED) from error
    try:
        yield JobSubmissionClient(options.address)
    except ConnectionError as error:
        raise LaunchError(
            f"no Ray cluster answers at {options.address}: start one with `ray start --head`, or give -o address=http://HOST:8265"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        raise LaunchError(f"Ray at {options.address} refuses: {error}") from error
