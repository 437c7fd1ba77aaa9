"""Small studies as mappings and as text, their search, and what is stored of their trials."""

from pathlib import Path
from typing import Any

import pytest

import wdsearch
from wdsearch.study.file import StudyFileError
from wdsearch.study.load import load_study

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))

GOOD = """study: good
data: {name: digits}
model: {name: mlp}
space:
  weight_decay: {low: 1e-4, high: 10, log: true, off: true}
budget: {trials: 8, epochs: 2}
"""


def yaml_free() -> dict[str, Any]:
    """The least study that Python can bring."""
    return {
        "study": "x",
        "data": "digits",
        "model": "mlp",
        "space": {"l2": {"low": 0, "high": 1}},
        "budget": {"trials": 1, "epochs": 1},
    }


def faults(text: str, tmp_path: Path, *overrides: str) -> str:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(StudyFileError) as error:
        load_study(path, overrides)
    return str(error.value).replace(f"{tmp_path}/", "")


STUDY = {
    "study": "small",
    "data": {"name": "digits", "init_args": {"batch_size": 256}},
    "model": {"name": "mlp", "init_args": {"hidden": [16]}},
    "optimizer": {"name": "adamw", "schedule": "cosine", "lr": 0.01},
    "space": {
        "lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "weight_decay": {"timescale": [0.5, 10], "off": True},
        "dropout": {"low": 0.0, "high": 0.6},
        "early_stopping": {"low": 3, "high": 8, "off": True},
    },
    "budget": {"trials": 14, "epochs": 8},
    "search": {"batch": 4, "sampler": {"name": "tpe", "n_startup_trials": 6}},
    "trainer": {"accelerator": "cpu"},
    "seed": 3,
}


def searched(folder: Path, **changes: object) -> wdsearch.StudyResult:
    return wdsearch.run(STUDY | changes, home=folder, progress=False)


def told(result: wdsearch.StudyResult) -> list[tuple]:
    trials = result.optuna_study.get_trials(deepcopy=False)
    return [
        (t.number, t.params, t.state.name, t.values, t.intermediate_values, t.user_attrs.get("result")) for t in trials
    ]
