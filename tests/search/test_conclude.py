"""Traces that a study leaves on its run at its end; none of them can fail a study."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from support.plain_loop import study_of
from support.shortened import concluded, delivered_beside
from support.written_networks import WRITTEN
from torch import nn

import wdsearch
from wdsearch.report import optuna_page
from wdsearch.search import conclude as conclusion
from wdsearch.search.best_model import Export, ExportError, export_best
from wdsearch.search.progress import SearchProgress
from wdsearch.study.build import build_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import load_study
from wdsearch.tracking.delivery import deliver

STUDY = {
    "study": "ended",
    "data": "digits",
    "model": {"name": "mlp", "init_args": {"hidden": [16]}},
    "space": {"weight_decay": {"low": 1e-3, "high": 1.0, "log": True}, "dropout": {"low": 0.0, "high": 0.5}},
    "budget": {"trials": 6, "epochs": 3},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ended")


@pytest.fixture(scope="module")
def done(home: Path) -> Iterator[wdsearch.StudyResult]:
    with delivered_beside(), concluded():
        found = wdsearch.run(STUDY, home=home, progress=False)
    assert deliver(home / "spool" / "ended.db") == 0, "waits for the delivery that goes on with the model"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    yield found
    mlflow.set_tracking_uri(before)


def parent(done: wdsearch.StudyResult) -> tuple[MlflowClient, Any]:
    client = MlflowClient(f"sqlite:///{done.folder.parent.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(done.study).experiment_id
    (run,) = client.search_runs([experiment], "tags.`wdsearch.kind` = 'study'")
    return client, run


def test_the_run_has_the_report_optunas_plots_and_the_picture(done: wdsearch.StudyResult) -> None:
    client, run = parent(done)
    there = {path: {file.path for file in client.list_artifacts(run.info.run_id, path)} for path in ("report", "plots")}
    assert {"report/report.html", "report/gap.png"} <= there["report"]
    assert there["plots"] == {"plots/optuna.html"}
    assert "versions" in done.optuna_study.user_attrs
    assert "Versions with which the study was trained" in (done.folder / "report" / "report.html").read_text()
    assert run.info.status == "FINISHED"


def test_the_best_model_is_registered_under_the_studys_name(done: wdsearch.StudyResult) -> None:
    """It is the network of best.pt, in eval mode, for a batch of any size."""
    client, run = parent(done)
    assert done.best is not None
    version = client.get_model_version_by_alias("ended", "best")
    assert version.run_id == run.info.run_id
    model = mlflow.pytorch.load_model("models:/ended@best")
    config = load_study(done.config)
    data = build_data(config)
    inputs, targets = next(iter(torch.utils.data.DataLoader(data.val_dataloader().dataset, batch_size=10_000)))
    found = nn.functional.cross_entropy(model(inputs), targets).detach()
    assert float(found) == pytest.approx(done.best.values[0], rel=1e-5)
    folder = Path(mlflow.artifacts.download_artifacts("models:/ended@best"))
    assert f"torch=={torch.__version__.partition('+')[0]}" in (folder / "requirements.txt").read_text().split()
    assert list(folder.rglob("*.pt2"))
    assert not list(folder.rglob("*.pth")), "nothing to unpickle"
    assert (folder / "input_example.json").exists() or list(folder.rglob("*input_example*"))


def test_a_study_that_goes_on_without_a_better_trial_registers_nothing_new(
    done: wdsearch.StudyResult, home: Path
) -> None:
    with delivered_beside(), concluded():
        wdsearch.run(STUDY, home=home, progress=False)
    assert deliver(home / "spool" / "ended.db") == 0
    assert len(parent(done)[0].search_model_versions("name='ended'")) == 1


def test_what_cannot_be_made_is_noted_and_the_study_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("it [is] broken")

    monkeypatch.setattr(conclusion, "write_report", fail)
    monkeypatch.setattr(optuna_page, "write_optuna_page", fail)
    stale = tmp_path / "studies" / "ended" / "report" / "gap.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier run")
    with concluded("_report", "_optunas_plots"):
        monkeypatch.setattr(conclusion, "_model", fail)
        result = wdsearch.run(STUDY, home=tmp_path, progress=False)
    said = " ".join(capsys.readouterr().err.split())
    for what in ("the report", "Optuna's plots", "the best model"):
        assert f"warning {what} could not be made: RuntimeError: it [is] broken" in said
    assert result.counts["complete"] > 0
    client, run = parent(result)
    assert run.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["gap.png"]
    assert (result.folder / "gap.png").read_bytes() != b"of an earlier run"


class WithItsOwnForward(wdsearch.RegularizedModule):
    def __init__(self, **options: Any) -> None:
        super().__init__(nn.Linear(64, 10), **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.network(x)


def test_a_network_that_is_called_in_a_way_of_its_own_is_not_exported(tmp_path: Path) -> None:
    space = {"weight_decay": {"low": 1e-3, "high": 1.0}}
    study = STUDY | {"study": "own", "model": WithItsOwnForward, "space": space}
    result = wdsearch.run(study, home=tmp_path, progress=False)
    config = load_study(study)
    with pytest.raises(ExportError, match="WithItsOwnForward has a forward of its own"):
        export_best(TrialFactory(config, build_data(config)), result)


@pytest.mark.parametrize(
    ("name", "called_with"),
    [
        pytest.param("files", "image", marks=pytest.mark.slow),
        ("square matrix", "2 arguments"),
        ("graphs as a whole", None),
    ],
)
def test_a_network_of_other_inputs_than_a_tensor_is_kept_without_a_warning(
    name: str, called_with: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exported where torch can, and its weights beside; the registry of models takes single tensors."""
    one = WRITTEN[name]
    tracking = {"name": "jsonl", "folder": str(tmp_path / "records")}
    space = {"weight_decay": {"low": 0.1, "high": 3.0}}
    study = study_of(one.build, one.data(), tracking=tracking, space=space)
    with concluded("_model"):
        result = wdsearch.run(study, home=tmp_path, progress=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "warning" not in said
    (folder,) = (tmp_path / "records").rglob("model")
    assert {path.name for path in folder.iterdir()} == {"best.pt", *(["best.pt2"] if called_with else [])}
    if called_with is None:
        assert "the best network is kept by its weights, best.pt, and not exported: " in said
        return
    assert f"a registered model is called with a single tensor, and this one with {called_with}" in said
    assert result.best is not None
    network = torch.export.load(folder / "best.pt2").module()
    (batch,) = one.data().val_dataloader()
    loss = one.loss(*one.call(network, batch)).detach()
    assert float(loss) == pytest.approx(result.best.result.metrics["val_loss"], rel=1e-4)


class Heard(SearchProgress):
    """Keeps what is said instead of printing it."""

    def __init__(self) -> None:
        super().__init__(False)
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize("found", [{"trial": 999}, {"study": "of the same name, deleted"}, None])
def test_weights_that_another_machine_has_are_trained_again_bit_by_bit(
    done: wdsearch.StudyResult, tmp_path: Path, found: dict[str, Any] | None
) -> None:
    config = load_study(done.config)
    factory, saved = TrialFactory(config, build_data(config)), torch.load(done.weights, weights_only=True)
    done.weights.unlink()
    if found:
        torch.save(saved | found, done.weights)
    here, there = Heard(), Heard()
    assert done.best is not None
    elsewhere = replace(done, best=replace(done.best, result=replace(done.best.result, metrics={"val_loss": 0.0})))
    try:
        with pytest.raises(ExportError, match="there are no weights of the best trial"):
            export_best(factory, done)
        conclusion._get_weights(done, factory, here, lambda share: None)
        again = torch.load(done.weights, weights_only=True)
        done.weights.unlink()
        conclusion._get_weights(elsewhere, factory, there, lambda share: None)
    finally:
        torch.save(saved, done.weights)
    assert ["other numbers than there" in text for text in there.warnings] == [True]
    assert here.warnings == []
    assert here.notes == there.notes
    assert here.notes == [
        f"the weights of trial {done.best.number}, the best, are not on this machine: it is trained again"
    ]
    assert {name: again[name] for name in ("study", "trial", "values")} == {
        name: saved[name] for name in ("study", "trial", "values")
    }
    assert again["state_dict"].keys() == saved["state_dict"].keys()
    assert all(torch.equal(value, saved["state_dict"][name]) for name, value in again["state_dict"].items())


@pytest.mark.usefixtures("_delivered_beside")
def test_nobody_waits_for_a_model(tmp_path: Path) -> None:
    from wdsearch.tracking.mlflow_tracker import MlflowTracker
    from wdsearch.tracking.spool import Spool

    tracker = MlflowTracker(tmp_path, "waiting")
    tracker.start_study({}, {}, {})
    tracker.end_study({}, {})
    tracker.log_model(tmp_path / "none.pt2", 3, ["torch"])
    began = time.monotonic()
    delivery = tracker.finish(wait_s=120.0)
    assert delivery.undelivered == 0
    assert delivery.error is None
    assert time.monotonic() - began < 110
    assert deliver(tmp_path / "spool" / "waiting.db") == 0
    assert "the best model is not in MLflow" in (tmp_path / "spool" / "waiting.log").read_text()
    spool = Spool(tmp_path / "spool" / "waiting.db")
    assert "the best model is not in MLflow" in (spool.recall("lost") or ""), "the next one who looks is told"
    spool.close()


@pytest.mark.slow
@pytest.mark.usefixtures("_delivered_beside")
def test_on_a_cluster_its_maker_waits_for_a_model_and_nobody_else(tmp_path: Path) -> None:
    from wdsearch.tracking.mlflow_tracker import MlflowTracker

    maker, other = (MlflowTracker(tmp_path, "waiting", node="here") for _ in range(2))
    maker.start_study({}, {}, {})
    maker.log_model(tmp_path / "none.pt2", 3, ["torch"])
    maker.flush()
    began = time.monotonic()
    assert other.finish(wait_s=1.0).undelivered <= 1, "a model is no reason to stay"
    assert time.monotonic() - began < 60
    maker.end_study({}, {})
    assert maker.finish(wait_s=120.0).undelivered == 0
    assert "the best model is not in MLflow" in (tmp_path / "spool" / "waiting@here.log").read_text()


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("residual_mlp", "digits", {"width": 8, "blocks": 1}),
        ("convnet", "digits", {"channels": [4, 8]}),
        ("resnet", "digits", {"width": 4, "blocks": [1]}),
        pytest.param("transformer", "mnist1d", {"width": 8, "heads": 2, "patch": 4}, marks=pytest.mark.slow),
    ],
)
def test_every_shipped_network_is_exported_as_it_is(
    name: str, data: str, options: dict[str, Any], tmp_path: Path
) -> None:
    study = STUDY | {"study": name, "data": data, "model": {"name": name, "init_args": options}}
    config = load_study(study | {"budget": {"trials": 1, "epochs": 1}})
    result = wdsearch.run(config, home=tmp_path, progress=False)
    factory = TrialFactory(config, build_data(config))
    export = export_best(factory, result)
    assert export == Export(result.folder / "best.pt2", "")
    exported = torch.export.load(export.path).module()
    inputs, targets = next(iter(torch.utils.data.DataLoader(factory.data.val_dataloader().dataset, batch_size=10_000)))
    assert result.best is not None
    loss = nn.functional.cross_entropy(exported(inputs).detach(), targets)
    assert float(loss) == pytest.approx(result.best.values[0], rel=1e-5)
