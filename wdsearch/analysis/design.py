"""The design of an explanation: the winner's configuration, with λ, l1, dropout and the rate varied, each on its grid."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from wdsearch.groups import split_key
from wdsearch.regularizers import REGULARIZERS
from wdsearch.study.space import Configuration

DECAY, L1, DROPOUT, RATE = "weight_decay", "l1", "dropout", "lr"
COUPLED = "l2"
DECAYS, L1S = 10, 6
"""Grid points beside 0."""
LONGEST_TIMESCALE = 30.0
"""In training lengths: there decay alone shrinks weights by 3 % in all."""
LARGEST_SHRINKAGE = 0.5
"""Largest ηλ of the grid: there a single step halves the weights."""
LEAST_L1, LARGEST_L1 = 1e-6, 1e-1
"""Ends of the grid of l1: from hardly acting to more than most gradients of a loss of about 1, where most weights become zero."""
RATES = (1.0, 3.0, 10.0, 30.0)
RATES_OF_DROPOUT = (0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Schedule:
    """The sum of the schedule's factors over all steps, and the largest."""

    rate_sum: float
    largest_factor: float


@dataclass(frozen=True)
class Axes:
    """The keys that are varied, and λ* as `reference`: the winner's λ, or where that is 0, one that acts.

    A regularizer's groups are changed in proportion. Where `weight_decay` and `l2` both act, the other one goes down with the one
    that is varied, so that at 0 nothing decays, but not up: it has a limit of its own. `dropout` is empty if the network has no
    layer that drops.
    """

    decay: str
    reference: float
    l1: str
    dropout: str
    rate: float


@dataclass(frozen=True)
class Design:
    """The configurations to train, each with its arm; one may serve several arms."""

    axes: Axes
    cells: tuple[tuple[str, Configuration], ...]

    @property
    def configurations(self) -> list[Configuration]:
        """The configurations, each once."""
        distinct: list[Configuration] = []
        for _, configuration in self.cells:
            if configuration not in distinct:
                distinct.append(configuration)
        return distinct


def design(winner: Configuration, schedule: Schedule, drops: bool) -> Design:
    """The arms around a winner; `drops` says whether its network has layers that drop.

    - `weight_decay`: λ alone, 0 and ten values from one that hardly acts to one that is too large, λ* among them
    - `l1`: λ of l1 alone, 0 and six values, with the decay off
    - `dropout`: λ of 0, λ*/3, λ*, 3λ* × dropout of 0 and three rates, the winner's among them
    - `lr`: the winner's rate × 1, 3, 10, 30 × λ of 0 and λ*; rates at which ηλ reaches 1 are left out

    >>> winner = Configuration(0.01, {"weight_decay": 0.2, "dropout": 0.17}, model={})
    >>> arms = design(winner, Schedule(rate_sum=640.0, largest_factor=1.0), drops=True)
    >>> sorted({arm for arm, _ in arms.cells}), arms.axes.reference, len(arms.configurations)
    (['dropout', 'l1', 'lr', 'weight_decay'], 0.2, 37)
    """
    decay = _decay_key(winner.strengths)
    decays, reference = _decays(decay, winner, schedule)
    dropout = _axis(winner.strengths, DROPOUT) if drops else ""
    axes = Axes(decay, reference, _axis(winner.strengths, L1), dropout, winner.lr)
    arms = {DECAY: [{decay: value} for value in decays]}
    arms[L1] = [{decay: 0.0, axes.l1: value} for value in _l1s(axes.l1, winner)]
    if drops:
        near = [0.0, *(_within(reference * factor, decay, winner.lr, schedule) for factor in (1 / 3, 1.0, 3.0))]
        pairs = product(dict.fromkeys(near), _dropouts(winner.strengths.get(dropout, 0.0)))
        arms[DROPOUT] = [{decay: value, dropout: rate} for value, rate in pairs]
    cells = [(arm, _changed(winner, changes)) for arm, rows in arms.items() for changes in rows]
    return Design(axes, (*cells, *_fast(winner, axes, schedule)))


def _changed(winner: Configuration, changes: Mapping[str, float], lr: float | None = None) -> Configuration:
    strengths = dict(winner.strengths)
    for key, value in changes.items():
        strengths |= _varied(strengths, key, value)
    absent = {
        key for key in changes if key not in winner.strengths and split_key(key)[0] != DROPOUT and not changes[key]
    }
    acting = {key: value for key, value in strengths.items() if key not in absent}  # one configuration, one name
    return Configuration(winner.lr if lr is None else lr, acting, winner.model)


