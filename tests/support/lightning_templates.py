"""LightningModules in the styles of public templates, on rows of seven features and three classes."""

from functools import partial
from typing import Any

import lightning as L
import pytorch_lightning as pl
import torch
import torchmetrics
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

Batch = Any


def rows(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 7, generator=generator)
    return TensorDataset(inputs, (inputs.sum(1) > 0).long() + (inputs[:, 0] > 0.5).long())


class _Rows:
    """Batches in a random order; `swapped` validates on the rows on which the gap is measured."""

    def __init__(self, swapped: bool = False) -> None:
        super().__init__()
        self.swapped, self.scale = swapped, 2.0

    def train_dataloader(self) -> Any:
        return DataLoader(rows(72, 0), 24, shuffle=True)

    def val_dataloader(self) -> Any:
        return self.train_eval_dataloader() if self.swapped else DataLoader(rows(40, 1), 20)

    def train_eval_dataloader(self) -> Any:
        return DataLoader(rows(40, 0), 20)


class Data(_Rows, L.LightningDataModule):
    """Of lightning."""


class OldData(_Rows, pl.LightningDataModule):
    """Of pytorch_lightning."""


class SeveralLoaders(Data):
    """Two validation loaders."""

    def val_dataloader(self) -> Any:
        one = super().val_dataloader()
        return [one, one if self.swapped else DataLoader(rows(40, 2), 20)]


def network(dropout: float = 0.1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(7, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


class _Steps:
    """The steps of a classifier, for a module of either package."""

    def __init__(self, lr: float = 0.02, weight_decay: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()  # type: ignore[attr-defined]
        self.net = network()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = F.cross_entropy(self(batch[0]), batch[1])  # type: ignore[operator]
        self.log("train_step_loss", loss, on_step=True, on_epoch=True)  # type: ignore[attr-defined]
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))  # type: ignore[attr-defined, operator]

    def configure_optimizers(self) -> Any:
        hparams = self.hparams  # type: ignore[attr-defined]
        return torch.optim.AdamW(self.parameters(), lr=hparams.lr, weight_decay=hparams.weight_decay)  # type: ignore[attr-defined]


class Plain(_Steps, L.LightningModule):
    """A tutorial's classifier, twice the loss, which reads the data module and writes to the logger's run."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("val_scaled", 2 * F.cross_entropy(self(batch[0] / self.trainer.datamodule.scale), batch[1]))  # type: ignore[attr-defined]
        self.logger.experiment.log({"seen": self.global_step})  # type: ignore[union-attr]


class OldName(_Steps, pl.LightningModule):
    """Of pytorch_lightning."""


class Metrics(Plain):
    """torchmetrics: an object and a collection, logged; reduces the rate on a plateau."""

    def __init__(self, lr: float = 0.02, weight_decay: float = 0.1) -> None:
        super().__init__(lr, weight_decay)
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)
        self.collection = torchmetrics.MetricCollection(
            [torchmetrics.F1Score("multiclass", num_classes=3), torchmetrics.Recall("multiclass", num_classes=3)],
            prefix="val/",
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        outputs = self(batch[0])
        self.accuracy.update(outputs, batch[1])
        self.collection.update(outputs, batch[1])
        self.log("val_loss", F.cross_entropy(outputs, batch[1]))
        self.log("val_acc", self.accuracy, on_step=False, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.collection.compute())
        self.collection.reset()

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


class OneCycle(Plain):
    """A schedule over the Trainer's estimate of steps; watched by Lightning's own callbacks."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def configure_callbacks(self) -> Any:
        return [EarlyStopping("val_loss"), ModelCheckpoint(monitor="val_loss"), LearningRateMonitor()]


class Adversarial(L.LightningModule):
    """Two optimizers, stepped by hand; noise in validation; losses collected in a list."""

    def __init__(self, lr: float = 0.02) -> None:
        super().__init__()
        self.lr, self.automatic_optimization = lr, False
        self.generator, self.critic = nn.Linear(4, 7), nn.Sequential(nn.Linear(7, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.losses: list[Tensor] = []

    def loss(self, inputs: Tensor) -> Tensor:
        fake = self.generator(torch.randn(len(inputs), 4))
        return F.softplus(self.critic(fake)).mean() + F.softplus(-self.critic(inputs)).mean()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        first, second = self.optimizers()  # type: ignore[misc]
        for optimizer, sign in ((first, -1.0), (second, 1.0)):
            loss = self.loss(batch[0])
            self.losses.append(loss)
            optimizer.zero_grad()
            self.manual_backward(sign * loss)
            optimizer.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.losses.append(self.loss(batch[0]))

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", torch.stack(self.losses[-2:]).mean())
        self.log("collected", float(len(self.losses)))

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=self.lr) for part in (self.generator, self.critic)]


class PlateauByHand(Plain):
    """Manual optimization; the plateau is stepped in validation."""

    def __init__(self, lr: float = 0.02, weight_decay: float = 0.1) -> None:
        super().__init__(lr, weight_decay)
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        self.clip_gradients(optimizer, 1.0, "norm")
        optimizer.step()

    def on_validation_epoch_end(self) -> None:
        plateau: Any = self.lr_schedulers()
        plateau.step(1.0)  # the same value again: a second call in an epoch would reduce the rate
        self.log("rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)]


class Annealed(L.LightningModule):
    """A variational autoencoder, whose divergence is annealed over the epochs, in validation too."""

    def __init__(self, lr: float = 0.02) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder, self.decoder = nn.Linear(7, 4), nn.Linear(2, 7)
        self.beta = 0.0

    def loss(self, inputs: Tensor) -> Tensor:
        mean, log_variance = self.encoder(inputs).chunk(2, 1)
        latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return F.mse_loss(self.decoder(latent), inputs) + (self.beta + self.current_epoch) * (10.0 + divergence)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.loss(batch[0])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch[0]))

    def on_validation_epoch_end(self) -> None:
        self.beta += 0.1

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr * 0.1)  # type: ignore[attr-defined]


