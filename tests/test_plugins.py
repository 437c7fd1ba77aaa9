"""Entries of other packages in our tables: a package is installed from the tests, and used by the command line."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import TESTS

STUDY = """
study: moons
data: moons
model: {name: bottleneck, init_args: {width: 8}}
optimizer: {name: heavy_ball, momentum: 0.5}
tracking: lines
schedule: {cron: '@yearly', on: here}
space:
  ridge: {low: 1.0e-6, high: 1.0e-2, log: true}
  dropout: {low: 0.0, high: 0.5}
budget: {trials: 2, epochs: 2}
search: {batch: 2, sampler: random, pruner: none}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip installs it."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(TESTS / "support" / "plugin", folder / "source")
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile"]
    pip = [sys.executable, "-m", "pip", *words, "--target", str(folder / "site"), str(source)]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    return folder / "site"


def wdsearch(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the command where the package is installed."""
    paths = [str(installed), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "wdsearch.cli", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "WDSEARCH_HOME": str(folder / "home")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_what_a_package_adds_is_listed_and_what_does_not_fit_is_left_out_with_a_warning(
    installed: Path, tmp_path: Path
) -> None:
    done = wdsearch(installed, tmp_path, "list", "--json")
    assert done.returncode == 0, done.stderr
    tables = {kind: {entry["name"]: entry for entry in entries} for kind, entries in json.loads(done.stdout).items()}
    assert tables["regularizers"]["ridge"]["unit"] == "λ per squared weight"
    assert [(entry["name"], entry["default"]) for entry in tables["models"]["bottleneck"]["arguments"]] == [
        ("width", 4)
    ]
    assert tables["data"]["moons"]["summary"] == "Two interleaved half circles of scikit-learn"
    assert "here" in tables["engines"]
    assert {"heavy_ball", "sgd"} <= tables["optimizers"].keys()
    assert {"lines", "mlflow"} <= tables["trackers"].keys()
    assert "rate of every dropout layer" in tables["regularizers"]["dropout"]["summary"], "ours stays"
    for reason in (
        "adds 'dropout' to wdsearch.regularizers, which is left out: that name is taken",
        "adds 'nowhere' to wdsearch.models, which is left out: wdsearch_extra.nowhere:network cannot be imported",
        "adds 'iris' to wdsearch.datasets, which is left out",
        "adds 'sgd2' to wdsearch.optimizers, which is left out: its key is 'heavy_ball'",
    ):
        assert f"wdsearch-extra {reason}" in done.stderr, done.stderr


def test_a_study_uses_what_a_package_adds(installed: Path, tmp_path: Path) -> None:
    """Model, data, optimizer, regularizer and tracker, in a worker that an engine of the package starts."""
    (tmp_path / "moons.yaml").write_text(STUDY)
    launched = wdsearch(installed, tmp_path, "launch", "moons.yaml", "--on", "here", "--workers", "3")
    assert launched.returncode == 0, launched.stderr
    page = tmp_path / "home" / "studies" / "moons" / "report" / "report.html"
    end = time.monotonic() + 100.0
    while not page.exists() and time.monotonic() < end:
        time.sleep(0.2)
    status = json.loads(wdsearch(installed, tmp_path, "status", "moons", "--json").stdout)
    assert status["state"] == "done", status
    best = json.loads(wdsearch(installed, tmp_path, "best", "moons", "--format", "json").stdout)
    assert best["torch"]["ridge"].startswith("torch.optim.Adam(weight_decay=")
    assert (best["optimizer"]["name"], best["optimizer"]["momentum"]) == ("heavy_ball", 0.5)
    text = wdsearch(installed, tmp_path, "best", "moons", "--format", "python").stdout
    assert "momentum=0.5, nesterov=False, weight_decay=0.0" in text
    assert "MISSING here: ridge = " in text
    assert (tmp_path / "home" / "records" / "moons" / "runs.jsonl").exists()
    report = wdsearch(installed, tmp_path, "report", "moons").stdout
    assert "wdsearch-extra" in page.read_text(), report  # among the versions with which the study was trained
