"""State in attributes of any kind: what changes is noticed, and what does not is not."""

import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wdsearch.population.module_attributes import attributes, fingerprint, volatile_buffers
from wdsearch.trial.module import RegularizedModule


@dataclass
class Memory:
    """A user's object, within which state changes."""

    losses: list[float] = field(default_factory=list)
    nested: dict[str, Any] = field(default_factory=lambda: {"queue": deque([1.0], maxlen=3)})


def closure() -> Callable[[], int]:
    calls = 0

    def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    return count


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "number in a list": (lambda: [1, 2], lambda value: value.append(3)),
    "set": (lambda: {1}, lambda value: value.add(2)),
    "deque": (lambda: deque([1.0]), lambda value: value.append(2.0)),
    "tensor in place": (lambda: torch.zeros(3), lambda value: value.add_(1.0)),
    "tensor of 16 bits": (lambda: torch.zeros(3, dtype=torch.bfloat16), lambda value: value.add_(1.0)),
    "sparse tensor": (lambda: torch.eye(3).to_sparse(), lambda value: value.mul_(2.0)),
    "array": (lambda: np.zeros(3), lambda value: value.__setitem__(0, 1.0)),
    "torch's generator": (torch.Generator, lambda value: torch.rand(1, generator=value)),
    "NumPy's generator": (lambda: np.random.default_rng(0), lambda value: value.random()),
    "NumPy's old generator": (lambda: np.random.RandomState(0), lambda value: value.rand()),
    "Python's generator": (lambda: random.Random(0), lambda value: value.random()),
    "counter": (itertools.count, next),
    "generator function": (lambda: (row for row in range(3)), next),
    "closure": (closure, lambda value: value()),
    "object": (Memory, lambda value: value.losses.append(0.5)),
    "deep in an object": (Memory, lambda value: value.nested["queue"].append(2.0)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_noticed_in_an_attribute_of_any_kind(kind: str) -> None:
    build, change = CHANGES[kind]
    value = build()
    before = fingerprint(value)
    assert fingerprint(value) == before
    change(value)
    assert fingerprint(value) != before


def test_equal_content_has_one_fingerprint() -> None:
    for kind, (build, _) in CHANGES.items():
        if kind not in ("torch's generator", "generator function", "closure"):
            assert fingerprint(build()) == fingerprint(build()), kind


def test_attributes_of_a_trial_are_those_of_its_users_classes() -> None:
    class Own(RegularizedModule):
        def __init__(self) -> None:
            super().__init__(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), {"weight_decay": 0.1})
            self.seen = 0
            self.network[0].kept = torch.zeros(2)

    names = attributes(Own()).keys()
    assert {".seen", "network.0.kept"} <= names
    assert not {
        name for name in names if name.split(".")[-1] in ("strengths", "noise", "recipe", "progress", "network")
    }


def test_volatile_buffers_are_those_that_a_state_dict_lacks() -> None:
    layer = nn.Linear(3, 2)
    layer.register_buffer("calls", torch.tensor(2), persistent=False)
    layer.register_buffer("mean", torch.tensor(1.0))
    assert list(volatile_buffers(layer)) == ["calls"]
