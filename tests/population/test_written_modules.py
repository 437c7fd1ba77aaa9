"""LightningModules from public reports give, in a study, what `Trainer.fit` gives of the same module, to the bit."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from support.lightning_templates import Data
from support.written_modules import REPORTS, MixedInVain, Report, Reported
from torch.nn import functional as F

from wdsearch.errors import BuildError
from wdsearch.noise import derive_seed
from wdsearch.population.training import Training, TrainingCallback
from wdsearch.population.user.cadence import why_unvalidated
from wdsearch.population.user.trial import TrainingError
from wdsearch.search.prepare import user_modules
from wdsearch.search.preview import preview
from wdsearch.study.build import build_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import StudyFileError, load_study
from wdsearch.study.space import Configuration
from wdsearch.trial.result import flat_name

EPOCHS = 4
pytestmark = pytest.mark.filterwarnings("ignore")


class Kept(TrainingCallback):
    """Admits a study's trial and keeps its last metrics."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.metrics: dict[str, float] = {}
        self.ages: list[int] = []

    def begin(self, training: Training) -> None:
        training.admit({0: self.module})

    def end_epoch(self, training: Training) -> None:
        (epoch,) = training.trial_epochs.values()
        self.metrics = {flat_name(name): value for name, value in epoch.metrics.items()}
        self.ages.append(epoch.age)


def of_study(report: Report, weight_decay: float) -> Kept:
    config = load_study(report.study(EPOCHS))
    factory = TrialFactory(config, build_data(config))
    kept = Kept(factory.trial(Configuration(1e-3, {"weight_decay": weight_decay}, {})))
    user_modules(factory).fit(kept)
    return kept


def of_trainer(report: Report, weight_decay: float, folder: Path) -> tuple[dict[str, float], Any]:
    torch.manual_seed(derive_seed(0, "weights"))
    module = (report.plain or report.model)(weight_decay=weight_decay)
    L.seed_everything(derive_seed(0, "solo") % 2**32, verbose=False)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
    trainer = L.Trainer(accelerator="cpu", max_epochs=EPOCHS, logger=DummyLogger(), **quiet, **report.options)
    trainer.fit(module, datamodule=Data())
    return {name: float(value) for name, value in trainer.callback_metrics.items()}, module


@pytest.mark.parametrize("name", REPORTS)
def test_a_study_gives_what_plain_lightning_gives(name: str, tmp_path: Path) -> None:
    report, weight_decay = REPORTS[name], 2.0
    metrics = of_study(report, weight_decay).metrics
    logged, module = of_trainer(report, weight_decay, tmp_path)
    assert {ours: metrics[ours] for ours in report.logged} == {ours: logged[own] for ours, own in report.logged.items()}
    (goal,) = report.objective.values()
    assert metrics[flat_name(goal)] == logged[goal]
    x, y = Data().train_eval_dataloader().dataset[:]
    train_loss = float(F.cross_entropy(module.eval().net(x), y).detach())
    assert metrics["train_loss"] == pytest.approx(train_loss, rel=1e-5)
    assert metrics["gap"] == pytest.approx(metrics["val_loss"] - train_loss, abs=1e-5)


def test_a_callback_that_only_a_module_of_its_package_can_serve_is_named() -> None:
    said = r"MixedInVain fails in training: .*; the module is of lightning, and of the other package WeightAveraging: import"
    for check in (lambda: of_study(Report(MixedInVain), 0.1), lambda: preview(Report(MixedInVain).study(EPOCHS))):
        with pytest.raises(TrainingError, match=said):
            check()


@pytest.mark.parametrize(
    ("options", "epochs", "batches", "text"),
    [
        ({}, 3, 7, None),
        ({"check_val_every_n_epoch": 3}, 3, 7, None),
        ({"check_val_every_n_epoch": None, "val_check_interval": 7}, 3, 7, None),
        ({"val_check_interval": 0.5}, 3, 8, None),
        ({"val_check_interval": 2, "limit_train_batches": 6}, 3, 7, None),
        ({"val_check_interval": 2, "overfit_batches": 4}, 3, 7, None),
        ({"check_val_every_n_epoch": 2}, 3, 0, r"set budget.epochs to 2 or 4, or validate every 1"),
        ({"check_val_every_n_epoch": 4}, 6, 0, r"set budget.epochs to 4 or 8, or validate every 3"),
        ({"check_val_every_n_epoch": 5}, 3, 0, r"set budget.epochs to 5, or validate every 3"),
        ({"val_check_interval": 0.4}, 3, 7, r"validates after every 2 batches, and an epoch has 7: the last 1 would"),
        ({"val_check_interval": 9}, 3, 7, r"an epoch has 7: the last 7 would"),
        ({"check_val_every_n_epoch": None, "val_check_interval": 5}, 3, 7, r"the training has 21: the last 1 would"),
        ({"limit_val_batches": 0}, 3, 7, r"nothing would be validated; leave it out"),
    ],
)
def test_options_by_which_the_last_epoch_is_not_validated_are_told(
    options: dict[str, Any], epochs: int, batches: int, text: str | None
) -> None:
    fault = why_unvalidated(options, epochs, batches)
    assert (fault is None) if text is None else (fault is not None and text in fault[1])


def test_a_study_whose_last_epoch_is_not_validated_is_refused() -> None:
    said = r"trainer.options.check_val_every_n_epoch is 3 and budget.epochs is 4: the last epoch would not be validated"
    with pytest.raises(StudyFileError, match=said):
        load_study(Report(Reported, options={"check_val_every_n_epoch": 3}).study(EPOCHS))
    with pytest.raises(BuildError, match=r"trainer.options.val_check_interval is 2, .* an epoch has 3: the last 1"):
        preview(Report(Reported, options={"val_check_interval": 2}).study(EPOCHS))
