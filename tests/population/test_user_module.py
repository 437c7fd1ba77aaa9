"""A user's own LightningModule: searched by its constructor's arguments, trained by a Trainer of its own, gap included."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.studies import told
from support.users_module import STUDY, Own, searched, trained_alone
from support.zoo import ZooData
from torch.nn import functional as F

import wdsearch
from wdsearch.noise import derive_seed
from wdsearch.population.training import Training, TrainingCallback
from wdsearch.population.user.module import NotLoggedError, UserModules
from wdsearch.population.user.trial import TrainingError
from wdsearch.search.preview import preview
from wdsearch.study.load import StudyFileError, load_study


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> wdsearch.StudyResult:
    return searched(tmp_path_factory.mktemp("done"))


def test_each_trial_is_what_plain_lightning_gives(done: wdsearch.StudyResult) -> None:
    assert done.counts["complete"] == 5
    for trial in done.trials:
        result, data = trial.result, ZooData()
        module, trainer = trained_alone(result, data)
        assert result.metrics["val_loss"] == float(trainer.callback_metrics["val_loss"])
        assert result.metrics["train_loss"] == pytest.approx(_loss(module, data.train_eval_dataloader()), rel=1e-6)
        assert result.metrics["gap"] == pytest.approx(result.metrics["val_loss"] - result.metrics["train_loss"])
        assert result.metrics["gap_acc"] == pytest.approx(result.metrics["train_acc"] - result.metrics["val_acc"])
    weights = torch.load(done.weights)
    best = next(trial for trial in done.trials if trial.number == weights["trial"])
    module = Own(hidden=best.result.model["hidden"])
    module.load_state_dict(weights["state_dict"])
    assert _loss(module, ZooData().val_dataloader()) == pytest.approx(best.result.metrics["val_loss"], rel=1e-6)


def _loss(module: Own, loader: Any) -> float:
    module.eval()
    with torch.no_grad():
        (batch,) = loader
        return float(F.cross_entropy(module.network(batch[0]), batch[1]))


def test_a_study_repeats_itself_whoever_trains_beside(done: wdsearch.StudyResult, tmp_path: Path) -> None:
    torch.rand(3)
    assert told(searched(tmp_path)) == told(done)


def test_the_baseline_is_unregularized(done: wdsearch.StudyResult) -> None:
    assert done.baseline is not None
    assert done.baseline.strengths == {"weight_decay": 0.0}
    assert done.baseline.model == {"hidden": 8}


def test_hopeless_trials_are_pruned(tmp_path: Path) -> None:
    pruner = {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 1}
    search = {"batch": 2, "pruner": pruner, "sampler": "random"}
    study = searched(tmp_path, search=search, budget={"trials": 8, "epochs": 6})
    assert study.counts["pruned"] > 0
    assert study.counts["complete"] + study.counts["pruned"] == 8


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_several_devices_and_options_of_the_trainer_reach_it(tmp_path: Path) -> None:
    """Two processes with gloo; pruning reaches both, or they would wait for each other for ever."""
    trainer = {"accelerator": "cpu", "devices": 2, "options": {"accumulate_grad_batches": 2}}
    pruner = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 1}
    search = {"batch": 2, "pruner": pruner, "sampler": "random"}
    study = searched(tmp_path, trainer=trainer, search=search, budget={"trials": 2, "epochs": 4})
    assert study.counts["complete"] + study.counts["pruned"] == 2
    assert study.best is not None
    alone = trained_alone(study.best.result, ZooData(), devices=2, strategy="ddp_spawn", accumulate_grad_batches=2)[1]
    for name in ("val_loss", "val_acc"):
        assert study.best.result.metrics[name] == float(alone.callback_metrics[name]), name


def test_its_arguments_are_recommended(done: wdsearch.StudyResult) -> None:
    found = wdsearch.recommendation(done)
    assert done.best is not None
    result = done.best.result
    assert found["init_args"] == {"lr": result.lr} | result.strengths | result.model
    assert found["gap"] == result.metrics["gap"]
    assert found["init_seed"] == derive_seed(0, "weights")


def test_trials_come_one_at_a_time_unless_the_study_says_otherwise() -> None:
    given = {**STUDY, "data": ZooData(), "model": Own, "search": {"pruner": "none"}}
    assert load_study(given).batch == 1
    assert load_study(given | {"search": {"batch": 3}}).batch == 3
    assert load_study(given | {"model": "mlp", "space": {"dropout": {"low": 0.0, "high": 0.5}}}).batch == 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {"dropout": {"low": 0.0, "high": 0.5}}}, "dropout is not an argument of Own"),
        ({"space": {"weight_decay": {"timescale": [0.1, 1]}}}, "which an own LightningModule keeps to itself"),
        ({"trainer": {"options": {"max_epochs": 3}}}, "trainer.options.max_epochs: wdsearch sets it itself"),
        ({"trainer": {"options": {"acumulate_grad_batches": 3}}}, "did you mean accumulate_grad_batches"),
        ({"model": "mlp", "trainer": {"devices": 2}}, "a population trains on one device"),
    ],
    ids=["argument", "timescale", "set", "unknown", "devices"],
)
def test_what_cannot_be_is_said(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=said):
        searched(tmp_path, **changes)


def test_an_objective_that_is_not_logged_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(NotLoggedError, match=r"names val_f1, .* logs gap, gap_acc, .*val_acc, val_loss"):
        searched(tmp_path, objective={"maximize": "val_f1"})


def test_what_the_module_raises_is_told(tmp_path: Path) -> None:
    class Broken(Own):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            raise ValueError("no such column")

    said = r"Broken fails in training: ValueError: no such column \(test_user_module.py:\d+, in validation_step\)"
    for check in (preview_of, searched):
        with pytest.raises(TrainingError, match=said):
            check(tmp_path, model=Broken)


def preview_of(home: Path, **changes: Any) -> None:
    preview(STUDY | {"data": ZooData(), "model": Own} | changes)


def test_validate_trains_two_batches_and_hears_what_is_logged(tmp_path: Path) -> None:
    preview_of(tmp_path)
    with pytest.raises(NotLoggedError, match="names val_f1"):
        preview_of(tmp_path, objective={"maximize": "val_f1"})


def test_one_that_makes_no_step_is_told(tmp_path: Path) -> None:
    class Idle(Own):
        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            """Returns nothing."""

    with pytest.raises(TrainingError, match="Idle does not learn: training_step has returned no loss"):
        preview_of(tmp_path, model=Idle)


def test_what_the_program_does_meanwhile_is_not_undone() -> None:
    """A signal that comes while training rows are validated, or a stop request would be forgotten."""
    received: list[int] = []

    class Signalling(Own):
        def validation_step(self, batch: Any, index: int) -> None:
            super().validation_step(batch, index)
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.1)

    class Nothing(TrainingCallback):
        def begin(self, training: Training) -> None:
            training.admit({0: Signalling()})

        def end_epoch(self, training: Training) -> None:
            pass

    before = signal.signal(signal.SIGUSR2, lambda number, _: received.append(number))
    try:
        UserModules(ZooData(), 1, {"accelerator": "cpu", "num_sanity_val_steps": 0}).fit(Nothing())
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert len(received) == 2, "one on training rows, one in validation"
