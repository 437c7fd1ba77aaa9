"""Driver of a Ray job: runs N tasks, each a worker, until all have ended. SIGTERM stops it."""

import argparse
import signal
from collections.abc import Sequence
from typing import Any


def _work(study: str) -> None:
    """Work in the main thread of a Ray process: Ctrl-C, as which Ray cancels a task, ends the worker in order."""
    from wdsearch.search.interruption import InterruptedStudyError
    from wdsearch.search.run import work

    try:
        work(study, progress="lines")
    except InterruptedStudyError as error:
        print(error, flush=True)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--cpus", type=float, default=1)
    parser.add_argument("--gpus", type=float, default=0)
    parser.add_argument("--memory-gb", type=float, default=0)
    parser.add_argument("--retries", type=int, default=10)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Start the workers and wait for them; returns 1 if one failed for another reason than its process or node."""
    import ray

    arguments = _arguments(words)
    ray.init()
    resources: dict[str, Any] = {
        "num_cpus": arguments.cpus,
        "num_gpus": arguments.gpus,
        "max_retries": arguments.retries,
    }
    if arguments.memory_gb:
        resources["memory"] = int(arguments.memory_gb * 2**30)
    # a process for each worker, so that leaked memory of a GPU, say, ends with it
    worker = ray.remote(**resources, max_calls=1, scheduling_strategy="SPREAD")(_work)
    tasks = [worker.remote(arguments.study) for _ in range(arguments.workers)]

    def stop(*_: Any) -> None:
        for task in tasks:
            ray.cancel(task)

    signal.signal(signal.SIGTERM, stop)
    return int(sum(_failed(task) for task in tasks) > 0)  # a sum: all are waited for


def _failed(task: Any) -> bool:
    import ray

    try:
        ray.get(task)
    except (ray.exceptions.TaskCancelledError, KeyboardInterrupt):
        print("a worker was stopped", flush=True)
        return False
    except ray.exceptions.RayError as error:
        print(f"a worker failed: {error}", flush=True)
        return True
    return False


if __name__ == "__main__":
    raise SystemExit(main())
