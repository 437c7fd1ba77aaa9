"""The search space: from a study to Optuna's distributions, and from a trial's parameters to a configuration."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from wdsearch.groups import TIMESCALE, split_key
from wdsearch.regularizers import neutral, regularizer_of
from wdsearch.study.file import Fault, StudyFileError
from wdsearch.study.schema import Dimension, Entry, StudyConfig
from wdsearch.study.sources import default_of, is_solo

OFF_SHARE = 1 / 8
DECAY = "weight_decay"
MARGIN = 1.01
"""Ratio of the shortest timescale that is searched to that at which ηλ is 1."""


@dataclass(frozen=True)
class Configuration:
    """One point of the space: learning rate, strengths by key, and arguments that change the network's."""

    lr: float
    strengths: dict[str, float]
    model: dict[str, Any]


def distributions(config: StudyConfig) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every searched key, one for each.

    With `off: true` a range goes on beyond the end at which the regularizer vanishes, and what lies there is off: a weak
    decay is then a neighbour of none, and a sampler models all keys jointly, as it cannot with gates beside the values.

    >>> from wdsearch.study.load import load_study
    >>> distributions(load_study("studies/mnist1d.yaml"))["dropout"]
    FloatDistribution(high=0.6, log=False, low=0.0, step=None)
    """
    searched = {key: dimension for key, dimension in config.dimensions.items() if dimension.form != "fixed"}
    return {_name(key, dimension): _distribution(key, dimension) for key, dimension in searched.items()}


def points(searched: Mapping[str, BaseDistribution]) -> float:
    """Number of different configurations in a space; ∞ if a key is continuous.

    >>> points({"dropout": CategoricalDistribution([0.0, 0.5]), "model.depth": IntDistribution(1, 4)})
    8
    >>> points({"lr": FloatDistribution(1e-3, 1e-1)})
    inf
    """
    return math.prod(_values_of(distribution) for distribution in searched.values())


def repetition(config: StudyConfig) -> list[str]:
    """A sentence on a space that has fewer configurations than the budget has trials; none otherwise.

    >>> from wdsearch.study.load import load_study
    >>> repetition(load_study("studies/mnist1d.yaml", ["space={dropout: {choices: [0.0, 0.5]}}"]))[0][:44]
    'space: it has 2 configurations for 64 trials'
    """
    count, budget = points(distributions(config)), config.budget.trials
    if count >= budget:
        return []
    remedy = f"search a range, or give budget.trials: {count} or fewer"
    return [
        f"space: it has {count} configurations for {budget} trials, and the same one gives the same result; {remedy}"
    ]


def _values_of(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.single():
        return 1
    return (
        math.inf if distribution.step is None else round((distribution.high - distribution.low) / distribution.step) + 1
    )


def _name(key: str, dimension: Dimension) -> str:
    """Name by which Optuna knows the searched value of a key."""
    return key + TIMESCALE if dimension.form == "timescale" else key


def _distribution(key: str, dimension: Dimension) -> BaseDistribution:
    if dimension.form == "choices":
        return CategoricalDistribution([encoded(choice) for choice in _choices(key, dimension)])
    low, high = _widened(key, dimension) if dimension.off else _bounds(dimension)
    log = dimension.log or dimension.form == "timescale"
    if is_integer(key, dimension):
        return IntDistribution(int(low), int(high), log=log, step=int(dimension.step or 1))
    return FloatDistribution(float(low), float(high), log=log, step=dimension.step)


def _choices(key: str, dimension: Dimension) -> list[Any]:
    choices = list(dimension.choices or ())
    off = [neutral(key)] if dimension.off else []
    return choices + [value for value in off if value not in choices]


def _bounds(dimension: Dimension) -> tuple[float, float]:
    low, high = dimension.timescale or (dimension.low, dimension.high)
    assert low is not None
    assert high is not None
    return low, high


def _widened(key: str, dimension: Dimension) -> tuple[float, float]:
    """The bounds with room for off, `OFF_SHARE` of the whole, at the end where the regularizer vanishes."""
    low, high = _bounds(dimension)
    share, above = OFF_SHARE / (1.0 - OFF_SHARE), _vanishes_above(key, dimension)
    if is_integer(key, dimension) or dimension.step is not None:
        step = dimension.step or 1
        room = step * max(1, round((high - low) / step * share))
        return (low, high + room) if above else (low - room, high)
    if dimension.log or dimension.form == "timescale":
        factor = (high / low) ** share
        return (low, high * factor) if above else (low / factor, high)
    return (low, high + (high - low) * share) if above else (low - (high - low) * share, high)


def _vanishes_above(key: str, dimension: Dimension) -> bool:
    """An infinitely long timescale is no decay at all; of other ranges the regularizer's neutral value says the end."""
    return dimension.form == "timescale" or neutral(key) > _bounds(dimension)[0]


def _is_off(key: str, dimension: Dimension, value: float) -> bool:
    low, high = _bounds(dimension)
    tolerance = (dimension.step or 0) / 2
    return value > high + tolerance if _vanishes_above(key, dimension) else value < low - tolerance


