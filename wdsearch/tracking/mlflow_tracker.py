"""Records a study in MLflow: training appends to a local spool and goes on, whatever MLflow does.

A process of its own (a thread would fight with training for the interpreter) delivers: `wdsearch.tracking.delivery`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wdsearch.files import hold
from wdsearch.tracking.cpu_share import Share
from wdsearch.tracking.mlflow_address import HASTE, PATIENCE, QUIET, URI, default_uri, experiment_link, local_uri
from wdsearch.tracking.records import end_of, start_of
from wdsearch.tracking.spool import (
    LOST,
    MODEL,
    Spool,
    backlog_of,
    interrupt,
    is_locked,
    lock_of,
    now_ms,
    spool_path,
    spool_paths,
)
from wdsearch.tracking.tracker import STUDY, Backlog, Delivery, Tracker, ending, finite
from wdsearch.trial.result import Result

if TYPE_CHECKING:  # pydantic, which who asks for a study's status does not wait for
    from wdsearch.storage.home import Home
    from wdsearch.study.schema import StudyConfig
    from wdsearch.tracking.serving import Server

STALLED_S = 15.0


@dataclass(frozen=True)
class MlflowDelivery(Delivery):
    """A delivery to MLflow: the ids of the study's experiment and of its own run, the parent of the trials' runs."""

    experiment_id: str | None = None
    parent_run_id: str | None = None


class MlflowTracker(Tracker):
    """Runs in MLflow, one per trial: a server, or a file beside the study.

    Each process that writes for a study is a writer of its spool; each machine of several (`node`) has its own spool.
    """

    name, summary = (
        "mlflow",
        "runs in MLflow, on the server at $MLFLOW_TRACKING_URI or in a file that `wdsearch ui` serves",
    )
    addresses = (URI,)
    logins = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    libraries = ("mlflow",)

    def __init__(self, home: Path, study: str, node: str = "", uri: str | None = None) -> None:
        home = home.absolute()
        self.home, self.uri = home, default_uri(home, uri)
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
    def reopen(cls, home: Path, study: str, node: str = "", token: str = "", **options: Any) -> MlflowTracker | None:
        """Adds to the run of a study where its runs are; None if it has no run in MLflow.

        A `node` of several that recorded nothing yet finds the run in MLflow by the study's token.
        """
        for path in spool_paths(home, study):
            spool = Spool(path)
            uri, waits = spool.recall("uri"), STUDY in spool.waiting()
            known = waits or bool(spool.recall(f"run {STUDY}"))
            spool.close()
            removed = uri == local_uri(home) and not (home / "mlflow.db").exists()
            if known and (waits or not removed):
                return cls(home, study, path.stem.removeprefix(study).removeprefix("@"), uri)
        if not (node and token) or default_uri(home) == local_uri(home):
            return None
        tracker = cls(home, study, node)
        tracker.spool.remember("token", token)
        return tracker

    @classmethod
    def page(cls, home: Path, study: str, port: int, **options: Any) -> Server:
        """MLflow's page of a study, and what serves it over a local store."""
        from wdsearch.tracking.mlflow_server import mlflow_server

        return mlflow_server(home, study, port)

    @classmethod
    def shared_fault(cls) -> str | None:
        """A file is no store for several machines."""
        uri = os.environ.get(URI, "")
        if urlsplit(uri).scheme not in ("", "file", "sqlite"):
            return None
        return f"${URI} is {uri or 'not set'}; workers on several machines need a server: http://host:5000"

    @classmethod
    def backlog(cls, home: Path, study: str) -> Backlog:
        """Records that wait in the spools of a study."""
        return backlog_of(home, study)

    @classmethod
    def deliver_backlog(
        cls, study: str, home: Home, storage: str | None, progress: Callable[[int, str | None], None] | None
    ) -> tuple[int, int]:
        """Deliver what spools hold. Raises StudyNotFoundError and UndeliveredError."""
        from wdsearch.tracking.delivery import sync

        return sync(study, home, storage, progress)

    def _move(self, home: Path) -> None:
        """Forget runs that are in another MLflow, or were in a store since removed; one that was never made had none."""
        removed = self.uri == local_uri(home) and not (home / "mlflow.db").exists()
        if (removed and self.spool.recall("experiment")) or self.spool.recall("uri") != self.uri:
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
        token: str = "",
        config: StudyConfig | None = None,
        metric: str = "",
    ) -> None:
        """Open the parent run, or take it up again, and start delivering; the study's link opens its saved view."""
        if token and self.spool.recall("token") not in (None, token):
            self._forget_runs()
            for kind in ("open", "inherited"):
                self.spool.forget(f"{kind} *")
            if dropped := self.spool.clear():
                self.spool.remember(
                    LOST, f"{dropped} records of an earlier study of this name, since deleted, were dropped"
                )
        self._facts |= {"views": json.dumps(_views(config, metric))} | ({"token": token} if token else {})
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
        self._buffer.append((key, "start", start_of(params, tags, dataset)))
        self._facts[f"open {key}"] = self._writer
        self._steps[key] = int(self.spool.recall(f"step {key}") or -1)

    def log(self, key: str, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of one epoch; values that are not finite are left out, for they hide MLflow's charts."""
        if step > self._steps.get(key, -1):
            self._buffer.append((key, "metrics", {"step": step, "time": now_ms(), "metrics": finite(metrics)}))
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
        body = end_of(state, metrics, tags, step, diagnostics)
        written = json.dumps([step, body["metrics"]])
        if self.spool.recall(f"result {key}") == written:
            body["metrics"] = {}
        if diagnostics is not None and body["metrics"]:
            self._buffer.append((key, "diagnosis", {"diagnostics": dict(diagnostics)}))
        self._buffer.append((key, "end", body))
        self._facts |= {f"open {key}": "", f"result {key}": written}

    def sweep(self, results: Mapping[str, Result]) -> None:
        """End the runs that are still open when all machines have delivered, as after a lost disk; the study's own too.

        What machines that died left in this folder is delivered first.
        """
        self.flush()
        self._deliver_others()
        endings = {key: end_of(*ending(result), result.epochs, result.diagnostics) for key, result in results.items()}
        endings[STUDY] = end_of("COMPLETE", {}, {}, 0, None)
        self._buffer.append((STUDY, "sweep", {"endings": endings}))

    def _deliver_others(self) -> None:
        from wdsearch.tracking.delivery import deliver

        for path in spool_paths(self.home, self.study):
            if path != self.spool.path and not is_locked(path.with_suffix(".lock")):
                with suppress(Exception):  # `wdsearch sync` says why
                    deliver(path, give_up_after_s=10.0)

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

    def finish(self, wait_s: float = 120.0, progress: Callable[[int], None] | None = None) -> MlflowDelivery:
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

    def _delivery(self, left: int) -> MlflowDelivery:
        experiment, code = self.spool.recall("experiment"), self._process.poll() if self._process else None
        error = self.spool.recall("error") or (f"the process that tells it ended with {code}" if code else None)
        link = experiment_link(self.uri, experiment, view=self.spool.recall("shown")) if experiment else None
        run, notes = self.spool.recall(f"run {STUDY}"), [self.spool.recall(fact) for fact in ("note", LOST)]
        note = "; ".join(one for one in notes if one) or None
        self.spool.forget(LOST)  # it is told now
        self.spool.close()
        return MlflowDelivery(link, left, self.log_file, error if left else None, note, experiment, run)

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


def _views(config: StudyConfig | None, metric: str) -> dict[str, str]:
    """Saved views of a study's page; the first is that of its link."""
    from wdsearch.tracking.mlflow_view import saved_views

    return saved_views(config, metric, now_ms()) if config else {}
