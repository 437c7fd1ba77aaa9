"""A trial's training as the text that repeats it needs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wdsearch.groups import split_key
from wdsearch.optimizers import OPTIMIZERS, Optimizer
from wdsearch.regularizers import REGULARIZERS, Regularizer


def constant(key: str) -> str:
    """Name in the text of a regularizer's strength.

    >>> constant("weight_decay")
    'WEIGHT_DECAY'
    """
    return key.upper()


@dataclass(frozen=True)
class Training:
    """A trial's training as its text needs it.

    `strengths` are those that act; `facts` are those of `wdsearch.search.training_facts`, of a network that wdsearch trains.
    """

    title: str
    init_seed: int
    optimizer: Mapping[str, Any]
    strengths: Mapping[str, float]
    model: Mapping[str, Any]
    epochs: int
    precision: object
    facts: Mapping[str, Any]

    @property
    def record(self) -> Optimizer:
        """The optimizer's entry in the table."""
        return OPTIMIZERS[self.optimizer["name"]]

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's own options."""
        return {name: self.optimizer[name] for name in self.record.options if self.optimizer.get(name) is not None}

    def acting(self, point: str) -> dict[str, Regularizer]:
        """Regularizers with a text that act at a point of training, by key; of a group's each once."""
        keys = dict.fromkeys(split_key(key)[0] for key in self.strengths)
        acting = {key: REGULARIZERS[key] for key in keys if getattr(REGULARIZERS[key], point)}
        return {key: regularizer for key, regularizer in acting.items() if regularizer.code}

    def first(self, point: str) -> str:
        """Name of the constant of the regularizer that acts at a point; empty if none does."""
        return next((constant(key) for key in self.acting(point)), "")

    @property
    def untold(self) -> list[str]:
        """Keys of strengths that have no text."""
        return [key for key in self.strengths if not REGULARIZERS[split_key(key)[0]].code]

    @property
    def decays_apart(self) -> bool:
        """True if torch's optimizer lacks the decay, which is then applied before its step."""
        return bool(self.acting("decay")) and self.record.own_decay is None and self.record.words.decoupled is None
