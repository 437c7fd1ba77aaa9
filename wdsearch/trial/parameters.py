"""Listing of the parameters and layers on which the strengths of a study act; groups without members are rejected."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from wdsearch.errors import BuildError
from wdsearch.groups import split_key
from wdsearch.regularizers import regularizer_of
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe, reasons

PREFIX = "network."
MOST_LISTED = 20


class Parameter(NamedTuple):
    """A parameter or a layer that drops, by its name in the user's network.

    `exemption` is the reason for which a parameter does not decay, None if it does; `strengths` are the keys that act on it.
    """

    name: str
    shape: tuple[int, ...]
    exemption: str | None
    strengths: tuple[str, ...]


def parameters_of(module: RegularizedModule) -> tuple[Parameter, ...]:
    """Every parameter of a trial's network, in its order.

    >>> from torch import nn
    >>> module = RegularizedModule(nn.Linear(3, 2), {"weight_decay": 0.1})
    >>> [(parameter.name, parameter.shape, parameter.strengths) for parameter in parameters_of(module)]
    [('weight', (2, 3), ('weight_decay',)), ('bias', (2,), ())]
    """
    exemptions = reasons(module.network, module.recipe)
    return tuple(
        Parameter(name, tuple(value.shape), exemptions[name], _acting(module, name, "parameters"))
        for name, value in module.network.named_parameters()
    )


def dropout_layers_of(module: RegularizedModule) -> tuple[Parameter, ...]:
    """Every layer of a trial's network that drops.

    >>> from torch import nn
    >>> module = RegularizedModule(nn.Sequential(nn.Linear(3, 2), nn.Dropout()), {"dropout": 0.1})
    >>> [(layer.name, layer.strengths) for layer in dropout_layers_of(module)]
    [('1', ('dropout',))]
    """
    names = (name.removeprefix(PREFIX) for name in module.layers_of("dropout"))
    return tuple(Parameter(name, (), None, _acting(module, name, "layers")) for name in names)


def _acting(module: RegularizedModule, name: str, kind: str) -> tuple[str, ...]:
    keys = (key for key, members in module.members.items() if PREFIX + name in members)
    return tuple(key for key in keys if (regularizer := regularizer_of(key)) and regularizer.acts_on == kind)


def check_names(module: RegularizedModule) -> None:
    """Raise BuildError if a regular expression of a trial's recipe matches nothing in its network.

    >>> from torch import nn
    >>> check_names(RegularizedModule(nn.Linear(3, 2), {}, recipe=Recipe(exclude=("norm",))))
    Traceback (most recent call last):
    wdsearch.errors.BuildError: optimizer.decay.exclude: 'norm' is found in no parameter's name; they are: weight, bias
    """
    recipe = module.recipe
    trained = [name for name, value in module.network.named_parameters() if value.requires_grad]
    for option, patterns in (("include", recipe.include), ("exclude", recipe.exclude)):
        for pattern in patterns:
            if not any(re.search(pattern, name) for name in trained):
                text = f"{pattern!r} is found in no parameter's name; they are: {_listed(trained)}"
                raise BuildError(f"optimizer.decay.{option}: {text}")
    for key, members in module.members.items():
        if not members:
            _refuse_empty(module, key, recipe)


def _refuse_empty(module: RegularizedModule, key: str, recipe: Recipe) -> None:
    """Raise BuildError for a group's key that acts on nothing."""
    regularizer, group = split_key(key)
    if not group:
        return
    patterns, layers = recipe.groups[regularizer], module.layers_of(key)
    on_layers = getattr(regularizer_of(key), "acts_on", None) == "layers"
    names = [name.removeprefix(PREFIX) for name in (layers if on_layers else module.decayed)]
    member = "layer that drops" if on_layers else "parameter that decays"
    matches = any(re.search(patterns[group], name) for name in names)
    reason = (
        f"earlier groups take all that {patterns[group]!r} is found in"
        if matches
        else f"{patterns[group]!r} is in none"
    )
    text = f"group {group!r} takes no {member}: {reason}"
    raise BuildError(f"space.{regularizer}.groups: {text}; they are: {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    """Names in one line, the first of many."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more if names else "none"
