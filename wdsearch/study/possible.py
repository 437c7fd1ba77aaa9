"""Decays that are possible: at ηλ = 1 a single step erases the weights, whatever they were."""

import math
from collections.abc import Mapping

from wdsearch.groups import split_key
from wdsearch.study.file import Fault, StudyFileError
from wdsearch.study.schema import Dimension, Entry, StudyConfig
from wdsearch.study.sources import is_solo

DECAY = "weight_decay"
MARGIN = 1.01
"""Ratio of the shortest timescale that is searched to that at which ηλ is 1."""


def possible(config: StudyConfig, rate_sum: float, largest_factor: float) -> tuple[StudyConfig, list[str]]:
    """A study without timescales at which a step erases the weights, and a line on each range that was cut for it.

    `rate_sum` is the sum of the schedule's factors over all steps, `largest_factor` the largest of them. A range of timescales
    is cut at its short end, for it means "as short as makes sense". A λ is a number that somebody chose: it is refused if the
    highest learning rate makes ηλ 1 or more, as is a range of timescales of which nothing is left. Raises StudyFileError.

    >>> from wdsearch.study.load import load_study
    >>> study, notes = possible(load_study("studies/mnist1d.yaml"), rate_sum=50.0, largest_factor=1.0)
    >>> study.dimensions["weight_decay"].timescale, notes[0][:44]
    ((0.0202, 10.0), 'space.weight_decay.timescale begins at 0.01,')
    """
    if is_solo(config.model):
        return config, []
    shortest, rate = MARGIN * largest_factor / rate_sum, largest_factor * _highest_rate(config)
    decays = {key: one for key, one in config.dimensions.items() if split_key(key)[0] == DECAY}
    faults = [_fault(key, one, shortest, rate) for key, one in decays.items()]
    if texts := [text for text in faults if text]:
        raise StudyFileError([Fault(config.study, None, text) for text in texts])
    long = {key: one.timescale for key, one in decays.items() if one.timescale and one.timescale[0] < shortest}
    if not long:
        return config, []
    entry = config.space[DECAY]
    parts = [_cut(part, shortest) for part in entry.parts]
    whole = entry.model_copy(update={"groups": parts}) if entry.groups is not None else parts[0]
    space: Mapping[str, Dimension] = {**config.space, DECAY: whole}
    return config.model_copy(update={"space": space}), [_note(key, *ends, shortest) for key, ends in long.items()]


def _highest_rate(config: StudyConfig) -> float:
    """The highest peak learning rate that a trial may have."""
    rate = config.space.get("lr", Entry(value=config.optimizer.lr))
    return max(float(value) for value in (rate.high, rate.value, *(rate.choices or ())) if value is not None)


def _largest(dimension: Dimension) -> float:
    """The largest λ that a trial may have."""
    values = (dimension.high, dimension.value, *(dimension.choices or ()))
    return max((float(value) for value in values if value is not None), default=0.0)


def _fault(key: str, dimension: Dimension, shortest: float, rate: float) -> str:
    """Text on a decay of which nothing is possible, or a λ that is too large; empty if all is well."""
    if dimension.timescale and dimension.timescale[1] <= shortest:
        return (
            f"space.{key}.timescale runs from {dimension.timescale[0]:g} to {dimension.timescale[1]:g}, where lr·λ is 1 and more "
            f"and a single step erases the weights; with this budget and schedule it must reach beyond {shortest:.3g}"
        )
    if dimension.timescale or rate * _largest(dimension) < 1.0:
        return ""
    return (
        f"space.{key} goes up to {_largest(dimension):g}; at a learning rate of {rate:.3g}, the highest, lr·λ is "
        f"{rate * _largest(dimension):.3g}, and at 1 a single step erases the weights; stay below {_below(1.0 / rate):g}, or "
        f"search a timescale: [0.05, 5]"
    )


def _below(bound: float) -> float:
    """A number below a bound, to two digits."""
    unit = 10.0 ** (math.floor(math.log10(bound)) - 1)
    return float(f"{(math.ceil(bound / unit) - 1) * unit:.2g}")


def _cut(dimension: Dimension, shortest: float) -> Dimension:
    if not dimension.timescale or dimension.timescale[0] >= shortest:
        return dimension
    return dimension.model_copy(update={"timescale": (shortest, dimension.timescale[1])})


def _note(key: str, low: float, high: float, shortest: float) -> str:
    return (
        f"space.{key}.timescale begins at {low:g}, where a single step erases the weights (lr·λ is 1 and more); with this budget "
        f"and schedule it is searched from {shortest:.3g} to {high:g}"
    )
