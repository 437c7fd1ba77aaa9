"""Promises of every tracker, read back as its users read it: nothing is lost and nothing is there twice."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import CONTEXT
from support.recordings import PARAMS, TAGS, assert_whole, begun, end, read, train, values
from support.trackers import Recorded

from wdsearch.storage.home import Home
from wdsearch.study.load import load_study
from wdsearch.tracking import TRACKERS, TrackerError, backlog, chosen_tracker
from wdsearch.tracking.tracker import STUDY
from wdsearch.trial.result import Result

pytestmark = [pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")]
ALL = pytest.mark.parametrize("name", TRACKERS)


@ALL
def test_what_is_read_is_what_was_recorded(name: str, tmp_path: Path) -> None:
    tracker = begun(name, tmp_path)
    train(tracker, "trial-0", 4)
    end(tracker, "trial-0", 4)
    train(tracker, "baseline", 2)
    tracker.end_trial("baseline", "PRUNED", {"gap": 0.5}, {})
    picture = tmp_path / "gap.png"
    picture.write_bytes(b"picture")
    tracker.log_artifact(picture, "figures")
    tracker.end_study({"val_loss": 0.25}, {"best.trial": "0"}, 9)
    delivery = tracker.finish()
    assert (delivery.undelivered, delivery.error) == (0, None)
    assert delivery.link
    record = read(name, tmp_path)
    assert set(record) == {STUDY, "trial-0", "baseline"}
    assert_whole(record["trial-0"], 4)
    assert (record["baseline"].state, record["baseline"].metrics["gap"]) == ("PRUNED", 0.5)
    study = record[STUDY]
    assert (study.state, study.params, study.metrics) == ("COMPLETE", {"epochs": "9"}, {"val_loss": 0.25})
    assert (study.tags["best.trial"], study.tags["seed"], study.files) == ("0", "0", {"figures/gap.png"})
    assert backlog(Home(tmp_path), "small").undelivered == 0


@ALL
def test_values_that_are_not_finite_are_left_out(name: str, tmp_path: Path) -> None:
    tracker = begun(name, tmp_path)
    tracker.start_trial("trial-0", PARAMS, TAGS, {})
    tracker.log("trial-0", 0, {"loss/train": math.nan, "loss/val": -math.inf, "loss/gap": 1})
    tracker.log("trial-0", 1, {"loss/train": 2.0, "loss/val": math.inf})
    diagnostics = {"whole": {"norm": 3.0, "drift": math.nan}, "layers": {"0": {"norm": math.inf}}}
    tracker.end_trial("trial-0", "PRUNED", {"val_loss": math.inf, "gap": 0.25}, {}, 2, diagnostics)
    assert tracker.finish().undelivered == 0
    record = read(name, tmp_path)["trial-0"]
    shown = {
        metric: [point for point in history if math.isfinite(point[1])] for metric, history in record.points.items()
    }
    shown.pop("diagnosis/norm", None)
    assert shown == {"loss/train": [(1, 2.0)], "loss/gap": [(0, 1.0)]}
    assert record.metrics.items() >= {"gap": 0.25}.items()
    assert "val_loss" not in record.metrics


@ALL
@pytest.mark.parametrize("last", [1, 3], ids=["before its end", "after its end"])
def test_a_trial_that_is_trained_again_after_a_kill_is_there_once(name: str, last: int, tmp_path: Path) -> None:
    """Killed between two epochs, or when the end was recorded and nobody was told."""
    killed = CONTEXT.Process(target=train_and_die, args=(name, tmp_path, last, last == 3, dict(os.environ)))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    tracker = begun(name, tmp_path)
    train(tracker, "trial-0", 3)
    end(tracker, "trial-0", 3)
    tracker.end_study({}, {})
    assert tracker.finish().undelivered == 0
    record = read(name, tmp_path)
    assert set(record) == {STUDY, "trial-0"}
    assert_whole(record["trial-0"], 3)


def train_and_die(name: str, home: Path, epochs: int, ends: bool, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from support.shortened import deliver_here

    deliver_here(setattr)
    tracker = begun(name, home)
    train(tracker, "trial-0", epochs)
    if ends:
        end(tracker, "trial-0", epochs)
    tracker.log("trial-0", epochs, {"loss/val": 99.0})  # not flushed: lost, as it should be
    os.kill(os.getpid(), signal.SIGKILL)


@ALL
def test_what_is_discarded_was_never_recorded(name: str, tmp_path: Path) -> None:
    tracker = begun(name, tmp_path)
    train(tracker, "trial-0", 2)
    tracker.log("trial-0", 2, {"loss/val": 99.0, "loss/train": 99.0})
    tracker.end_trial("trial-0", "PRUNED", {"val_loss": 99.0}, {})
    tracker.discard()
    train(tracker, "trial-0", 3)
    end(tracker, "trial-0", 3)
    assert tracker.finish().undelivered == 0
    assert_whole(read(name, tmp_path)["trial-0"], 3)


@ALL
def test_workers_share_a_record_and_one_takes_over_from_another(name: str, tmp_path: Path) -> None:
    first, second = begun(name, tmp_path), begun(name, tmp_path)
    train(first, "trial-0", 2)
    train(second, "trial-1", 3)
    end(second, "trial-1", 3)
    train(second, "trial-0", 4, first=1)  # the first one was silent for too long
    first.log("trial-0", 2, values(2))
    first.stop_writing()
    end(second, "trial-0", 4)
    second.end_study({}, {})
    assert second.finish().undelivered == 0
    assert first.finish().undelivered == 0
    record = read(name, tmp_path)
    assert set(record) == {STUDY, "trial-0", "trial-1"}
    assert_whole(record["trial-0"], 4)
    assert_whole(record["trial-1"], 3)
    assert record[STUDY].state == "COMPLETE"


def record_some(name: str, home: Path, worker: int, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from support.shortened import deliver_here

    deliver_here(setattr)
    tracker = begun(name, home)
    for number in range(worker, 20, 4):
        train(tracker, f"trial-{number}", 5)
        end(tracker, f"trial-{number}", 5)
    tracker.flush()
    os.kill(os.getpid(), signal.SIGKILL)


@ALL
def test_processes_that_write_at_once_lose_nothing(name: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=record_some, args=(name, tmp_path, i, dict(os.environ))) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    tracker = begun(name, tmp_path)
    assert tracker.finish().undelivered == 0
    record = read(name, tmp_path)
    assert set(record) == {STUDY, *(f"trial-{number}" for number in range(20))}
    for number in range(20):
        assert_whole(record[f"trial-{number}"], 5)


@ALL
def test_what_was_not_ended_is_interrupted_until_it_goes_on(name: str, tmp_path: Path) -> None:
    tracker = begun(name, tmp_path)
    train(tracker, "trial-0", 2)
    assert tracker.finish().undelivered == 0
    assert {record.state for record in read(name, tmp_path).values()} == {"INTERRUPTED"}
    tracker = begun(name, tmp_path)
    train(tracker, "trial-0", 3)
    end(tracker, "trial-0", 3)
    tracker.end_study({}, {})
    assert tracker.finish().undelivered == 0
    assert_whole(read(name, tmp_path)["trial-0"], 3)


@ALL
def test_a_sweep_ends_what_a_lost_machine_left_open(name: str, tmp_path: Path) -> None:
    killed = CONTEXT.Process(target=train_and_die, args=(name, tmp_path, 3, False, dict(os.environ)))
    killed.start()
    killed.join()
    tracker = begun(name, tmp_path)
    if name == "mlflow":  # what lies in this spool is delivered before, not by the sweep
        assert tracker.finish().undelivered == 0
        tracker = begun(name, tmp_path)
    tracker.sweep({"trial-0": Result("budget", 3, {"val_loss": 0.25}, 0.1, {}, {}, {})})
    assert tracker.finish().undelivered == 0
    record = read(name, tmp_path)
    assert record[STUDY].state == "COMPLETE"
    assert_whole(record["trial-0"], 3)


@ALL
def test_a_new_study_of_a_deleted_ones_name_has_a_record_of_its_own(name: str, tmp_path: Path) -> None:
    tracker = begun(name, tmp_path, "old")
    train(tracker, "trial-7", 2)
    assert tracker.finish().undelivered == 0
    tracker = begun(name, tmp_path, "new")
    train(tracker, "trial-0", 1)
    end(tracker, "trial-0", 1)
    assert tracker.finish().undelivered == 0
    assert_whole(of_token(name, tmp_path, "new")["trial-0"], 1)
    assert "trial-7" not in of_token(name, tmp_path, "new")


def of_token(name: str, home: Path, token: str) -> dict[str, Recorded]:
    """MLflow keeps both studies in one experiment: what the later one's token finds."""
    if name != "mlflow":
        return read(name, home)
    from mlflow import MlflowClient
    from support import trackers

    client = MlflowClient(trackers.local_uri(home))
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`wdsearch.token` = '{token}'")
    return {run.data.tags["wdsearch.key"]: trackers._run(client, run) for run in runs}


