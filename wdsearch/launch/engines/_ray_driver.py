"""What a Ray job runs on its cluster: N tasks, each a worker, until all have ended. It is asked to stop by SIGTERM."""

import argparse
import signal
from collections.abc import Sequence
from typing import Any


def _work(study: str) -> None:
    """In a process of Ray's, in its main thread: Ctrl-C, as which Ray cancels a task, ends the worker in order."""
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
    """Start the workers and wait for them; 1 if one failed for another reason than its process or node."""
    import ray

    given = _arguments(words)
    ray.init()
    needs: dict[str, Any] = {"num_cpus": given.cpus, "num_gpus": given.gpus, "max_retries": given.retries}
    if given.memory_gb:
        needs["memory"] = int(given.memory_gb * 2**30)
    # a process of its own for each: what one leaves behind, memory of a GPU say, ends with it
    worker = ray.remote(**needs, max_calls=1, scheduling_strategy="SPREAD")(_work)
    tasks = [worker.remote(given.study) for _ in range(given.workers)]

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
