"""Gaussian noise on the inputs: for a linear model the same as l2 (Bishop 1995)."""

import math

from jaxtyping import Float
from torch import Tensor

from wdsearch.noise import NoiseStream
from wdsearch.regularizers._base import Regularizer
from wdsearch.types import Interval, Range, Scalar


def _augment(inputs: Float[Tensor, "*shape"], strength: Scalar, noise: NoiseStream) -> Float[Tensor, "*shape"]:
    return inputs + strength * noise.normal(inputs)


input_noise = Regularizer(
    key="input_noise",
    summary="Gaussian noise added to the inputs in training (Bishop 1995)",
    unit="standard deviation, in units of the inputs",
    neutral=0.0,
    domain=Interval(0.0, math.inf, high_open=True),
    usual=Range(0.0, 1.0),
    torch=lambda strength, _: f"inputs + {strength:.6g} * torch.randn_like(inputs) in training",
    augment=_augment,
    code="{x} + {strength} * torch.randn_like({x})",
)
