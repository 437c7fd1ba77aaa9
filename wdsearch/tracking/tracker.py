"""What a study tells MLflow: training appends records to a local spool and goes on, whatever MLflow does.

A process of its own (a thread would fight with training for the interpreter) delivers them: `wdsearch.tracking.delivery`.
"""

import json
import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from wdsearch.files import hold
from wdsearch.storage.database import shown_url
from wdsearch.tracking.cpu_share import Share
from wdsearch.tracking.spool import LOST, MODEL, STUDY, Spool, interrupt, lock_of, now_ms, spool_path, spool_paths
from wdsearch.trial.result import Result

PAGE = "WDSEARCH_MLFLOW_PAGE"
PORT = 5000
"""Where `wdsearch ui` serves a local store, unless told otherwise."""
STALLED_S = 15.0
HASTE = "--haste"
"""Option of a delivery that does not step aside for others."""
QUIET = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
    "OMP_NUM_THREADS": "1",
}
# the spool is the retry: MLflow's own would hold a delivery up for minutes
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


class Delivery(NamedTuple):
    """Where a study is in MLflow, and what has not arrived there: how many records, and why; `note` is worth saying."""

    link: str | None
    undelivered: int
    log: Path
    experiment_id: str | None = None
    parent_run_id: str | None = None
    error: str | None = None
    note: str | None = None