@ALL
def test_a_file_is_added_to_an_ended_record_and_to_none_where_there_is_none(name: str, tmp_path: Path) -> None:
    kind, options = chosen_tracker(name)
    assert kind.reopen(tmp_path, "small", **options) is None
    tracker = begun(name, tmp_path)
    tracker.end_study({"val_loss": 0.5}, {})
    assert tracker.finish().undelivered == 0
    report = tmp_path / "report.html"
    report.write_text("found")
    adding = kind.reopen(tmp_path, "small", token="1a2b", **options)
    assert adding is not None
    adding.log_artifact(report, "report")
    adding.start_delivery()
    assert adding.finish().undelivered == 0
    study = read(name, tmp_path)[STUDY]
    assert (study.state, study.metrics, study.files) == ("COMPLETE", {"val_loss": 0.5}, {"report/report.html"})


@ALL
def test_a_tracker_says_what_it_is(name: str) -> None:
    kind, options = chosen_tracker({"name": name})
    assert (kind, options) == (TRACKERS[name], {})
    assert kind.summary
    assert not kind.summary.endswith(".")


@pytest.mark.parametrize(
    ("tracking", "text"),
    [
        ("jsnol", r"tracking is 'jsnol'; did you mean jsonl\?"),
        ({"name": "jsonl", "foldr": "x"}, r"tracking.foldr is not an option of jsonl; did you mean folder\?"),
        ({"name": "jsonl", "folder": 3}, r"tracking.folder is 3; allowed is text"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_with_the_nearest(tracking: object, text: str) -> None:
    with pytest.raises(TrackerError, match=text):
        chosen_tracker(tracking)


def test_no_tracker_is_the_default_one_and_a_study_names_it_either_way() -> None:
    study = {"study": "s", "data": "digits", "model": "mlp", "budget": {"trials": 1, "epochs": 1}}
    study |= {"space": {"l2": {"low": 0.0, "high": 1.0}}}
    assert load_study(study).tracking is None
    assert chosen_tracker(None) == chosen_tracker("mlflow")
    for tracking in ("jsonl", {"name": "jsonl"}):
        config = load_study(study | {"tracking": tracking})
        assert chosen_tracker(config.tracking) == chosen_tracker("jsonl")
        assert config.dump()["tracking"] == {"name": "jsonl"}


def test_the_table_of_trackers_loads_no_server_and_no_torch() -> None:
    code = (
        "import sys, wdsearch.tracking; sys.exit(bool({'torch', 'mlflow', 'pydantic', 'lightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
