"""Checks each key of a space: its form, its values, and the regularizer or network that it belongs to."""

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

from torch import nn

from wdsearch.messages import nearest, shown_path, shown_value
from wdsearch.population.user.model_kinds import product_of
from wdsearch.regularizers import REGULARIZERS, Regularizer
from wdsearch.study.file import Location
from wdsearch.study.schema import Dimension, Entry, Group, Source
from wdsearch.study.sources import Faults, arguments_of, builder_of, is_solo, misfit, refused
from wdsearch.study.space import encoded, is_integer

SMALLEST, LARGEST, MOST_STEPS, MOST_COUNTED = 1e-100, 1e100, 10**9, 2**53
_EXTREMES = "a range lies within ±1e100, and one in logarithms (a timescale too) above 1e-100"


def check_space(space: Mapping[str, Entry], model: Any, task: str | None) -> Faults:
    """Faults of every key; of those that depend on a model or task only if it is known.

    >>> space = {"dropout": Entry(low=0.0, high=1.2)}
    >>> [text for _, text in check_space(space, None, None)]
    ['space.dropout.high is 1.2; a dropout rate lies in [0, 1)...']
    """
    for key, dimension in space.items():
        path = ("space", key)
        yield from _form(path, dimension)
        if dimension.groups is not None:
            yield from _groups(path, dimension.groups, is_solo(model), task)
        elif is_solo(model):
            yield from _own_argument(path, dimension, model, task)
        elif key in REGULARIZERS:
            yield from _strength(path, REGULARIZERS[key], dimension, task)
        elif key == "lr":
            yield from _rate(path, dimension)
        elif key.startswith("model."):
            yield from _argument(path, dimension, model)
        else:
            yield path, f"space.{key} is not a known key{nearest(key, ['lr', 'model.<argument>', *REGULARIZERS])}"


# -- what holds for every key ------------------------------------------------------------------------------------


FORMS: tuple[set[str], ...] = ({"value"}, {"low", "high"}, {"choices"}, {"timescale"}, {"groups"})


def _form(path: Location, dimension: Dimension) -> Faults:
    """Faults of a dimension that is not one of: a fixed value, low and high, choices, timescale, groups."""
    where, keys = shown_path(path), _given(dimension)
    if len([form for form in FORMS if form & keys]) != 1:
        regularizer, within = REGULARIZERS.get(str(path[1])), len(path) > 2
        also = ["timescale"] if path[1] == "weight_decay" else []
        also += ["groups"] if regularizer and regularizer.acts_on and not within else []
        forms = ["a value: NUMBER" if within else "a number", "low and high", "choices", *also]
        yield path, f"{where} takes {', or '.join(forms)}"
        return
    if dimension.form == "range":
        yield from _range(path, dimension)
        return
    if dimension.timescale:
        low, high = dimension.timescale
        if not low < high:
            yield (*path, "timescale"), f"{where}.timescale runs from {low:g} to {high:g}; low must be below high"
        elif low < SMALLEST or high > LARGEST:
            yield (*path, "timescale"), f"{where}.timescale runs from {low:g} to {high:g}; {_EXTREMES}"
    for word in sorted(keys & {"log", "step"}):
        yield (*path, word), f"{where}.{word} goes with low and high only"


def _given(dimension: Dimension) -> set[str]:
    """The keys that were written, a key without a value not counted."""
    return {name for name in dimension.model_fields_set if name == "value" or getattr(dimension, name) is not None}