class Tracker:
    """Writes down what happens in a study. Keys name runs: `baseline`, `trial-12`; the study's own is the parent run.

    A trial that is trained again after a crash tells MLflow nothing twice: epochs written by an earlier process, and a
    result equal to the one written, are left out. Several processes may write for one study; each is a writer.
    Of a study on several machines each `node` has its own spool.
    """

    def __init__(self, home: Path, study: str, tracking_uri: str | None = None, node: str = "") -> None:
        home = home.absolute()
        self.uri = default_uri(home, tracking_uri)
        self.study, self.node = study, node
        path = spool_path(home, study, node)
        self.spool = Spool(path)
        self.log_file = path.with_suffix(".log")
        self._move(home)
        self._writer = uuid.uuid4().hex
        self._lock = hold(lock_of(self.spool, self._writer))
        self._steps: dict[str, int] = {}
        self._buffer: list[tuple[str, str, dict[str, Any]]] = []
        self._facts: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._unawaited = MODEL

    @classmethod
    def of_study(cls, home: Path, study: str, node: str = "", token: str = "") -> "Tracker | None":
        """What adds to the run of a study where its runs are; None if it has no run in MLflow.

        A `node` of several that told MLflow nothing yet finds the run there by the study's token.
        """
        for path in spool_paths(home, study):
            spool = Spool(path)
            uri, waits = spool.recall("uri"), STUDY in spool.waiting()
            known = waits or bool(spool.recall(f"run {STUDY}"))
            spool.close()
            removed = uri == local_uri(home) and not (home / "mlflow.db").exists()
            if known and (waits or not removed):
                return cls(home, study, uri, node=path.stem.removeprefix(study).removeprefix("@"))
        if not (node and token) or default_uri(home) == local_uri(home):
            return None
        tracker = cls(home, study, node=node)
        tracker.spool.remember("token", token)
        return tracker

    def _move(self, home: Path) -> None:
        """In another MLflow there are none of the runs made so far."""
        removed = self.uri == local_uri(home) and not (home / "mlflow.db").exists()
        if removed or self.spool.recall("uri") != self.uri:
            self._forget_runs()
        facts = {"uri": self.uri, "study": self.study, "artifacts": (home / "artifacts").as_uri()}
        self.spool.append((), facts | {"local": str(self.uri == local_uri(home))})

    def _forget_runs(self) -> None:
        for kind in ("run", "step", "result", "experiment", "shown", "model"):
            self.spool.forget(f"{kind}*")

    def start_study(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        views: Mapping[str, str] | None = None,
        token: str = "",
    ) -> None:
        """Open the parent run, or take it up again, and start delivering; the first of `views` is that of the study's link.

        `token` tells this study from another one of its name, and is the same on all of its machines.
        """
        if token and self.spool.recall("token") not in (None, token):
            self._forget_runs()
            for kind in ("open", "inherited"):
                self.spool.forget(f"{kind} *")
            if dropped := self.spool.clear():
                self.spool.remember(
                    LOST, f"{dropped} records of an earlier study of this name, since deleted, were dropped"
                )
        self._facts |= {"views": json.dumps(dict(views or {}))} | ({"token": token} if token else {})
        self.start_trial(STUDY, params, {"wdsearch.kind": "study", "wdsearch.study": self.study} | dict(tags), dataset)
        self.flush()
        self.start_delivery()

    def start_delivery(self) -> None:
        """Start the delivering process, if it does not run already; it needs seconds to be ready."""
        self.spool.remember(f"writer {self._writer}", "open")
        if self._process is None or self._process.poll() is not None:
            self._process = self._deliver_beside()

    def start_trial(
        self,
        key: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        inherited: bool = False,
    ) -> None:
        """Open a nested run, or take up the one of the same key, which another machine may have made if `inherited`."""
        if inherited:
            self._facts[f"inherited {key}"] = "True"
        named = {name: str(value) for name, value in params.items()}
        body = {"params": named, "tags": {"wdsearch.state": "RUNNING"} | dict(tags), "dataset": dict(dataset)}
        self._buffer.append((key, "start", body | {"time": now_ms()}))
        self._facts[f"open {key}"] = self._writer
        self._steps[key] = int(self.spool.recall(f"step {key}") or -1)

    def log(self, key: str, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of one epoch; values that are not finite are left out, for they hide MLflow's charts."""
        if step > self._steps.get(key, -1):
            self._buffer.append((key, "metrics", {"step": step, "time": now_ms(), "metrics": _finite(metrics)}))
            self._facts[f"step {key}"] = str(step)

    def end_trial(
        self,
        key: str,
        state: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        step: int = 0,
        diagnostics: Mapping[str, Any] | None = None,
    ) -> None:
        """Close a run with the result's metrics, and what λ did if that was measured; `state` is Optuna's."""
        body = _ending(state, metrics, tags, step, diagnostics)
        written = json.dumps([step, body["metrics"]])
        if self.spool.recall(f"result {key}") == written:
            body["metrics"] = {}
        if diagnostics is not None and body["metrics"]:
            self._buffer.append((key, "diagnosis", {"diagnostics": dict(diagnostics)}))
        self._buffer.append((key, "end", body))
        self._facts |= {f"open {key}": "", f"result {key}": written}

    def sweep(self, results: Mapping[str, Result]) -> None:
        """End the runs that are still open when all machines have delivered, as after a lost disk; the study's own too."""
        endings = {key: _ending(*ending(result), result.epochs, result.diagnostics) for key, result in results.items()}
        endings[STUDY] = _ending("COMPLETE", {}, {}, 0, None)
        self._buffer.append((STUDY, "sweep", {"endings": endings}))

    def discard(self) -> None:
        """Forget what was not flushed, as a crash would."""
        self._buffer.clear()
        self._facts.clear()

    def log_artifact(self, path: Path, folder: str = "", key: str = STUDY) -> None:
        """A file of a run; it is read when it is delivered."""
        self._buffer.append((key, "artifact", {"path": str(path.absolute()), "folder": folder}))

    def log_model(self, path: Path, trial: int, requirements: list[str]) -> None:
        """The best trial's network, as torch.export wrote it: registered under the study's name, once for each trial."""
        self._unawaited = "" if self.node else MODEL
        if self.spool.recall("model") != str(trial):
            body = {"path": str(path.absolute()), "trial": trial, "requirements": requirements}
            self._buffer.append((MODEL, "model", body))
            self._facts["model"] = str(trial)

    def end_study(self, metrics: Mapping[str, float], tags: Mapping[str, str], step: int = 0) -> None:
        """Close the parent run."""
        self.end_trial(STUDY, "COMPLETE", metrics, tags, step)

    def flush(self) -> None:
        """Make what was written so far survive a crash; once per epoch of the population."""
        self.spool.append(self._buffer, self._facts)
        self._buffer.clear()
        self._facts.clear()

    def stop_writing(self) -> None:
        """Tell the delivery that no more records come, so that it ends when all are delivered."""
        self.flush()
        if not self._lock.closed:
            interrupt(self.spool, self._writer)
            self._lock.close()

    def close(self, wait_s: float = 120.0, progress: Callable[[int], None] | None = None) -> Delivery:
        """Wait until all is delivered, `wait_s` are over, or MLflow is out of reach; the rest stays in the spool.

        A model is not waited for: the delivery goes on with it alone. Of a study on several machines it is, by the worker that
        made it, and MLflow may take as long as it gets on: in a job or a container nothing outlives the worker.
        Nor is what other processes write for the study from now on.
        A delivery that steps aside for training gets nowhere on a machine that others keep busy: now it takes its share.
        Runs that were not ended are shown as killed until the study is continued. Nothing can be written afterwards.
        """
        self.stop_writing()
        last, wait_s = self.spool.newest(), math.inf if self.node else wait_s
        end, restarts, least, moved = time.monotonic() + wait_s, 3, math.inf, time.monotonic()
        polite = Share(self._process) if self._process and self._process.poll() is None else None
        while (left := self.spool.left(self._unawaited, last)) and time.monotonic() < end:
            if progress:
                progress(left)
            least, moved = (left, time.monotonic()) if left < least else (least, moved)
            if time.monotonic() - moved > STALLED_S and self.spool.recall("error"):
                break
            if self._process is None or self._process.poll():
                if not restarts:
                    break
                self._process, restarts, polite = self._deliver_beside(HASTE), restarts - 1, None
            elif self._process.returncode == 0:  # it did what can be done
                break
            elif polite and polite.starves():
                self._process.kill()
                self._process.wait()
                self._process, polite = self._deliver_beside(HASTE), None
            time.sleep(0.05)
        if self._process is not None and not self.spool.left() and not self.spool.facts("writer"):
            self._process.wait()
        elif self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # it goes on alone, and needs no warning
        return self._delivery(self.spool.left(self._unawaited, last))

    def _delivery(self, left: int) -> Delivery:
        experiment, code = self.spool.recall("experiment"), self._process.poll() if self._process else None
        error = self.spool.recall("error") or (f"the process that tells it ended with {code}" if code else None)
        link = experiment_link(self.uri, experiment, view=self.spool.recall("shown")) if experiment else None
        run, notes = self.spool.recall(f"run {STUDY}"), [self.spool.recall(fact) for fact in ("note", LOST)]
        note = "; ".join(one for one in notes if one) or None
        self.spool.forget(LOST)  # it is told now
        self.spool.close()
        return Delivery(link, left, self.log_file, experiment, run, error if left else None, note)

    def _deliver_beside(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "wdsearch.tracking.delivery", str(self.spool.path), *options]
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=PATIENCE | os.environ | QUIET,
                start_new_session=True,  # Ctrl-C ends the training, not the delivery
            )


