"""What MLflow knows of a study; the only file that imports mlflow, and only in the process that delivers.

Training appends records to a local spool and goes on. A process of its own (a thread would fight with training for the
interpreter) delivers them in batches with their original timestamps, at a low priority.
"""

import fcntl
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from wdsearch.spool import Record, Spool, now_ms

STUDY = "study"
LIVE_EVERY_S = 10.0
DUTY = 0.05  # share of the time that delivery may take while training goes on
GIVE_UP_AFTER_S = 180.0
PARAM_LIMIT, TAG_LIMIT, BATCH_METRICS, BATCH_PARAMS = 6000, 8000, 1000, 100
QUIET = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "OMP_NUM_THREADS": "1",
}


class Delivery(NamedTuple):
    """Where a study is in MLflow, and what has not arrived there."""

    link: str | None
    undelivered: int
    log: Path


class Tracker:
    """Writes down what happens in a study. Keys name runs: `baseline`, `trial-12`; the study's own is the parent run."""

    def __init__(self, home: Path, study: str, tracking_uri: str | None = None) -> None:
        self.uri = default_uri(home, tracking_uri)
        self.study = study
        self.spool = Spool(home / "spool" / f"{study}.db")
        self.spool.remember("uri", self.uri)
        self.spool.remember("study", study)
        self.spool.remember("artifacts", (home / "artifacts").as_uri())
        self.log_file = home / "spool" / f"{study}.log"
        self._buffer: list[tuple[str, str, dict[str, Any]]] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start_study(self, params: Mapping[str, Any], tags: Mapping[str, str], dataset: Mapping[str, str]) -> None:
        """Open the parent run, or take it up again, and start delivering."""
        self.spool.remember("closed", "")
        self._start(STUDY, params, {"wdsearch.kind": "study", "wdsearch.study": self.study} | dict(tags), dataset)
        self.flush()
        self._process = self._deliver_beside()

    def start_trial(
        self, key: str, params: Mapping[str, Any], tags: Mapping[str, str], dataset: Mapping[str, str]
    ) -> None:
        """Open a nested run, or take up the one of the same key."""
        self._start(key, params, tags, dataset)

    def _start(self, key: str, params: Mapping[str, Any], tags: Mapping[str, str], dataset: Mapping[str, str]) -> None:
        body = {"params": {name: str(value) for name, value in params.items()}, "tags": dict(tags)}
        self._buffer.append((key, "start", body | {"dataset": dict(dataset), "time": now_ms()}))

    def log(self, key: str, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of one epoch; values that are not finite are left out, for they hide MLflow's charts."""
        self._buffer.append((key, "metrics", {"step": step, "time": now_ms(), "metrics": _finite(metrics)}))

    def end_trial(
        self, key: str, state: str, metrics: Mapping[str, float], tags: Mapping[str, str], step: int = 0
    ) -> None:
        """Close a run with the result's metrics; `state` is Optuna's."""
        status = "FAILED" if state == "FAIL" else "FINISHED"
        body = {"status": status, "metrics": _finite(metrics), "tags": {"wdsearch.state": state} | dict(tags)}
        self._buffer.append((key, "end", body | {"step": step, "time": now_ms()}))

    def log_artifact(self, path: Path, folder: str = "", key: str = STUDY) -> None:
        """A file of a run."""
        self._buffer.append((key, "artifact", {"path": str(path), "folder": folder}))

    def end_study(self, metrics: Mapping[str, float], tags: Mapping[str, str], step: int = 0) -> None:
        """Close the parent run."""
        self.end_trial(STUDY, "COMPLETE", metrics, tags, step)

    def flush(self) -> None:
        """Make what was written so far survive a crash; once per epoch of the population."""
        self.spool.append(self._buffer)
        self._buffer.clear()

    def close(self, wait_s: float = 120.0, progress: Callable[[int], None] | None = None) -> Delivery:
        """Wait until all is delivered, or MLflow has been out of reach for too long; the rest stays in the spool."""
        self.flush()
        self.spool.remember("closed", "yes")
        end, restarts = time.monotonic() + wait_s, 0
        while (left := self.spool.left()) and time.monotonic() < end:
            if progress:
                progress(left)
            if (self._process is None or self._process.poll() is not None) and restarts < 3:
                self._process, restarts = self._deliver_beside(), restarts + 1
            time.sleep(0.05)
        if self._process is not None and not left:
            self._process.wait()
        experiment = self.spool.recall("experiment")
        link = experiment_link(self.uri, experiment) if experiment else None
        return Delivery(link, left, self.log_file)

    def _deliver_beside(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "wdsearch.tracking", str(self.spool.path), str(os.getpid())]
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | QUIET,
                start_new_session=True,
            )