def _range(path: Location, dimension: Dimension) -> Faults:
    where, low, high = shown_path(path), dimension.low, dimension.high
    if low is None or high is None:
        yield path, f"{where} has only one of low and high; give both"
        return
    if not low < high:
        yield path, f"{where} runs from {low:g} to {high:g}; low must be below high"
    if dimension.log and low <= 0:
        neutral = " (off: true makes the neutral value reachable)" if path[1] in REGULARIZERS else ""
        yield (*path, "low"), f"{where}.low is {low:g}; a log range begins above 0{neutral}"
    elif max(abs(low), abs(high)) > LARGEST or (dimension.log and low < SMALLEST):
        yield path, f"{where} runs from {low:g} to {high:g}; {_EXTREMES}"
    elif is_integer(str(path[1]), dimension) and max(abs(low), abs(high)) > MOST_COUNTED:
        yield path, f"{where} runs from {low:g} to {high:g}; whole numbers are searched up to 2^53"
    if dimension.log and dimension.step is not None:
        yield (*path, "step"), f"{where}.step: a log range has no steps; leave out one of log and step"
    elif dimension.step is not None and low < high:
        yield from _step(path, low, high, dimension)


def _step(path: Location, low: float, high: float, dimension: Dimension) -> Faults:
    text = f"{shown_path(path)}.step is {dimension.step:g}"
    with localcontext(prec=1000):  # exact for all that a float can hold
        step, start, end = (Decimal(str(number)) for number in (dimension.step, low, high))
        steps = (end - start) // step
        last, whole = start + steps * step, not step % 1
    if is_integer(str(path[1]), dimension) and not whole:
        yield (*path, "step"), f"{text}; a range of whole numbers takes whole steps"
    elif not steps:
        yield (*path, "step"), f"{text}, more than from {low:g} to {high:g}; give a smaller one"
    elif steps > MOST_STEPS:
        yield (*path, "step"), f"{text}, a billionth of the range or less; leave it out"
    elif last != end:
        yield (*path, "step"), f"{text}, which does not divide {low:g} to {high:g}; give high: {last}"


def _values(path: Location, dimension: Dimension) -> list[tuple[Location, Any]]:
    """Every single value that a dimension names, with its key."""
    if dimension.choices is not None:
        return [((*path, "choices", index), choice) for index, choice in enumerate(dimension.choices)]
    bounds = [((*path, name), getattr(dimension, name)) for name in ("low", "high")]
    fixed = [(path, dimension.value)] if dimension.form == "fixed" else []
    return fixed + [(location, bound) for location, bound in bounds if bound is not None]


def _repeated(path: Location, dimension: Dimension) -> Faults:
    choices = [encoded(choice) for choice in dimension.choices or ()]
    for index, choice in enumerate(choices):
        if choice in choices[:index]:
            yield (*path, "choices"), f"{shown_path(path)}.choices holds {shown_value(choice)} twice"


# -- what each kind of key means -----------------------------------------------------------------------------------


def _groups(path: Location, groups: Sequence[Group], solo: bool, task: str | None) -> Faults:
    where, regularizer = shown_path(path), REGULARIZERS.get(str(path[1]))
    if solo:
        yield (*path, "groups"), f"{where}.groups: an own LightningModule decides itself what a strength acts on"
        return
    if regularizer is None or regularizer.acts_on is None:
        known = ", ".join(key for key, known in REGULARIZERS.items() if known.acts_on)
        yield (*path, "groups"), f"{where}.groups: only those of {known} can differ from layer to layer"
        return
    for index, group in enumerate(groups):
        location = (*path, "groups", index)
        yield from _form(location, group)
        yield from _strength(location, regularizer, group, task)
        if group.label in [other.label for other in groups[:index]]:
            yield (
                location,
                f"{shown_path(location)} is called {group.label}, as one before it; give it another name: ...",
            )


def _strength(path: Location, regularizer: Regularizer, dimension: Dimension, task: str | None) -> Faults:
    where = shown_path(path)
    if task is not None and task not in regularizer.tasks:
        yield path, f"{where} works for {' and '.join(regularizer.tasks)}; this study's task is {task}"
    if dimension.timescale is not None and regularizer.key != "weight_decay":
        yield (*path, "timescale"), f"{where}.timescale: only weight_decay has a timescale; give low and high"
    faults = [*_outside(path, regularizer, dimension)]
    yield from faults or _repeated(path, dimension)
    if dimension.off and dimension.form == "fixed":
        yield (*path, "off"), f"{where}.off: a fixed value is always on; give a range, or leave the key out"


