"""States of the random generators that a training may draw from: Python's, NumPy's and torch's own."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from wdsearch.noise import seed_generators

RandomState = tuple[Any, ...]


def random_state() -> RandomState:
    """States of all global generators.

    >>> before = random_state()
    >>> first = random.random(), float(torch.rand(()))
    >>> set_random_state(before)
    >>> first == (random.random(), float(torch.rand(())))
    True
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def set_random_state(state: RandomState) -> None:
    """Set all global generators to states that `random_state` returned.

    >>> set_random_state(random_state())
    """
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3]:
        torch.cuda.set_rng_state_all(state[3])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which all global generators begin at a seed; afterwards they go on as if nothing had been drawn.

    >>> with seeded(1):
    ...     first = random.random(), np.random.rand(), torch.rand(1).item()
    >>> with seeded(1):
    ...     (random.random(), np.random.rand(), torch.rand(1).item()) == first
    True
    """
    before = random_state()
    try:
        seed_generators(seed)
        torch.manual_seed(seed)  # of all devices: a user's code may draw on any
        yield
    finally:
        set_random_state(before)