def default_uri(home: Path, given: str | None = None) -> str:
    """MLflow's store: as given, `$MLFLOW_TRACKING_URI`, or a SQLite file in the home folder."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"


def experiment_link(uri: str, experiment: str, port: int = 5000) -> str:
    """The page of a study's runs; MLflow opens in another mode without the last part."""
    base = uri.rstrip("/") if uri.startswith("http") else f"http://127.0.0.1:{port}"
    return f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning"


def ui_command(home: Path, uri: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment of an MLflow server on this machine over a local store."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--artifacts-destination", (home / "artifacts").as_uri()]
    return command, os.environ | QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def serve(home: Path, study: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the MLflow records of `home` until interrupted, and say the study's page; with a remote server only that."""
    spool = Spool(home / "spool" / f"{study}.db")
    uri, experiment = spool.recall("uri") or default_uri(home), spool.recall("experiment") or ""
    say(experiment_link(uri, experiment, port))
    if uri.startswith("http"):
        return
    command, environment = ui_command(home, uri, port)
    server = subprocess.Popen(command, env=environment)
    try:
        server.wait()
    except KeyboardInterrupt:
        server.wait()


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


# -- the delivering process ------------------------------------------------------------------------------------


class Courier:
    """Carries records from a spool to MLflow; told twice, MLflow keeps one copy."""

    def __init__(self, spool: Spool) -> None:
        import logging

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        from mlflow import MlflowClient

        self.spool = spool
        self.client = MlflowClient(tracking_uri=spool.recall("uri"))
        self.experiment = self._experiment()
        self._carried: dict[str, float] = {}

    def _experiment(self) -> str:
        name = self.spool.recall("study") or ""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            local = (self.spool.recall("uri") or "").startswith("sqlite")
            artifacts = f"{self.spool.recall('artifacts')}/{name}" if local else None
            identity = self.client.create_experiment(name, artifact_location=artifacts)
        else:
            identity = found.experiment_id
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(identity)
        self.spool.remember("experiment", identity)
        return str(identity)

    def carry(self, everything: bool) -> None:
        """Deliver what there is: ended runs first, running ones every few seconds (or now, if `everything`)."""
        runs: dict[str, list[Record]] = {}
        for record in self.spool.undelivered():
            runs.setdefault(record.key, []).append(record)
        order = sorted(runs, key=lambda key: (key != STUDY, all(record.kind != "end" for record in runs[key])))
        for key in order:
            ended = any(record.kind == "end" for record in runs[key])
            recent = time.monotonic() - self._carried.setdefault(key, time.monotonic()) < LIVE_EVERY_S
            if everything or ended or key == STUDY or not recent:
                self._run(key, runs[key])
                self._carried[key] = time.monotonic()

    def _run(self, key: str, records: Sequence[Record]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        params, tags = _merged(records, "params"), _merged(records, "tags")
        run, new = self._run_id(key, records, tags)
        metrics = [
            Metric(name, value, record.body["time"], record.body["step"])
            for record in records
            for name, value in record.body.get("metrics", {}).items()
        ]
        named = [Param(name, value[:PARAM_LIMIT]) for name, value in params.items()]
        late = [] if new else [RunTag(name, value[:TAG_LIMIT]) for name, value in tags.items()]
        for first in range(
            0, max(len(metrics), len(named), 1), BATCH_PARAMS if len(named) > BATCH_PARAMS else BATCH_METRICS
        ):
            width = BATCH_PARAMS if len(named) > BATCH_PARAMS else BATCH_METRICS
            self.client.log_batch(
                run, metrics[first : first + width], named[first : first + width], late if first == 0 else ()
            )
        for record in records:
            self._finish(run, record)
        self.spool.delivered(records)

    def _finish(self, run: str, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if record.body.get("dataset"):
            split = [InputTag("mlflow.data.context", "training")]
            self.client.log_inputs(run, [DatasetInput(Dataset(**record.body["dataset"]), split)])
        if record.kind == "artifact" and Path(record.body["path"]).exists():
            self.client.log_artifact(run, record.body["path"], record.body["folder"] or None)
        if record.kind == "end":
            self.client.set_terminated(run, record.body["status"], record.body["time"])

    def _run_id(self, key: str, records: Sequence[Record], tags: Mapping[str, str]) -> tuple[str, bool]:
        """The run of a key, and whether it was made just now; a crash in between makes no second one."""
        known = self.spool.recall(f"run {key}")
        if known == "making":
            found = self.client.search_runs([self.experiment], f"tags.`wdsearch.key` = '{key}'", max_results=1)
            known = found[0].info.run_id if found else None
        if known:
            self.spool.remember(f"run {key}", known)
            if any(record.kind == "start" for record in records):
                self.client.update_run(known, status="RUNNING")
            return known, False
        self.spool.remember(f"run {key}", "making")
        parent = {} if key == STUDY else {"mlflow.parentRunId": self.spool.recall(f"run {STUDY}") or ""}
        name = (self.spool.recall("study") or key) if key == STUDY else key
        labels = {"wdsearch.key": key, "mlflow.source.name": "wdsearch", "mlflow.user": _user()} | parent | dict(tags)
        labels = {name: value[:TAG_LIMIT] for name, value in labels.items()}
        made = self.client.create_run(self.experiment, records[0].body.get("time"), labels, name)
        self.spool.remember(f"run {key}", made.info.run_id)
        return made.info.run_id, True


def _merged(records: Sequence[Record], part: str) -> dict[str, str]:
    return {name: value for record in records for name, value in record.body.get(part, {}).items()}


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown"


def deliver(path: Path, parent: int | None = None) -> int:
    """Deliver a spool until it is closed and empty, or its training process is gone; returns how many records are left.

    While MLflow is out of reach it tries again, less and less often, and gives up only when nobody writes any more.
    """
    with _only_one(path) as first:
        if not first:
            return -1
        spool, courier, failing_since, pause = Spool(path), None, None, 0.5
        while True:
            closed = spool.recall("closed") == "yes" or (parent is not None and os.getppid() != parent)
            began = time.monotonic()
            try:
                courier = courier or Courier(spool)
                courier.carry(everything=closed)
                failing_since, pause = None, min(LIVE_EVERY_S, 0.5 + (time.monotonic() - began) / DUTY)
            except Exception:
                traceback.print_exc()
                sys.stderr.flush()
                failing_since, pause = failing_since or time.monotonic(), min(15.0, pause * 2)
            gave_up = failing_since is not None and time.monotonic() - failing_since > GIVE_UP_AFTER_S
            if closed and (not spool.left() or gave_up):
                return spool.left()
            _rest(spool, 0.05 if closed and failing_since is None else pause)


def _rest(spool: Spool, seconds: float) -> None:
    """Sleep, but not on when the study is closed meanwhile: then somebody waits for the rest."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and (seconds < 1.0 or spool.recall("closed") != "yes"):
        time.sleep(min(0.1, seconds))


def _step_aside() -> None:
    """Run only where a processor would idle: a busy neighbour stalls all threads of a training step."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@contextmanager
def _only_one(path: Path) -> Iterator[bool]:
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


if __name__ == "__main__":
    _step_aside()
    deliver(Path(sys.argv[1]), int(sys.argv[2]))
