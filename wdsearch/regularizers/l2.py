"""The coupled penalty `L + λ‖W‖²`, through the gradient, as textbooks write it."""

import math

import torch

from wdsearch.regularizers._base import Recommendation, Regularizer, squared_norm
from wdsearch.types import Interval, Params, Range, Scalar


def _penalty(weights: Params, strength: Scalar) -> Scalar:
    return strength * torch.stack([squared_norm(weight) for weight in weights.values()]).sum()


def _torch(strength: float, setting: Recommendation) -> str:
    words = setting.optimizer
    if setting.decays:
        text = f"add {strength:.6g} * the sum of squares of {setting.weights} to the loss"
        return f"{text}; not by a second optimizer, and not by {words.name}'s weight_decay, which is the decoupled one here"
    call = words.coupled.format(f"{2 * strength:.6g}")
    text = f"{call} on {setting.weights}: 2λ, torch's gradient being λw"
    if not words.is_own(call):
        text += f"; not {words.name}'s weight_decay, which is decoupled"
    if setting.clipped:
        text += "; not equivalent here: torch adds it after gradients were clipped, so add λ‖W‖² to the loss instead"
    return text


l2 = Regularizer(
    key="l2",
    summary=(
        "coupled penalty L + λ‖W‖². In other words: torch's weight_decay is 2λ; for a loss of mean squared errors "
        "over n rows scikit-learn's Ridge(alpha) is nλ"
    ),
    unit="λ, nats (or squared target units) per squared weight",
    neutral=0.0,
    domain=Interval(0.0, math.inf, high_open=True),
    usual=Range(1e-6, 1e-2, log=True),
    torch=_torch,
    penalty=_penalty,
    code="{strength} * {x}.abs().square().sum()",
)
