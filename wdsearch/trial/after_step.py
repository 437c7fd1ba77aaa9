"""What a trial's regularizers do after the optimizer's step, what they remember, and which weights are evaluated."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from wdsearch.regularizers import Regularizer
from wdsearch.types import Params, States, Strengths


@dataclass(frozen=True)
class AfterStep:
    """Functions of one trial, of its trained parameters by name; they change nothing in place.

    `members` names the parameters of each key that does not act on all. Raises ValueError if two regularizers would say
    which weights are evaluated.
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
        """True if there is anything to do after a step."""
        return any(regularizer.after_step for regularizer in self.regularizers.values())

    @property
    def averages(self) -> bool:
        """True if other weights are evaluated than those in training."""
        return any(regularizer.evaluated for regularizer in self.regularizers.values())

    def init_states(self, weights: Params) -> States:
        """What is remembered before the first step."""
        return {
            key: regularizer.init_state(self._own(key, weights)) if regularizer.init_state else {}
            for key, regularizer in self.regularizers.items()
            if regularizer.after_step
        }

    def after_step(self, step: int, weights: Params, states: States, strengths: Strengths) -> tuple[Params, States]:
        """The weights that change after the `step`-th step, counted from 1, and what is remembered now."""
        after, remembered = dict(weights), dict(states)
        for key, regularizer in self.regularizers.items():
            if regularizer.after_step:
                own = self._own(key, after)
                changed, remembered[key] = regularizer.after_step(own, states[key], step, strengths[key])
                after |= changed
        return {name: value for name, value in after.items() if value is not weights[name]}, remembered

    def evaluated(self, weights: Params, states: States) -> Params:
        """The weights that stand in for those in training where the trial is evaluated; none before training."""
        instead: Params = {}
        for key, regularizer in self.regularizers.items():
            if regularizer.evaluated and key in states:
                instead |= regularizer.evaluated(self._own(key, weights), states[key])
        return instead

    def _own(self, key: str, weights: Params) -> Params:
        """The parameters that a key's regularizer takes."""
        return weights if key not in self.members else {name: weights[name] for name in self.members[key]}


@contextmanager
def holding(module: nn.Module, weights: Params) -> Iterator[None]:
    """Within, the module's parameters of these names hold other values; nothing is copied."""
    parameters = {name: value for name, value in module.named_parameters() if name in weights}
    own = {name: value.data for name, value in parameters.items()}
    try:
        for name, value in parameters.items():
            value.data = weights[name]
        yield
    finally:
        for name, value in parameters.items():
            value.data = own[name]
