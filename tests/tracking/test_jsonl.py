"""A study whose record is lines of JSON: without a server, whole after any kill, and what the commands say of it."""

import json
from pathlib import Path

import pandas as pd
import pytest
from support.recordings import assert_whole, begun, end, read, train, values
from support.shortened import concluded
from support.trackers import READERS
from typer.testing import CliRunner

import wdsearch
from wdsearch.cli.app import app
from wdsearch.storage.home import Home
from wdsearch.tracking import open_tracker
from wdsearch.tracking.tracker import STUDY, Tracker

SMALL = {
    "study": "lined",
    "data": "digits",
    "model": {"name": "mlp", "init_args": {"hidden": [8]}},
    "space": {"weight_decay": {"low": 1e-3, "high": 1.0, "log": True}, "early_stopping": {"value": float("inf")}},
    "budget": {"trials": 4, "epochs": 3},
    "search": {"sampler": "random"},
    "tracking": "jsonl",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lined")


@pytest.fixture(scope="module")
def done(home: Path) -> wdsearch.StudyResult:
    with concluded("_report", "_model"):
        return wdsearch.run(SMALL, home=home, progress=False)


def said(home: Path, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--home", str(home)])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_a_study_is_recorded_as_it_is_stored(home: Path, done: wdsearch.StudyResult) -> None:
    record = READERS["jsonl"](home, "lined")
    assert set(record) == {STUDY, "baseline", *(f"trial-{trial.number}" for trial in done.trials)}
    for trial in done.trials:
        recorded = record[f"trial-{trial.number}"]
        assert recorded.state == trial.state
        assert recorded.metrics.items() >= trial.result.metrics.items()
        assert [epoch for epoch, _ in recorded.points["loss/val"]] == list(range(1, trial.result.epochs + 1))
        assert float(recorded.params["weight_decay"]) == trial.result.strengths["weight_decay"]
    assert done.best is not None
    assert record[STUDY].tags["best.trial"] == str(done.best.number)
    assert {"report/report.html", "model/best.pt2"} <= record[STUDY].files
    assert not (home / "mlflow.db").exists()
    assert not (home / "spool").exists()


def test_the_documented_table_has_a_column_for_each_param_and_metric(home: Path, done: wdsearch.StudyResult) -> None:
    folder = home / "records" / "lined"
    runs = pd.read_json(folder / "runs.jsonl", lines=True, precise_float=True).groupby("run").last()
    table = pd.json_normalize(runs.reset_index().to_dict("records")).set_index("run")
    for trial in done.trials:
        row = table.loc[f"trial-{trial.number}"]
        assert row["params.weight_decay"] == trial.result.strengths["weight_decay"]
        assert row["metrics.val_loss"] == trial.result.metrics["val_loss"]


def test_what_the_commands_say_of_it(home: Path, done: wdsearch.StudyResult) -> None:
    folder = str(home / "records" / "lined")
    assert done.link == folder
    status = json.loads(CliRunner().invoke(app, ["status", "lined", "--json", "--home", str(home)]).stdout)
    assert (status["state"], status["undelivered"], status["link"]) == ("done", 0, folder)
    assert "MLflow" not in said(home, "status", "lined")
    assert said(home, "sync", "lined") == "nothing was left to deliver"
    assert said(home, "ui", "lined").replace(" ", "").startswith(folder.replace(" ", "") + "(linesofJSON")
    assert "note:" not in said(home, "report", "lined")
    assert not (home / "mlflow.db").exists(), "nobody has made a store"


def test_a_study_goes_on_with_another_tracker(home: Path, done: wdsearch.StudyResult) -> None:
    """Trials recorded before stay where they are."""
    more = SMALL | {"budget": {"trials": 5, "epochs": 3}, "tracking": "mlflow"}
    again = wdsearch.run(more, home=home, progress=False)
    assert len(again.trials) == 5
    assert str(again.link).startswith("http://127.0.0.1:5000/#/experiments/")
    record = READERS["mlflow"](home, "lined")
    assert set(record) == {STUDY, "trial-4"}


def test_a_tracker_that_is_not_there_is_told_by_validate_and_run(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(SMALL | {"tracking": "jsnol"}).replace("Infinity", ".inf"))
    for command in ("validate", "run"):
        result = CliRunner().invoke(app, [command, str(file)])
        assert result.exit_code == 2
        assert "tracking is 'jsnol'; did you mean jsonl?" in result.output


def lines(home: Path, file: str) -> list[str]:
    return (home / "records" / "small" / file).read_text().splitlines()


@pytest.mark.parametrize("torn", ["runs.jsonl", "epochs.jsonl"])
def test_a_line_that_was_cut_off_is_written_again(torn: str, tmp_path: Path) -> None:
    tracker = begun("jsonl", tmp_path)
    train(tracker, "trial-0", 3)
    end(tracker, "trial-0", 3)
    path = tmp_path / "records" / "small" / torn
    path.write_bytes(path.read_bytes()[:-20])
    tracker = begun("jsonl", tmp_path)
    train(tracker, "trial-0", 3)
    end(tracker, "trial-0", 3)
    tracker.finish()
    assert_whole(read("jsonl", tmp_path)["trial-0"], 3)


def test_lines_that_say_nothing_new_are_not_written(tmp_path: Path) -> None:
    tracker = begun("jsonl", tmp_path)
    train(tracker, "trial-0", 3)
    end(tracker, "trial-0", 3)
    before = {file: lines(tmp_path, file) for file in ("runs.jsonl", "epochs.jsonl")}
    end(tracker, "trial-0", 3)
    tracker.log("trial-0", 2, values(2))
    tracker.flush()
    assert before == {file: lines(tmp_path, file) for file in before}


def test_a_folder_of_ones_own_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    tracker: Tracker = open_tracker({"name": "jsonl", "folder": str(folder)}, Home(tmp_path), "small")
    tracker.start_study({}, {}, {})
    assert tracker.finish().link == str(folder / "small")
    assert (folder / "small" / "runs.jsonl").exists()
