"""Recipe of a trial's optimization: optimizer, schedule, and the rule for the parameters that decay."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from wdsearch.groups import Patterns
from wdsearch.messages import nearest
from wdsearch.optimizers import DEFAULT, OPTIMIZERS
from wdsearch.trial.weights import declared, exemption, mark_of


@dataclass(frozen=True, init=False)
class Recipe:
    """The optimizer and its schedule, in torch's words: `Recipe("sgd", momentum=0.95, schedule="cosine")`.

    The optimizer's `options` are passed by name, and read as `recipe.momentum`; those of other optimizers are ignored, so that
    one call may serve several. `warmup` is the share of all steps in which the learning rate rises linearly. `decay` is the
    rule for the parameters that decay: `weights` (no biases, norm scales or embeddings) or `all`; regular expressions on names
    add parameters (`include`) or remove them (`exclude`). `groups` divides the parameters of a regularizer:
    {"weight_decay": {"head": r"head\\."}} makes `weight_decay:head` the key of a strength.

    Raises ValueError for an optimizer that is not in the table, or a value that an option does not allow.

    >>> recipe = Recipe("sgd", momentum=0.95, schedule="cosine")
    >>> recipe.momentum, recipe.nesterov, [round(factor, 2) for factor in recipe.factors(4)]
    (0.95, False, [1.0, 0.85, 0.5, 0.15])
    """

    optimizer: str
    schedule: str
    warmup: float
    decay: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    groups: Mapping[str, Patterns]
    options: Mapping[str, Any]

    def __init__(
        self,
        optimizer: str = DEFAULT,
        schedule: str = "constant",
        warmup: float = 0.0,
        *,
        decay: str = "weights",
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        groups: Mapping[str, Patterns] | None = None,
        **options: Any,
    ) -> None:
        self.__dict__.update(optimizer=optimizer, schedule=schedule, warmup=warmup)
        self.__dict__.update(decay=decay, include=include, exclude=exclude, groups=groups or {})
        self.__dict__.update(options=_options(optimizer, options))

    def __getattr__(self, name: str) -> Any:
        """Value of an option of the optimizer."""
        options = self.__dict__.get("options", {})
        if name not in options:
            raise AttributeError(f"a recipe has no {name!r}")
        return options[name]

    def factor(self, step: int, steps: int) -> float:
        """Factor of the learning rate at `step` of `steps`: linear warm-up, then constant or cosine to 0.

        Cosine without restarts as in Loshchilov & Hutter, 1608.03983, eq. 5 with η_min = 0.

        >>> [Recipe(schedule="cosine", warmup=0.25).factor(step, steps=8) for step in (0, 1, 2, 5)]
        [0.333..., 0.666..., 1.0, 0.5]
        """
        rising = round(self.warmup * steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

    def factors(self, steps: int) -> list[float]:
        """Factors of the learning rate of all steps; their sum converts a timescale into a decay."""
        return [self.factor(step, steps) for step in range(steps)]


def _options(optimizer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an optimizer; raises ValueError for an unknown optimizer or a value, TypeError for an unknown option."""
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"there is no optimizer {optimizer!r}{nearest(optimizer, OPTIMIZERS)}")
    known = {name for record in OPTIMIZERS.values() for name in record.options}
    for name in options.keys() - known:
        raise TypeError(f"a recipe takes no {name!r}{nearest(name, known)}")
    record = OPTIMIZERS[optimizer]
    return record.complete({name: value for name, value in options.items() if name in record.options})


def reasons(network: nn.Module, recipe: Recipe) -> dict[str, str | None]:
    """Reason for which each parameter does not decay, None if it does, by name in the network's order; no stacked network.

    By the rule `weights` those parameters decay that are weights (`wdsearch.trial.weights`) and that no mark of their author
    exempts; He et al. 1812.01187 decay weights only, Kadra et al. 2021 decayed `all`. A tied weight goes by its first name,
    and decays if it is a weight in one of its modules. Raises BuildError if the network's `no_weight_decay()` fails.

    >>> reasons(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2, bias=False)), Recipe())
    {'0.weight': None, '0.bias': 'bias', '1.weight': 'of a norm layer'}
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    marks = declared(network) if recipe.decay != "all" else {}
    layers = dict(network.named_modules(remove_duplicate=False))
    by_name: dict[str, str | None] = {}
    for path, module in layers.items():
        for own, parameter in module.named_parameters(recurse=False):
            name = names[parameter]
            if by_name.get(name, "") is None:
                continue
            reason = _said(name, parameter, recipe)
            if reason is None:
                reason = mark_of(parameter) or marks.get(name) or exemption(layers, path, own, parameter)
            by_name[name] = reason or None
    return {name: by_name[name] for name in names.values()}


def _said(name: str, parameter: nn.Parameter, recipe: Recipe) -> str | None:
    """Reason that a recipe gives for a parameter; empty if it is to decay, None if the recipe leaves it to the rule."""
    if not parameter.requires_grad:
        return "frozen"
    if excluding := next((pattern for pattern in recipe.exclude if re.search(pattern, name)), None):
        return f"excluded by {excluding}"
    included = recipe.decay == "all" or any(re.search(pattern, name) for pattern in recipe.include)
    return "" if included else None


def decayed_parameters(network: nn.Module, recipe: Recipe) -> list[str]:
    """Names of the parameters that decay, in the network's order; no stacked network.

    >>> decayed_parameters(nn.Linear(3, 2), Recipe()), decayed_parameters(nn.Linear(3, 2), Recipe(decay="all"))
    (['weight'], ['weight', 'bias'])
    """
    return [name for name, reason in reasons(network, recipe).items() if reason is None]
