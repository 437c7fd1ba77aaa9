"""The penalty `λ‖W‖₁` as a proximal step, which reaches exact zeros where subgradients oscillate (2412.20115)."""

import math

from jaxtyping import Inexact
from torch import Tensor

from wdsearch.regularizers._base import Recommendation, Regularizer
from wdsearch.types import Interval, Range, Scalar


def _soft_threshold(
    weight: Inexact[Tensor, "*shape"], step_size: Inexact[Tensor, "..."], strength: Scalar
) -> Inexact[Tensor, "*shape"]:
    """sign(w)·max(|w| − t, 0) with t = λ·step size, the optimizer's: ηλ/(√v̂+ε) for Adam (ProxGEN, Yun et al. 2021).

    Of a complex weight |w| is the modulus. Written as w − clip(w, −t, t), which is exact at t = 0.
    """
    threshold = strength * step_size
    if weight.is_complex():  # the modulus shrinks; Adam has a step size for each part
        return weight * (1.0 - threshold.abs() / weight.abs().clamp(min=1e-30)).clamp(min=0.0)
    return weight - weight.clamp(-threshold, threshold)


def _torch(strength: float, setting: Recommendation) -> str:
    step = f"after each step w -= w.clamp(-t, t) with t = {strength:.6g} * {setting.optimizer.step_size}"
    return f"no torch equivalent: {step}, for {setting.weights}"


l1 = Regularizer(
    key="l1",
    summary=(
        "penalty λ‖W‖₁ as a proximal step, with exact zeros; with l2 the elastic net. For a loss of mean squared errors "
        "scikit-learn's Lasso(alpha) is λ/2, and ElasticNet(alpha, l1_ratio) has alpha·l1_ratio = λ₁/2 and "
        "alpha·(1 − l1_ratio) = λ₂"
    ),
    unit="λ, nats (or squared target units) per absolute weight",
    neutral=0.0,
    domain=Interval(0.0, math.inf, high_open=True),
    usual=Range(1e-7, 1e-3, log=True),
    torch=_torch,
    prox=_soft_threshold,
    code="{x} - {x}.clamp(-{strength}, {strength})",
)
