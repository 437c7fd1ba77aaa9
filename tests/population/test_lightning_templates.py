"""LightningModules in public styles: the numbers of plain `Trainer.fit`, to the bit, and the gap on the same weights."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.lightning_templates import TEMPLATES, Data, OldData, OldName, Plain

from wdsearch.noise import derive_seed
from wdsearch.population.training import Training, TrainingCallback
from wdsearch.population.user.framework import framework_of
from wdsearch.population.user.module import UserModules

EPOCHS, CPU = 3, {"accelerator": "cpu"}


class Recorded(TrainingCallback):
    """Admits modules of one kind and keeps their metrics and their weights."""

    def __init__(self, build: Any, count: int = 1) -> None:
        self.build, self.count = build, count
        self.metrics: dict[int, list[dict[str, float]]] = {}
        self.states: dict[int, dict[str, Any]] = {}

    def begin(self, training: Training) -> None:
        training.admit({number: built(self.build) for number in range(self.count)})

    def end_epoch(self, training: Training) -> None:
        for number, epoch in training.trial_epochs.items():
            self.metrics.setdefault(number, []).append(epoch.metrics)
            self.states[number] = training.state(number)


def built(build: Any) -> Any:
    torch.manual_seed(0)
    return build()


def plain(build: Any, data: Any, folder: Path, **options: Any) -> tuple[Any, dict[str, float]]:
    """Module and logged values of `Trainer.fit`, with checkpoints and the sanity check as usual."""
    module = built(build)
    framework: Any = framework_of(module)
    framework.seed_everything(derive_seed(0, "solo") % 2**32, verbose=False)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
    quiet["logger"] = framework.loggers.logger.DummyLogger()
    trainer = framework.Trainer(max_epochs=EPOCHS, **CPU, **quiet, **options)
    trainer.fit(module, datamodule=data)
    return module, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_module_trains_as_by_plain_lightning_and_its_gap_is_that_of_the_same_weights(
    name: str, tmp_path: Path
) -> None:
    build, data, options = TEMPLATES[name]
    recorded = Recorded(build)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        UserModules(data(), EPOCHS, CPU | options).fit(recorded)
    assert not [str(one.message) for one in caught if "not measured" in str(one.message)]
    metrics = recorded.metrics[0][-1]
    module, logged = plain(build, data(), tmp_path, **options)
    state = module.state_dict()
    assert state.keys() == recorded.states[0].keys()
    assert all(torch.equal(value, recorded.states[0][key]) for key, value in state.items())
    _, swapped = plain(build, data(swapped=True), tmp_path, **options)  # training does not see which rows are validated
    loss = "val_loss/dataloader_idx_0" if name == "two loaders" else "val_loss"
    assert metrics["loss/val"] == logged[loss]
    if name in DRAWS:  # validation draws other random numbers
        assert metrics["loss/train"] == pytest.approx(swapped[loss], rel=0.05)
    else:
        assert metrics["loss/train"] == pytest.approx(swapped[loss], abs=1e-6)
    assert metrics["loss/gap"] == pytest.approx(metrics["loss/val"] - metrics["loss/train"])
    kept = {key: value for key, value in logged.items() if key in metrics}
    assert kept == {key: metrics[key] for key in kept}


DRAWS = ("annealed", "adversarial", "self-supervised")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("build", "data"), [(Plain, OldData), (OldName, Data)], ids=["new module", "old module"])
def test_data_modules_of_either_package_serve_modules_of_the_other(build: Any, data: Any, tmp_path: Path) -> None:
    own = OldData if data is Data else Data
    mixed, matched = Recorded(build, 2), Recorded(build)
    UserModules(data(), EPOCHS, CPU).fit(mixed)
    UserModules(own(), EPOCHS, CPU).fit(matched)
    assert mixed.metrics[0] == mixed.metrics[1] == matched.metrics[0]


class Failing(Plain):
    """Cannot be validated on training rows."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch[0].equal(Data().train_eval_dataloader().dataset[:20][0]):
            self.net[0].weight.data.zero_()
            raise ValueError("not these rows")
        super().validation_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore")
def test_what_fails_on_training_rows_alone_is_told_and_changes_nothing() -> None:
    failing, sound = Recorded(Failing), Recorded(Plain)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        UserModules(Data(), EPOCHS, CPU).fit(failing)
    assert any("the gap of Failing is not measured" in str(one.message) for one in caught)
    UserModules(Data(), EPOCHS, CPU).fit(sound)
    assert failing.metrics[0][-1]["val_loss"] == sound.metrics[0][-1]["loss/val"]
