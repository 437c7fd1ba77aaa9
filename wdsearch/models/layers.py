"""Layers written so that a trial's numbers do not depend, to the last bit, on what lies beside it in memory.

torch's own take a trial's rows together with its neighbours' (batch norm, at twice the time under vmap), or round the
entries that do not fill a vector register differently (the sigmoid in SiLU).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 1502.03167) of (batch, features), with the state of `nn.BatchNorm1d`."""

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

    def forward(self, inputs: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        mean = inputs.mean(0) if self.training else self.running_mean
        centred = inputs - mean
        variance = centred.square().mean(0) if self.training else self.running_var
        if self.training:
            self._track(mean.detach(), variance.detach(), len(inputs))
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
