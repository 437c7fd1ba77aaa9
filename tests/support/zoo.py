"""Small networks as users write them, with what is to become of each: fused, or trained alone for a reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.data import DataLoader, Dataset

from wdsearch.datasets._base import ShuffledBatches

LENGTH, FEATURES, CLASSES, WORDS = 5, 8, 3, 11


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(FEATURES, 2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        mixed, _ = self.attention(x, x, x, need_weights=False)
        return self.head(mixed.mean(1))


class Encoder(nn.Module):
    """torch's own layer, with the sequence first, as it comes."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(FEATURES, 2, 16, dropout=0.2, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x.transpose(0, 1)).mean(0))


class Tied(nn.Module):
    """One matrix in two places, and one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.again = nn.Linear(FEATURES, FEATURES, bias=False), nn.Linear(FEATURES, FEATURES)
        self.into.weight = self.again.weight
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.again(torch.tanh(self.again(x.mean(1)))))
        return self.head(self.into(hidden))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(FEATURES), nn.Linear(FEATURES, FEATURES), nn.GELU(), nn.Dropout(0.1))
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1)
        return self.head(x + self.inner(x))


class RunningMean(nn.Module):
    """Centres by a running mean that is a buffer, changed in place or assigned anew."""

    mean: Tensor

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place, self.head = in_place, nn.Linear(FEATURES, CLASSES)
        self.scale = nn.Linear(FEATURES, FEATURES)
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.scale(x.mean(1))
        if self.training:
            moved = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            if self.in_place:
                self.mean.copy_(moved)
            else:
                self.mean = moved
        return self.head(x - self.mean)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, FEATURES), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        return self.head(x.mean(1) * self.words(words).mean(1))


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.EmbeddingBag(WORDS, FEATURES), nn.Linear(FEATURES, CLASSES)
        self.cross = nn.Bilinear(FEATURES, FEATURES, FEATURES)

    def forward(self, words: Tensor, x: Tensor | None = None) -> Tensor:
        assert x is not None
        return self.head(self.cross(self.words(words), x.mean(1)))


class InPlace(nn.Sequential):
    def __init__(self) -> None:
        hidden = nn.Linear(LENGTH * FEATURES, 12)
        super().__init__(
            nn.Flatten(), hidden, nn.ReLU(inplace=True), nn.Dropout(0.1, inplace=True), nn.Linear(12, CLASSES)
        )


class Branching(nn.Module):
    """Goes one way or the other by what the data make of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.left, self.right = (
            nn.Linear(FEATURES, 1),
            nn.Linear(FEATURES, CLASSES),
            nn.Linear(FEATURES, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1)
        return self.left(x) if self.gate(x).mean() > 0 else self.right(x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.GRU(FEATURES, 6, batch_first=True), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x)[0][:, -1])


class Transposed(nn.Module):
    """Dropout on transposed activations: as a layer, and as a function, which torch under vmap gives another mask."""

    def __init__(self, layer: bool) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3) if layer else None
        self.body, self.head = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        turned = self.body(x).transpose(1, 2)
        turned = self.drop(turned) if self.drop else F.dropout(turned, 0.3, self.training)
        return self.head(turned.mean(2))


class Counting(nn.Module):
    """Fades something out by a count that is a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.head = 0, nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.head(x.mean(1)) / (1.0 + 0.1 * self.calls)


class Unused(nn.Module):
    """With a layer that nobody calls, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.idle = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.frozen(x.mean(1)))


