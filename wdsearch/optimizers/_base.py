"""Definition of an optimizer as a record, and the base class of optimizers of K trials."""

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
"""Values of an optimizer's options by name; a parameter group contains them too."""
State = Mapping[str, Any]
"""State of an optimizer for one parameter, by torch's names."""
Rates = Float[Tensor, " steps"]


class StackedOptimizer(torch.optim.Optimizer):
    """Base class of optimizers of K trials, with a learning rate and a decay for each; trials can be dropped.

    `group["lr"]` is the schedule's common factor, which torch's own schedulers drive; the trials' learning rates are
    `rates`, shape (K,), float64. A group with a `decay` λ, shape (K,), has the decoupled decay `w ← w − η·λ·w`.
    """

    def __init__(self, groups: list[dict[str, Any]], rates: Float[Tensor, " K"], **options: Any) -> None:
        super().__init__(groups, {"lr": 1.0, "decay": None} | options)
        self.rates = rates

    @staticmethod
    def moments(options: Options) -> tuple[str, ...]:
        """Names of the state tensors that have the shape of the parameter."""
        raise NotImplementedError

    def _directions(
        self, group: dict[str, Any], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> list[Tensor]:
        """Steps at learning rate 1 and without decay."""
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
        """Learning rates of the trials at this step, broadcast along `like`."""
        return along_trials(self.rates * group["lr"], like)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every trial, from the parameters' `.grad`."""
        assert closure is None, "a population's gradients are taken before the step"
        for group in self.param_groups:
            # parameters on which the loss does not depend have no gradient, and are not changed
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
        """State tensors of one name of several parameters."""
        return [self.state[parameter][name] for parameter in parameters]


SHARE = Interval(0.0, 1.0, high_open=True)


@dataclass(frozen=True)
class Option:
    """An option of an optimizer: a number, two numbers or a switch, by the type of its default.

    >>> momentum = Option(0.9, "Share of the last step's velocity that stays.")
    >>> str(momentum), 0.5 in momentum, 1.0 in momentum
    ('a number in [0, 1)', True, False)
    """

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
    """An optimizer: torch's class for one trial, the stacked class for K trials, and its properties.

    - `own_decay`: arguments of torch's class that make `weight_decay` decoupled; None if it has no decoupled decay, which is
      then applied before its step
    - `step_size(state, rate, options)`: factor of a constant gradient in the long run, elementwise or one number, from the
      `state` of a parameter after a step: the scale of a proximal step
    - `momentum(options)`: β₁ or μ, the share of the last step's direction in the next
    - `coupled_rotation(rates, decay, momentum)`: angle per step in equilibrium under torch's coupled decay; None if no
      formula is known
    - `fault(options)`: an option that does not fit the others, and the reason
    - `words`: its decays and step size as written in torch

    >>> from wdsearch.optimizers import OPTIMIZERS
    >>> OPTIMIZERS["sgd"].call(0.1, {"nesterov": True})
    'torch.optim.SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0)'
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
        """All options, with defaults for those that are missing; raises ValueError for a value that is not allowed.

        >>> from wdsearch.optimizers import OPTIMIZERS
        >>> OPTIMIZERS["sgd"].complete({"momentum": 0.5})
        {'momentum': 0.5, 'nesterov': False}
        """
        for name, value in options.items():
            if value not in self.options[name]:
                raise ValueError(f"{name} of {self.key} is {value!r}; allowed is {self.options[name]}")
        values: dict[str, Any] = {name: option.default for name, option in self.options.items()}
        values |= {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        if fault := self.fault(values):
            raise ValueError(f"{fault[0]} of {self.key} {fault[1]}")
        return values

    def alone(self, groups: list[dict[str, Any]], lr: float, options: Options) -> torch.optim.Optimizer:
        """Optimizer of torch for one trial, from parameter groups with a decoupled `decay` each."""
        decay_key = DECAY if self.own_decay is None else "weight_decay"
        torch_groups = [{"params": group["params"], decay_key: group["decay"]} for group in groups]
        return self.torch_class(torch_groups, lr=lr, **options, **(self.own_decay or {}))

    def rotation(self, rates: Rates, decay: float, options: Options) -> Rates:
        """Angle per step in rotational equilibrium under decoupled decay, √(2ηλ)·√((1−β)/(1+β)) with the momentum β.

        Kosson et al. 2305.17212, table 1, with the momentum's share.
        """
        momentum = self.momentum(options)
        return (2.0 * rates * decay).sqrt() * math.sqrt((1.0 - momentum) / (1.0 + momentum))

    def call(self, lr: float, options: Options) -> str:
        """Call of torch's class, with the arguments that differ from torch's defaults, and no weight decay.

        >>> from wdsearch.optimizers import OPTIMIZERS
        >>> OPTIMIZERS["adamw"].call(1e-3, {"betas": (0.9, 0.95)})
        'torch.optim.AdamW(lr=0.001, betas=(0.9, 0.95), weight_decay=0.0)'
        """
        defaults = inspect.signature(self.torch_class).parameters
        changed = {name: value for name, value in self.complete(options).items() if value != defaults[name].default}
        arguments = [f"lr={lr:.6g}", *(f"{name}={value!r}" for name, value in changed.items()), *_no_decay(defaults)]
        return f"torch.optim.{self.words.name}({', '.join(arguments)})"

    def whole_call(self, parameters: str, lr: str, options: Options, decays: bool) -> str:
        """Call of torch's class with every option, for parameter groups whose `weight_decay` is decoupled.

        `parameters` and `lr` are Python expressions. An optimizer without decoupled decay is called by the name of one that
        has it and is else the same, if there is one and `decays`.

        >>> from wdsearch.optimizers import OPTIMIZERS
        >>> OPTIMIZERS["adam"].whole_call("groups", "LR", {}, decays=True)
        'torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)'
        """
        defaults = inspect.signature(self.torch_class).parameters
        decoupled = self.words.decoupled if decays else None
        call = (
            decoupled.format("0.0") if decoupled else f"torch.optim.{self.words.name}({''.join(_no_decay(defaults))})"
        )
        name, _, decay = call.removesuffix(")").partition("(")
        own = [f"{option}={value!r}" for option, value in self.complete(options).items()]
        return f"{name}({', '.join(filter(None, [parameters, f'lr={lr}', *own, decay]))})"


def _no_decay(arguments: Mapping[str, Any]) -> list[str]:
    """Argument that turns the decay of torch's class off, which may be on by default; none if it has no decay."""
    return ["weight_decay=0.0"] if "weight_decay" in arguments else []


DECAY = "decoupled_decay"
"""Key in a parameter group of torch's optimizer for the decoupled decay that it lacks."""


def decay_before_step(optimizer: torch.optim.Optimizer) -> None:
    """Apply the decoupled decay that torch's optimizer lacks to one trial, before its step.

    >>> weight = torch.ones(1, requires_grad=True)
    >>> optimizer = torch.optim.SGD([{"params": [weight], DECAY: 0.5}], lr=0.1)
    >>> weight.grad = torch.zeros(1)
    >>> with torch.no_grad():
    ...     decay_before_step(optimizer)
    >>> weight.item()  # 1 − 0.1·0.5
    0.949...
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get(DECAY) else ():
            if parameter.grad is not None:
                parameter.mul_(1.0 - group["lr"] * group[DECAY])
