"""A user-defined LightningModule, searched and trained alone."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from support.zoo import ZooData
from torch import nn
from torch.nn import functional as F

import wdsearch
from wdsearch.noise import derive_seed
from wdsearch.trial.result import Result

STUDY: dict[str, Any] = {
    "study": "solo",
    "space": {
        "lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "weight_decay": {"low": 0.01, "high": 3.0, "log": True, "off": True},
        "hidden": {"choices": [4, 16]},
    },
    "budget": {"trials": 5, "epochs": 4},
    "search": {"batch": 1, "pruner": "none"},
    "trainer": {"accelerator": "cpu"},
}


class Own(L.LightningModule):
    """As from a tutorial: dropout from torch, an optimizer of its own, batches in an order of its own."""

    def __init__(self, lr: float = 0.01, weight_decay: float = 0.0, hidden: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
            nn.Flatten(),
            nn.Linear(40, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, 3),
        )

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        outputs = self.network(batch[0])
        self.log("val_loss", F.cross_entropy(outputs, batch[1]))
        self.log("val_acc", (outputs.argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)


def searched(home: Path, **changes: Any) -> wdsearch.StudyResult:
    return wdsearch.run(STUDY | {"data": ZooData(), "model": Own} | changes, home=home, progress=False)


def trained_alone(result: Result, data: ZooData, **options: Any) -> tuple[Own, L.Trainer]:
    """By plain Lightning, with the seeds of a study whose seed is 0."""
    torch.manual_seed(derive_seed(0, "weights"))
    module = Own(lr=result.lr, weight_decay=result.strengths["weight_decay"], **result.model)
    L.seed_everything(derive_seed(0, "solo") % 2**32, verbose=False)
    trainer = L.Trainer(
        max_epochs=4, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **{"accelerator": "cpu"} | options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return module, trainer