class Cached(nn.Module):
    """Computes a constant at its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.positions: Tensor | None = None
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        if self.positions is None:
            self.positions = torch.linspace(0.0, 1.0, x.shape[1]).to(x).unsqueeze(-1)
        return self.head((x + self.positions).mean(1))


def images(*layers: nn.Module) -> nn.Module:
    """Convolutions over a batch of sequences."""
    return nn.Sequential(
        nn.Conv1d(LENGTH, 6, 3, padding=1), *layers, nn.ReLU(), nn.Flatten(), nn.Linear(6 * FEATURES, CLASSES)
    )


def flat(*layers: nn.Module, width: int = 12) -> nn.Module:
    """A hidden layer, others, and a head."""
    return nn.Sequential(nn.Flatten(), nn.Linear(LENGTH * FEATURES, width), *layers, nn.Linear(width, CLASSES))


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def symmetric(layer: nn.Module) -> nn.Module:
    """A layer whose weight is symmetric by a parametrization."""
    return parametrize.register_parametrization(layer, "weight", Symmetric())


def positioned(row: dict[str, Tensor]) -> Any:
    return row["x"], row["y"]


@dataclass(frozen=True)
class Animal:
    """A network, what of a row it is given, and why it is trained alone; None if it is fused."""

    build: Callable[[], nn.Module]
    alone: str | None = None
    batch: Callable[[dict[str, Tensor]], Any] = positioned


ZOO: Mapping[str, Animal] = {
    "attention": Animal(Attention),
    "encoder": Animal(Encoder),
    "batch norm": Animal(lambda: flat(nn.BatchNorm1d(12), nn.ReLU())),
    "layer norm": Animal(lambda: flat(nn.LayerNorm(12), nn.GELU(), nn.AlphaDropout(0.1))),
    "group norm": Animal(lambda: images(nn.GroupNorm(2, 6), nn.Dropout1d(0.1))),
    "batch norm, no momentum": Animal(lambda: flat(nn.BatchNorm1d(12, momentum=None)), r"^2 \(BatchNorm1d\): "),
    "tied": Animal(Tied),
    "residual": Animal(Residual),
    "buffer in place": Animal(lambda: RunningMean(True)),
    "buffer anew": Animal(
        lambda: RunningMean(False), r"^the network \(RunningMean\): its buffer mean is assigned anew"
    ),
    "two inputs": Animal(TwoInputs, batch=lambda row: (row["x"], row["words"], row["y"])),
    "named inputs": Animal(
        Named,
        r"^words \(EmbeddingBag\): vmap cannot batch aten::embedding_bag",
        batch=lambda row: {"words": row["words"], "x": row["x"], "labels": row["y"]},
    ),
    "in place": Animal(InPlace),
    "branching": Animal(Branching, r"^the network \(Branching\): .*control flow"),
    "recurrent": Animal(Recurrent, r"^memory \(GRU\): "),
    "transposed dropout": Animal(lambda: Transposed(True)),
    "transposed function": Animal(lambda: Transposed(False)),
    "weight norm": Animal(
        lambda: flat(nn.Tanh(), parametrizations.weight_norm(nn.Linear(12, 12))),
        "_WeightNorm.*cannot batch aten::_weight_norm",
    ),
    "spectral norm": Animal(
        lambda: flat(nn.Tanh(), parametrizations.spectral_norm(nn.Linear(12, 12))), r"\(_SpectralNorm\): "
    ),
    "orthogonal": Animal(lambda: flat(nn.Tanh(), parametrizations.orthogonal(nn.Linear(12, 12)))),
    "random slope": Animal(lambda: flat(nn.RReLU()), r"^2 \(RReLU\): "),
    "counting": Animal(Counting, r"^the network \(Counting\) keeps calls from one batch to the next"),
    "unused and frozen": Animal(Unused),
    "symmetric": Animal(lambda: flat(nn.Tanh(), symmetric(nn.Linear(12, 12)))),
    "cached constant": Animal(Cached),
}


class Rows(Dataset):
    """Rows of numbers, words and classes, in batches made of row numbers."""

    def __init__(self, rows: int, seed: int, batch: Callable[[dict[str, Tensor]], Any]) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(rows, LENGTH, FEATURES, generator=generator)
        self.words = torch.randint(WORDS, (rows, 4), generator=generator)
        self.y = (self.x.sum((1, 2)) + self.words.sum(1) - 20).clamp(-1, 1).round().long() + 1
        self.batch = batch

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Any) -> Any:
        return self.batch({"x": self.x[rows], "words": self.words[rows], "y": self.y[rows]})


class ZooData(L.LightningDataModule):
    """Rows on which all networks of the zoo are trained."""

    task, metric = "classification", "accuracy"

    def __init__(self, batch: Callable[[dict[str, Tensor]], Any] = positioned) -> None:
        super().__init__()
        self.train, self.validation = Rows(90, 0, batch), Rows(60, 1, batch)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, sampler=ShuffledBatches(90, 32, 3), batch_size=None)

    def train_eval_dataloader(self) -> DataLoader:
        return DataLoader(self.train, sampler=[list(range(60))], batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, sampler=[list(range(60))], batch_size=None)
