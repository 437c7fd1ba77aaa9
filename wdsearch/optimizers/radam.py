"""RAdam: Adam with a learning rate that warms up while the variance of its second moment is large."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wdsearch.optimizers._base import Optimizer, Options, State
from wdsearch.optimizers.adamw import OPTIONS, StackedAdamW, momentum
from wdsearch.types import TorchWords


def rectification(step: float, beta2: float) -> float:
    """r of Liu et al. 1908.03265, algorithm 2; 0 in the first steps, which are not divided by √v̂ (torch: while ρ ≤ 5).

    >>> [round(rectification(step, beta2=0.999), 3) for step in (5, 6, 1000)]
    [0.0, 0.026, 0.645]
    """
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * step * beta2**step / (1.0 - beta2**step)
    if length <= 5.0:
        return 0.0
    return math.sqrt((length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length))


class StackedRAdam(StackedAdamW):
    """RAdam per trial, by AdamW's kernel: −r·m̂·√(1−β₂ᵗ)/(√v+ε) is r times Adam's direction for ε/√(1−β₂ᵗ)."""

    def _directions(
        self, group: dict[str, Any], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor]:
        steps = (torch.stack(self.state_of(parameters, "step")) + 1.0).tolist()
        pairs = list(zip(steps, parameters, gradients, strict=True))
        for step in set(steps):  # one, unless the loss depends on some parameters in some steps only
            alike = [(parameter, gradient) for age, parameter, gradient in pairs if age == step]
            self._rectify(group, step, *map(list, zip(*alike, strict=True)))
        return self.state_of(parameters, "direction")

    def _rectify(self, group: dict[str, Any], step: float, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Write the directions of parameters that have all done `step` steps."""
        (beta1, beta2), eps = group["betas"], group["eps"]
        directions = self.normalised(group["betas"], eps / math.sqrt(1.0 - beta2**step), parameters, gradients)
        if factor := rectification(step, beta2):
            torch._foreach_mul_(directions, factor)
        else:
            means = self.state_of(parameters, "exp_avg")
            torch._foreach_copy_(directions, torch._foreach_mul(means, -1.0 / (1.0 - beta1**step)))


def _step_size(state: State, rate: float | Float[Tensor, "..."], options: Options) -> float | Float[Tensor, "..."]:
    """η·r·√(1−β₂ᵗ)/(√v+ε), elementwise; η in the first steps."""
    step, beta2 = float(state["step"]), options["betas"][1]
    factor = rectification(step, beta2) * math.sqrt(1.0 - beta2**step)
    return rate * factor / (state["exp_avg_sq"].sqrt().add_(options["eps"])) if factor else rate


STEP_SIZE = """\
t, beta2 = float(state["step"]), group["betas"][1]
longest = 2.0 / (1.0 - beta2) - 1.0
length = longest - 2.0 * t * beta2**t / (1.0 - beta2**t)
if length <= 5.0:
    return group["lr"]
r = math.sqrt((length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length))
return group["lr"] * r * math.sqrt(1.0 - beta2**t) / (state["exp_avg_sq"].sqrt() + group["eps"])"""

radam = Optimizer(
    key="radam",
    summary="Adam with a rectified rate, which warms up by itself (Liu et al. 1908.03265); its decay decoupled",
    torch_class=torch.optim.RAdam,
    stacked=StackedRAdam,
    options=OPTIONS,
    own_decay={"decoupled_weight_decay": True},
    step_size=_step_size,
    momentum=momentum,
    words=TorchWords(
        name="RAdam",
        decoupled="torch.optim.RAdam(weight_decay={}, decoupled_weight_decay=True)",
        coupled="torch.optim.RAdam(weight_decay={})",
        step_size="r*lr*sqrt(1-beta2**t)/(sqrt(v)+eps), r the rectification (lr alone in the first steps)",
        step_size_code=STEP_SIZE,
    ),
)
