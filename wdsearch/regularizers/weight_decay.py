"""Decoupled weight decay: `w ← w − η·λ·w` beside the gradient step."""

import math

from wdsearch.regularizers._base import Recommendation, Regularizer
from wdsearch.types import Interval, Range


def _torch(strength: float, setting: Recommendation) -> str:
    words = setting.optimizer
    if words.decoupled is None:
        return (
            f"no torch equivalent: torch's {words.name} couples its weight_decay; call p.mul_(1 - lr * {strength:.6g}) "
            f"on {setting.weights} before each step"
        )
    call, others = words.decoupled.format(f"{strength:.6g}"), "" if setting.group else ", 0 on the others"
    text = f"{call} on {setting.weights}{others}"
    return text if words.is_own(call) else f"{text}; not {words.name}'s weight_decay, which is coupled"


weight_decay = Regularizer(
    key="weight_decay",
    summary="decoupled decay w ← w − η·λ·w, η the scheduled rate (Loshchilov & Hutter 1711.05101)",
    unit="λ, 1 per unit of learning rate and step",
    neutral=0.0,
    domain=Interval(0.0, math.inf, high_open=True),
    usual=Range(1e-3, 10.0, log=True),
    torch=_torch,
    decay=lambda strength: strength,
    code="{strength}",
)
