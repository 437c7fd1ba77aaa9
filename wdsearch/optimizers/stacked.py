"""AdamW and SGD for a population: parameters with the trial axis in front, learning rate and decay (K,)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.optim.adamw import adamw


class PopulationOptimizer(torch.optim.Optimizer):
    """What both optimizers share: K rates, K decays, and trials that leave.

    `group["lr"]` is the schedule's common factor, which torch's own schedulers drive; the trials' learning rates are
    `rates`, shape (K,), float64. A group with a `decay`, (K,), gets the decoupled decay `w ← w − η·λ·w`, λ being that.
    """

    def __init__(self, groups: list[dict[str, Any]], rates: Float[Tensor, " K"], **defaults: Any) -> None:
        super().__init__(groups, {"lr": 1.0, "decay": None} | defaults)
        self.rates = rates

    def keep(self, rows: Int[Tensor, " rows"]) -> None:
        """Drop all trials but these rows, from parameters and state."""
        self.rates = self.rates[rows]
        for group in self.param_groups:
            group["decay"] = None if group["decay"] is None else group["decay"][rows]
            for parameter in group["params"]:
                stays = rows.to(parameter.device)
                parameter.data, parameter.grad = stack_rows(parameter.data, stays), None
                state = self.state[parameter]
                self.state[parameter] = {
                    name: stack_rows(value, stays) if name != "step" else value for name, value in state.items()
                }

    def step_size(self, group: dict[str, Any], parameter: Float[Tensor, "K *shape"]) -> Float[Tensor, "K ..."]:
        """What a constant gradient is multiplied by, per trial: the scale of a proximal step; broadcasts to `parameter`."""
        raise NotImplementedError

    def _rate(self, group: dict[str, Any], like: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
        """The trials' learning rates of this step, broadcast along `like`."""
        return _along_trials(self.rates * group["lr"], like)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every trial, from the parameters' `.grad`."""
        assert closure is None, "a population's gradients are taken before the step"
        for group in self.param_groups:
            # what the loss does not depend on has no gradient, and stays as it is
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            directions = self._directions(group, parameters, gradients)
            if group["decay"] is not None:
                shrink = 1.0 - self.rates * group["lr"] * group["decay"]
                torch._foreach_mul_(parameters, [_along_trials(shrink, p) for p in parameters])
            # two roundings: addcmul rounds once or twice, by where an element lies in memory
            torch._foreach_mul_(directions, [self._rate(group, p) for p in parameters])
            torch._foreach_add_(parameters, directions)

    def _directions(
        self, group: dict[str, Any], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor]:
        raise NotImplementedError

    def _state(self, parameters: Sequence[Tensor], name: str) -> list[Tensor]:
        return [self.state[parameter][name] for parameter in parameters]

    def _start(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], *names: str) -> None:
        """Zeroed state of these names at the first step, parameters and state in the memory layout of the gradients.

        The gradient of a vmapped linear layer is transposed: sharing its layout spares a copy at every step.
        """
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if not self.state[parameter]:
                parameter.data = empty_stack(len(parameter), gradient[0]).copy_(parameter.data)
                self.state[parameter] = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
                empty = {name: empty_stack(len(parameter), parameter[0]) for name in names}
                self.state[parameter] |= {name: value.zero_() for name, value in empty.items()}


