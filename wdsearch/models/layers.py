"""Layers whose outputs do not depend, to the last bit, on the trials that share a call.

torch's own reduce a trial's rows together with its neighbours' (batch norm, at twice the time under vmap), or round the
entries that do not fill a vector register differently (the sigmoid in SiLU).
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 1502.03167) of (batch, ..., features), with the state of `nn.BatchNorm1d`.

    All tokens of all rows count alike, as the positions of a sequence do in torch's.

    >>> normalized = BatchNorm(2)(torch.tensor([[1.0, 5.0], [3.0, 9.0]]))
    >>> normalized.detach().round()
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """

    running_mean: Float[Tensor, " features"]
    running_var: Float[Tensor, " features"]
    num_batches_tracked: Tensor

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, inputs: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        rows = inputs.flatten(0, -2)
        mean = rows.mean(0) if self.training else self.running_mean
        centred = inputs - mean
        variance = centred.flatten(0, -2).square().mean(0) if self.training else self.running_var
        if self.training:
            self._track(mean.detach(), variance.detach(), len(rows))
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias

    def _track(self, mean: Float[Tensor, " features"], variance: Float[Tensor, " features"], rows: int) -> None:
        unbiased = variance * (rows / max(rows - 1, 1))
        self.num_batches_tracked.add_(1)
        self.running_mean.mul_(1.0 - self.momentum).add_(self.momentum * mean)
        self.running_var.mul_(1.0 - self.momentum).add_(self.momentum * unbiased)


class SiLU(nn.Module):
    """x·σ(x) (Hendrycks & Gimpel 1606.08415), by σ(x) = (1 + tanh(x/2))/2."""

    def forward(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        half = 0.5 * inputs
        return half + half * torch.tanh(half)


class LayerNorm(nn.Module):
    """Layer normalization (Ba et al. 1607.06450) over the last axis, with the state of `nn.LayerNorm`."""

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))

    def forward(self, inputs: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        centred = inputs - inputs.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias


class Residual(nn.Module):
    """x + f(x), with f in steps."""

    def __init__(self, *steps: nn.Module) -> None:
        super().__init__()
        self.steps = nn.Sequential(*steps)

    def forward(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return inputs + self.steps(inputs)


def named(layers: Iterable[tuple[str, nn.Module]]) -> nn.Sequential:
    """Layers in sequence by names, which groups of strengths refer to.

    >>> list(dict(named([("hidden", nn.Linear(3, 2)), ("output", nn.Linear(2, 1))]).named_children()))
    ['hidden', 'output']
    """
    return nn.Sequential(OrderedDict(layers))


class Shaped(nn.Sequential):
    """Rows, flat or not, in their own shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(nn.Flatten(), nn.Unflatten(1, tuple(shape)))


class Mean(nn.Module):
    """The mean over the last axis."""

    def forward(self, inputs: Float[Tensor, "*shape positions"]) -> Float[Tensor, "*shape"]:
        return inputs.mean(-1)


class NumberTokens(nn.Embedding):
    """A token for each number of a row: x_j·W_j + b_j (FT-Transformer, Gorishniy et al. 2106.11959, section 3.3)."""

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__(numbers, width)
        self.bias = nn.Parameter(torch.zeros(numbers, width))

    def forward(self, numbers: Float[Tensor, "batch numbers"]) -> Float[Tensor, "batch numbers width"]:
        return numbers.unsqueeze(-1) * self.weight + self.bias


class PatchTokens(nn.Module):
    """A token for each patch of a sequence, plus an embedding of its position (Dosovitskiy et al. 2010.11929, section 3.1)."""

    def __init__(self, channels: int, length: int, width: int, patch: int) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.project = nn.Linear(channels * patch, width)
        self.places = nn.Embedding(length // patch, width)

    def forward(self, sequence: Float[Tensor, "batch channels length"]) -> Float[Tensor, "batch tokens width"]:
        patches = sequence.unflatten(2, (-1, self.patch)).transpose(1, 2).flatten(2)
        return self.project(patches) + self.places.weight


class Embeddings(nn.Module):
    """An embedding for each column of category codes."""

    def __init__(self, categories: Sequence[int], width: int) -> None:
        super().__init__()
        self.columns = nn.ModuleList(nn.Embedding(count, width) for count in categories)

    def forward(self, codes: Int[Tensor, "batch columns"]) -> Float[Tensor, "batch columns width"]:
        return torch.stack([column(codes[:, number]) for number, column in enumerate(self.columns)], dim=1)


NORMS: dict[str, type[nn.Module]] = {"batch": BatchNorm, "layer": LayerNorm}


def normalization(name: str | None, features: int) -> list[nn.Module]:
    """A normalization of features by name, none for None. Raises ValueError.

    >>> normalization("batch", 4), normalization(None, 4)
    ([BatchNorm()], [])
    """
    if name is None:
        return []
    if name not in NORMS:
        raise ValueError(f"norm is {name!r}; allowed are {', '.join(NORMS)}, or nothing")
    return [NORMS[name](features)]
