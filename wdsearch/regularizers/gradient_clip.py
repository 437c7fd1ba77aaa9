"""Clipping of the gradient's norm, per trial."""

import math

import torch

from wdsearch.regularizers._base import Regularizer, squared_norm
from wdsearch.types import Interval, Params, Range, Scalar


def _clip(gradients: Params, strength: Scalar) -> Params:
    """g·min(1, c/(‖g‖ + 1e-6)) over all parameters of the trial, as `torch.nn.utils.clip_grad_norm_`."""
    norm = torch.stack([squared_norm(gradient) for gradient in gradients.values()]).sum().sqrt()
    factor = (strength / (norm + 1e-6)).clamp(max=1.0)
    return {name: gradient * factor for name, gradient in gradients.items()}


gradient_clip = Regularizer(
    key="gradient_clip",
    summary="largest norm of a trial's whole gradient (Pascanu et al. 1211.5063)",
    unit="gradient norm; ∞ is off",
    neutral=math.inf,
    domain=Interval(0.0, math.inf, low_open=True),
    usual=Range(0.1, 10.0, log=True),
    torch=lambda strength, _: f"torch.nn.utils.clip_grad_norm_(parameters, {strength:.6g})",
    gradients=_clip,
    code="nn.utils.clip_grad_norm_(network.parameters(), {strength})",
)
