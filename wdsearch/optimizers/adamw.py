"""AdamW: Adam with decoupled decay."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adamw import adamw as adamw_kernel

from wdsearch.optimizers._base import Optimizer, Option, Options, StackedOptimizer, State
from wdsearch.optimizers.stacks import flat, laid_out_like
from wdsearch.types import Interval, TorchWords

OPTIONS = {
    "betas": Option((0.9, 0.999), "Decay rates of the two moments."),
    "eps": Option(1e-8, "ε, added to the root of the second moment.", Interval(0.0, math.inf, True, True)),
}


class StackedAdamW(StackedOptimizer):
    """AdamW (Loshchilov & Hutter 1711.05101) per trial, by torch's own fused kernel.

    The kernel runs once for all trials, at rate 1 and without decay, on a direction of zeros, which becomes −m̂/(√v̂+ε)
    in one pass over memory; rates and decays of the trials are applied to it afterwards.
    """

    @staticmethod
    def moments(options: Options) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "direction")

    def _directions(
        self, group: dict[str, Any], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor]:
        return self.normalised(group["betas"], group["eps"], parameters, gradients)

    def normalised(
        self, betas: tuple[float, float], eps: float, parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor]:
        """−m̂/(√v̂+ε), with the moments after this step."""
        directions = self.state_of(parameters, "direction")
        torch._foreach_zero_(directions)
        laid_out = [laid_out_like(p, gradient) for p, gradient in zip(parameters, gradients, strict=True)]
        adamw_kernel(
            flat(directions),
            flat(laid_out),
            flat(self.state_of(parameters, "exp_avg")),
            flat(self.state_of(parameters, "exp_avg_sq")),
            [],
            self.state_of(parameters, "step"),
            fused=True,
            amsgrad=False,
            beta1=betas[0],
            beta2=betas[1],
            lr=1.0,
            weight_decay=0.0,
            eps=eps,
            maximize=False,
        )
        return directions


def step_size(state: State, rate: float | Float[Tensor, "..."], options: Options) -> Float[Tensor, "*shape"]:
    """η/(√v̂+ε), Adam's factor of a constant gradient, elementwise (ProxGEN, Yun et al. 2021, eq. 4).

    >>> state = {"step": 1, "exp_avg_sq": torch.tensor([0.004])}
    >>> step_size(state, 0.1, {"betas": (0.9, 0.999), "eps": 1e-8})  # v̂ = 4
    tensor([0.0500])
    """
    correction = 1.0 - options["betas"][1] ** float(state["step"])
    return rate / ((state["exp_avg_sq"] / correction).sqrt_().add_(options["eps"]))


def momentum(options: Options) -> float:
    """β₁, the share of the first moment that stays.

    >>> momentum({"betas": (0.9, 0.999)})
    0.9
    """
    return float(options["betas"][0])


STEP_SIZE = """\
correction = 1.0 - group["betas"][1] ** float(state["step"])
return group["lr"] / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])"""
"""Function `step_size` as Python text."""


adamw = Optimizer(
    key="adamw",
    summary="Adam with decoupled decay (Loshchilov & Hutter 1711.05101)",
    torch_class=torch.optim.AdamW,
    stacked=StackedAdamW,
    options=OPTIONS,
    own_decay={},
    step_size=step_size,
    momentum=momentum,
    words=TorchWords(
        name="AdamW",
        decoupled="torch.optim.AdamW(weight_decay={})",
        coupled="torch.optim.Adam(weight_decay={})",
        step_size="lr/(sqrt(v_hat)+eps)",
        step_size_code=STEP_SIZE,
    ),
)
