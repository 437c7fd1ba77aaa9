"""Tells MLflow what a study's spool holds."""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wdsearch.report.trial_picture import TrialPicture
from wdsearch.tracking.mlflow_store import VIEW_TAG, make_store, write_ahead
from wdsearch.tracking.spool import LOST, MODEL, Record, Spool, complain, now_ms
from wdsearch.tracking.tracker import STUDY

LIVE_EVERY_S = 10.0
PARAM_LIMIT, TAG_LIMIT = 6000, 8000
VIEWED = ("3.17",)
"""Versions of MLflow, to the second number, whose page was looked at with a saved view."""
REFUSALS = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "BAD_REQUEST",
    "INVALID_STATE",
}
"""Refusals of MLflow that come again however often it is asked, unlike errors of a server out of reach."""


class Courier:
    """Carries records from a spool to MLflow; told twice, MLflow keeps one copy."""

    def __init__(self, spool: Spool, wary: bool = False) -> None:
        """A `wary` one looks first what MLflow has: others may have told it the same in the meantime."""
        from mlflow import MlflowClient

        self.spool, self.wary = spool, wary
        if spool.recall("local") == "True":
            make_store(spool.recall("uri") or "")
            write_ahead(spool.recall("uri") or "")
        self.client = MlflowClient(tracking_uri=spool.recall("uri"))
        self.experiment = self._experiment()
        self._show_views()
        self.refused: set[str] = set()
        self._live_at = time.monotonic() + LIVE_EVERY_S
        self._over()

    def _over(self) -> None:
        """MLflow answers: what kept it away is over. What it refuses is not."""
        if not self.refused:
            self.spool.forget("error")

    def _experiment(self) -> str:
        name = self.spool.recall("study") or ""
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            self.spool.forget("run *")
            sqlite = (self.spool.recall("uri") or "").startswith("sqlite")
            artifacts = f"{self.spool.recall('artifacts')}/{name}" if sqlite else None
            identity = str(self.client.create_experiment(name, artifact_location=artifacts))
        else:
            identity = str(experiment.experiment_id)
            if experiment.lifecycle_stage == "deleted":
                self.client.restore_experiment(identity)
        self.spool.remember("experiment", identity)
        return identity

    def _show_views(self) -> None:
        """Save the study's views of the page, unless they are there, or MLflow is one whose views may be others."""
        views, version = json.loads(self.spool.recall("views") or "{}"), self._version()
        if not views:
            return
        if not version.startswith(tuple(f"{tested}." for tested in VIEWED)):
            text = f"MLflow {version} may keep views of its page in another way than {' and '.join(VIEWED)}"
            self.spool.append((), {"note": f"{text}: the link opens the page without columns and charts", "shown": ""})
            return
        tags = self.client.get_experiment(self.experiment).tags
        for key, view in views.items():
            stored = tags.get(VIEW_TAG + key)
            if stored is None or json.loads(stored)["state"] != json.loads(view)["state"]:
                self.client.set_experiment_tag(self.experiment, VIEW_TAG + key, view)
        self.spool.remember("shown", next(iter(views)))
        self.spool.forget("note")

    def _version(self) -> str:
        """MLflow's, that of the server if there is one."""
        import mlflow
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        uri = self.spool.recall("uri") or ""
        if uri.startswith("http"):
            with suppress(Exception):  # a proxy may not let it through
                answer = http_request(get_default_host_creds(uri), "/version", "GET")
                if answer.status_code == 200 and re.fullmatch(r"\d[\w.+-]*", answer.text):
                    return str(answer.text)
        return str(mlflow.__version__)

    def carry(self, everything: bool) -> None:
        """Deliver the parent and ended runs; running ones now and then (or now, if `everything`).

        What MLflow refuses stays in the spool and holds up no other run. Raises what else goes wrong.
        """
        live = everything or time.monotonic() >= self._live_at
        waiting = {key: ended for key, ended in self.spool.waiting().items() if key not in self.refused}
        for key in sorted(waiting, key=lambda key: (key == MODEL, key != STUDY, not waiting[key])):
            if (live or waiting[key] or key == STUDY) and (everything or key != MODEL):
                self._carry_run(key)
        if live:
            self._live_at = time.monotonic() + LIVE_EVERY_S

    def _carry_run(self, key: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            carry = self._deliver_models if key == MODEL else self._deliver
            carry(key, self.spool.undelivered(key))
            self._over()
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            self.refused.add(key)
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                self.spool.forget(f"run {key}")  # the next process makes a new one
            complain(self.spool, f"MLflow refuses {key}: {error}")

    def _deliver(self, key: str, records: Sequence[Record]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        params = {name: value[:PARAM_LIMIT] for name, value in _merged(records, "params").items()}
        tags = {name: value[:TAG_LIMIT] for name, value in _merged(records, "tags").items()}
        run = self._known(key)
        if run is None and all(record.kind == "artifact" for record in records):
            complain(self.spool, "MLflow has no run of this study, so nothing was added to it", LOST)
            self.spool.delivered(records)
            return
        if run is None:
            run, tags = self._create(key, records, tags), {}
        elif any(record.kind == "start" for record in records):
            params, tags = self._reopen(run, params, tags)
        recorded_step = self._told_elsewhere(key, run, records)
        metrics = [
            Metric(name, value, record.body["time"], record.body["step"])
            for record in reversed(records)  # newest first: cheaper for MLflow, which keeps the latest of each
            if record.kind != "metrics" or record.body["step"] > recorded_step
            for name, value in record.body.get("metrics", {}).items()
        ]
        named = [Param(name, value) for name, value in params.items()]
        self.client.log_batch(run, metrics, named, [RunTag(name, value) for name, value in tags.items()])
        for record in _last_of_kind(records):
            self._finish(run, record)
        self.spool.delivered(records, drawn=any(record.kind == "diagnosis" for record in records))
        if any(record.kind == "end" for record in records):
            self.spool.forget(f"inherited {key}")

    def _finish(self, run: str, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if record.kind == "start" and record.body["dataset"]:
            context = [InputTag("mlflow.data.context", "training")]
            self.client.log_inputs(run, [DatasetInput(Dataset(**record.body["dataset"]), context)])
        if record.kind == "artifact" and Path(record.body["path"]).exists():
            self.client.log_artifact(run, record.body["path"], record.body["folder"] or None)
        elif record.kind == "artifact":
            complain(self.spool, f"{record.body['path']} was gone before it could be delivered", LOST)
        if record.kind == "diagnosis":
            self._show_diagnosis(run, record)
        if record.kind == "sweep":
            self._sweep(record.body["endings"])
        if record.kind == "end":
            self.client.set_terminated(run, record.body["status"], record.body["time"])

    def _show_diagnosis(self, run: str, record: Record) -> None:
        """A trial's curves and weights as a picture, and every layer's numbers."""
        diagnostics, curves = record.body["diagnostics"], self.spool.curves(record.key)
        with TemporaryDirectory() as folder:
            self._picture.draw(Path(folder, "trial.png"), curves, diagnostics.get("histogram", {}))
            Path(folder, "diagnostics.json").write_text(json.dumps(diagnostics, indent=1))
            self.client.log_artifacts(run, folder)

    @cached_property
    def _picture(self) -> TrialPicture:
        return TrialPicture()

    def _told_elsewhere(self, key: str, run: str, records: Sequence[Record]) -> int:
        """The last epoch of a trial that another machine has told MLflow already."""
        names = [name for record in records if record.kind == "metrics" for name in record.body["metrics"]]
        if key == STUDY or not names or not (self.wary or self._is_shared(key)):
            return -1
        history = self.client.get_metric_history(run, names[0])
        return max((metric.step for metric in history), default=-1)

    def _sweep(self, endings: Mapping[str, Mapping[str, Any]]) -> None:
        """End the trials' runs that are not ended as they should be: of a machine whose records are lost, or came too late."""
        from mlflow.entities import Metric, RunTag

        same = f"tags.`wdsearch.token` = '{self.spool.recall('token')}' and attributes.status != 'FINISHED'"
        for run in self.client.search_runs([self.experiment], same, max_results=5000):
            ending = endings.get(run.data.tags.get("wdsearch.key", ""))
            if ending is not None:
                metrics = [
                    Metric(name, value, ending["time"], ending["step"]) for name, value in ending["metrics"].items()
                ]
                tags = [RunTag(name, value) for name, value in ending["tags"].items()]
                self.client.log_batch(run.info.run_id, metrics, tags=tags)
                self.client.set_terminated(run.info.run_id, ending["status"], ending["time"])

    def _deliver_models(self, key: str, records: Sequence[Record]) -> None:
        """The newest of the best trials' networks; one that MLflow cannot keep is said, and holds up nothing."""
        from mlflow.exceptions import MlflowException

        run = self._known(STUDY)
        if run is not None:
            try:
                self._register(run, records[-1])
            except MlflowException:
                raise
            except Exception as error:  # whatever torch makes of a user's network
                complain(self.spool, f"the best model is not in MLflow: {type(error).__name__}: {error}", LOST)
        self.spool.delivered(records)

    def _register(self, run: str, record: Record) -> None:
        """A network on the study's run, and in the registry under the study's name as `best`."""
        import mlflow
        import torch
        from mlflow.models import Model, infer_signature

        mlflow.set_tracking_uri(self.spool.recall("uri") or "")
        exported, study = torch.export.load(record.body["path"]), self.spool.recall("study") or ""
        network, tensors = exported.module(), exported.example_inputs[0]
        arrays = [tensor.numpy() for tensor in tensors]
        signature = infer_signature(arrays[0], network(*tensors).detach().numpy())
        tags = {"wdsearch.trial": str(record.body["trial"]), "wdsearch.study": study}
        logged_model = self.client.create_logged_model(self.experiment, MODEL, source_run_id=run, tags=tags)
        logged = Model.log(
            None,
            mlflow.pytorch,
            registered_model_name=study,
            run_id=run,
            model_id=logged_model.model_id,
            pytorch_model=network,
            input_example=arrays[0],
            signature=signature,
            serialization_format="pt2",
            pip_requirements=record.body["requirements"],
        )
        self.client.set_registered_model_alias(study, "best", str(logged.registered_model_version))

    # -- runs --------------------------------------------------------------------------------------------------

    def _known(self, key: str) -> str | None:
        """The run of a key, if there is one, also if it was made just before a crash, or by another machine."""
        known = self.spool.recall(f"run {key}")
        several = "@" in self.spool.path.name
        if known not in (None, "making") or not (known or several or self._is_shared(key)):
            return known
        same = " and ".join(f"tags.`{name}` = '{value}'" for name, value in self._labels(key).items())
        runs = self.client.search_runs([self.experiment], same, order_by=["attributes.start_time", "attributes.run_id"])
        if not runs:
            return None
        self.spool.remember(f"run {key}", runs[0].info.run_id)
        if known is None:  # a machine that took the trial over was quicker, and told some of it
            self.spool.remember(f"inherited {key}", "True")
        for double in runs[1:]:  # two machines began the study at once
            if key == STUDY:
                self.client.delete_run(double.info.run_id)
        return str(runs[0].info.run_id)

    def _is_shared(self, key: str) -> bool:
        """True if another machine may have made the run of a key."""
        return (key == STUDY and "@" in self.spool.path.name) or self.spool.recall(f"inherited {key}") is not None

    def _labels(self, key: str) -> dict[str, str]:
        """Tags that find a run again; there may be another study of this name on the same server."""
        token = self.spool.recall("token") or os.urandom(4).hex()
        self.spool.remember("token", token)
        return {"wdsearch.key": key, "wdsearch.token": token}

    def _create(self, key: str, records: Sequence[Record], tags: Mapping[str, str]) -> str:
        self.spool.remember(f"run {key}", "making")
        labels = self._labels(key) | {"mlflow.source.name": "wdsearch", "mlflow.user": _user()}
        parent = self.spool.recall(f"run {STUDY}") if key != STUDY else None
        if parent:
            labels["mlflow.parentRunId"] = parent
        name = (self.spool.recall("study") or key) if key == STUDY else key
        began = now_ms() if key == STUDY else records[0].body.get("time")
        created = self.client.create_run(self.experiment, began, labels | dict(tags), name)
        if self._is_shared(key) and key == STUDY:
            return self._known(key) or str(created.info.run_id)
        self.spool.remember(f"run {key}", created.info.run_id)
        return str(created.info.run_id)

    def _reopen(
        self, run: str, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Params and tags for a run that is taken up again; MLflow refuses a changed param, so it becomes a tag."""
        existing = self.client.get_run(run)
        if existing.info.lifecycle_stage == "deleted":
            self.client.restore_run(run)
        if existing.info.status != "RUNNING":
            self.client.update_run(run, status="RUNNING")
        changed = {name for name, value in params.items() if existing.data.params.get(name, value) != value}
        same = {name: value for name, value in params.items() if name not in changed}
        return same, dict(tags) | {f"changed.{name}": params[name] for name in changed}


def warm_up(spool: Spool) -> None:
    """Import mlflow, and make its local store, while training is still getting ready."""
    import mlflow  # noqa: F401

    with suppress(Exception):  # what is wrong shows when there is something to deliver
        if spool.recall("local") == "True":
            make_store(spool.recall("uri") or "")


def _last_of_kind(records: Sequence[Record]) -> Iterator[Record]:
    """All artifacts, and the last start and end: an end before the last start was taken back."""
    last = {record.kind: record.id for record in records}
    for record in records:
        taken_back = record.kind == "end" and record.id < last.get("start", 0)
        if record.kind == "artifact" or (record.id == last[record.kind] and not taken_back):
            yield record


def _merged(records: Sequence[Record], part: str) -> dict[str, str]:
    return {name: value for record in records for name, value in record.body.get(part, {}).items()}


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown"
