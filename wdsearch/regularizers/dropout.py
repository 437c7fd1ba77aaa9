"""Dropout whose rate is data: a 0-d buffer that a population stacks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wdsearch.noise import NoiseStream
from wdsearch.regularizers._base import Regularizer
from wdsearch.types import Interval, Range, Scalar


class Dropout(nn.Module):
    """Zeroes entries where `noise < rate` and scales the rest by 1/(1 − rate) (Srivastava et al. 2014).

    One noise serves all rates: a larger rate drops a superset of what a smaller one drops.
    """

    rate: Scalar

    def __init__(self, rate: float, noise: NoiseStream) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("rate", torch.tensor(float(rate), dtype=torch.float64))

    def forward(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training:
            return inputs
        rate = self.rate.to(inputs.dtype)
        kept = (self.noise.uniform(inputs) >= rate).to(inputs.dtype)  # a product: under vmap cheaper than torch.where
        return inputs * (kept * (1.0 / (1.0 - rate)))


def replace_dropout(network: nn.Module, noise: NoiseStream) -> nn.Module:
    """Put a `Dropout` that draws from `noise` in place of every plain `nn.Dropout`, with that layer's own rate."""
    if isinstance(network, Dropout):
        return Dropout(float(network.rate), noise)
    if type(network) is nn.Dropout:
        return Dropout(network.p, noise)
    for name, child in network.named_children():
        setattr(network, name, replace_dropout(child, noise))
    return network


dropout = Regularizer(
    key="dropout",
    summary="rate of every dropout layer (Srivastava et al. 2014)",
    unit="share of activations dropped",
    neutral=0.0,
    domain=Interval(0.0, 1.0, high_open=True),
    usual=Range(0.0, 0.6),
    torch=lambda strength, _: f"torch.nn.Dropout(p={strength:.6g})",
    buffer="rate",
)