def is_integer(key: str, dimension: Dimension) -> bool:
    """Regularizers say whether they count; an argument of the model does if its range is written in whole numbers.

    >>> is_integer("early_stopping", Dimension(low=2, high=9)), is_integer("model.depth", Dimension(low=1.0, high=3.0))
    (True, False)
    """
    regularizer = regularizer_of(key)
    return regularizer.integer if regularizer else key != "lr" and dimension.integer


def configuration(config: StudyConfig, params: Mapping[str, Any], rate_sum: float) -> Configuration:
    """The configuration of a trial's parameters.

    `rate_sum` is the sum of the schedule's factors over all steps: a timescale τ is λ = 1/(η·rate_sum·τ), the number of
    training lengths in which decay alone shrinks a weight by e (Wang & Aitchison 2405.13698).

    >>> from wdsearch.study.load import load_study
    >>> params = {"lr": 0.01, "weight_decay.timescale": 1.0, "dropout": 0.2, "label_smoothing": 0.1}
    >>> configuration(load_study("studies/mnist1d.yaml"), params, rate_sum=1000.0).strengths
    {'weight_decay': 0.1, 'dropout': 0.2, 'label_smoothing': 0.1}
    """
    dimensions = config.dimensions
    values = {key: _value(key, dimension, params) for key, dimension in dimensions.items()}
    lr = float(values.pop("lr", config.optimizer.lr))
    for key in values:
        if dimensions[key].form == "timescale":
            values[key] = 1.0 / (lr * rate_sum * values[key])  # 0 at ∞
    strengths = {key: float(value) for key, value in values.items() if regularizer_of(key)}
    model = {key.removeprefix("model."): value for key, value in values.items() if key not in strengths}
    return Configuration(lr, strengths, model)


def _value(key: str, dimension: Dimension, params: Mapping[str, Any]) -> Any:
    if dimension.form == "fixed":
        return dimension.value
    value = params[_name(key, dimension)]
    if dimension.form == "choices":
        return next(choice for choice in _choices(key, dimension) if encoded(choice) == value)
    if dimension.off and _is_off(key, dimension, value):
        return math.inf if dimension.form == "timescale" else neutral(key)
    return value


def baseline(config: StudyConfig) -> Configuration:
    """The unregularized baseline: every strength neutral, the study's own rate and network.

    >>> from wdsearch.study.load import load_study
    >>> baseline(load_study("studies/mnist1d.yaml")).strengths
    {'weight_decay': 0.0, 'dropout': 0.0, 'label_smoothing': 0.0}
    """
    rate = config.space.get("lr")
    strengths = {key: neutral(key) for key in config.dimensions if regularizer_of(key)}
    model = {
        (name := key.removeprefix("model.")): _unsearched(config.model, name, dimension)
        for key, dimension in config.space.items()
        if key != "lr" and not regularizer_of(key)
    }
    return Configuration(float(rate.value if rate and rate.form == "fixed" else config.optimizer.lr), strengths, model)


def unequal(config: StudyConfig, arguments: Mapping[str, Any]) -> list[Configuration]:
    """Three configurations of one network that share no strength.

    >>> from wdsearch.study.load import load_study
    >>> [one.strengths["dropout"] for one in unequal(load_study("studies/mnist1d.yaml"), {})]
    [0.0, 0.3, 0.6]
    """
    neutral_one = baseline(config)
    known = {key: regularizer for key in neutral_one.strengths if (regularizer := regularizer_of(key))}
    configurations = []
    for share in (0.0, 0.5, 1.0):
        usual = {key: regularizer.usual.at(share) for key, regularizer in known.items()}
        whole = {key: round(value) if known[key].integer else value for key, value in usual.items()}
        configurations.append(Configuration(neutral_one.lr, whole, dict(arguments)))
    return configurations


def _unsearched(model: Any, name: str, dimension: Dimension) -> Any:
    """An argument's fixed value, else what the network gets by itself, else the middle of what is searched."""
    if dimension.form == "fixed":
        return dimension.value
    try:
        return default_of(model, name)
    except LookupError:
        return _middle(dimension)


def _middle(dimension: Dimension) -> Any:
    """The first choice, or the middle of a range, in logarithms if it is searched so."""
    if dimension.choices is not None:
        return dimension.choices[0]
    low, high = _bounds(dimension)
    middle = math.sqrt(low * high) if dimension.log else (low + high) / 2
    return round(middle) if dimension.integer else middle


# -- decays that are possible ---------------------------------------------------------------------------------------


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


# -- values as Optuna holds them --------------------------------------------------------------------------------------


def encoded(choice: Any) -> Any:
    """A choice as Optuna can hold it: lists and mappings as JSON.

    >>> encoded([64, 32]), encoded("relu")
    ('[64, 32]', 'relu')
    """
    return choice if choice is None or isinstance(choice, str | int | float | bool) else json.dumps(choice)