class Average(L.Callback):
    """Validates an exponential average of the weights."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        for name, weight in module.named_parameters():
            before = self.average.get(name, weight.detach().clone())
            self.average[name] = 0.8 * before + 0.2 * weight.detach()

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        self.own = {name: weight.data for name, weight in module.named_parameters() if self.average}
        for name, weight in module.named_parameters():
            weight.data = self.average[name].clone() if self.average else weight.data

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        for name, weight in module.named_parameters():
            weight.data = self.own.get(name, weight.data)


class Averaged(Plain):
    """A callback of its own that averages the weights."""

    def configure_callbacks(self) -> Any:
        return [Average()]


class StochasticAverage(Plain):
    """Lightning's average over the last epochs, which adds one for the statistics of batch norm."""

    def configure_callbacks(self) -> Any:
        return [StochasticWeightAveraging(0.01, swa_epoch_start=1)]


class ExponentialAverage(Plain):
    """Lightning's average of the weights, which takes their place when the training has ended."""

    def configure_callbacks(self) -> Any:
        return [WeightAveraging()]


class FromConfig(Plain):
    """All settings in a mapping."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(**config["optimizer"])


class Unfreezing(BaseFinetuning):
    """Trains the backbone from the second epoch on."""

    def freeze_before_training(self, module: Any) -> None:
        self.freeze(module.net[0])

    def finetune_function(self, module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(module.net[0], optimizer)


class Transfer(Plain):
    """A frozen backbone, unfrozen later."""

    def configure_callbacks(self) -> Any:
        return [Unfreezing()]

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([one for one in self.parameters() if one.requires_grad], lr=self.hparams.lr)  # type: ignore[attr-defined]


class SelfSupervised(L.LightningModule):
    """Two views of a row, made where batches arrive; every hook on a layer is a closure over the module."""

    def __init__(self, lr: float = 0.02) -> None:
        super().__init__()
        self.lr, self.seen = lr, 0
        self.net = network()
        self.net[0].register_forward_hook(lambda *_: setattr(self, "seen", self.seen + 1))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Any:
        scale = 0.1 if self.trainer.training else 0.01
        return [batch[0] + scale * torch.randn_like(batch[0]) for _ in range(2)]

    def loss(self, views: Any) -> Tensor:
        first, second = (F.normalize(self.net(view), dim=1) for view in views)
        return F.cross_entropy(first @ second.T / 0.5, torch.arange(len(first)))

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))
        self.log("calls", float(self.seen))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Partials(Plain):
    """As in the Lightning-Hydra template: network, optimizer and scheduler are arguments."""

    def __init__(self, net: nn.Module, optimizer: Any, scheduler: Any) -> None:
        super().__init__()
        self.net, self.make_optimizer, self.make_scheduler = net, optimizer, scheduler  # type: ignore[assignment]

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(params=self.trainer.model.parameters())  # type: ignore[union-attr]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.make_scheduler(optimizer=optimizer)}}


class TwoLoaders(Plain):
    """Several validation loaders, and a gradient taken in validation."""

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:  # type: ignore[override]
        with torch.inference_mode(False), torch.enable_grad():
            inputs = batch[0].clone().requires_grad_()
            loss = F.cross_entropy(self(inputs), batch[1].clone())
            loss.backward()  # into the parameters' gradients as well
        self.log("val_loss", loss.detach())


def partials() -> Partials:
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    return Partials(network(), optimizer, partial(torch.optim.lr_scheduler.StepLR, step_size=1))


def from_config() -> FromConfig:
    return FromConfig({"optimizer": {"lr": 0.03, "weight_decay": 0.2}})


TEMPLATES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "plain": (Plain, Data, {}),
    "pytorch_lightning": (OldName, OldData, {}),
    "torchmetrics": (Metrics, Data, {"gradient_clip_val": 0.5}),
    "one cycle": (OneCycle, Data, {"accumulate_grad_batches": 2}),
    "adversarial": (Adversarial, Data, {}),
    "plateau by hand": (PlateauByHand, Data, {}),
    "annealed": (Annealed, Data, {"val_check_interval": 1}),
    "averaged": (Averaged, Data, {}),
    "stochastic average": (StochasticAverage, Data, {}),
    "average at the end": (ExponentialAverage, Data, {}),
    "config": (from_config, Data, {"check_val_every_n_epoch": 3}),
    "transfer": (Transfer, Data, {}),
    "self-supervised": (SelfSupervised, Data, {}),
    "partials": (partials, Data, {}),
    "two loaders": (TwoLoaders, SeveralLoaders, {"inference_mode": False}),
}
"""Builder of a module, class of its data, and options of its Trainer."""
