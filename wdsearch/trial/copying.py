"""Copies of a network that train as it does: `copy.deepcopy` loses the hooks and marks of parameters."""

import copy
import types
from collections.abc import Iterator
from typing import Any, TypeVar

from torch import Tensor, nn

from wdsearch.errors import WdsearchError

Network = TypeVar("Network", bound=nn.Module)


class CopyError(WdsearchError):
    """A network of which a copy would not be independent."""


def copied(network: Network) -> Network:
    """Independent copy of a network, with the hooks and marks of its parameters.

    Raises CopyError where functions that the network holds refer to it, for they would go on referring to the original.

    >>> layer = nn.Linear(3, 2)
    >>> layer.weight.no_decay = True
    >>> copied(layer).weight.no_decay
    True
    """
    refuse_references(network)
    try:
        twin = copy.deepcopy(network, _values_of_computed(network))
    except Exception as error:  # whatever an attribute raises that cannot be copied
        raise CopyError(f"it cannot be copied: {error}") from error
    for original, own in zip(network.parameters(), twin.parameters(), strict=True):
        vars(own).update({name: value for name, value in vars(original).items() if name not in vars(own)})
        for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            register = own.register_hook if name == "_backward_hooks" else own.register_post_accumulate_grad_hook
            for hook in (getattr(original, name) or {}).values():
                register(hook)
    return twin


def copied_for_reading(network: Network) -> Network:
    """Copy of a network that is not trained; it shares what cannot be copied, such as open files.

    >>> layer = nn.Linear(3, 2)
    >>> layer.rows = (row for row in "abc")
    >>> copied_for_reading(layer).rows is layer.rows
    True
    """
    try:
        return copy.deepcopy(network, _values_of_computed(network))
    except Exception:  # whatever an attribute raises that cannot be copied
        values = (value for part in network.modules() for value in vars(part).values() if not isinstance(value, dict))
        return copy.deepcopy(network, {id(value): value for value in values if not _can_be_copied(value)})


def _values_of_computed(network: nn.Module) -> dict[int, Any]:
    """Values, by identity, of the tensors that the old `weight_norm` and `prune` compute anew in each call."""
    values = (value for part in network.modules() for value in vars(part).values())
    computed = [value for value in values if isinstance(value, Tensor) and value.grad_fn is not None]
    return {id(value): value.detach().clone() for value in computed}


def _can_be_copied(value: Any) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True


def refuse_references(network: nn.Module) -> None:
    """Raise CopyError if a function in an attribute or hook of a network's layers refers to one of its layers or tensors.

    >>> network = nn.Sequential(nn.Linear(3, 2))
    >>> network.forward = lambda x: network[0](x)
    >>> refuse_references(network)
    Traceback (most recent call last):
    wdsearch.trial.copying.CopyError: the function in forward refers to the network itself, ...
    """
    own = {id(part) for part in network.modules()} | {id(value) for value in network.parameters()}
    own |= {id(value) for value in network.buffers()}
    for path, layer in network.named_modules():
        for name, function in _functions(layer):
            if any(id(value) in own for value in _captured(function)):
                where = f"{path}.{name}".strip(".").strip("_")
                raise CopyError(
                    f"the function in {where} refers to the network itself, and a copy's would refer to the original"
                )


def hooked_parameter(network: nn.Module) -> str | None:
    """Name of the first parameter with a hook after its gradient is accumulated, None if there is none.

    >>> layer = nn.Linear(3, 2)
    >>> handle = layer.bias.register_post_accumulate_grad_hook(lambda parameter: None)
    >>> hooked_parameter(layer)
    'bias'
    """
    return next((name for name, value in network.named_parameters() if value._post_accumulate_grad_hooks), None)


def _functions(layer: nn.Module) -> Iterator[tuple[str, types.FunctionType]]:
    """Functions in the attributes and hooks of a layer and of its own parameters, by the name of where they are."""
    tables: dict[str, Any] = dict(vars(layer))
    for name, parameter in layer.named_parameters(recurse=False):
        tables |= {
            f"{name} hooks": parameter._backward_hooks,
            f"{name} later hooks": parameter._post_accumulate_grad_hooks,
        }
    for name, value in tables.items():
        values = value.values() if name.endswith("hooks") and isinstance(value, dict) else [value]
        yield from ((name, function) for function in values if isinstance(function, types.FunctionType))


def _captured(function: types.FunctionType) -> Iterator[Any]:
    """Values of a function's closure, defaults and globals, and the members of collections among them."""
    names, values = function.__code__.co_names, [*(function.__defaults__ or ())]
    values += [cell.cell_contents for cell in function.__closure__ or ()]
    values += [function.__globals__[name] for name in names if name in function.__globals__]
    for value in values:
        yield value
        if isinstance(value, list | tuple):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
