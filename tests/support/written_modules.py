"""LightningModules from public reports, each with the study that it comes in and the plain Trainer's options."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lightning as L
import pytorch_lightning as pl
import torch
from support.lightning_templates import Data
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

Batch = Any


class Reported(L.LightningModule):
    """A linear classifier."""

    def __init__(self, lr: float = 0.02, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net: nn.Module = nn.Linear(7, 3)
        self.accuracy = MulticlassAccuracy(3, average="micro")

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        options = {"lr": self.hparams.lr, "weight_decay": self.hparams.weight_decay}  # type: ignore[attr-defined]
        return torch.optim.AdamW(self.parameters(), **options)


class Collecting(Reported):
    """Collects its losses, to log their mean at the end of an epoch."""

    def __init__(self, lr: float = 0.02, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.train_losses: list[Tensor] = []
        self.val_losses: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.train_losses.append(self.loss(batch))
        return self.train_losses[-1]

    def on_train_epoch_end(self) -> None:
        self.log("train_loss_mean", torch.stack(self.train_losses).mean())
        self.train_losses.clear()

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.val_losses.append(self.loss(batch))

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", torch.stack(self.val_losses).mean())
        self.val_losses.clear()


class Writing(Reported):
    """Writes to its logger's run, as for TensorBoard, and asks the optimizer in validation."""

    def on_validation_epoch_start(self) -> None:
        self.rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.logger.experiment.add_scalar("seen", float(batch_idx), self.global_step)  # type: ignore[union-attr]
        super().validation_step(batch, batch_idx)


class Body(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(7, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Taking(Reported):
    """Takes its network as an argument, as with LightningCLI."""

    def __init__(self, net: nn.Module, lr: float = 0.02, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.net = net


class Measuring(Reported):
    """Logs an accuracy of torchmetrics as the object that it is."""

    attribute: str | None = None

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        super().validation_step(batch, batch_idx)
        self.accuracy.update(self.net(batch[0]), batch[1])
        self.log("val_acc", self.accuracy, on_step=False, on_epoch=True, metric_attribute=self.attribute)


class MeasuringByName(Measuring):
    attribute = "accuracy"


class Slash(Reported):
    """Names as TensorBoard groups them."""

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.log("val/loss", self.loss(batch))
        self.log("val/acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())


class Behind(Reported):
    """The side behind the quantity."""

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.log("loss/val", self.loss(batch))


class BothSteps(Reported):
    """Logs each step and the epoch, to which Lightning gives names of its own."""

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.log("val_loss", self.loss(batch), on_step=True, on_epoch=True)


class Halving(pl.Callback):
    """Of the other package than the module: halves the learning rate."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= 0.5


class Mixed(Reported):
    def configure_callbacks(self) -> Any:
        stop = pl.callbacks.EarlyStopping("val_loss", min_delta=10.0, patience=2)
        return [Halving(), stop, pl.callbacks.LearningRateMonitor()]


class MixedInVain(Reported):
    """A callback that asks the module what only a module of its own package can answer."""

    def configure_callbacks(self) -> Any:
        return [pl.callbacks.WeightAveraging()]


def built(lr: float = 0.02, weight_decay: float = 0.0) -> Reported:
    return Reported(lr, weight_decay)


def with_body(weight_decay: float) -> Taking:
    return Taking(Body(4), weight_decay=weight_decay)


@dataclass(frozen=True)
class Report:
    """A model of a study, what it logs by our names, the study's objective, and what a plain Trainer is to be given."""

    model: Any
    logged: dict[str, str] = field(default_factory=lambda: {"val_loss": "val_loss"})
    objective: dict[str, str] = field(default_factory=lambda: {"minimize": "val_loss"})
    options: dict[str, Any] = field(default_factory=dict)
    plain: Callable[..., Any] | None = None

    def study(self, epochs: int) -> dict[str, Any]:
        """A study of it."""
        return {
            "study": "reported",
            "data": Data(),
            "model": self.model,
            "space": {"weight_decay": {"low": 0.1, "high": 3.0}},
            "objective": self.objective,
            "budget": {"trials": 2, "epochs": epochs},
            "trainer": {"accelerator": "cpu", "options": self.options},
        }


ACCURACY = {"val_loss": "val_loss", "val_acc": "val_acc"}
NESTED = {"class_path": "support.written_modules.Body", "init_args": {"width": 4}}
REPORTS: dict[str, Report] = {
    "losses in a list": Report(Collecting, {"val_loss": "val_loss", "train_loss_mean": "train_loss_mean"}),
    "every second epoch": Report(Reported, options={"check_val_every_n_epoch": 2}),
    "twice an epoch": Report(Reported, options={"val_check_interval": 1, "limit_train_batches": 2}),
    "logger's run": Report(Writing),
    "without inference mode": Report(Writing, options={"inference_mode": False}),
    "nested class_path": Report(
        {"class_path": "support.written_modules.Taking", "init_args": {"net": NESTED}}, plain=with_body
    ),
    "torchmetrics": Report(Measuring, ACCURACY),
    "torchmetrics by name": Report(MeasuringByName, ACCURACY),
    "names with a slash": Report(Slash, {"val_loss": "val/loss", "val_acc": "val/acc"}, {"maximize": "val/acc"}),
    "side behind": Report(Behind, {"val_loss": "loss/val"}, {"minimize": "loss/val"}),
    "steps and epochs": Report(BothSteps, {"val_loss": "val_loss_epoch"}, {"minimize": "val_loss_epoch"}),
    "callbacks of the other package": Report(Mixed),
    "function": Report(built),
    "partial": Report(partial(Reported, lr=0.05), plain=partial(Reported, lr=0.05)),
}
"""Each module by what was reported of it."""
