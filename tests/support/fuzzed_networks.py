"""Networks composed at random of layers, hooks, state, generators and operations in place, as people write them."""

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

WIDTH, FEATURES, CLASSES = 6, 5, 3


class Layer(nn.Module):
    """A layer that keeps the width."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).tanh()


class RateOfLayer(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), self.drop.p, self.training)


class DroppedAttention(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        q = super().forward(x).unflatten(-1, (2, 3)).unsqueeze(1)
        rate = self.drop.p if self.training else 0.0
        return F.scaled_dot_product_attention(q, q, q, dropout_p=rate).flatten(1)


class ConstantDropout(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.2, self.training)


class HookedDropout(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)
        self.drop.register_forward_hook(lambda _, inputs, outputs: outputs * 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x))


class FoundDropout(Layer):
    """Looks for dropout layers and keeps them on in evaluation (Monte-Carlo dropout)."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def train(self, mode: bool = True) -> "FoundDropout":
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.Dropout):
                layer.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x))


class Checkpointed(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.segment = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.2), nn.Tanh(), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.segment, self.linear(x), use_reentrant=False)


class CheckpointedReentrant(Checkpointed):
    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.segment, self.linear(x), use_reentrant=True)


class FrozenRows(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.linear.weight.register_hook(lambda gradient: torch.cat([0.0 * gradient[:3], gradient[3:]]))


class AfterAccumulation(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.linear.weight.register_post_accumulate_grad_hook(_halved)


def _halved(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.mul_(0.5)


class Frozen(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.linear.requires_grad_(False)
        self.unused = nn.Linear(2, 2)


class BackwardHook(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.linear.register_full_backward_hook(lambda _, inputs, outputs: tuple(2.0 * gradient for gradient in inputs))


class RunningMean(Layer):
    def __init__(self, in_place: bool = True, persistent: bool = True) -> None:
        super().__init__()
        self.in_place = in_place
        self.register_buffer("mean", torch.zeros(WIDTH), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.training:
            mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            if self.in_place:
                self.mean.copy_(mean)
            else:
                self.mean = mean
        return x - self.mean


class Counting(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return super().forward(x) / (1.0 + 0.1 * self.calls)


class CountingNow(Layer):
    """Counts in a buffer, for a warm-up."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1.0
        return super().forward(x) * (1.0 - 0.5**self.calls)


class Previous(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.previous: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        previous = x.detach().mean(0) if self.previous is None else self.previous
        if self.training:
            self.previous = x.detach().mean(0)
        return x + 0.5 * previous


class History(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.history: deque[float] = deque(maxlen=3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.history.append(float(len(self.history)) + 1.0)
        return super().forward(x) * (1.0 + 0.1 * sum(self.history))


class Statistics:
    """An object that is no module."""

    def __init__(self) -> None:
        self.seen = 0


class InObject(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.statistics = Statistics()

    def forward(self, x: Tensor) -> Tensor:
        self.statistics.seen += self.training
        return super().forward(x) * (1.0 + 0.1 * self.statistics.seen)


class LayerDrop(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x if self.training and random.random() < 0.5 else super().forward(x)


class NumpyNoise(Layer):
    def forward(self, x: Tensor) -> Tensor:
        noise = np.random.rand() if self.training else 0.0
        return super().forward(x) + noise


class TorchNoise(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (0.1 * torch.randn(WIDTH, dtype=x.dtype) if self.training else 0.0)


class EvaluationNoise(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1 * torch.randn(WIDTH, dtype=x.dtype)


class HeldNumpy(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.rng.random()


class HeldTorch(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.sources = {"noise": torch.Generator().manual_seed(0)}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(WIDTH, generator=self.sources["noise"], dtype=x.dtype)


_GLOBAL = random.Random(0)


class GlobalGenerator(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + _GLOBAL.random()


class CreatedLate(Layer):
    """Creates its generator at the first call."""

    rng: random.Random | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.rng = self.rng or random.Random(0)
        return super().forward(x) + self.rng.random()


class InPlace(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clone().mul_(0.9).add_(0.1).relu_()


class UnitNorm(Layer):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.linear.weight.div_(self.linear.weight.norm(dim=1, keepdim=True))
        return super().forward(x)


class ClampedInEvaluation(Layer):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            with torch.no_grad():
                self.linear.weight.clamp_(-0.3, 0.3)
        return super().forward(x)


class DataAssigned(Layer):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.linear.weight.data = self.linear.weight.data * 0.99
        return super().forward(x)


class Branching(Layer):
    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if x.mean() > 0.0 else 2.0 * x


class ReadsItem(Layer):
    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x * (1.0 + x.detach().abs().max().item())


class Tied(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(super().forward(x), self.linear.weight.t())


class Attention(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = super().forward(x).unflatten(-1, (2, 3))
        return self.attention(rows, rows, rows, need_weights=False)[0].flatten(1)


class Recurrent(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.GRU(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.memory(super().forward(x).unflatten(-1, (2, 3)))[0].flatten(1)


class FrozenNorm(Layer):
    """A batch norm that never trains, by a `train` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)

    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class Closure(Layer):
    def __init__(self) -> None:
        super().__init__()
        calls = [0]

        def scale() -> float:
            calls[0] += 1
            return 1.0 / calls[0]

        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (self.scale() if self.training else 1.0)


class Overridden(Layer):
    """A forward that is replaced on the object and refers to it."""

    def __init__(self) -> None:
        super().__init__()
        inner = self.linear
        self.forward = lambda x: inner(x).relu()  # type: ignore[method-assign]


class PlainList(Layer):
    """Layers in a plain list are not trained, in torch and here."""

    def __init__(self) -> None:
        super().__init__()
        self.others = [nn.Linear(WIDTH, WIDTH)]

    def forward(self, x: Tensor) -> Tensor:
        return self.others[0].to(x.dtype)(super().forward(x)).detach() * 0.1 + x


BLOCKS: list[Callable[[], nn.Module]] = [
    *(Layer, RateOfLayer, DroppedAttention, ConstantDropout, HookedDropout, FoundDropout, Checkpointed),
    *(CheckpointedReentrant, FrozenRows, AfterAccumulation, Frozen, BackwardHook, RunningMean),
    *(lambda: RunningMean(False), lambda: RunningMean(persistent=False), Counting, CountingNow, Previous, History),
    *(InObject, LayerDrop, NumpyNoise, TorchNoise, EvaluationNoise, HeldNumpy, HeldTorch, GlobalGenerator, CreatedLate),
    *(InPlace, UnitNorm, ClampedInEvaluation, DataAssigned, Branching, ReadsItem, Tied, Attention, Recurrent),
    *(FrozenNorm, Closure, Overridden, PlainList),
    *(lambda: nn.BatchNorm1d(WIDTH), lambda: nn.LayerNorm(WIDTH), lambda: nn.GroupNorm(2, WIDTH)),
    *(lambda: nn.Dropout(0.2), lambda: nn.AlphaDropout(0.1), lambda: nn.Dropout(0.1, inplace=True), nn.GELU, nn.RReLU),
    *(lambda: parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)),),
    *(lambda: parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)),),
]


class Fuzzed(nn.Module):
    """One to four blocks, chosen by a seed; some change their inputs in place, some share a block."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choice = random.Random(seed)
        blocks = [choice.choice(BLOCKS)() for _ in range(choice.randint(1, 4))]
        if choice.random() < 0.1:
            blocks.append(blocks[0])
        self.first, self.blocks, self.head = (
            nn.Linear(FEATURES, WIDTH),
            nn.ModuleList(blocks),
            nn.Linear(WIDTH, CLASSES),
        )
        self.in_place, self.residual = choice.random() < 0.2, choice.random() < 0.3

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.sub_(0.3).div_(0.7) if self.in_place else x)
        for block in self.blocks:
            x = x + block(x) if self.residual else block(x)
        return self.head(x)

    def described(self) -> str:
        """Names of the blocks."""
        return ", ".join(type(block).__name__ for block in self.blocks)


class FuzzData(L.LightningDataModule):
    """A few rows of three classes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(72, FEATURES, generator=generator)
        y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        self.train, self.validation = TensorDataset(x[:48], y[:48]), TensorDataset(x[48:], y[48:])

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=20)

    def train_eval_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=16)

    def val_dataloader(self) -> Any:
        return DataLoader(self.validation, batch_size=16)
