"""A loss that a network computes itself, as heads of Hugging Face do, is not used; if it is another one, a note says so."""

from dataclasses import dataclass
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from wdsearch.search.preview import preview
from wdsearch.tasks.task import Task
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.own_loss import own_loss_note

WORDS = 7


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class Words(nn.Module):
    """Scores of the word at each place, with the loss of a head for sequences of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(WORDS, 4), nn.Linear(4, WORDS)

    def own_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Output:
        logits = self.head(self.embed(input_ids))
        return Output(None if labels is None else self.own_loss(logits, labels), logits)


class NextWord(Words):
    """A head for causal language modelling: labels are the words themselves, and the head shifts them."""

    def own_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().own_loss(logits[:, :-1], labels[:, 1:])


class Mapped(NextWord):
    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Any]:  # type: ignore[override]
        return vars(super().forward(input_ids, labels))


class Silent(NextWord):
    """Takes no targets."""

    def forward(self, input_ids: Tensor) -> Output:  # type: ignore[override]
        return super().forward(input_ids)


class Shifting(RegularizedModule):
    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        return super().loss(outputs.logits[:, :-1], targets[:, 1:])


class Texts(L.LightningDataModule):
    task, metric = "classification", "accuracy"

    def train_dataloader(self) -> DataLoader:
        words = torch.randint(WORDS, (6, 5), generator=torch.Generator().manual_seed(0))
        return DataLoader([{"input_ids": words, "labels": words}], batch_size=None)

    val_dataloader = train_eval_dataloader = train_dataloader


def note(network: nn.Module, key: str = "labels", kind: type[RegularizedModule] = RegularizedModule) -> str | None:
    (batch,) = Texts().train_dataloader()
    return own_loss_note(kind(network), {"input_ids": batch["input_ids"], key: batch["labels"]})


@pytest.mark.parametrize("key", ["labels", "y"])
@pytest.mark.parametrize("build", [NextWord, Mapped])
def test_another_loss_of_the_network_is_noted(build: type[nn.Module], key: str) -> None:
    text = str(note(build(), key))
    assert text.startswith("model: the network computes a loss itself, ")
    assert "is trained with the cross-entropy of its outputs and the targets" in text
    assert "override loss" in text


def test_the_same_loss_is_not_nor_one_that_is_not_computed_or_that_a_subclass_replaces() -> None:
    assert note(Words()) is None
    assert note(Silent()) is None
    assert note(NextWord(), kind=Shifting) is None
    assert own_loss_note(RegularizedModule(nn.Linear(3, 2)), (torch.zeros(2, 3), torch.tensor([0, 1]))) is None


def test_a_regression_is_compared_with_the_mean_squared_error() -> None:
    class Absolute(nn.Linear):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Output:  # type: ignore[override]
            outputs = super().forward(x)
            return Output(None if y is None else (outputs.squeeze(-1) - y).abs().mean(), outputs)

    batch = {"x": torch.ones(4, 3), "y": torch.arange(4.0)}
    text = own_loss_note(RegularizedModule(Absolute(3, 1), task=Task("regression")), batch)
    assert "the mean squared error of its outputs" in str(text)


def test_a_study_says_so_beforehand() -> None:
    study = {
        "study": "words",
        "space": {"weight_decay": {"low": 0.1, "high": 1.0}},
        "budget": {"trials": 2, "epochs": 1},
    }
    warnings = {build: preview(study | {"data": Texts(), "model": build}).warnings for build in (Words, NextWord)}
    assert not any("loss itself" in text for text in warnings[Words])
    assert any("loss itself" in text for text in warnings[NextWord])
