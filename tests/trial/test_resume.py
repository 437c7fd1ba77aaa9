"""A trial alone goes on from Lightning's own checkpoint as if it had never been interrupted."""

from pathlib import Path

import lightning as L
import pytest
import torch
from support.training import largest_difference, quiet_trainer

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.regularizers import REGULARIZERS, Regularizer
from wdsearch.tasks.task import Task
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe

EPOCHS, INTERRUPTED_AFTER = 5, 2
every_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)


def data(regularizer: Regularizer) -> L.LightningDataModule:
    return DATASETS["digits" if "classification" in regularizer.tasks else "diabetes"](batch_size=256, seed=1)


def trial(regularizer: Regularizer, patience: float, lr: float = 0.05) -> RegularizedModule:
    source, (low, high, _) = data(regularizer), regularizer.usual
    torch.manual_seed(0)
    network = MODELS["mlp"](source.inputs, source.outputs, hidden=(12,), norm="batch")
    strengths = {"early_stopping": patience, regularizer.key: low if regularizer.integer else (low + high) / 2}
    # Lightning loads a checkpoint before it makes weights those of its precision
    return RegularizedModule(network, strengths, lr, Recipe("sgd"), Task(source.task), seed=1).double()


class Saves(L.Callback):
    """Writes a checkpoint in the middle of the training, and keeps the validation loss of each epoch."""

    def __init__(self, path: Path) -> None:
        self.path, self.losses = path, []

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics["loss/val"]))
        if trainer.current_epoch + 1 == INTERRUPTED_AFTER:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("patience", [float("inf"), 2.0], ids=["to the end", "stopping early"])
@every_regularizer
def test_a_checkpoint_in_training_is_continued_exactly(
    regularizer: Regularizer, patience: float, tmp_path: Path
) -> None:
    saves, path = Saves(tmp_path / "half.ckpt"), tmp_path / "half.ckpt"
    whole, resumed = trial(regularizer, patience), trial(regularizer, patience)
    quiet_trainer(EPOCHS, callbacks=[saves]).fit(whole, datamodule=data(regularizer))
    again = Saves(tmp_path / "other.ckpt")
    quiet_trainer(EPOCHS, callbacks=[again]).fit(resumed, datamodule=data(regularizer), ckpt_path=path)
    assert again.losses == saves.losses[INTERRUPTED_AFTER:]
    assert largest_difference(whole.state_dict(), resumed.state_dict()) == 0.0


def test_an_average_that_was_best_before_the_checkpoint_is_restored_after_it(tmp_path: Path) -> None:
    ema, path, lr = REGULARIZERS["ema"], tmp_path / "half.ckpt", 10.0  # so large that the first epochs are the best
    saves, resumed, source = Saves(path), trial(ema, 3.0, lr), data(ema)
    quiet_trainer(EPOCHS, callbacks=[saves]).fit(trial(ema, 3.0, lr), datamodule=data(ema))
    quiet_trainer(EPOCHS).fit(resumed, datamodule=source, ckpt_path=path)
    best = min(saves.losses[:INTERRUPTED_AFTER])
    assert best < min(saves.losses[INTERRUPTED_AFTER:])
    inputs, targets = source.parts["validation"].tensors
    assert resumed.eval().loss(resumed(inputs.double()), targets).item() == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("patience", [float("inf"), 3.0], ids=["to the end", "stopping early"])
def test_a_checkpoint_written_at_the_end_holds_the_judged_weights_and_is_continued_exactly(
    patience: float, tmp_path: Path
) -> None:
    """Longer trainings are planned longer: the schedule is constant here."""
    ema, path = REGULARIZERS["ema"], tmp_path / "end.ckpt"
    first, whole, resumed = (trial(ema, patience) for _ in range(3))
    trainer = quiet_trainer(INTERRUPTED_AFTER)
    trainer.fit(first, datamodule=data(ema))
    trainer.save_checkpoint(path)
    quiet_trainer(EPOCHS).fit(whole, datamodule=data(ema))
    quiet_trainer(EPOCHS).fit(resumed, datamodule=data(ema), ckpt_path=path)
    assert largest_difference(whole.state_dict(), resumed.state_dict()) == 0.0
    loaded = RegularizedModule.load_from_checkpoint(path, network=trial(ema, patience).network, strengths=STRENGTHS)
    assert largest_difference(loaded.double().state_dict(), first.state_dict()) == 0.0


STRENGTHS = {"early_stopping": 1.0, "ema": 0.0}


@pytest.mark.parametrize("patience", [float("inf"), 2.0], ids=["to the end", "stopping early"])
def test_a_checkpoint_in_training_is_evaluated_by_the_weights_of_its_epoch(patience: float, tmp_path: Path) -> None:
    ema, path = REGULARIZERS["ema"], tmp_path / "half.ckpt"
    saves = Saves(path)
    quiet_trainer(EPOCHS, callbacks=[saves]).fit(trial(ema, patience), datamodule=data(ema))
    fresh, source = trial(ema, patience), data(ema)
    quiet_trainer(EPOCHS).validate(fresh, datamodule=source, ckpt_path=path, verbose=False)
    inputs, targets = source.parts["validation"].tensors
    assert fresh.eval().loss(fresh(inputs.double()), targets).item() == pytest.approx(
        saves.losses[INTERRUPTED_AFTER - 1], abs=1e-12
    )


def test_a_checkpoint_of_a_trial_that_remembers_nothing_has_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "half.ckpt"
    module = trial(REGULARIZERS["weight_decay"], float("inf"))
    quiet_trainer(EPOCHS, callbacks=[Saves(path)]).fit(module, datamodule=data(REGULARIZERS["weight_decay"]))
    assert "wdsearch" not in torch.load(path, weights_only=True)
