"""Regularizers after the optimizer's step: their updates of the weights, their states, and the weights for evaluation."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from wdsearch.regularizers import Regularizer
from wdsearch.types import Params, States, Strengths


@dataclass(frozen=True)
class AfterStep:
    """Pure functions of one trial's trained parameters, by name.

    `members` names the parameters of each key that does not act on all. Raises ValueError if two regularizers replace the
    weights for evaluation.
    """

    regularizers: Mapping[str, Regularizer]
    members: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        averages = [key for key, regularizer in self.regularizers.items() if regularizer.evaluated]
        if len(averages) > 1:
            raise ValueError(
                f"{' and '.join(averages)} each say which weights are evaluated; a trial takes one of them"
            )

    @property
    def acts(self) -> bool:
        """True if a regularizer acts after a step."""
        return any(regularizer.after_step for regularizer in self.regularizers.values())

    @property
    def averages(self) -> bool:
        """True if evaluation uses other weights than training, such as an average."""
        return any(regularizer.evaluated for regularizer in self.regularizers.values())

    def init_states(self, weights: Params) -> States:
        """States of the regularizers before the first step."""
        return {
            key: regularizer.init_state(self._own(key, weights)) if regularizer.init_state else {}
            for key, regularizer in self.regularizers.items()
            if regularizer.after_step
        }

    def after_step(self, step: int, weights: Params, states: States, strengths: Strengths) -> tuple[Params, States]:
        """Changed weights and new states after step number `step`, counted from 1."""
        after, new_states = dict(weights), dict(states)
        for key, regularizer in self.regularizers.items():
            if regularizer.after_step:
                own = self._own(key, after)
                changed, new_states[key] = regularizer.after_step(own, states[key], step, strengths[key])
                after |= changed
        return {name: value for name, value in after.items() if value is not weights[name]}, new_states

    def evaluated(self, weights: Params, states: States) -> Params:
        """Weights that replace those in training for evaluation; empty before training."""
        replacements: Params = {}
        for key, regularizer in self.regularizers.items():
            if regularizer.evaluated and key in states:
                replacements |= regularizer.evaluated(self._own(key, weights), states[key])
        return replacements

    def _own(self, key: str, weights: Params) -> Params:
        """Parameters on which a key's regularizer acts."""
        return weights if key not in self.members else {name: weights[name] for name in self.members[key]}


@contextmanager
def holding(module: nn.Module, weights: Params) -> Iterator[None]:
    """Context in which the named parameters of a module hold other values; nothing is copied.

    >>> import torch
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> with holding(layer, {"weight": torch.ones(1, 1)}):
    ...     layer(torch.tensor([3.0])).item()
    3.0
    """
    parameters = {name: value for name, value in module.named_parameters() if name in weights}
    originals = {name: value.data for name, value in parameters.items()}
    try:
        for name, value in parameters.items():
            value.data = weights[name]
        yield
    finally:
        for name, value in parameters.items():
            value.data = originals[name]
