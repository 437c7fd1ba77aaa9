"""Records of a study arrive at MLflow once, whatever is killed when: real SQLite stores, processes and servers."""

import math
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, Run
from support.processes import CONTEXT
from support.shortened import delivered_beside
from support.studies import STUDY

from wdsearch.files import locked
from wdsearch.study.load import load_study
from wdsearch.tracking import cpu_share as starvation
from wdsearch.tracking.cpu_share import Share
from wdsearch.tracking.delivery import deliver
from wdsearch.tracking.mlflow_address import experiment_link, local_uri
from wdsearch.tracking.mlflow_client import Courier
from wdsearch.tracking.mlflow_server import ui_command
from wdsearch.tracking.mlflow_store import find_page, make_store
from wdsearch.tracking.mlflow_tracker import MlflowDelivery, MlflowTracker
from wdsearch.tracking.spool import VIEW, Record, Spool, open_elsewhere, spool_paths

pytestmark = [
    pytest.mark.usefixtures("_delivered_beside"),
    # mlflow 3.17 reads runs in a way that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]

DATASET = {
    "name": "digits",
    "digest": "0123456789abcdef",
    "source_type": "code",
    "source": '{"class": "wdsearch.datasets.Digits"}',
    "schema": '{"inputs": 64}',
    "profile": '{"rows": {"train": 1000}}',
}
EPOCHS = 160
PARAMS = {"weight_decay": 0.1, "hidden": [64, 64]}
TAGS = {"wdsearch.kind": "trial", "wdsearch.study": "small", "long": "x" * 9000}


@pytest.fixture
def home(tmp_path: Path, empty_store: Path) -> Path:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    return tmp_path


def values(epoch: int) -> dict[str, float]:
    return {f"loss/{name}": index + 1 / (epoch + 1) for index, name in enumerate("abcdefg")}


def begin(home: Path, epochs: int = EPOCHS, uri: str | None = None) -> MlflowTracker:
    """A study with a trial that has been trained but not ended."""
    tracker = MlflowTracker(home, "small", uri=uri)
    tracker.start_study({"epochs": epochs}, {"seed": "0"}, DATASET)
    tracker.start_trial("trial-0", PARAMS, TAGS, DATASET)
    for epoch in range(epochs):
        tracker.log("trial-0", epoch, values(epoch))
        tracker.flush()
    return tracker


def end(tracker: MlflowTracker, epochs: int = EPOCHS) -> MlflowTracker:
    tracker.end_trial("trial-0", "COMPLETE", {"val_loss": 0.5}, {"wdsearch.end": "budget"})
    tracker.end_study({"val_loss": 0.5}, {"best.trial": "0"}, epochs)
    tracker.flush()
    return tracker


def kill_delivery(tracker: MlflowTracker) -> None:
    assert tracker._process is not None
    tracker._process.kill()
    tracker._process.wait()


def deliver_here(tracker: MlflowTracker) -> MlflowDelivery:
    """Deliver in this process, which has imported mlflow already."""
    kill_delivery(tracker)
    tracker.stop_writing()
    deliver(tracker.spool.path)
    return tracker.finish()


def runs(uri: str, study: str = "small") -> dict[str, Run]:
    """The study's runs by name; fails if a name is there twice."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    recorded = client.search_runs([experiment.experiment_id])
    assert max(Counter(run.info.run_name for run in recorded).values()) == 1
    return {run.info.run_name: run for run in recorded}


def datasets(run: Run) -> list[Dataset]:
    return [dataset_input.dataset for dataset_input in run.inputs.dataset_inputs] if run.inputs else []


def steps(uri: str, run: Run, metric: str) -> list[int]:
    return [point.step for point in MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, metric)]


def assert_complete(uri: str, epochs: int = EPOCHS) -> None:
    """Every point, param and tag of `begin` and `end` is there, and there once."""
    recorded = runs(uri)
    assert sorted(recorded) == ["small", "trial-0"]
    trial = recorded["trial-0"]
    for metric in values(0):
        assert sorted(steps(uri, trial, metric)) == list(range(epochs))
    assert steps(uri, trial, "val_loss") == [0]
    assert steps(uri, recorded["small"], "val_loss") == [epochs]
    assert {run.info.status for run in recorded.values()} == {"FINISHED"}
    assert trial.data.params == {name: str(value) for name, value in PARAMS.items()}
    assert trial.data.metrics["loss/a"] == 1 / epochs
    assert [len(datasets(run)) for run in recorded.values()] == [1, 1]


# -- what arrives ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Path, MlflowDelivery]:
    """One delivered study that several tests read."""
    home = tmp_path_factory.mktemp("home")
    (home / "mlflow.db").write_bytes(empty_store.read_bytes())
    with delivered_beside():
        return home, told_of_all(home).finish()


def told_of_all(home: Path) -> MlflowTracker:
    """A study with a trial of each state and a picture."""
    tracker = begin(home)
    for key, state in (("baseline", "COMPLETE"), ("trial-1", "PRUNED"), ("trial-2", "FAIL")):
        tracker.start_trial(key, PARAMS, TAGS | {"wdsearch.kind": key.split("-")[0]}, {})
        tracker.log(key, 0, {"loss/a": math.nan, "loss/b": -math.inf, "loss/c": 1})
        tracker.end_trial(key, state, {"val_loss": math.inf, "gap": 0.25}, {})
    picture = home / "gap.png"
    picture.write_bytes(b"picture")
    tracker.log_artifact(picture, "figures")
    return end(tracker)


def test_a_study_is_a_parent_run_with_a_nested_run_per_trial(study: tuple[Path, MlflowDelivery]) -> None:
    home, delivery = study
    recorded = runs(local_uri(home))
    parent = recorded.pop("small")
    assert parent.info.run_id == delivery.parent_run_id
    assert sorted(recorded) == ["baseline", "trial-0", "trial-1", "trial-2"]
    assert {run.data.tags["mlflow.parentRunId"] for run in recorded.values()} == {parent.info.run_id}
    assert parent.data.tags["wdsearch.kind"] == "study"
    assert recorded["baseline"].data.tags["wdsearch.kind"] == "baseline"


def test_every_epoch_arrives_with_its_step_and_the_time_it_was_trained(study: tuple[Path, MlflowDelivery]) -> None:
    home, _ = study
    uri = local_uri(home)
    trial = runs(uri)["trial-0"]
    for metric in values(0):
        assert sorted(steps(uri, trial, metric)) == list(range(EPOCHS))
    points = MlflowClient(tracking_uri=uri).get_metric_history(trial.info.run_id, "loss/b")
    assert {point.step: point.value for point in points} == {epoch: values(epoch)["loss/b"] for epoch in range(EPOCHS)}
    assert trial.info.start_time <= min(point.timestamp for point in points)
    assert max(point.timestamp for point in points) <= trial.info.end_time


def test_values_that_are_not_finite_are_left_out(study: tuple[Path, MlflowDelivery]) -> None:
    assert runs(local_uri(study[0]))["trial-1"].data.metrics == {"loss/c": 1.0, "gap": 0.25}


def test_states_are_statuses_and_tags(study: tuple[Path, MlflowDelivery]) -> None:
    recorded = runs(local_uri(study[0]))
    states = {name: (run.info.status, run.data.tags["wdsearch.state"]) for name, run in recorded.items()}
    assert states == {
        "small": ("FINISHED", "COMPLETE"),
        "baseline": ("FINISHED", "COMPLETE"),
        "trial-0": ("FINISHED", "COMPLETE"),
        "trial-1": ("FINISHED", "PRUNED"),
        "trial-2": ("FAILED", "FAIL"),
    }


def test_the_data_set_is_an_input_of_the_study_and_of_a_trial(study: tuple[Path, MlflowDelivery]) -> None:
    recorded = runs(local_uri(study[0]))
    for run in (recorded["small"], recorded["trial-0"]):
        (dataset,) = datasets(run)
        assert {name: getattr(dataset, name) for name in DATASET} == DATASET


def test_a_tag_is_cut_where_mlflow_cuts_it(study: tuple[Path, MlflowDelivery]) -> None:
    assert runs(local_uri(study[0]))["trial-0"].data.tags["long"] == "x" * 8000


def test_an_artifact_lies_in_the_home_folder(study: tuple[Path, MlflowDelivery]) -> None:
    home, delivery = study
    (picture,) = (home / "artifacts").rglob("gap.png")
    assert picture.read_bytes() == b"picture"
    listed = MlflowClient(tracking_uri=local_uri(home)).list_artifacts(str(delivery.parent_run_id), "figures")
    assert [item.path for item in listed] == ["figures/gap.png"]


def test_a_delivery_says_where_the_study_is_and_prints_nothing(study: tuple[Path, MlflowDelivery]) -> None:
    _, delivery = study
    assert delivery.undelivered == 0
    assert delivery.error is None
    assert delivery.link == experiment_link("sqlite://", str(delivery.experiment_id))
    assert delivery.log.read_text() == ""


def test_the_tracker_imports_no_mlflow() -> None:
    imports = "import sys, wdsearch.tracking, wdsearch.tracking.delivery"
    code = f"{imports}; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("sqlite:////home/mlflow.db", "http://127.0.0.1:5000"),
        ("https://mlflow.example.org/", "https://mlflow.example.org"),
        ("http://ada:secret@tracking:8080/mlflow", "http://tracking:8080/mlflow"),
    ],
)
def test_a_link_shows_no_password(uri: str, base: str) -> None:
    assert experiment_link(uri, "7") == f"{base}/#/experiments/7/runs?workflowType=machine_learning"


def test_a_link_names_the_server_as_people_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDSEARCH_MLFLOW_PAGE", "https://mlflow.example.org/")
    assert experiment_link("http://mlflow:5000", "7").startswith("https://mlflow.example.org/#/experiments/7/")
    assert experiment_link("sqlite:////home/mlflow.db", "7").startswith("http://127.0.0.1:5000/#/")


def test_on_one_of_several_machines_it_waits_until_mlflow_has_all(tmp_path: Path) -> None:
    tracker = MlflowTracker(tmp_path, "contained", node="a")
    tracker.start_study({}, {}, {})
    tracker.log_model(tmp_path / "none.pt2", 3, ["torch"])
    assert tracker.finish(wait_s=0.0).undelivered == 0
    (path,) = spool_paths(tmp_path, "contained")
    assert Spool(path).left() == 0, "the model was waited for too"


@pytest.mark.slow
def test_who_has_told_all_does_not_wait_for_others_who_still_write(home: Path) -> None:
    searching = begin(home, epochs=3)
    report = home / "report.html"
    report.write_text("what was found so far")
    tracker = MlflowTracker.reopen(home, "small")
    assert tracker is not None
    tracker.log_artifact(report)
    tracker.start_delivery()
    tracker.flush()
    searching.log("trial-0", 3, values(3))
    searching.flush()
    assert tracker.finish(wait_s=100.0).undelivered == 0
    client = MlflowClient(tracking_uri=local_uri(home))
    assert [one.path for one in client.list_artifacts(runs(local_uri(home))["small"].info.run_id)] == ["report.html"]
    searching.log("trial-0", 4, values(4))
    assert end(searching, epochs=5).finish().undelivered == 0
    assert_complete(local_uri(home), epochs=5)


def test_a_delivery_that_cannot_import_mlflow_is_said_to_have_died(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "broken" / "mlflow").mkdir(parents=True)
    (home / "broken" / "mlflow" / "__init__.py").write_text("raise ImportError('half installed')")
    monkeypatch.setenv("PYTHONPATH", str(home / "broken"), prepend=os.pathsep)
    delivery = end(begin(home, epochs=1), epochs=1).finish()
    assert delivery.undelivered
    assert delivery.error == "the process that tells it ended with 1"
    assert "half installed" in delivery.log.read_text()


def test_records_of_a_deleted_study_do_not_get_into_the_next_of_its_name(home: Path) -> None:
    tracker = begin(home, epochs=3)
    kill_delivery(tracker)
    tracker.spool.remember("token", "deleted")
    tracker._lock.close()  # as if it was killed: its trial is still open
    tracker = MlflowTracker(home, "small")
    tracker.start_study({"epochs": 2}, {}, DATASET, token="new")
    delivery = tracker.finish()
    assert "records of an earlier study of this name, since deleted, were dropped" in (delivery.note or "")
    assert set(runs(local_uri(home))) == {"small"}


@pytest.mark.slow
def test_a_delivery_that_waits_for_a_processor_starves_and_one_that_sleeps_does_not() -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8 * (os.cpu_count() or 1))]
    sleeping = subprocess.Popen(["sleep", "60"])
    try:
        shares = [Share(busy[0]), Share(sleeping)]
        assert not any(share.starves() for share in shares), "it is too early to tell"
        for _ in range(int(starvation.STARVED_S / 0.05) + 20):
            time.sleep(0.05)
            crowded, waiting = (share.starves() for share in shares)
        assert crowded
        assert not waiting
    finally:
        for process in [*busy, sleeping]:
            process.kill()
            process.wait()


def test_a_starved_delivery_is_replaced_and_nothing_is_told_twice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starvation, "STARVED_S", 1.0)
    monkeypatch.setattr(starvation, "STARVED_SHARE", math.inf)
    tracker = end(begin(home))
    first = tracker._process
    assert tracker.finish().undelivered == 0
    assert first is not None
    assert first.returncode == -signal.SIGKILL
    assert_complete(local_uri(home))


# -- continuing ------------------------------------------------------------------------------------------------


def test_a_study_that_is_continued_keeps_its_runs_and_doubles_nothing(home: Path) -> None:
    first = deliver_here(end(begin(home)))
    second = deliver_here(end(begin(home)))
    assert (second.parent_run_id, second.undelivered) == (first.parent_run_id, 0)
    assert_complete(local_uri(home))


def test_a_param_that_changed_becomes_a_tag_and_holds_nothing_up(home: Path) -> None:
    deliver_here(end(begin(home, epochs=2), epochs=2))
    assert deliver_here(end(begin(home, epochs=3), epochs=3)).undelivered == 0
    recorded = runs(local_uri(home))
    assert recorded["small"].data.params["epochs"] == "2"
    assert recorded["small"].data.tags["changed.epochs"] == "3"
    assert sorted(steps(local_uri(home), recorded["trial-0"], "loss/a")) == [0, 1, 2]


def test_a_result_that_changed_is_added(home: Path) -> None:
    deliver_here(end(begin(home, epochs=2), epochs=2))
    tracker = end(begin(home, epochs=2), epochs=2)
    tracker.end_trial("trial-0", "COMPLETE", {"val_loss": 0.4}, {})
    tracker.flush()
    deliver_here(tracker)
    assert runs(local_uri(home))["trial-0"].data.metrics["val_loss"] == 0.4


def test_runs_that_were_not_ended_are_killed_until_they_are_continued(home: Path) -> None:
    begin(home, epochs=2).finish()
    assert {run.info.status for run in runs(local_uri(home)).values()} == {"KILLED"}
    deliver_here(end(begin(home, epochs=3), epochs=3))
    assert_complete(local_uri(home), epochs=3)


@pytest.mark.parametrize(
    "removed", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["store removed", "another store"]
)
def test_another_mlflow_gets_the_study_anew(home: Path, removed: bool) -> None:
    deliver_here(end(begin(home, epochs=2), epochs=2))
    uri = f"sqlite:///{home / 'other.db'}"
    if removed:
        uri = local_uri(home)
        for part in home.glob("mlflow.db*"):
            part.unlink()
    # another process: this one keeps MLflow's connections to the removed file
    assert end(begin(home, epochs=2, uri=uri), epochs=2).finish().undelivered == 0
    shown = home / "shown.db"
    shown.write_bytes((home / uri.rpartition("/")[2]).read_bytes())
    assert_complete(f"sqlite:///{shown}", epochs=2)


def test_runs_deleted_by_hand_come_back(home: Path) -> None:
    deliver_here(end(begin(home, epochs=2), epochs=2))
    client = MlflowClient(tracking_uri=local_uri(home))
    for run in runs(local_uri(home)).values():
        client.delete_run(run.info.run_id)
    assert deliver_here(end(begin(home, epochs=2), epochs=2)).undelivered == 0
    assert_complete(local_uri(home), epochs=2)


# -- faults ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killing_the_delivery_again_and_again_loses_and_doubles_nothing(home: Path) -> None:
    tracker = begin(home)
    kill_delivery(tracker)
    for moment_s in (2.2, 2.6, 3.0, 3.4):  # mlflow's import takes about two seconds
        process = subprocess.Popen([sys.executable, "-m", "wdsearch.tracking.delivery", str(tracker.spool.path)])
        time.sleep(moment_s)
        process.kill()
        process.wait()
    assert end(tracker).finish().undelivered == 0
    assert_complete(local_uri(home))


def deliver_and_die(done: str, spool: Path, environment: dict[str, str]) -> None:
    """Deliver until a call of MLflow's client has been made for the study and for the trial, and die."""
    os.environ.update(environment)
    call, calls = getattr(MlflowClient, done), []

    def call_and_die(*given: Any, **named: Any) -> Any:
        result = call(*given, **named)
        calls.append(given)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(MlflowClient, done, call_and_die)
    deliver(spool)


@pytest.mark.parametrize("done", ["create_run", "log_batch", "log_inputs", "set_terminated"])
def test_a_delivery_killed_after_any_call_is_repeated_without_a_trace(home: Path, done: str) -> None:
    tracker = end(begin(home, epochs=3), epochs=3)
    kill_delivery(tracker)
    tracker.stop_writing()
    killed = CONTEXT.Process(target=deliver_and_die, args=(done, tracker.spool.path, dict(os.environ)))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert tracker.spool.left() == 5
    assert deliver_here(tracker).undelivered == 0
    assert_complete(local_uri(home), epochs=3)


def begin_and_die(home: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    begin(home)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_training_loses_nothing_and_its_runs_are_marked(home: Path) -> None:
    killed = CONTEXT.Process(target=begin_and_die, args=(home, dict(os.environ)))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    spool = Spool(home / "spool" / "small.db")
    end_s = time.monotonic() + 60
    while (spool.left() or any(spool.facts("open").values())) and time.monotonic() < end_s:
        time.sleep(0.1)
    recorded = runs(local_uri(home))
    assert {(run.info.status, run.data.tags["wdsearch.state"]) for run in recorded.values()} == {
        ("KILLED", "INTERRUPTED")
    }
    assert sorted(steps(local_uri(home), recorded["trial-0"], "loss/a")) == list(range(EPOCHS))
    assert deliver_here(end(begin(home))).undelivered == 0
    assert_complete(local_uri(home))


def test_what_mlflow_refuses_stays_in_the_spool_and_holds_up_no_other_run(home: Path) -> None:
    tracker = begin(home, epochs=2)
    tracker.start_trial("trial-1", {"no[good]": 1}, {}, {})
    tracker.end_trial("trial-1", "COMPLETE", {}, {})
    delivery = end(tracker, epochs=2).finish()
    assert delivery.undelivered == 2
    assert "MLflow refuses trial-1" in str(delivery.error)
    assert "no[good]" in delivery.log.read_text()
    assert runs(local_uri(home))["trial-0"].info.status == "FINISHED"
    assert deliver(home / "spool" / "small.db") == 2


def test_what_kept_mlflow_away_is_forgotten_once_it_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = end(begin(home, epochs=2))
    tracker.spool.remember("error", "connection refused")
    reasons, deliver_one = [], Courier._deliver

    def deliver_and_look(courier: Courier, key: str, records: list[Record]) -> None:
        reasons.append(courier.spool.recall("error"))
        deliver_one(courier, key, records)
        courier.spool.remember("error", "away for a moment")

    monkeypatch.setattr(Courier, "_deliver", deliver_and_look)
    deliver_here(tracker)
    assert len(reasons) == 2
    assert set(reasons) == {None}, "a long last record would look as if nothing moved"


@pytest.mark.slow
def test_an_outage_of_the_server_loses_nothing(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    delivery = end(begin(home, uri=uri)).finish(wait_s=8.0)
    assert delivery.undelivered == EPOCHS + 4
    assert str(port) in str(delivery.error)
    command, environment = ui_command(home, local_uri(home), port)
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert deliver(home / "spool" / "small.db") == 0
        assert_complete(uri)
    finally:
        server.terminate()
        server.wait()


def test_a_spool_writes_records_and_facts_together_or_not_at_all(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db")
    spool.append([("trial-0", "metrics", {"step": 1})], {"step trial-0": "1"})
    with pytest.raises(TypeError):
        spool.append(
            [("trial-0", "metrics", {"step": 2}), ("trial-0", "end", {"step": object()})], {"step trial-0": "2"}
        )
    assert [record.body for record in spool.undelivered("trial-0")] == [{"step": 1}]
    assert spool.facts("step") == {"trial-0": "1"}
    assert spool.waiting() == {"trial-0": False}
    spool.close()
    assert tmp_path.joinpath("s.db").stat().st_mode & 0o077 == 0


def test_what_another_machine_has_open_in_a_shared_folder_is_left_alone(tmp_path: Path) -> None:
    own, other = (
        MlflowTracker(tmp_path, "shared", node=platform.node()),
        MlflowTracker(tmp_path, "shared", node="elsewhere"),
    )
    assert spool_paths(tmp_path, "shared") == [own.spool.path], "SQLite's files are not for several machines"
    other.stop_writing()
    with locked(other.spool.path.with_suffix(".lock")):
        assert spool_paths(tmp_path, "shared") == [own.spool.path]
        assert open_elsewhere(tmp_path, "shared") == 1
    assert spool_paths(tmp_path, "shared") == [own.spool.path, other.spool.path]
    assert open_elsewhere(tmp_path, "shared") == 0
    for tracker in (own, other):
        tracker.stop_writing()
        tracker.spool.close()


def test_a_machine_that_told_nothing_finds_a_studys_page_and_adds_to_its_run(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local_uri(home))  # for the other one, MLflow is elsewhere
    searching = MlflowTracker(home, "small", node="one")
    searching.start_study({}, {}, {}, "1a2b", load_study(STUDY), "accuracy")
    searching.end_study({}, {})
    assert deliver_here(searching).undelivered == 0
    report = home / "report.html"
    report.write_text("what was found")
    assert MlflowTracker.reopen(tmp_path_factory.mktemp("other"), "small") is None
    for token, note in (("1a2b", None), ("gone", "MLflow has no run of this study, so nothing was added to it")):
        adding = MlflowTracker.reopen(tmp_path_factory.mktemp("other"), "small", "two", token)
        assert adding is not None
        adding.log_artifact(report)
        adding.start_delivery()
        delivery = deliver_here(adding)
        assert (delivery.undelivered, delivery.note) == (0, note)
    (run,) = runs(local_uri(home)).values()
    files = MlflowClient(local_uri(home)).list_artifacts(run.info.run_id)
    assert [file.path for file in files] == ["report.html"]
    assert find_page(local_uri(home), "small") == (run.info.experiment_id, VIEW)
    assert find_page(local_uri(home), "none") == ("", None)


def test_a_trial_has_one_run_also_if_the_machine_that_lost_it_tells_of_it_later(tmp_path: Path) -> None:
    lost, taken = (MlflowTracker(tmp_path, "moved", node=node) for node in ("lost", "taken"))
    for tracker, inherited in ((lost, False), (taken, True)):
        tracker.start_study({}, {}, DATASET, token="1a2b")
        tracker.start_trial("trial-3", {"lr": 0.1}, {}, DATASET, inherited=inherited)
        for step in range(1, 5 if inherited else 3):
            tracker.log("trial-3", step, {"loss/val": 1.0 / step})
    taken.end_trial("trial-3", "COMPLETE", {"val_loss": 0.25}, {}, 4)
    taken.end_study({}, {})
    assert taken.finish().undelivered == 0
    assert lost.finish().undelivered == 0
    client = MlflowClient(local_uri(tmp_path))
    experiment = client.get_experiment_by_name("moved")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert Counter(run.data.tags["wdsearch.key"] for run in runs) == {"study": 1, "trial-3": 1}
    (trial,) = [run for run in runs if run.data.tags["wdsearch.key"] == "trial-3"]
    history = client.get_metric_history(trial.info.run_id, "loss/val")
    assert sorted(metric.step for metric in history) == [1, 2, 3, 4], "each epoch once"


def test_a_store_is_whole_though_one_who_made_it_died_and_two_make_it_at_once(tmp_path: Path) -> None:
    begun, *both = (CONTEXT.Process(target=make_store, args=(local_uri(tmp_path),)) for _ in range(3))
    begun.start()
    while not list(tmp_path.glob("spool/.store/*.db")):
        time.sleep(0.01)
    begun.kill()
    begun.join()
    assert not (tmp_path / "mlflow.db").exists()
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(MlflowClient(local_uri(tmp_path)).search_experiments()) == 1
    assert [path.name for path in tmp_path.glob("spool/*")] == [".store.lock"]