class PopulationAdamW(PopulationOptimizer):
    """AdamW (Loshchilov & Hutter 1711.05101) per trial, by torch's own fused kernel.

    The kernel runs once for all trials, at rate 1 and without decay, on a direction of zeros, which becomes −m̂/(√v̂+ε)
    in one pass over memory; rates and decays of the trials are applied to it afterwards.
    """

    def __init__(
        self, groups: list[dict[str, Any]], rates: Float[Tensor, " K"], betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(groups, rates, betas=betas, eps=eps)

    def _directions(
        self, group: dict[str, Any], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor]:
        self._start(parameters, gradients, "exp_avg", "exp_avg_sq", "direction")
        directions = self._state(parameters, "direction")
        torch._foreach_zero_(directions)
        beta1, beta2 = group["betas"]
        laid_out = [_laid_out_like(p, gradient) for p, gradient in zip(parameters, gradients, strict=True)]
        adamw(
            _flat(directions),
            _flat(laid_out),
            _flat(self._state(parameters, "exp_avg")),
            _flat(self._state(parameters, "exp_avg_sq")),
            [],
            self._state(parameters, "step"),
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=1.0,
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )
        return directions

    def step_size(self, group: dict[str, Any], parameter: Float[Tensor, "K *shape"]) -> Float[Tensor, "K ..."]:
        state, rate = self.state[parameter], self._rate(group, parameter)
        return adam_step_size(state["exp_avg_sq"], float(state["step"]), rate, group["betas"][1], group["eps"])


class PopulationSGD(PopulationOptimizer):
    """SGD with momentum and Nesterov's form as torch defines them, with decoupled decay (SGDW, 1711.05101, algorithm 1)."""

    def __init__(
        self, groups: list[dict[str, Any]], rates: Float[Tensor, " K"], momentum: float, nesterov: bool
    ) -> None:
        super().__init__(groups, rates, momentum=momentum, nesterov=nesterov)

    def _directions(
        self, group: dict[str, Any], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor]:
        self._start(parameters, gradients, "momentum_buffer")
        velocities = self._state(parameters, "momentum_buffer")
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, list(gradients))
        if group["nesterov"]:
            return list(torch._foreach_neg(torch._foreach_add(list(gradients), velocities, alpha=group["momentum"])))
        return list(torch._foreach_neg(velocities))

    def step_size(self, group: dict[str, Any], parameter: Float[Tensor, "K *shape"]) -> Float[Tensor, "K ..."]:
        return torch.as_tensor(sgd_step_size(self._rate(group, parameter), group["momentum"]))


OPTIMIZERS: dict[str, type[PopulationAdamW] | type[PopulationSGD]] = {"adamw": PopulationAdamW, "sgd": PopulationSGD}


LANES = 16
"""Entries of a vector register: the last ones of a tensor that do not fill one are rounded by other instructions."""


def empty_stack(count: int, row: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "{count} *shape"]:
    """Uninitialised (count, ...) rows of `row`'s shape, type and memory layout; zeros fill its last vector register."""
    entries = count * row.numel()
    memory = torch.empty(_whole(entries), dtype=row.dtype, device=row.device)
    memory[entries:].zero_()
    return memory.as_strided((count, *row.shape), (row.numel(), *torch.empty_like(row).stride()))


def _laid_out_like(
    parameter: Float[Tensor, "K *shape"], gradient: Float[Tensor, "K *shape"]
) -> Float[Tensor, "K *shape"]:
    """The gradient in the parameter's memory layout, its last vector register full."""
    same = gradient.stride() == parameter.stride() and gradient.numel() == _whole(gradient.numel())
    return gradient if same else empty_stack(len(parameter), parameter[0]).copy_(gradient)


def _flat(values: Sequence[Tensor]) -> list[Tensor]:
    """Stacks in the order of memory, by which the fused kernel goes whatever the strides, up to whole registers."""
    return [value.as_strided((_whole(value.numel()),), (1,)) for value in values]


def _whole(entries: int) -> int:
    """Entries of as many whole vector registers as hold these."""
    return -(-entries // LANES) * LANES


def stack_rows(value: Shaped[Tensor, "K *shape"], rows: Int[Tensor, " rows"]) -> Shaped[Tensor, "rows *shape"]:
    """Some rows of a stack, in its memory layout."""
    return empty_stack(len(rows), value[0]).copy_(value[rows])


def _along_trials(values: Float[Tensor, " K"], like: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
    """(K,) values shaped to broadcast along the trial axis of `like`, in its type and on its device."""
    return values.to(like).view(-1, *(1,) * (like.ndim - 1))


def adam_step_size(
    exp_avg_sq: Float[Tensor, "*shape"], step: float, lr: float | Float[Tensor, "..."], beta2: float, eps: float
) -> Float[Tensor, "*shape"]:
    """η/(√v̂+ε): what Adam multiplies a constant gradient by, elementwise (ProxGEN, Yun et al. 2021, eq. 4)."""
    return lr / ((exp_avg_sq / (1.0 - beta2**step)).sqrt_().add_(eps))


def sgd_step_size(lr: float | Float[Tensor, "..."], momentum: float) -> float | Float[Tensor, "..."]:
    """η/(1−μ): what SGD, with Nesterov's momentum too, multiplies a constant gradient by in the long run."""
    return lr / (1.0 - momentum)


def torch_step_size(
    optimizer: torch.optim.Optimizer, group: dict, parameter: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"] | float:
    """The step size of one parameter after a step of torch's own AdamW or SGD."""
    if isinstance(optimizer, torch.optim.SGD):
        return sgd_step_size(group["lr"], group["momentum"])
    state = optimizer.state[parameter]
    return adam_step_size(state["exp_avg_sq"], float(state["step"]), group["lr"], group["betas"][1], group["eps"])
