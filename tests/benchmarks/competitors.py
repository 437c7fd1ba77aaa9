"""Competitors of wdsearch: the usual glue, a bare loop, modelbatch, matrix products alone; nothing of wdsearch."""

import logging
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

os.environ |= {"GIT_PYTHON_REFRESH": "quiet", "MLFLOW_LOGGING_LEVEL": "ERROR", "MLFLOW_DISABLE_TELEMETRY": "true"}

import lightning as L
import optuna
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 128
EXPERIMENT = "glue"
Parts = dict[str, tuple[Tensor, Tensor]]
"""Inputs and targets of `train`, `train_eval` and `validation`."""


@dataclass(frozen=True)
class Setting:
    """A data set of wdsearch's, an MLP for it, wdsearch's trials, and what is searched: (low, high, log) by key."""

    data: str
    widths: tuple[int, ...]
    trials: int
    epochs: int
    space: Mapping[str, tuple[float, float, bool]]
    cosine: bool = False

    @property
    def few(self) -> int:
        """Trials for those that train one at a time: a rate does not need more."""
        return max(2, self.trials // 16)

    @property
    def baseline(self) -> dict[str, float]:
        """Nothing regularized: λ at the low end of its log range, where it does nothing."""
        return {key: 1e-3 if key == "lr" else low for key, (low, _, _) in self.space.items()}


@dataclass(frozen=True)
class Measured:
    """Work done (trial·epochs, or trial·steps) between two readings of the monotonic clock.

    `parts` are seconds; `others` is the share of the processors that other programs took meanwhile.
    """

    trials: int
    work: int
    began: float
    ended: float
    val_loss: float | None
    baseline_loss: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    others: float = float("nan")

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.ended - self.began

    @property
    def rate(self) -> float:
        """Work per second."""
        return self.work / self.seconds


def begin_process() -> None:
    """In a process for competitors: MKL as it is for those who never imported wdsearch."""
    os.environ.pop("MKL_CBWR", None)
    be_quiet()


def be_quiet() -> None:
    """No notes of libraries."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in ("lightning.pytorch", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def mlp(widths: tuple[int, ...], dropout: float) -> nn.Sequential:
    """The network of all competitors: what wdsearch's `mlp` builds, by torch's own layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def batches(part: tuple[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled batches, without a DataLoader."""
    for rows in torch.randperm(len(part[0])).split(BATCH):
        yield part[0][rows], part[1][rows]


def steps_of_epoch(parts: Parts) -> int:
    """Batches that hold all training rows."""
    return -(-len(parts["train"][0]) // BATCH)


# -- the usual glue: Optuna, Lightning's Trainer, MLFlowLogger ---------------------------------------------------------


class GlueModule(L.LightningModule):
    """Module as one writes it by hand: a network, its losses logged each epoch, AdamW."""

    def __init__(
        self,
        widths: tuple[int, ...],
        cosine: bool,
        lr: float,
        weight_decay: float,
        dropout: float,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.weight_decay, self.label_smoothing, self.cosine = lr, weight_decay, label_smoothing, cosine
        self.network = mlp(widths, dropout)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1], label_smoothing=self.label_smoothing)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        outputs = self.network(batch[0])
        accuracy = (outputs.argmax(1) == batch[1]).float().mean()
        self.log_dict({"val_loss": F.cross_entropy(outputs, batch[1]), "val_accuracy": accuracy})

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        if not self.cosine:
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def open_records(setting: Setting, folder: Path) -> None:
    """Make the study and the experiment in `folder`, so that no competitor's clock counts the making of tables."""
    study = optuna.create_study(storage=_storage(folder), study_name=EXPERIMENT, sampler=optuna.samplers.TPESampler())
    study.enqueue_trial(setting.baseline)
    MlflowClient(_tracking(folder)).create_experiment(EXPERIMENT, str(folder / "artifacts"))


def glue(setting: Setting, data: Path, folder: Path, trials: int, threads: int) -> Measured:
    """Trials one after the other in this process, with the records that `open_records` made."""
    torch.set_num_threads(threads)
    parts: Parts = torch.load(data)
    MlflowClient(_tracking(folder)).get_experiment_by_name(EXPERIMENT)
    study = optuna.load_study(study_name=EXPERIMENT, storage=_storage(folder))
    began = time.monotonic()
    study.optimize(lambda trial: _glue_trial(trial, setting, parts, folder), trials)
    ended = time.monotonic()
    losses = [trial.value for trial in study.trials if trial.value is not None]
    return Measured(trials, trials * setting.epochs, began, ended, sum(losses) / len(losses), study.trials[0].value)


def _glue_trial(trial: optuna.Trial, setting: Setting, parts: Parts, folder: Path) -> float:
    chosen = {key: trial.suggest_float(key, low, high, log=log) for key, (low, high, log) in setting.space.items()}
    logger = MLFlowLogger(EXPERIMENT, f"trial-{trial.number}", _tracking(folder))
    trainer = L.Trainer(
        max_epochs=setting.epochs,
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    train, validation = (TensorDataset(*parts[name]) for name in ("train", "validation"))
    loaders = DataLoader(train, BATCH, shuffle=True), DataLoader(validation, BATCH)
    trainer.fit(GlueModule(setting.widths, setting.cosine, **chosen), *loaders)
    return float(trainer.callback_metrics["val_loss"])


def _storage(folder: Path) -> str:
    return f"sqlite:///{folder}/optuna.db"


def _tracking(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


# -- a bare loop -------------------------------------------------------------------------------------------------------


def bare(setting: Setting, data: Path, trials: int, threads: int) -> Measured:
    """The least that trains and evaluates the same: no Lightning, no Optuna, no records; the baseline, then at random."""
    torch.set_num_threads(threads)
    parts: Parts = torch.load(data)
    chosen = [setting.baseline] + [_at_random(setting.space, random.Random(number)) for number in range(1, trials)]
    began = time.monotonic()
    losses = [_bare_trial(setting, parts, **configuration) for configuration in chosen]
    ended = time.monotonic()
    return Measured(trials, trials * setting.epochs, began, ended, sum(losses) / trials, losses[0])


def _at_random(space: Mapping[str, tuple[float, float, bool]], dice: random.Random) -> dict[str, float]:
    return {
        key: low * (high / low) ** dice.random() if log else dice.uniform(low, high)
        for key, (low, high, log) in space.items()
    }


def _bare_trial(
    setting: Setting, parts: Parts, lr: float, weight_decay: float, dropout: float, label_smoothing: float = 0.0
) -> float:
    network = mlp(setting.widths, dropout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    steps = setting.epochs * steps_of_epoch(parts)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if setting.cosine else None
    for _ in range(setting.epochs):
        network.train()
        for inputs, targets in batches(parts["train"]):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs), targets, label_smoothing=label_smoothing).backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        network.eval()
        losses = [_loss_and_accuracy(network, parts[name]) for name in ("train_eval", "validation")]
    return losses[-1][0]


@torch.no_grad()
def _loss_and_accuracy(network: nn.Module, part: tuple[Tensor, Tensor]) -> tuple[float, float]:
    outputs = network(part[0])
    return F.cross_entropy(outputs, part[1]).item(), (outputs.argmax(1) == part[1]).float().mean().item()


# -- fused training steps ----------------------------------------------------------------------------------------------


def fused_configurations(count: int) -> list[dict[str, float]]:
    """Configurations of a fused call: rates below where training breaks, all regularizers at work."""
    dice = random.Random(0)
    narrow = {"lr": (3e-4, 1e-2, True), "weight_decay": (1e-3, 1.0, True), "dropout": (0.1, 0.5, False)}
    return [_at_random(narrow, dice) for _ in range(count)]


def modelbatch_steps(setting: Setting, data: Path, trials: int, steps: int, threads: int) -> Measured | None:
    """modelbatch 0.1.0 with its AdamW; it has one dropout rate for all trials. None if it is not installed."""
    if find_spec("modelbatch") is None:
        return None
    from modelbatch import ModelBatch, OptimizerFactory

    torch.set_num_threads(threads)
    parts: Parts = torch.load(data)
    configurations = fused_configurations(trials)
    models = ModelBatch([mlp(setting.widths, 0.3) for _ in configurations])
    options = [{"lr": chosen["lr"], "weight_decay": chosen["weight_decay"]} for chosen in configurations]
    # torch's fused AdamW would be faster, but learns nothing here: it takes the views' transposed gradients as they lie
    optimizer = OptimizerFactory(torch.optim.AdamW).create_optimizer(models, options)
    stream = chain.from_iterable(batches(parts["train"]) for _ in repeat(None))

    def step() -> None:
        inputs, targets = next(stream)
        optimizer.zero_grad()
        models.compute_loss(models(inputs), targets, F.cross_entropy).backward()
        optimizer.step()

    began, ended = _timed(step, steps)
    models.eval()
    with torch.no_grad():
        loss = models.compute_loss(models(parts["validation"][0]), parts["validation"][1], F.cross_entropy, "mean")
    return Measured(trials, trials * steps, began, ended, float(loss))


def floor_steps(setting: Setting, trials: int, steps: int, threads: int) -> Measured:
    """The batched matrix products of forward and backward alone, into memory that is there: no step can be faster."""
    torch.set_num_threads(threads)
    widths = setting.widths
    activations = [torch.randn(trials, BATCH, width) for width in widths]
    weights = [torch.randn(trials, outputs, inputs) for inputs, outputs in pairwise(widths)]
    errors, gradients = [torch.empty_like(x) for x in activations], [torch.empty_like(w) for w in weights]

    def step() -> None:
        for layer, weight in enumerate(weights):
            torch.bmm(activations[layer], weight.mT, out=errors[layer + 1])
        for layer in reversed(range(len(weights))):
            torch.bmm(errors[layer + 1].mT, activations[layer], out=gradients[layer])
            if layer:
                torch.bmm(errors[layer + 1], weights[layer], out=errors[layer])

    return Measured(trials, trials * steps, *_timed(step, steps), None)


def _timed(step: Callable[[], None], count: int) -> tuple[float, float]:
    """Some steps that do not count, and then those that do; when these began and ended."""
    for _ in range(10):
        step()
    began = time.monotonic()
    for _ in range(count):
        step()
    return began, time.monotonic()