def _varied(strengths: Mapping[str, float], key: str, value: float) -> dict[str, float]:
    """A key at a value, and its regularizer's groups in proportion, or at the same value if all are off; see `Axes`."""
    current, regularizer = strengths.get(key, 0.0), split_key(key)[0]
    groups = [other for other in strengths if split_key(other)[0] == regularizer]
    changed = {other: strengths[other] * (value / current) if current else value for other in groups}
    if current and regularizer in (DECAY, COUPLED):
        other_decays = [other for other in strengths if split_key(other)[0] in (DECAY, COUPLED) and other not in groups]
        changed |= {other: strengths[other] * min(1.0, value / current) for other in other_decays}
    return changed | {key: value}


def _axis(strengths: Mapping[str, float], regularizer: str) -> str:
    """The key of a regularizer; of several groups the one with the largest strength."""
    keys = [key for key in strengths if split_key(key)[0] == regularizer]
    return max(keys, key=lambda key: strengths[key], default=regularizer)


def _decay_key(strengths: Mapping[str, float]) -> str:
    """The decay that the winner uses, else the one that was searched: `weight_decay` before `l2`."""
    keys = [_axis(strengths, name) for name in (DECAY, COUPLED)]
    acting = [key for key in keys if strengths.get(key, 0.0) > 0.0]
    return [*acting, *(key for key in keys if key in strengths), DECAY][0]


def _decays(key: str, winner: Configuration, schedule: Schedule) -> tuple[list[float], float]:
    """The grid of λ with 0, and λ*."""
    strength = winner.strengths.get(key, 0.0)
    if split_key(key)[0] == DECAY:
        low = 1.0 / (winner.lr * schedule.rate_sum * LONGEST_TIMESCALE)
        reference = strength or low * LONGEST_TIMESCALE
    else:
        usual = REGULARIZERS[COUPLED].usual
        low, reference = usual.low, strength or usual.at(0.5)
    high = _largest(key, winner.lr, schedule)
    reference = strength or min(reference, high)
    return [0.0, *_grid(min(low, reference / 3), max(high, strength), DECAYS, reference)], reference


def _largest(key: str, lr: float, schedule: Schedule) -> float:
    """The largest λ of the grid: ηλ of one half; of the coupled penalty, whose gradient is 2λw, at most 1."""
    high = LARGEST_SHRINKAGE / (lr * schedule.largest_factor)
    return high if split_key(key)[0] == DECAY else min(1.0, high / 2)


def _within(value: float, key: str, lr: float, schedule: Schedule) -> float:
    """A λ, or the largest of which ηλ stays below 1."""
    return min(value, 1.9 * _largest(key, lr, schedule)) if split_key(key)[0] == DECAY else value


def _l1s(key: str, winner: Configuration) -> list[float]:
    strength = winner.strengths.get(key, 0.0)
    return [0.0, *_grid(min(LEAST_L1, strength or LEAST_L1), max(LARGEST_L1, strength), L1S, strength)]


def _dropouts(rate: float) -> list[float]:
    return [0.0, *_with(RATES_OF_DROPOUT, rate)]


def _grid(low: float, high: float, count: int, included: float) -> list[float]:
    """Values in equal ratios from low to high, with one value in place of the nearest."""
    ratio = (high / low) ** (1 / (count - 1))
    return _with([low * ratio**step for step in range(count)], included)


def _with(values: Sequence[float], included: float) -> list[float]:
    """The values with another in place of the nearest, by ratio; unchanged for 0."""
    if included <= 0.0:
        return list(values)
    nearest = min(values, key=lambda value: abs(math.log(value / included)))
    return sorted(included if value == nearest else value for value in values)


def _fast(winner: Configuration, axes: Axes, schedule: Schedule) -> Iterator[tuple[str, Configuration]]:
    """The arm of high learning rates."""
    for factor in RATES:
        lr = winner.lr * factor
        decoupled = split_key(axes.decay)[0] == DECAY
        if decoupled and lr * schedule.largest_factor * axes.reference >= 1.0:
            return
        for value in (0.0, axes.reference):
            yield RATE, _changed(winner, {axes.decay: value}, lr)
