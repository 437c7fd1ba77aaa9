"""Random generators that a network can reach, rewound together: Python's, NumPy's, torch's, and those that it holds."""

import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from wdsearch.noise import derive_seed, seed_generators

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
DEEPEST = 3
"""Levels of collections and objects within which a module's generators are looked for."""

_LIBRARIES = {"torch", "lightning", "pytorch_lightning", "torchmetrics", "wdsearch", "numpy", "builtins", "collections"}
_HELD: WeakKeyDictionary[nn.Module, list[Generator]] = WeakKeyDictionary()


def rewind_generators(module: nn.Module, seed: int, device: torch.device) -> None:
    """Seed every generator from which a module may draw.

    >>> rewind_generators(nn.Identity(), 3, torch.device("cpu"))
    >>> first = random.random(), np.random.rand(), float(torch.rand(()))
    >>> rewind_generators(nn.Identity(), 3, torch.device("cpu"))
    >>> first == (random.random(), np.random.rand(), float(torch.rand(())))
    True
    """
    seed_generators(seed, device)
    rewind_held(module, seed)


def rewind_held(module: nn.Module, seed: int) -> None:
    """Seed the generators that a module holds, and no global one.

    >>> layer = nn.Identity()
    >>> layer.random = random.Random(0)
    >>> rewind_held(layer, 3)
    >>> first = layer.random.random()
    >>> rewind_held(layer, 3)
    >>> first == layer.random.random()
    True
    """
    for index, generator in enumerate(held_generators(module)):
        _rewind(generator, derive_seed(seed, index))


def held_generators(module: nn.Module) -> list[Generator]:
    """Generators in the attributes of a module's layers, of their classes, and among the globals of their source files.

    Those that it creates while it is called are not among them.

    >>> layer = nn.Identity()
    >>> layer.random = {"python": random.Random(0), "numpy": np.random.default_rng(0)}
    >>> [type(generator).__name__ for generator in held_generators(layer)]
    ['Random', 'Generator']
    """
    if module not in _HELD:
        candidates = (generator for layer in module.modules() for generator in _reachable(layer))
        _HELD[module] = list({id(generator): generator for generator in candidates}.values())
    return _HELD[module]


def _reachable(layer: nn.Module) -> Iterator[Generator]:
    yield from _within((value for name, value in vars(layer).items() if not name.startswith("_")), DEEPEST)
    private = (value for name, value in vars(layer).items() if name.startswith("_"))
    yield from (value for value in private if isinstance(value, Generator))
    for kind in type(layer).__mro__:
        if str(kind.__module__).partition(".")[0] not in _LIBRARIES:
            yield from _within(vars(kind).values(), 1)
            source = vars(sys.modules[kind.__module__]) if kind.__module__ in sys.modules else {}
            yield from (value for value in list(source.values()) if isinstance(value, Generator))


def _within(values: Iterable[Any], levels: int) -> Iterator[Generator]:
    """Generators among values, the members of collections, and the attributes of the objects of users' classes."""
    for value in values:
        if isinstance(value, Generator):
            yield value
        elif not levels or isinstance(value, Tensor | nn.Module | str | bytes | type):
            continue
        elif isinstance(value, Mapping):
            yield from _within(list(value.values()), levels - 1)
        elif isinstance(value, list | tuple | set | frozenset):
            yield from _within(value, levels - 1)
        elif str(type(value).__module__).partition(".")[0] not in _LIBRARIES:
            yield from _within(list(getattr(value, "__dict__", {}).values()), levels - 1)


def _rewind(generator: Generator, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        bits: Any = generator.bit_generator
        bits.state = type(bits)(seed).state
    else:
        generator.seed(seed % 2**32)
