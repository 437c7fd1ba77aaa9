"""SGD with momentum, and with the decoupled decay that torch's SGD lacks."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wdsearch.optimizers._base import Optimizer, Option, Options, Rates, StackedOptimizer, State
from wdsearch.types import TorchWords


class StackedSGD(StackedOptimizer):
    """SGD with momentum and Nesterov's form as torch defines them, with decoupled decay (SGDW, 1711.05101, algorithm 1)."""

    @staticmethod
    def moments(options: Options) -> tuple[str, ...]:
        return ("momentum_buffer",) if options["momentum"] else ()

    def _directions(
        self, group: dict[str, Any], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor]:
        if not group["momentum"]:
            return list(torch._foreach_neg(list(gradients)))
        velocities = self.state_of(parameters, "momentum_buffer")
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, list(gradients))
        if group["nesterov"]:
            return list(torch._foreach_neg(torch._foreach_add(list(gradients), velocities, alpha=group["momentum"])))
        return list(torch._foreach_neg(velocities))


def _step_size(state: State, rate: float | Float[Tensor, "..."], options: Options) -> float | Float[Tensor, "..."]:
    """η/(1−μ), SGD's factor of a constant gradient in the long run, with Nesterov's momentum too."""
    return rate / (1.0 - options["momentum"])


def _coupled_rotation(rates: Rates, decay: float, momentum: float) -> Rates:
    """√(2ηλ/(1+μ)) (Kosson et al. 2305.17212, table 1, with the momentum's share)."""
    return (2.0 * rates * decay / (1.0 + momentum)).sqrt()


def _fault(options: Options) -> tuple[str, str] | None:
    return (
        ("nesterov", "is true; it needs a momentum above 0")
        if options["nesterov"] and not options["momentum"]
        else None
    )


sgd = Optimizer(
    key="sgd",
    summary="SGD with momentum (Sutskever et al. 2013), its decay decoupled (SGDW, Loshchilov & Hutter 1711.05101)",
    torch_class=torch.optim.SGD,
    stacked=StackedSGD,
    options={
        "momentum": Option(0.9, "Share of the last step's velocity that stays."),
        "nesterov": Option(False, "Nesterov's form of momentum."),
    },
    own_decay=None,
    step_size=_step_size,
    momentum=lambda options: float(options["momentum"]),
    words=TorchWords(
        name="SGD",
        decoupled=None,
        coupled="torch.optim.SGD(weight_decay={})",
        step_size="lr/(1-momentum)",
        step_size_code='return group["lr"] / (1.0 - group["momentum"])',
    ),
    coupled_rotation=_coupled_rotation,
    fault=_fault,
)
