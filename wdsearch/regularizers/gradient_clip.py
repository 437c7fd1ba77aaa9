"""Clipping of the gradient's norm, per trial."""

import math

import torch
from torch import Tensor

from wdsearch.regularizers._base import Regularizer
from wdsearch.types import Interval, Params, Range, Scalar


def _clip(gradients: Params, strength: Scalar) -> Params:
    """g·min(1, c/(‖g‖ + 1e-6)) over all parameters of the trial, as `torch.nn.utils.clip_grad_norm_`."""
    norm = torch.stack([_squares(gradient) for gradient in gradients.values()]).sum().sqrt()
    factor = (strength / (norm + 1e-6)).clamp(max=1.0)
    return {name: gradient * factor for name, gradient in gradients.items()}


def _squares(gradient: Tensor) -> Scalar:
    """‖g‖², of a complex gradient by its modulus."""
    return (torch.view_as_real(gradient) if gradient.is_complex() else gradient).square().sum()


gradient_clip = Regularizer(
    key="gradient_clip",
    summary="largest norm of a trial's whole gradient (Pascanu et al. 1211.5063)",
    unit="gradient norm; ∞ is off",
    neutral=math.inf,
    domain=Interval(0.0, math.inf, low_open=True),
    usual=Range(0.1, 10.0, log=True),
    torch=lambda strength, _: f"torch.nn.utils.clip_grad_norm_(parameters, {strength:.6g})",
    gradients=_clip,
)
