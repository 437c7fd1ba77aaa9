"""Common traits of all engines, whatever they start workers on; and how they are listed and refused."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from support.orders import SECRET, order
from support.studies import STUDY
from typer.testing import CliRunner

from wdsearch.cli.app import app
from wdsearch.launch import workers as launching
from wdsearch.launch.engines import LAUNCHERS, EngineError, Launcher, LaunchError
from wdsearch.launch.workers import check_shared, engines, launch, options_of
from wdsearch.storage.home import Home
from wdsearch.study.load import load_study

NEEDED: dict[str, dict[str, Any]] = {"kubernetes": {"image": "registry.example.org/wdsearch:1"}}
"""Options without which an engine does not do."""
ENGINES = pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=list(LAUNCHERS))


@pytest.fixture(autouse=True)
def _slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit looks for Slurm before it writes a script."""
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@ENGINES
def test_an_engine_says_what_it_is_and_what_each_option_does(launcher: Launcher[Any]) -> None:
    assert launcher.summary
    assert not launcher.summary.endswith(".")
    for name, field in launcher.options.model_fields.items():
        assert re.fullmatch(r"[a-z_]+", name)
        assert field.description, f"{launcher.name} does not say what {name} is"
        assert field.description.endswith("."), name
    assert options_of(launcher.name, NEEDED.get(launcher.name, {})) is not None


@ENGINES
def test_a_script_names_study_and_workers_and_no_secret(launcher: Launcher[Any], tmp_path: Path) -> None:
    if launcher.name == "slurm":
        pytest.importorskip("submitit")
    options = options_of(launcher.name, NEEDED.get(launcher.name, {}))
    text = launcher.script(order(tmp_path), options)
    assert "small" in text
    assert text.count("work small") == 3 or re.search(r"\b3\b|0-2\b", text)
    assert "hunter2" not in text
    assert not (tmp_path / "1a2b3c4d").exists(), "nothing is written"


@ENGINES
def test_a_wrong_option_is_refused_with_the_nearest_one(launcher: Launcher[Any]) -> None:
    known = next(name for name in launcher.options.model_fields if len(name) > 3)
    wrong = known[:-1] + ("x" if known[-1] != "x" else "y")
    with pytest.raises(EngineError, match=rf"{launcher.name} has no option '{wrong}'; did you mean {known}\?"):
        options_of(launcher.name, NEEDED.get(launcher.name, {}) | {wrong: 1})


def test_what_an_engine_needs_and_cannot_use_is_said_at_once() -> None:
    with pytest.raises(EngineError, match=r"kubernetes needs the option image: -o image=\.\.\.") as caught:
        options_of("kubernetes", {"cpus": 0, "nmespace": "ml"})
    assert "cpus is 0; allowed is a number above 0" in str(caught.value)
    assert "did you mean namespace?" in str(caught.value)
    with pytest.raises(EngineError, match=r"there is no engine 'kubernets'; did you mean kubernetes\?"):
        options_of("kubernets", {})


@ENGINES
def test_an_engine_of_several_machines_needs_what_they_share(
    launcher: Launcher[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    if launcher.renders or not launcher.spans:
        check_shared(launcher, home, None)
        return
    with pytest.raises(EngineError, match="is a file of one machine") as caught:
        check_shared(launcher, home, None)
    assert "$MLFLOW_TRACKING_URI is not set" in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    check_shared(launcher, home, SECRET)


def test_engines_are_listed_with_their_options() -> None:
    found = engines()
    assert [entry["name"] for entry in found] == list(LAUNCHERS) == ["local", "slurm", "ray", "kubernetes"]
    assert json.loads(json.dumps(found)) == found
    ray = {option["name"]: option for option in found[2]["arguments"]}
    assert ray["cpus"] == {"name": "cpus", "takes": "a number", "default": 1, "about": "CPU cores of each worker."}
    image = next(entry for entry in found if entry["name"] == "kubernetes")["arguments"][0]
    assert image["name"] == "image"
    assert "default" not in image
    text = CliRunner().invoke(app, ["list"]).stdout
    assert re.search(r"^ray  +tasks of a job", text, re.M)
    assert "cpus=1: CPU cores of each worker." in text


def test_a_launch_without_its_engine_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setitem(__import__("sys").modules, "ray.job_submission", None)
    ray = LAUNCHERS["ray"]
    with pytest.raises(LaunchError, match=r"pip install 'wdsearch\[ray\]'"):
        ray.start(order(tmp_path), options_of("ray", {}))


def test_more_workers_than_the_budget_keeps_busy_are_said(tmp_path: Path) -> None:
    """14 trials in batches of 4, two batches to a worker at first."""
    study = load_study(STUDY)
    notes = {workers: launch(study, workers=workers, home=tmp_path, dry_run=True).note for workers in (1, 2, 4)}
    assert notes[1] is notes[2] is None
    assert str(notes[4]).startswith("at most 2 of 4 workers have something to train at a time")
    assert "search.batch=1" in str(notes[4])
    fitting = load_study(STUDY, ["search.batch=1"])
    assert launch(fitting, workers=4, home=tmp_path, dry_run=True).note is None
    assert str(launch(study, workers=8, home=tmp_path, dry_run=True).note).endswith("14 are too few for 8")


def test_a_rendering_engine_begins_no_study_and_needs_no_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wdsearch.study.file import as_yaml

    file = tmp_path / "small.yaml"
    file.write_text(as_yaml(STUDY))
    monkeypatch.setenv("WDSEARCH_STORAGE", "postgresql://nobody@127.0.0.1:1/nothing")
    home = tmp_path / "home"
    dry = launch(file, "kubernetes", 4, NEEDED["kubernetes"], home=home, dry_run=True)
    assert "parallelism: 4" in dry.script
    assert not home.exists()
    done = launch(file, "kubernetes", 4, NEEDED["kubernetes"], home=home)
    assert done.launch is not None
    (path,) = done.launch.jobs
    assert Path(path).is_relative_to(home)
    assert "parallelism: 4" in Path(path).read_text()
    assert done.follow_up["start"] == f"kubectl apply -f {path}"
    assert launching.LAUNCHERS["kubernetes"].states([path], options_of("kubernetes", NEEDED["kubernetes"])) == {
        path: "unknown"
    }
    assert [found.name for found in home.iterdir()] == ["studies"], "no storage was made"
    words = ["launch", str(file), "--on", "kubernetes", "-o", "image=x/y:1", "--home", str(home)]
    text = CliRunner().invoke(app, words).stdout
    assert re.search(r"^2 workers of small on kubernetes: .*manifest\.yaml$", text, re.M)
    assert re.search(r"^start +kubectl apply -f .*manifest\.yaml$", text, re.M)