def _outside(path: Location, regularizer: Regularizer, dimension: Dimension) -> Faults:
    name = {"dropout": "a dropout rate"}.get(regularizer.key, regularizer.key)
    for location, value in _values(path, dimension):
        number, text = _number(value), f"{shown_path(location)} is {shown_value(value)}"
        if number not in regularizer.domain:
            yield location, f"{text}; {name} lies in {regularizer.domain}"
        elif regularizer.integer and number != math.inf and number % 1:
            yield location, f"{text}; {name} counts {regularizer.unit}"


def _number(value: Any) -> float:
    """A value as a number; NaN, which no interval holds, if it is none or too large for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _rate(path: Location, dimension: Dimension) -> Faults:
    faults = [
        (location, f"{shown_path(location)} is {shown_value(value)}; a learning rate lies in (0, ∞)")
        for location, value in _values(path, dimension)
        if not 0 < _number(value) < math.inf
    ]
    yield from faults or _repeated(path, dimension)
    yield from _only_of_regularizers(path, dimension)


def _only_of_regularizers(path: Location, dimension: Dimension) -> Faults:
    for word in ("off", "timescale"):
        if getattr(dimension, word):
            yield (*path, word), f"{shown_path(path)}.{word}: only a regularizer has it; give low and high or choices"


def _argument(path: Location, dimension: Dimension, model: Any) -> Faults:
    yield from _only_of_regularizers(path, dimension)
    faults = [
        (
            location,
            f"{shown_path(location)} is {shown_value(value)}; allowed are finite numbers, text, true, false, lists of them",
        )
        for location, value in _values(path, dimension)
        if not _can_be_stored(value)
    ]
    yield from faults or _repeated(path, dimension)
    if model is not None and not faults:
        yield from _unfit(path, dimension, model)


def _own_argument(path: Location, dimension: Dimension, model: Any, task: str | None) -> Faults:
    """An own LightningModule is searched by its constructor's arguments, whatever they are called."""
    key = str(path[1])
    if dimension.timescale is not None:
        text = "a timescale needs to know the steps and the schedule, which an own LightningModule keeps to itself"
        yield (*path, "timescale"), f"{shown_path(path)}.timescale: {text}; give low and high"
    elif key in REGULARIZERS:
        yield from _strength(path, REGULARIZERS[key], dimension, task)
        yield from _unfit(path, dimension, model)
    elif key == "lr":
        yield from _rate(path, dimension)
        yield from _unfit(path, dimension, model)
    else:
        yield from _argument(path, dimension, model)


def _can_be_stored(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _unfit(path: Location, dimension: Dimension, model: Any) -> Faults:
    """Faults of an argument that the network's builder does not have; of ours also of values that it refuses."""
    where = shown_path(path)
    name = str(path[1]) if is_solo(model) else str(path[1]).removeprefix("model.")
    if isinstance(model, nn.Module):
        yield path, f"{where}: the model is an object already built; give its class_path, or a function that builds it"
    builder = builder_of(model)
    if builder is None:
        return
    known = arguments_of(builder)
    if known is not None and (name.partition(".")[0] if is_solo(model) else name) not in known:
        called = getattr(builder, "__name__", None) or getattr(product_of(builder), "__name__", "the model")
        yield path, f"{where}: {name or repr(name)} is not an argument of {called}{nearest(name, known)}"
        return
    for location, value in _values(path, dimension) if refused(model, {}) is None else ():
        text = f"{shown_path(location)} is {shown_value(value)}"
        if kind := misfit(builder, name, value) if _is_ours(model) else None:
            yield location, f"{text}; allowed is {kind}"
        elif refusal := refused(model, {name: value}):
            yield location, f"{text}; {model.name} refuses it: {refusal}"


def _is_ours(model: Any) -> bool:
    return isinstance(model, Source) and model.name is not None
