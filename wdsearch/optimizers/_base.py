"""An optimizer as a record of what the rest asks of it, and the optimizer of K trials that all of them share."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wdsearch.optimizers.stacks import along_trials, empty_stack, stack_rows
from wdsearch.types import Interval, TorchWords

Options = Mapping[str, Any]
"""Values of an optimizer's options by name; a group of an optimizer's parameters holds them too."""
State = Mapping[str, Any]
"""What an optimizer keeps of one parameter, by torch's names."""
Rates = Float[Tensor, " steps"]


class StackedOptimizer(torch.optim.Optimizer):
    """What optimizers of K trials share: K rates, K decays, and trials that leave.

    `group["lr"]` is the schedule's common factor, which torch's own schedulers drive; the trials' learning rates are
    `rates`, shape (K,), float64. A group with a `decay`, (K,), gets the decoupled decay `w ← w − η·λ·w`, λ being that.
    """

    def __init__(self, groups: list[dict[str, Any]], rates: Float[Tensor, " K"], **options: Any) -> None:
        super().__init__(groups, {"lr": 1.0, "decay": None} | options)
        self.rates = rates

    @staticmethod
    def moments(options: Options) -> tuple[str, ...]:
        """Names of what is kept of a parameter in its own shape."""
        raise NotImplementedError

    def _directions(
        self, group: dict[str, Any], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor]:
        """The steps at rate 1 and without decay."""
        raise NotImplementedError

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

    def rate(self, group: dict[str, Any], like: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
        """The trials' learning rates of this step, broadcast along `like`."""
        return along_trials(self.rates * group["lr"], like)

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
            self._start(group, parameters, gradients)
            directions = self._directions(group, parameters, gradients)
            if group["decay"] is not None:
                shrink = 1.0 - self.rates * group["lr"] * group["decay"]
                torch._foreach_mul_(parameters, [along_trials(shrink, p) for p in parameters])
            # two roundings: addcmul rounds once or twice, by where an element lies in memory
            torch._foreach_mul_(directions, [self.rate(group, p) for p in parameters])
            torch._foreach_add_(parameters, directions)

    def _start(self, options: Options, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Zeroed moments at the first step, parameters and moments in the memory layout of the gradients.

        The gradient of a vmapped linear layer is transposed: sharing its layout spares a copy at every step.
        """
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if not self.state[parameter]:
                parameter.data = empty_stack(len(parameter), gradient[0]).copy_(parameter.data)
                self.state[parameter] = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
                empty = {name: empty_stack(len(parameter), parameter[0]) for name in self.moments(options)}
                self.state[parameter] |= {name: value.zero_() for name, value in empty.items()}

    def state_of(self, parameters: Sequence[Tensor], name: str) -> list[Tensor]:
        """One entry of the state of several parameters."""
        return [self.state[parameter][name] for parameter in parameters]


SHARE = Interval(0.0, 1.0, high_open=True)


@dataclass(frozen=True)
class Option:
    """An option of an optimizer. Its default tells its type: a number, two numbers, or a switch."""

    default: float | bool | tuple[float, float]
    about: str
    domain: Interval = SHARE

    def __contains__(self, value: object) -> bool:
        if isinstance(self.default, bool) or isinstance(value, bool):
            return isinstance(value, type(self.default))
        if isinstance(self.default, tuple):
            pair = isinstance(value, tuple | list) and len(value) == 2
            return pair and all(one in self.domain for one in value)  # type: ignore[attr-defined]
        return value in self.domain

    def __str__(self) -> str:
        if isinstance(self.default, bool):
            return "true or false"
        return f"{'two numbers' if isinstance(self.default, tuple) else 'a number'} in {self.domain}"


@dataclass(frozen=True)
class Optimizer:
    """An optimizer for one trial, which is torch's own, and for K, which is stacked; and all that others ask about it.

    - `own_decay`: what torch's own takes beside `weight_decay` so that this is decoupled; None if it has no such decay:
      then we decay, before its step
    - `step_size(state, rate, options)`: what a constant gradient is multiplied by in the long run, elementwise or as one
      number, after a step of which torch's own or the stacked one keeps `state` of a parameter: the scale of a proximal step
    - `momentum(options)`: β₁ or μ, the share of the last step's direction in the next
    - `coupled_rotation(rates, decay, momentum)`: angle a step in equilibrium under torch's coupled decay; None if no
      formula is known
    - `fault(options)`: the option that does not fit the others, and why
    - `words`: how torch writes its decays and step size
    """

    key: str
    summary: str
    torch_class: Callable[..., torch.optim.Optimizer]
    stacked: type[StackedOptimizer]
    options: Mapping[str, Option]
    own_decay: Mapping[str, bool] | None
    step_size: Callable[[State, Any, Options], Any]
    momentum: Callable[[Options], float]
    words: TorchWords
    coupled_rotation: Callable[[Rates, float, float], Rates] | None = None
    fault: Callable[[Options], tuple[str, str] | None] = lambda options: None

    def complete(self, options: Options) -> dict[str, Any]:
        """All options, by default where they are not given; raises ValueError for a value that is not allowed."""
        for name, value in options.items():
            if value not in self.options[name]:
                raise ValueError(f"{name} of {self.key} is {value!r}; allowed is {self.options[name]}")
        values: dict[str, Any] = {name: option.default for name, option in self.options.items()}
        values |= {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        if fault := self.fault(values):
            raise ValueError(f"{fault[0]} of {self.key} {fault[1]}")
        return values

    def alone(self, groups: list[dict[str, Any]], lr: float, options: Options) -> torch.optim.Optimizer:
        """torch's own for one trial; each group of parameters has its decoupled `decay`."""
        word = DECAY if self.own_decay is None else "weight_decay"
        own = [{"params": group["params"], word: group["decay"]} for group in groups]
        return self.torch_class(own, lr=lr, **options, **(self.own_decay or {}))

    def rotation(self, rates: Rates, decay: float, options: Options) -> Rates:
        """Angle a step in rotational equilibrium under decoupled decay, √(2ηλ)·√((1−β)/(1+β)) with the momentum β.

        Kosson et al. 2305.17212, table 1, with the momentum's share.
        """
        momentum = self.momentum(options)
        return (2.0 * rates * decay).sqrt() * math.sqrt((1.0 - momentum) / (1.0 + momentum))

    def call(self, lr: float, options: Options) -> str:
        """What to write for torch's own: its arguments as far as torch's defaults are others."""
        defaults = inspect.signature(self.torch_class).parameters
        others = {name: value for name, value in self.complete(options).items() if value != defaults[name].default}
        arguments = [f"lr={lr:.6g}", *(f"{name}={value!r}" for name, value in others.items())]
        return f"torch.optim.{self.words.name}({', '.join(arguments)})"


DECAY = "decoupled_decay"
"""The key of a group of torch's own whose decoupled decay is ours."""


def decay_before_step(optimizer: torch.optim.Optimizer) -> None:
    """The decoupled decay of a trial alone whose optimizer has none of its own."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get(DECAY) else ():
            if parameter.grad is not None:
                parameter.mul_(1.0 - group["lr"] * group[DECAY])