def local_uri(home: Path) -> str:
    """A SQLite file in the home folder."""
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"


def default_uri(home: Path, given: str | None = None) -> str:
    """MLflow's store: as given, `$MLFLOW_TRACKING_URI`, or a SQLite file in the home folder."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or local_uri(home)


def experiment_link(uri: str, experiment: str, port: int = PORT, view: str | None = None) -> str:
    """The page of a study's runs in its saved view, without login; MLflow's first page without an experiment.

    MLflow opens in another mode without `workflowType`. A server is where `$WDSEARCH_MLFLOW_PAGE` says, for people may reach
    it by another name than workers do.
    """
    base = f"http://127.0.0.1:{port}"
    if uri.startswith("http"):
        base = (os.environ.get(PAGE) or shown_uri(uri)).rstrip("/")
    if not experiment:
        return base
    shown = f"&viewStateShareKey={view}" if view else ""
    return f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning{shown}"


def shown_uri(uri: str) -> str:
    """A tracking URI without user and password; that of a database as a storage's is shown."""
    if not uri.startswith("http"):
        return shown_url(uri) if "://" in uri else uri
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def ending(result: Result) -> tuple[str, dict[str, float], dict[str, str]]:
    """A trial's state in Optuna, and its result's metrics and tags in MLflow."""
    tags = {"wdsearch.end": result.end, "wdsearch.diverged": str(result.is_diverged).lower()}
    return "COMPLETE" if result.is_complete else "PRUNED", result.metrics | {"epochs": result.epochs}, tags


def _ending(
    state: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    step: int,
    diagnostics: Mapping[str, Any] | None,
) -> dict[str, Any]:
    measures = {f"diagnosis/{name}": value for name, value in (diagnostics or {}).get("whole", {}).items()}
    status = "FAILED" if state == "FAIL" else "FINISHED"
    named = {"wdsearch.state": state} | dict(tags)
    return {
        "status": status,
        "metrics": _finite({**metrics, **measures}),
        "tags": named,
        "step": step,
        "time": now_ms(),
    }


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
