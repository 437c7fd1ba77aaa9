"""Reads back what trackers have recorded, each as its users would: MLflow's client, pandas on lines of JSON."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

from wdsearch.tracking.jsonl import EPOCHS, RUNS
from wdsearch.tracking.mlflow_address import local_uri


@dataclass
class Recorded:
    """Record of a trial, or of the study: values as texts, each metric's points in the order of their epochs."""

    state: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    points: dict[str, list[tuple[int, float]]]
    files: set[str] = field(default_factory=set)
    dataset: str = ""


def in_mlflow(home: Path, study: str) -> dict[str, Recorded]:
    """By key; fails if a key has two runs."""
    client = MlflowClient(local_uri(home))
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = {run.data.tags["wdsearch.key"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == len(client.search_runs([experiment.experiment_id]))
    return {key: _run(client, run) for key, run in runs.items()}


def _run(client: MlflowClient, run: Run) -> Recorded:
    points = {
        name: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }
    ends = {name: value for name, value in run.data.metrics.items() if "/" not in name}
    data = [given.dataset.digest for given in run.inputs.dataset_inputs]
    state = run.data.tags["wdsearch.state"]
    epochs = {name: history for name, history in points.items() if "/" in name}
    return Recorded(state, run.data.params, run.data.tags, ends, epochs, _files(client, run.info.run_id), *data[:1])


def _files(client: MlflowClient, run: str, folder: str | None = None) -> set[str]:
    listed = client.list_artifacts(run, folder)
    inner = [_files(client, run, one.path) for one in listed if one.is_dir]
    return {one.path for one in listed if not one.is_dir}.union(*inner)


def as_lines(home: Path, study: str) -> dict[str, Recorded]:
    """By key, in the three lines that the tracker's documentation promises."""
    folder = home / "records" / study
    epochs = pd.read_json(folder / EPOCHS, lines=True, precise_float=True)
    runs = pd.read_json(folder / RUNS, lines=True, precise_float=True).groupby("run").last()
    found = {}
    for key, run in runs.iterrows():
        own = epochs[epochs["run"] == key] if len(epochs) else epochs
        names = [name for name in own.columns if "/" in name and own[name].notna().any()]
        found[str(key)] = Recorded(
            run["state"],
            {name: str(value) for name, value in _mapping(run.get("params")).items()},
            _mapping(run.get("tags")),
            _mapping(run.get("metrics")),
            {name: sorted(zip(own["epoch"], own[name], strict=True)) for name in names},
            {path.relative_to(folder / str(key)).as_posix() for path in (folder / str(key)).rglob("*.*")},
            str(_mapping(run.get("dataset")).get("digest", "")),
        )
    return found


def _mapping(cell: Any) -> dict[str, Any]:
    """Values of a run; pandas fills those that it does not have."""
    return dict(cell) if isinstance(cell, Mapping) else {}


READERS: dict[str, Callable[[Path, str], dict[str, Recorded]]] = {"mlflow": in_mlflow, "jsonl": as_lines}
"""A new tracker is read by a function of its own here, and the contract holds for it."""
