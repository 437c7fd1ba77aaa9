"""The search space: from a study to Optuna's distributions, and from a trial's parameters to a configuration."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from wdsearch.regularizers import REGULARIZERS
from wdsearch.schema import Dimension, StudyConfig
from wdsearch.sources import default_of
from wdsearch.studyfile import Fault, StudyFileError

TIMESCALE, GATE = ".timescale", ".on"


@dataclass(frozen=True)
class Configuration:
    """One point of the space: learning rate, strengths by key, and arguments that change the network's."""

    lr: float
    strengths: dict[str, float]
    model: dict[str, Any]


def distributions(config: StudyConfig) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every searched key.

    The encoding is flat: a gate `<key>.on` stands beside the value, which is sampled even where the gate is off, so
    that a sampler models all keys jointly.
    """
    found: dict[str, BaseDistribution] = {}
    for key, dimension in config.space.items():
        if dimension.form != "fixed":
            found[key + TIMESCALE if dimension.form == "timescale" else key] = _distribution(key, dimension)
        if dimension.off:
            found[key + GATE] = CategoricalDistribution((True, False))
    return found


def _distribution(key: str, dimension: Dimension) -> BaseDistribution:
    if dimension.timescale is not None:
        return FloatDistribution(*dimension.timescale, log=True)
    if dimension.choices is not None:
        return CategoricalDistribution([encoded(choice) for choice in dimension.choices])
    assert dimension.low is not None
    assert dimension.high is not None
    if is_integer(key, dimension):
        step = int(dimension.step or 1)
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=step)
    return FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log, step=dimension.step)


def is_integer(key: str, dimension: Dimension) -> bool:
    """Regularizers say whether they count; an argument of the model does if its range is written in whole numbers."""
    return REGULARIZERS[key].integer if key in REGULARIZERS else key != "lr" and dimension.integer


def configuration(config: StudyConfig, params: Mapping[str, Any], rate_sum: float) -> Configuration:
    """The configuration of a trial's parameters.

    `rate_sum` is the sum of the schedule's factors over all steps: a timescale τ is λ = 1/(η·rate_sum·τ), the number of
    training lengths in which decay alone shrinks a weight by e (Wang & Aitchison 2405.13698).
    """
    values = {key: _value(key, dimension, params) for key, dimension in config.space.items()}
    lr = float(values.pop("lr", config.optimizer.lr))
    strengths, model = {}, {}
    for key, value in values.items():
        if key in REGULARIZERS:
            timescale = config.space[key].form == "timescale"
            strengths[key] = 1.0 / (lr * rate_sum * value) if timescale else float(value)
            if not params.get(key + GATE, True):
                strengths[key] = REGULARIZERS[key].neutral
        else:
            model[key.removeprefix("model.")] = value
    return Configuration(lr, strengths, model)


def _value(key: str, dimension: Dimension, params: Mapping[str, Any]) -> Any:
    if dimension.form == "fixed":
        return dimension.value
    if dimension.choices is not None:
        return next(choice for choice in dimension.choices if encoded(choice) == params[key])
    return params[key + TIMESCALE if dimension.form == "timescale" else key]


def baseline(config: StudyConfig) -> Configuration:
    """The unregularized baseline: every strength neutral, the study's own rate and network."""
    rate = config.space.get("lr")
    strengths = {key: REGULARIZERS[key].neutral for key in config.space if key in REGULARIZERS}
    model = {
        name: _unsearched(config.model, name, dimension)
        for key, dimension in config.space.items()
        if (name := key.removeprefix("model.")) != key
    }
    return Configuration(float(rate.value if rate and rate.form == "fixed" else config.optimizer.lr), strengths, model)


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
    assert dimension.low is not None
    assert dimension.high is not None
    low, high = dimension.low, dimension.high
    middle = math.sqrt(low * high) if dimension.log else (low + high) / 2
    return round(middle) if dimension.integer else middle


def check_timescales(config: StudyConfig, rate_sum: float, largest_factor: float) -> None:
    """Raise StudyFileError if the shortest timescale would decay weights by all of themselves in one step (ηλ ≥ 1)."""
    dimension = config.space.get("weight_decay")
    if dimension is None or dimension.timescale is None:
        return
    least = largest_factor / rate_sum
    if dimension.timescale[0] <= least:
        text = (
            f"space.weight_decay.timescale begins at {dimension.timescale[0]:g}, where lr·λ reaches 1 and a single "
            f"step erases the weights; with this budget and schedule it must be above {least:.3g}"
        )
        raise StudyFileError([Fault(config.study, None, text)])


def encoded(choice: Any) -> Any:
    """A choice as Optuna can hold it: lists and mappings as JSON."""
    return choice if choice is None or isinstance(choice, str | int | float | bool) else json.dumps(choice)
